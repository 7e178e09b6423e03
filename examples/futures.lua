-- futures.lua - many batches under way at once, and whatever else meanwhile:
--
--   mooncake run examples/futures.lua

local N, LEN = 64, 2 ^ 18

local server = assert(mooncake.open())
local pool = assert(server:alloc(N * LEN))
pool:fill(1)

local e = assert(mooncake.open { transports = "tcp" })
local segment = assert(e:segment(server:addr()))
local mine = assert(e:alloc(N * LEN, { access = "local" }))

local waiting = {}
for i = 0, N - 1 do
   waiting[#waiting + 1] = assert(e:submit {
      op = "read", segment = segment, len = LEN, buf = mine.ptr + i * LEN,
      remote = pool.addr + i * LEN,
   })
end

-- They end in any order; the first eight are taken as they come.
for _ = 1, 8 do
   local i, f = assert(mooncake.wait_any(waiting, 5000))
   assert(f:poll() == "completed", f.result.why)
   table.remove(waiting, i)
end
assert(mooncake.wait_all(waiting, 5000))

local equal = mine:hash() == pool:hash()
print(("all %d %s"):format(N, equal and "equal" or "DIFFERENT"))
return equal
