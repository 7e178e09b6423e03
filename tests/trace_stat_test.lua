-- trace_stat_test.lua - `mooncake trace stat`: the statistics against sums by hand and
-- known figures, the command, and what it draws.

local json = require "mooncake.json"
local statistics = require "mooncake.trace.statistics"
local trace = require "mooncake.trace"
local util = require "mooncake.util"

local SMALL = "traces/small.jsonl"
local PUBLIC = "../shared/traces/conversation_trace.jsonl"
local AZURE = "../shared/traces/azure_llm_2023_code.csv"

-- Two batches in 4 s; blocks 1 2 3, 1 2 4, 1 5, 1 2 3.
local TINY = [[
{"timestamp": 1000, "input_length": 1536, "output_length": 10, "hash_ids": [1, 2, 3]}
{"timestamp": 1000, "input_length": 1100, "output_length": 20, "hash_ids": [1, 2, 4]}
{"timestamp": 1000, "input_length": 1024, "output_length": 30, "hash_ids": [1, 5]}
{"timestamp": 5000, "input_length": 1300, "output_length": 40, "hash_ids": [1, 2, 3]}
]]

local function with_file(text, fn, suffix)
   local path = os.tmpname() .. (suffix or "")
   assert(util.write_file(path, text))
   local ok, why = pcall(fn, path)
   os.remove(path)
   if not ok then error(why, 0) end
end

local function near(got, want, what)
   if math.abs(got - want) > 1e-9 then
      error(("%s: %.12g, expected %.12g"):format(what, got, want), 2)
   end
end

local function stat(args, input)
   local p = test.spawn { "mooncake", "trace", "stat", stderr = "stdout",
      stdin = input and "pipe" or nil, unpack(args) }
   if input then
      p:write(input)
      p:close_stdin()
   end
   return p.out:all(20000), p:wait(1000)
end

local tests = {}

