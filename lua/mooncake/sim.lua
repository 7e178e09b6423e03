-- sim.lua - a cluster in virtual time: feeds the simulator from a load, asks a policy
-- where its requests go, and gathers what came of them.
--
--    local result, detail = assert(sim.run {
--       load = assert(load.open { trace = "trace.jsonl" }),
--       cluster = assert(sim.cluster "8P+8D"),
--       policy = assert(policy.load "kvcache_centric"),
--       options = { cost = ..., ... },     -- fields of struct mc_sim_options
--    })
--
-- The simulator is in C (src/sim/), and is deterministic; so is this.

local ffi = require "ffi"
local C = require "mooncake.ffi"
local failed = require "mooncake.failed"
local figures = require "mooncake.sim_figures"
local policy = require "mooncake.policy"

local sim = {}

-- Events between two looks at the clock and at signals.
local LOOK_EVERY = 4096

-- ---- the cluster -----------------------------------------------------------

local NAMES = { P = "prefill", D = "decode", M = "coupled" }
local MOST = 65536

local function wrong(text)
   return nil, ("cluster '%s': want instances for prefill and decode as 8P+8D, " ..
      "pipelines of two nodes as 4Px2+8D, or coupled instances as 16M"):format(text), 22
end

-- "8P+8D", "4Px2+8D" or "16M" as a table: text, prefill, decode, coupled (instances),
-- nodes (in one for prefill), n (instances), all_nodes, role(i).
function sim.cluster(text)
   local c = { text = text, prefill = 0, decode = 0, coupled = 0, nodes = 1 }
   for part in (text .. "+"):gmatch "([^+]*)%+" do
      local n, letter, nodes = part:match "^(%d+)([PDMpdm])(x?%d*)$"
      local name = n and NAMES[letter:upper()]
      local each = nodes and tonumber(nodes:match "^x(%d+)$")
      if not name or c[name] > 0 or nodes ~= "" and (not each or name ~= "prefill") then
         return wrong(text)
      end
      c[name] = tonumber(n)
      if each then c.nodes = each end
      if c[name] < 1 or c[name] > MOST or c.nodes < 1 or c.nodes > 64 then
         return wrong(text)
      end
   end
   if (c.prefill > 0) ~= (c.decode > 0) or (c.coupled > 0) == (c.prefill > 0) then
      return wrong(text)
   end
   c.n = c.prefill + c.decode + c.coupled
   c.all_nodes = c.prefill * c.nodes + c.decode + c.coupled
   function c.role(i)
      return c.coupled > 0 and "coupled" or i < c.prefill and "prefill" or "decode"
   end
   return c
end

-- ---- opening ---------------------------------------------------------------

-- The options struct from the cluster, the slo and a table of further fields.
local function options_of(opts)
   local o, c = ffi.new "struct mc_sim_options", opts.cluster
   for k, v in pairs(opts.options or {}) do o[k] = v end
   o.prefill, o.decode, o.coupled = c.prefill, c.decode, c.coupled
   o.prefill_nodes = c.nodes
   if o.block_tokens == 0 then o.block_tokens = opts.load.first.block_tokens end
   o.ask_decode = opts.policy.asks_decode
   o.ttft_slo_s = opts.slo and opts.slo.ttft or 0
   o.tbt_slo_s = opts.slo and opts.slo.tbt or 0
   return o
end

-- What policies ask of their host. Chance is the host's, from a seed of its own, so that
-- a load is the same whatever policy it meets.
local function host_of(s, seed)
   local out = ffi.new "struct mc_forecast"
   math.randomseed(seed)
   return {
      random = math.random,
      forecast = function(at_s)
         C.mc_sim_forecast(s, at_s, out)
         return out.sequences, out.context_tokens
      end,
   }
end

local known = { load = true, cluster = true, policy = true, options = true, slo = true,
                seed = true, warmup_s = true, on_progress = true, on_record = true }

