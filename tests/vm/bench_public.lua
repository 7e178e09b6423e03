-- bench_public.lua - our Python package beside the public wheel, over RDMA, in the
-- virtual machine of scripts/vm: synchronous batches of writes from one process to
-- another, from one device to another.
--
--   mooncake run tests/vm/bench_public.lua [--json] [--rounds N] [--ms N]
--
-- A round opens each pair of processes once and measures all points; every other round
-- begins with the other pair. Ratios are of each round, their median counts. The guest's
-- CPUs are emulated: what is measured is instructions.

local kit = require "mooncake.benchkit"
package.path = "tests/bench/?.lua;" .. package.path
local pairs_of = require "peers_engine_pair"
local proc = require "mooncake.proc"
local util = require "mooncake.util"

local KIB, MIB = 2 ^ 10, 2 ^ 20
local SPAN = 64 * MIB
local NEAR, FAR = "rxe0", "rxe1"

local opt = kit.options(arg, { rounds = 3, ms = 1500, json = false })

local function engine(python, device, env)
   env.PEER_PROTOCOL, env.PEER_DEVICES = "rdma", device
   return { python = python, kind = "mooncake", env = env }
end

local function ours(device)
   return engine("python3", device, {
      PYTHONPATH = "src/compat/python", MOONCAKE_TRANSPORTS = "rdma",
      MOONCAKE_LIBRARY = proc.exe():match "^(.*)/" .. "/libtransfer_engine.so",
   })
end

-- It does not find the address by itself here: the second GID has it.
local function public(device)
   return engine("build/peers/mooncake/bin/python", device,
                 { PYTHONPATH = false, MC_GID_INDEX = "1" })
end

local SIDES = { { name = "ours", from = ours(NEAR), to = ours(FAR) },
                { name = "public", from = public(NEAR), to = public(FAR) } }
local POINTS = { { block = 64 * KIB, batch = 16, least = 1.3 },
                 { block = MIB, batch = 8, least = 1.3 },
                 { block = 4 * KIB, batch = 128, least = 2 } }

local seen = {}

local function measure(side)
   local pair = assert(pairs_of.open(side, SPAN))
   for _, p in ipairs(POINTS) do
      local f = assert(pair:run { op = "write", block = p.block, batch = p.batch,
                                  ms = opt.ms })
      p[side.name] = p[side.name] or {}
      table.insert(p[side.name], f.gb_per_s * 1e3)
   end
   pair:close()
end

local absent = pairs_of.absent(SIDES[2])
if absent then
   print("skipped: " .. absent)
   return 77
end
kit.print_machine(opt.json, "medians of %d rounds, %d ms a point", opt.rounds, opt.ms)
for round = 1, opt.rounds do
   for i = 1, 2 do measure(SIDES[round % 2 == 1 and i or 3 - i]) end
end
local figures = kit.figures(opt.json)
for _, p in ipairs(POINTS) do
   local list = {}
   for i, v in ipairs(p.ours) do list[i] = v / p.public[i] end
   figures:add(("write %s x %d: ours / public (%.1f MB/s)"):format(
                  util.bytes(p.block), p.batch, p.public[1]), list,
               function(n) return ("%.2f x"):format(n) end, { least = p.least })
end
return figures:finish()
