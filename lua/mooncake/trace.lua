-- trace.lua - request traces: reading them, and their statistics.
--
-- A request is { at_ns, input_tokens, output_tokens, block_tokens, n_blocks, blocks[i] },
-- as struct mc_trace_req of the C reader; one at a time, valid until the next.

local ffi = require "ffi"
local C = require "mooncake.ffi"

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

-- What a trace is like, in a table: see mooncake.trace.statistics.
function M.stat(reader, opts)
   return require("mooncake.trace.statistics").of(reader, opts)
end

return M
