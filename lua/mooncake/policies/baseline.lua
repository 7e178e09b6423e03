-- baseline.lua - admission by the load of prefill at arrival, and by the load of decode
-- when the prefill is over: what is refused then was computed for nothing (arXiv
-- 2407.00079, 7.2). A load is what is expected over what was promised.

return {
   options = { load = { 1, "refuse above" } },
   admit = function(request, cluster, prefill, _, source, options)
      return cluster:keeps_ttft(request, prefill, source, options.load),
             "TTFT over its SLO"
   end,
   admit_decode = function(request, cluster, decode, options)
      return cluster:keeps_tbt(request, decode, options.load), "TBT over its SLO"
   end,
}
