-- latency.lua - I: where the time of a lone request goes.

local ffi = require "ffi"
local setup = require "paper.setup"

-- Seconds, by thousands of tokens.
local LENGTHS = { 8, 16, 32, 64, 128 }
local PUBLISHED = {
   prefill = { [8] = 0.96, [16] = 2.07, [32] = 4.44, [64] = 10.56, [128] = 27.5 },
   cached = { [8] = 0.14, [16] = 0.23, [32] = 0.41, [64] = 0.89, [128] = 2.33 },
   transfer = { [8] = 0.05, [16] = 0.05, [32] = 0.12, [64] = 0.25, [128] = 0.49 },
   decode = { [8] = 3.4, [128] = 3.9 },
}
local STAGES = { { "prefill", "prefill" }, { "cached", "prefill, 95 % cached" },
   { "transfer", "transfer of 95 %" }, { "decode", "128 tokens decoded" } }

local BLOCK = 16                  -- so small that there are 95 % of 8k

local WHY_SHORT = [[a prefill of little is cheaper here: the fit is to lone prompts,
   and has nothing for reading a cached prefix. One that has (costs.published.cached)
   is further from the GPU seconds of B and E.]]

local I = {
   id = "I", title = "Latency of a lone request", source = "FAST Fig. 14", alone = true,
   setup = { [[The cost without what serving adds, which is fitted to prefill and
      decode of lone requests; the rest follows from it. What is cached is on another
      node.]] },
   figures = {},
   ratios = {
      { "128k, prefill with 95 % cached over without", 0.08,
        function(f) return f.cached128 / f.prefill128 end },
      { "128k, TTFT with 95 % cached over without", 0.14,
        function(f) return (f.cached128 + f.transfer128) / f.prefill128 end,
        why = "that is by the text; by the bars, (2.33 + 0.49) / 27.5 s, it is 0.10" },
   },
   orders = { { "transfer < cached prefill < prefill, at every length", function(f)
      for _, k in ipairs(LENGTHS) do
         if f["transfer" .. k] >= f["cached" .. k] or
            f["cached" .. k] >= f["prefill" .. k] then
            return false
         end
      end
      return true
   end } },
   note = WHY_SHORT,
}

for _, stage in ipairs(STAGES) do
   for _, k in ipairs(LENGTHS) do
      I.figures[#I.figures + 1] = { stage[1] .. k, ("%dk, %s"):format(k, stage[2]),
                                    PUBLISHED[stage[1]][k], "s" }
   end
end

-- Two requests, a minute apart: the second has 95 % of the first one's blocks.
local function pair(tokens)
   local n = tokens / BLOCK
   local shared = math.floor(0.95 * n)
   local blocks, req = ffi.new("uint64_t[?]", n), ffi.new "struct mc_trace_req"
   req.input_tokens, req.output_tokens, req.block_tokens = tokens, 129, BLOCK
   req.blocks, req.n_blocks = blocks, n
   local l = { first = req, blocks = blocks, given = 0 }
   function l.next(self)
      if self.given == 2 then return nil end
      for i = 0, n - 1 do blocks[i] = i < shared and i or i + self.given * n end
      req.at_ns = self.given * 60e9
      self.given = self.given + 1
      return req
   end
   function l.done() end
   return l
end

-- The first on node 0, the second on node 1 with the prefix of 0.
local POLICY = { asks_decode = false }

function POLICY.place(_, request)
   return tonumber(request.id), 2, 0
end

function I.sample()
   local f = {}
   for _, k in ipairs(LENGTHS) do
      local records = {}
      setup.run { cluster = "2P+1D", load = pair(k * 1024), gpu_only = true,
         policy = POLICY, on_record = function(r)
            records[tonumber(r.id)] = { fetch_s = r.ready_s - r.arrived_s,
               prefill_s = r.first_s - r.started_s, decode_s = r.done_s - r.joined_s }
         end }
      f["prefill" .. k], f["decode" .. k] = records[0].prefill_s, records[0].decode_s
      f["cached" .. k], f["transfer" .. k] = records[1].prefill_s, records[1].fetch_s
   end
   return f
end

return { I }
