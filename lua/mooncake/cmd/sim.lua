-- sim.lua - `mooncake sim`: a trace against a modelled cluster and a policy.

local ffi = require "ffi"
local C = require "mooncake.ffi"
local embedded = require "mooncake.embedded"
local diff = require "mooncake.sim_diff"
local json = require "mooncake.json"
local policy = require "mooncake.policy"
local proc = require "mooncake.proc"
local report = require "mooncake.sim_report"
local setup = require "mooncake.sim_setup"
local sim = require "mooncake.sim"
local sweep = require "mooncake.sim_sweep"
local tables = require "mooncake.sim_table"
local util = require "mooncake.util"

local INTERRUPTED = 130

local function wrong(fmt, ...)
   error({ user = fmt:format(...), status = 2 }, 0)
end

-- ---- the options -----------------------------------------------------------

local OPTIONS = {
   cluster = { "8P+8D", "instances: 8P+8D, 4Px2+8D (pipelines of 2 nodes), 16M (coupled)",
               "SPEC" },
   policy = { "kvcache_centric", "who prefills and decodes: a name or a .lua file, " ..
              "with options as NAME:k=v", "POLICY" },
   admission = { "none", "who is refused: a name or a .lua file", "POLICY" },
   slo = { nil, "bounds that a good request keeps, as ttft=30,tbt=0.1,e2e=60", "LIST" },
   seed = { 1, "of the policy's chance and of sessions", "N" },
   model = { "llama3-70b", "what is served; see --list-models", "NAME" },
   gpu = { "a800", "eight of them are a node; see --list-models", "NAME" },
   profile = { nil, "costs: a CSV file of measurements, published or roofline", "FILE" },
   dram = { "1TB", "cache of a prefill node: bytes as 1TB, tokens as 3M, or inf",
            "SIZE" },
   ssd = { "0", "second tier of it", "SIZE" },
   vram = { nil, "for KV cache of sequences that decode; default: what the model leaves",
            "SIZE" },
   chunk = { 0, "tokens of a prefill at once; 0: all", "TOKENS" },
   ["coupled-mode"] = { "prefix", "of 16M: plain, prefix (caching) or chunked (prefill)",
                        "MODE" },
   ["max-sequences"] = { 256, "that an instance decodes at a time", "N" },
   ["batch-tokens"] = { 0, "of a coupled instance's iteration; 0: as vLLM has it",
                        "TOKENS" },
   nic = { nil, "network of a node, bytes a second; default: that of the GPU's node",
           "RATE", number = true },
   eviction = { "lru", "of the caches: lru, lfu, fifo, length, s3fifo, sieve", "NAME" },
   ["event-lag"] = { 0, "until the scheduler sees what a cache has", "SECONDS" },
   overlap = { true, "load, store and send the KV cache layer by layer" },
   speed = { 1, "divides the gaps between requests", "FACTOR" },
   start = { 0, "leave out the first seconds of the trace", "SECONDS" },
   limit = { nil, "so many requests at most", "N", number = true },
   ["repeat"] = { 1, "play the trace so often, one after the other", "N" },
   concurrency = { nil, "a new request when one is done, so many at a time; the times " ..
                   "of the trace do not count", "N", number = true },
   synthetic = { nil, "in place of a trace: parameters of a generator", "LIST" },
   warmup = { 0, "count nothing of requests that come before", "SECONDS" },
   format = { nil, "of the trace; default: seen at its first line", "NAME" },
   ["block-tokens"] = { nil, "of the trace; default: as its format has it", "TOKENS",
                        number = true },
   sample = { 1, "seconds between two points of the time series", "SECONDS" },
   json = { false, "print one JSON object" },
   report = { nil, "write a page with plots", "FILE.html" },
   requests = { nil, "write a JSON object for each request, one a line", "FILE" },
   intervals = { false, "with --requests: the seconds between its tokens, too" },
   series = { nil, "write the cluster's state over time: .csv, else JSON lines", "FILE" },
   sweep = { nil, "run for each value of an option; several make a grid",
             "NAME=VALUE,...", list = true },
   jobs = { nil, "of a sweep: processes at a time; default: the CPUs", "N",
            number = true },
   diff = { false, "compare two results of --json: mooncake sim --diff A B" },
   ["list-policies"] = { false, "what can be given to --policy and --admission" },
   ["list-models"] = { false, "what can be given to --model and --gpu" },
   quiet = { false, "no progress on standard error", short = "q" },
}

-- Those that say what to do with the result, and not what is simulated.
local NOT_SIMULATED = { json = true, report = true, requests = true, series = true,
   sweep = true, jobs = true, diff = true, ["list-policies"] = true,
   ["list-models"] = true, quiet = true }

local function simulated(name) return not NOT_SIMULATED[name] end

-- What was asked for, as the result says it.
local function used(opt, trace)
   local o = { trace = trace }
   for name in pairs(OPTIONS) do
      if simulated(name) then o[name] = opt[name:gsub("-", "_")] end
   end
   return o
end

