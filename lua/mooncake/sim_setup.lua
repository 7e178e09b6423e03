-- sim_setup.lua - from the words of a command line to what mooncake.sim and mooncake.load
-- take. What is wrong with them is the user's error, with exit status 2.
--
--    local run = setup.of({ cluster = "8P+8D", speed = 2, slo = "ttft=30,tbt=0.1" },
--                         "trace.jsonl")
--    local result, detail = assert(sim.run(run))

local costs = require "mooncake.costs"
local load = require "mooncake.load"
local policy = require "mooncake.policy"
local sim = require "mooncake.sim"
local tracegen = require "mooncake.tracegen"
local util = require "mooncake.util"

local setup = {}

local function wrong(fmt, ...)
   error({ user = select("#", ...) > 0 and fmt:format(...) or fmt, status = 2 }, 0)
end

local function check(ok, why)
   if not ok then wrong("%s", why) end
   return ok
end

-- ---- words -----------------------------------------------------------------

-- "a=1,b=2" as a table; of a word without "=" the value is true.
function setup.pairs_of(text)
   local t = {}
   for word in text:gmatch "[^,]+" do
      local k, v = word:match "^%s*([%w_-]+)%s*=%s*(.-)%s*$"
      if k then
         t[k:gsub("-", "_")] = v
      else
         t[word] = true
      end
   end
   return t
end

local SLO = { ttft = true, tbt = true, e2e = true }

-- "ttft=30,tbt=0.1,e2e=60" as seconds.
function setup.slo(text)
   local slo = {}
   for k, v in pairs(setup.pairs_of(text or "")) do
      local s = tonumber(v)
      if not SLO[k] then wrong("--slo: no bound '%s'; there are ttft, tbt and e2e", k) end
      if not s or s <= 0 then wrong("--slo: %s takes seconds, not '%s'", k, v) end
      slo[k] = s
   end
   return slo
end

local TOKENS = { [""] = 1, K = 1e3, M = 1e6, G = 1e9 }
local BYTES = { B = 1, KB = 1e3, MB = 1e6, GB = 1e9, TB = 1e12, KIB = 2 ^ 10,
                MIB = 2 ^ 20, GIB = 2 ^ 30, TIB = 2 ^ 40 }

-- "3M" tokens or "1TB" of KV cache as tokens, "inf" as math.huge.
function setup.tokens(text, kv_bytes_token, name)
   text = tostring(text)
   if text == "inf" then return math.huge end
   local n, unit = text:match "^(%d+%.?%d*)%s*(%a*)$"
   unit = unit and unit:upper()
   local scale = unit and (TOKENS[unit] or BYTES[unit] and BYTES[unit] / kv_bytes_token)
   if not scale then
      wrong("--%s takes tokens as 3M, bytes as 1TB, or inf, not '%s'", name, text)
   end
   return math.floor(tonumber(n) * scale)
end

local function at_least(opt, name, least)
   local n = opt[name:gsub("-", "_")]
   if n and not (n >= least and n < 2 ^ 53) then
      wrong("--%s takes a number of %s or more, not '%s'", name, least, tostring(n))
   end
   return n
end

local function whole(opt, name, least)
   local n = at_least(opt, name, least)
   if n and n % 1 ~= 0 then wrong("--%s takes a whole number, not '%s'", name, n) end
   return n
end

-- ---- the parts -------------------------------------------------------------

function setup.policy(opt)
   local placement = check(policy.load(opt.policy))
   local admission = opt.admission or "none"
   if admission == "none" then return placement end
   return policy.compose(placement, check(policy.admission(admission)))
end

-- A parameter of the generator, as it has it.
local function parameter(words, name)
   for _, def in ipairs(tracegen.parameters) do
      if def[1] == name then return def[3].of(words[name] or def[2]) end
   end
end

-- What --synthetic has to say of sessions, if anything: they go by the answers that the
-- cluster gives, and the generator makes only what begins them.
local function take_sessions(words)
   if not words.turns then return nil end
   local s = {}
   for _, name in ipairs { "turns", "think", "message", "output", "context" } do
      s[name] = parameter(words, name)
   end
   words.turns, words.think, words.message = 1, nil, nil
   return s
end

-- Words for tracegen.requests() from those of --synthetic.
local function generator(opt)
   local words = setup.pairs_of(opt.synthetic)
   words.seed = words.seed or opt.seed
   check(tracegen.requests(words))
   return words
end

function setup.load(opt, path)
   local words = opt.synthetic and generator(opt)
   if not path and not words then wrong "TRACE or --synthetic is missing" end
   if path and words then wrong "TRACE and --synthetic exclude each other" end
   if not (opt.speed > 0) then wrong("--speed takes a factor, not '%s'", opt.speed) end
   local l, why = load.open {
      trace = path, sessions = words and take_sessions(words), synthetic = words,
      format = opt.format, block_tokens = whole(opt, "block-tokens", 1),
      speed = opt.speed, start = at_least(opt, "start", 0), seed = opt.seed,
      limit = whole(opt, "limit", 1), repeats = whole(opt, "repeat", 1),
      concurrency = whole(opt, "concurrency", 1),
   }
   if not l then util.fail("%s", why) end
   return l
end

local MODES = {
   plain = { no_prefix_cache = true },
   prefix = {},
   -- Of the vLLM that the papers compare with, chunked prefill has no prefix cache.
   chunked = { chunked = true, no_prefix_cache = true },
}

-- Caches: for the simulator 0 is without bound.
local function add_caches(o, opt)
   local kv = o.cost.kv_bytes_token
   local function tokens(name)
      return opt[name] and setup.tokens(opt[name], kv, name)
   end
   local dram, ssd, vram = tokens "dram", tokens "ssd", tokens "vram"
   if dram == 0 then o.no_prefix_cache = true end
   if dram == 0 and ssd and ssd > 0 then wrong "--ssd needs --dram before it" end
   o.dram_tokens = dram < math.huge and dram or 0
   if ssd == math.huge then wrong "--ssd takes a size; --dram inf needs no SSD" end
   o.ssd_tokens = ssd
   if vram == 0 then wrong "--vram: no request fits into 0" end
   if vram then o.vram_tokens = vram < math.huge and vram or 0 end
end

-- Fields of struct mc_sim_options.
function setup.options(opt, cluster)
   local o = check(costs.options { model = opt.model, gpu = opt.gpu,
                                   profile = opt.profile })
   local mode = MODES[opt.coupled_mode] or
      wrong("--coupled-mode: no '%s'; there are plain, prefix and chunked",
            opt.coupled_mode)
   for k, v in pairs(cluster.coupled > 0 and mode or {}) do o[k] = v end
   add_caches(o, opt)
   o.chunk_tokens, o.batch_tokens = whole(opt, "chunk", 0), whole(opt, "batch-tokens", 0)
   o.max_sequences = whole(opt, "max-sequences", 1)
   o.no_overlap, o.eviction = not opt.overlap, opt.eviction
   o.event_lag_s, o.sample_s = at_least(opt, "event-lag", 0), at_least(opt, "sample", 0)
   o.nic_Bps = at_least(opt, "nic", 0) or o.nic_Bps
   return o
end

-- All that sim.run() takes, from options as `mooncake sim` has them and the path of a
-- trace or nil.
function setup.of(opt, path)
   local cluster = check(sim.cluster(opt.cluster))
   return {
      cluster = cluster, policy = setup.policy(opt), slo = setup.slo(opt.slo),
      seed = whole(opt, "seed", 0), warmup_s = at_least(opt, "warmup", 0),
      options = setup.options(opt, cluster), load = setup.load(opt, path),
   }
end

return setup
