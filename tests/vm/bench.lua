-- bench.lua - RDMA of ours beside that of perftest, in the virtual machine of scripts/vm,
-- where the CPUs are emulated and only ratios say anything.
--
--   mooncake run tests/vm/bench.lua [--json] [--rounds N] [--scale N] [--only PATTERN]
--
-- Both have as many bytes in flight on the same devices, from rxe0 (and rxe1) to rxe2
-- (and rxe3). Theirs goes over one block again and again, ours over those of a batch, not
-- contiguous at the far end. Perftest's own clock cannot be trusted here: its time is
-- that of a long run less that of a short one. A round measures ours and theirs, in
-- turns; ratios are of each round, their median counts. The exit status is 1 if a bar is
-- missed.

local kit = require "mooncake.benchkit"
local proc = require "mooncake.proc"
local util = require "mooncake.util"

local KIB, MIB = 2 ^ 10, 2 ^ 20
local NEAR, FAR = { "rxe0", "rxe1" }, { "rxe2", "rxe3" }
local SPAN, TIMEOUT_MS = 16 * MIB, 60000
local FEW = 128                            -- blocks before the clock runs

local opt = kit.options(arg, { rounds = 5, scale = 1, only = "", json = false })

-- count: of batches.
local POINTS = {
   { op = "write", size = 64 * KIB, n = 16, count = 200, depth = 64, least = 0.95 },
   { op = "write", size = MIB, n = 8, count = 24, depth = 16, least = 0.95 },
   { op = "write", size = 4 * KIB, n = 128, count = 200, depth = 128, least = 0.9 },
   { op = "read", size = 64 * KIB, n = 16, count = 200, depth = 64, least = 0.95 },
   { op = "read", size = MIB, n = 8, count = 24, depth = 16, least = 0.95 },
   { op = "write", size = 64 * KIB, n = 16, count = 200, depth = 64, devices = 2,
     least = 0.9 },
   { op = "write", size = MIB, n = 8, count = 24, depth = 16, devices = 2, least = 0.9 },
   -- ib_write_lat looks for completions and never sleeps; spin_us asks for the same.
   { op = "write", size = 4 * KIB, n = 1, count = 2000, depth = 1, spin_us = 20000,
     most = 1.3 },
   { op = "write", size = 4 * KIB, n = 1, count = 2000, depth = 1 },
}

-- ---- ours ------------------------------------------------------------------

local engines = {}                         -- by how many devices, and spin_us

local function pair_of(devices, spin_us)
   local key = devices .. " " .. tostring(spin_us)
   local p = engines[key]
   if p then return p end
   p = { far = assert(mooncake.open { transports = "rdma",
                                      devices = { unpack(FAR, 1, devices) } }),
         near = assert(mooncake.open { transports = "rdma", spin_us = spin_us,
                                       devices = { unpack(NEAR, 1, devices) } }) }
   p.pool, p.mine = assert(p.far:alloc(SPAN)), assert(p.near:alloc(SPAN))
   p.segment = assert(p.near:segment(p.far:addr(), 10000))
   engines[key] = p
   return p
end

local function requests(p, c)
   local q = mooncake.reqs(c.n)
   for i = 0, c.n - 1 do
      q[i].op, q[i].segment = c.op == "read" and "MC_READ" or "MC_WRITE", p.segment.id
      q[i].buf, q[i].len = p.mine.ptr + i * c.size, c.size
      q[i].remote = p.pool.addr + i * 7 % c.n * c.size
   end
   return q
end