-- ---- progress --------------------------------------------------------------

local LOOK_S = 0.05

-- What sim.run() asks now and then: whether to stop; meanwhile it draws the line.
local function watch(opt, stopped)
   local bar, looked = util.progress { quiet = opt.quiet or opt.json }, 0
   function bar.text(self)
      local run, s = self.run, proc.now() - self.start
      return ("%s simulated  %s requests  %s a second"):format(
         util.duration(run.view.now_s), util.commas(run.load.given),
         util.commas(run.load.given / math.max(s, 1e-3)))
   end
   return bar, function(run)
      local now = proc.now()
      if now - looked < LOOK_S then return false end
      looked, bar.run = now, run
      bar:update(0)
      return stopped()
   end
end

-- ---- files of one run ------------------------------------------------------

local function open_file(path)
   local f, why = io.open(path, "w")
   return f or util.fail("%s", why)
end

local function write(f, path, text)
   local ok, why = f:write(text)
   if not ok then util.fail("%s: %s", path, why) end
end

local function close(f, path)
   local ok, why = f:close()
   if not ok then util.fail("%s: %s", path, why) end
end

local OUTCOMES = { [0] = "completed", "refused", "refused_late" }

local RECORD = '{"id":%.0f,"outcome":"%s","input_tokens":%d,"output_tokens":%d,' ..
   '"local_tokens":%d,"remote_tokens":%d,"prefill":%s,"decode":%s,"preempted":%d,' ..
   '"arrived_s":%.9g,"ready_s":%.9g,"started_s":%.9g,"first_s":%.9g,' ..
   '"second_s":%.9g,"joined_s":%.9g,"done_s":%.9g,"prefill_gpu_s":%.7g,' ..
   '"tbt_s":%.7g,"itl_s":%.7g%s}\n'

local function instance(i) return i < 0xffffffff and ("%d"):format(i) or "null" end

-- The seconds between its tokens, as one more member.
local function intervals(s)
   local v, parts = ffi.new "const float *[1]", {}
   for i = 0, C.mc_sim_intervals(s, v) - 1 do
      parts[i + 1] = ("%.6g"):format(v[0][i])
   end
   return ',"intervals_s":[' .. table.concat(parts, ",") .. "]"
end

local function record_line(r, more)
   return RECORD:format(tonumber(r.id), OUTCOMES[tonumber(r.outcome)], r.input_tokens,
      r.output_tokens, r.local_tokens, r.remote_tokens, instance(r.prefill),
      instance(r.decode), r.preempted, r.arrived_s, r.ready_s, r.started_s, r.first_s,
      r.second_s, r.joined_s, r.done_s, r.prefill_gpu_s, r.tbt_s, r.itl_s, more)
end

local SAMPLE = { "at_s", "prefill_load", "decode_load", "queued", "running", "coming",
   "link_Bps", "completed", "refused", "refused_late", "hit_tokens", "input_tokens" }

local function write_series(path, detail)
   local f, csv = open_file(path), path:match "%.csv$"
   if csv then write(f, path, table.concat(SAMPLE, ",") .. "\n") end
   for i = 0, detail.n_samples - 1 do
      local parts = {}
      for k, name in ipairs(SAMPLE) do
         local value = ("%.9g"):format(tonumber(detail.samples[i][name]))
         parts[k] = csv and value or ('"%s":%s'):format(name, value)
      end
      local line = table.concat(parts, ",")
      write(f, path, csv and line .. "\n" or "{" .. line .. "}\n")
   end
   close(f, path)
end

-- ---- one run ---------------------------------------------------------------

local function simulate(opt, trace, stopped)
   local run = setup.of(opt, trace)
   local bar, on_progress = watch(opt, stopped)
   local file = opt.requests and open_file(opt.requests)
   run.on_progress = on_progress
   if file then
      run.options.keep_intervals = opt.intervals
      run.on_record = function(r, s)
         write(file, opt.requests, record_line(r, opt.intervals and intervals(s) or ""))
      end
   end
   local start = proc.now()
   local result, detail = sim.run(run)
   bar:finish()
   util.check(result, detail)
   if file then close(file, opt.requests) end
   result.options, result.slo, result.seed = used(opt, trace), run.slo, opt.seed
   result.wall_s = proc.now() - start
   return result, detail
end

local function one(opt, trace, stopped)
   local result, detail = simulate(opt, trace, stopped)
   if opt.series then write_series(opt.series, detail) end
   if opt.report then util.check(report.run(opt.report, result, detail)) end
   print(opt.json and json.encode(result) or tables.result(result))
   return result.interrupted and INTERRUPTED or 0
end

-- ---- a sweep ---------------------------------------------------------------

local function check_sweep(opt, trace)
   if trace == "-" then wrong "--sweep reads the trace for each run: not from '-'" end
   for _, name in ipairs { "requests", "series" } do
      if opt[name] then wrong("--%s is of one run, not of a --sweep", name) end
   end
   local axes, why = sweep.axes(opt.sweep, OPTIONS, simulated)
   return axes or wrong("%s", why)
