-- plot.lua - charts: data to SVG, to text on a terminal, and to a page of HTML.
--
-- A chart is a table that one of these made:
--
--   plot.lines { title = "Hit rate", x = "capacity, blocks", y = "hit rate",
--      series = { { name = "lru", x = { 1, 10, 100 }, y = { 0.1, 0.2, 0.3 } } },
--      log_x = true, y_max = 1, y_format = "percent",
--      marks = { { y = 0.37, label = "no bound" }, { x = 50, label = "now" } } }
--   plot.cdf { title =, x =, series = { { name =, values = { ... } } }, log_x = true }
--   plot.histogram { title =, x =, values = { ... }, bins = 24, log_x = true }
--   plot.bars { title =, y =, labels = { "a", "b" }, stacked = true,
--      series = { { name =, y = { 1, 2 } } } }
--
-- All but the data may be left out. Any chart: marks (lines at a value, such as an SLO),
-- x_format and y_format ("number", "percent", "time" in seconds, or a function of the
-- value), x_min, x_max, y_min, y_max; lines and cdf: log_x, log_y. Series: dashed = true,
-- step = true, color = 1..8.
--
--   plot.svg(chart, ...)             -- SVG text; several charts one below the other
--   plot.text(chart, columns, rows)  -- for a terminal
--   plot.page { title =, text =, sections = { { title =, text =, figures =, charts =,
--      table = { head =, rows = } } } }
--   plot.save(path, page)            -- .svg: the charts of a page; .html: the page

local axis = require "mooncake.plot_axis"
local util = require "mooncake.util"

local M = { formats = axis.formats }

local KNOWN = { title = true, x = true, y = true, series = true, marks = true,
   x_format = true, y_format = true, x_min = true, x_max = true, y_min = true,
   y_max = true, log_x = true, log_y = true, labels = true, stacked = true, bins = true,
   values = true, note = true }

local function chart(kind, spec)
   local c = { kind = kind, marks = {}, series = {} }
   for k, v in pairs(spec) do
      if not KNOWN[k] then error("plot: no option '" .. tostring(k) .. "'", 3) end
      c[k] = v
   end
   axis.format(c.x_format)
   axis.format(c.y_format)
   return c
end

-- Lines over a pair of axes: one series or several, each with its x and y.
function M.lines(spec)
   return chart("lines", spec)
end

-- What part of the values is at most x. Long lists are thinned to 400 steps.
function M.cdf(spec)
   local c = chart("lines", spec)
   c.series, c.y_max, c.y_format = {}, 1, c.y_format or "percent"
   for i, s in ipairs(spec.series) do
      local sorted, x, y = {}, {}, {}
      for j = 1, #s.values do sorted[j] = s.values[j] end
      table.sort(sorted)
      local n = #sorted
      local points = math.min(n, 400)
      for j = 1, points do
         local at = math.max(1, math.floor(n * j / points + 0.5))
         x[j], y[j] = sorted[at], at / n
      end
      c.series[i] = { name = s.name, x = x, y = y, color = s.color, dashed = s.dashed,
         step = true }
   end
   return c
end

-- One bar per label and series; beside each other, or stacked.
function M.bars(spec)
   local c = chart("bars", spec)
   c.labels = {}
   for i, label in ipairs(spec.labels) do c.labels[i] = tostring(label) end
   return c
end

-- How many of the values are in each of about @bins equal steps of the axis.
function M.histogram(spec)
   local c = chart("bars", spec)
   local a = axis.new({ spec.values }, { log = spec.log_x, min = spec.x_min,
      max = spec.x_max, tight = true })
   local bins = spec.bins or 24
   local count, edges = {}, {}
   for i = 1, bins do count[i] = 0 end
   for i = 0, bins do
      edges[i + 1] = a.log and a.lo * (a.hi / a.lo) ^ (i / bins) or
         a.lo + (a.hi - a.lo) * i / bins
   end
   for _, v in ipairs(spec.values) do
      if a:can_show(v) then
         local at = math.max(1, math.min(bins, math.floor(a:at(v) * bins) + 1))
         count[at] = count[at] + 1
      end
   end
   c.values, c.edges, c.labels = nil, edges, {}
   local text = axis.format(c.x_format)
   for i = 1, bins do c.labels[i] = text(edges[i]) end
   c.series = { { y = count } }
   return c
end

function M.svg(...)
   return require("mooncake.plot_svg").document(...)
end

function M.text(c, columns, rows)
   return require("mooncake.plot_text").draw(c, columns or 72, rows or 16)
end

function M.page(spec)
   return require("mooncake.plot_page").html(spec)
end

-- What a file of this name would be: "svg", "html", or nil.
function M.kind(path)
   return path:match "%.(svg)$" or path:match "%.html?$" and "html" or nil
end

-- Write the page, or for a name that ends in .svg only its charts. true, or nil and why.
function M.save(path, spec)
   local text
   if M.kind(path) == "svg" then
      local charts = {}
      for _, s in ipairs(spec.sections) do
         for _, c in ipairs(s.charts or {}) do charts[#charts + 1] = c end
      end
      text = M.svg(unpack(charts))
   elseif M.kind(path) then
      text = M.page(spec)
   else
      return nil, path .. ": a plot is a file .svg or .html"
   end
   return util.write_file(path, text)
end

return M
