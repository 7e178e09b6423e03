-- peers_sim.lua - our simulator and block index beside the best others we know, those of
-- NVIDIA Dynamo (ai-dynamo-runtime on PyPI), on this machine.
--
--   mooncake run tests/bench/peers_sim.lua [--json] [--rounds N] [--trace FILE]
--
-- By turns, medians of 3 rounds: the trace with 8 prefill and 8 decode instances and a
-- scheduler that knows the caches, and a million blocks in chains of 50 on 64 workers,
-- through either side's binding. The two simulators model different things, so the ratio
-- is of the time that an answer takes, not of equal work. What is measured of theirs is
-- the call, without the start of Python. If it cannot be installed (into build/peers), it
-- is skipped and the reason printed.

local bench = require "mooncake.bench"
local json = require "mooncake.json"
local kit = require "mooncake.benchkit"
local proc = require "mooncake.proc"
local util = require "mooncake.util"

local PACKAGE, VERSION = "ai-dynamo-runtime", "1.6.1"
local VENV = "build/peers/dynamo"
local PYTHON = VENV .. "/bin/python"
local PREFILL, DECODE, BLOCK_TOKENS = 8, 8, 512
local BLOCKS, CHAIN, WORKERS = 1e6, 50, 64

local opt = kit.options(arg, { rounds = 3, json = false,
   trace = "../shared/traces/conversation_trace.jsonl" })

local function skip(what, why)
   print(opt.json and json.encode { what = what, skipped = why } or
         ("%s: skipped: %s"):format(what, why))
end

-- ---- theirs ----------------------------------------------------------------

-- Run a program: its output, or nil and the last line of what it complained.
local function output(argv)
   argv.stderr, argv.env = "pipe", { DYN_LOG = "error" }
   local text, status, err = proc.run(argv)
   if not text then return nil, status end
   if status == 0 then return text end
   local last
   for line in ((err or "") .. text):gmatch "[^\n]+" do last = line end
   return nil, last or argv[1] .. ": status " .. status
end

local function installed()
   local code = "import sys, importlib.metadata as m; print(m.version(sys.argv[1]))"
   local text = kit.exists(PYTHON) and output { PYTHON, "-c", code, PACKAGE }
   return text and text:match "%S+" == VERSION
end

local function install()
   if installed() then return true end
   io.stderr:write(("installing %s %s into %s\n"):format(PACKAGE, VERSION, VENV))
   local ok, why = output { "python3", "-m", "venv", VENV }
   if not ok then return nil, why end
   return output { PYTHON, "-m", "pip", "install", "-q", "--disable-pip-version-check",
                   PACKAGE .. "==" .. VERSION }
end

-- A program that prints JSON, or lines of it.
local function answer(argv) return util.check(output(argv)) end

local function theirs(...)
   return util.check(json.decode(answer { PYTHON, "tests/bench/peers_sim.py", ... }))
end

-- ---- ours ------------------------------------------------------------------

local function simulate()
   return util.check(json.decode(answer {
      proc.exe(), "sim", opt.trace, "--cluster", ("%dP+%dD"):format(PREFILL, DECODE),
      "--policy", "kvcache_centric", "--json", "--quiet",
   }))
end

-- The rates of the benchmark of our own that has the same chains.
local function index()
   local rates = {}
   local text = answer { proc.exe(), "run", "tests/bench/index.lua", "--json",
                         "--rounds", 1, "--only",
                         ("^%g M blocks, chains of %d, %d "):format(BLOCKS / 1e6, CHAIN,
                                                                    WORKERS) }
   for line in text:gmatch "[^\n]+" do
      local row = util.check(json.decode(line))
      local what = row.what and row.what:match ": (%a+)$"
      if what then rates[what] = row.value end
   end
   return rates
end

-- ---- side by side ----------------------------------------------------------

local rows = {}

-- @faster: how many times ours is faster, of the medians.
local function row(what, unit, ours, other, faster)
   local a, b = bench.median(ours), bench.median(other)
   local ratio = faster(a, b)
   if opt.json then
      print(json.encode { what = what, unit = unit, ours = a, theirs = b, ratio = ratio,
                          all_ours = ours, all_theirs = other })
      return
   end
   local shown = unit == "s" and "%.2f s" or "%.2f M/s"
   local scale = unit == "s" and 1 or 1e6
   rows[#rows + 1] = { what, shown:format(a / scale), shown:format(b / scale),
                       ("%.1f"):format(ratio) }
end

local function compare_replays()
   local file = opt.trace:match "[^/]*$"
   local what = ("replay of %s, %dP+%dD"):format(file, PREFILL, DECODE)
   if not kit.exists(opt.trace) then return skip(what, "no " .. opt.trace) end
   local ours, other = {}, {}
   for i = 1, opt.rounds do
      local a = simulate()
      local b = theirs("replay", opt.trace, BLOCK_TOKENS, PREFILL, DECODE)
      if b.completed ~= b.requests or a.completed ~= b.completed then
         util.fail("%s: we completed %s requests, they %s of %s", what, a.completed,
                   b.completed, b.requests)
      end
      ours[i], other[i] = a.wall_s, b.wall_s
   end
   row(what, "s", ours, other, function(a, b) return b / a end)
end

local function compare_indexes()
   local ours, other = { add = {}, match = {} }, { add = {}, match = {} }
   for i = 1, opt.rounds do
      local a, b = index(), theirs("index", BLOCKS, CHAIN, WORKERS)
      for _, k in ipairs { "add", "match" } do ours[k][i], other[k][i] = a[k], b[k] end
   end
   for _, k in ipairs { "add", "match" } do
      row(("index, %g M blocks: %s"):format(BLOCKS / 1e6, k), "blocks/s", ours[k],
          other[k], function(a, b) return a / b end)
   end
end

local ok, why = install()
if not ok then
   skip(PACKAGE .. " " .. VERSION, why)
   return 0
end
compare_replays()
compare_indexes()
if not opt.json then
   local head = { "", "ours", PACKAGE .. " " .. VERSION, "times faster" }
   util.print_table(head, rows, "lrrr")
end
return 0
