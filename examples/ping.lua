-- ping.lua - how far away a node is, by the control connection and by one small read:
--
--   mooncake run examples/ping.lua [HOST:PORT]      (without: a node of its own)

local util = require "mooncake.util"

local addr, node = arg[1], nil
if not addr then
   node = assert(mooncake.open())
   assert(node:alloc(4096, { access = "r" }))
   addr = node:addr()
end

local e = assert(mooncake.open { listen = "none" })
local segment = assert(e:segment(addr))

local function median_us(n, once)
   local times = {}
   for i = 1, n do times[i] = once() end
   table.sort(times)
   return times[math.ceil(n / 2)]
end

local probe = median_us(100, function() return assert(segment:probe()) end)
print(("%s: round trip %s"):format(addr, util.duration(probe / 1e6)))

local mine = assert(e:alloc(64, { access = "local" }))
for _, b in ipairs(assert(segment:buffers())) do
   if b.access == "r" or b.access == "rw" then
      local read = median_us(1000, function()
         local start = mooncake.now()
         assert(segment:read(mine, b, math.min(64, b.len)))
         return (mooncake.now() - start) * 1e6
      end)
      print(("read of 64 bytes at 0x%x: %s"):format(b.addr, util.duration(read / 1e6)))
      break
   end
end
