-- loss.lua - packets vanish silently on an interface in the middle of a transfer, in
-- the virtual machine of scripts/vm: slices go to the other rail, and to TCP when no
-- RDMA device gets through; a rail that failed is tried again, made anew and used.
--
--   mooncake run loss.lua NEAR-DEVICES FAR-DEVICES

local engines = require "mooncake.engines"
local peer = dofile "tests/vm/peer.lua"

local BLOCK, LEN = 128 * 1024, 16 * 2 ^ 20
local first, second = arg[1]:match "(%w+),(%w+)"

local far = peer.start { devices = arg[2], transports = "rdma,tcp", len = LEN }

local function open(transports)
   local e = assert(mooncake.open {
      listen = "none", transports = transports, devices = arg[1],
   })
   return {
      e = e, s = assert(e:segment(far.name, 10000)),
      near = assert(e:alloc(LEN, { access = "local" })),
      back = assert(e:alloc(LEN, { access = "local" })),
   }
end

local function submit(x, seed, n)
   local list = {}
   x.near:fill(seed)
   for i = 1, n do
      list[i] = assert(x.e:submit(peer.reqs("MC_WRITE", x.s, x.near, far, BLOCK),
         { timeout_ms = 60000 }))
   end
   return list
end

local function verify(x, what)
   x.back:fill(0)
   assert(x.e:transfer(peer.reqs("MC_READ", x.s, x.back, far, BLOCK),
      { timeout_ms = 60000 }))
   if x.back:hash() ~= x.near:hash() then error(what .. ": other bytes came back") end
end

-- All that a device sends is lost, and nothing says so.
local function lose(dev)
   peer.sh("tc qdisc replace dev %s root netem loss 100%%", peer.eth(dev))
end

local function heal(dev) peer.sh("tc qdisc del dev %s root", peer.eth(dev)) end

local function both_carry(x, what, seconds)
   local was = peer.rails(x.e)
   peer.report(what, peer.wait_for(what, seconds, function()
      assert(mooncake.wait_all(submit(x, 1, 1)))
      local now = peer.rails(x.e)
      return now[first].bytes_written > was[first].bytes_written + BLOCK and
             now[second].bytes_written > was[second].bytes_written + BLOCK
   end))
   verify(x, what)
end

local x = open "rdma"
both_carry(x, "both rails used after", 40)

local list, was = submit(x, 2, 3), peer.rails(x.e)
mooncake.sleep(50)
lose(second)
peer.report("one loses all: noticed after", peer.wait_for("notice", 3, function()
   return peer.rails(x.e)[second].errors > was[second].errors
end))
assert(mooncake.wait_all(list))
verify(x, "one loses all")
peer.show(x.e)
local r = peer.rails(x.e)[second]
if r.state ~= "quarantined" then error("the rail that failed is " .. r.state) end
if peer.rails(x.e)[first].errors > was[first].errors then error "the other failed" end
print("  " .. engines.fault(r))
if not engines.fault(r):find "none with local" then error "it blames the device" end

heal(second)
both_carry(x, "healed: both rails used again after", 40)
if peer.rails(x.e)[second].connects <= r.connects then error "not made anew" end
x.e:close()

-- With TCP allowed, as long as RDMA works it is to be used.
x = open "rdma,tcp"
both_carry(x, "with TCP too: both rails used after", 40)
list, was = submit(x, 3, 3), peer.rails(x.e)
lose(first)
lose(second)
local start = mooncake.now()
assert(mooncake.wait_all(list))
assert(mooncake.wait_all(submit(x, 4, 1)))
verify(x, "both lose all")
peer.report("both lose all: all bytes there after", (mooncake.now() - start) * 1000)
peer.show(x.e)
if peer.rails(x.e).tcp.bytes_written < was.tcp.bytes_written + LEN then
   error "TCP does not carry what RDMA lost"
end
heal(first)
heal(second)
both_carry(x, "healed: both rails used again after", 40)
x.e:close()
far:kill "TERM"
print "ok"
