-- round_robin.lua - each instance in turn, whatever it does: what most routers do
-- unless told otherwise.

local last = -1

return function(request, cluster)
   last = (last + 1) % cluster.prefill_n
   return last, cluster:least_decode(request)
end
