-- request.lua - tables of requests and options as the structs of mooncake.h.

local ffi = require "ffi"
local C = require "mooncake.ffi"

local request = {}

local OP = { read = C.MC_READ, write = C.MC_WRITE }
local REQ = { op = 1, segment = 1, buf = 1, remote = 1, len = 1, local_ranges = 1,
              remote_ranges = 1 }
local OPTS = { timeout_ms = 1, notify = 1, workers_only = 1, weights = 1, first = 1,
               n = 1 }
local NOTIFY = { segment = 1, name = 1, msg = 1 }

local array_t = ffi.typeof "struct mc_req[?]"
local ranges_t = ffi.typeof "struct mc_range[?]"
local weights_t = ffi.typeof "double[?]"
local size = ffi.sizeof "struct mc_req"

local function known(t, keys, what, level)
   for k in pairs(t) do
      if not keys[k] then
         error(("%s: unknown field '%s'"):format(what, tostring(k)), level + 1)
      end
   end
end

-- An array of n requests to fill in and to submit as often as you like.
function request.array(n)
   return array_t(n)
end

-- A local address: a number, a pointer, or a Buffer.
function request.pointer(x, level)
   local kind = type(x)
   if kind == "table" and x.ptr then return ffi.cast("void *", x.ptr) end
   if kind == "number" then return ffi.cast("void *", ffi.cast("uintptr_t", x)) end
   if kind == "cdata" then
      local v = ffi.istype("uint64_t", x) and ffi.cast("uintptr_t", x) or x
      return ffi.cast("void *", v)
   end
   error("a local address is a number, a pointer or a buffer, not " .. kind, level + 1)
end

-- An address in the peer's memory: a number, or what segment:buffers() lists.
function request.remote(x, level)
   local addr = type(x) == "table" and x.addr or x
   if type(addr) == "number" or ffi.istype("uint64_t", addr) then return addr end
   error("a remote address is a number or an entry of segment:buffers()", level + 1)
end

local function ranges(list, far, level)
   local out = ranges_t(#list)
   for i, range in ipairs(list) do
      local addr = range.addr or range[1]
      out[i - 1].addr = far and request.remote(addr, level + 1) or
         ffi.cast("uintptr_t", request.pointer(addr, level + 1))
      out[i - 1].len = range.len or range[2]
   end
   return out, #list
end

local function one(req, t, keep, level)
   known(t, REQ, "request", level + 1)
   req.op = OP[t.op] or error("request: op is 'read' or 'write'", level + 1)
   local s = t.segment
   req.segment = type(s) == "table" and s.id or s or
                 error("request: no segment", level + 1)
   if t.local_ranges or t.remote_ranges then
      local near = t.local_ranges or { { t.buf, t.len } }
      local far = t.remote_ranges or { { request.remote(t.remote, level + 1), t.len } }
      local a, n = ranges(near, false, level + 1)
      local b, m = ranges(far, true, level + 1)
      req.locals, req.n_locals, req.remotes, req.n_remotes = a, n, b, m
      keep[#keep + 1], keep[#keep + 2] = a, b
      return
   end
   req.buf = request.pointer(t.buf, level + 1)
   req.remote = request.remote(t.remote, level + 1)
   req.len = t.len or type(t.buf) == "table" and t.buf.len or
             error("request: no len", level + 1)
end

-- The array and its number of requests; keep what comes third until they are submitted.
-- A prepared array passes as it is, or from opts.first (counted from 0) opts.n of it.
function request.build(reqs, opts, level)
   if type(reqs) == "cdata" then
      local all = ffi.sizeof(reqs) / size
      local first = opts and opts.first or 0
      local n = opts and opts.n or all - first
      if first < 0 or n < 0 or first + n > all then
         error(("requests %d to %d of %d"):format(first, first + n - 1, all), level + 1)
      end
      return reqs + first, n
   end
   if reqs.op then reqs = { reqs } end
   local out, keep = array_t(#reqs), {}
   for i, t in ipairs(reqs) do one(out[i - 1], t, keep, level + 1) end
   return out, #reqs, keep
end

-- Options of a batch as a struct, or nil where they are the defaults.
function request.opts(opts, level)
   if not opts then return nil end
   known(opts, OPTS, "options", level + 1)
   local o, keep = ffi.new "struct mc_batch_opts", nil
   o.timeout_ms = opts.timeout_ms or 0
   o.workers_only = opts.workers_only and 1 or 0
   local note = opts.notify
   if note then
      known(note, NOTIFY, "notify", level + 1)
      local msg = note.msg or ""
      o.notify_segment = type(note.segment) == "table" and note.segment.id or note.segment
      o.notify_name, o.notify_len = note.name, #msg
      o.notify_msg = ffi.cast("const char *", msg)
   end
   if opts.weights then
      keep = weights_t(#opts.weights, opts.weights)
      o.weights = keep
   end
   return o, keep
end

local STATE = { [0] = "pending", "completed", "failed", "canceled" }

function request.state(r) return STATE[tonumber(r.state)] end

-- An outcome as a table; where something failed, with why.
function request.result(r)
   local t = {
      state = STATE[tonumber(r.state)], bytes = tonumber(r.bytes), done = r.done,
      failed = r.failed,
   }
   if r.err < 0 then
      t.errno = -r.err
      t.why = ffi.string(r.why)
   end
   return t
end

return request
