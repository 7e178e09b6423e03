-- paper_test.lua - the simulator against the papers: the parts that take a second, and
-- how parts are measured and shown (scripts/paper.lua).

package.path = "scripts/?.lua;" .. package.path

local json = require "mooncake.json"
local proc = require "mooncake.proc"
local report = require "paper.report"
local setup = require "paper.setup"

local tests = {}

local function part(file, id)
   for _, p in ipairs(require("paper." .. file)) do
      if p.id == id then return p end
   end
   error("no part " .. id)
end

-- A row by its name.
local function row(rows, name)
   for _, r in ipairs(rows) do
      if r.name == name then return r end
   end
   error("no row " .. name)
end

local function all_right(t)
   for _, o in ipairs(t.orders) do test.eq(o.right, o.of, o.name) end
end

local function needs_trace()
   if not setup.has_trace() then test.skip(setup.trace .. " is not here") end
end

-- ---- against the papers ----------------------------------------------------

-- The limit and the rate of one node are those that counting without a simulator gives.
function tests.hit_rates_against_capacity()
   needs_trace()
   local t = report.measure(part("caches", "D"), 2)
   all_right(t)
   test.near(row(t.figures, "100 M tokens").ours, 36.64, 0.01)
   test.near(row(t.figures, "3 M tokens, of the limit").ours, 37.0, 0.1)
   for _, r in ipairs(t.ratios) do test.eq(r.near, true, r.name) end
end

function tests.a_global_cache_is_better_than_local_ones()
   needs_trace()
   local t = report.measure(part("caches", "E"), 2)
   all_right(t)
   test.near(row(t.figures, "local, hit rate").ours, 10.4, 0.5)
   test.near(row(t.figures, "global, hit rate").ours, 35.3, 0.5)
   test.near(row(t.figures, "global, GPU seconds").ours, 1.05, 0.05)
   test.eq(row(t.ratios, "GPU seconds, local over global").near, true)
end

function tests.policies_are_in_the_order_of_the_paper()
   needs_trace()
   local t = report.measure(part("policies", "C1"), 3)
   all_right(t)
   for _, r in ipairs(t.ratios) do test.eq(r.near, true, r.name) end
end

-- What the cost was fitted to comes out of the simulator again.
function tests.a_lone_request_takes_what_the_profile_says()
   local t = report.measure(part("latency", "I"), 3)
   all_right(t)
   test.eq(t.samples, 1)
   for _, k in ipairs { 8, 16, 32, 64, 128 } do
      local r = row(t.figures, k .. "k, prefill")
      test.near(r.ours, r.published, 0.03 * r.published)
   end
   test.near(row(t.figures, "128k, transfer of 95 %").ours, 0.49, 0.03)
end

function tests.mooncake_decodes_faster_than_vllm()
   needs_trace()
   local t = report.measure(part("capacity", "A"), 1)
   for _, o in ipairs(t.orders) do
      if o.name:find("Mooncake > each", 1, true) then test.eq(o.right, 1, o.name) end
   end
   for _, bound in ipairs { 100, 200, 300 } do
      test.eq(row(t.ratios, ("Mooncake over vLLM, %d ms"):format(bound)).near, true)
   end
end

-- ---- measuring -------------------------------------------------------------

local function made(t)
   local defaults = { id = "X", title = "a part", source = "nowhere", setup = { "none" },
      figures = { { "a", "a figure", 10, "s" }, { "b", "another", nil, "s" } },
      ratios = { { "a over b", 5, function(f) return f.a / f.b end,
                   why = "of  this\n it" } },
      orders = { { "a > b", function(f) return f.a > f.b end } },
      sample = function(seed) return { a = 8 + seed, b = 2 } end }
   for k, v in pairs(t or {}) do defaults[k] = v end
   return defaults
end

function tests.ours_is_the_mean_and_its_range()
   local t = report.measure(made(), 3)
   local a = t.figures[1]
   test.eq({ a.ours, a.low, a.high, t.samples }, { 9, 8, 10, 3 })
   test.near(a.deviation, -0.1, 1e-9)
   test.eq(t.figures[2].deviation, nil)
   test.eq({ t.ratios[1].near, t.ratios[1].why }, { true, nil })
   test.eq({ t.orders[1].right, t.orders[1].of }, { 3, 3 })
end

function tests.a_ratio_that_is_off_says_why()
   local t = report.measure(made { sample = function() return { a = 8, b = 1 } end }, 2)
   test.eq({ t.ratios[1].near, t.ratios[1].why }, { false, "of this it" })
   assert(report.text(t):find("a over b: of this it", 1, true))
end

function tests.an_order_is_right_with_every_seed_or_not()
   local t = report.measure(made { sample = function(seed)
      return { a = seed, b = 0.5 }
   end }, 3)
   test.eq({ t.orders[1].right, t.orders[1].of }, { 2, 3 })
   assert(report.text(t):find("WRONG in 1 of 3: a > b", 1, true))
   local s = report.summary { t, report.measure(made(), 1) }
   test.eq({ s.orders_right, s.orders, s.ratios_near, s.ratios }, { 1, 2, 1, 2 })
end

-- ---- the script ------------------------------------------------------------

function tests.the_script_prints_json()
   local text, status = proc.run { proc.exe(), "run", "scripts/paper.lua", "--json",
                                   "--only", "I,B", "--seeds", "1", "--jobs", "2" }
   test.eq(status, 0)
   local found = json.decode(text)
   test.eq({ found.parts[1].part, found.parts[2].part }, { "B", "I" })
   test.eq(found.summary.orders, 2)
end

function tests.the_script_refuses_what_it_does_not_know()
   for _, words in ipairs { { "--only", "Z" }, { "--seeds", "0" }, { "--fast" } } do
      local _, status, why = proc.run { proc.exe(), "run", "scripts/paper.lua", words[1],
                                        words[2], stderr = "pipe" }
      test.eq(status, 1)
      assert(why:find("%-%-" .. words[1]:sub(3)), why)
   end
end

return tests
