-- paper.lua - the simulator against the figures of the Mooncake papers: `make paper`.
--
--   mooncake run scripts/paper.lua [--json] [--only A,C] [--seeds N] [--jobs N]
--
-- TRACE in the environment: the public conversation trace. What is set up how, and where
-- each constant is from: scripts/paper/setup.lua and the head of each table.

local json = require "mooncake.json"
local proc = require "mooncake.proc"
local util = require "mooncake.util"
local report = require "paper.report"
local setup = require "paper.setup"

-- Where each part is; they are printed in this order.
local PARTS = { { "A", "capacity" }, { "B", "capacity" }, { "C1", "policies" },
   { "C2", "policies" }, { "D", "caches" }, { "E", "caches" }, { "F", "caches" },
   { "I", "latency" }, { "K", "rates" }, { "L", "workload" }, { "M", "workload" } }

-- Those that take long are started first, so that none ends alone.
local LONG = { K = 1, M = 2, C2 = 3, A = 4, L = 5 }

local function options()
   local opt, i = { seeds = 4, jobs = proc.cpu_count() }, 1
   while i <= #arg do
      local name = arg[i]:match "^%-%-(%a+)$"
      if name == "json" then
         opt.json = true
      elseif name == "only" then
         i = i + 1
         opt.only = arg[i] or util.fail "--only takes parts, as A,C"
      elseif name == "seeds" or name == "jobs" then
         i = i + 1
         opt[name] = tonumber(arg[i]) or util.fail("--%s takes a number", name)
         if opt[name] < 1 then util.fail("--%s takes 1 or more", name) end
      else
         util.fail("unknown option '%s'", arg[i])
      end
      i = i + 1
   end
   return opt
end

-- The parts that were asked for: C is both C1 and C2.
local function wanted(only)
   local ids = {}
   for _, part in ipairs(PARTS) do
      local found = not only
      for word in (only or ""):gmatch "[^,]+" do
         found = found or part[1]:sub(1, #word) == word:upper()
      end
      if found then ids[#ids + 1] = part[1] end
   end
   if #ids == 0 then util.fail("--only: there is no part '%s'", only) end
   return ids
end

local function measure(id, seeds)
   for _, entry in ipairs(PARTS) do
      for _, part in ipairs(entry[1] == id and require("paper." .. entry[2]) or {}) do
         if part.id == id then return report.measure(part, seeds) end
      end
   end
end

-- ---- a process for each part -----------------------------------------------

local TICK_MS = 20

local function start(id, opt)
   local p, why = proc.spawn { proc.exe(), "run", arg[0], "--json", "--only", id,
      "--jobs", 1, "--seeds", opt.seeds, stdout = "pipe", stdin = "null" }
   return p and { id = id, p = p } or util.fail("%s", why)
end

-- Has it ended? Then its result.
local function result_of(job)
   local more, why = job.p.out:fill(TICK_MS)
   if more or why ~= "eof" then return nil end
   if job.p:wait() ~= 0 then util.fail("part %s failed", job.id) end
   return json.decode(job.p.out.text).parts[1]
end

local function measure_all(ids, opt)
   local queue, running, results = { unpack(ids) }, {}, {}
   table.sort(queue, function(a, b)
      local x, y = LONG[a] or 9, LONG[b] or 9
      return x < y or x == y and a < b
   end)
   while #queue > 0 or #running > 0 do
      while #running < opt.jobs and #queue > 0 do
         running[#running + 1] = start(table.remove(queue, 1), opt)
      end
      for i = #running, 1, -1 do
         local result = result_of(running[i])
         if result then
            results[running[i].id] = result
            table.remove(running, i)
         end
      end
   end
   return results
end

-- ---- all of it -------------------------------------------------------------

local SAID = ([[
The Mooncake papers (FAST'25; arXiv 2407.00079) and this simulator, with one set of
constants for all tables: LLaMA-70B on eight A800 a node, costs fitted to the published
times of lone requests; serving adds %g ms to an iteration and %g ms for each sequence in
it, by which Mooncake's median TBT in A is fitted; %g M tokens of cache a prefill node;
kvcache_balancing_threshold %g. Sources and choices: scripts/paper/setup.lua.
]]):format(1000 * setup.ITERATION_S, 1000 * setup.SEQUENCE_S, setup.DRAM_TOKENS / 1e6,
           setup.THRESHOLD)

local opt = options()
if os.getenv "TRACE" and not setup.has_trace() then
   util.fail("TRACE: there is no file '%s'", setup.trace)
end
local ids = wanted(opt.only)
local results, found = {}, #ids > 1 and opt.jobs > 1 and measure_all(ids, opt) or {}
for i, id in ipairs(ids) do results[i] = found[id] or measure(id, opt.seeds) end
local summary = report.summary(results)
if opt.json then
   print(json.encode { parts = results, summary = summary })
   return
end
print(SAID)
for _, t in ipairs(results) do print(report.text(t)) end
print(("%d of %d orders right with every seed, %d of %d ratios within 25 %%"):format(
   summary.orders_right, summary.orders, summary.ratios_near, summary.ratios))
