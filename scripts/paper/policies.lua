-- policies.lua - C: what choosing the prefill instance is worth, as mean TTFT.

local setup = require "paper.setup"

local POLICIES = { "random", "least_loaded", "local_cache", "kvcache_centric" }

-- Complete a part that has names and mean_ttft_s, one for each policy, and load(seed).
local function part(t)
   t.figures, t.ratios = {}, {}
   for i, name in ipairs(POLICIES) do
      t.figures[i] = { name, t.names[i], t.mean_ttft_s[i], "s" }
      local worse = POLICIES[i - 1]
      t.ratios[#t.ratios + 1] = worse and { t.names[i - 1] .. " over " .. t.names[i],
         t.mean_ttft_s[i - 1] / t.mean_ttft_s[i],
         function(f) return f[worse] / f[name] end, why = t.why } or nil
   end
   t.orders = { { table.concat(t.names, " > "), function(f)
      return f.random > f.least_loaded and f.least_loaded > f.local_cache and
             f.local_cache > f.kvcache_centric
   end } }
   function t.sample(seed)
      local f = {}
      for _, name in ipairs(POLICIES) do
         f[name] = setup.run { cluster = "8P+8D", policy = name, seed = seed + 1,
                               load = t.load(seed) }.ttft_s.mean
      end
      return f
   end
   return t
end

local C1 = part {
   id = "C1", title = "Mean TTFT by policy, conversation", source = "FAST Fig. 5",
   conversation = true, load = setup.conversation,
   setup = { "8P+8D." },
   names = { "random", "load balance", "local cache-aware", "global cache-aware" },
   mean_ttft_s = { 19.65, 5.27, 3.58, 3.07 },
   note = [[all four wait 2.4 to 3 times longer there, random too, which needs no
      estimates: their prefill instances are busy for longer than the GPU time of FAST
      Fig. 8. With 1.3 times the cost ours are 18, 3.4, 2.1 and 1.8 s.]],
}

local C2 = part {
   id = "C2", title = "Mean TTFT by policy, real data", source = "arXiv Fig. 8",
   setup = { [[8P+8D, 23,000 requests of a generated trace, at twice its speed (as M,
      which has the same cluster and number; not said for this one).]] },
   names = { "random", "load balance", "cache-aware", "KVCache-centric" },
   mean_ttft_s = { 92.07, 60.41, 14.36, 6.26 },
   load = function(seed) return { synthetic = setup.real_data(seed), speed = 2 } end,
   why = [[prefill is saturated without a regard to caches and nearly so with it,
      where a few percent of load decide: at 0.9 times this speed ours are 88, 67, 2.8
      and 1.9 s. The first two are then as published, at this speed the last two.]],
}

return { C1, C2 }
