-- near.lua - the near host of netns_test.sh: moves bytes over two rails while
-- it takes their links down and up.
--
--   mooncake run near.lua NAMESPACE DEVICES SEGMENT ADDRESS BYTES

local ns, devices, name = arg[1], arg[2], arg[3]
local base, len = tonumber(arg[4]), tonumber(arg[5])
local first, second = devices:match "(%w+),(%w+)"
local BLOCK = 1024 * 1024

local e = assert(mooncake.open { listen = "none", devices = devices })
local near = assert(e:alloc(len, { access = "local" }))
local back = assert(e:alloc(len, { access = "local" }))
local s = assert(e:segment(name, 5000))

local function link(dev, state)
   assert(os.execute(("nsenter --net=/var/run/netns/%s ip link set %s %s"):format(
      ns, dev, state)) == 0)
end

local function rails()
   local by = {}
   for _, r in ipairs(e:rails()) do by[r.transport == "tcp" and r.local_dev or
                                       r.transport] = r end
   return by
end

local function reqs(op, from)
   local n = len / BLOCK
   local q = mooncake.reqs(n)
   for i = 0, n - 1 do
      q[i].op, q[i].segment, q[i].len = op, s.id, BLOCK
      q[i].buf, q[i].remote = from.ptr + i * BLOCK, base + i * BLOCK
   end
   return q
end

-- All of it back, and equal.
local function verify(what)
   back:fill(0)
   assert(e:transfer(reqs("MC_READ", back), { timeout_ms = 10000 }))
   if back:hash() ~= near:hash() then error(what .. ": other bytes came back") end
end

local function submit(seed, timeout_ms)
   near:fill(seed)
   return assert(e:submit(reqs("MC_WRITE", near), { timeout_ms = timeout_ms }))
end

local function wait_for(what, seconds, f)
   local start = mooncake.now()
   while not f() do
      if mooncake.now() - start > seconds then error(what .. ": not in time") end
      mooncake.sleep(0.002)
   end
   return (mooncake.now() - start) * 1000
end

local function report(what, ms) print(("%s: %.0f ms"):format(what, ms)) end

-- Hosts that share no network namespace are two hosts, though one kernel runs both.
local function only_tcp()
   local by = rails()
   if by.shm and by.shm.state == "up" then error "shm is up between two hosts" end
   if by.shm then print("shm: " .. by.shm.state .. ": " .. by.shm.why) end
end

-- A rail that was not wanted yet is connected while the other works.
local function both_carry()
   local f = submit(1, 10000)
   assert(f:wait(-1))
   f = submit(2, 10000)
   assert(f:wait(-1))
   verify "both links"
   local by = rails()
   for _, dev in ipairs { first, second } do
      local mib = by[dev].bytes_written / BLOCK
      print(("%s: %d MiB written"):format(dev, mib))
      if by[dev].bytes_written < len / 5 then error(dev .. " carries too little") end
   end
end

local function one_down()
   local f = submit(3, 10000)
   mooncake.sleep(0.05)
   local start = mooncake.now()
   link(first, "down")
   report("reroute after a link went down", wait_for("reroute", 1.5, function()
      return rails()[first].state ~= "up"
   end))
   assert(f:wait(-1))
   report("all bytes over the other", (mooncake.now() - start) * 1000)
   verify "one link down"
end

local function one_up()
   local before = rails()[first].bytes_written
   link(first, "up")
   report("rail used again after its link came up", wait_for("return", 5, function()
      assert(submit(4, 5000):wait(-1))
      return rails()[first].bytes_written > before
   end))
   verify "link up again"
end

local function both_down_and_up()
   local f = submit(5, 10000)
   mooncake.sleep(0.05)
   link(first, "down")
   link(second, "down")
   mooncake.sleep(0.7)
   link(first, "up")
   link(second, "up")
   local start = mooncake.now()
   assert(f:wait(-1))
   report("done after both links came back", (mooncake.now() - start) * 1000)
   verify "both down and up"
end

local function both_down()
   link(first, "down")
   link(second, "down")
   local start = mooncake.now()
   local r, why = submit(6, 0):wait(-1)
   local ms = (mooncake.now() - start) * 1000
   report("error with no link", ms)
   if r then error "bytes moved without a link" end
   print(why)
   if not why:find(name, 1, true) then error "the error does not name the peer" end
   if ms > 1200 then error "the error came late" end
   link(first, "up")
   link(second, "up")
end

only_tcp()
both_carry()
one_down()
one_up()
both_down_and_up()
both_down()
e:close()
print "ok"
