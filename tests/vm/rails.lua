-- rails.lua - two engines with two RDMA devices each, in the virtual machine of
-- scripts/vm: bytes flow over both rails, over the other one while a link is down, and
-- over both again; the REPL says which end was at fault. Prints how long it took to
-- notice and to return.
--
--   mooncake run rails.lua NEAR-DEVICES FAR-DEVICES

local engines = require "mooncake.engines"
local peer = dofile "tests/vm/peer.lua"

local BLOCK, LEN = 128 * 1024, 24 * 2 ^ 20

local near_devices, far_devices = arg[1], arg[2]
local first, second = near_devices:match "(%w+),(%w+)"

local far = peer.start { devices = far_devices, len = LEN }
local e = assert(mooncake.open {
   listen = "none", transports = "rdma", devices = near_devices,
})
local near = assert(e:alloc(LEN, { access = "local" }))
local back = assert(e:alloc(LEN, { access = "local" }))
local s = assert(e:segment(far.name, 10000))

local function rails() return peer.rails(e) end

local function link(dev, state) peer.sh("ip link set %s %s", peer.eth(dev), state) end

local function submit(seed, timeout_ms)
   near:fill(seed)
   return assert(e:submit(peer.reqs("MC_WRITE", s, near, far, BLOCK),
      { timeout_ms = timeout_ms }))
end

local function verify(what)
   back:fill(0)
   assert(e:transfer(peer.reqs("MC_READ", s, back, far, BLOCK), { timeout_ms = 30000 }))
   if back:hash() ~= near:hash() then error(what .. ": other bytes came back") end
end

-- Where the rail of the first device ends.
local function far_end() return rails()[first].remote_dev:match "[^/]+$" end

-- The second rail is connected once the first has more than it takes at a time.
local function both_carry()
   for seed = 1, 3 do assert(submit(seed, 60000):wait(-1)) end
   verify "both links"
   peer.show(e)
   for dev, r in pairs(rails()) do
      if r.bytes_written < LEN / 5 then error(dev .. " carries too little") end
   end
end

local function errors()
   local n, ours = 0, 0
   for _, r in pairs(rails()) do n, ours = n + r.errors, ours + r.local_errors end
   return n, ours
end

-- All bytes arrive though the link of a device is taken down in the middle. A rail
-- whose paths are lost one by one may be up all the while.
local function one_down(dev, seed)
   local before, ours_before = errors()
   local list = {}
   for i = 1, 3 do list[i] = submit(seed, 60000) end
   mooncake.sleep(50)
   local start = mooncake.now()
   link(dev, "down")
   peer.report(dev .. " down: noticed after", peer.wait_for("reroute", 3, function()
      return errors() > before
   end))
   assert(mooncake.wait_all(list))
   peer.report("all bytes there after", (mooncake.now() - start) * 1000)
   verify(dev .. " down")
   peer.show(e)
   local n, ours = errors()
   return n - before, ours - ours_before
end

local function one_up(dev, seed)
   local was = rails()
   link(dev, "up")
   peer.report(dev .. " up: both rails used again after", peer.wait_for("return", 20,
      function()
         assert(submit(seed, 60000):wait(-1))
         local now = rails()
         return now[first].bytes_written > was[first].bytes_written + BLOCK and
                now[second].bytes_written > was[second].bytes_written + BLOCK
      end))
   verify(dev .. " up")
end

-- What the REPL says of it.
local function blames(pattern)
   local text = engines.rails()
   if not text:find(pattern) then error("no '" .. pattern .. "' in:\n" .. text) end
   print("  " .. text:match("[^\n]*" .. pattern))
end

-- No rail is left: an error, soon, that names the peer.
local function none()
   link(first, "down")
   link(second, "down")
   local start = mooncake.now()
   local r, why = submit(90, 0):wait(-1)
   local ms = (mooncake.now() - start) * 1000
   peer.report("error with no link", ms)
   if r then error "bytes moved without a link" end
   print("  " .. why)
   if not why:find(far.name, 1, true) then error "the error does not name the peer" end
   if ms > 2500 then error "the error came late" end
   link(first, "up")
   link(second, "up")
end

both_carry()
local was = far_end()
local n, ours = one_down(first, 10)
if ours ~= n then error(("%d of %d errors seen as local"):format(ours, n)) end
blames(("rail %s %%-> %%S+: %%d+ errors?, all with local %s"):format(first, first))
one_up(first, 11)
-- It was not the peer's device that failed, so there is no reason to leave it.
if far_end() ~= was then error("now it ends at " .. far_end()) end
n, ours = one_down(was, 20)
if ours ~= 0 then error(("%d of %d errors seen as local"):format(ours, n)) end
one_up(was, 21)
none()
far:kill "TERM"
e:close()
print "ok"
