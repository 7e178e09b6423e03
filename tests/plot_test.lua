-- plot_test.lua - charts: what lies where, in SVG, in text and in a page.

local axis = require "mooncake.plot_axis"
local plot = require "mooncake.plot"

local tests = {}

local function near(got, want, what)
   if math.abs(got - want) > 0.051 then
      error(("%s: %g, expected %g"):format(what, got, want), 2)
   end
end

-- Is every element closed, every attribute quoted, and nothing left unescaped?
local function well_formed(xml)
   local open = {}
   xml = xml:gsub("^<!DOCTYPE html>", ""):gsub("<style>.-</style>", "")
            :gsub('<meta [^>]*">', "")
   for text, tag in xml:gmatch "([^<]*)<([^>]*)>" do
      assert(not text:gsub("&%l+;", ""):find "[&<>]", "unescaped: " .. text)
      local close, name, rest, alone = tag:match "^(/?)([%w]+)(.-)(/?)$"
      assert(name, "no tag: <" .. tag .. ">")
      rest = rest:gsub('%s[%w:-]+="[^"<]*"', "")
      assert(rest:match "^%s*$", "attributes of <" .. tag .. ">: " .. rest)
      if close ~= "" then
         test.eq(table.remove(open), name, "closed")
      elseif alone == "" then
         open[#open + 1] = name
      end
   end
   test.eq(#open, 0, "left open")
end

local function ticks(lists, opts)
   local a = axis.new(lists, opts)
   local words = {}
   for i, v in ipairs(a.ticks) do words[i] = a:text(v) end
   return table.concat(words, " ")
end

function tests.ticks_are_round()
   test.eq(ticks({ { 3, 97 } }, {}), "0 20 40 60 80 100")
   test.eq(ticks({ { 0.0013, 0.0102 } }, {}), "0 0.0025 0.005 0.0075 0.01 0.0125")
   test.eq(ticks({ { 90, 97 } }, {}), "90 92 94 96 98")
   test.eq(ticks({ { -30, 40 } }, {}), "-40 -20 0 20 40")
   test.eq(ticks({ { 0, 1e6 } }, {}), "0 200k 400k 600k 800k 1M")
   test.eq(ticks({ { 0.1, 0.37 } }, { format = "percent" }), "0% 10% 20% 30% 40%")
   test.eq(ticks({ { 1, 3537 } }, { format = "time", tight = true }),
      "15 min 30 min 45 min")
   test.eq(ticks({ { 1, 50 } }, { max = 20, min = 0 }), "0 5 10 15 20")
end

function tests.ticks_of_a_logarithm_are_powers()
   test.eq(ticks({ { 3, 2e5 } }, { log = true }), "10 100 1k 10k 100k")
   test.eq(ticks({ { 800, 90000 } }, { log = true }), "1k 3k 10k 30k")
   test.eq(ticks({ { 12, 95 } }, { log = true }), "20 30 50")
   test.eq(ticks({ { 1e-9, 1e9 } }, { log = true }), "1e-09 1e-05 0.1 1k 10M")
   test.eq(ticks({ { 0.05, 5000 } }, { log = true, format = "time" }),
      "100 ms 1 s 10 s 1 min 10 min 1 h")
   test.eq(ticks({ { 0, -3 } }, { log = true }), "1 2 3 5 10")
end

function tests.axes_take_whatever_there_is()
   for _, list in ipairs { {}, { 0 }, { 5 }, { -5 }, { 0 / 0, 3 },
      { math.huge, 1, 2 } } do
      for _, log in ipairs { false, true } do
         local a = axis.new({ list }, { log = log })
         assert(a.lo < a.hi and a.hi < math.huge and (not log or a.lo > 0))
         for _, v in ipairs(list) do
            if a:can_show(v) then
               assert(a:at(v) >= -1e-9 and a:at(v) <= 1 + 1e-9)
            end
         end
      end
   end
end

function tests.values_read_short()
   local f = plot.formats
   test.eq(f.number(5859), "5.86k")
   test.eq(f.number(999.9), "1k")
   test.eq(f.number(0), "0")
   test.eq(f.number(-2.5e6), "-2.5M")
   test.eq(f.percent(0.3664), "36.6%")
   test.eq(f.time(0), "0")
   test.eq(f.time(0.0042), "4.2 ms")
   test.eq(f.time(90), "1.5 min")
end

-- The points of the only path in SVG text, and the box that it is clipped to.
local function path_of(svg)
   local d = svg:match '<path d="([^"]*)"'
   local points = {}
   for x, y in d:gmatch "[ML]([-%d.]+) ([-%d.]+)" do
      points[#points + 1] = { tonumber(x), tonumber(y) }
   end
   local x, y, w, h = svg:match
      '<clipPath[^>]*><rect x="([^"]*)" y="([^"]*)" width="([^"]*)" height="([^"]*)"'
   return points, { left = x + 3, top = y + 3, right = x + w - 3, bottom = y + h - 3 }
end

function tests.points_lie_where_they_should()
   local p, box = path_of(plot.svg(plot.lines { y_min = 0, y_max = 10,
      series = { { x = { 0, 5, 10, 20 }, y = { 0, 10, 5, 2 } } } }))
   test.eq(#p, 4)
   for i, want in ipairs { { 0, 0 }, { 0.25, 1 }, { 0.5, 0.5 }, { 1, 0.2 } } do
      near(p[i][1], box.left + want[1] * (box.right - box.left), "x of point " .. i)
      near(p[i][2], box.bottom - want[2] * (box.bottom - box.top), "y of point " .. i)
   end
   p, box = path_of(plot.svg(plot.lines { log_x = true, log_y = true, y_min = 1,
      y_max = 100, series = { { x = { 0, 1, 10, 100 }, y = { 5, 1, 10, 100 } } } }))
   test.eq(#p, 3)
   near(p[2][1], (box.left + box.right) / 2, "x of ten")
   near(p[2][2], (box.top + box.bottom) / 2, "y of ten")
end

function tests.long_series_keep_their_extremes()
   local x, y = {}, {}
   for i = 1, 50000 do x[i], y[i] = i, i % 100 == 50 and 2 or 1 end
   y[31234], y[777] = 9, 0
   local p, box = path_of(plot.svg(plot.lines { y_min = 0, y_max = 10,
      series = { { x = x, y = y } } }))
   assert(#p < 4000, #p .. " points")
   local top, bottom = math.huge, 0
   for _, q in ipairs(p) do top, bottom = math.min(top, q[2]), math.max(bottom, q[2]) end
   near(top, box.bottom - 0.9 * (box.bottom - box.top), "highest")
   near(bottom, box.bottom, "lowest")
end

function tests.a_cdf_rises_to_one()
   local values = {}
   for i = 1, 1000 do values[i] = 1001 - i end
   local c = plot.cdf { series = { { name = "a", values = values },
      { name = "b", values = { 7 } }, { name = "none", values = {} } } }
   local a = c.series[1]
   test.eq(#a.x, 400)
   test.eq(a.y[400], 1)
   test.eq(a.x[400], 1000)
   for i = 1, #a.x do near(a.x[i], 1000 * a.y[i], "quantile") end
   test.eq(values[1], 1000, "the caller's list")
   test.eq(c.series[2].y[1], 1)
   well_formed(plot.svg(c))
end

function tests.a_histogram_counts_everything_once()
   for _, log in ipairs { false, true } do
      local values, n = {}, 0
      for i = 1, 500 do values[i] = i * i % 977 + 1 end
      local c = plot.histogram { values = values, bins = 12, log_x = log }
      test.eq(#c.labels, 12)
      for _, count in ipairs(c.series[1].y) do n = n + count end
      test.eq(n, 500)
      for i, count in ipairs(c.series[1].y) do
         local inside = 0
         for _, v in ipairs(values) do
            if v >= c.edges[i] - 1e-9 and (v < c.edges[i + 1] - 1e-9 or i == 12) then
               inside = inside + 1
            end
         end
         test.eq(count, inside, "step " .. i)
      end
   end
end

local function all_kinds()
   local marks = { { y = 1.5, label = "SLO <1.5>" } }
   return {
      plot.lines { title = "a & b", x = "x", y = "<y>", marks = { marks[1], { x = 2 } },
         series = { { name = 'say "x"', x = { 1, 2, 3 }, y = { 1, 0 / 0, 2 } },
            { name = "dashed", x = { 1, 3 }, y = { 2, 1 }, dashed = true } } },
      plot.cdf { title = "cdf", log_x = true, series = { { name = "s",
         values = { 3, 1, 2 } } } },
      plot.histogram { title = "histogram", values = { 1, 2, 2, 3 } },
      plot.bars { title = "bars", labels = { "a<b", 2 }, marks = marks,
         series = { { name = "p", y = { 1, 2 } }, { name = "q", y = { 2 } } } },
      plot.bars { title = "stacked", stacked = true, labels = { "one", "two" },
         series = { { name = "p", y = { 1, 2 } }, { name = "q", y = { 2, 1 } } } },
      plot.bars { labels = { "a" }, log_y = true, series = { { y = { 0 } } } },
      plot.lines { series = {} },
      plot.lines { series = { { x = {}, y = {} } } },
      plot.bars { labels = {}, series = { { y = {} } } },
   }
end

function tests.svg_is_well_formed_and_stands_alone()
   for i, c in ipairs(all_kinds()) do
      local svg = plot.svg(c)
      well_formed(svg)
      assert(not svg:find "nan" and not svg:find "inf", "chart " .. i .. ": " .. svg)
      assert(svg:find "prefers%-color%-scheme: dark")
      test.eq(select(2, svg:gsub("https?://", "")), 1, "only the name space")
   end
   local two = plot.svg(unpack(all_kinds()))
   well_formed(two)
   local ids = {}
   for id in two:gmatch 'clipPath id="([^"]+)"' do
      assert(not ids[id], "twice: " .. id)
      ids[id] = true
   end
end

function tests.what_is_under_the_pointer_says_what_it_is()
   local svg = plot.svg(plot.lines { y_format = "percent",
      series = { { name = "lru", x = { 1000 }, y = { 0.25 } } } })
   assert(svg:find("<title>lru\n1k: 25%</title>", 1, true), svg)
   svg = plot.svg(plot.bars { labels = { "a" }, series = { { name = "s", y = { 3 } } } })
   assert(svg:find("<title>s\na: 3</title>", 1, true), svg)
end

function tests.stacked_bars_stand_on_each_other()
   local svg = plot.svg(plot.bars { stacked = true, labels = { "a" }, y_max = 4,
      series = { { name = "p", y = { 1 } }, { name = "q", y = { 3 } } } })
   local bars = {}
   for rect in svg:gmatch '<rect [^>]*class="bar"' do
      local y, h = rect:match ' y="([%d.]+)".* height="([%d.]+)"'
      bars[#bars + 1] = { top = tonumber(y), height = tonumber(h) }
   end
   test.eq(#bars, 2)
   near(bars[2].top + bars[2].height, bars[1].top, "the upper's foot")
   near(bars[2].height, 3 * bars[1].height, "height")
end

function tests.every_bar_has_its_name()
   local labels, y = {}, {}
   for i = 1, 12 do labels[i], y[i] = "a policy of a long name " .. i, i end
   local c = plot.bars { labels = labels, series = { { y = y } } }
   local svg = plot.svg(c)
   for _, label in ipairs(labels) do
      assert(svg:find(">" .. label .. "</text>", 1, true), label)
   end
   local two = { labels = { "a", "b" }, series = { { y = { 1, 2 } } } }
   local short = plot.svg(plot.bars(two))
   assert(svg:find "rotate" and not short:find "rotate")
   local height = function(text) return tonumber(text:match 'height="(%d+)"') end
   assert(height(svg) > height(short) + 50, "no room for the names")
end

function tests.text_of_lines()
   test.eq(plot.text(plot.lines { title = "T", x = "steps", y_max = 4,
      series = { { name = "up", x = { 0, 4 }, y = { 0, 4 } } },
      marks = { { y = 2, label = "half" } } }, 27, 5), [[
T
* up   - half
4 ┤                     ***
  │               ******
2 ┤---------******---------
  │   ******
0 ┤***
  └────────────────────────
   0           2          4
            steps]])
end

function tests.text_of_bars()
   test.eq(plot.text(plot.bars { title = "T", y = "n", labels = { "a", "bcd" },
      series = { { y = { 10, 5 } } } }, 20), [[
T
n
  a │███████████ 10
bcd │█████▌ 5]])
   local stacked = plot.text(plot.bars { labels = { "a" }, stacked = true,
      series = { { name = "p", y = { 2 } }, { name = "q", y = { 8 } } } }, 20)
   test.eq(stacked, [[
█ p   ▒ q
a │███▒▒▒▒▒▒▒▒▒▒▒ 10]])
end

function tests.text_fits_its_columns()
   for _, c in ipairs(all_kinds()) do
      for _, columns in ipairs { 30, 78 } do
         for line in plot.text(c, columns, 8):gmatch "[^\n]+" do
            local _, tails = line:gsub("[\128-\191]", "")
            assert(#line - tails <= columns + 1, line)
         end
      end
   end
end

function tests.a_page_has_everything_and_needs_nothing()
   local page = plot.page { title = "A <report>", text = "One.\n\nTwo & three.",
      sections = {
         { title = "First", text = "What.", figures = { { "12", "things" } },
           charts = all_kinds(), table = { head = { "name", "rate" },
              rows = { { "lru", 0.5 }, { "a&b" }, { "fifo", "-" } } } },
         { charts = {} },
      } }
   well_formed(page)
   test.eq(select(2, page:gsub("<svg ", "")), #all_kinds())
   test.eq(select(2, page:gsub("<p>", "")), 3)
   assert(page:find('<td class="right">0.5</td>', 1, true))
   assert(page:find('<th class="right">rate</th>', 1, true))
   assert(not page:find "<script" and not page:find "src=" and not page:find "@import")
end

function tests.saves_by_the_name_of_the_file()
   local page = { title = "T", sections = { { charts = { all_kinds()[1] } },
      { charts = { all_kinds()[2] } } } }
   for suffix, first in pairs { [".svg"] = "^<svg", [".html"] = "^<!DOCTYPE" } do
      local path = os.tmpname()
      os.remove(path)
      assert(plot.save(path .. suffix, page))
      local f = assert(io.open(path .. suffix))
      local text = f:read "*a"
      f:close()
      os.remove(path .. suffix)
      assert(text:find(first), text:sub(1, 100))
      well_formed(text)
   end
   local ok, why = plot.save("/nowhere/x.svg", page)
   assert(not ok and why:find "/nowhere/x.svg", why)
   ok, why = plot.save("x.png", page)
   assert(not ok and why:find "%.svg or %.html", why)
end

function tests.wrong_options_are_errors()
   for _, spec in ipairs { { serie = {} }, { x_format = "feet" } } do
      local ok, why = pcall(plot.lines, spec)
      assert(not ok and why:find "plot: no", why)
   end
end

return tests
