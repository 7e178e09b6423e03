-- errors.lua - what goes wrong when RDMA is set up badly is said clearly: each case is
-- a process of its own, in the virtual machine of scripts/vm.
--
--   mooncake run errors.lua

local function case(name)
   local e, why = mooncake.open { transports = "rdma", devices = "rxe0" }
   if not e then return print(why) end
   if name == "GPU" then
      -- Where no memory is: as with a GPU's, the kernel finds none to pin.
      local buffer, refused = e:register(0x10000, 4096, { location = "cuda:0" })
      return print(buffer and "registered" or refused)
   end
   if name == "memlock" then
      local buffer, refused = e:alloc(64 * 2 ^ 20)
      return print(buffer and "registered" or refused)
   end
   if name == "device" then
      local other = assert(mooncake.open { transports = "rdma", devices = "rxe1" })
      local memory = assert(other:alloc(4096))
      local s = assert(e:segment(other:addr(), 5000))
      assert(s:write("hello", memory.addr))
      return print(memory:string(0, 5), e:rails()[1].remote_dev)
   end
   print "opened"
end

if arg[1] then return case(arg[1]) end

-- What a process that is started as @words says, with @words of it in the text.
local function says(name, command, ...)
   local p = assert(io.popen(command .. " 2>&1"))
   local text = p:read "*a"
   p:close()
   for _, word in ipairs { ... } do
      if not text:find(word, 1, true) then
         error(("%s: no '%s' in: %s"):format(name, word, text))
      end
   end
   print(name .. ": " .. text:match "[^\n]*")
end

local function me(name)
   return ("%s run %s %s"):format(require "mooncake.proc".exe(), arg[0], name)
end

says("wrong GID", "MC_GID_INDEX=77 " .. me "gid", "rxe0", "77", "MC_GID_INDEX")
says("right GID", "MC_GID_INDEX=1 " .. me "gid", "opened")
says("memlock", "ulimit -l 1024; setpriv --bounding-set=-ipc_lock " .. me "memlock",
     "rxe0", "memlock", "1024 KiB")
says("GPU", me "GPU", "rxe0", "cuda:0", "dma-buf", "libcuda.so.1", "nvidia-peermem")
says("on demand", "MC_IB_ON_DEMAND=1 " .. me "open", "rxe0", "MC_IB_ON_DEMAND",
     "opened")
says("no address", "ip addr flush dev eth1; " .. me "device", "rxe1")
assert(os.execute "ip addr add 10.10.0.2/16 dev eth1" == 0)
says("devices", me "device", "hello", "/rxe1")
print "ok"
