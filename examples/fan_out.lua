-- fan_out.lua - blocks go from one process to several at once.
--
--    mooncake run fan_out.lua [NODES [BLOCKS]]
--
-- Each node is a process that offers memory. Our blocks go to the nodes in turn:
-- scattered here, dense there. A batch for each node is submitted, all are waited for
-- together, and each node's memory is read back and compared.

local nodes, blocks, block = tonumber(arg[1] or 2), tonumber(arg[2] or 64), 65536

local function start()
   local p = assert(mooncake.spawn { "mooncake", "serve", "--quiet", "--memory",
      blocks * block, stdout = "pipe" })
   return p, assert(p:read_line(5000)):match "^ready (.+)"
end

-- The memory that the node offers to be written.
local function writable(segment)
   for _, b in ipairs(assert(segment:buffers())) do
      if b.access == "rw" then return b.addr end
   end
end

local function requests(segment, far, mine, first)
   local list = {}
   for i = first, blocks - 1, nodes do
      list[#list + 1] = { op = "write", segment = segment, buf = mine.addr + i * block,
                          remote = far + #list * block, len = block }
   end
   return list
end

-- Is what lies there now what every nodes-th block of ours holds?
local function same(engine, segment, far, mine, first)
   local back = assert(engine:alloc(block, { access = "local" }))
   local n = 0
   for i = first, blocks - 1, nodes do
      assert(segment:read(back, far + n * block, block))
      if back:hash() ~= mine:hash(i * block, block) then return false end
      n = n + 1
   end
   return assert(back:free())
end

local engine = assert(mooncake.open())
local mine = assert(engine:alloc(blocks * block, { access = "local" })):fill(7)
local peers, futures = {}, {}
for i = 1, nodes do
   local p, addr = start()
   local segment = assert(engine:segment(addr))
   peers[i] = { process = p, segment = segment, far = writable(segment) }
end
for i, peer in ipairs(peers) do
   futures[i] = assert(engine:submit(requests(peer.segment, peer.far, mine, i - 1)))
end
local results, why = mooncake.wait_all(futures, 10000)
local ok = results ~= nil
for i, peer in ipairs(peers) do
   local equal = ok and same(engine, peer.segment, peer.far, mine, i - 1)
   print(("node %d: %d bytes, %s"):format(i, ok and results[i].bytes or 0,
      equal and "equal" or why or "not equal"))
   ok = ok and equal
   peer.process:kill()
   peer.process:wait(2000)
end
return ok