function tests.says_what_can_be_summed_by_hand()
   with_file(TINY, function(path)
      local s = assert(trace.stat(assert(trace.open(path)), { capacities = { 1, 3, 4,
         { tokens = 2048 }, math.huge } }))
      test.eq(s.requests, 4)
      test.eq(s.blocks, 11)
      test.eq(s.unique_blocks, 5)
      test.eq(s.span_ms, 4000)
      test.eq(s.input_tokens_mean, 1240)
      test.eq(s.output_tokens_mean, 25)
      test.eq(s.output.p50, 30)
      test.eq(s.output.max, 40)
      test.eq(s.batches, 2)
      test.eq(s.batch.max, 3)
      test.eq(s.arrivals.mean_per_s, 1)
      test.eq(s.max_blocks, 3)
      test.eq(s.continued, 2)
      near(s.ideal_block_rate, 6 / 11, "blocks at best")
      near(s.ideal_token_rate, (1024 + 512 + 1300) / 4960, "tokens at best")
      near(s.sharing.never_reused, 2 / 5, "never reused")
      test.eq(#s.sharing.hottest, 3)
      test.eq(tonumber(s.sharing.hottest[1].id), 1)
      test.eq(s.sharing.hottest[1].uses, 4)
      local reuse = s.sharing.reuse
      test.eq({ reuse[1].blocks, reuse[2].blocks, reuse[3].blocks }, { 2, 1, 2 })
      test.eq(reuse[3].uses, 7)
      near(s.hit_rate.lru["1"], 0, "lru of 1")
      -- Of 3: 1 2 3, 2 hits; 1 2 4, 1 hit; 4 1 5, 1 hit.
      near(s.hit_rate.lru["3"], 4 / 11, "lru of 3")
      near(s.hit_rate.lru["4"], 6 / 11 - 1 / 11, "lru of 4")
      near(s.hit_rate.belady["3"], 6 / 11, "belady of 3")
      near(s.hit_rate.belady.inf, 6 / 11, "belady without bound")
      test.eq(s.capacities, { "1", "3", "4", "4", "inf" })
   end)
end

-- Reuse is what all but one use of each block are, where requests share only prefixes.
function tests.the_public_trace_has_its_known_figures()
   local reader = trace.open(PUBLIC)
   if not reader then return test.skip("no " .. PUBLIC) end
   local s = assert(trace.stat(reader, { capacities = { 1000, 5859, 10000, 30000, 50000,
      100000, math.huge } }))
   test.eq(s.requests, 12031)
   test.eq(s.blocks, 288500)
   test.eq(s.unique_blocks, 182790)
   test.eq(s.span_ms, 3536999)
   test.eq(s.batches, 1180)
   test.eq(s.input.max, 126195)
   test.eq(s.output.max, 2000)
   test.eq(math.floor(s.input_tokens_mean + 0.5), 12035)
   test.eq(math.floor(s.output_tokens_mean + 0.5), 343)
   near(s.hit_rate.lru.inf, (288500 - 182790) / 288500, "hit rate without bound")
   test.eq(("%.4f"):format(s.ideal_token_rate), "0.3736")
   for capacity, rate in pairs { ["1000"] = 0.044, ["5859"] = 0.136, ["10000"] = 0.211,
      ["30000"] = 0.326, ["50000"] = 0.355, ["100000"] = 0.364 } do
      if math.abs(s.hit_rate.lru[capacity] - rate) > 0.00055 then
         error(("lru of %s: %.5f, known is %.3f"):format(capacity,
            s.hit_rate.lru[capacity], rate))
      end
      for _, policy in ipairs(statistics.policies) do
         assert(s.hit_rate[policy][capacity] <= s.hit_rate.belady[capacity], policy)
      end
   end
end

function tests.json_has_its_keys()
   local text, status = stat { SMALL, "--json", "--capacity", "500,3M,inf", "--policy",
      "lru,belady" }
   test.eq(status, 0)
   local s = assert(json.decode(text))
   for _, key in ipairs { "requests", "input_tokens_mean", "output_tokens_mean", "blocks",
      "unique_blocks", "span_ms" } do
      test.eq(type(s[key]), "number", key)
   end
   test.eq(s.requests, 1000)
   for _, policy in ipairs { "lru", "belady" } do
      for _, capacity in ipairs { "500", "5859", "inf" } do
         local rate = s.hit_rate[policy][capacity]
         assert(rate > 0 and rate < 1, policy .. " " .. capacity)
      end
   end
   test.eq(s.hit_rate.lfu, nil)
   local over_time = 0
   for _, n in ipairs(s.arrivals.over_time.requests) do over_time = over_time + n end
   test.eq(over_time, 1000)
end

function tests.text_has_tables_and_charts()
   local text, status = stat { SMALL }
   test.eq(status, 0)
   for _, what in ipairs { "1,000 requests", "input tokens +12,611", "never reused",
      "hottest block",
      "\n +5 to 8 +378 +2.3 %% +2,157 +8.6 %%\n",
      "\n +inf +inf +0.3579", "no bound, 35.8%%", "Prompts" } do
      assert(text:find(what), "no '" .. what .. "' in:\n" .. text)
   end
   for line in text:gmatch "[^\n]+" do
      local _, tails = line:gsub("[\128-\191]", "")
      assert(#line - tails <= 100, "a long line: " .. line)
   end
   text = stat { SMALL, "--no-charts" }
   assert(not text:find "Prompts", text)
end

function tests.a_trace_without_blocks_has_no_caches()
   with_file("TIMESTAMP,ContextTokens,GeneratedTokens\n"
      .. "2023-11-16 18:17:03.9799600,100,10\n2023-11-16 18:17:04.9799600,300,20\n",
      function(path)
      local text, status = stat { path }
      test.eq(status, 0)
      assert(text:find "200" and text:find "arrivals", text)
      assert(not text:find "sharing" and not text:find "hit rate", text)
      local s = json.decode((stat { path, "--json" }))
      test.eq(s.blocks, 0)
      test.eq(s.hit_rate, {})
      test.eq(s.span_ms, 1000)
   end)
   if not io.open(AZURE) then return end
   local s = json.decode((stat { AZURE, "--json" }))
   test.eq(s.requests, 8819)
end

function tests.reads_standard_input()
   local text, status = stat({ "-", "--json", "--capacity", "3" }, TINY)
   test.eq(status, 0)
   near(json.decode(text).hit_rate.lru["3"], 4 / 11, "lru of 3")
end

function tests.draws_into_files()
   with_file(TINY, function(path)
      for _, suffix in ipairs { ".svg", ".html" } do
         local to = path .. suffix
         local text, status = stat { path, "--plot", to }
         test.eq(status, 0, text)
         local f = assert(io.open(to))
         local drawn = f:read "*a"
         f:close()
         os.remove(to)
         assert(drawn:find "Hit rate against capacity" and drawn:find "s3fifo", to)
         assert(drawn:find "</svg>", to)
      end
      local text, status = stat { path, "--plot", "/nowhere/x.svg" }
      test.eq(status, 1)
      assert(text:find "/nowhere/x.svg", text)
      text, status = stat { path, "--plot", "x.png" }
      test.eq(status, 2)
      assert(text:find "x.png", text)
   end)
end

function tests.wrong_use_says_what_is_wrong()
   for _, case in ipairs {
      { 2, "'many'", SMALL, "--capacity", "many" },
      { 2, "'1.5'", SMALL, "--capacity", "1.5" },
      { 2, "'0'", SMALL, "--capacity", "0" },
      { 2, "there is none", SMALL, "--capacity", "," },
      { 2, "'mru'.*s3fifo", SMALL, "--policy", "lru,mru" },
      { 2, "FILE is missing" },
      { 2, "unexpected argument", SMALL, SMALL },
      { 1, "/nowhere", "/nowhere" },
   } do
      local text, status = stat { select(3, unpack(case)) }
      test.eq(status, case[1], text)
      assert(text:find(case[2]), text)
   end
   with_file(TINY .. "{}\n", function(path)
      local text, status = stat { path }
      test.eq(status, 1)
      assert(text:find(path .. ":5:", 1, true), text)
   end)
end

function tests.few_requests_or_none()
   with_file("\n", function(path)
      local text, status = stat { path, "--plot", path .. ".html" }
      os.remove(path .. ".html")
      test.eq(status, 0)
      assert(text:find "0 requests", text)
      test.eq(json.decode((stat { path, "--json" })).requests, 0)
   end)
   with_file(TINY:match "[^\n]+\n", function(path)
      local text, status = stat { path, "--plot", path .. ".svg" }
      os.remove(path .. ".svg")
      test.eq(status, 0, text)
      test.eq(json.decode((stat { path, "--json" })).span_ms, 0)
   end)
end

function tests.the_dispatcher_knows_its_subcommands()
   local function run(...)
      local p = test.spawn { "mooncake", "trace", stderr = "stdout", ... }
      return p.out:all(10000), p:wait(1000)
   end
   local text, status = run "--help"
   test.eq(status, 0)
   assert(text:find "gen" and text:find "stat", text)
   text, status = run("stat", "--help")
   test.eq(status, 0)
   assert(text:find "usage: mooncake trace stat", text)
   text, status = run "dance"
   test.eq(status, 2)
   assert(text:find "'dance'.*gen and stat", text)
   test.eq(select(2, run()), 2)
end

return tests
