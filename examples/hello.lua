-- hello.lua - the shortest way from one node to another, here in one process:
--
--   mooncake run examples/hello.lua

local a = assert(mooncake.open())
local memory = assert(a:alloc(4096))

local b = assert(mooncake.open())
local segment = assert(b:segment(a:addr()))
assert(segment:write("hello, node", memory.addr))

print(memory:string(0, 11))
