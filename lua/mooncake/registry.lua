-- registry.lua - small values under names, kept by an http, etcd or redis server.

local ffi = require "ffi"
local C = require "mooncake.ffi"
local failed = require "mooncake.failed"
local whole = require "mooncake.whole"

local Registry = {}
Registry.__index = Registry

local registry = {}

function registry.open(url)
   local out = ffi.new "struct mc_registry *[1]"
   local r = C.mc_registry_open(out, url)
   if r < 0 then return failed(r) end
   return setmetatable({ c = ffi.gc(out[0], C.mc_registry_close) }, Registry)
end

function Registry:handle()
   return self.c or error("the registry is closed", 3)
end

-- The value and its version, or nil, message, errno (ENOENT: 2).
function Registry:get(key)
   local version = ffi.new "uint64_t[1]"
   local value, why, errno = whole(function(out, size)
      return C.mc_registry_get(self:handle(), key, out, size, version)
   end)
   if not value then return nil, why, errno end
   return value, tonumber(version[0])
end

-- With a ttl_ms the record goes when it is not put again in time.
function Registry:put(key, value, ttl_ms)
   local r = C.mc_registry_put(self:handle(), key, value, #value, ttl_ms or 0)
   if r < 0 then return failed(r) end
   return true
end

-- Put if its version still is the given one (0: if there is none); else nil and EAGAIN.
function Registry:cas(key, value, version, ttl_ms)
   local r = C.mc_registry_cas(self:handle(), key, value, #value, version, ttl_ms or 0)
   if r < 0 then return failed(r) end
   return true
end

function Registry:del(key)
   local r = C.mc_registry_del(self:handle(), key)
   if r < 0 then return failed(r) end
   return true
end

-- The names that begin with prefix.
function Registry:list(prefix)
   local all, why, errno = whole(function(out, size)
      return C.mc_registry_list(self:handle(), prefix or "", out, size)
   end)
   if not all then return nil, why, errno end
   local names = {}
   for name in all:gmatch "[^\n]+" do names[#names + 1] = name end
   return names
end

function Registry:close()
   if self.c then C.mc_registry_close(ffi.gc(self.c, nil)) end
   self.c = nil
end

-- ---- the server ------------------------------------------------------------

local Server = {}
Server.__index = Server

-- Our server on a thread of its own; state is a file that keeps records over restarts.
function registry.serve(addr, state)
   local out = ffi.new "struct mc_registryd *[1]"
   local r = C.mc_registryd_open(out, addr, state)
   if r < 0 then return failed(r) end
   return setmetatable({ c = ffi.gc(out[0], C.mc_registryd_close) }, Server)
end

function Server:addr() return ffi.string(C.mc_registryd_addr(self.c)) end

function Server:close()
   if self.c then C.mc_registryd_close(ffi.gc(self.c, nil)) end
   self.c = nil
end

return registry
