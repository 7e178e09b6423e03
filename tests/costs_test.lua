-- costs_test.lua - models and GPUs against figures from elsewhere, and the fit against
-- profiles whose coefficients are known.

local ffi = require "ffi"
local C = require "mooncake.ffi"
local costs = require "mooncake.costs"
local lru = require "mooncake.lru"
local trace = require "mooncake.trace"
local util = require "mooncake.util"

local PUBLIC = "../shared/traces/conversation_trace.jsonl"
local NAMES = { "prefill_s", "prefill_token_s", "prefill_pair_s", "decode_s",
                "decode_seq_s", "decode_token_s" }

local function cost_of(...) return ffi.new("struct mc_cost", ...) end

-- Rows as a machine with this cost would give them.
local function profile_of(cost, batches)
   local rows = {}
   for _, n in ipairs { 100, 1000, 8000, 64000 } do
      for _, p in ipairs { 0, 5000, 40000 } do
         rows[#rows + 1] = { kind = "prefill", tokens = n, prefix = p,
                             seconds = C.mc_cost_prefill_s(cost, n, p) }
      end
   end
   for _, b in ipairs(batches) do
      for _, each in ipairs { 500, 4000 } do
         rows[#rows + 1] = { kind = "decode", sequences = b, context = b * each,
                             seconds = C.mc_cost_decode_s(cost, b, b * each) }
      end
   end
   return rows
end

local function same_cost(got, want, part)
   for _, name in ipairs(NAMES) do test.near(got[name], want[name], part * want[name]) end
end

local function written(text)
   local path = test.tmpdir() .. "/profile.csv"
   assert(util.write_file(path, text))
   return path
end

local t = {}

-- ---- models and GPUs -------------------------------------------------------

function t.kv_cache_has_its_known_size()
   local want = {
      ["llama2-70b"] = 320 * 1024, ["llama3-70b"] = 320 * 1024,   -- FAST paper
      ["qwen3-235b-a22b"] = 94 * 2 * 4 * 128 * 2,
      ["deepseek-v3"] = 61 * 576 * 2,          -- 70 KB, DeepSeek's report on the hardware
   }
   for name, model in pairs(costs.models) do
      test.eq(costs.kv_bytes_token(model), want[name], name)
   end
end

function t.a_terabyte_is_three_million_tokens()
   test.near(costs.dram_tokens(costs.models["llama3-70b"], 1e12) / 1e6, 3, 0.06)
end

function t.vram_is_what_weights_leave()
   local left = 0.9 * 640 * 2 ^ 30 - 141.2e9
   test.eq(costs.vram_tokens(costs.models["llama3-70b"], costs.gpus.a800),
           math.floor(left / 327680))
   test.eq(costs.vram_tokens(costs.models["deepseek-v3"], costs.gpus.h800), 0)
end

-- FAST Table 1: (a,b) = (4,22), d = 8192, l = 80, p = 8192, at the peak of the GPUs; the
-- paper finds 6 GB/s on A800 and 19 GB/s on H800.
function t.reuse_pays_from_the_bandwidth_of_the_paper()
   for gpu, want in pairs { a800 = 6e9, h800 = 19e9 } do
      local peak = 8 * costs.gpus[gpu].flops
      local cost = cost_of { prefill_token_s = 80 * 22 * 8192 ^ 2 / peak,
         prefill_pair_s = 80 * 4 / 2 * 8192 / peak, kv_bytes_token = 320 * 1024 }
      test.near(costs.reuse_Bps(cost, 8192), want, 0.5e9)
   end
end

-- 52.3 k tokens/s per node in prompts of 2,000 (LMSYS, May 2025).
function t.deepseek_on_hopper_is_as_fast_as_others_measured()
   local cost = costs.analytic(costs.models["deepseek-v3"], costs.gpus.h200)
   local s = cost.prefill_token_s * 2000 + cost.prefill_pair_s * 2000 ^ 2
   test.near(2000 / s, 52.3e3, 0.03 * 52.3e3)
end

-- ---- fitting ---------------------------------------------------------------

function t.a_fit_finds_what_made_the_profile()
   local made = cost_of(0.02, 1e-4, 8e-10, 0.025, 2e-4, 3e-8, 1234)
   local cost, report = costs.fit(profile_of(made, { 1, 8, 64 }), 1234)
   same_cost(cost, made, 1e-6)
   test.eq(cost.kv_bytes_token, 1234)
   test.eq(report.rows, 18)
   assert(report.rms < 1e-9 and math.abs(report.worst) < 1e-9, report.worst)
end

-- 250 sequences and more are bound by computing here, and would pull decode_s up.
function t.a_fit_knows_which_iterations_computing_bounds()
   local made = cost_of(0.02, 1e-4, 8e-10, 0.025, 2e-4, 3e-8, 1)
   local cost = costs.fit(profile_of(made, { 1, 32, 512, 2048 }), 1)
   same_cost(cost, made, 1e-6)
end