-- Seconds for the point's batches.
local function ours(c)
   local p = pair_of(c.devices, c.spin_us)
   local q = requests(p, c)
   local limit = { timeout_ms = TIMEOUT_MS }
   -- As many before as those that are taken off perftest's time.
   for _ = 1, FEW / c.n do assert(p.near:transfer(q, limit)) end
   local flying, at_once = {}, c.depth * c.devices / c.n
   local start = mooncake.now()
   for i = 1, c.count do
      if c.depth == 1 then
         assert(p.near:transfer(q, limit))
      else
         if i > at_once then assert(table.remove(flying, 1):wait(-1)) end
         flying[#flying + 1] = assert(p.near:submit(q, limit))
      end
   end
   assert(mooncake.wait_all(flying))
   return mooncake.now() - start
end

-- ---- theirs ----------------------------------------------------------------

local port = 18600

-- Is there who listens at this port? As /proc/net/tcp has it.
local function listens(at)
   for _, file in ipairs { "/proc/net/tcp", "/proc/net/tcp6" } do
      for line in io.lines(file) do
         if line:find((":%04X %%x+:0000 0A"):format(at)) then return true end
      end
   end
end

local function tool(c, device, at, iterations, peer)
   local args = { c.depth == 1 and "ib_write_lat" or "ib_" .. c.op .. "_bw", "-d", device,
                  "-s", ("%d"):format(c.size), "-n", ("%d"):format(iterations), "-x", "1",
                  "-p", ("%d"):format(at), "-F", stdout = "null", stderr = "null" }
   if c.depth > 1 then
      args[#args + 1] = "-t"
      args[#args + 1] = ("%d"):format(c.depth)
   end
   args[#args + 1] = peer
   return assert(proc.spawn(args))
end

local function ended(p)
   local status = p:wait()
   p:close()
   if status ~= 0 then error(("perftest ended with %d"):format(status)) end
end

-- Seconds of one run on each of the devices, at once.
local function run_theirs(c, iterations)
   local servers, clients, first = {}, {}, port
   port = port + c.devices
   for i = 1, c.devices do servers[i] = tool(c, FAR[i], first + i, iterations) end
   for i = 1, c.devices do
      while not listens(first + i) do proc.sleep_ms(20) end
   end
   local start = mooncake.now()
   for i = 1, c.devices do
      clients[i] = tool(c, NEAR[i], first + i, iterations, "127.0.0.1")
   end
   for i = 1, c.devices do ended(clients[i]) end
   local seconds = mooncake.now() - start
   for i = 1, c.devices do ended(servers[i]) end
   return seconds
end

-- Seconds for as many blocks as ours moves. An iteration of ib_write_lat is two.
local function theirs(c)
   local blocks = c.n * c.count / c.devices / (c.depth == 1 and 2 or 1)
   return run_theirs(c, FEW + blocks) - run_theirs(c, FEW)
end

-- ---- the table -------------------------------------------------------------

local function name_of(c)
   local how = c.depth > 1 and "" or c.spin_us and ", polling" or ", at rest"
   return ("%s %s x %d, %d device%s%s"):format(c.op, util.bytes(c.size), c.n, c.devices,
                                               c.devices > 1 and "s" or "", how)
end

local function measure(c, round)
   local a, b
   if round % 2 == 1 then
      a, b = ours(c), theirs(c)
   else
      b, a = theirs(c), ours(c)
   end
   c.ours, c.ratios = c.ours or {}, c.ratios or {}
   c.ours[round] = a
   c.ratios[round] = c.depth == 1 and a / b or b / a
   if os.getenv "MC_LOG" == "info" then
      io.stderr:write(("%s: %.2f s, theirs %.2f s\n"):format(name_of(c), a, b))
   end
end

local function report(figures, c)
   table.sort(c.ours)
   table.sort(c.ratios)
   local t = c.ours[math.ceil(#c.ours / 2)]
   local figure = c.depth == 1 and ("%.0f us"):format(t / c.count * 1e6) or
                  ("%.1f MB/s"):format(c.count * c.n * c.size / t / 1e6)
   figures:add(("%s: %s, %.2f to %.2f of perftest"):format(name_of(c), figure,
               c.ratios[1], c.ratios[#c.ratios]), c.ratios,
               function(x) return ("%.2f x"):format(x) end,
               (c.least or c.most) and { least = c.least, most = c.most })
end

kit.print_machine(opt.json, "RDMA beside perftest, medians of %d rounds", opt.rounds)
local figures = kit.figures(opt.json)
for _, c in ipairs(POINTS) do
   c.devices, c.count = c.devices or 1, c.count * opt.scale
   if name_of(c):find(opt.only) then
      for round = 1, opt.rounds do measure(c, round) end
      report(figures, c)
   end
end
return figures:finish()