local function open(opts)
   for k in pairs(opts) do
      if not known[k] then error("sim.run: no option '" .. tostring(k) .. "'", 3) end
   end
   local out = ffi.new "struct mc_sim *[1]"
   local o, cluster = options_of(opts), {}
   local r = C.mc_sim_open(out, o)
   if r < 0 then return failed(r) end
   local s = ffi.gc(out[0], C.mc_sim_close)
   for k, v in pairs(opts.cluster) do cluster[k] = v end
   cluster.nic_Bps = o.nic_Bps
   return {
      sim = s, cluster = cluster, load = opts.load, policy = opts.policy,
      view = policy.cluster(C.mc_sim_cluster(s), host_of(s, opts.seed or 1)),
      event = ffi.new "struct mc_sim_event", on_record = opts.on_record,
      on_progress = opts.on_progress, events = 0, fed = 0,
      figures = figures.new(opts.cluster.n, opts.slo or {}, opts.warmup_s or 0),
   }
end

-- ---- the loop --------------------------------------------------------------

local function must(r)
   if r < 0 then error({ sim = ffi.string(C.mc_errmsg()), errno = -tonumber(r) }, 0) end
end

local function feed(run, req)
   must(C.mc_sim_feed(run.sim, req))
   run.fed = run.fed + 1
end

-- The next request that the load begins with, if it has one now. There is always one
-- ahead, for turns of sessions may be, too, and are no reason to wait.
local function feed_next(run)
   local req, why = run.load:next()
   if req then
      run.ahead = run.fed
      feed(run, req)
   elseif why then
      error({ sim = why, errno = 22 }, 0)
   end
end

local function place(run, prompt)
   run.figures:placing(run.sim, prompt)
   local prefill, decode, source = run.policy:place(prompt, run.view)
   if prefill then
      must(C.mc_sim_place(run.sim, prefill, decode, source))
   else
      must(C.mc_sim_refuse(run.sim))
   end
   if prompt.id == run.ahead then feed_next(run) end
end

local function admit(run, prompt, event)
   if run.policy:admit_decode(prompt, run.view, event.decode) then
      must(C.mc_sim_admit(run.sim))
   else
      must(C.mc_sim_refuse(run.sim))
   end
end

local function done(run, record)
   run.figures:done(record)
   if run.on_record then run.on_record(record, run.sim) end
   local req, more = run.load:done(record)
   if req then feed(run, req) end
   if more or record.id == run.ahead then feed_next(run) end
end

-- Until there are no more events: true; false if on_progress() had enough.
local function loop(run)
   local s, event = run.sim, run.event
   local prompt, record = event.prompt, event.record
   local next_look = LOOK_EVERY
   while true do
      must(C.mc_sim_next(s, event))
      local what = event.what
      if what == C.MC_SIM_DONE then
         done(run, record)
      elseif what == C.MC_SIM_PLACE then
         place(run, prompt)
      elseif what == C.MC_SIM_FEED then
         feed_next(run)
      elseif what == C.MC_SIM_ADMIT then
         admit(run, prompt, event)
      else
         return true
      end
      run.events = run.events + 1
      if run.events >= next_look then
         next_look = run.events + LOOK_EVERY
         if run.on_progress and run.on_progress(run) then return false end
      end
   end
end

-- What a caller may draw: samples of the cluster, columns of figures.
local function detail_of(run)
   local out = ffi.new "const struct mc_sim_sample *[1]"
   local n = C.mc_sim_samples(run.sim, out)
   return { samples = out[0], n_samples = n, sim = run.sim, figures = run.figures }
end

-- A mistake in a policy is shown with the calls that led there, as any other.
local function caught(e)
   return type(e) == "table" and e or { user = debug.traceback(tostring(e), 2) }
end

-- Run a load to its end. Options: load, cluster (sim.cluster()), policy; options (fields
-- of struct mc_sim_options), slo (ttft, tbt, e2e in seconds), seed, warmup_s;
-- on_record(record, mc_sim) hears of each request that ended, on_progress(run) now and
-- then, with run.view.now_s and run.events, and ends the run by returning true. Returns
-- the result, a table of plain figures (result.interrupted if it was ended), and what it
-- was made from; nil, message, errno if the trace or the cluster fails.
function sim.run(opts)
   local run, why, errno = open(opts)
   if not run then return nil, why, errno end
   local ok, whole = xpcall(function() return loop(run) end, caught)
   if not ok then
      if whole.sim then return nil, whole.sim, whole.errno end
      error(whole, 0)
   end
   local r = C.mc_sim_check(run.sim)
   if r < 0 then return failed(r) end
   local result = run.figures:result(run.sim, run.cluster)
   result.interrupted = not whole or nil
   return result, detail_of(run)
end

return sim
