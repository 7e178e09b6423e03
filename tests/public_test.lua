-- public_test.lua - with the public Mooncake itself at the other end: its wheel
-- (scripts/deps.sh installs it into build/peers), driven by public/peer.py. Both
-- directions, with and without the registries that both know.

local bit = require "bit"
local ffi = require "ffi"
local mooncake = require "mooncake"
local proc = require "mooncake.proc"

local PYTHON = "build/peers/mooncake/bin/python"
local MiB = 2 ^ 20
-- In the virtual machine (vm/check.sh) it is done over RDMA, with less.
local RDMA = os.getenv "PEER_PROTOCOL" == "rdma"
local MOST = RDMA and 8 * MiB or 256 * MiB
local TIMEOUT_MS = RDMA and 90000 or 30000

local tests = {}

-- ---- checksums, as zlib has them -------------------------------------------

local TABLE = ffi.new "uint32_t[256]"
for i = 0, 255 do
   local c = i
   for _ = 1, 8 do
      local low = bit.band(c, 1)
      c = bit.rshift(c, 1)
      if low == 1 then c = bit.bxor(c, 0xedb88320) end
   end
   TABLE[i] = bit.tobit(c) % 2 ^ 32
end

local function crc(buffer, off, len)
   local p = ffi.cast("const uint8_t *", buffer.ptr) + (off or 0)
   local c = -1
   for i = 0, (len or buffer.len) - 1 do
      c = bit.bxor(bit.rshift(c, 8), TABLE[bit.band(bit.bxor(c, p[i]), 255)])
   end
   return bit.bnot(c) % 2 ^ 32
end

-- ---- the public engine ------------------------------------------------------

local Peer = {}
Peer.__index = Peer

local function have_wheel()
   local _, status = proc.run { PYTHON, "-c", "import mooncake.engine" }
   if status ~= 0 then test.skip "the public wheel is not in build/peers/mooncake" end
end

-- What it says, or an error with what it last logged.
function Peer:ask(...)
   local words = {}
   for i, w in ipairs { ... } do
      words[i] = type(w) == "number" and ("%.0f"):format(w) or w
   end
   self.process:write(table.concat(words, " ") .. "\n")
   local line, why = self.process:read_line(TIMEOUT_MS)
   local answer = (line or ""):match "^ok ?(.*)$"
   if answer then return tonumber(answer) or answer end
   error(("peer: %s: %s\n%s"):format(words[1], line or why, self:log()), 2)
end

function Peer:log()
   local f = io.open(self.logged)
   local text = f and f:read "*a" or ""
   if f then f:close() end
   return text:sub(-2000)
end

function Peer:kill()
   self.process:kill "KILL"
   self.process:wait()
   self.process:close()
end

local n_logs = 0

local function start(name, metadata, env)
   env = env or {}
   env.MC_LOG = false
   local dir = test.tmpdir()
   n_logs = n_logs + 1
   local logged = dir .. "/log"
   local self = setmetatable({
      logged = logged,
      process = assert(proc.spawn {
         PYTHON, "tests/public/peer.py", stdin = "pipe", stdout = "pipe",
         stderr = logged, env = env,
      }),
   }, Peer)
   test.defer(function() self:kill() end)
   local r, actual = self:ask("open", name, metadata):match "^(%S+) (%S+)$"
   test.eq(r, "0", "initialize")
   self.name = actual
   return self
end

function Peer:alloc(len)
   local r, addr = self:ask("alloc", len):match "^(%S+) (%S+)$"
   test.eq(r, "0", "register_memory")
   return tonumber(addr)
end

-- ---- ours -------------------------------------------------------------------

local function open(opts)
   opts = opts or {}
   opts.profile = "v1"
   if RDMA then opts.transports, opts.devices = "rdma,tcp", os.getenv "OUR_DEVICES" end
   local e = assert(mooncake.open(opts))
   test.defer(function() e:close() end)
   return e
end

-- A peer and one of ours that know of each other, each with so much memory.
local function pair(len, where)
   where = where or { ours = "peer", theirs = "P2PHANDSHAKE" }
   local p = { len = len }
   p.engine = open { registry = where.ours, name = where.name, listen = where.listen }
   p.buffer = assert(p.engine:alloc(len, { access = "rw" }))
   p.peer = start(where.peer_name or "127.0.0.1", where.theirs, where.env)
   p.remote = p.peer:alloc(len)
   p.segment = assert(p.engine:segment(p.peer.name, 5000))
   return p
end

-- ---- what is done in each direction -----------------------------------------

