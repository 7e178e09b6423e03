-- kvcache_centric.lua - the first token soonest, and the prefix may come from where it
-- is longest: Algorithm 1 of the FAST'25 paper (4.2) and of arXiv 2407.00079 (6.2).
--
-- An instance fetches if the longest prefix is more than threshold times its own, and if
-- to fetch is faster than to compute. What is fetched is then in both caches: that is
-- how hot blocks multiply. The papers adjust the threshold by hand and print no value; on
-- the conversation trace 1 to 4 differ by less than 2 % in mean TTFT.
-- The last step of the algorithm, to refuse what would break a promise, is the admission
-- policy early_rejection.

local function fetches(cluster, i, options)
   return cluster.best_tokens > options.threshold * cluster.instances[i].prefix_tokens
end

local function ttft_s(request, cluster, i, options)
   local here = cluster:ttft_s(request, i, i)
   if not fetches(cluster, i, options) then return here end
   return math.min(here, cluster:ttft_s(request, i, cluster.best))
end

local function source_of(request, cluster, i, options)
   local best = cluster.best
   local faster = fetches(cluster, i, options) and
                  cluster:ttft_s(request, i, best) < cluster:ttft_s(request, i, i)
   return faster and best or i
end

return {
   options = { threshold = { 2, "fetch a prefix that is longer by more than this" } },
   place = function(request, cluster, options)
      local i = cluster:least_prefill(request, ttft_s, options)
      return i, cluster:least_decode(request), source_of(request, cluster, i, options)
   end,
}
