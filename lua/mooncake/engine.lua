-- engine.lua - one process's part in the cluster, as an object.
--
-- The engine lives until e:close(), or until the collector finds that neither it nor
-- any buffer, segment or future of it is held.

local ffi = require "ffi"
local C = require "mooncake.ffi"
local buffer = require "mooncake.buffer"
local engines = require "mooncake.engines"
local failed = require "mooncake.failed"
local future = require "mooncake.future"
local matrix = require "mooncake.matrix"
local ready = require "mooncake.ready"
local request = require "mooncake.request"
local segment = require "mooncake.segment"

local Engine = {}
Engine.__index = Engine

local engine = {}

local OPTIONS = {
   name = "string", listen = "string", advertise = "string", registry = "string",
   transports = "string", devices = "string", topology = "string", key_file = "string",
   tls_cert = "string", tls_key = "string", tls_ca = "string", profile = "string",
   fault = "string", streams = "number", workers = "number", spin_us = "number",
   timeout_ms = "number", slice_bytes = "number",
}

local function fill(opts, level)
   local o, keep = ffi.new "struct mc_options", {}
   for k, v in pairs(opts) do
      local kind = OPTIONS[k]
      if not kind then error(("unknown option '%s'"):format(tostring(k)), level + 1) end
      if k == "topology" then v = matrix.text(v) end
      if type(v) == "table" then v = table.concat(v, ",") end
      if type(v) ~= kind then
         error(("option '%s' is a %s, not a %s"):format(k, kind, type(v)), level + 1)
      end
      keep[k], o[k] = v, v
   end
   return o, keep
end

engine.fill = fill

-- A dropped future's batch is canceled, and waited for, before its id goes back. The
-- closure holds the engine's handle: the collector then takes that one later; when the
-- whole state ends there is no order, hence the look at life.closed.
local function reaper(handle, life)
   return function(id)
      if life.closed then return end
      local r = ffi.new "struct mc_result"
      C.mc_cancel(handle, id[0])
      C.mc_wait(handle, id[0], 1000, r)
      C.mc_batch_free(handle, id[0])
   end
end

-- Start an engine; the fields of opts are those of struct mc_options.
function engine.open(opts)
   local o, keep = fill(opts or {}, 3)
   local out = ffi.new "struct mc_engine *[1]"
   local r = C.mc_open(out, o)
   if r < 0 then return failed(r) end
   local life = { closed = false, options = keep }
   local handle = ffi.gc(out[0], function(e)
      life.closed = true
      C.mc_close(e)
   end)
   local self = setmetatable({
      c = handle, life = life, reap = reaper(handle, life), anchors = {}, segs = {},
      ended = {}, one = ffi.new "struct mc_req[1]", res = ffi.new "struct mc_result",
   }, Engine)
   engines.add(self)
   return self
end

function Engine:handle()
   return self.c or error("the engine is closed", 3)
end

-- Cancel what is in flight, and free all.
function Engine:close()
   local c = self.c
   if not c then return end
   self.c, self.life.closed = nil, true
   C.mc_close(ffi.gc(c, nil))
   self.anchors, self.segs, self.stage = {}, {}, nil
end

function Engine:name() return ffi.string(C.mc_engine_name(self:handle())) end
function Engine:addr() return ffi.string(C.mc_engine_addr(self:handle())) end
function Engine:epoch() return C.mc_engine_epoch(self:handle()) end
function Engine:fd() return C.mc_engine_fd(self:handle()) end

-- Memory: see buffer.lua.
function Engine:alloc(len, opts)
   local b, why, errno = buffer.alloc(self, len, opts)
   return b, why, errno
end

function Engine:register(memory, len, opts)
   local b, why, errno = buffer.register(self, memory, len, opts)
   return b, why, errno
end

function Engine:buffers()
   local e = self:handle()
   return buffer.list(function(skip, out, max)
      return C.mc_buffer_list(e, skip, out, max)
   end)
end

function Engine:segment(name, timeout_ms)
   return segment.open(self, name, timeout_ms)
end

-- The message of a transfer that failed: the batch's own, which is longer-lived.
function Engine:why(r)
   local res = self.res
   if res.err == r and res.why[0] ~= 0 then return nil, ffi.string(res.why), -r end
   return failed(r)
end

-- Submit and wait. reqs is a list of { op = "read" or "write", segment, buf, remote,
-- len } - or, to gather and scatter, local_ranges and remote_ranges, lists of
-- { addr, len } - or an array of mooncake.reqs(n). opts: timeout_ms, notify = { segment,
-- name, msg }, workers_only, weights; first and n for a part of an array. The result,
-- or nil, why, errno, result.
function Engine:transfer(reqs, opts)
   local list, n, keep = request.build(reqs, opts, 2)
   local o, weights = request.opts(opts, 2)
   self.kept = { keep, weights }
   self.res.err = 0
   local r = C.mc_transfer(self:handle(), list, n, o, self.res)
   if r >= 0 then return request.result(self.res) end
   local _, why, errno = self:why(r)
   return nil, why, errno, request.result(self.res)
end

-- As transfer(), without waiting: a future.
function Engine:submit(reqs, opts)
   local f, why, errno = future.submit(self, reqs, opts)
   return f, why, errno
end

-- ---- notifications ---------------------------------------------------------

