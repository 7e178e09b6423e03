-- costs.lua - what computing and moving KV cache costs: models, GPUs, and what follows
-- from them as struct mc_cost, whose formulas mooncake.h has. Every constant of the
-- performance models is in this file, each with its source:
--
--   FAST    Mooncake, FAST'25
--   arXiv   Mooncake, 2407.00079 v3
--   [dig.]  read off a figure, good to 1-2 % of its axis
--
-- There are two ways to a cost: a least-squares fit to measured times (costs.fit, for a
-- CSV of yours costs.load), and a roofline (costs.analytic) whose efficiencies are what
-- the fit of the published times leaves of the A800's peaks.

local ffi = require "ffi"
local C = require "mooncake.ffi"
local costs_fit = require "mooncake.costs_fit"
local util = require "mooncake.util"

local costs = { fit = costs_fit.fit, load = costs_fit.load }

local cost_t = ffi.typeof "struct mc_cost"
local K = 1024

-- ---- models and GPUs -------------------------------------------------------

-- Sizes are those of the models' published configurations. Of each head that is cached,
-- a key of qk_dim and a value of v_dim are, unless kv_elements says how many numbers per
-- layer and token; a number has two bytes. params is of all weights, weight_bytes of
-- one; active is how many of them each token is multiplied with in the layers.
costs.models = {
   -- Eight heads share a key and a value (gqa = 8, FAST Table 1): 320 KiB per token.
   ["llama2-70b"] = { layers = 80, heads = 64, kv_heads = 8, qk_dim = 128, v_dim = 128,
      params = 69.0e9, active = 68.5e9, weight_bytes = 2 },
   ["llama3-70b"] = { layers = 80, heads = 64, kv_heads = 8, qk_dim = 128, v_dim = 128,
      params = 70.6e9, active = 68.5e9, weight_bytes = 2 },
   -- 128 experts, 8 per token.
   ["qwen3-235b-a22b"] = { layers = 94, heads = 64, kv_heads = 4, qk_dim = 128,
      v_dim = 128, params = 235e9, active = 22e9, weight_bytes = 2 },
   -- 256 experts, 8 per token; weights of FP8. A latent vector of 512 and a key of 64
   -- for the position serve all heads.
   ["deepseek-v3"] = { layers = 61, heads = 128, kv_heads = 128, qk_dim = 192,
      v_dim = 128, kv_elements = 512 + 64, params = 671e9, active = 36.6e9,
      weight_bytes = 1 },
}

-- A node has eight. Of one, by NVIDIA's data sheets: flops (dense BF16), hbm_Bps,
-- hbm_bytes. That later GPUs are twice as fast with FP8 is left out: 96 H100 prefill
-- DeepSeek-V3 at 52.3 k tokens/s per node (LMSYS, May 2025), and BF16 with the
-- efficiencies below makes 51 k. Of the node:
--   h2d_Bps  A800: FAST Fig. 14 [dig.], 95 % of 128k tokens loaded in 0.42 s (Table 1
--            has the nominal 128 GB/s); the others: PCIe of the next generation, twice
--   nic_Bps  FAST Fig. 12: Mooncake's transfer engine, 87 GB/s of 4 x 200 Gb/s and
--            190 GB/s of 8 x 400 Gb/s
--   ssd_Bps  five NVMe drives read as one, in Mooncake's documentation of SSD offload
costs.gpus = {
   a800 = { flops = 312e12, hbm_Bps = 2.039e12, hbm_bytes = 80 * 2 ^ 30, h2d_Bps = 97e9,
      nic_Bps = 87e9, ssd_Bps = 27e9 },
   h800 = { flops = 989e12, hbm_Bps = 3.35e12, hbm_bytes = 80 * 2 ^ 30, h2d_Bps = 194e9,
      nic_Bps = 190e9, ssd_Bps = 27e9 },
   h200 = { flops = 989e12, hbm_Bps = 4.8e12, hbm_bytes = 141e9, h2d_Bps = 194e9,
      nic_Bps = 190e9, ssd_Bps = 27e9 },
}

local GPUS = 8

-- What engines leave for activations: the default of vLLM's gpu_memory_utilization.
local HBM_USED = 0.9

-- Parts of the peak that are reached, and times that no peak bounds; all from the fit of
-- costs.published, by LLaMA-70B on eight A800 (tests/costs_test.lua compares):
local EFFICIENCY = {
   linear = 0.50,       -- of FLOPS, weights times tokens
   attention = 0.67,    -- of FLOPS; FlashAttention-2 alone reaches 0.73 (its paper)
   hbm = 0.63,          -- of HBM, KV cache and weights
}
local LAYER_S = 1.55e-4    -- a layer in an iteration, however small: launches, all-reduce
local SEQUENCE_S = 2.3e-6  -- and per layer and sequence

