-- pool.lua - more peers than there may be paths: each is reached, and the queue pairs
-- stay as few as they may be; in the virtual machine of scripts/vm.
--
--   MC_MAX_EP_PER_CTX=4 mooncake run pool.lua DEVICE FAR-DEVICE

local MAX, PEERS, LEN = tonumber(os.getenv "MC_MAX_EP_PER_CTX"), 32, 4096

-- Queue pairs of this process at the near device that send, as the kernel counts them.
local function queue_pairs()
   local n = 0
   local p = assert(io.popen("rdma resource show qp link " .. arg[1] .. "/1"))
   for line in p:lines() do
      if line:match "type RC state RTS" then n = n + 1 end
   end
   p:close()
   return n
end

local e = assert(mooncake.open { transports = "rdma", devices = arg[1], workers = 1 })
local near = assert(e:alloc(LEN, { access = "local" }))
local far, most = {}, 0
for i = 1, PEERS do
   local engine = assert(mooncake.open { transports = "rdma", devices = arg[2],
                                         workers = 1 })
   local memory = assert(engine:alloc(LEN))
   far[i] = { engine = engine, memory = memory,
              s = assert(e:segment(engine:addr(), 10000)) }
   most = math.max(most, queue_pairs())
end
for round = 1, 2 do
   for i, f in ipairs(far) do
      near:fill(round * PEERS + i)
      assert(f.s:write(near, f.memory.addr, LEN, { timeout_ms = 10000 }))
      if f.memory:hash() ~= near:hash() then error("peer " .. i .. " has other bytes") end
      most = math.max(most, queue_pairs())
   end
end
print(("%d peers, at most %d queue pairs that send"):format(PEERS, most))
if most > MAX then error "more than there may be" end
if most < MAX then error "fewer than there may be" end
print "ok"
