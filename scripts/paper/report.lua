-- report.lua - a part of `make paper` measured, and as text.
--
-- A part has: id, title, source, setup (lines), figures { { key, name, published or nil,
-- unit } }, ratios { { name, published, of(figures), why = } }, orders { { name,
-- right(figures), why = } }, note, and sample(seed), which returns figures by key.
-- conversation: seed 0 is the public trace, whose figures are "ours"; further seeds are
-- traces made like it, for the range. Of others "ours" is the mean. alone: one seed does.

local util = require "mooncake.util"
local setup = require "paper.setup"

local report = {}

-- A ratio further away than this is explained.
local FAR = 0.25

local function spread(values, first)
   local sum, low, high = 0, math.huge, -math.huge
   for _, v in ipairs(values) do
      sum, low, high = sum + v, math.min(low, v), math.max(high, v)
   end
   return first and values[1] or sum / #values, low, high
end

local function measured(name, published, values, first)
   local row = { name = name, published = published }
   row.ours, row.low, row.high = spread(values, first)
   row.deviation = published and row.ours / published - 1
   return row
end

local function each(samples, of)
   local values = {}
   for i, f in ipairs(samples) do values[i] = of(f) end
   return values
end

local function one_line(text)
   return text and (text:gsub("%s+", " "))
end

local function ordered(order, samples)
   local n = 0
   for _, f in ipairs(samples) do n = n + (order[2](f) and 1 or 0) end
   return { name = order[1], right = n, of = #samples,
            why = n < #samples and one_line(order.why) or nil }
end

local function rows_of(part, t, samples, first)
   for i, f in ipairs(part.figures) do
      local values = each(samples, function(s) return s[f[1]] end)
      t.figures[i] = measured(f[2], f[3], values, first)
      t.figures[i].unit = f[4]
   end
   for i, ratio in ipairs(part.ratios) do
      local row = measured(ratio[1], ratio[2], each(samples, ratio[3]), first)
      row.near = math.abs(row.deviation) <= FAR
      row.why = not row.near and one_line(ratio.why) or nil
      t.ratios[i] = row
   end
   for i, order in ipairs(part.orders) do t.orders[i] = ordered(order, samples) end
   return t
end

-- Measure a part with so many seeds: a table that can be JSON.
function report.measure(part, seeds)
   local samples, lines = {}, {}
   for seed = 0, part.alone and 0 or seeds - 1 do
      samples[seed + 1] = part.sample(seed)
   end
   for i, line in ipairs(part.setup) do lines[i] = one_line(line) end
   local first = part.conversation and setup.has_trace()
   local trace = part.conversation and (first and "public" or "generated") or nil
   return rows_of(part, { part = part.id, title = part.title, source = part.source,
      setup = lines, trace = trace, samples = #samples, note = one_line(part.note),
      figures = {}, ratios = {}, orders = {} }, samples, first)
end

-- ---- text ------------------------------------------------------------------

local function number(x)
   if not x then return "-" end
   if math.abs(x) >= 1000 then return util.commas(x) end
   return (("%.3g"):format(x):gsub("e%+0?", "e"))
end

local function cells(row, samples)
   local range = samples > 1 and number(row.low) .. " to " .. number(row.high) or ""
   local off = row.deviation and ("%+.0f %%"):format(100 * row.deviation) or "-"
   return { row.name, row.unit or "", number(row.published), number(row.ours), off,
            range }
end

local WIDTH = 88

-- Text in lines, each after the indent.
local function wrapped(text, indent)
   local lines, line = {}, ""
   for word in text:gmatch "%S+" do
      if #line + #word + #indent > WIDTH then
         lines[#lines + 1], line = indent .. line, ""
      end
      line = (line == "" and "" or line .. " ") .. word
   end
   lines[#lines + 1] = indent .. line
   return table.concat(lines, "\n")
end

local function add_whys(lines, rows, said)
   for _, row in ipairs(rows) do
      if row.why and not said[row.why] then
         said[row.why] = true
         lines[#lines + 1] = wrapped(row.name .. ": " .. row.why, "   ")
      end
   end
end

local HEAD = { "", "", "published", "ours", "off", "range" }

function report.text(t)
   local lines = { ("%s  %s (%s)"):format(t.part, t.title, t.source) }
   if t.trace == "generated" then
      lines[2] = "   The public trace is not here: traces made with its statistics."
   end
   for _, line in ipairs(t.setup) do lines[#lines + 1] = wrapped(line, "   ") end
   local rows = {}
   for _, row in ipairs(t.figures) do rows[#rows + 1] = cells(row, t.samples) end
   if #t.ratios > 0 then rows[#rows + 1] = { "ratios" } end
   for _, row in ipairs(t.ratios) do rows[#rows + 1] = cells(row, t.samples) end
   lines[#lines + 1] = util.table(HEAD, rows, "llrrrr")
   for _, o in ipairs(t.orders) do
      lines[#lines + 1] = ("%s: %s"):format(o.right == o.of and "right" or
         ("WRONG in %d of %d"):format(o.of - o.right, o.of), o.name)
   end
   local said = {}
   add_whys(lines, t.ratios, said)
   add_whys(lines, t.orders, said)
   if t.note then lines[#lines + 1] = wrapped("Note: " .. t.note, "   ") end
   return table.concat(lines, "\n") .. "\n"
end

-- How many orders are right, and how many ratios near.
function report.summary(results)
   local right, orders, near, ratios = 0, 0, 0, 0
   for _, t in ipairs(results) do
      for _, o in ipairs(t.orders) do
         right, orders = right + (o.right == o.of and 1 or 0), orders + 1
      end
      for _, r in ipairs(t.ratios) do
         near, ratios = near + (r.near and 1 or 0), ratios + 1
      end
   end
   return { orders_right = right, orders = orders, ratios_near = near, ratios = ratios }
end

return report