-- FAST Fig. 14 [dig.]: LLaMA3-70B on 8 x A800, seconds of a prefill by thousands of
-- tokens; with 95 % of them cached; and of 128 tokens decoded behind it.
local FIG14 = {
   prefill = { [8] = 0.96, [16] = 2.07, [32] = 4.44, [64] = 10.56, [128] = 27.5 },
   cached = { [8] = 0.14, [16] = 0.23, [32] = 0.41, [64] = 0.89, [128] = 2.33 },
   decode = { [8] = 3.4, [128] = 3.9 },
}

-- arXiv Fig. 2 [dig.]: LLaMA2-70B, 8k to 128k tokens by 8k; decode, by sequences of 8k
-- in the batch. Both have the largest value as 1.
local FIG2 = {
   prefill = { 0.034, 0.071, 0.113, 0.158, 0.206, 0.258, 0.315, 0.373, 0.437, 0.505,
      0.577, 0.653, 0.734, 0.82, 0.908, 1.0 },
   decode = { [1] = 0.80, [16] = 1.0 },
}

-- ---- published times --------------------------------------------------------

-- The factor by which the figure without a scale comes closest, in parts, to the other.
local function scale_of(normal, known)
   local num, den = 0, 0
   for k, seconds in pairs(known) do
      local part = normal[k / 8] / seconds
      num, den = num + part, den + part ^ 2
   end
   return num / den
end

-- The published times as rows for costs.fit(). Those of cached prefixes are apart: one
-- fit to all of them is 11 % wrong at worst and makes the mean prefill of the
-- conversation trace 1.11 s at the hit rate of 37 % for which FAST has 1.05 and 1.06 s
-- (Fig. 10 and 8); without them it is 1.05 s, and 1.64 s without cache, as in Fig. 8
-- (1.66 s), at the price of giving those 12-57 % too little.
local function published()
   local rows, cached = {}, {}
   for _, k in ipairs { 8, 16, 32, 64, 128 } do
      rows[#rows + 1] = { kind = "prefill", tokens = k * K, prefix = 0,
                          seconds = FIG14.prefill[k] }
      cached[#cached + 1] = { kind = "prefill", tokens = k * K * 0.05,
                              prefix = k * K * 0.95, seconds = FIG14.cached[k] }
   end
   local scale = scale_of(FIG2.prefill, FIG14.prefill)
   for i, part in ipairs(FIG2.prefill) do
      rows[#rows + 1] = { kind = "prefill", tokens = i * 8 * K, prefix = 0,
                          seconds = part * scale }
   end
   local lone_s = FIG14.decode[8] / 128
   for _, k in ipairs { 8, 128 } do
      rows[#rows + 1] = { kind = "decode", sequences = 1, context = k * K,
                          seconds = FIG14.decode[k] / 128 }
   end
   rows[#rows + 1] = { kind = "decode", sequences = 16, context = 16 * 8 * K,
                       seconds = lone_s * FIG2.decode[16] / FIG2.decode[1] }
   return { rows = rows, cached = cached }
end

costs.published = published()

-- ---- roofline --------------------------------------------------------------

function costs.kv_bytes_token(model)
   local elements = model.kv_elements or model.kv_heads * (model.qk_dim + model.v_dim)
   return model.layers * elements * 2
end

-- What eight GPUs should take. A token is multiplied with each active weight and attends
-- to those before it: heads * (qk_dim + v_dim) multiplications each, of which a causal
-- mask leaves half of n^2. An iteration of decoding reads all weights, also of experts:
-- in a batch of 64, of which each sequence has 8 of 128, all but 2 % are needed.
function costs.analytic(model, gpu)
   local flops, hbm = GPUS * gpu.flops, GPUS * gpu.hbm_Bps * EFFICIENCY.hbm
   local pair = model.layers * model.heads * (model.qk_dim + model.v_dim)
   local kv = costs.kv_bytes_token(model)
   local fixed_s = model.layers * LAYER_S
   return cost_t(fixed_s, 2 * model.active / (flops * EFFICIENCY.linear),
                 pair / (flops * EFFICIENCY.attention),
                 fixed_s + model.params * model.weight_bytes / hbm,
                 model.layers * SEQUENCE_S, kv / hbm, kv)
end

-- Tokens whose KV cache fits beside the weights; 0: not even those fit. With fewer heads
-- of keys than GPUs, attention is taken to be split by sequences, not by heads.
function costs.vram_tokens(model, gpu)
   local left = GPUS * gpu.hbm_bytes * HBM_USED - model.params * model.weight_bytes
   return math.max(0, math.floor(left / costs.kv_bytes_token(model)))
end

-- Tokens whose KV cache fits into so many bytes: 3 M of LLaMA-70B in 1 TB (FAST).
function costs.dram_tokens(model, bytes)
   return math.floor(bytes / costs.kv_bytes_token(model))
