-- p2p.lua - the P2P store: named objects that every node fetches from every other.
--
--    local store = assert(mooncake.p2p { registry = "etcd://10.0.0.9:2379" })
--    assert(store:register("llama/7", { weights }))     -- a Buffer, { ptr, len }, text
--    ...
--    assert(store:get "llama/7")                        -- on any other node
--    assert(store:wait "llama/7")
--    local part = store:buffers("llama/7")[1]           -- { ptr, addr, len }
--
-- See mc_p2p_open() and what follows it in mooncake.h.

local ffi = require "ffi"
local C = require "mooncake.ffi"
local engine = require "mooncake.engine"
local failed = require "mooncake.failed"
local whole = require "mooncake.whole"

local Store = {}
Store.__index = Store

local p2p = {}

local OPTIONS = { registry = "string", lease_ms = "number", parallel = "number",
                  fanout = "number", neighbours = "number" }
local REGISTER = { shard_bytes = true, force = true, note = true }
local GET = { resume = true, timeout_ms = true }
local EAGAIN = 11
local LIST = 65536                              -- bytes of names, to begin with

local function known(opts, names, level)
   for k in pairs(opts or {}) do
      if not names[k] then
         error(("unknown option '%s'"):format(tostring(k)), level + 1)
      end
   end
   return opts or {}
end

-- opts: registry (a URL), lease_ms, parallel, fanout, neighbours, and for the store's
-- engine what mooncake.open() takes, its own registry as segment_registry.
function p2p.open(opts)
   local o, rest = ffi.new "struct mc_p2p_options", {}
   for k, v in pairs(opts) do
      if OPTIONS[k] and type(v) ~= OPTIONS[k] then
         error(("option '%s' is a %s, not a %s"):format(k, OPTIONS[k], type(v)), 2)
      end
      if OPTIONS[k] then
         o[k] = v
      else
         rest[k == "segment_registry" and "registry" or k] = v
      end
   end
   local e, keep = engine.fill(rest, 3)
   o.engine = e
   local out = ffi.new "struct mc_p2p *[1]"
   local r = C.mc_p2p_open(out, o)
   if r < 0 then return failed(r) end
   return setmetatable({ c = ffi.gc(out[0], C.mc_p2p_close), anchors = {},
                         kept = { keep, opts } }, Store)
end

function Store:handle()
   return self.c or error("the store is closed", 3)
end

-- Leave all objects, and free what is the store's.
function Store:close()
   if self.c then C.mc_p2p_close(ffi.gc(self.c, nil)) end
   self.c, self.anchors = nil, {}
end

-- "host:port" where peers reach this node.
function Store:addr()
   return ffi.string(C.mc_engine_addr(C.mc_p2p_engine(self:handle())))
end

-- What went over the network, as struct mc_stats.
function Store:traffic()
   local s = ffi.new "struct mc_stats"
   C.mc_stats(C.mc_p2p_engine(self:handle()), s)
   return { read = tonumber(s.bytes_read), served = tonumber(s.served_read) }
end

-- ---- memory ----------------------------------------------------------------

local function range(x, out)
   local ptr, len
   if type(x) == "string" then
      ptr, len = ffi.cast("const void *", x), #x
   else
      ptr, len = x.ptr or x[1], x.len or x[2]
      if type(ptr) == "number" then ptr = ffi.cast("uintptr_t", ptr) end
      ptr = ffi.cast("const void *", ptr)
   end
   out.addr, out.len = ffi.cast("uintptr_t", ptr), len
end

