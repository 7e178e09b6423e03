-- policy_test.lua - what policies decide on clusters made by hand, where it can be said
-- what is right; how they are loaded, combined, and told that they are wrong.
--
-- Costs are simple: a prefill takes 1 ms per token, an iteration 10 ms, 1 ms more per
-- sequence and 1 us per token of context; a token of KV cache is one byte.

local ffi = require "ffi"
local costs = require "mooncake.costs"
local load = require "mooncake.load"
local policy = require "mooncake.policy"
local sim = require "mooncake.sim"
local util = require "mooncake.util"

local COST = { prefill_token_s = 1e-3, decode_s = 0.01, decode_seq_s = 1e-3,
               decode_token_s = 1e-6, kv_bytes_token = 1 }
local FAST = 1e6           -- bytes per second: a thousand tokens in 1 ms

local keep = setmetatable({}, { __mode = "k" })

-- A cluster from tables of facts, one per instance for prefill and for decode (without
-- those: coupled), and more fields of struct mc_cluster.
local function cluster(prefill, decode, more, host)
   local n, c = #prefill + #(decode or {}), ffi.new "struct mc_cluster"
   local inst = ffi.new("struct mc_instance[?]", n)
   for i = 0, n - 1 do
      local facts = prefill[i + 1] or decode[i + 1 - #prefill]
      inst[i].out_Bps, inst[i].in_Bps = FAST, FAST
      for k, v in pairs(facts) do inst[i][k] = v end
      if i < #prefill and inst[i].prefix_tokens > c.best_tokens then
         c.best, c.best_tokens = i, inst[i].prefix_tokens
      end
   end
   c.n, c.prefill_n, c.instances, c.cost = n, #prefill, inst, COST
   c.decode_first = decode and #prefill or 0
   for k, v in pairs(more or {}) do c[k] = v end
   local view = policy.cluster(c, host or {})
   keep[view] = { c, inst }
   return view
end

local function request(tokens, id)
   return ffi.new("struct mc_prompt", { input_tokens = tokens or 4000, id = id or 0 })
end

local function place(name, view, req)
   return assert(policy.load(name)):place(req or request(), view)
end

local function file(text)
   local path = test.tmpdir() .. "/my.lua"
   assert(util.write_file(path, text))
   return path
end

local IDLE = {}
local t = {}

-- ---- placement -------------------------------------------------------------

function t.random_is_as_the_host_throws()
   local thrown = { 0, 0.24, 0.74, 0.9999 }
   local view = cluster({ IDLE, IDLE, IDLE, IDLE }, { IDLE }, nil, {
      random = function() return table.remove(thrown, 1) end,
   })
   for _, want in ipairs { 0, 0, 2, 3 } do
      test.eq({ place("random", view) }, { want, 4, want })
   end
end

function t.round_robin_takes_turns_of_its_own()
   local view = cluster({ { queue_s = 9 }, IDLE, IDLE }, { IDLE })
   local a, b = assert(policy.load "round_robin"), assert(policy.load "round_robin")
   for _, want in ipairs { 0, 1, 2, 0 } do test.eq((a:place(request(), view)), want) end
   test.eq((b:place(request(), view)), 0)
end

function t.least_loaded_ignores_the_cache()
   local cached = { queue_s = 3, prefix_tokens = 4000 }
   local view = cluster({ cached, { queue_s = 2 } }, { IDLE })
   test.eq({ place("least_loaded", view) }, { 1, 2, 1 })
end

-- Always the first would fill one cache and leave the others empty.
function t.equals_are_taken_in_turn()
   local view = cluster({ IDLE, IDLE, { queue_s = 1 } }, { IDLE, IDLE })
   for _, name in ipairs { "least_loaded", "local_cache", "kvcache_centric" } do
      local got = {}
      for id = 0, 5 do got[id + 1] = (place(name, view, request(100, id))) end
      test.eq(got, { 0, 1, 0, 0, 1, 0 }, name)
   end
   local got = {}
   for id = 0, 3 do got[id + 1] = view:least_decode(request(1, id)) end
   test.eq(got, { 3, 4, 3, 4 })
end

function t.wherever_it_begins_the_least_is_found()
   for at = 0, 4 do
      local list = {}
      for i = 0, 4 do
         list[i + 1] = { queue_s = i == at and 1 or 2, running = i == at and 0 or 1 }
      end
      local view = cluster(list, list)
      for id = 0, 6 do
         test.eq({ place("least_loaded", view, request(1, id)) }, { at, 5 + at, at })
      end
   end
end

-- 4000 tokens: 1 s with the prefix of 3000 there and a queue of 2.5 s, 4 s elsewhere.
function t.local_cache_waits_as_long_as_it_is_worth()
   local view = cluster({ IDLE, { prefix_tokens = 3000, queue_s = 2.5 } }, { IDLE })
   test.eq({ place("local_cache", view) }, { 1, 2, 1 })
   view = cluster({ IDLE, { prefix_tokens = 3000, queue_s = 3.5 } }, { IDLE })
   test.eq({ place("local_cache", view) }, { 0, 2, 0 })
end

-- Fetched in 3 ms, 1 s to compute: better than 3.5 s of queue and than 4 s alone. That
-- the one has nothing of the prefix is no division by zero.
function t.kvcache_centric_fetches_what_is_far_longer()
   local view = cluster({ IDLE, { prefix_tokens = 3000, queue_s = 3.5 } }, { IDLE })
   test.eq({ place("kvcache_centric", view) }, { 0, 2, 1 })
   test.near(view:ttft_s(request(), 0, 1), 1.003)
end

function t.kvcache_centric_stays_where_the_prefix_is()
   local view = cluster({ IDLE, { prefix_tokens = 3000 } }, { IDLE })
   test.eq({ place("kvcache_centric", view) }, { 1, 2, 1 })
end

-- 3000 bytes at 750 per second are 4 s, to compute them 3 s; busy is the sender or the
-- receiver.
function t.kvcache_centric_computes_what_is_fetched_more_slowly()
   local prefix = { prefix_tokens = 3000, queue_s = 9, out_Bps = 750 }
   test.eq({ place("kvcache_centric", cluster({ IDLE, prefix }, { IDLE })) }, { 0, 2, 0 })
   prefix.out_Bps = FAST
   test.eq({ place("kvcache_centric", cluster({ { in_Bps = 750 }, prefix }, { IDLE })) },
           { 0, 2, 0 })
end

-- 3000 is 1.5 times 2000.
function t.kvcache_centric_has_a_threshold()
   local view = cluster({ { prefix_tokens = 2000 },
                          { prefix_tokens = 3000, queue_s = 9 } }, { IDLE })
   test.eq({ place("kvcache_centric", view) }, { 0, 2, 0 })
   test.eq({ place("kvcache_centric:threshold=1.5", view) }, { 0, 2, 0 })
   test.eq({ place("kvcache_centric:threshold=1.4", view) }, { 0, 2, 1 })
end

function t.kvcache_centric_without_any_prefix_is_the_least_ttft()
   local view = cluster({ { queue_s = 2 }, { queue_s = 1 } }, { IDLE })
   test.eq({ place("kvcache_centric", view) }, { 1, 2, 1 })
end

local function random_clusters(seed, n)
   local x = seed
   local function random(below)
      x = (x * 1103515245 + 12345) % 2 ^ 31
      return math.floor(x / 2 ^ 31 * below)
   end
   return function()
      n = n - 1
      if n < 0 then return nil end
      local list = {}
      for i = 1, 1 + random(9) do
         list[i] = { prefix_tokens = random(2) * random(9) * 500,
                     queue_s = random(80) / 10,
                     out_Bps = 10 ^ random(7), in_Bps = 10 ^ random(7) }
      end
      return cluster(list, { IDLE }), list
   end
end

-- Algorithm 1 as it stands in the paper, over a few hundred clusters.
function t.kvcache_centric_is_algorithm_1()
   local fetched = 0
   for view, list in random_clusters(7, 500) do
      local best_len, best = view.best_tokens, view.best
      local least, ways = math.huge, {}
      for i, inst in ipairs(list) do
         local own = inst.prefix_tokens
         local ttft = inst.queue_s + (4000 - own) * 1e-3
         ways[i] = { ttft, i - 1 }
         if best_len > 0 and (own == 0 or best_len / own > 2) then
            local rate = math.min(list[best + 1].out_Bps, inst.in_Bps)
            local fetched_s, rest_s = (best_len - own) / rate, (4000 - best_len) * 1e-3
            local remote = fetched_s + inst.queue_s + rest_s
            if remote < ttft then ways[i] = { remote, best } end
         end
         least = math.min(least, ways[i][1])
      end
      local p, _, source = place("kvcache_centric", view)
      test.near(ways[p + 1][1], least, 1e-9)
      test.eq(source, ways[p + 1][2])
      if source ~= p then fetched = fetched + 1 end
   end
   assert(fetched > 50, fetched)
end

function t.coupled_instances_decode_what_they_prefill()
   for _, name in ipairs(policy.names()) do
      local view = cluster({ { queue_s = 5 }, IDLE, { queue_s = 5 } }, nil, nil,
                           { random = function() return 0.5 end })
      local p, d, source = place(name, view, request(100, 2))
      test.eq(d, p, name)
      test.eq(source, p, name)
   end
end

-- ---- decode ----------------------------------------------------------------

function t.decode_goes_where_an_iteration_is_shortest()
   local few = { running = 2, context_tokens = 60000 }       -- 10 + 3 + 64 ms
   local many = { running = 20, context_tokens = 20000 }     -- 10 + 21 + 24 ms
   local view = cluster({ IDLE }, { few, many })
   test.eq(view:least_decode(request()), 2)
end

function t.decode_counts_those_that_are_to_come()
   local view = cluster({ IDLE }, { { coming = 5 },                      -- 10 + 6 ms
                                    { running = 1, context_tokens = 1000 } }) -- 13 ms
   test.eq(view:least_decode(request()), 2)
end

-- A full one makes sequences wait, however fast it is otherwise.
function t.decode_goes_where_there_is_room()
   local full = { running = 1, context_tokens = 9000, vram_tokens = 10000 }
   local slow = { running = 5, context_tokens = 9500, vram_tokens = 20000 }
   test.eq(cluster({ IDLE }, { full, slow }):least_decode(request()), 2)
   full.vram_tokens = 0
   test.eq(cluster({ IDLE }, { full, slow }):least_decode(request()), 1)
end

-- ---- admission -------------------------------------------------------------

local function admitted(name, view, req)
   local p = policy.compose(assert(policy.load "local_cache"),
                            assert(policy.admission(name)))
   local prefill, why = p:place(req or request(), view)
   return prefill ~= nil, not prefill and why or nil
end

-- 4000 tokens are 4 s; 10 + 4 + 5 ms with three others of 333 tokens there.
local function promised(ttft_slo_s, tbt_slo_s, host)
   local decode = { running = 3, running_tokens = 1000, context_tokens = 90000,
                    coming = 40 }
   return cluster({ IDLE }, { decode }, { now_s = 100, ttft_slo_s = ttft_slo_s,
                                          tbt_slo_s = tbt_slo_s }, host)
end

local FULL = { forecast = function() return 1000, 1e6 end }

function t.nothing_is_promised_and_all_is_admitted()
   for _, name in ipairs(policy.names(true)) do
      test.eq({ admitted(name, promised(0, 0, FULL)) }, { true }, name)
   end
end

function t.a_late_first_token_is_refused_at_arrival()
   for _, name in ipairs { "baseline", "early_rejection", "predictive_rejection" } do
      test.eq({ admitted(name, promised(3.9, 0)) }, { false, "TTFT over its SLO" }, name)
      test.eq({ admitted(name, promised(4.1, 0)) }, { true }, name)
   end
   test.eq({ admitted("none", promised(3.9, 1e-9)) }, { true })
end

-- 1 s to fetch and 1 s to compute, not 4 s.
function t.what_is_fetched_counts_at_arrival()
   local asked
   local view = cluster({ IDLE, { prefix_tokens = 3000, queue_s = 9, out_Bps = 3000 } },
                        { IDLE }, { ttft_slo_s = 2.1, tbt_slo_s = 1 },
                        { forecast = function(at_s)
                           asked = at_s
                           return 0, 0
                        end })
   for _, name in ipairs(policy.names(true)) do
      local p = policy.compose(assert(policy.load "kvcache_centric"),
                               assert(policy.admission(name)))
      test.eq({ p:place(request(), view) }, { 0, 2, 1 }, name)
   end
   test.near(asked, 2)
end

function t.baseline_asks_decode_after_the_prefill()
   local p = assert(policy.admission "baseline")
   test.eq(p.asks_decode, true)
   test.eq({ admitted("baseline", promised(5, 0.018)) }, { true })
   test.eq({ p:admit_decode(request(), promised(5, 0.018), 1) },
           { false, "TBT over its SLO" })
   test.eq({ p:admit_decode(request(), promised(5, 0.0191), 1) }, { true })
end

-- A load is a part of what was promised: 4 s of 5, 19 ms of 24.
function t.load_may_be_bounded_below_what_is_promised()
   for name, host in pairs { baseline = {}, early_rejection = {}, predictive_rejection = {
         forecast = function() return 3, 1000 end } } do
      local view = promised(5, 0.024, host)
      test.eq({ admitted(name .. ":load=0.81", view) }, { true }, name)
      local ok, why = admitted(name .. ":load=0.79", promised(5, 0, host))
      test.eq(ok, false, name)
      test.eq(why, "TTFT over its SLO", name)
      local p = assert(policy.admission(name .. ":load=0.78"))
      if p.asks_decode then
         ok = p:admit_decode(request(), view, 1)
      else
         ok = admitted(name .. ":load=0.78", promised(0, 0.024, host))
      end
      test.eq(ok, false, name)
   end
end

-- Who has to wait until there is room gets its next token late, however fast the others
-- get theirs.
function t.what_does_not_fit_is_over_any_slo()
   local full = { running = 1, running_tokens = 7000, context_tokens = 7000,
                  vram_tokens = 10000 }
   local view = cluster({ IDLE }, { full }, { tbt_slo_s = 100 },
                        { forecast = function() return 1, 7000 end })
   test.eq(view:tbt_s(request(), 1), math.huge)
   test.eq((admitted("early_rejection", view)), false)
   test.eq((admitted("predictive_rejection", view)), false)
   test.eq((assert(policy.admission "baseline"):admit_decode(request(), view, 1)), false)
   test.near(view:tbt_s(request(3000), 1), 0.01 + 0.002 + 0.01)
   for _, name in ipairs(policy.names(true)) do
      test.eq({ admitted(name, view, request(3000)) }, { true }, name)
   end
end

-- The load of decode as it is: those that are coming do not count, which is its flaw.
function t.early_rejection_looks_at_decode_now()
   test.eq({ admitted("early_rejection", promised(5, 0.018)) },
           { false, "TBT over its SLO" })
   test.eq({ admitted("early_rejection", promised(5, 0.0191)) }, { true })
   test.eq(assert(policy.admission "early_rejection").asks_decode, false)
end

-- It goes by the pool: six sequences and 2000 tokens on two instances are, for each, the
-- three and 1000 of promised(), wherever they are.
function t.early_rejection_takes_decode_as_one_pool()
   local busy = { running = 6, running_tokens = 2000, context_tokens = 2000 }
   for slo, want in pairs { [0.018] = false, [0.0191] = true } do
      local view = cluster({ IDLE }, { busy, IDLE }, { ttft_slo_s = 5, tbt_slo_s = slo })
      test.eq((admitted("early_rejection", view)), want)
   end
end

-- The prefill ends at 104 s. Two instances share what is expected then: 20 sequences and
-- 40000 tokens are 10 + 11 + 24 ms with this one; now it would be more, or nothing.
function t.predictive_rejection_looks_at_decode_then()
   local asked
   local host = { forecast = function(at_s)
      asked = at_s
      return 20, 40000
   end }
   local busy = { running = 100, running_tokens = 9e5, context_tokens = 9e5 }
   for slo, want in pairs { [0.044] = false, [0.046] = true } do
      for _, now in ipairs { busy, IDLE } do
         local view = cluster({ IDLE }, { now, now }, { now_s = 100, ttft_slo_s = 5,
                                                        tbt_slo_s = slo }, host)
         local ok, why = admitted("predictive_rejection", view)
         test.eq(ok, want)
         test.eq(why, not want and "TBT expected over its SLO" or nil)
         test.near(asked, 104)
      end
   end
end

function t.policies_are_put_together()
   local mine = assert(policy.load(file [[
      return {
         place = function() return 0, 1 end,
         admit = function(request) return request.input_tokens < 5000, "too long" end,
      }]]))
   local p = policy.compose(mine, assert(policy.admission "baseline"))
   test.eq({ p:place(request(), promised(5, 0)) }, { 0, 1, 0 })
   test.eq({ p:place(request(6000), promised(9, 0)) }, { nil, "too long" })
   test.eq({ p:place(request(4900), promised(4, 0)) }, { nil, "TTFT over its SLO" })
   test.eq({ p:place(request(6000), promised(4, 0)) }, { nil, "too long" })
   test.eq({ p:admit_decode(request(), promised(5, 0.018), 1) },
           { false, "TBT over its SLO" })
   test.eq(p.asks_decode, true)
   test.eq(p.name, mine.name .. " + baseline")
   test.eq({ mine:place(request(4900), promised(4, 0)) }, { 0, 1, 0 })
   test.eq(mine.asks_decode, false)
end

-- ---- files -----------------------------------------------------------------

function t.a_file_may_be_a_function()
   local p = assert(policy.load(file "return function() return 1, 2, 0 end"))
   test.eq({ p:place(request(), cluster({ IDLE, IDLE }, { IDLE })) }, { 1, 2, 0 })
end

function t.options_come_with_each_call()
   local text = [[
      return {
         options = { n = { 1, "number" }, on = { false, "flag" }, s = { "x", "text" } },
         place = function(_, _, o) return 0, 1, o.n end,
         admit = function(_, _, _, _, _, o) return o.on, o.s end,
         admit_decode = function(_, _, _, o) return o.on, o.s end,
      }]]
   local path = file(text)
   local view = cluster({ IDLE, IDLE, IDLE }, { IDLE }, { decode_first = 1 })
   local p = assert(policy.load(path .. ":n=2,on=true"))
   test.eq({ p:place(request(), view) }, { 0, 1, 2 })
   test.eq({ p:admit_decode(request(), view, 1) }, { true })
   p = assert(policy.load(path, { s = "why" }))
   test.eq({ p:place(request(), view) }, { nil, "why" })
   test.eq({ p:admit_decode(request(), view, 1) }, { false, "why" })
end

function t.what_cannot_be_loaded_says_why()
   local function why(spec) return select(2, policy.load(spec)) end
   local path = file "return {\n   place = function() return 0 end\n   options = {},\n}"
   assert(why(path):find(path .. ":3: '}' expected", 1, true), why(path))
   path = file "local t = nil\nreturn t.x"
   assert(why(path):find(path .. ":2: attempt to index", 1, true), why(path))
   path = file "return { plaice = function() end }"
   test.eq(why(path), path .. ": unknown field 'plaice'")
   path = file "return { place = 1 }"
   test.eq(why(path), path .. ": place is a number, want a function")
   path = file "local a = 1"
   test.eq(why(path), path .. ": returns nil, want a table or a function")
   path = file "return { admit = function() return true end }"
   test.eq(why(path), path .. ": no place(): it only admits what another places")
   test.eq(select(2, policy.admission "random"),
           "random: has a place(): it is no admission policy")
   assert(why("nonesuch"):find "^no policy 'nonesuch'; shipped are kvcache_centric, ")
   assert(why("/nowhere/p.lua"):find("/nowhere/p.lua", 1, true))
   test.eq(why("kvcache_centric:limit=3"),
           "kvcache_centric: no option 'limit'; it has threshold")
   test.eq(why("random:x=1"), "random: no option 'x'; it has none")
   test.eq(why("kvcache_centric:threshold=much"),
           "kvcache_centric: option threshold: 'much' is no number")
end

-- Each wrong answer and what is said of it, after the file and line of the function.
function t.a_wrong_answer_says_what_is_right()
   local view = cluster({ IDLE, IDLE }, { IDLE, IDLE })
   for answer, want in pairs {
      ["2, 2"] = "prefill instance 2, want one of 0 to 1",
      ["-1, 2"] = "prefill instance %-1, want one of 0 to 1",
      ["0.5, 2"] = "prefill instance 0.5, want one of 0 to 1",
      ["0/0, 2"] = "prefill instance %-?nan, want one of 0 to 1",
      ["'0', 2"] = "prefill instance 0, want one of 0 to 1",
      ["0"] = "decode instance nil, want one of 2 to 3",
      ["0, 1"] = "decode instance 1, want one of 2 to 3",
      ["0, 4"] = "decode instance 4, want one of 2 to 3",
      ["0, 2, 2"] = "source instance 2, want one of 0 to 1",
      ["0, 2, {}"] = "source instance table: %w+, want one of 0 to 1",
   } do
      local path = file("\nreturn function() return " .. answer .. " end")
      local p = assert(policy.load(path))
      local said = test.raises(want .. "$", p.place, p, request(), view)
      assert(said:find("my.lua:2: ", 1, true), said)
   end
   local p = assert(policy.load(file [[
      return { place = function() return 0, 2 end, admit = function() end,
               admit_decode = function() return 1 end }]]))
   test.raises("my.lua:1: answer nil, want true or false", p.place, p, request(), view)
   test.raises("my.lua:2: answer 1, want true or false", p.admit_decode, p, request(),
               view, 2)
end

function t.refusing_needs_no_reason()
   local view = cluster({ IDLE }, { IDLE })
   for answer, want in pairs { ["nil"] = "refused", ["nil, 'full'"] = "full",
                               ["false"] = "refused" } do
      local p = assert(policy.load(file("return function() return " .. answer .. " end")))
      test.eq({ p:place(request(), view) }, { nil, want })
   end
end

-- ---- the cluster -----------------------------------------------------------

function t.the_cluster_is_read_only_and_knows_its_names()
   local view = cluster({ { queue_s = 3 } }, { IDLE }, { now_s = 7 })
   test.eq(view.now_s, 7)
   test.eq(view.instances[0].queue_s, 3)
   test.raises("cluster.now_s: a policy reads", function() view.now_s = 8 end)
   test.raises("constant", function() view.instances[0].queue_s = 1 end)
   test.raises("no member named 'queues'", function() return view.queues end)
end

function t.estimates_are_sums_of_their_parts()
   local view = cluster({ { queue_s = 0.5, prefix_tokens = 1000 },
                          { prefix_tokens = 3000, out_Bps = 1000 } },
                        { { running = 3, running_tokens = 1000 } })
   test.near(view:prefill_s(500, 100), 0.5)
   test.near(view:decode_s(2, 1000), 0.013)
   test.near(view:transfer_s(2000, 1, 0), 2)
   test.eq(view:transfer_s(2000, 1, 1), 0)
   test.near(view:ttft_s(request(), 0, 0), 0.5 + 3)
   test.near(view:ttft_s(request(), 0, 1), 0.5 + 2 + 1)
   test.near(view:ttft_s(request(), 1, 0), 1)            -- less: nothing to fetch
   test.near(view:tbt_s(request(), 2), 0.01 + 0.004 + 0.005)
end

-- What is made for each request and instance would be collected in the middle of one.
function t.decisions_make_no_garbage()
   local many = {}
   for i = 1, 200 do
      many[i] = { queue_s = i * 7 % 50, prefix_tokens = i % 3 * 1000, running = i % 40,
                  running_tokens = i % 40 * 900, context_tokens = i % 40 * 1000 }
   end
   local view = cluster(many, many, { ttft_slo_s = 30, tbt_slo_s = 1 },
                        { random = math.random })
   local req = request()
   for _, name in ipairs(policy.names()) do
      local p = policy.compose(assert(policy.load(name)),
                               assert(policy.admission "early_rejection"))
      local function decide(n)
         for i = 1, n do
            req.id = i
            p:place(req, view)
         end
      end
      decide(500)
      collectgarbage()
      collectgarbage "stop"
      local before = collectgarbage "count"
      decide(1000)
      local bytes = (collectgarbage "count" - before) * 1024 / 1000
      collectgarbage "restart"
      assert(bytes < 100, ("%s: %d bytes a decision"):format(name, bytes))
   end
end

-- Through the simulator, each with each: it checks what they return, and its own books.
function t.all_carry_a_trace_to_its_end()
   for _, text in ipairs { "3P+2D", "4M" } do
      for _, place_name in ipairs(policy.names()) do
         for _, admit_name in ipairs(policy.names(true)) do
            local result = assert(sim.run {
               load = assert(load.open { trace = "traces/small.jsonl", limit = 200 }),
               cluster = assert(sim.cluster(text)),
               policy = policy.compose(assert(policy.load(place_name)),
                                       assert(policy.admission(admit_name))),
               options = assert(costs.options {}), slo = { ttft = 5, tbt = 0.04 },
            })
            local refused = result.rejected_arrival + result.rejected_after_prefill
            test.eq(result.completed + refused, 200)
            assert(result.completed > 20, result.completed)
            test.eq(refused > 0, admit_name ~= "none", text .. place_name .. admit_name)
         end
      end
   end
end

function t.the_example_is_a_policy()
   local view = cluster({ { queue_s = 70 }, { prefix_tokens = 3000, queue_s = 5 } },
                        { IDLE }, nil, { random = function() return 0 end })
   test.eq({ place("examples/policy.lua", view) }, { 1, 2, 1 })
   test.eq({ place("examples/policy.lua:patience=5", view) },
           { nil, "nobody waits that long" })
end

return t
