-- policy.lua - a policy of one's own: the instance with the longest prefix, or one of a
-- few others, whichever gives the first token soonest. It looks at three instances
-- however many there are, and refuses what nobody would wait for:
--
--   mooncake sim traces/small.jsonl --policy examples/policy.lua
--   mooncake sim traces/small.jsonl --policy examples/policy.lua:others=4,patience=10

return {
   options = {
      others = { 2, "instances to look at beside the one with the prefix" },
      patience = { 60, "seconds to the first token that are too many" },
   },

   place = function(request, cluster, options)
      local best = cluster.best
      local best_s = cluster:ttft_s(request, best, best)
      for _ = 1, options.others do
         local i = math.floor(cluster:random() * cluster.prefill_n)
         local s = cluster:ttft_s(request, i, i)
         if s < best_s then best, best_s = i, s end
      end
      if best_s > options.patience then return nil, "nobody waits that long" end
      return best, cluster:least_decode(request)
   end,
}
