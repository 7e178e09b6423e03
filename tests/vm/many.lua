-- many.lua - thousands of buffers over RDMA, in the virtual machine of scripts/vm: each
-- is found when it is first used, also those registered later; one that is gone is
-- refused, and so is what took its place.
--
--   mooncake run many.lua DEVICE FAR-DEVICE

local N, SIZE = 1000, 64

local far = assert(mooncake.open { transports = "rdma", devices = arg[2] })
local e = assert(mooncake.open { transports = "rdma", devices = arg[1] })
local memory = assert(far:alloc(2 * N * SIZE, { access = "local" }))
local near = assert(e:alloc(N * SIZE, { access = "local" }))

-- Buffers of their own inside memory of the C library's.
local ffi = require "ffi"
local plain = ffi.new("uint8_t[?]", 2 * N * SIZE)
local list = {}
local function register(from, to)
   for i = from, to do
      list[i] = assert(far:register(plain + 2 * (i - 1) * SIZE, SIZE))
   end
end

register(1, 100)
local s = assert(e:segment(far:addr(), 10000))
local function write_all(from, to, seed)
   near:fill(seed)
   local q = {}
   for i = from, to do
      q[#q + 1] = { op = "write", segment = s, buf = near.ptr + (i - 1) * SIZE,
                    remote = list[i].addr, len = SIZE }
   end
   assert(e:transfer(q, { timeout_ms = 60000 }))
   for i = from, to do
      local want = mooncake.hash(near.ptr + (i - 1) * SIZE, SIZE)
      if mooncake.hash(list[i].ptr, SIZE) ~= want then
         error("buffer " .. i .. " has other bytes")
      end
   end
end

write_all(1, 100, 1)
register(101, N)
write_all(1, N, 2)
print(("%d buffers found"):format(N))

local one = {
   { op = "write", segment = s, buf = near, remote = list[50].addr, len = SIZE },
}
assert(list[50]:free())
local r, why = e:transfer(one)
if r then error "a buffer that has gone was written" end
print("gone: " .. why)
list[50] = assert(far:register(plain + 98 * SIZE, SIZE))
assert(e:transfer(one))
write_all(1, N, 3)
if memory:string(0, 4) ~= "\0\0\0\0" then error "memory next to it was written" end
print "ok"
