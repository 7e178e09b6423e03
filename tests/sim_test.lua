-- sim_test.lua - `mooncake sim`: what goes in, what comes out, and that it is the same
-- again. How clusters behave is the matter of tests/unit/sim_test.c, what policies decide
-- of policy_test.lua.

local ffi = require "ffi"
local column = require "mooncake.sim_column"
local costs = require "mooncake.costs"
local hot = require "mooncake.sim_hot"
local json = require "mooncake.json"
local load = require "mooncake.load"
local policy = require "mooncake.policy"
local proc = require "mooncake.proc"
local sim = require "mooncake.sim"
local util = require "mooncake.util"

local t = {}

-- ---- traces, runs ----------------------------------------------------------

local function line(at_ms, input, output, ids)
   return ('{"timestamp": %d, "input_length": %d, "output_length": %d, "hash_ids": ' ..
           '[%s]}\n'):format(at_ms, input, output, table.concat(ids, ", "))
end

local function write(path, text)
   assert(util.write_file(path, text))
   return path
end

local function read(path)
   return assert(util.read_file(path))
end

-- n requests, one each @gap_ms: of every four one has the same two blocks, the others
-- those of their own besides the first.
local function trace(n, gap_ms)
   local lines, id = {}, 100
   for i = 0, n - 1 do
      local ids = { 1, 2 }
      if i % 4 > 0 then
         for k = 2, 2 + i % 3 do ids[k], id = id, id + 1 end
      end
      lines[#lines + 1] = line(i * (gap_ms or 200), #ids * 512 - 7, 5 + i % 40, ids)
   end
   return write(test.tmpdir() .. "/trace.jsonl", table.concat(lines))
end

-- What `mooncake sim` prints, its exit status, and standard error.
local function run(...)
   return proc.run { proc.exe(), "sim", stderr = "pipe", ... }
end

local function result(...)
   local text, status, err = run("--json", ...)
   test.eq(err, "")
   test.eq(status, 0)
   return assert(json.decode(text)), text
end

local function refused(status, pattern, ...)
   local text, got, err = run(...)
   test.eq(text, "")
   assert(err:find(pattern), ("%q does not match %q"):format(err, pattern))
   assert(not err:find "traceback", err)
   test.eq(got, status, "status")
end

-- How many requests of a --requests file there were at a time at most.
local function most_at_a_time(path)
   local events = {}
   for text in io.lines(path) do
      local q = assert(json.decode(text))
      events[#events + 1] = { q.arrived_s, 1 }
      events[#events + 1] = { q.done_s, -1 }
   end
   table.sort(events, function(a, b)
      if a[1] ~= b[1] then return a[1] < b[1] end
      return a[2] < b[2]
   end)
   local n, most = 0, 0
   for _, e in ipairs(events) do
      n = n + e[2]
      most = math.max(most, n)
   end
   test.eq(n, 0)
   return most
end

-- ---- columns and hot blocks ------------------------------------------------

function t.quantiles_are_those_of_the_sorted_list()
   local c, list, x = column.new(), {}, 12345
   for i = 1, 5000 do
      x = (x * 16807) % 2147483647
      list[i] = tonumber(ffi.cast("float", x / 1e6))
      c:add(list[i])
   end
   table.sort(list)
   for _, q in ipairs { 0, 0.1, 0.5, 0.9, 0.99, 0.9999, 1 } do
      test.eq(c:quantile(q), list[math.min(5000, math.floor(q * 5000) + 1)])
   end
   local s = c:summary()
   local sum = 0
   for _, v in ipairs(list) do sum = sum + v end
   test.near(s.mean, sum / 5000, s.mean * 1e-6)
   test.near(c:share(list[2500]), 0.5, 1e-3)
   test.eq({ c:share(-1), c:share(3000) }, { 0, 1 })
   c:add(0)
   test.eq(c:quantile(0), 0, "sorted again")
   test.eq(column.new():summary(), {})
end

function t.the_spread_is_the_standard_deviation()
   local c = column.new()
   for _, v in ipairs { 2, 4, 4, 4, 5, 5, 7, 9 } do c:add(v) end
   local s = c:summary()
   test.eq({ s.mean, s.std, s.min, s.max, s.p50 }, { 5, 2, 2, 9, 5 })
end

local function top(h, n)
   local list = {}
   for i, block in ipairs(h:top(n)) do list[i] = { tonumber(block.id), block.uses } end
   return list
end

local function small_sim()
   local out = ffi.new "struct mc_sim *[1]"
   local C = require "mooncake.ffi"
   local o = ffi.new "struct mc_sim_options"
   o.prefill, o.decode, o.cost = 1, 1, costs.options({}).cost
   assert(C.mc_sim_open(out, o) == 0)
   return ffi.gc(out[0], C.mc_sim_close)
end

function t.hot_blocks_are_counted()
   local s, h = small_sim(), hot.new()
   local ids = ffi.new("uint64_t[10]")
   for i = 1, 300 do
      for k = 0, 9 do ids[k] = k < 3 and k or 1000 * i + k end
      h:add(s, ids, i % 2 == 0 and 10 or 2)
   end
   test.eq(top(h, 3), { { 0, 300 }, { 1, 300 }, { 2, 150 } })
   test.eq(#h:top(10), 3, "used once is not hot")
end

-- Thinned, it still finds what is hot, and about how often it was used.
function t.a_long_trace_is_sampled()
   local s, h = small_sim(), hot.new(1000)
   local ids = ffi.new("uint64_t[4]")
   for i = 1, 20000 do
      ids[0], ids[1], ids[2], ids[3] = 7, 8 + i % 2, 1e6 + i, 2e6 + i
      h:add(s, ids, 4)
   end
   assert(h.stride > 1 and h.counted < 1000, "it has been thinned")
   local list = h:top(1)
   test.eq(tonumber(list[1].id), 7)
   test.near(list[1].uses, 20000, 2000)
end

-- ---- loads -----------------------------------------------------------------

local function arrivals(l)
   local list = {}
   for i = 1, 100 do
      local req, why = l:next()
      assert(not why, why)
      if not req then break end
      list[i] = tonumber(req.at_ns) / 1e9
   end
   return list
end

function t.a_load_is_timed_from_its_first_request()
   local path = write(test.tmpdir() .. "/x.jsonl", line(5000, 10, 1, { 1 }) ..
      line(6000, 10, 1, { 1 }) .. line(9000, 10, 1, { 1 }))
   test.eq(arrivals(assert(load.open { trace = path })), { 0, 1, 4 })
   test.eq(arrivals(assert(load.open { trace = path, speed = 2 })), { 0, 0.5, 2 })
   test.eq(arrivals(assert(load.open { trace = path, start = 1 })), { 0, 3 })
   test.eq(arrivals(assert(load.open { trace = path, limit = 2 })), { 0, 1 })
   -- The pause between two plays is the mean gap.
   test.eq(arrivals(assert(load.open { trace = path, repeats = 2 })),
           { 0, 1, 4, 6, 7, 10 })
   local l, why = load.open { trace = path, start = 60 }
   test.eq(l, nil)
   assert(why:find "no request in it from there on", why)
end

function t.a_closed_loop_waits_for_an_end()
   local l = assert(load.open { trace = trace(10), concurrency = 3 })
   for _ = 1, 3 do test.eq(tonumber(l:next().at_ns), 0) end
   test.eq(l:next(), nil)
   l:done(ffi.new("struct mc_sim_record", { id = 1 }))
   assert(l:next())
   test.eq(l:next(), nil)
end

-- ---- sessions --------------------------------------------------------------

local random = require "mooncake.tracegen_random"
local sessions = require "mooncake.sim_sessions"

local function talk(seed, order)
   local s = sessions.new({ turns = 1e9, think = 10, message = random.lengths "300:exp",
                            output = random.lengths "200:exp", context = 1e6 }, seed)
   local ids = ffi.new("uint64_t[2]", 11, 12)
   local req = ffi.new("struct mc_trace_req", { input_tokens = 700, output_tokens = 90,
      block_tokens = 512, n_blocks = 2, blocks = ids })
   for id = 0, 1 do s:begin(id, req) end
   local turns = { {}, {} }
   local at = { 0, 1 }
   local given = 2
   for _, who in ipairs(order) do
      local r = s:follow(ffi.new("struct mc_sim_record", { id = at[who], done_s = 100 }),
                         given)
      at[who], given = given, given + 1
      local list = {}
      for i = 0, r.n_blocks - 1 do list[i + 1] = r.blocks[i] + 0ULL end
      table.insert(turns[who], { at_s = tonumber(r.at_ns) / 1e9, ids = list,
                                 input = r.input_tokens, output = r.output_tokens })
   end
   return turns
end

function t.a_turn_has_all_that_was_said_and_more()
   local turns = talk(1, { 1, 1, 1, 1, 1, 1 })[1]
   local before = { input = 700, output = 90, ids = { 11ULL, 12ULL } }
   for _, now in ipairs(turns) do
      assert(now.at_s > 100, "it comes after a pause")
      assert(now.input > before.input + before.output, "it has the answer and a message")
      test.eq(#now.ids, math.ceil(now.input / 512))
      local whole = math.floor(before.input / 512)
      for i = 1, whole do test.eq(now.ids[i], before.ids[i]) end
      for i = whole + 1, #before.ids do
         assert(now.ids[i] ~= before.ids[i], "a block that was partial is another now")
      end
      before = now
   end
end

-- The order in which answers come is the cluster's, what is said is not.
function t.conversations_are_the_same_in_any_order()
   local a, b = talk(1, { 1, 1, 1, 2, 2, 2 }), talk(1, { 2, 1, 2, 1, 2, 1 })
   local c = talk(2, { 1, 1, 1, 2, 2, 2 })
   for who = 1, 2 do
      for i = 1, 3 do
         local x, y, z = a[who][i], b[who][i], c[who][i]
         test.eq({ x.at_s, x.input, x.output }, { y.at_s, y.input, y.output })
         assert(x.at_s ~= z.at_s, "another seed says something else")
      end
   end
   assert(a[1][1].at_s ~= a[2][1].at_s, "and so does another session")
end

-- New sessions begin at their time, however long others pause.
function t.sessions_do_not_wait_for_each_other()
   local dir = test.tmpdir()
   result("--synthetic=rate=10,input=600,output=5,requests=100,turns=2,think=1000",
          "--cluster=2P+2D", "--requests", dir .. "/q")
   local first = {}
   for text in io.lines(dir .. "/q") do
      local q = json.decode(text)
      if q.input_tokens == 600 then first[#first + 1] = q.arrived_s end
   end
   test.eq(#first, 100)
   table.sort(first)
   assert(first[100] < 20, "ten a second: the last one came at " .. first[100])
end

function t.sessions_go_on_while_they_are_answered()
   local words = "--synthetic=rate=5,input=1000:1,output=50,requests=100,turns=3,think=1"
   local r = result(words, "--cluster=2P+2D")
   assert(r.requests > 200 and r.requests < 420, "about three turns: " .. r.requests)
   assert(r.hit_rate > 0.2, "a turn finds the one before: " .. r.hit_rate)
   test.eq(result(words, "--cluster=2P+2D", "--limit=150").requests, 150)
   local dir = test.tmpdir()
   -- So many users, one after the other each: no more requests than that at a time.
   result(words, "--cluster=2P+2D", "--concurrency=3", "--requests", dir .. "/q")
   test.eq(most_at_a_time(dir .. "/q"), 3)
end

-- ---- results ---------------------------------------------------------------

local KEYS = { "requests", "completed", "rejected_arrival", "rejected_after_prefill",
   "ttft_s", "tbt_s", "itl_s", "e2e_s", "goodput_ratio", "goodput_per_s", "hit_rate",
   "hit_rate_local", "hit_rate_remote", "prefill_gpu_s_per_request", "wall_s", "span_s",
   "throughput", "prefill_gpu_s", "decode_gpu_s", "links", "hot_blocks", "preemptions",
   "options", "seed", "instances", "stages_s", "slo_met" }

function t.the_result_has_the_promised_members()
   local r = result(trace(100), "--cluster", "2P+2D", "--slo", "ttft=30,tbt=0.1,e2e=60")
   for _, key in ipairs(KEYS) do assert(r[key] ~= nil, key .. " is not there") end
   for _, key in ipairs { "ttft_s", "tbt_s", "itl_s", "e2e_s", "queue_s" } do
      for k in ("mean min max std p50 p75 p90 p95 p99"):gmatch "%S+" do
         assert(type(r[key][k]) == "number", key .. "." .. k)
      end
      assert(r[key].min <= r[key].p50 and r[key].p50 <= r[key].p99 and
             r[key].p99 <= r[key].max, key)
   end
   test.eq({ r.requests, r.completed, r.rejected_arrival, r.rejected_after_prefill,
             r.unfinished, r.goodput_ratio }, { 100, 100, 0, 0, 0, 1 })
   test.eq(r.slo_met, { ttft = 1, tbt = 1, e2e = 1 })
   test.eq(#r.instances, 4)
   test.eq(r.options.cluster, "2P+2D")
   test.eq(r.interrupted, nil)
end

-- Each request's stages add up to its time, and its figures to those of the result.
function t.requests_add_up_to_the_result()
   local dir = test.tmpdir()
   local path = trace(200, 50)
   local bound = result(path, "--cluster=2P+2D").ttft_s.p75
   local r = result(path, "--cluster=2P+2D", "--requests", dir .. "/q",
                    "--slo=ttft=" .. bound)
   local n, ttft, hit, good, sum = 0, 0, 0, 0, { prefills = 0, gpu = 0 }
   for text in io.lines(dir .. "/q") do
      local q = assert(json.decode(text))
      n = n + 1
      assert(q.arrived_s <= q.ready_s and q.ready_s <= q.started_s and
             q.started_s < q.first_s and q.first_s <= q.done_s, text)
      test.eq(q.outcome, "completed")
      ttft = ttft + q.first_s - q.arrived_s
      good = good + (q.first_s - q.arrived_s <= bound and 1 or 0)
      hit = hit + math.ceil((q.local_tokens + q.remote_tokens) / 512)
      sum.gpu = sum.gpu + q.prefill_gpu_s
   end
   test.eq(n, 200)
   test.near(r.ttft_s.mean, ttft / n, 1e-6)
   test.near(r.goodput_ratio, good / n, 1e-6)
   assert(good > 0 and good < n, "a bound that some keep")
   test.near(r.hit_rate, hit / r.blocks, 1e-6)
   test.near(r.hit_rate, r.hit_rate_local + r.hit_rate_remote, 1e-6)
   assert(r.hit_rate_local > 0, "the shared blocks are found")
   test.near(r.prefill_gpu_s_per_request, sum.gpu / n, 1e-6)
   for _, i in ipairs(r.instances) do sum.prefills = sum.prefills + i.prefills end
   test.eq(sum.prefills, n)
   local stages = 0
   for _, s in pairs(r.stages_s) do stages = stages + s end
   test.near(stages, r.e2e_s.mean, 1e-5)
end

local function but_wall(text)
   return (text:gsub('"wall_s":[%d.e-]+', '"wall_s":0'))
end

function t.the_same_seed_gives_the_same_bytes()
   local path = trace(300, 20)
   for _, how in ipairs { { "--policy=random" }, { "--policy=kvcache_centric" },
                          { "--cluster=4M", "--coupled-mode=chunked" },
                          { "--concurrency=5", "--admission=predictive_rejection" } } do
      local argv = { path, "--cluster=3P+2D", "--seed=7", unpack(how) }
      local _, a = result(unpack(argv))
      local _, b = result(unpack(argv))
      test.eq(but_wall(a), but_wall(b))
      assert(#but_wall(a) < #a + 1 and a:find '"wall_s":', "wall_s is there")
   end
   local _, a = result(path, "--policy=random", "--seed=1", "--cluster=3P+2D")
   local _, b = result(path, "--policy=random", "--seed=2", "--cluster=3P+2D")
   assert(but_wall(a):gsub('"seed":%d', "") ~= but_wall(b):gsub('"seed":%d', ""),
          "another seed is another course")
end

function t.the_warm_up_is_not_counted()
   local path = trace(100, 100)
   local all = result(path, "--cluster=2P+2D")
   local r = result(path, "--cluster=2P+2D", "--warmup=5")
   test.eq(r.requests, 50)
   assert(r.blocks > 0 and r.blocks < all.blocks, "blocks of those after it")
   local none = result(path, "--cluster=2P+2D", "--warmup=1000")
   test.eq({ none.requests, none.blocks, none.hit_rate }, { 0, 0, 0 })
end

function t.requests_that_are_refused_are_counted()
   local path = trace(300, 10)
   local function counts(...)
      local r = result(path, "--cluster=1P+1D", "--slo=ttft=0.3,tbt=0.03", ...)
      test.eq(r.requests, r.completed + r.rejected_arrival + r.rejected_after_prefill)
      test.eq(r.requests, 300)
      return r.rejected_arrival, r.rejected_after_prefill, r
   end
   local early, late = counts "--admission=early_rejection"
   assert(early > 0 and late == 0, early .. " early, " .. late .. " late")
   local _, wasted = counts "--admission=baseline"
   assert(wasted > 0, "baseline refuses after the prefill, too")
end

function t.traces_without_blocks_share_nothing()
   local path = write(test.tmpdir() .. "/azure.csv",
      "TIMESTAMP,ContextTokens,GeneratedTokens\n" ..
      "2023-11-16 18:17:03.9799600,4808,10\n2023-11-16 18:17:04.0319569,3180,8\n")
   local r = result(path, "--cluster=1P+1D")
   test.eq({ r.requests, r.completed, r.blocks, r.hit_rate }, { 2, 2, 0, 0 })
   local text, status = run(path, "--cluster=1P+1D")
   test.eq(status, 0)
   assert(text:find "the trace has no blocks", text)
end

function t.policies_may_be_files()
   local dir = test.tmpdir()
   local path = write(dir .. "/mine.lua",
      "return function(request, cluster) return request.id % 2 == 0 and 1 or 0, 3 end")
   local r = result(trace(40), "--cluster=2P+2D", "--policy", path)
   local list = {}
   for i, inst in ipairs(r.instances) do list[i] = { inst.prefills, inst.decodes } end
   test.eq(list, { { 20, 0 }, { 20, 0 }, { 0, 0 }, { 0, 40 } })
   write(path, "return function() return 2, 3 end")
   local text, status, err = run(trace(4), "--cluster=2P+2D", "--policy", path)
   test.eq({ text, status }, { "", 1 })
   assert(err:find "mine.lua:1: prefill instance 2, want one of 0 to 1", err)
end

-- As few requests at any time as were asked for, and all of them in the end.
function t.a_closed_loop_keeps_its_number()
   local dir = test.tmpdir()
   local r = result(trace(60, 1), "--cluster=1P+1D", "--concurrency=4", "--requests",
                    dir .. "/q")
   test.eq(r.completed, 60)
   test.eq(most_at_a_time(dir .. "/q"), 4)
end

function t.samples_are_a_time_series()
   local dir = test.tmpdir()
   local r = result(trace(100, 100), "--cluster=1P+1D", "--sample=0.5", "--series",
                    dir .. "/s.csv")
   local text = read(dir .. "/s.csv")
   assert(text:find "^at_s,prefill_load,", text:sub(1, 80))
   local rows, last = 0, nil
   for row in text:gmatch "\n(%d[^\n]*)" do rows, last = rows + 1, row end
   assert(math.abs(rows - r.span_s / 0.5) <= 1, rows)
   assert(last:match "^[%d.]+,.*", last)
   result(trace(10), "--cluster=1P+1D", "--series", dir .. "/s.jsonl")
   for row in io.lines(dir .. "/s.jsonl") do
      assert(json.decode(row)).at_s = nil
   end
end

function t.a_run_that_is_interrupted_says_what_it_has()
   local p = test.spawn { "mooncake", "sim", trace(500, 50), "--repeat=100000",
                          "--cluster=2P+2D", "--json", stderr = "pipe" }
   proc.sleep_ms(1000)
   p:kill "INT"
   local text = assert(p.out:all(20000))
   test.eq(p:wait(5000), 130)
   local r = assert(json.decode(text))
   test.eq(r.interrupted, true)
   assert(r.completed > 100 and r.ttft_s.p50 > 0, text:sub(1, 200))
   test.eq(r.requests, r.completed + r.unfinished)
end

function t.a_sweep_that_is_interrupted_says_what_it_has()
   local p = test.spawn { "mooncake", "sim", trace(500, 50), "--sweep=repeat=1,99999,2",
                          "--cluster=2P+2D", "--json", "--jobs=1", stderr = "pipe" }
   proc.sleep_ms(1500)
   p:kill "INT"
   local text = assert(p.out:all(20000))
   test.eq(p:wait(5000), 130)
   local r = assert(json.decode(text))
   test.eq({ r.interrupted, #r.runs }, { true, 2 })
   test.eq({ r.runs[1].completed, r.runs[2].interrupted }, { 500, true })
end

-- ---- wrong use -------------------------------------------------------------

function t.wrong_options_are_refused()
   local path = trace(3)
   for _, c in ipairs { "0P+8D", "8P", "8D", "8P+0D", "4Px0+2D", "8M+1P", "", "x",
                        "2P+2P+1D", "2P+2Dx2", "99999999P+1D" } do
      refused(2, "cluster '", path, "--cluster=" .. c)
   end
   refused(2, "no policy 'nice'", path, "--policy=nice")
   refused(2, "it is no admission policy", path, "--admission=random")
   refused(2, "no option 'x'", path, "--policy=kvcache_centric:x=1")
   refused(2, "no bound 'ttfs'", path, "--slo=ttfs=1")
   refused(2, "takes seconds", path, "--slo=ttft=fast")
   refused(2, "%-%-speed", path, "--speed=0")
   refused(2, "%-%-dram takes tokens", path, "--dram=lots")
   refused(2, "%-%-coupled%-mode", path, "--coupled-mode=x")
   refused(2, "%-%-limit", path, "--limit=0")
   refused(2, "%-%-concurrency", path, "--concurrency=1.5")
   refused(2, "no model 'gpt'", path, "--model=gpt")
   refused(2, "unknown option '%-%-none'", path, "--none")
   refused(2, "TRACE or %-%-synthetic")
   refused(2, "unexpected argument", path, path)
   refused(2, "no option 'json' to sweep", path, "--sweep=json=1,2")
   refused(2, "NAME=VALUE", path, "--sweep=speed")
   refused(2, "%-%-diff takes two files", "--diff", path)
end

function t.bad_traces_end_with_their_place()
   local dir = test.tmpdir()
   refused(1, "cannot open trace", dir .. "/none")
   local path = write(dir .. "/empty", "")
   refused(1, "empty: there is no request in it", path)
   write(path, line(0, 10, 1, { 1 }) .. line(1, 10, 1, { 1 }):sub(1, 20) .. "\n")
   refused(1, "empty:2:", path)
   write(path, line(5, 10, 1, { 1 }) .. line(1, 10, 1, { 1 }))
   refused(1, "empty:2: it came 4.000 ms before", path)
   write(path, line(5, 10, 1, { 1 }) .. "rubbish\n")
   refused(1, "empty:2:", path, "--requests", dir .. "/q")
end

-- ---- sweeps and differences ------------------------------------------------

function t.a_sweep_is_its_runs()
   local path = trace(120, 30)
   local r = result(path, "--cluster=2P+2D", "--sweep=speed=1,3",
                    "--sweep=policy=random,kvcache_centric")
   test.eq(r.sweep, { { name = "speed", values = { "1", "3" } },
                      { name = "policy", values = { "random", "kvcache_centric" } } })
   test.eq(#r.runs, 4)
   for i, want in ipairs { { 1, "random" }, { 1, "kvcache_centric" }, { 3, "random" },
                           { 3, "kvcache_centric" } } do
      local _, alone = result(path, "--cluster=2P+2D", "--speed", want[1], "--policy",
                              want[2])
      test.eq(but_wall(json.encode(r.runs[i])), but_wall((alone:gsub("\n$", ""))))
   end
end

function t.flags_and_lists_can_be_swept()
   local path = trace(60, 30)
   local r = result(path, "--cluster=1P+1D", "--sweep=overlap=true,false",
                    "--sweep=slo=ttft=0.1,tbt=1;ttft=9", "--jobs=3")
   test.eq(#r.runs, 4)
   test.eq(r.runs[1].slo, { ttft = 0.1, tbt = 1 })
   test.eq(r.runs[4].options.overlap, false)
   assert(r.runs[1].ttft_s.mean < r.runs[3].ttft_s.mean, "overlap makes it faster")
end

function t.a_sweep_says_which_run_failed()
   refused(2, "cluster=0P%+1D: cluster '0P%+1D'", trace(3), "--sweep=cluster=1P+1D,0P+1D")
   refused(1, "policy=random: .*cannot open", "/nowhere/x", "--sweep=policy=random")
end

function t.differences_say_what_is_better()
   local dir, path = test.tmpdir(), trace(200, 20)
   local _, a = result(path, "--cluster=2P+2D", "--policy=random")
   local _, b = result(path, "--cluster=4P+2D", "--policy=random")
   write(dir .. "/a", a)
   write(dir .. "/b", b)
   local d = result("--diff", dir .. "/a", dir .. "/b")
   test.eq(d.options, { { option = "cluster", a = "2P+2D", b = "4P+2D" } })
   local by = {}
   for _, f in ipairs(d.figures) do by[f.figure] = f end
   local n = by.requests
   test.eq({ n.verdict, n.delta, n.ratio }, { "same", 0, 1 })
   test.eq(by["ttft_s.mean"].verdict, "better")
   test.near(by["ttft_s.mean"].delta, by["ttft_s.mean"].b - by["ttft_s.mean"].a, 1e-9)
   assert(by["ttft_s.mean"].ratio < 1)
   for _, f in ipairs(result("--diff", dir .. "/b", dir .. "/a").figures) do
      if f.figure == "ttft_s.mean" then test.eq(f.verdict, "worse") end
   end
   local text = run("--diff", dir .. "/a", dir .. "/b")
   assert(text:find "ttft_s.mean" and text:find "better", text)
   test.eq(run("--diff", dir .. "/a", dir .. "/a"), "all figures are the same\n")
   write(dir .. "/b", "[1]")
   refused(1, "not a result of", "--diff", dir .. "/a", dir .. "/b")
end

-- ---- reports ---------------------------------------------------------------

-- Well formed enough that each element that opens is closed, and nothing is fetched.
local function check_page(path)
   local html = read(path)
   assert(not html:find "https?://[^w]" and not html:find "<script", "self-contained")
   assert(not html:find "nan" and not html:find "inf[^eo]", "figures are numbers")
   for _, tag in ipairs { "section", "svg", "figure", "table", "tr" } do
      local _, open = html:gsub("<" .. tag .. "[ >]", "")
      local _, close = html:gsub("</" .. tag .. ">", "")
      test.eq(open, close, tag)
   end
   return html
end

function t.reports_are_pages()
   local dir, path = test.tmpdir(), trace(200, 30)
   result(path, "--cluster=2P+2D", "--slo=ttft=1,tbt=0.1", "--report", dir .. "/r.html")
   local html = check_page(dir .. "/r.html")
   for _, title in ipairs { "Time to first token", "Time between tokens", "Load of the",
                            "Hit rate", "refused", "All links", "Links by instance",
                            "Replicas of the hottest", "cluster = 2P%+2D" } do
      assert(html:find(title), title .. " is not there")
   end
   local speeds, policies = "--sweep=speed=1,2", "--sweep=policy=random,round_robin"
   for _, words in ipairs { { speeds }, { policies }, { speeds, policies } } do
      result(path, "--cluster=1P+1D", "--report", dir .. "/s.html", unpack(words))
      assert(check_page(dir .. "/s.html"):find "Goodput")
   end
   -- Little to draw, and much.
   for _, cluster in ipairs { "3M", "50P+50D" } do
      result(path, "--cluster", cluster, "--report", dir .. "/m.html", "--limit=1")
      check_page(dir .. "/m.html")
   end
end

-- ---- as a library ----------------------------------------------------------

function t.sim_run_is_the_loop_alone()
   local seen = 0
   local r, detail = assert(sim.run {
      load = assert(load.open { trace = trace(50) }),
      cluster = assert(sim.cluster "2P+1D"), policy = assert(policy.load "round_robin"),
      options = costs.options {},
      on_record = function(record)
         seen = seen + 1
         test.eq(record.decode, 2)
      end,
   })
   test.eq({ r.completed, seen }, { 50, 50 })
   test.eq({ r.instances[1].prefills, r.instances[2].prefills }, { 25, 25 })
   test.near(detail.figures.ttft_s:quantile(0.5), r.ttft_s.p50, 1e-6)
   test.raises("no option 'loads'", sim.run, { loads = 1 })
end

return t