local function we_ask(p, len)
   local sum = p.peer:ask("fill", p.remote, len, 7)
   assert(p.segment:read(p.buffer, p.remote, len))
   test.eq(crc(p.buffer, 0, len), sum, "read")
   p.buffer:fill(9, 0, len)
   assert(p.segment:write(p.buffer, p.remote, len))
   test.eq(p.peer:ask("crc", p.remote, len), crc(p.buffer, 0, len), "write")
end

local function they_ask(p, len)
   local name = p.engine:name()
   local sum = p.peer:ask("fill", p.remote, len, 8)
   test.eq(p.peer:ask("move", "write", name, p.remote, p.buffer.addr, len), 0)
   test.eq(crc(p.buffer, 0, len), sum, "write")
   p.buffer:fill(10, 0, len)
   test.eq(p.peer:ask("move", "read", name, p.remote, p.buffer.addr, len), 0)
   test.eq(p.peer:ask("crc", p.remote, len), crc(p.buffer, 0, len), "read")
end

local function notify_both_ways(p)
   assert(p.segment:write(p.buffer, p.remote, 64, {
      notify = { segment = p.segment, name = "to", msg = "them" },
   }))
   test.eq(p.peer:ask "notes", "to=them")
   test.eq(p.peer:ask("notify", p.engine:name(), p.remote, p.buffer.addr, 64, "to",
                      "us"), 0)
   local n = assert(p.engine:next_notify(3000))
   test.eq({ n.name, n.msg }, { "to", "us" })
   assert(p.segment:notify("alone", "here"))
   test.eq(p.peer:ask "notes", "alone=here")
end

local function all(p)
   we_ask(p, p.len)
   they_ask(p, p.len)
   notify_both_ways(p)
   test.eq(p.peer:ask("probe", p.engine:name()), 0)
   assert(p.segment:probe(3000))
end

-- ---- without a registry ------------------------------------------------------

function tests.one_byte_to_256_MiB()
   have_wheel()
   local p = pair(MOST)
   for _, len in ipairs { 1, 4095, 65537, MiB, MOST } do
      we_ask(p, len)
      they_ask(p, len)
   end
   for _, rail in ipairs(p.engine:rails()) do
      local carries = rail.transport == (RDMA and "rdma" or "v1")
      test.eq({ rail.transport, rail.bytes_written > 0 }, { rail.transport, carries })
   end
end

function tests.notifications_and_probes_both_ways()
   have_wheel()
   all(pair(MiB))
end

function tests.over_IPv6()
   have_wheel()
   all(pair(MiB, { ours = "peer", theirs = "P2PHANDSHAKE", listen = "[::1]:0",
                   peer_name = "[::1]", env = { MC_USE_IPV6 = "1" } }))
end

function tests.batches_of_blocks()
   have_wheel()
   local p = pair(8 * MiB)
   local reqs = {}
   for i = 0, 1023 do
      reqs[i + 1] = { op = "read", segment = p.segment, len = 4096,
                      buf = p.buffer.addr + i * 8192, remote = p.remote + i * 8192 }
   end
   p.peer:ask("fill", p.remote, p.len, 3)
   p.buffer:fill(0)
   assert(p.engine:transfer(reqs))
   for i = 0, 1023, 111 do
      test.eq(crc(p.buffer, i * 8192, 4096), p.peer:ask("crc", p.remote + i * 8192, 4096))
   end
   test.eq(p.peer:ask("batch", "write", p.engine:name(), p.remote, p.buffer.addr, 4096,
                      8192, 128), 0)
   test.eq(p.peer:ask("async", p.engine:name(), p.remote, p.buffer.addr, 65536, 16), 0)
   test.eq(crc(p.buffer, 0, MiB), p.peer:ask("crc", p.remote, MiB))
end

function tests.eight_threads_at_once()
   have_wheel()
   local p = pair(16 * MiB)
   test.eq(p.peer:ask("threads", 8, 20, p.engine:name(), p.remote, p.buffer.addr,
                      MiB), 0)
   local futures = {}
   p.peer:ask("fill", p.remote, p.len, 5)
   for i = 0, 15 do
      futures[i] = assert(p.engine:submit {
         { op = "read", segment = p.segment, buf = p.buffer.addr + i * MiB,
           remote = p.remote + i * MiB, len = MiB },
      })
   end
   for i = 0, 15 do assert(futures[i]:wait(TIMEOUT_MS)) end
   test.eq(crc(p.buffer), p.peer:ask("crc", p.remote, p.len))
end

