-- pair.lua - one process offers memory, another one writes into it.
local engine = assert(mooncake.open())
if not arg[1] then
   local memory = assert(engine:alloc(4096))
   assert(mooncake.spawn { "mooncake", "run", arg[0], engine:addr() }):wait()
   print("received: " .. memory:string(0, 20))
else
   local segment = assert(engine:segment(arg[1]))
   print("wrote", assert(segment:write("KV cache of a prompt", segment:buffers()[1])))
end
