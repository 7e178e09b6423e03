-- peers_engine.lua - our transfer engine beside others: the public Mooncake's wheel over
-- tcp, as it comes and with its newer engine (TENT), and NIXL with UCX, over tcp and over
-- shared memory.
--
--   mooncake run tests/bench/peers_engine.lua [--json] [--rounds N] [--ms N]
--                                             [--only PATTERN]
--
-- Two processes with 1 GiB of private memory each, on this host; blocks scattered over
-- it, synchronous batches, a single block by the call for one. A round opens each pair of
-- processes once, one pair at a time, and measures all points; every other round goes
-- through the pairs backwards. Ours is measured by the Python package and from LuaJIT by
-- the C interface, held to tcp and choosing by itself. Ratios are of each round, their
-- median counts. The exit status is 1 if a bar is missed, or if ours failed.
--
-- The pattern is one for "PAIR: POINT", as in "^ours" or ": write 4 KiB x 128$". A ratio
-- whose two pairs have not both been measured is left out. Peers that scripts/deps.sh
-- could not install (into build/peers) are skipped and the reason printed.

local bench = require "mooncake.bench"
local json = require "mooncake.json"
local kit = require "mooncake.benchkit"
local pairs_of = require "peers_engine_pair"
local proc = require "mooncake.proc"
local util = require "mooncake.util"

local KIB, MIB = 2 ^ 10, 2 ^ 20
local SPAN = 2 ^ 30

local opt = kit.options(arg, { rounds = 3, ms = 200, only = "", json = false })

-- ---- who is measured -------------------------------------------------------

local function ours(env)
   env.PYTHONPATH = "src/compat/python"
   env.MOONCAKE_LIBRARY = proc.exe():match "^(.*)/" .. "/libtransfer_engine.so"
   return { python = "python3", kind = "mooncake", env = env, own = true }
end

local function public(env)
   env.PYTHONPATH, env.MC_FORCE_TCP = false, "1"
   return { python = "build/peers/mooncake/bin/python", kind = "mooncake", env = env }
end

local function nixl(tls)
   return { python = "build/peers/nixl/bin/python", kind = "nixl",
            env = { PYTHONPATH = false, UCX_TLS = tls } }
end

local function both(name, engine) return { name = name, from = engine, to = engine } end

-- Those that are compared are near each other.
local SIDES = {
   { name = "ours to public", from = ours {}, to = public {} },
   both("public", public {}),
   { name = "public to ours", from = public {}, to = ours {} },
   both("public, TENT", public { MC_USE_TENT = "1" }),
   both("ours, tcp", ours { MOONCAKE_TRANSPORTS = "tcp" }),
   { name = "ours from C, tcp", c = true, transport = "tcp" },
   both("NIXL, tcp", nixl "tcp"),
   both("NIXL, shared memory", nixl "posix,cma,sysv,self,tcp"),
   both("ours", ours {}),
   { name = "ours from C", c = true },
}

local function points()
   local list = {}
   for _, op in ipairs { "write", "read" } do
      for _, block in ipairs { 4 * KIB, 64 * KIB, MIB } do
         for _, batch in ipairs { 1, 16, 128 } do
            local at = ("%s x %d"):format(util.bytes(block), batch)
            list[#list + 1] = { op = op, block = block, batch = batch, ms = opt.ms,
                                at = at, name = op .. " " .. at }
         end
      end
   end
   return list
end

local POINTS = points()

-- ---- bars ------------------------------------------------------------------

-- Ours, and how many times as good as whom it must be: bytes per second, and for one
-- block the median time.
local AGAINST = {
   { "ours, tcp", "public", "public" },
   { "ours, tcp", "public, TENT", "public" },
   { "ours, tcp", "NIXL, tcp", "NIXL, tcp" },
   { "ours", "NIXL, shared memory", "NIXL, shared memory" },
}
local BARS = {
   { at = "4 KiB x 128", field = "gb_per_s", public = 10, ["NIXL, tcp"] = 3,
     ["NIXL, shared memory"] = 4 },
   { at = "64 KiB x 16", field = "gb_per_s", public = 2, ["NIXL, tcp"] = 2.5,
     ["NIXL, shared memory"] = 1.3 },
   { at = "1 MiB x 16", field = "gb_per_s", public = 1.15, ["NIXL, tcp"] = 1.5,
     ["NIXL, shared memory"] = 1.2 },
   { at = "4 KiB x 1", field = "p50_us", public = 2, ["NIXL, tcp"] = 1,
     ["NIXL, shared memory"] = 1 },
}
-- With the public engine at one end not slower than with it at both, at all points. What
-- is equal differs by so much between rounds.
local MIXED, NOT_SLOWER = { "ours to public", "public to ours" }, 0.95

-- ---- measuring -------------------------------------------------------------

local seen = {}         -- by pair and point: the figures of the rounds
local failed = false

local function wanted(side, p) return (side.name .. ": " .. p.name):find(opt.only) end