-- Times that a constant below zero would fit exactly: the best without one is found,
-- which no small step improves.
function t.no_coefficient_is_negative()
   local rows = { { kind = "decode", sequences = 1, context = 100, seconds = 0.02 } }
   for _, n in ipairs { 2000, 4000, 16000, 90000 } do
      rows[#rows + 1] = { kind = "prefill", tokens = n, seconds = n * 1e-4 - 0.1 }
   end
   local cost = costs.fit(rows, 1)
   local function distance(c)
      local sum = 0
      for i = 2, #rows do
         sum = sum + (C.mc_cost_prefill_s(c, rows[i].tokens, 0) / rows[i].seconds - 1) ^ 2
      end
      return sum
   end
   test.eq(cost.prefill_s, 0)
   assert(cost.prefill_token_s > 0 and cost.prefill_pair_s >= 0)
   local best = distance(cost)
   for i = 1, 3 do
      for _, by in ipairs { 0.999, 1.001 } do
         local other = ffi.new("struct mc_cost", cost)
         local scale = ({ 0.05, 1e-4, 1e-9 })[i]
         other[NAMES[i]] = math.max(0, cost[NAMES[i]] + (by - 1) * scale)
         assert(distance(other) >= best, NAMES[i])
      end
   end
end

function t.a_report_has_each_residual()
   local rows = profile_of(cost_of(0, 1e-4, 0, 0.02, 0, 0, 1), { 1 })
   rows[1].seconds = rows[1].seconds * 1.5
   local cost, report = costs.fit(rows, 1)
   test.eq(#report.residuals, #rows)
   local got = C.mc_cost_prefill_s(cost, rows[1].tokens, rows[1].prefix)
   test.near(report.residuals[1], got / rows[1].seconds - 1)
   test.eq(report.worst, report.residuals[1])
   local sum = 0
   for _, r in ipairs(report.residuals) do sum = sum + r * r end
   test.near(report.rms, math.sqrt(sum / #rows))
end

function t.a_fit_needs_both_kinds()
   local _, why = costs.fit({ { kind = "prefill", tokens = 1, seconds = 1 } }, 1)
   test.eq(why, "a profile needs rows of decode")
   _, why = costs.fit({ { kind = "decode", sequences = 1, context = 1, seconds = 1 } }, 1)
   test.eq(why, "a profile needs rows of prefill")
   test.raises("row 1 is no prefill and no decode", costs.fit, { { kind = "x" } }, 1)
end

-- ---- the published times ---------------------------------------------------

function t.the_published_times_have_the_form_of_the_model()
   local cost, report = costs.fit(costs.published.rows, 327680)
   test.eq(report.rows, 5 + 16 + 3)
   assert(report.rms < 0.0075 and math.abs(report.worst) < 0.025, report.worst)
   local least, most = math.huge, -math.huge
   for _, row in ipairs(costs.published.cached) do
      local got = C.mc_cost_prefill_s(cost, row.tokens, row.prefix)
      least = math.min(least, got / row.seconds - 1)
      most = math.max(most, got / row.seconds - 1)
   end
   test.near(least, -0.57, 0.005)
   test.near(most, -0.12, 0.005)
end

function t.the_roofline_has_the_efficiencies_of_the_fit()
   local fit = costs.fit(costs.published.rows, 327680)
   local roofline = costs.analytic(costs.models["llama3-70b"], costs.gpus.a800)
   test.near(roofline.prefill_s, fit.prefill_s, 0.2 * fit.prefill_s)
   roofline.prefill_s = fit.prefill_s
   same_cost(roofline, fit, 0.01)
end

-- How many of the first blocks of a request an earlier one had; now all of them are seen.
local function seen_blocks(seen, req)
   local n = 0
   while n < req.n_blocks and seen:find(req.blocks[n]) do n = n + 1 end
   for i = n, req.n_blocks - 1 do
      if not seen:find(req.blocks[i]) then seen:insert(req.blocks[i]) end
   end
   return n
end

-- Mean seconds of a prefill over a trace: from nothing, and with every prefix that came
-- before.
local function mean_prefill(cost, reader)
   local seen, n, cold, warm, tokens, hit = lru.new(), 0, 0, 0, 0, 0
   for req in reader:each() do
      local have = seen_blocks(seen, req) * req.block_tokens
      have = math.min(have, req.input_tokens - 1)
      n, tokens, hit = n + 1, tokens + req.input_tokens, hit + have
      cold = cold + C.mc_cost_prefill_s(cost, req.input_tokens, 0)
      warm = warm + C.mc_cost_prefill_s(cost, req.input_tokens - have, have)
   end
   return cold / n, warm / n, hit / tokens
end

-- FAST Fig. 8 has 1.66 s for vLLM without a cache of prefixes and 1.06 s for Mooncake,
-- Fig. 10 1.05 s at 37.5 % of tokens hit.
function t.a_trace_takes_the_time_that_the_paper_has()
   local reader = trace.open(PUBLIC)
   if not reader then return test.skip("no " .. PUBLIC) end
   local cost = costs.fit(costs.published.rows, 327680)
   local cold, warm, hit = mean_prefill(cost, reader)
   test.near(hit, 0.375, 0.002)
   test.near(cold, 1.66, 0.02)
   test.near(warm, 1.05, 0.01)

   local all = {}
   for _, list in ipairs { costs.published.rows, costs.published.cached } do
      for _, row in ipairs(list) do all[#all + 1] = row end
   end
   local other, report = costs.fit(all, 327680)
   assert(reader:rewind())
   test.near(select(2, mean_prefill(other, reader)), 1.11, 0.01)
   test.near(report.worst, -0.11, 0.005)
end

-- ---- profiles --------------------------------------------------------------

function t.a_profile_is_read()
   local rows = assert(costs.load(written [[
# made on a machine of mine
kind,    tokens, prefix, sequences, context, seconds
prefill, 8192,   0,      ,          ,        0.96   # cold
prefill, 410,    7782,,,0.14

decode,,,1,8192,0.0266
]]))
   test.eq(rows, {
      { kind = "prefill", tokens = 8192, prefix = 0, seconds = 0.96 },
      { kind = "prefill", tokens = 410, prefix = 7782, seconds = 0.14 },
      { kind = "decode", sequences = 1, context = 8192, seconds = 0.0266 },
   })
end

function t.a_wrong_profile_says_where()
   local head = "kind,tokens,prefix,sequences,context,seconds\n"
   local bad = {
      ["kind,token\n"] = ":1: no column 'token'",
      [head .. "\nprefil,1,0,,,1\n"] = ":3: kind 'prefil', want prefill or decode",
      [head .. "prefill,many,0,,,1\n"] = ":2: tokens: 'many' is no number",
      [head .. "prefill,1,0,,,\n"] = ":2: seconds of a prefill must be more than 0",
      [head .. "prefill,1,-1,,,1\n"] = ":2: prefix is negative",
      [head .. "decode,,,0,5,1\n"] = ":2: sequences of a decode must be more than 0",
      [head .. "decode,,,1,nan,1\n"] = ":2: context of a decode must be more than 0",
   }
   for text, want in pairs(bad) do
      local path = written(text)
      local rows, why = costs.load(path)
      test.eq(rows, nil)
      test.eq(why, path .. want)
   end
   local _, why = costs.load "/nowhere/p.csv"
   assert(why:find "/nowhere/p.csv", why)
end

-- ---- options ---------------------------------------------------------------

function t.options_fill_the_struct()
   local o, report = assert(costs.options {})
   local s = ffi.new("struct mc_sim_options", o)
   test.near(s.cost.decode_s, 0.0261, 1e-4)
   test.eq(tonumber(s.vram_tokens), 1456528)
   test.eq(s.nic_Bps, 87e9)
   test.eq(report.rows, 24)
   local same = assert(costs.options { model = "LLaMA3-70B", gpu = "A800",
                                       profile = "published" })
   test.eq(same.cost.prefill_token_s, o.cost.prefill_token_s)
   local roof, none = assert(costs.options { profile = "roofline" })
   assert(roof.cost.prefill_s ~= o.cost.prefill_s and none == nil)
end

function t.options_take_a_profile()
   local text = "kind,tokens,sequences,context,seconds\nprefill,1000,,,2\n"
   local path = written(text)
   local o, why = costs.options { profile = path }
   test.eq(o, nil)
   test.eq(why, path .. ": a profile needs rows of decode")
   path = written(text .. "decode,,1,1,3\n")
   o = assert(costs.options { model = "deepseek-v3", gpu = "h200", profile = path })
   test.near(C.mc_cost_prefill_s(o.cost, 1000, 0), 2, 1e-9)
   test.near(C.mc_cost_decode_s(o.cost, 1, 1), 3, 1e-9)
   test.eq(o.cost.kv_bytes_token, 70272)
end

function t.options_say_what_is_wrong()
   local function why(opts) return select(2, costs.options(opts)) end
   test.eq(why { model = "gpt" }, "no model 'gpt'; there are deepseek-v3, llama2-70b, " ..
           "llama3-70b, qwen3-235b-a22b")
   test.eq(why { gpu = "cpu" }, "no GPU 'cpu'; there are a800, h200, h800")
   assert(why({ model = "deepseek-v3" }):find "^the model does not fit: weights of 62%d")
   assert(why({ gpu = "h800", profile = "published" }):find "^published are times of")
   test.raises("no option 'modle'", costs.options, { modle = "x" })
end

function t.the_table_has_every_pair()
   local text, n = costs.table(), 1
   for model in pairs(costs.models) do
      for gpu in pairs(costs.gpus) do
         n = n + 1
         assert(text:find("\n" .. model:gsub("%-", "%%-") .. " +" .. gpu .. " "), model)
      end
   end
   test.eq(select(2, text:gsub("\n", "")) + 1, n)
   assert(text:find "llama3%-70b +a800 +published +320 KiB")
end

return t
