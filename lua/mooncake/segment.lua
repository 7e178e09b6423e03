-- segment.lua - the memory of another engine: s.id, s.name, s:buffers(), s:write(),
-- s:read(). It keeps its engine alive.

local ffi = require "ffi"
local C = require "mooncake.ffi"
local buffer = require "mooncake.buffer"
local failed = require "mooncake.failed"
local matrix = require "mooncake.matrix"
local request = require "mooncake.request"

local Segment = {}
Segment.__index = Segment

local segment = {}

local STAGING = 2 ^ 20
local REPLY = 2 ^ 20

function segment.open(engine, name, timeout_ms)
   local id = C.mc_segment_open(engine:handle(), name, timeout_ms or 3000)
   if id < 0 then return failed(id) end
   local s = engine.segs[id]
   if not s then
      s = setmetatable({ engine = engine, id = id, name = name }, Segment)
      engine.segs[id] = s
   end
   return s
end

-- The buffers that its engine offers, asked for now: a list of { addr, len, id, access,
-- location } by address.
function Segment:buffers()
   local e = self.engine:handle()
   return buffer.list(function(skip, out, max)
      return C.mc_segment_list(e, self.id, skip, out, max)
   end)
end

-- What is known of it without asking: { name, addr, epoch, buffers, bytes }.
function Segment:stat()
   local i = ffi.new "struct mc_segment_info"
   local r = C.mc_segment_stat(self.engine:handle(), self.id, i)
   if r < 0 then return failed(r) end
   return {
      name = ffi.string(i.name), addr = ffi.string(i.addr), epoch = i.epoch,
      buffers = tonumber(i.buffers), bytes = tonumber(i.bytes),
   }
end

-- Which devices its engine uses first for memory at a location; see matrix.lua.
function Segment:topology()
   return matrix.read(function(out, size)
      return C.mc_segment_topology(self.engine:handle(), self.id, out, size)
   end)
end

-- Move len bytes and wait. The bytes moved, or nil, message, errno.
local function move(self, op, near, far, len, opts, level)
   local e, req = self.engine, self.engine.one
   req[0].op, req[0].segment = op, self.id
   req[0].buf = request.pointer(near, level + 1)
   req[0].remote = request.remote(far, level + 1)
   req[0].len = len or type(near) == "table" and near.len or
                error("how many bytes?", level + 1)
   local o
   o, e.kept = request.opts(opts, level + 1)
   local r = C.mc_transfer(e:handle(), req, 1, o, e.res)
   if r < 0 then return e:why(r) end
   return tonumber(e.res.bytes)
end

local function number(addr)
   return tonumber(type(addr) == "table" and addr.addr or addr)
end

local function write_string(self, text, far, opts)
   local stage, why, errno = self.engine:staging(STAGING)
   if not stage then return nil, why, errno end
   far = number(far)
   for at = 0, #text - 1, STAGING do
      local part = text:sub(at + 1, at + STAGING)
      stage:set(0, part)
      local n
      n, why, errno = move(self, C.MC_WRITE, stage, far + at, #part, opts, 3)
      if not n then return nil, why, errno end
   end
   return #text
end

-- Write from a buffer, pointer or address, or the bytes of a string, to an address in
-- the segment. opts as of engine:transfer().
function Segment:write(near, far, len, opts)
   if type(near) == "string" then
      if len and len < #near then near = near:sub(1, len) end
      return write_string(self, near, far, opts)
   end
   return move(self, C.MC_WRITE, near, far, len, opts, 2)
end

function Segment:read(near, far, len, opts)
   return move(self, C.MC_READ, near, far, len, opts, 2)
end

function Segment:read_string(far, len, opts)
   local stage, why, errno = self.engine:staging(STAGING)
   if not stage then return nil, why, errno end
   len = len or type(far) == "table" and far.len or error("how many bytes?", 2)
   far = number(far)
   local parts = {}
   for at = 0, len - 1, STAGING do
      local n = math.min(STAGING, len - at)
      local ok
      ok, why, errno = move(self, C.MC_READ, stage, far + at, n, opts, 2)
      if not ok then return nil, why, errno end
      parts[#parts + 1] = stage:string(0, n)
   end
   return table.concat(parts)
end

-- The round trip to its engine in microseconds.
function Segment:probe(timeout_ms)
   local us = ffi.new "double[1]"
   local r = C.mc_probe(self.engine:handle(), self.id, timeout_ms or 1000, us)
   if r < 0 then return failed(r) end
   return us[0]
end

function Segment:notify(name, msg, timeout_ms)
   return self.engine:notify(self, name, msg, timeout_ms)
end

-- Have the peer evaluate Lua text: what it printed and returned, or nil and its error.
-- An error of the text itself comes marked by its first byte.
function Segment:eval(text, timeout_ms)
   local out = ffi.new("char[?]", REPLY)
   local n = C.mc_eval_send(self.engine:handle(), self.id, text, #text,
                            timeout_ms or 10000, out, REPLY)
   if n < 0 then return failed(n) end
   local reply = ffi.string(out, math.min(tonumber(n), REPLY - 1))
   if reply:byte() == 1 then return nil, reply:sub(2), 0 end
   return reply
end

function Segment:close()
   local r = C.mc_segment_close(self.engine:handle(), self.id)
   if r < 0 then return failed(r) end
   self.engine.segs[self.id] = nil
   return true
end

function Segment:__tostring()
   return "segment " .. self.name
end

return segment