local function wanted_of(side)
   local list = {}
   for _, p in ipairs(POINTS) do
      if wanted(side, p) then list[#list + 1] = p end
   end
   return list
end

local function measure_points(pair, side, list)
   for _, p in ipairs(list) do
      local f, why = pair:run(p)
      if not f then return nil, p.name .. ": " .. why end
      if f.errors and f.errors > 0 then return nil, p.name .. ": " .. f.why end
      local all = seen[side.name]
      all[p.name] = all[p.name] or {}
      table.insert(all[p.name], f)
   end
   return true
end

-- Not to be measured any more. What is not there is skipped, and so are others who fail
-- among themselves; where ours takes part, it is a failure of this run.
local function give_up(side, why, absent)
   local ours_too = side.c or side.from.own or side.to.own
   local word = ours_too and not absent and "failed" or "skipped"
   side.over, failed = true, failed or word == "failed"
   print(opt.json and json.encode { pair = side.name, [word] = why } or
         ("%s: %s: %s"):format(side.name, word, why))
end

local function visit(side)
   local list = wanted_of(side)
   if side.over or #list == 0 then return end
   local absent = pairs_of.absent(side)
   if absent then return give_up(side, absent, true) end
   seen[side.name] = seen[side.name] or {}
   local pair, why = pairs_of.open(side, SPAN)
   local ok
   if pair then
      ok, why = measure_points(pair, side, list)
      pair:close()
   end
   if not ok then give_up(side, why) end
end

local function measure_all()
   for round = 1, opt.rounds do
      for i = 1, #SIDES do
         visit(SIDES[round % 2 == 1 and i or #SIDES + 1 - i])
      end
   end
end

-- ---- figures ---------------------------------------------------------------

-- A figure of the rounds, or nil.
local function values(name, p, field)
   local rounds = seen[name] and seen[name][p.name]
   if not rounds then return nil end
   local list = {}
   for i, f in ipairs(rounds) do list[i] = f[field] end
   return list
end

local function median(name, p, field)
   local list = values(name, p, field)
   return list and bench.median(list)
end

local FIELDS = {
   { "gb_per_s", "GB/s", "%.3g" }, { "p50_us", "p50, us", "%.4g" },
   { "p99_us", "p99, us", "%.4g" }, { "cpu_s_per_gb", "CPU seconds per GB", "%.3g" },
}

local function print_rows()
   for _, side in ipairs(SIDES) do
      for _, p in ipairs(POINTS) do
         local row = { pair = side.name, op = p.op, block = p.block, batch = p.batch }
         for _, field in ipairs(FIELDS) do
            row[field[1]] = median(side.name, p, field[1])
         end
         row.all_gb_per_s = values(side.name, p, "gb_per_s")
         row.all_p50_us = values(side.name, p, "p50_us")
         if row.gb_per_s then print(json.encode(row)) end
      end
   end
end

-- The points of an operation that some pair was measured at.
local function measured(op)
   local list = {}
   for _, p in ipairs(POINTS) do
      local some = false
      for _, at in pairs(seen) do some = some or at[p.name] ~= nil end
      if p.op == op and some then list[#list + 1] = p end
   end
   return list
end

-- A line for each pair, a column for each point.
local function print_table(op, columns, field)
   local name, title, shown = unpack(field)
   local head, rows = { op .. ", " .. title }, {}
   for _, p in ipairs(columns) do head[#head + 1] = p.at end
   for _, side in ipairs(SIDES) do
      local row = { side.name }
      for _, p in ipairs(columns) do
         local v = median(side.name, p, name)
         row[#row + 1] = v and shown:format(v) or ""
      end
      if next(seen[side.name] or {}) then rows[#rows + 1] = row end
   end
   util.print_table(head, rows, "l" .. ("r"):rep(#columns))
   print ""
end

local function print_tables()
   for _, op in ipairs { "write", "read" } do
      local columns = measured(op)
      for _, field in ipairs(#columns > 0 and FIELDS or {}) do
         print_table(op, columns, field)
      end
   end
end

-- ---- ratios ----------------------------------------------------------------

local function times(n) return ("%.2f x"):format(n) end

-- How many times as good @a is as @b, with a bar.
local function ratio(figures, p, field, a, b, least)
   local x, y = values(a, p, field), values(b, p, field)
   if not x or not y then return end
   local list = {}
   for i = 1, math.min(#x, #y) do
      list[i] = field == "p50_us" and y[i] / x[i] or field ~= "p50_us" and x[i] / y[i]
   end
   local what = ("%s%s: %s / %s"):format(p.name, field == "p50_us" and ", p50" or "",
                                         a, b)
   figures:add(what, list, times, { least = least })
end

local function compare(figures)
   for _, bar in ipairs(BARS) do
      for _, p in ipairs(POINTS) do
         for _, c in ipairs(p.at == bar.at and AGAINST or {}) do
            ratio(figures, p, bar.field, c[1], c[2], bar[c[3]])
         end
      end
   end
   for _, name in ipairs(MIXED) do
      for _, p in ipairs(POINTS) do
         ratio(figures, p, "gb_per_s", name, "public", NOT_SLOWER)
      end
   end
end

kit.print_machine(opt.json,
   "medians of %d rounds, %d ms a point; two processes, blocks scattered over 1 GiB",
   opt.rounds, opt.ms)
measure_all()
if opt.json then print_rows() else print_tables() end
local figures = kit.figures(opt.json)
compare(figures)
local status = figures:finish()
return failed and 1 or status