-- Which of its devices memory there is near is known of it as of one of ours; and a
-- transport that it does not have is named.
function tests.what_a_peer_is_served_by()
   have_wheel()
   local p = pair(MiB)
   local devices = {}
   for _, both in pairs(assert(p.segment:topology())) do
      for _, list in ipairs(both) do
         for _, name in ipairs(list) do devices[name] = true end
      end
   end
   for name in (RDMA and os.getenv "PEER_DEVICES" or ""):gmatch "[^,]+" do
      assert(devices[name], name .. " is not in its topology")
   end
   if not RDMA then test.eq(devices, {}) return end
   local e = assert(mooncake.open { profile = "v1", registry = "peer",
                                    transports = "tcp" })
   test.defer(function() e:close() end)
   local s, why = e:segment(p.peer.name, 5000)
   assert(not s and why:find "is not served by tcp", why)
end

function tests.what_is_not_registered_is_refused()
   have_wheel()
   local p = pair(MiB)
   local name, addr = p.engine:name(), p.buffer.addr
   local closed = assert(p.engine:alloc(MiB, { access = "r" }))
   local sum = closed:hash()
   for _, bad in ipairs { { addr + MiB - 1, 2 }, { addr - 1, 2 }, { 4096, 16 },
                          { closed.addr, 16 }, { 2 ^ 63, 64 } } do
      assert(p.peer:ask("move", "write", name, p.remote, bad[1], bad[2]) ~= 0)
   end
   test.eq(closed:hash(), sum)
   test.eq(p.peer:ask("move", "read", name, p.remote, closed.addr, MiB), 0)
   test.eq(p.peer:ask("crc", p.remote, MiB), crc(closed))
   local n, why = p.segment:write(p.buffer, p.remote + MiB - 1, 2)
   assert(not n and why:find "remote", why)
   -- It has it no more, but we do not know: it refuses, and is asked anew.
   test.eq(p.peer:ask("drop", p.remote), 0)
   n, why = p.segment:write(p.buffer, p.remote, 64)
   assert(not n and why:find "refused", why)
   local again = p.peer:alloc(MiB)
   assert(p.segment:write(p.buffer, again, 64))
   assert(p.engine:stats().refused >= 4)
end

function tests.ours_restarts_under_its_name()
   have_wheel()
   local p = pair(MiB)
   they_ask(p, MiB)
   local addr = p.engine:addr()
   p.engine:close()
   assert(p.peer:ask("move", "write", addr, p.remote, p.buffer.addr, 64) ~= 0)
   local e = open { listen = addr }
   test.eq(p.peer:ask("probe", addr), 0)
   assert(e:alloc(MiB, { access = "rw" }))
end

function tests.a_frozen_peer_fails_in_time_and_comes_back()
   have_wheel()
   local p, other = pair(16 * MiB), nil
   other = pair(MiB)
   we_ask(p, MiB)
   p.peer.process:kill "STOP"
   local start = mooncake.now()
   local n, why, errno = p.segment:write(p.buffer, p.remote, 16 * MiB)
   assert(not n and why:find(p.peer.name, 1, true), why)
   test.eq(errno, 110)
   local took = mooncake.now() - start
   assert(took < 3, took)
   we_ask(other, MiB)
   p.peer.process:kill "CONT"
   we_ask(p, 16 * MiB)
end

function tests.a_killed_peer_fails_what_is_in_flight()
   have_wheel()
   local p = pair(64 * MiB)
   we_ask(p, 64)
   local f = assert(p.engine:submit { { op = "write", segment = p.segment, buf = p.buffer,
                                        remote = p.remote, len = p.len } })
   p.peer.process:kill "KILL"
   local r = f:wait(5000)
   local n, why = p.segment:read(p.buffer, p.remote, 64)
   assert(not n and why:find(p.peer.name, 1, true), why)
   p.buffer:fill(r and 1 or 2)
   assert(p.buffer:free())
end

-- ---- registries ---------------------------------------------------------------

-- A server that may need a while: how it is started, and asked whether it is there.
local function serve(command, ready)
   local p, why = proc.spawn(command)
   if not p then test.skip(command[1] .. ": " .. why) end
   test.defer(function()
      p:kill "KILL"
      p:wait()
      p:close()
   end)
   for _ = 1, 150 do
      if ready() then return end
      if p:wait(0) then test.skip(command[1] .. " does not start") end
      proc.sleep_ms(100)
   end
   error(command[1] .. " is not ready after 15 s")
end

local function port()
   local e = assert(mooncake.open { profile = "native" })
   local n = e:addr():match ":(%d+)$"
   e:close()
   return n
end

local function answers(url)
   return function()
      local r = assert(mooncake.registry(url))
      local _, _, errno = r:get "mooncake/nothing"
      return errno == 2
   end
end

