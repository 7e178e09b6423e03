-- numa.lua - two RDMA devices at two NUMA nodes: what is written from the memory of a
-- node goes over the device of that node, and over both when there is much of it; in
-- the virtual machine of scripts/vm.
--
--   mooncake run numa.lua DEVICE-OF-NODE-0,DEVICE-OF-NODE-1 FAR-DEVICES

local peer = dofile "tests/vm/peer.lua"

local SMALL, LARGE, ROUNDS = 64 * 1024, 16 * 2 ^ 20, 60

local far = assert(mooncake.open { transports = "rdma", devices = arg[2] })
local pool = assert(far:alloc(LARGE))
local e = assert(mooncake.open { transports = "rdma", devices = arg[1] })
local s = assert(e:segment(far:addr(), 10000))

local function written()
   local by = {}
   for _, r in ipairs(e:rails()) do by[r.local_dev] = r.bytes_written end
   return by
end

local near = { arg[1]:match "(%w+),(%w+)" }
local function memory_of(node)
   return assert(e:alloc(LARGE, { access = "local", node = node, populate = true }))
end

-- Bytes that each device carries while @n writes of @len go, from @memory.
local function carried(memory, n, len)
   local was, by = written(), {}
   for _ = 1, n do assert(s:write(memory, pool.addr, len, { timeout_ms = 60000 })) end
   for dev, bytes in pairs(written()) do by[dev] = bytes - was[dev] end
   return by
end

-- The first writes find a path to connect; and a device that answered late once, which
-- happens where the CPU is emulated, is passed over for a while.
local function soon(what, check)
   local good, text
   peer.wait_for(what, 20, function()
      good, text = check()
      if not good then io.stderr:write(what, ": ", text, "\n") end
      return good
   end)
   print(what .. ": " .. text)
end

local function shares(by)
   return ("%.1f MiB written over %s, %.1f over %s"):format(
      by[near[1]] / 2 ^ 20, near[1], by[near[2]] / 2 ^ 20, near[2])
end

for node = 0, 1 do
   local memory = memory_of(node)
   soon("node " .. node, function()
      local by = carried(memory, ROUNDS, SMALL)
      return by[near[node + 1]] >= 9 * by[near[2 - node]], shares(by)
   end)
end

local memory = memory_of(0)
soon("much", function()
   local by = carried(memory, 2, LARGE)
   return math.min(by[near[1]], by[near[2]]) >= LARGE / 8, shares(by)
end)
print "ok"
