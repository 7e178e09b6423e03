-- random.lua - prefill anywhere: what the others are compared with (FAST'25 paper,
-- Fig. 5; arXiv 2407.00079, Fig. 8).

return function(request, cluster)
   local prefill = math.floor(cluster:random() * cluster.prefill_n)
   return prefill, cluster:least_decode(request)
end
