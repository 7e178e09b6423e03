-- lan.lua - an engine in each of two guests of scripts/vm that share a network, with two
-- RDMA devices each (lan.sh): bytes go both ways and are there when a notification says
-- so; a link goes down in the middle, and then the network between the two.
--
--   mooncake run lan.lua serve     in guest 1
--   mooncake run lan.lua           in guest 0

local peer = dofile "tests/vm/peer.lua"

local BLOCK, LEN = 128 * 1024, 16 * 2 ^ 20
local NEAR, FAR, DEVICES = "10.10.0.1:7001", "10.10.1.1:7000", "rxe0,rxe1"
local SOON = 60

local function open(listen)
   return assert(mooncake.open { listen = listen, transports = "rdma",
                                 devices = DEVICES })
end

-- ---- guest 1 ---------------------------------------------------------------

-- What the other one asks: the hash of our memory, or to fill it and write it there.
local function answer(e, memory, q)
   local s = assert(e:segment(NEAR, 10000))
   if q.name == "hash" then
      assert(s:notify("hash", tostring(memory:hash())))
      return
   end
   local seed, at = q.msg:match "^(%d+) (%d+)$"
   memory:fill(tonumber(seed))
   assert(e:transfer(peer.reqs("MC_WRITE", s, memory, { base = tonumber(at), len = LEN },
                               BLOCK), { timeout_ms = 30000 }))
   assert(s:notify "pushed")
end

local function serve()
   local e = open(FAR)
   local memory = assert(e:alloc(LEN, { access = "rw" }))
   print "ready"
   while true do answer(e, memory, assert(e:next_notify(-1))) end
end

-- ---- guest 0 ---------------------------------------------------------------

local e, s, near, inbox, far

local function ask(name, msg)
   assert(s:notify(name, msg, 30000))
   return assert(e:next_notify(60000), "no answer").msg
end

local function connect()
   e = open(NEAR)
   near = assert(e:alloc(LEN, { access = "local" }))
   inbox = assert(e:alloc(LEN, { access = "rw" }))
   peer.wait_for("the other guest", SOON, function()
      s = e:segment(FAR, 1000)
      far = s and s:buffers()
      return far and far[1]
   end)
   far = { base = far[1].addr, len = LEN }
end

local function submit(seed)
   if seed then near:fill(seed) end
   return assert(e:submit(peer.reqs("MC_WRITE", s, near, far, BLOCK),
                          { timeout_ms = 60000 }))
end

local function verify(what)
   if ask "hash" ~= tostring(near:hash()) then error(what .. ": other bytes there") end
end

local function both_ways()
   for seed = 1, 3 do assert(submit(seed):wait(-1)) end
   verify "to the other guest"
   assert(e:transfer(peer.reqs("MC_READ", s, inbox, far, BLOCK), { timeout_ms = 30000 }))
   if inbox:hash() ~= near:hash() then error "read: other bytes came" end
   ask("push", ("7 %.0f"):format(inbox.addr))
   near:fill(7)
   if inbox:hash() ~= near:hash() then error "from the other guest: other bytes came" end
   peer.show(e)
   for dev, r in pairs(peer.rails(e)) do
      if r.bytes_written == 0 then error(dev .. " carries nothing") end
   end
end

local function link_down()
   local list = { submit(10) }
   for i = 2, 6 do list[i] = submit() end
   peer.sh "ip link set eth1 down"
   local start = mooncake.now()
   assert(mooncake.wait_all(list))
   if peer.rails(e).rxe1.errors == 0 then error "the link went down too late" end
   peer.report("rxe1 down: all bytes there after", (mooncake.now() - start) * 1000)
   verify "rxe1 down"
   local was = peer.rails(e).rxe1.bytes_written
   peer.sh "ip link set eth1 up"
   peer.report("rxe1 up: used again after", peer.wait_for("return", SOON, function()
      assert(submit(11):wait(-1))
      return peer.rails(e).rxe1.bytes_written > was + BLOCK
   end))
   verify "rxe1 up"
end

local function network(state) peer.sh("echo set_link lan %s >/dev/vm-monitor", state) end

local function network_cut()
   network "off"
   local r, why = s:write(near, far.base, 4096, { timeout_ms = 1500 })
   if r then error "bytes moved without a network" end
   if not why:find(FAR, 1, true) then error("the peer is not named: " .. why) end
   print("  " .. why)
   network "on"
   peer.report("network back: used again after", peer.wait_for("return", SOON, function()
      return submit(12):wait(-1)
   end))
   verify "network back"
end

if arg[1] == "serve" then serve() end
connect()
both_ways()
link_down()
network_cut()
e:close()
print "ok"