local function ranges(list, level)
   if type(list) ~= "table" or #list == 0 then
      error("a list of buffers is needed", level + 1)
   end
   local out = ffi.new("struct mc_range[?]", #list)
   for i, x in ipairs(list) do range(x, out[i - 1]) end
   return out, #list
end

-- Publish a list of Buffers, { ptr, len } or strings as object name. opts: shard_bytes,
-- force, note.
function Store:register(name, buffers, opts)
   opts = known(opts, REGISTER, 2)
   local list, n = ranges(buffers, 2)
   local o = ffi.new("struct mc_p2p_register", {
      shard_bytes = opts.shard_bytes or 0, force = opts.force or false, note = opts.note,
   })
   local r = C.mc_p2p_register(self:handle(), name, list, n, o)
   if r < 0 then return failed(r) end
   self.anchors[name] = buffers
   return true
end

-- Begin to fetch object name, into buffers of its sizes or memory of the store's. opts:
-- resume, timeout_ms.
function Store:get(name, buffers, opts)
   opts = known(opts, GET, 2)
   local list, n = nil, 0
   if buffers then list, n = ranges(buffers, 2) end
   local o = ffi.new("struct mc_p2p_get", {
      resume = opts.resume or false, timeout_ms = opts.timeout_ms or 0,
   })
   local r = C.mc_p2p_get(self:handle(), name, list, n, o)
   if r < 0 then return failed(r) end
   self.anchors[name] = buffers
   return true
end

-- Where a held object lies: a list of { ptr, addr, len }.
function Store:buffers(name)
   local n = C.mc_p2p_buffers(self:handle(), name, nil, 0)
   if n < 0 then return failed(n) end
   local out, list = ffi.new("struct mc_range[?]", n), {}
   C.mc_p2p_buffers(self:handle(), name, out, n)
   for i = 0, n - 1 do
      list[i + 1] = { ptr = ffi.cast("uint8_t *", out[i].addr),
                      addr = tonumber(out[i].addr), len = tonumber(out[i].len) }
   end
   return list
end

-- ---- while it comes --------------------------------------------------------

local function progress(p)
   return {
      bytes = tonumber(p.bytes), bytes_here = tonumber(p.bytes_here), shards = p.shards,
      shards_here = p.shards_here, from_source = tonumber(p.from_source),
      wasted = tonumber(p.wasted), holders = p.holders, resumed = p.resumed, bad = p.bad,
      failed = p.failed, readers = p.readers, source = p.source, why = ffi.string(p.why),
   }
end

-- Wait until an object is here, timeout_ms at most (nil: for ever). The progress as a
-- table, with .done; nil, message, errno, progress if it will not come.
function Store:wait(name, timeout_ms)
   local p = ffi.new "struct mc_p2p_progress"
   local r = C.mc_p2p_wait(self:handle(), name, timeout_ms or -1, p)
   local t = progress(p)
   t.done = r == 0
   if r == 0 or r == -EAGAIN then return t end
   local _, why, errno = failed(r)
   return nil, why, errno, t
end

function Store:progress(name) return self:wait(name, 0) end

-- Stop to fetch or to serve an object.
function Store:unregister(name)
   local r = C.mc_p2p_unregister(self:handle(), name)
   if r < 0 then return failed(r) end
   self.anchors[name] = nil
   return true
end

Store.delete_replica = Store.unregister

-- ---- what the registry says ------------------------------------------------

function Store:remove(name, force)
   local r = C.mc_p2p_remove(self:handle(), name, force or false)
   if r < 0 then return failed(r) end
   return true
end

function Store:pin(name, on)
   local r = C.mc_p2p_pin(self:handle(), name, on ~= false)
   if r < 0 then return failed(r) end
   return true
end

local NOTE = 1048576

function Store:stat(name)
   local info, note = ffi.new "struct mc_p2p_info", ffi.new("char[?]", NOTE)
   local max = 4096
   local sizes = ffi.new("uint64_t[?]", max)
   local r = C.mc_p2p_stat(self:handle(), name, info, sizes, max, note, NOTE)
   if r >= 0 and info.buffers > max then
      max = info.buffers
      sizes = ffi.new("uint64_t[?]", max)
      r = C.mc_p2p_stat(self:handle(), name, info, sizes, max, note, NOTE)
   end
   if r < 0 then return failed(r) end
   local list = {}
   for i = 0, math.min(info.buffers, max) - 1 do list[i + 1] = tonumber(sizes[i]) end
   return {
      name = name, id = info.id, bytes = tonumber(info.bytes), sizes = list,
      shard_bytes = tonumber(info.shard_bytes), shards = info.shards, nodes = info.nodes,
      sources = info.sources, pinned = info.pinned, note = ffi.string(note),
   }
end

-- Names that begin with prefix.
function Store:list(prefix)
   local text, why, errno = whole(function(out, size)
      return C.mc_p2p_list(self:handle(), prefix, out, size)
   end, LIST)
   if not text then return nil, why, errno end
   local names = {}
   for name in text:gmatch "[^\n]+" do names[#names + 1] = name end
   return names
end

-- ---- news ------------------------------------------------------------------

local Watch = {}
Watch.__index = Watch

-- Objects with this prefix that come, change and go from now on.
function Store:watch(prefix)
   local out = ffi.new "struct mc_p2p_watch *[1]"
   local r = C.mc_p2p_watch_open(out, self:handle(), prefix)
   if r < 0 then return failed(r) end
   return setmetatable({ c = ffi.gc(out[0], C.mc_p2p_watch_close), store = self }, Watch)
end

-- The next change, as { name, gone }, or nil when none comes in time; nil, message,
-- errno if the registry is not there, or (ESTALE: 116) if some were missed.
function Watch:next(timeout_ms)
   local name, gone = ffi.new("char[?]", C.MC_P2P_NAME_MAX), ffi.new "bool[1]"
   local r = C.mc_p2p_watch_next(self.c, timeout_ms or 0, name, C.MC_P2P_NAME_MAX, gone)
   if r < 0 then return failed(r) end
   return r == 1 and { name = ffi.string(name), gone = gone[0] } or nil
end

function Watch:close()
   if self.c then C.mc_p2p_watch_close(ffi.gc(self.c, nil)) end
   self.c = nil
end

return p2p
