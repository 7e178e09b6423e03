-- p2p_node.lua - a node of the benchmark p2p.lua: does what its input says, and prints
-- an object of JSON for each thing done.
--
--   mooncake run p2p_node.lua ADDRESS REGISTRY NAME BYTES SHARD PARALLEL
--
--   put              fill memory, and register it
--   get              fetch it by the store
--   from HOST:PORT ADDR    read all of it from there
--   hash             what is in memory
--
-- Ends with its input.

local json = require "mooncake.json"
local mooncake = require "mooncake"

local address, url, name = arg[1], arg[2], arg[3]
local bytes, shard, parallel = tonumber(arg[4]), tonumber(arg[5]), tonumber(arg[6])

local store = assert(mooncake.p2p {
   registry = url, listen = address .. ":7000", transports = "tcp", streams = 1,
   parallel = parallel > 0 and parallel or nil, lease_ms = 3000,
})
local fs = require "mooncake.fs"
local mem = assert(fs.anonymous(bytes))
-- Touched before any clock runs, as memory that is registered with a device has been: the
-- links are measured, not the kernel's zeroing of pages.
mooncake.fill(mem, bytes, 1)
local plain                                     -- an engine for `from`

local function say(t)
   print(json.encode(t))
   io.stdout:flush()
end

-- What has come over the link, headers and all.
local function received()
   local total = 0
   for line in io.lines "/proc/self/net/dev" do
      local dev, rx = line:match "^%s*(%S+):%s*(%d+)"
      if dev and dev ~= "lo" then total = total + tonumber(rx) end
   end
   return total
end

local function sent()
   for line in io.lines "/proc/self/net/dev" do
      local dev, rest = line:match "^%s*(mcn%d+):%s*(.*)"
      if dev then
         local n = {}
         for word in rest:gmatch "%d+" do n[#n + 1] = tonumber(word) end
         return n[9]
      end
   end
end

local function timed(f)
   local start, before = mooncake.now(), received()
   local t = f() or {}
   t.seconds, t.received = mooncake.now() - start, received() - before
   say(t)
end

local ops = {}

function ops.put()
   mooncake.fill(mem, bytes, 11)
   assert(store:register(name, { { ptr = mem, len = bytes } }, { shard_bytes = shard }))
   say { done = true }
end

function ops.get()
   timed(function()
      assert(store:get(name, { { ptr = mem, len = bytes } }))
      local p = assert(store:wait(name))
      return { from_source = p.from_source, wasted = p.wasted, failed = p.failed,
               bad = p.bad, why = p.why, holders = p.holders }
   end)
end

-- Offers its memory too, so that others can read from it when it is whole.
function ops.open()
   plain = assert(mooncake.open { listen = address .. ":7001", transports = "tcp",
                                  streams = 1 })
   assert(plain:register(mem, bytes, { access = "r" }))
   say { done = true, segment = plain:addr(),
         addr = tonumber(require("ffi").cast("uintptr_t", mem)) }
end

function ops.from(segment, addr)
   timed(function()
      local s = assert(plain:segment(segment, 5000))
      local n = math.ceil(bytes / shard)
      local q = mooncake.reqs(n)
      for i = 0, n - 1 do
         local r = q[i]
         r.op, r.segment, r.len = "MC_READ", s.id, math.min(shard, bytes - i * shard)
         r.buf, r.remote = mem + i * shard, tonumber(addr) + i * shard
      end
      assert(plain:transfer(q, { timeout_ms = 600000 }))
      return { from_source = bytes }
   end)
end

function ops.hash() say { hash = mooncake.hex(mooncake.hash(mem, bytes)) } end

function ops.sent() say { sent = sent() } end

say { ready = true }
for line in io.lines() do
   local op, a, b = line:match "^(%l+) ?(%S*) ?(%S*)$"
   ops[op](a, b)
end
store:close()
