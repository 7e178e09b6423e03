-- notes.lua - notifications over RDMA, in the virtual machine of scripts/vm: they go by
-- the rails, each after its data and once, whatever happens to links meanwhile; and what
-- a rail does not take goes over the control connection.
--
--   mooncake run notes.lua NEAR-DEVICES FAR-DEVICES

local peer = dofile "tests/vm/peer.lua"

local BLOCK, ENOBUFS = 64 * 1024, 105

local function open(devices)
   return assert(mooncake.open { transports = "rdma", devices = devices })
end

local near, far = open(arg[1]), open(arg[2])
local from = assert(near:alloc(BLOCK, { access = "local" }))
local to = assert(far:alloc(BLOCK, { access = "rw" }))
local s = assert(near:segment(far:addr(), 10000))

local function by_rail()
   local n = 0
   for _, r in ipairs(near:rails()) do n = n + r.notes end
   return n
end

local function expect(name, ms)
   local t = far:next_notify(ms or 0)
   local got = t and t.name or "none"
   if got ~= name then error(("notification %s came, not %s"):format(got, name)) end
   return t
end

local function write(i, timeout_ms)
   return near:submit({ { op = "write", segment = s, buf = from, remote = to.addr,
      len = BLOCK } }, { timeout_ms = timeout_ms,
      notify = { segment = s, name = "block", msg = tostring(i) } })
end

-- Each comes after its bytes, and by a rail.
local start = mooncake.now()
for i = 1, 100 do
   from:fill(i)
   assert(write(i, 10000):wait(-1))
   local t = expect "block"
   if t.msg ~= tostring(i) or t.from ~= near:name() then error "another notification" end
   if to:hash() ~= from:hash() then error "it came before its bytes" end
end
peer.report("100 blocks written and told", (mooncake.now() - start) * 1000)
if by_rail() ~= 100 then error(by_rail() .. " of 100 went by a rail") end

-- As large as fits, as small as can be; one byte more goes the other way.
local name = "large"
for _, c in ipairs { { 4096 - #name - 1, 1 }, { 0, 1 }, { 4096 - #name, 0 },
                     { 65536, 0 } } do
   local before, msg = by_rail(), ("x"):rep(c[1])
   assert(near:notify(s, name, msg, 10000))
   if expect(name).msg ~= msg then error "its bytes changed" end
   if by_rail() - before ~= c[2] then error(c[1] .. " bytes went the wrong way") end
end

-- No one takes them: who sends is told, and nothing is lost.
for i = 1, 4096 do assert(near:notify(s, "full", "", 10000)) end
local r, why, errno = near:notify(s, "more", "", 10000)
if r or errno ~= ENOBUFS then error("full: " .. tostring(why)) end
print("  " .. why)
if not why:find(far:addr(), 1, true) then error "the error does not name the peer" end
for i = 1, 4096 do expect "full" end
assert(near:notify(s, "room", "", 10000))
expect "room"

-- Links go down and come back: each batch tells once.
local function link(dev, state) peer.sh("ip link set %s %s", peer.eth(dev), state) end

local function tell_all(n, meanwhile)
   local list, seen = {}, {}
   for i = 1, n do
      list[i] = assert(write(i, 30000))
      if meanwhile[i] then meanwhile[i]() end
      if i % 8 == 0 then assert(list[i]:wait(-1)) end
   end
   for i = 1, n do assert(list[i]:wait(-1)) end
   for _ = 1, n do
      local i = tonumber(expect "block".msg)
      if seen[i] then error(i .. " was told twice") end
      seen[i] = true
   end
   if far:next_notify(200) then error "one too many" end
end

local before = by_rail()
start = mooncake.now()
for round = 1, 4 do
   for dev in (round % 2 == 1 and arg[1] or arg[2]):gmatch "%w+" do
      tell_all(80, {
         [round * 7] = function() link(dev, "down") end,
         [40 + round * 7] = function() link(dev, "up") end,
      })
   end
end
local n = by_rail() - before
peer.report(("640 told once, %d by a rail, with links down and up"):format(n),
   (mooncake.now() - start) * 1000)
if n < 200 then error "the rails were hardly used" end

-- The same while nothing but notifications is on its way: what a lost connection has
-- delivered is not sent again.
local flap = {}
for dev in (arg[1] .. "," .. arg[2]):gmatch "%w+" do
   local eth = peer.eth(dev)
   flap[#flap + 1] = ("ip link set %s down; sleep 0.2; ip link set %s up; sleep 0.3")
      :format(eth, eth)
end
before, start = by_rail(), mooncake.now()
flap = assert(mooncake.spawn { "sh", "-c", table.concat(flap, "; ") })
local sent = 0
while not flap:wait(0) do
   for _ = 1, 8 do
      sent = sent + 1
      assert(near:notify(s, tostring(sent), "", 30000))
      expect(tostring(sent))
   end
end
if far:next_notify(200) then error "one too many" end
n = by_rail() - before
peer.report(("%d told in order, %d by a rail, with links down and up"):format(sent, n),
   (mooncake.now() - start) * 1000)

-- A peer that does not answer for a while is told all the same; one that is dead is not.
local function another()
   local p = peer.start { devices = arg[2], len = BLOCK }
   local segment, by = assert(near:segment(p.name, 10000)), by_rail()
   assert(near:notify(segment, "hello", "", 10000))
   if by_rail() == by then error "it has no rail" end
   return p, segment
end

local other, o = another()
other:kill "STOP"
start = mooncake.now()
local told = assert(near:submit({}, { timeout_ms = 20000,
   notify = { segment = o, name = "frozen" } }))
mooncake.sleep(1500)
other:kill "CONT"
assert(told:wait(-1))
peer.report("frozen for 1500 ms: told after", (mooncake.now() - start) * 1000)
-- Without a deadline it fails once nothing has moved for a while.
other:kill "STOP"
start = mooncake.now()
told = assert(near:submit({}, { notify = { segment = o, name = "frozen again" } }))
r, why = told:wait(-1)
print("  " .. tostring(why))
if r or mooncake.now() - start > 3 then error "it did not fail in time" end
other:kill "CONT"
assert(near:notify(o, "goes on", "", 10000))
other:kill "TERM"
other, o = another()
other:kill "KILL"
start = mooncake.now()
r, why = near:notify(o, "dead", "", 10000)
if r then error "the dead were told" end
print("  " .. why)
if not why:find(other.name, 1, true) then error "the error does not name the peer" end
peer.report("dead: noticed after", (mooncake.now() - start) * 1000)
if mooncake.now() - start > 4 then error "that was late" end
near:close()
far:close()
print "ok"