local function http_of_ours()
   local server = assert(mooncake.registry_server "127.0.0.1:0")
   test.defer(function() server:close() end)
   return "http://" .. server:addr() .. "/metadata"
end

local function http_of_theirs()
   local n = port()
   local url = "http://127.0.0.1:" .. n .. "/metadata"
   serve({ PYTHON, "-m", "mooncake.http_metadata_server", "--host", "127.0.0.1", "--port",
           n, stdout = "null", stderr = "null" }, answers(url))
   return url
end

local function etcd()
   local dir, n, m = test.tmpdir(), port(), port()
   local url = "etcd://127.0.0.1:" .. n
   serve({ "etcd", "--data-dir", dir .. "/etcd", "--listen-client-urls",
           "http://127.0.0.1:" .. n, "--advertise-client-urls", "http://127.0.0.1:" .. n,
           "--listen-peer-urls", "http://127.0.0.1:" .. m, "--initial-cluster",
           "default=http://127.0.0.1:" .. m, "--initial-advertise-peer-urls",
           "http://127.0.0.1:" .. m, stdout = "null", stderr = "null" }, answers(url))
   return url
end

local function redis()
   local n = port()
   local url = "redis://127.0.0.1:" .. n
   serve({ "redis-server", "--port", n, "--save", "", "--bind", "127.0.0.1",
           stdout = "null", stderr = "null" }, answers(url))
   return url
end

local function with_registry(url)
   return pair(MiB, { ours = url, theirs = url, name = "ours", peer_name = "theirs" })
end

-- Buffers are published soon after they are registered, those of a while together.
local function published(url, name, buffer)
   local r = assert(mooncake.registry(url))
   local addr = ('"addr":%.0f,'):format(buffer.addr)
   for _ = 1, 300 do
      local text = r:get("mooncake/ram/" .. name)
      if text and text:find(addr, 1, true) then return end
      proc.sleep_ms(10)
   end
   error(name .. " is not published with its buffer")
end

-- What both publish is found by both; a peer that comes back elsewhere is found again;
-- and one of ours that died without a farewell is replaced.
local function through_registry(url)
   local p = with_registry(url)
   all(p)
   published(url, "ours", p.buffer)
   test.eq(p.peer:ask("first", "ours"), p.buffer.addr)
   local r = assert(mooncake.registry(url))
   assert(r:get "mooncake/rpc_meta/ours")
   p.peer:kill()
   -- It could say no farewell, and its own server refuses its name until someone does.
   r:del "mooncake/rpc_meta/theirs"
   p.peer = start("theirs", url)
   p.remote = p.peer:alloc(MiB)
   for _ = 1, 50 do
      if p.segment:write(p.buffer, p.remote, 64) then break end
      proc.sleep_ms(50)
   end
   all(p)
   p.engine:close()
   local _, _, errno = r:get "mooncake/rpc_meta/ours"
   test.eq(errno, 2)
   _, _, errno = r:get "mooncake/ram/ours"
   test.eq(errno, 2)
end

function tests.metadata_in_http_of_ours()
   have_wheel()
   through_registry(http_of_ours())
end

function tests.metadata_in_http_of_theirs()
   have_wheel()
   through_registry(http_of_theirs())
end

function tests.metadata_in_etcd()
   have_wheel()
   through_registry(etcd())
end

-- One that died without a farewell leaves what a public server refuses to replace.
function tests.a_dead_predecessor_is_replaced()
   have_wheel()
   local url = http_of_theirs()
   local function serve_ours()
      local p = assert(proc.spawn {
         proc.exe(), "serve", "-q", "--profile", "v1", "--name", "node", "--join", url,
         "--memory", "1M", stdout = "pipe",
      })
      test.defer(function() p:kill "KILL" p:wait() p:close() end)
      return p, assert(p:read_line(5000)):match "^ready (%S+)$"
   end
   local r = assert(mooncake.registry(url))
   local first, at = serve_ours()
   assert(r:get("mooncake/rpc_meta/node"):find(at:match "%d+$", 1, true))
   first:kill "KILL"
   first:wait()
   local _, now = serve_ours()
   assert(now ~= at)
   assert(r:get("mooncake/rpc_meta/node"):find(now:match "%d+$", 1, true))
   local peer = start("theirs", url)
   test.eq(peer:ask("probe", "node"), 0)
end

