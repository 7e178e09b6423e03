-- numa.lua - two RDMA devices at two NUMA nodes: what is written from the memory of a
-- node goes over the device of that node, and over both when there is much of it; in
-- the virtual machine of scripts/vm.
--
--   mooncake run numa.lua DEVICE-OF-NODE-0,DEVICE-OF-NODE-1 FAR-DEVICES

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

for node = 0, 1 do
   local memory = memory_of(node)
   -- The first ones find a path to connect.
   for _ = 1, 20 do
      assert(s:write(memory, pool.addr, SMALL))
      mooncake.sleep(20)
   end
   local was = written()
   for _ = 1, ROUNDS do assert(s:write(memory, pool.addr, SMALL)) end
   local now = written()
   local mine, other = near[node + 1], near[2 - node]
   local here, there = now[mine] - was[mine], now[other] - was[other]
   print(("node %d: %.1f MiB written over %s, %.1f over %s"):format(
      node, here / 2 ^ 20, mine, there / 2 ^ 20, other))
   if here < 9 * there then error "the nearer device carries too little" end
end

local memory, was = memory_of(0), written()
for _ = 1, 2 do assert(s:write(memory, pool.addr, LARGE, { timeout_ms = 60000 })) end
for dev, bytes in pairs(written()) do
   print(("much: %.1f MiB written over %s"):format((bytes - was[dev]) / 2 ^ 20, dev))
   if bytes - was[dev] < LARGE / 8 then error(dev .. " does not help") end
end
print "ok"
