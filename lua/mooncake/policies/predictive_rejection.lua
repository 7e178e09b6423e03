-- predictive_rejection.lua - admission at arrival, by the load of decode that is
-- expected when the prefill will be over: for all instances together, every request
-- decoding for as long as the mean (arXiv 2407.00079, 7.4). Those that decode for longer
-- are missing then, so where answers differ in length it expects too little: load=0.7
-- does on the conversation trace what 0.9 does for the others.

local function tbt_s(request, cluster, decode, at_s)
   local n = cluster.n - cluster.decode_first
   local sequences, context_tokens = cluster:forecast(at_s)
   return cluster:joined_s(request, decode, sequences / n, context_tokens / n)
end

return {
   options = { load = { 1, "refuse above" } },
   admit = function(request, cluster, prefill, decode, source, options)
      if not cluster:keeps_ttft(request, prefill, source, options.load) then
         return false, "TTFT over its SLO"
      end
      local slo_s = cluster.tbt_slo_s * options.load
      if slo_s == 0 then return true end
      local at_s = cluster.now_s + cluster:ttft_s(request, prefill, source)
      return tbt_s(request, cluster, decode, at_s) <= slo_s, "TBT expected over its SLO"
   end,
}
