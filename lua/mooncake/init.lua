-- init.lua - the library as scripts see it.
--
--    local mooncake = require "mooncake"
--    local a = assert(mooncake.open { listen = "127.0.0.1:0" })
--    local memory = assert(a:alloc(4096, { access = "rw" }))
--    local b = assert(mooncake.open())
--    local s = assert(b:segment(a:addr()))
--    assert(s:write("hello", memory.addr))
--    print(s:read_string(memory.addr, 5))
--
-- What the world can make fail returns nil, message, errno; a mistake of the script is
-- an error. Sizes and addresses are numbers; ids and hashes are 64-bit cdata.

local bit = require "bit"
local ffi = require "ffi"
local C = require "mooncake.ffi"
local engine = require "mooncake.engine"
local failed = require "mooncake.failed"
local future = require "mooncake.future"
local matrix = require "mooncake.matrix"
local p2p = require "mooncake.p2p"
local ready = require "mooncake.ready"
local registry = require "mooncake.registry"
local request = require "mooncake.request"
local timer = require "mooncake.timer"

local mooncake = {
   wait_all = future.wait_all,
   wait_any = future.wait_any,
   timer = timer,
   sleep = timer.sleep,
   loop = timer.loop,
   readable = ready.wait,
   registry = registry.open,
   registry_server = registry.serve,
   p2p = p2p.open,
   reqs = request.array,
}

function mooncake.open(opts)
   local e, why, errno = engine.open(opts)
   return e, why, errno
end

function mooncake.version() return ffi.string(C.mc_version()) end

-- Seconds on the monotonic clock.
function mooncake.now() return tonumber(C.mc_now_ns()) / 1e9 end

-- Start a process: { "program", "argument", ..., stdout = "pipe" }; see proc.lua. The
-- program "mooncake" is the one that runs the script, be it on PATH or not.
function mooncake.spawn(argv)
   local proc, spec = require "mooncake.proc", {}
   for k, v in pairs(argv) do spec[k] = v end
   if spec[1] == "mooncake" then spec[1] = proc.exe() end
   local p, why, errno = proc.spawn(spec)
   return p, why, errno
end

-- A checksum of a string, a Buffer, or memory at a pointer: a uint64_t.
function mooncake.hash(x, len, seed)
   if type(x) == "string" then
      return C.mc_hash(x, len or #x, seed or 0)
   end
   return C.mc_hash(request.pointer(x, 2), len or x.len, seed or 0)
end

-- Fill memory with bytes that depend on the seed.
function mooncake.fill(x, len, seed)
   C.mc_fill(request.pointer(x, 2), len or x.len, seed or 0)
end

-- A hash or an id as sixteen digits.
function mooncake.hex(x) return bit.tohex(ffi.cast("uint64_t", x)) end

local function device(info)
   return {
      name = ffi.string(info.name), kind = ffi.string(info.kind),
      pci = ffi.string(info.pci), addr = ffi.string(info.addr), numa = info.numa,
      up = info.up, bw = tonumber(info.bw),
   }
end

-- The devices of this machine, or of a copy of its /sys below root: a list of tables,
-- with list.distance[i][j] as mc_topology_distance() says and list.matrix as
-- mc_topology_matrix() does.
function mooncake.topology(root)
   local out = ffi.new "struct mc_topology *[1]"
   local r = C.mc_topology_open(out, root)
   if r < 0 then return failed(r) end
   local t, info, list = out[0], ffi.new "struct mc_device_info", { distance = {} }
   local n = C.mc_topology_count(t)
   for i = 0, n - 1 do
      C.mc_topology_device(t, i, info)
      list[i + 1], list.distance[i + 1] = device(info), {}
      for j = 0, n - 1 do
         list.distance[i + 1][j + 1] = C.mc_topology_distance(t, i, j)
      end
   end
   local why, errno
   list.matrix, why, errno = matrix.read(function(out, size)
      return C.mc_topology_matrix(t, nil, out, size)
   end)
   C.mc_topology_close(t)
   if not list.matrix then return nil, why, errno end
   return list
end

return mooncake
