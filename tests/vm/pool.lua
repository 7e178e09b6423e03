-- pool.lua - more peers than there may be paths: each is reached, and the queue pairs
-- stay as few as they may be; those that are idle go, at both ends, and come back when
-- they are wanted; in the virtual machine of scripts/vm.
--
--   MC_MAX_EP_PER_CTX=4 MC_IB_IDLE_S=2 mooncake run pool.lua DEVICE FAR-DEVICE

local MAX, PEERS, LEN = tonumber(os.getenv "MC_MAX_EP_PER_CTX"), 32, 4096
local IDLE = tonumber(os.getenv "MC_IB_IDLE_S")

-- Queue pairs at the near device that send, or those at the far one that answer, as the
-- kernel counts them.
local function queue_pairs(far)
   local n = 0
   local p = assert(io.popen(("rdma resource show qp link %s/1"):format(
      far and arg[2] or arg[1])))
   for line in p:lines() do
      if line:match("type RC state RTS") then n = n + 1 end
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
local function write(i, seed)
   local f = far[i]
   near:fill(seed)
   assert(f.s:write(near, f.memory.addr, LEN, { timeout_ms = 10000 }))
   if f.memory:hash() ~= near:hash() then error("peer " .. i .. " has other bytes") end
end
for round = 1, 2 do
   for i = 1, PEERS do
      write(i, round * PEERS + i)
      most = math.max(most, queue_pairs())
   end
end
print(("%d peers, at most %d queue pairs that send"):format(PEERS, most))
if most > MAX then error "more than there may be" end
if most < MAX then error "fewer than there may be" end

-- Only the first one is used, until the others have been idle for long enough.
local start, few, answer = mooncake.now()
repeat
   for seed = 1, 20 do write(1, seed) end
   few, answer = queue_pairs(), queue_pairs "far"
until few == 1 and answer == 1 or mooncake.now() - start > 10 * IDLE
print(("%d queue pair sends, %d answers"):format(few, answer))
if few ~= 1 or answer ~= 1 then error "idle paths stay" end
if mooncake.now() - start < IDLE / 2 then error "that was too soon" end
for i = 1, PEERS do write(i, i) end
print "ok"
