-- local_cache.lua - the first token soonest, each instance with the prefix that it has:
-- Algorithm 1 without its second branch, "local cache-aware" in the FAST'25 paper
-- (Fig. 5), "cache-aware" in arXiv 2407.00079 (6.1, Fig. 8).

local function ttft_s(request, cluster, i)
   return cluster:ttft_s(request, i, i)
end

return function(request, cluster)
   return cluster:least_prefill(request, ttft_s), cluster:least_decode(request)
end
