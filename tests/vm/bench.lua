-- bench.lua - RDMA writes of ours beside those of ib_write_bw (perftest), on the same
-- device pair, with as much in flight, and by one clock; in the virtual machine of
-- scripts/vm, where the CPU is emulated and only ratios say anything. The best of five,
-- in turns.
--
--   mooncake run bench.lua DEVICE FAR-DEVICE

local CASES = {
   { size = 65536, n = 16, rounds = 60, depth = 64, least = 0.95 },
   { size = 1048576, n = 8, rounds = 8, depth = 16, least = 0.95 },
   { size = 4096, n = 128, rounds = 60, depth = 128, least = 0.9 },
}

local far = assert(mooncake.open { transports = "rdma", devices = arg[2] })
local e = assert(mooncake.open { transports = "rdma", devices = arg[1] })
local pool, near = assert(far:alloc(2 ^ 24)), assert(e:alloc(2 ^ 24))
local s = assert(e:segment(far:addr(), 10000))

-- Bytes per second of batches of writes that are not contiguous at the far end.
local function ours(c)
   local q = mooncake.reqs(c.n)
   for i = 0, c.n - 1 do
      local at = (i * 7 % c.n) * c.size
      q[i].op, q[i].segment, q[i].len = "MC_WRITE", s.id, c.size
      q[i].buf, q[i].remote = near.ptr + i * c.size, pool.addr + at
   end
   assert(e:transfer(q, { timeout_ms = 60000 }))
   local flying, at_once = {}, c.depth / c.n
   local start = mooncake.now()
   for i = 1, c.rounds do
      if i > at_once then assert(table.remove(flying, 1):wait(-1)) end
      flying[#flying + 1] = assert(e:submit(q, { timeout_ms = 60000 }))
   end
   assert(mooncake.wait_all(flying))
   return c.rounds * c.n * c.size / (mooncake.now() - start)
end

local port = 18600
local function run_theirs(c, iterations)
   port = port + 1
   local options = ("-d %%s -s %d -n %d -t %d -x 1 -p %d -F"):format(c.size, iterations,
      c.depth, port)
   local start = mooncake.now()
   local status = os.execute(("(ib_write_bw %s >/dev/null 2>&1 & sleep 2; " ..
      "ib_write_bw %s 127.0.0.1 >/dev/null 2>&1)"):format(
      options:format(arg[2]), options:format(arg[1])))
   if status ~= 0 then error "ib_write_bw failed" end
   return mooncake.now() - start
end

-- Its own clock cannot be trusted here: the time of many less that of few.
local function theirs(c)
   local few, many = c.depth, c.depth + c.n * c.rounds
   local t = run_theirs(c, many) - run_theirs(c, few)
   return (many - few) * c.size / t
end

for _, c in ipairs(CASES) do
   local a, b = {}, {}
   for i = 1, 5 do a[i], b[i] = ours(c), theirs(c) end
   local x, y = math.max(unpack(a)), math.max(unpack(b))
   print(("%7d bytes x %3d: %6.1f MB/s, ib_write_bw %6.1f: %.2f (at least %.2f)"):format(
      c.size, c.n, x / 1e6, y / 1e6, x / y, c.least))
end
