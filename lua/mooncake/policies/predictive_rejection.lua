-- predictive_rejection.lua - as early_rejection, by the load of decode that is expected
-- when the prefill will be over: for the pool of decode instances, every request decoding
-- for as long as the mean (arXiv 2407.00079, 7.4).

return {
   options = { load = { 1, "refuse above" } },
   admit = function(request, cluster, prefill, decode, source, options)
      if not cluster:keeps_ttft(request, prefill, source, options.load) then
         return false, "TTFT over its SLO"
      end
      if cluster.tbt_slo_s == 0 then return true end
      local at_s = cluster.now_s + cluster:ttft_s(request, prefill, source)
      local sequences, context_tokens = cluster:forecast(at_s)
      return cluster:pool_keeps_tbt(request, decode, sequences, context_tokens,
                options.load), "TBT expected over its SLO"
   end,
}
