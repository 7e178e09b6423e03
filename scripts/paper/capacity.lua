-- capacity.lua - A and B: Mooncake against vLLM on 16 nodes, the conversation trace.

local setup = require "paper.setup"

local BOUNDS = { 100, 200, 300 }
local SYSTEMS = {
   { key = "mooncake", name = "Mooncake", tbt = { 96.6, 99.9, 100 }, gpu_s = 1.06 },
   { key = "plain", name = "vLLM", tbt = { 16.1, 38.8, 62.7 }, gpu_s = 1.66,
     ratio = { 5.98, 2.57, 1.59 }, gpu_ratio = 1.56 },     -- printed: 1 + 498 %, ...
   { key = "prefix", name = "prefix caching", tbt = { 15.1, 34.3, 55.9 }, gpu_s = 1.52,
     gpu_ratio = 1.43 },
   { key = "chunked", name = "chunked prefill", tbt = { 9.4, 28.8, 55.3 }, gpu_s = 2.02,
     gpu_ratio = 1.90 },
}
local MOONCAKE = SYSTEMS[1]

local function run(system, seed, gpu_only)
   local vllm = system ~= MOONCAKE and system.key or nil
   return setup.run { cluster = vllm and "16M" or "8P+8D", vllm = vllm,
                      gpu_only = gpu_only, load = setup.conversation(seed) }
end

-- ---- A ---------------------------------------------------------------------

local WHY_CHUNKED = [[ours costs what the chunks cost, and stalls decoding for as long
   as without chunks; theirs is slower, by more than its GPU time in B. How large the
   chunks were is not said. Tried: 512 to 8192 tokens; with 512, the default, each TBT
   is below 200 ms.]]

local WHY_PREFIX = [[prefix caching saves 8 % of the prefill and costs about as much
   in hashes: the two are as close here as there]]

local A = {
   id = "A", title = "Effective request capacity, conversation",
   source = "FAST Fig. 1, 6, 7", conversation = true,
   setup = { "Mooncake 8P+8D, kvcache_centric. vLLM 0.5.1, 16 nodes behind " ..
             setup.ROUTER .. "; chunks of " .. setup.CHUNK_TOKENS .. " tokens.",
             "TBT of a request: the mean of the longest tenth of its intervals." },
   figures = {}, ratios = {}, orders = {},
}

local function key(system, bound) return system.key .. bound end

for _, system in ipairs(SYSTEMS) do
   for b, bound in ipairs(BOUNDS) do
      A.figures[#A.figures + 1] = { key(system, bound),
         ("%s, TBT <= %d ms"):format(system.name, bound), system.tbt[b], "%" }
      A.ratios[#A.ratios + 1] = system ~= MOONCAKE and {
         ("Mooncake over %s, %d ms"):format(system.name, bound),
         system.ratio and system.ratio[b] or MOONCAKE.tbt[b] / system.tbt[b],
         function(f) return f[key(MOONCAKE, bound)] / f[key(system, bound)] end,
         why = system.key == "chunked" and WHY_CHUNKED or nil,
      } or nil
   end
end
for i, p in ipairs { "p50", "p90", "p99" } do
   A.figures[#A.figures + 1] = { p, "Mooncake, TBT " .. p, ({ 74, 92, 114 })[i], "ms" }
end

for _, bound in ipairs(BOUNDS) do
   A.orders[#A.orders + 1] = { bound .. " ms: Mooncake > each vLLM", function(f)
      local m = f["mooncake" .. bound]
      return m > f["plain" .. bound] and m > f["prefix" .. bound] and
             m > f["chunked" .. bound]
   end }
   A.orders[#A.orders + 1] = { bound .. " ms: vLLM > with prefix caching", function(f)
      return f["plain" .. bound] > f["prefix" .. bound]
   end, why = WHY_PREFIX }
   A.orders[#A.orders + 1] = { bound .. " ms: vLLM > with chunked prefill", function(f)
      return f["plain" .. bound] > f["chunked" .. bound]
   end, why = WHY_CHUNKED }
end

function A.sample(seed)
   local f = {}
   for _, system in ipairs(SYSTEMS) do
      local r, detail = run(system, seed)
      for _, bound in ipairs(BOUNDS) do
         f[key(system, bound)] = 100 * detail.figures.tbt_s:share(bound / 1000)
      end
      for _, p in ipairs(system == MOONCAKE and { "p50", "p90", "p99" } or {}) do
         f[p] = 1000 * r.tbt_s[p]
      end
   end
   return f
end

-- ---- B ---------------------------------------------------------------------

local B = {
   id = "B", title = "Prefill GPU seconds per request, conversation",
   source = "FAST Fig. 8", conversation = true,
   setup = { "As A, the cost without what serving adds." },
   figures = {}, ratios = {},
   orders = { { "Mooncake < prefix caching < vLLM < chunked prefill", function(f)
      return f.mooncake < f.prefix and f.prefix < f.plain and f.plain < f.chunked
   end } },
}

for _, system in ipairs(SYSTEMS) do
   B.figures[#B.figures + 1] = { system.key, system.name, system.gpu_s, "s" }
   B.ratios[#B.ratios + 1] = system.gpu_ratio and { system.name .. " over Mooncake",
      system.gpu_ratio, function(f) return f[system.key] / f.mooncake end } or nil
end

function B.sample(seed)
   local f = {}
   for _, system in ipairs(SYSTEMS) do
      f[system.key] = run(system, seed, true).prefill_gpu_s_per_request
   end
   return f
end

return { A, B }