end

-- The bandwidth from which a prefix of so many tokens is fetched faster than computed
-- (FAST Table 1 and the inequality above it, with times instead of peaks).
function costs.reuse_Bps(cost, prefix)
   return cost.kv_bytes_token / (cost.prefill_token_s + 2 * prefix * cost.prefill_pair_s)
end

-- ---- by name ---------------------------------------------------------------

local function names(t)
   local list = {}
   for name in pairs(t) do list[#list + 1] = name end
   table.sort(list)
   return list
end

local function named(t, what, name)
   local found = t[name:lower()]
   if found then return found end
   return nil, ("no %s '%s'; there are %s"):format(what, name,
                                                   table.concat(names(t), ", "))
end

-- Is it the model and the machine of costs.published?
local function is_published(model, gpu)
   local m = costs.models
   return gpu == costs.gpus.a800 and
          (model == m["llama2-70b"] or model == m["llama3-70b"])
end

local function cost_of(model, gpu, profile)
   local rows, why = costs.published.rows, nil
   if profile == "roofline" or not profile and not is_published(model, gpu) then
      return costs.analytic(model, gpu)
   elseif profile == "published" and not is_published(model, gpu) then
      return nil, "published are times of LLaMA-70B on A800, and no others"
   elseif profile and profile ~= "published" then
      rows, why = costs.load(profile)
   end
   if not rows then return nil, why end
   local cost, report = costs.fit(rows, costs.kv_bytes_token(model))
   if not cost then return nil, profile .. ": " .. report end
   return cost, report
end

local OPTIONS = { model = "llama3-70b", gpu = "a800", profile = false }

-- Fields of struct mc_sim_options from { model =, gpu =, profile = }, all optional: cost,
-- vram_tokens, h2d_Bps, nic_Bps, ssd_Bps. profile is a file for costs.load(),
-- "published", or "roofline"; without it, published times where there are any. Second
-- the report of the fit, if one was made. nil, why for a name that does not exist, a file
-- that is wrong, a model that does not fit.
function costs.options(t)
   for key in pairs(t) do
      if OPTIONS[key] == nil then error("costs.options: no option '" .. key .. "'", 2) end
   end
   local model, why = named(costs.models, "model", t.model or OPTIONS.model)
   if not model then return nil, why end
   local gpu, gpu_why = named(costs.gpus, "GPU", t.gpu or OPTIONS.gpu)
   if not gpu then return nil, gpu_why end
   local cost, report = cost_of(model, gpu, t.profile)
   if not cost then return nil, report end
   local vram_tokens = costs.vram_tokens(model, gpu)
   if vram_tokens == 0 then
      return nil, ("the model does not fit: weights of %s, and %s that the GPUs can use")
         :format(util.bytes(model.params * model.weight_bytes),
                 util.bytes(GPUS * gpu.hbm_bytes * HBM_USED))
   end
   return { cost = cost, vram_tokens = vram_tokens, h2d_Bps = gpu.h2d_Bps,
            nic_Bps = gpu.nic_Bps, ssd_Bps = gpu.ssd_Bps }, report
end

-- ---- what there is -----------------------------------------------------------

local HEAD = { "model", "GPU", "from", "KV/token", "VRAM tokens", "1 TB tokens",
   "prefill 8k", "128k", "TBT 1", "TBT 64", "reuse from" }

local function table_row(model_name, gpu_name)
   local model, gpu = costs.models[model_name], costs.gpus[gpu_name]
   local vram_tokens = costs.vram_tokens(model, gpu)
   if vram_tokens == 0 then return { model_name, gpu_name, "does not fit" } end
   local cost = cost_of(model, gpu)
   return { model_name, gpu_name, is_published(model, gpu) and "published" or "roofline",
      util.bytes(cost.kv_bytes_token), util.commas(vram_tokens),
      util.commas(costs.dram_tokens(model, 1e12)),
      util.duration(C.mc_cost_prefill_s(cost, 8 * K, 0)),
      util.duration(C.mc_cost_prefill_s(cost, 128 * K, 0)),
      util.duration(C.mc_cost_decode_s(cost, 1, 8 * K)),
      util.duration(C.mc_cost_decode_s(cost, 64, 64 * 8 * K)),
      util.rate(costs.reuse_Bps(cost, 8 * K)) }
end

-- A table of what there is, as text: seconds of a prefill of 8k and of 128k tokens,
-- between tokens with 1 and with 64 sequences of 8k, and the bandwidth from which
-- fetching the 8k-th token's KV cache is faster than computing it.
function costs.table()
   local rows = {}
   for _, model in ipairs(names(costs.models)) do
      for _, gpu in ipairs(names(costs.gpus)) do
         rows[#rows + 1] = table_row(model, gpu)
      end
   end
   return util.table(HEAD, rows, "lllrrrrrrrr")
end

return costs
