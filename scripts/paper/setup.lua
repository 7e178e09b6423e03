-- setup.lua - what all parts of `make paper` share: the constants, and how to run one.
--
-- Nothing here is set per row. What a model and a GPU cost is in mooncake.costs, with
-- sources: LLaMA-70B on eight A800, fitted to the published times of lone requests.
-- FAST: Mooncake, FAST'25. arXiv: Mooncake, 2407.00079 v3.

local costs = require "mooncake.costs"
local load = require "mooncake.load"
local policy = require "mooncake.policy"
local sim = require "mooncake.sim"

local setup = {}

-- ---- constants -------------------------------------------------------------

-- Of a prefill node's cache: what FAST Fig. 10 says of its own, about 1 TB. Of the other
-- experiments no capacity is published.
setup.DRAM_TOKENS = 3e6

-- kvcache_balancing_threshold: the papers adjust it by hand and print none. Our choice;
-- 1 to 8 differ by less than 2 % in mean TTFT on the conversation trace.
setup.THRESHOLD = 2

-- What serving adds to each iteration of an engine, and to it for each sequence: its
-- scheduler, the preparing of inputs, detokenizing, an API server in the same process.
-- That it is much is known: of the time of vLLM 0.5.3 with an 8B model, 38 % were GPU
-- time (vLLM's report on 0.6.0), and the GPU waits 5-13 ms in each iteration (vLLM issue
-- 6854). How much it was here is not: these two give Mooncake's own median TBT the 74 ms
-- of FAST Fig. 7, where the profile alone gives 30. Any split of it from 10 and 2.5 ms to
-- 30 and 0.7 ms keeps the ratios over plain vLLM in A within 25 %. Nothing else is fitted
-- to a result but the spread of lengths below. It is no GPU time: B, E and I are without.
setup.ITERATION_S = 0.020
setup.SEQUENCE_S = 0.0015

-- Prefix caching of vLLM 0.5.1 hashes, for each block of 16 tokens, all tokens up to its
-- end ("O(L^2)", says hash_of_block() in its sequence.py), and the engine waits. CPython
-- 3.11 takes so many seconds times the square of the tokens, measured with 4k to 64k.
setup.HASH_S = 7.5e-10

-- Tokens of an iteration with chunked prefill. vLLM 0.5 has 512 by default and recommends
-- more than 2048 for throughput. With 512 an iteration takes 84 ms of GPU time, by FAST
-- Fig. 8 too, and no TBT comes near 300 ms, which 45 % of the published ones exceed.
setup.CHUNK_TOKENS = 4096

-- In front of vLLM, which has no router of its own in 0.5. Our choice.
setup.ROUTER = "round_robin"

-- Times the value of a lone request (arXiv, end to end).
setup.TTFT_FACTOR, setup.TBT_FACTOR = 10, 5

-- The "real data" of arXiv (table 2): 23,000 requests, 7,955 tokens in, 194 out. The rate
-- and what is shared are those of the trace published with it: 23,608 requests in an
-- hour; a cache of 1k, 10k, 30k, 50k, 100k blocks finds .30, .40, .48, .50, .51 of them
-- (table 1; made: .30, .39, .48, .50, .51), over half are used once (74 %), the hottest
-- over 10,000 times (9,800). The spread of lengths is not published: 1.7 means give the
-- TTFT of vLLM its published p90 and p99 (part L).
function setup.real_data(seed)
   return { requests = 23000, rate = 23608 / 3600, arrivals = "batch:3",
      input = "7600:1.7", output = "194:2", prefix_ratio = 0.35, prefixes = 4,
      turns = 1.5, think = 300, message = "500:exp", seed = seed }
end

-- ---- the conversation trace ------------------------------------------------

setup.trace = os.getenv "TRACE" or "../shared/traces/conversation_trace.jsonl"

function setup.has_trace()
   local f = io.open(setup.trace)
   return f ~= nil and f:close()
end

-- Its requests, as load.open() takes them. Seed 0 is the trace itself; others are traces
-- made with its statistics, as are all where it is not there.
function setup.conversation(seed)
   if seed == 0 and setup.has_trace() then return { trace = setup.trace } end
   return { synthetic = { preset = "conversation", seed = seed + 1 } }
end

-- ---- running ---------------------------------------------------------------

local VLLM = {
   plain = { no_prefix_cache = true },
   prefix = {},
   chunked = { no_prefix_cache = true, chunked = true,
               batch_tokens = setup.CHUNK_TOKENS },
}

-- served: with what serving adds. vllm: which one, nil for Mooncake.
local function cost_of(served, vllm)
   local o = assert(costs.options { model = "llama3-70b", gpu = "a800" })
   if not served then return o end
   local c = o.cost
   c.prefill_s = c.prefill_s + setup.ITERATION_S
   c.decode_s = c.decode_s + setup.ITERATION_S
   c.decode_seq_s = c.decode_seq_s + setup.SEQUENCE_S
   if vllm == "prefix" then c.prefill_pair_s = c.prefill_pair_s + setup.HASH_S end
   return o
end

local function policy_of(t)
   local name = t.policy or t.vllm and setup.ROUTER or "kvcache_centric"
   if type(name) ~= "string" then return name end
   local values = name == "kvcache_centric" and { threshold = setup.THRESHOLD } or {}
   local p = assert(policy.load(name, values))
   return t.admission and policy.compose(p, assert(policy.admission(t.admission))) or p
end

local function one_token(l)
   local next_request = l.next
   function l.next(self)
      local req, why = next_request(self)
      if req then req.output_tokens = 1 end
      return req, why
   end
   return l
end

-- Run one: cluster ("8P+8D"), load (as load.open() takes it, or a load); policy,
-- admission, slo, seed; vllm (plain, prefix or chunked); dram (tokens; 0 is no bound);
-- gpu_only: the cost without what serving adds; prefill_only: answers of one token;
-- options, on_progress, on_record. Returns as sim.run().
function setup.run(t)
   local o = cost_of(not t.gpu_only, t.vllm)
   o.dram_tokens = t.dram or setup.DRAM_TOKENS
   for k, v in pairs(VLLM[t.vllm] or {}) do o[k] = v end
   for k, v in pairs(t.options or {}) do o[k] = v end
   local l = t.load.next and t.load or assert(load.open(t.load))
   if t.prefill_only then l = one_token(l) end
   return assert(sim.run { cluster = assert(sim.cluster(t.cluster)), load = l,
      policy = policy_of(t), options = o, slo = t.slo, seed = t.seed,
      on_progress = t.on_progress, on_record = t.on_record })
end

return setup
