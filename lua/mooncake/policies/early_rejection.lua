-- early_rejection.lua - admission at arrival, by the greater of the loads of prefill and
-- of decode as they are now: no prefill is wasted. The load of decode lags by a prefill,
-- so admission swings (arXiv 2407.00079, 7.2 and 7.3).

return {
   admit = function(request, cluster, prefill, decode, source)
      if not cluster:keeps_ttft(request, prefill, source) then
         return false, "TTFT over its SLO"
      end
      return cluster:keeps_tbt(request, decode), "TBT over its SLO"
   end,
}
