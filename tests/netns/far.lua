-- far.lua - the far host of netns_test.sh: offers memory until its input ends.
--
--   mooncake run far.lua ADDRESS DEVICES BYTES

local e = assert(mooncake.open {
   listen = "0.0.0.0:7001", advertise = arg[1], devices = arg[2],
})
local pool = assert(e:alloc(tonumber(arg[3]), { access = "rw" }))
print(("ready %s %d"):format(e:addr(), pool.addr))
io.stdout:flush()
io.stdin:read "*l"
