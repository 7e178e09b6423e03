-- memory.lua - buffers that devices may take only in chunks, in the virtual machine of
-- scripts/vm: each chunk has a key at each device, requests that cross their ends move
-- all bytes and no others, and none stays registered. Chunks are of MC_MAX_MR_SIZE here
-- and of FAR-CHUNK bytes at the other process.
--
--   MC_MAX_MR_SIZE=N mooncake run memory.lua DEVICES FAR-DEVICES FAR-CHUNK

local ffi = require "ffi"
local proc = require "mooncake.proc"

local LEN, GUARD, SLOTS, ROUNDS = 4 * 2 ^ 20 + 777, 12345, 13, 40
local SPAN = GUARD + LEN + GUARD

-- Memory in the middle of which a chunk ends, whatever their size, with bytes around it
-- that are not ours.
local MUCH, anchors = 8 * 2 ^ 20, {}
local function memory(seed)
   local all = ffi.new("uint8_t[?]", 3 * MUCH)
   local past = tonumber(ffi.cast("uintptr_t", all)) % MUCH
   local block = all + 2 * MUCH - past - math.floor(SPAN / 2)
   anchors[#anchors + 1] = all
   ffi.fill(block, SPAN, seed)
   return block, block + GUARD
end

if arg[1] == "far" then
   local e = assert(mooncake.open { transports = "rdma", devices = arg[2] })
   local block, at = memory(0xee)
   local b = assert(e:register(at, LEN))
   print(("%s %.0f"):format(e:addr(), b.addr))
   io.stdout:flush()
   for _ in io.lines() do
      print(mooncake.hex(mooncake.hash(block, SPAN)))
      io.stdout:flush()
   end
   os.exit(0)
end

-- Regions of memory registered at the devices by this process, as the kernel counts.
local pid = io.open "/proc/self/stat":read "*n"
local function registered()
   local n = 0
   local p = assert(io.popen "rdma resource show mr")
   for line in p:lines() do
      if line:match("pid " .. pid .. " ") then n = n + 1 end
   end
   p:close()
   return n
end

local function chunks(addr, len, size)
   if len <= size then return 1 end
   return math.floor((addr + len - 1) / size) - math.floor(addr / size) + 1
end

local far = assert(mooncake.spawn {
   "env", "MC_MAX_MR_SIZE=" .. arg[3], proc.exe(), "run", arg[0], "far", arg[2],
   stdin = "pipe", stdout = "pipe",
})
local name, base = assert(far:read_line(20000)):match "^(%S+) (%d+)$"
base = tonumber(base)
local e = assert(mooncake.open { transports = "rdma", devices = arg[1] })
local s = assert(e:segment(name, 10000))
local block, at = memory(0x55)
local model = ffi.new("uint8_t[?]", SPAN)
ffi.fill(model, SPAN, 0xee)

local was = registered()
local near = assert(e:register(at, LEN, { access = "rw" }))
local _, devices = arg[1]:gsub("%w+", "")
local want = chunks(near.addr, LEN, tonumber(os.getenv "MC_MAX_MR_SIZE")) * devices
print(("%d regions at %d devices"):format(registered() - was, devices))
if registered() - was < want then error(want .. " would be right") end

local function same()
   far:write "?\n"
   if far:read_line(20000) ~= mooncake.hex(mooncake.hash(model, SPAN)) then
      error "the far memory has other bytes"
   end
end

-- In each slot of the far memory one request, from anywhere here or to its slot here.
math.randomseed(7)
local SLOT = math.floor(LEN / SLOTS)
local function requests(op)
   local q = mooncake.reqs(SLOTS)
   for i = 0, SLOTS - 1 do
      local off, len = math.random(0, SLOT - 1), nil
      len = math.random(1, SLOT - off)
      local there = i * SLOT + off
      local here = op == "MC_READ" and there or math.random(0, LEN - len)
      q[i].op, q[i].segment, q[i].len = op, s.id, len
      q[i].buf, q[i].remote = near.ptr + here, base + there
      if op == "MC_WRITE" then
         ffi.copy(model + GUARD + there, near.ptr + here, len)
      end
   end
   return q
end

for round = 1, ROUNDS do
   near:fill(round)
   assert(e:transfer(requests "MC_WRITE", { timeout_ms = 30000 }))
   same()
   local q = requests "MC_READ"
   assert(e:transfer(q, { timeout_ms = 30000 }))
   for i = 0, SLOTS - 1 do
      local there = tonumber(q[i].remote) - base
      if mooncake.hash(near.ptr + there, tonumber(q[i].len)) ~=
         mooncake.hash(model + GUARD + there, tonumber(q[i].len)) then
         error "other bytes were read"
      end
   end
end
-- A piece of all of it, each chunk of which is to be known.
near:fill(99)
assert(s:write(near, base, LEN, { timeout_ms = 30000 }))
ffi.copy(model + GUARD, near.ptr, LEN)
same()
for _, i in ipairs { 0, GUARD - 1, GUARD + LEN, SPAN - 1 } do
   if block[i] ~= 0x55 then error "memory next to the buffer was written" end
end
local before = registered()
assert(near:free())
if before - registered() ~= want then
   error(("%d regions of %d are gone"):format(before - registered(), want))
end
far:kill "TERM"
print "ok"
