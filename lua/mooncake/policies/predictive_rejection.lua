-- predictive_rejection.lua - admission at arrival, by the load of decode that is
-- expected when the prefill will be over: for all instances together, every request
-- decoding for as long as the mean (arXiv 2407.00079, 7.4).

local function tbt_s(request, cluster, at_s)
   local n = cluster.n - cluster.decode_first
   local sequences, context_tokens = cluster:forecast(at_s)
   return cluster:decode_s(sequences / n + 1, context_tokens / n + request.input_tokens)
end

return {
   admit = function(request, cluster, prefill, _, source)
      if not cluster:keeps_ttft(request, prefill, source) then
         return false, "TTFT over its SLO"
      end
      local slo_s = cluster.tbt_slo_s
      if slo_s == 0 then return true end
      local at_s = cluster.now_s + cluster:ttft_s(request, prefill, source)
      return tbt_s(request, cluster, at_s) <= slo_s, "TBT expected over its SLO"
   end,
}
