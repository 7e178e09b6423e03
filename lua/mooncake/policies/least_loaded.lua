-- least_loaded.lua - the instance whose queue ends first, be its cache what it may:
-- "load balance" in the papers (FAST'25, Fig. 5; arXiv 2407.00079, Fig. 8).

local function queue_s(_, cluster, i)
   return cluster.instances[i].queue_s
end

return function(request, cluster)
   return cluster:least_prefill(request, queue_s), cluster:least_decode(request)
end
