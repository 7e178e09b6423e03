-- trace.lua - request traces: reading them, and their statistics.
--
-- A request is { at_ns, input_tokens, output_tokens, block_tokens, n_blocks, blocks[i] },
-- as struct mc_trace_req of the C reader; one at a time, valid until the next.

local ffi = require "ffi"
local C = require "mooncake.ffi"
local lru = require "mooncake.lru"

local M = {}

local Reader = {}
Reader.__index = Reader

local function failed(r)
   return nil, ffi.string(C.mc_errmsg()), -r
end

local known = { format = true, block_tokens = true }

-- Open a trace file ("-": standard input): a reader, or nil, message, errno. Options:
-- format ("mooncake"), block_tokens.
function M.open(path, opts)
   local o = ffi.new "struct mc_trace_options"
   for k, v in pairs(opts or {}) do
      if not known[k] then error("trace.open: no option '" .. tostring(k) .. "'", 2) end
      o[k] = v
   end
   local out = ffi.new "struct mc_trace *[1]"
   local r = C.mc_trace_open(out, path, o)
   if r < 0 then return failed(r) end
   return setmetatable({ path = path, req = ffi.new "struct mc_trace_req",
      handle = ffi.gc(out[0], C.mc_trace_close) }, Reader)
end

-- The next request; nil at the end; nil, message, errno for a bad record.
function Reader:next()
   local r = C.mc_trace_next(self.handle, self.req)
   if r > 0 then return self.req end
   if r < 0 then return failed(r) end
end

-- for req in reader:each() do; a bad record is an error().
function Reader:each()
   return function()
      local req, why = self:next()
      if why then error(why, 0) end
      return req
   end
end

function Reader:rewind()
   local r = C.mc_trace_rewind(self.handle)
   if r < 0 then return failed(r) end
   return true
end

function Reader:format()
   return ffi.string(C.mc_trace_format(self.handle))
end

function Reader:close()
   if self.handle then
      C.mc_trace_close(ffi.gc(self.handle, nil))
      self.handle = nil
   end
end

-- ---- statistics ---------------------------------------------------------

-- The value below which @p of 100 lie; @sorted is a sorted list.
function M.percentile(sorted, p)
   return sorted[math.min(#sorted, math.floor(p / 100 * #sorted) + 1)]
end

local function summary(list)
   local sum = 0
   for i = 1, #list do sum = sum + list[i] end
   table.sort(list)
   local at = function(p) return M.percentile(list, p) end
   return { mean = sum / math.max(1, #list), p10 = at(10), p50 = at(50), p90 = at(90),
      p99 = at(99), max = list[#list] }
end

-- Give an index the blocks of a request: how many of its first blocks it had. Then each
-- is touched in order, and what was missing goes in.
function M.hits(index, req)
   local n = 0
   while n < req.n_blocks and index:find(req.blocks[n]) do n = n + 1 end
   for i = 0, req.n_blocks - 1 do
      local slot = index:find(req.blocks[i])
      if slot then index:touch(slot) else index:insert(req.blocks[i]) end
   end
   return n
end

local function shape(reader, all)
   local s = { requests = 0, blocks = 0, max_blocks = 0, continued = 0 }
   local input, output, sizes, hit, in_batch = {}, {}, {}, 0, 0
   local first, last
   for req in reader:each() do
      local at = tonumber(req.at_ns) / 1e6
      if at ~= last and last then
         sizes[#sizes + 1], in_batch = in_batch, 0
      end
      first, last, in_batch = first or at, at, in_batch + 1
      s.requests = s.requests + 1
      input[s.requests], output[s.requests] = req.input_tokens, req.output_tokens
      s.blocks = s.blocks + req.n_blocks
      s.max_blocks = math.max(s.max_blocks, req.n_blocks)
      s.block_tokens = req.block_tokens
      local n = M.hits(all, req)
      hit = hit + n
      if n > 1 then s.continued = s.continued + 1 end
   end
   sizes[#sizes + 1] = in_batch > 0 and in_batch or nil
   s.unique_blocks, s.span_ms = all.used, (last or 0) - (first or 0)
   s.input, s.output, s.batch = summary(input), summary(output), summary(sizes)
   s.batches = #sizes
   s.input_tokens_mean, s.output_tokens_mean = s.input.mean, s.output.mean
   s.hit_rate = { lru = { inf = hit / math.max(1, s.blocks) } }
   return s
end

-- What a trace is like: a table of requests, blocks, unique_blocks, span_ms, batches,
-- input, output and batch (each mean, p10 .. max), continued (requests that share more
-- than their first block with an earlier one), and hit_rate.lru[capacity] for "inf" and
-- each of @capacities, in blocks. Reads it once per capacity.
function M.stat(reader, capacities)
   local s = shape(reader, lru.new())
   for _, capacity in ipairs(capacities or {}) do
      assert(reader:rewind())
      local index, hit = lru.new(capacity), 0
      for req in reader:each() do hit = hit + M.hits(index, req) end
      s.hit_rate.lru[capacity] = hit / math.max(1, s.blocks)
   end
   return s
end

return M
