-- baseline.lua - admission by the load of prefill at arrival, and by the load of decode
-- when the prefill is over: what is refused then was computed for nothing (arXiv
-- 2407.00079, 7.2).

return {
   admit = function(request, cluster, prefill, _, source)
      return cluster:keeps_ttft(request, prefill, source), "TTFT over its SLO"
   end,
   admit_decode = function(request, cluster, decode)
      return cluster:keeps_tbt(request, decode), "TBT over its SLO"
   end,
}
