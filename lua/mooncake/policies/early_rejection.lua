-- early_rejection.lua - admission at arrival, by the greater of the loads of prefill and
-- of the pool of decode instances as they are now: no prefill is wasted. Who is admitted
-- reaches decode only after a prefill, so admission swings (arXiv 2407.00079, 7.2 and
-- 7.3). A load is what is expected over what was promised.

return {
   options = { load = { 1, "refuse above" } },
   admit = function(request, cluster, prefill, decode, source, options)
      if not cluster:keeps_ttft(request, prefill, source, options.load) then
         return false, "TTFT over its SLO"
      end
      local sequences, context_tokens = cluster:decoding()
      return cluster:pool_keeps_tbt(request, decode, sequences, context_tokens,
                options.load), "TBT over its SLO"
   end,
}