end

local function runs_json(axes, ran)
   local t = { sweep = json.array(), runs = json.array(ran.runs),
               interrupted = ran.interrupted }
   for i, axis in ipairs(axes) do
      t.sweep[i] = { name = axis.name, values = json.array(axis.values) }
   end
   return t
end

local function many(opt, trace, stopped)
   local axes = check_sweep(opt, trace)
   local bar = util.progress { quiet = opt.quiet or opt.json }
   function bar.text(self) return ("%d of %d runs"):format(self.done, self.n) end
   local ran, why, status = sweep.run(opt, { trace }, OPTIONS, simulated, axes,
      opt.jobs or proc.cpu_count(), { stopped = stopped, on_progress = function(done, n)
         bar.n = n
         bar:update(done)
      end })
   bar:finish()
   if not ran then error({ user = why, status = status == 2 and 2 or 1 }, 0) end
   if opt.report and #ran.runs > 0 then
      util.check(report.sweep(opt.report, axes, ran.points, ran.runs))
   end
   print(opt.json and json.encode(runs_json(axes, ran)) or
         tables.sweep(axes, ran.points, ran.runs))
   return ran.interrupted and INTERRUPTED or 0
end

-- ---- what needs no run -----------------------------------------------------

local function compare(opt, args)
   if #args ~= 2 then wrong "--diff takes two files of `mooncake sim --json`" end
   local a, b = util.check(diff.read(args[1])), util.check(diff.read(args[2]))
   if #a ~= #b then
      util.fail("%s has %d runs, %s has %d", args[1], #a, args[2], #b)
   end
   local all = {}
   for i = 1, #a do all[i] = diff.of(a[i], b[i]) end
   if opt.json then
      print(json.encode(#all == 1 and all[1] or all))
   else
      for i, d in ipairs(all) do print((i > 1 and "\n" or "") .. diff.text(d)) end
   end
   return 0
end

-- The first words of the comment that a policy begins with.
local function summary(name)
   local text = embedded.text("mooncake.policies." .. name) or ""
   local rest = (text:match "^%-%- %S+ %- (.*)" or ""):gsub("^admission:? ", "")
   return ((rest:match "^(.-)[:.]%s" or ""):gsub("\n%-%- ", " "))
end

local function list_policies()
   local rows = {}
   for _, kind in ipairs { "policy", "admission" } do
      for _, name in ipairs(policy.names(kind == "admission")) do
         rows[#rows + 1] = { "--" .. kind, name, summary(name) }
      end
   end
   print(util.table(nil, rows, "lll"))
   return 0
end

local function run(opt, args)
   if os.getenv "MOONCAKE_SIM_CHILD" then proc.die_with_parent() end
   if opt.list_policies then return list_policies() end
   if opt.list_models then
      print(require("mooncake.costs").table())
      return 0
   end
   if opt.diff then return compare(opt, args) end
   if args[2] then wrong("unexpected argument '%s'", args[2]) end
   local stopped = proc.on_sigint()
   return (#opt.sweep > 0 and many or one)(opt, args[1], stopped)
end

return {
   usage = "sim [OPTIONS] [TRACE|A] [B]",
   summary = "a request trace against a modelled cluster and a policy",
   help = [[
Replays the requests of TRACE ("-": standard input) in virtual time against a cluster of
modelled instances, and prints what came of them: times to the first token (TTFT), to
the second (TTST) and between tokens (TBT, of a request the mean of its longest tenth of
intervals; ITL, the mean of all), goodput, hit rates, GPU time, links. `mooncake trace`
has statistics of traces and makes new ones, `mooncake help policy` says how to write a
policy.

  mooncake sim trace.jsonl --cluster 8P+8D --speed 2 --slo ttft=30,tbt=0.1 \
     --admission early_rejection --report out.html
  mooncake sim trace.jsonl --sweep policy=random,kvcache_centric --sweep speed=1,2,4
  mooncake sim --synthetic rate=4,input=8000,output=200,requests=5000
  mooncake sim --diff a.json b.json

A cluster has instances for prefill and for decode as 8P+8D, pipelines of two nodes for
prefill as 4Px2+8D, or coupled ones as 16M. An instance is a node of eight GPUs, a
pipeline several of them. The first request comes at time 0. A trace without blocks is
one in which nothing is shared.

--synthetic takes the parameters of `mooncake trace gen`. With turns=N a request begins
a session: after its answer and a pause (mean think=SECONDS) comes a prompt that has all
that was said and something new (mean message=TOKENS; mean answer=TOKENS is what it is
answered).

--sweep starts a process for each point, one per CPU; its JSON has the list runs. All
output is the same for the same seed but wall_s, the seconds that it took. Of the JSON,
times are in seconds, rates of hits are shares of all blocks, goodput_ratio is the share
of all requests that completed within all bounds of --slo.

Exit status: 0 done, 1 the trace or a file failed, 2 wrong usage, 130 interrupted, after
what was simulated until then.]],
   options = OPTIONS,
   run = run,
}
