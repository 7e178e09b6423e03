-- tracegen_test.lua - traces that are made: from parameters, like another one, by name.

local like = require "mooncake.tracegen_like"
local trace = require "mooncake.trace"
local tracegen = require "mooncake.tracegen"
local util = require "mooncake.util"

local SMALL = "traces/small.jsonl"
local AZURE = "../shared/traces/azure_llm_2023_code.csv"

local function near(got, want, part, what)
   if math.abs(got - want) > part * want then
      error(("%s: %g, expected %g within %g %%"):format(what, got, want, part * 100), 2)
   end
end

local function text_of(words)
   local lines = {}
   for req in assert(tracegen.requests(words)) do
      lines[#lines + 1] = tracegen.line(req)
   end
   return table.concat(lines, "\n") .. "\n"
end

local function file_of(text)
   local path = test.tmpdir() .. "/trace.jsonl"
   assert(util.write_file(path, text))
   return path
end

-- What the tests ask of a trace. A follow-up shares its first block with an earlier one;
-- a block is hit as in a cache without bound.
local function figures(words)
   local f = { requests = 0, input = 0, output = 0, blocks = 0, hits = 0, follow_ups = 0,
               pause_s = 0, gaps = 0, squares = 0 }
   local before, last, at = {}, {}, 0
   for req in assert(tracegen.requests(words)) do
      local now, hit, parent = tonumber(req.at_ns) / 1e9, true, -1
      assert(now >= at, "a request comes before its predecessor")
      f.gaps, f.squares = f.gaps + (now - at), f.squares + (now - at) ^ 2
      at = now
      f.requests, f.blocks = f.requests + 1, f.blocks + req.n_blocks
      f.input, f.output = f.input + req.input_tokens, f.output + req.output_tokens
      test.eq(req.n_blocks, math.ceil(req.input_tokens / req.block_tokens), "n_blocks")
      for i = 0, req.n_blocks - 1 do
         local id = tonumber(req.blocks[i])
         hit = hit and before[id] ~= nil
         if hit then
            f.hits = f.hits + 1
            if before[id] ~= parent then error("an id has two predecessors") end
         end
         before[id], parent = parent, id
      end
      local first = tonumber(req.blocks[0])
      if last[first] then
         f.follow_ups, f.pause_s = f.follow_ups + 1, f.pause_s + now - last[first]
      end
      last[first] = now
   end
   f.span_s = at
   f.gap_cv = math.sqrt(f.squares / f.requests / (f.gaps / f.requests) ^ 2 - 1)
   return f
end

local tests = {}

-- ---- from parameters -----------------------------------------------------------

function tests.the_same_words_give_the_same_trace()
   local words = { requests = 300, input = "5000:1", output = "100:exp", turns = 3,
      think = 5, prefix_ratio = 0.5, prefixes = 7, seed = 11 }
   local one = text_of(words)
   test.eq(text_of(words), one)
   words.seed = 12
   assert(text_of(words) ~= one, "the seed changes nothing")
end

function tests.words_may_be_text()
   test.eq(text_of { requests = "20", rate = "2.5", prefix_ratio = "0.5", input = 9000 },
           text_of { requests = 20, rate = 2.5, prefix_ratio = 0.5, input = "9000" })
end

function tests.arrivals_are_poisson_or_in_batches()
   local f = figures { requests = 20000, rate = 4, input = 600 }
   near(f.requests / f.span_s, 4, 0.03, "rate")
   near(f.gap_cv, 1, 0.03, "variation of gaps")
   local at, sizes = {}, {}
   for req in assert(tracegen.requests { requests = 5000, rate = 4, input = 600,
      arrivals = "batch:2.5" }) do
      local t = tonumber(req.at_ns) / 1e9
      test.eq(t % 2.5, 0, "a time between batches")
      if at[#at] ~= t then at[#at + 1], sizes[#sizes + 1] = t, 0 end
      sizes[#sizes] = sizes[#sizes] + 1
   end
   near(5000 / at[#at], 4, 0.05, "rate")
   near(5000 / #sizes, 10, 0.05, "requests of a batch")
end

function tests.lengths_have_their_mean_and_spread()
   local spreads = { [""] = 0, [":0.5"] = 0.5, [":2"] = 2, [":exp"] = 1,
                     [":uniform"] = 1 / math.sqrt(3) }
   for spread, cv in pairs(spreads) do
      local n, sum, squares = 50000, 0, 0
      for req in assert(tracegen.requests { requests = n, input = 100,
         output = "1000" .. spread }) do
         sum, squares = sum + req.output_tokens, squares + req.output_tokens ^ 2
      end
      near(sum / n, 1000, 0.03, "mean of 1000" .. spread)
      local got = math.sqrt(math.max(0, squares / n / (sum / n) ^ 2 - 1))
      assert(math.abs(got - cv) < 0.05 * (1 + cv), ("1000%s: %g"):format(spread, got))
   end
end

function tests.prefixes_are_shared_as_asked()
   for _, ratio in ipairs { 0, 0.25, 0.8 } do
      local f = figures { requests = 20000, input = "10240:0.5", prefix_ratio = ratio,
         prefixes = 10 }
      near(f.input / f.requests, 10240, 0.02, "input")
      assert(math.abs(f.hits * 512 / f.input - ratio) < 0.01,
             ("%g of %g shared"):format(f.hits * 512 / f.input, ratio))
   end
end

function tests.prefixes_are_as_popular_as_zipf_says()
   for _, zipf in ipairs { 0, 1, 1.5 } do
      local count, norm = {}, 0
      for k = 1, 20 do norm = norm + k ^ -zipf end
      for req in assert(tracegen.requests { requests = 50000, input = 512,
         prefix_ratio = 1, prefixes = 20, zipf = zipf }) do
         local id = tonumber(req.blocks[0])
         count[id] = (count[id] or 0) + 1
      end
      local list = {}
      for _, n in pairs(count) do list[#list + 1] = n end
      table.sort(list, function(a, b) return a > b end)
      test.eq(#list, 20, "prefixes")
      near(list[1], 50000 / norm, 0.06, "the most popular one, zipf " .. zipf)
      near(list[20], 50000 * 20 ^ -zipf / norm, 0.15, "the least, zipf " .. zipf)
   end
end

function tests.sessions_have_turns_and_pauses()
   local f = figures { requests = 60000, rate = 10, turns = 4, think = 30,
      input = 2000, output = 300, message = 212 }
   near(f.follow_ups / f.requests, 0.75, 0.02, "later turns")
   near(f.pause_s / f.follow_ups, 30, 0.03, "pause")
   near(f.requests / f.span_s, 10, 0.02, "rate")
   -- Turn t has 2000 + 512 (t - 1) tokens, and turns are geometric: 3 follow on average.
   near(f.input / f.requests, 2000 + 3 * 512, 0.03, "input")
end

function tests.a_later_turn_is_all_that_was_said_and_a_message()
   local last
   for req in assert(tracegen.requests { requests = 50, turns = 1e6, think = 0,
      input = 700, output = 100, message = 50, prefix_ratio = 0.8 }) do
      if last then
         test.eq(req.input_tokens, last.input + 150)
         local whole = math.floor(last.input / 512)
         for i = 0, whole - 1 do test.eq(tonumber(req.blocks[i]), last.ids[i]) end
         if whole < last.n then
            assert(tonumber(req.blocks[whole]) ~= last.ids[whole], "a partial one stays")
         end
      end
      last = { input = req.input_tokens, n = req.n_blocks, ids = {} }
      for i = 0, req.n_blocks - 1 do last.ids[i] = tonumber(req.blocks[i]) end
   end
end

function tests.no_prompt_is_longer_than_the_context()
   local longest, n = 0, 0
   for req in assert(tracegen.requests { requests = 5000, turns = 50, think = 0,
      input = "1000:3", context = 4000 }) do
      longest, n = math.max(longest, req.input_tokens), n + 1
   end
   test.eq({ longest, n }, { 4000, 5000 })
end

function tests.a_stream_without_end_makes_no_garbage()
   local requests = assert(tracegen.requests { requests = "inf", input = "4000:1",
      output = "100:exp", prefix_ratio = 0.5, prefixes = 100, turns = 2, think = 10 })
   for _ = 1, 20000 do requests() end
   collectgarbage()
   collectgarbage "stop"
   local before = collectgarbage "count"
   for _ = 1, 200000 do requests() end
   local kib = collectgarbage "count" - before
   collectgarbage "restart"
   assert(kib < 2048, ("%d KiB of garbage in 200,000 requests"):format(kib))
end

function tests.says_what_is_wrong_with_the_words()
   for want, words in pairs {
      ["rate takes a number from 1e%-06 to 1e%+09, not 'fast'"] = { rate = "fast" },
      ["prefix_ratio takes a number from 0 to 1, not '1.5'"] = { prefix_ratio = 1.5 },
      ["input takes MEAN, MEAN:CV, .* not '8K'"] = { input = "8K" },
      ["output takes .* not '100:%-1'"] = { output = "100:-1" },
      ["takes poisson or batch:SECONDS, not 'batch:0'"] = { arrivals = "batch:0" },
      ["arrivals takes .* not 'batch:'"] = { arrivals = "batch:" },
      ["prefixes takes a whole number from 1"] = { prefixes = 1.5 },
      ["requests takes .* not '%-1'"] = { requests = -1 },
      ["no parameter 'inputs'; there are arrivals, block_tokens"] = { inputs = 1 },
      ["no preset 'foo'; there are arxiv_open, "] = { preset = "foo" },
      ["mean length is more than the context of 131072"] = { input = 200000 },
      ["block_tokens: a context"] = { context = 1e8, block_tokens = 1 },
      ["more than ten million sessions"] = { rate = 1e6, think = 100 },
      ["rate is as in the trace"] = { like = "conversation", rate = 2 },
   } do
      local requests, why, errno = tracegen.requests(words)
      test.eq({ requests, errno }, {}, want)
      assert(why:find(want), why)
   end
   local requests, why, errno = tracegen.requests { like = "/nowhere" }
   test.eq({ requests, errno }, { nil, 2 })
   assert(why:find "/nowhere", why)
   requests, why, errno = tracegen.requests { like = file_of "{}\n" }
   test.eq({ requests, errno }, { nil, 22 })
   assert(why:find "trace.jsonl:1:", why)
end

-- ---- by name -------------------------------------------------------------------

-- Published: FAST'25, table 2, and arXiv 2407.00079, table 2 and the open trace. Cache
-- ratio by blocks. For L-Eval it is "more than 80 %".
local published = {
   conversation = { 12031, 12035, 343, 0.40 }, toolagent = { 23608, 8596, 182, 0.59 },
   synthetic = { 3993, 15325, 149, 0.66 }, arxiv_summarization = { nil, 8088, 229, 0 },
   l_eval = { nil, 19019, 72, 0.84 }, simulated_16k = { nil, 16384, 512, 0.5 },
   simulated_32k = { nil, 32768, 512, 0.5 }, simulated_64k = { nil, 65536, 512, 0.5 },
   simulated_128k = { nil, 131072, 512, 0.5 }, arxiv_real = { nil, 7955, 194, 0.5 },
   arxiv_open = { 23608, 7590, 182, 0.5 },
}

-- The model of conversation lets sessions grow a little faster than they did.
local within = { conversation = 0.075 }

function tests.presets_are_as_published()
   for name in pairs(tracegen.presets) do
      local want, part = assert(published[name], name), within[name] or 0.04
      for seed = 1, 2 do
         local f = figures { preset = name, seed = seed }
         test.eq(f.requests, want[1] or f.requests, name)
         near(f.input / f.requests, want[2], part, name .. ": input")
         near(f.output / f.requests, want[3], part, name .. ": output")
         near(f.hits / f.blocks, want[4], part, name .. ": cache ratio")
      end
   end
end

function tests.traces_of_an_hour_take_an_hour()
   for _, name in ipairs { "conversation", "toolagent", "arxiv_open" } do
      near(figures { preset = name }.span_s, 3600, 0.03, name)
   end
end

function tests.a_preset_is_a_default()
   local f = figures { preset = "toolagent", requests = 3000, rate = 20 }
   test.eq(f.requests, 3000)
   near(f.requests / f.span_s, 20, 0.05, "rate")
   -- Pauses shrink with the number of requests, or few would have a second turn.
   near(f.hits / f.blocks, 0.59, 0.08, "cache ratio")
end

-- ---- like another one ----------------------------------------------------------

function tests.the_small_trace_is_what_its_command_makes()
   local f = assert(io.open(SMALL))
   local text = f:read "*a"
   f:close()
   assert(#text < 400 * 1024, "larger than 400 KiB")
   assert(text == text_of { like = "conversation", requests = 1000 }, "another text")
end

function tests.a_profile_is_measured_from_a_trace_and_made_into_one()
   local profile = assert(like.measure(assert(trace.open(SMALL))))
   test.eq(profile.requests, 1000, "requests")
   test.eq(profile.common_block, true, "common_block")
   near(profile.period_ms, 3000, 0.01, "period_ms")
   near(profile.extend, like.conversation.extend, 0.1, "extend")
   local again = assert(loadstring("return " .. like.text(profile)))()
   near(again.batch, profile.batch, 0.001, "batch")
   local f = figures { like = again, seed = 5 }
   test.eq(f.requests, 1000, "requests")
   near(f.hits / f.blocks, 0.366, 0.2, "hit rate")
end

function tests.like_a_load_it_is_that_load()
   local words = { requests = 5000, rate = 8, input = "6000:0.7", output = "200:exp" }
   local source, copy = figures(words), figures { like = file_of(text_of(words)) }
   test.eq(copy.requests, 5000)
   near(copy.input, source.input, 0.04, "input")
   near(copy.output, source.output, 0.04, "output")
   near(copy.span_s, source.span_s, 0.05, "span")
   near(copy.gap_cv, 1, 0.1, "variation of gaps")
   test.eq(copy.hits, 0)
end

function tests.like_a_trace_without_blocks()
   if not io.open(AZURE) then test.skip("no " .. AZURE) end
   local f = figures { like = AZURE }
   test.eq({ f.requests, f.hits }, { 8819, 0 })
   near(f.input / f.requests, 18059974 / 8819, 0.04, "input")
   near(f.output / f.requests, 245896 / 8819, 0.15, "output")
   near(f.span_s, 3436, 0.25, "span")
end

function tests.an_empty_trace_has_no_profile()
   local path = file_of "\n"
   local profile, why = like.measure(assert(trace.open(path)))
   assert(not profile and why:find(path, 1, true), why)
end

-- ---- the format, and the command -----------------------------------------------

function tests.the_reader_reads_what_was_written()
   local words = { requests = 200, seed = 3, like = "conversation" }
   local reader = assert(trace.open(file_of(text_of(words))))
   for want in assert(tracegen.requests(words)) do
      local req = assert(reader:next())
      for _, name in ipairs { "line", "at_ns", "input_tokens", "output_tokens",
         "n_blocks" } do
         assert(req[name] == want[name], name)
      end
      for i = 0, req.n_blocks - 1 do assert(req.blocks[i] == want.blocks[i]) end
   end
   test.eq(reader:next(), nil, "the end")
   test.eq(reader:format(), "mooncake")
   assert(reader:rewind())
   test.eq(tonumber(reader:next().line), 1)
   reader:close()
   reader:close()
end

local function gen(...)
   local p = test.spawn { "mooncake", "trace", "gen", stderr = "stdout", ... }
   return p.out:all(20000), p:wait(5000)
end

function tests.the_command_writes_a_trace()
   local text, status = gen("--requests", "50", "--prefix-ratio=0.5", "--input", "900:1")
   test.eq(status, 0)
   test.eq(text, text_of { requests = 50, prefix_ratio = 0.5, input = "900:1" })
   local path = test.tmpdir() .. "/out.jsonl"
   test.eq({ gen("--like", "conversation", "--requests", "30", "-o", path) }, { "", 0 })
   local f = assert(io.open(path))
   test.eq(f:read "*a", text_of { like = "conversation", requests = 30 })
   f:close()
   text, status = gen("--measure", path)
   test.eq(status, 0)
   test.eq(loadstring("return " .. text)().requests, 30)
   text, status = gen("--like", path, "--requests", "20")
   test.eq(status, 0)
   test.eq(select(2, text:gsub("\n", "")), 20)
end

function tests.the_command_says_what_is_wrong()
   for _, case in ipairs { { "rate takes a number", 2, "--rate", "x" },
      { "no preset 'x'", 2, "--preset", "x" }, { "unknown option", 2, "--speed", "1" },
      { "/nowhere", 1, "--like", "/nowhere" }, { "/nowhere", 1, "--measure", "/nowhere" },
      { "/nowhere/x", 1, "--out", "/nowhere/x" }, { "No space", 1, "--out", "/dev/full" },
      { "unexpected argument", 2, "x" } } do
      local want, status = table.remove(case, 1), table.remove(case, 1)
      local text, got = gen(unpack(case))
      test.eq(got, status, want)
      assert(text:find(want), text)
      test.eq(select(2, text:gsub("\n", "")), 1, text)
   end
end

return tests
