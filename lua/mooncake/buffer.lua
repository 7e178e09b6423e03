-- buffer.lua - memory that an engine knows: b.ptr (uint8_t *), b.addr (a number), b.len.
--
-- It stays registered until b:free() or the engine's close, also when no one in Lua
-- holds the object any more: peers do. A Buffer keeps its engine alive; a pointer that
-- was taken out of it does not.

local ffi = require "ffi"
local C = require "mooncake.ffi"
local failed = require "mooncake.failed"

local Buffer = {}
Buffer.__index = Buffer

local ACCESS = {
   ["local"] = C.MC_LOCAL, [""] = C.MC_LOCAL, r = C.MC_REMOTE_READ,
   w = C.MC_REMOTE_WRITE, rw = C.MC_REMOTE_RW,
}
local ALLOC = { access = true, huge = true, populate = true, node = true }
local REGISTER = { access = true, location = true }

local buffer = { names = { [0] = "local", "r", "w", "rw" } }

local function check(opts, known, level)
   for k in pairs(opts) do
      if not known[k] then
         error(("unknown option '%s'"):format(tostring(k)), level + 1)
      end
   end
   local access = ACCESS[opts.access or "rw"]
   if not access then error("access is 'r', 'w', 'rw' or 'local'", level + 1) end
   return access
end

local function size(len, level)
   if type(len) ~= "number" or len < 1 or len % 1 ~= 0 then
      error("a length in bytes is needed, a whole number above 0", level + 1)
   end
   return len
end

local function new(engine, ptr, len, owned)
   ptr = ffi.cast("uint8_t *", ptr)
   return setmetatable({
      engine = engine, ptr = ptr, len = len, owned = owned,
      addr = tonumber(ffi.cast("uintptr_t", ptr)),
   }, Buffer)
end

-- The bytes are new memory of the engine's, which peers on this host can map.
function buffer.alloc(engine, len, opts)
   opts = opts or {}
   local access = check(opts, ALLOC, 3)
   local flags = (opts.huge and C.MC_ALLOC_HUGE or 0) +
                 (opts.populate and C.MC_ALLOC_POPULATE or 0)
   local out = ffi.new "void *[1]"
   local r = C.mc_buffer_alloc(engine:handle(), size(len, 3), access, flags,
                               opts.node or -1, out)
   if r < 0 then return failed(r) end
   return new(engine, out[0], len, true)
end

-- The bytes are the caller's: a pointer and a length, or a string, which no peer may
-- then write. The engine holds on to what was passed, so that it is not collected.
function buffer.register(engine, memory, len, opts)
   if type(memory) == "string" then
      if type(len) == "table" then opts, len = len, nil end
      len = len or #memory
      opts = opts or { access = "r" }
      if len > #memory then error("longer than the string", 3) end
   end
   opts = opts or {}
   local access = check(opts, REGISTER, 3)
   if type(memory) == "string" and access >= C.MC_REMOTE_WRITE then
      error("a string cannot be written: access is 'r' or 'local'", 3)
   end
   local ptr = ffi.cast("void *", type(memory) == "number" and
                        ffi.cast("uintptr_t", memory) or ffi.cast("const void *", memory))
   local r = C.mc_buffer_reg(engine:handle(), ptr, size(len, 3), opts.location, access)
   if r < 0 then return failed(r) end
   local b = new(engine, ptr, len, false)
   engine.anchors[b.addr] = memory
   return b
end

-- Offset and length with their defaults, as a place in the buffer.
function Buffer:place(off, len)
   if not self.ptr then error("the buffer has been freed", 3) end
   off = off or 0
   len = len or self.len - off
   if off < 0 or len < 0 or off + len > self.len then
      error(("%d bytes at %d are not inside a buffer of %d"):format(len, off,
                                                                     self.len), 3)
   end
   return self.ptr + off, len
end

function Buffer:string(off, len)
   return ffi.string(self:place(off, len))
end

function Buffer:set(off, text)
   if text == nil then off, text = 0, off end
   ffi.copy(self:place(off, #text), text, #text)
   return self
end

-- Bytes that depend on the seed and on their distance from off.
function Buffer:fill(seed, off, len)
   local ptr, n = self:place(off, len)
   C.mc_fill(ptr, n, seed or 0)
   return self
end

-- A 64-bit checksum (a uint64_t: compare with ==, print with mooncake.hex).
function Buffer:hash(off, len, seed)
   local ptr, n = self:place(off, len)
   return C.mc_hash(ptr, n, seed or 0)
end

function Buffer:free()
   if not self.ptr then return true end
   local e = self.engine:handle()
   local r = self.owned and C.mc_buffer_free(e, self.ptr) or
             C.mc_buffer_unreg(e, self.ptr)
   if tonumber(r) < 0 then return failed(r) end
   self.engine.anchors[self.addr] = nil
   self.ptr = nil
   return true
end

Buffer.unregister = Buffer.free

function Buffer:__tostring()
   return ("buffer 0x%x+%d"):format(self.addr, self.len)
end

-- What struct mc_buffer_info says, as a table.
function buffer.info(i)
   return {
      addr = tonumber(i.addr), len = tonumber(i.len), id = i.id,
      access = buffer.names[i.access], location = ffi.string(i.location),
   }
end

local CHUNK = 1024

-- All that list(skip, out, max) yields, or nil, message, errno.
function buffer.list(list)
   local out, found = ffi.new("struct mc_buffer_info[?]", CHUNK), {}
   while true do
      local n = list(#found, out, CHUNK)
      if n < 0 then return failed(n) end
      for i = 0, n - 1 do found[#found + 1] = buffer.info(out[i]) end
      if n < CHUNK then return found end
   end
end

return buffer