function Engine:notify(to, name, msg, timeout_ms)
   msg = msg or ""
   local id = type(to) == "table" and to.id or to
   local r = C.mc_notify_send(self:handle(), id, name, msg, #msg, timeout_ms or 1000)
   if r < 0 then return failed(r) end
   return true
end

local function take(self)
   local n = ffi.new "struct mc_notify"
   local r = C.mc_notify_next(self:handle(), n)
   if r < 0 then return failed(r) end
   if r == 0 then return nil end
   local t = {
      from = ffi.string(n.from), name = ffi.string(n.name),
      msg = ffi.string(n.msg, n.len),
   }
   C.mc_notify_free(n)
   return t
end

-- The oldest notification as { from, name, msg }, or nil if none comes in time (0 or
-- nil: now; negative: wait for ever).
function Engine:next_notify(timeout_ms)
   local t, why, errno = take(self)
   if t or why or not timeout_ms or timeout_ms == 0 then return t, why, errno end
   local stop = timeout_ms > 0 and tonumber(C.mc_now_ns()) + timeout_ms * 1e6
   repeat
      local left = stop and (stop - tonumber(C.mc_now_ns())) / 1e6 or -1
      if stop and left <= 0 then return nil end
      ready.wait({ self:fd() }, left)
      self:drain()
      t, why, errno = take(self)
   until t or why
   return t, why, errno
end

-- Ids of batches that have ended, so that the descriptor is quiet again.
function Engine:drain()
   local ids = ffi.new "uint64_t[64]"
   repeat
      local n = C.mc_completed(self:handle(), ids, 64)
      for i = 0, n - 1 do
         if #self.ended < 65536 then self.ended[#self.ended + 1] = ids[i] end
      end
   until n < 64
end

-- The ids of futures (f.id[0]) that have ended since the last call, oldest first.
function Engine:completed()
   self:drain()
   local list = self.ended
   self.ended = {}
   return list
end

-- ---- what goes on ----------------------------------------------------------

local RAIL_STATE = { [0] = "new", "up", "quarantined", "absent" }

local function rail(i)
   local hist = {}
   for b = 0, C.MC_HIST_BUCKETS - 1 do hist[b + 1] = tonumber(i.hist[b]) end
   return {
      peer = ffi.string(i.peer), transport = ffi.string(i.transport),
      local_dev = ffi.string(i.local_dev), remote_dev = ffi.string(i.remote_dev),
      state = RAIL_STATE[tonumber(i.state)], segment = i.segment,
      bytes_read = tonumber(i.bytes_read), bytes_written = tonumber(i.bytes_written),
      slices = tonumber(i.slices), notes = tonumber(i.notes), errors = tonumber(i.errors),
      local_errors = tonumber(i.local_errors), connects = tonumber(i.connects),
      inflight = tonumber(i.inflight), bw = i.bw, latency_us = i.latency_us,
      hist = hist, why = ffi.string(i.why),
   }
end

-- The rails to all open segments, best first: a list of tables.
function Engine:rails()
   local out, list = ffi.new "struct mc_rail_info[32]", {}
   while true do
      local n = C.mc_rail_list(self:handle(), #list, out, 32)
      if n < 0 then return failed(n) end
      for i = 0, n - 1 do list[#list + 1] = rail(out[i]) end
      if n < 32 then return list end
   end
end

-- The connections that other engines made to this one, newest first.
function Engine:connections()
   local out, list = ffi.new "struct mc_connection_info[32]", {}
   while true do
      local n = C.mc_connection_list(self:handle(), #list, out, 32)
      if n < 0 then return failed(n) end
      for i = 0, n - 1 do
         local c = out[i]
         list[#list + 1] = {
            peer = ffi.string(c.peer), from = ffi.string(c.from), epoch = c.epoch,
            age = tonumber(c.age_ns) / 1e9, bytes_in = tonumber(c.bytes_in),
            bytes_out = tonumber(c.bytes_out),
         }
      end
      if n < 32 then return list end
   end
end

local STATS = { "bytes_read", "bytes_written", "served_read", "served_written", "batches",
                "requests", "slices", "retries", "failed", "canceled", "buffers", "peers",
                "connections", "refused", "rejected" }

function Engine:stats()
   local s, t = ffi.new "struct mc_stats", {}
   local r = C.mc_stats(self:handle(), s)
   if r < 0 then return failed(r) end
   for _, k in ipairs(STATS) do t[k] = tonumber(s[k]) end
   return t
end

-- Which of its devices it uses first for memory at a location; see matrix.lua.
function Engine:topology()
   return matrix.read(function(out, size)
      return C.mc_engine_topology(self:handle(), out, size)
   end)
end

-- The open segments, by id.
function Engine:segments()
   local list = {}
   for _, s in pairs(self.segs) do list[#list + 1] = s end
   table.sort(list, function(a, b) return a.id < b.id end)
   return list
end

-- ---- Lua text from peers ---------------------------------------------------

function Engine:eval_allow(on)
   local r = C.mc_eval_allow(self:handle(), on)
   if r < 0 then return failed(r) end
   return true
end

-- The next text as { id, from, text }, or nil.
function Engine:eval_next(timeout_ms)
   local x = ffi.new "struct mc_eval"
   local r = C.mc_eval_next(self:handle(), timeout_ms or 0, x)
   if r < 0 then return failed(r) end
   if r == 0 then return nil end
   return { id = x.id, from = ffi.string(x.from), text = ffi.string(x.text, x.len) }
end

function Engine:eval_reply(id, text, is_error)
   if is_error then text = "\1" .. text end
   local r = C.mc_eval_reply(self:handle(), id, 0, text, #text)
   if r < 0 then return failed(r) end
   return true
end

-- ---- inside ----------------------------------------------------------------

-- Memory for strings on their way; requests need registered memory.
function Engine:staging(len)
   if not self.stage then
      local b, why, errno = buffer.alloc(self, len, { access = "local" })
      if not b then return nil, why, errno end
      self.stage = b
   end
   return self.stage
end

function Engine:__tostring()
   return self.c and "engine " .. self:name() or "engine (closed)"
end

return engine
