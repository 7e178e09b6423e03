-- peers.lua - three peers over RDMA, in the virtual machine of scripts/vm: one is killed
-- in the middle of a transfer and started again under its name, one is frozen and let
-- go on, and the third notices nothing.
--
--   mooncake run peers.lua NEAR-DEVICES FAR-DEVICES

local peer = dofile "tests/vm/peer.lua"

local BLOCK, LEN = 64 * 1024, 8 * 2 ^ 20
local ESTALE = 116

local e = assert(mooncake.open {
   listen = "none", transports = "rdma", devices = arg[1],
})
local far = {}
for i = 1, 3 do far[i] = peer.start { devices = arg[2], len = LEN } end
for i = 1, 3 do
   local f = far[i]
   f.s = assert(e:segment(f.name, 10000))
   f.near = assert(e:alloc(LEN, { access = "local" }))
   f.near:fill(i)
end
local back = assert(e:alloc(LEN, { access = "local" }))

local function submit(f, timeout_ms)
   return assert(e:submit(peer.reqs("MC_WRITE", f.s, f.near, f, BLOCK),
      { timeout_ms = timeout_ms or 0 }))
end

local function verify(f, what)
   back:fill(0)
   assert(e:transfer(peer.reqs("MC_READ", f.s, back, f, BLOCK), { timeout_ms = 30000 }))
   if back:hash() ~= f.near:hash() then error(what .. ": other bytes came back") end
end

for i = 1, 3 do
   assert(submit(far[i], 30000):wait(-1))
   verify(far[i], "peer " .. i)
end

local function ended(batch) return batch:poll() ~= "pending" end

-- The third is written to all the while, one block at a time: f() goes on as long as it
-- does.
local steady = 0
local function block()
   local f = far[3]
   return assert(e:submit({ { op = "write", segment = f.s, buf = f.near, remote = f.base,
      len = BLOCK } }, { timeout_ms = 10000 }))
end

local function meanwhile(f)
   local batch = block()
   repeat
      if ended(batch) then
         assert(batch:wait(-1))
         steady = steady + 1
         batch = block()
      end
      mooncake.sleep(1)
   until f()
   assert(batch:wait(-1))
end

local one, two = far[1], far[2]

-- Killed: what was in flight fails soon, by the name of the peer.
local list = { submit(one), submit(one), submit(one) }
mooncake.sleep(20)
local start = mooncake.now()
one:kill "KILL"
meanwhile(function() return ended(list[1]) and ended(list[2]) and ended(list[3]) end)
peer.report("killed: all ended after", (mooncake.now() - start) * 1000)
if mooncake.now() - start > 3 then error "they ended late" end
local r, why, errno = list[3]:wait(-1)
if r then error "it was written to a dead process" end
print(("  %s (%d)"):format(why, errno))
if not why:find(one.name, 1, true) then error "the error does not name the peer" end
print(("  meanwhile %d blocks of another peer"):format(steady))
if steady == 0 then error "the others stood still" end

-- Frozen: its memory is there all the same, as its processor is not asked.
two:kill "STOP"
two.near:fill(22)
start = mooncake.now()
local batch = submit(two, 10000)
meanwhile(function() return ended(batch) end)
assert(batch:wait(-1))
verify(two, "frozen")
peer.report("frozen: written and read after", (mooncake.now() - start) * 1000)
two:kill "CONT"
assert(submit(two, 10000):wait(-1))
verify(two, "goes on")

-- Started again: what was meant for the first is refused; new addresses work.
local again = peer.start { devices = arg[2], len = LEN, listen = one.name }
again.s, again.near, again.name = one.s, one.near, one.name
r, why, errno = submit(one):wait(-1)
if r or errno ~= ESTALE then error("restarted: " .. tostring(why or "it was written")) end
print("  " .. why)
if not why:find "restarted" then error "the error does not say that it was restarted" end
meanwhile(function() return submit(again, 10000):wait(-1) end)
verify(again, "restarted")
verify(far[3], "the third")
for _, f in ipairs { two, far[3], again } do f:kill "TERM" end
e:close()
print "ok"
