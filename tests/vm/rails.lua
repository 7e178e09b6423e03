-- rails.lua - two engines with two RDMA devices each, in the virtual machine of
-- scripts/vm: bytes flow over both rails, over the other one while a link is down,
-- and over both again. Prints how long it took to notice and to return.
--
--   mooncake run rails.lua NEAR-DEVICES FAR-DEVICES
--
-- Interface ethN carries device rxeN.

local BLOCK, BLOCKS = 128 * 1024, 192
local LEN = BLOCK * BLOCKS

if arg[1] == "far" then
   local e = assert(mooncake.open { transports = "rdma", devices = arg[2] })
   local pool = assert(e:alloc(LEN, { access = "rw" }))
   print(("ready %s %.0f"):format(e:addr(), pool.addr))
   io.stdout:flush()
   io.stdin:read "*l"
   os.exit(0)
end

local near_devices, far_devices = arg[1], arg[2]
local first, second = near_devices:match "(%w+),(%w+)"
local far_first = far_devices:match "%w+"

local far = assert(mooncake.spawn {
   "build/mooncake", "run", arg[0], "far", far_devices, stdin = "pipe", stdout = "pipe",
})
local name, base = assert(far:read_line(20000)):match "^ready (%S+) (%d+)$"
base = tonumber(base)
local e = assert(mooncake.open {
   listen = "none", transports = "rdma", devices = near_devices,
})
local near = assert(e:alloc(LEN, { access = "local" }))
local back = assert(e:alloc(LEN, { access = "local" }))
local s = assert(e:segment(name, 10000))

local function link(dev, state)
   local eth = dev:gsub("rxe", "eth")
   assert(os.execute(("ip link set %s %s"):format(eth, state)) == 0)
end

local function rails()
   local by = {}
   for _, r in ipairs(e:rails()) do by[r.local_dev] = r end
   return by
end

local function reqs(op, from)
   local q = mooncake.reqs(BLOCKS)
   for i = 0, BLOCKS - 1 do
      q[i].op, q[i].segment, q[i].len = op, s.id, BLOCK
      q[i].buf, q[i].remote = from.ptr + i * BLOCK, base + i * BLOCK
   end
   return q
end

local function submit(seed, timeout_ms)
   near:fill(seed)
   return assert(e:submit(reqs("MC_WRITE", near), { timeout_ms = timeout_ms }))
end

local function verify(what)
   back:fill(0)
   assert(e:transfer(reqs("MC_READ", back), { timeout_ms = 30000 }))
   if back:hash() ~= near:hash() then error(what .. ": other bytes came back") end
end

local function wait_for(what, seconds, f)
   local start = mooncake.now()
   while not f() do
      if mooncake.now() - start > seconds then error(what .. ": not in time") end
      mooncake.sleep(2)
   end
   return (mooncake.now() - start) * 1000
end

local function report(what, ms) print(("%s: %.0f ms"):format(what, ms)) end

local function show()
   for dev, r in pairs(rails()) do
      print(("  %s -> %s: %s, %.1f MiB written, %d errors, %d local: %s"):format(
         dev, r.remote_dev, r.state, r.bytes_written / 2 ^ 20, r.errors,
         r.local_errors, r.why))
   end
end

-- The second rail is connected once the first has more than it takes at a time.
local function both_carry()
   for seed = 1, 3 do assert(submit(seed, 60000):wait(-1)) end
   verify "both links"
   show()
   for dev, r in pairs(rails()) do
      if r.bytes_written < LEN / 5 then error(dev .. " carries too little") end
   end
end

-- All bytes arrive though the link of a device is taken down in the middle.
local function one_down(dev, seed)
   local list = {}
   for i = 1, 2 do list[i] = submit(seed, 60000) end
   mooncake.sleep(100)
   local start = mooncake.now()
   link(dev, "down")
   report(dev .. " down: noticed after", wait_for("reroute", 3, function()
      for _, r in pairs(rails()) do if r.state ~= "up" then return true end end
   end))
   assert(mooncake.wait_all(list))
   report("all bytes there after", (mooncake.now() - start) * 1000)
   verify(dev .. " down")
   show()
end

local function one_up(dev, seed)
   local was = rails()
   link(dev, "up")
   report(dev .. " up: both rails used again after", wait_for("return", 20, function()
      assert(submit(seed, 60000):wait(-1))
      local now = rails()
      return now[first].bytes_written > was[first].bytes_written + BLOCK and
             now[second].bytes_written > was[second].bytes_written + BLOCK
   end))
   verify(dev .. " up")
end

-- No rail is left: an error, soon, that names the peer.
local function none()
   link(first, "down")
   link(second, "down")
   local start = mooncake.now()
   local r, why = submit(90, 0):wait(-1)
   local ms = (mooncake.now() - start) * 1000
   report("error with no link", ms)
   if r then error "bytes moved without a link" end
   print("  " .. why)
   if not why:find(name, 1, true) then error "the error does not name the peer" end
   if ms > 2500 then error "the error came late" end
   link(first, "up")
   link(second, "up")
end

both_carry()
one_down(first, 10)
one_up(first, 11)
one_down(far_first, 20)
one_up(far_first, 21)
none()
far:kill "TERM"
e:close()
print "ok"