-- The same name, served by a public engine first, then by one of ours.
function tests.ours_takes_a_public_one_s_place()
   have_wheel()
   local url = http_of_ours()
   local p = with_registry(url)
   we_ask(p, MiB)
   p.peer:kill()
   local heir = open { registry = url, name = "theirs" }
   local memory = assert(heir:alloc(MiB, { access = "rw" }))
   local done, last
   for _ = 1, 100 do
      done, last = p.segment:write(p.buffer, memory.addr, MiB, { timeout_ms = 2000 })
      if done then break end
      proc.sleep_ms(20)
   end
   assert(done, last)
   test.eq(memory:hash(), p.buffer:hash())
   local by = {}
   for _, r in ipairs(p.engine:rails()) do by[r.transport] = r.bytes_written end
   test.eq(by.shm + by.tcp, MiB)
end

-- Two clusters in one store, each with a node of the same name.
function tests.clusters_are_apart()
   have_wheel()
   local url = http_of_ours()
   local function serve_ours(cluster)
      local p = assert(proc.spawn {
         proc.exe(), "serve", "-q", "--profile", "v1", "--name", "node", "--join", url,
         "--memory", "1M", stdout = "pipe", env = { MC_METADATA_CLUSTER_ID = cluster },
      })
      test.defer(function() p:kill "KILL" p:wait() p:close() end)
      return assert(p:read_line(5000)):match "^ready (%S+)$"
   end
   local a, b = serve_ours "a", serve_ours "b/"
   local r = assert(mooncake.registry(url))
   assert(r:get("mooncake/a/rpc_meta/node"):find(a:match "%d+$", 1, true))
   assert(r:get("mooncake/b/rpc_meta/node"):find(b:match "%d+$", 1, true))
   for cluster, addr in pairs { a = a, b = b } do
      local peer = start("theirs", url, { MC_METADATA_CLUSTER_ID = cluster })
      test.eq(peer:ask("probe", "node"), 0)
      assert(r:get("mooncake/" .. cluster .. "/ram/node"):find(addr, 1, true))
   end
   local peer = start("others", url)
   assert(peer:ask("probe", "node") ~= 0)
end

-- The wheel is built without redis: ours at both ends, by its protocol only.
function tests.metadata_in_redis()
   local url = redis()
   local a = open { registry = url, name = "a", transports = "v1" }
   local b = open { registry = url, name = "b", transports = "v1" }
   local near = assert(a:alloc(MiB, { access = "rw" }))
   local far = assert(b:alloc(MiB, { access = "rw" }))
   far:fill(1)
   published(url, "b", far)
   local s = assert(a:segment("b", 3000))
   assert(s:read(near, far.addr, MiB))
   test.eq(near:hash(), far:hash())
   test.eq(a:rails()[1].transport, "v1")
end

-- ---- over RDMA ----------------------------------------------------------------

local function link(dev, state)
   test.eq(os.execute(("ip link set %s %s"):format(dev:gsub("rxe", "eth"), state)), 0)
end

-- Blocks from all over, so that all devices have some.
local function write_blocks(p, seed)
   local reqs, n = {}, p.len / 65536
   p.buffer:fill(seed)
   for i = 0, n - 1 do
      reqs[i + 1] = { op = "write", segment = p.segment, len = 65536,
                      buf = p.buffer.addr + i * 65536, remote = p.remote + i * 65536 }
   end
   assert(p.engine:transfer(reqs, { timeout_ms = 20000 }))
   test.eq(p.peer:ask("crc", p.remote, p.len), crc(p.buffer))
end

-- One of ours, then one of theirs, goes down and comes back.
local function devices_go_down_and_come_back()
   have_wheel()
   local p = pair(4 * MiB)
   local mine, theirs = os.getenv "OUR_DEVICES":match "^%w+",
                        os.getenv "PEER_DEVICES":match "^%w+"
   -- They connect first: we send on what they have made, too.
   they_ask(p, 65536)
   write_blocks(p, 1)
   they_ask(p, 65536)
   for i, dev in ipairs { mine, theirs } do
      test.defer(function() link(dev, "up") end)
      link(dev, "down")
      for k = 1, 3 do write_blocks(p, 10 * i + k) end
      link(dev, "up")
      write_blocks(p, 10 * i)
   end
   local used = 0
   for _, rail in ipairs(p.engine:rails()) do
      if rail.transport == "rdma" and rail.bytes_written > 0 then used = used + 1 end
   end
   test.eq(used, 2)
end

if not RDMA then return tests end
if os.getenv "PEER_DEVICES":find "," then
   return { devices_go_down_and_come_back = devices_go_down_and_come_back }
end
local few = {}
for _, name in ipairs { "one_byte_to_256_MiB", "notifications_and_probes_both_ways",
                        "batches_of_blocks", "ours_restarts_under_its_name",
                        "metadata_in_etcd" } do
   few[name] = tests[name]
end
return few
