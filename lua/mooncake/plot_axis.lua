-- plot_axis.lua - where values lie on an axis, and which of them are written there.

local M = {}

-- ---- how numbers read ---------------------------------------------------

local function scaled(v, units)
   for _, unit in ipairs(units) do
      if math.abs(v) >= unit[1] then return ("%.3g%s"):format(v / unit[1], unit[2]) end
   end
   return ("%.3g"):format(v)
end

local THOUSANDS = { { 1e12, "T" }, { 1e9, "G" }, { 1e6, "M" }, { 1e3, "k" } }
local SECONDS = { { 86400, " d" }, { 3600, " h" }, { 60, " min" }, { 1, " s" },
   { 1e-3, " ms" }, { 1e-6, " µs" }, { 1e-9, " ns" } }

-- By name, as charts say: a value as short text.
M.formats = {
   number = function(v)
      -- Rounded first: 999.9 is 1k.
      return scaled(tonumber(("%.3g"):format(v)), THOUSANDS)
   end,
   percent = function(v) return ("%.3g%%"):format(100 * v) end,
   time = function(v) return v == 0 and "0" or scaled(v, SECONDS) end,
}

function M.format(f)
   if type(f) == "function" then return f end
   return M.formats[f or "number"] or error("plot: no format '" .. f .. "'", 3)
end

-- ---- ticks --------------------------------------------------------------

local CLOCK = { 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800,
   21600, 43200, 86400 }
local LONG = { 1e-6, 1e-3, 0.1, 1, 10, 60, 600, 3600, 36000, 86400, 864000 }

-- The smallest round step that is at least @raw.
local function round_step(raw, format)
   if format == "time" and raw > 1 and raw <= 86400 then
      for _, step in ipairs(CLOCK) do
         if step >= raw then return step end
      end
   end
   local power = 10 ^ math.floor(math.log10(raw))
   for _, m in ipairs { 1, 2, 2.5, 5 } do
      if m * power >= raw * (1 - 1e-9) then return m * power end
   end
   return 10 * power
end

local function linear_ticks(axis, step)
   local first = math.ceil(axis.lo / step - 1e-9)
   local last = math.floor(axis.hi / step + 1e-9)
   for i = first, last do axis.ticks[#axis.ticks + 1] = i * step + 0 end -- not -0
end

-- Powers of ten; where these are few, what is between them too. Times have their own.
local function log_ticks(axis, count, format)
   local from, to = math.log10(axis.lo), math.log10(axis.hi)
   local decades = to - from
   local every = math.max(1, math.ceil(decades / count))
   if format == "time" and axis.hi > 60 and decades > 1 then
      for _, v in ipairs(LONG) do
         if v >= axis.lo and v <= axis.hi then axis.ticks[#axis.ticks + 1] = v end
      end
      return
   end
   local between = decades <= 1.5 and { 1, 2, 3, 5 } or decades <= 3 and { 1, 3 } or { 1 }
   for d = math.floor(from), math.ceil(to), every do
      for _, m in ipairs(between) do
         local v = m * 10 ^ d
         if v >= axis.lo * (1 - 1e-9) and v <= axis.hi * (1 + 1e-9) then
            axis.ticks[#axis.ticks + 1] = v
         end
      end
   end
end

-- ---- axes ---------------------------------------------------------------

local Axis = {}
Axis.__index = Axis

-- Where a value lies, from 0 to 1 for what is on the axis.
function Axis:at(v)
   if not self.log then return (v - self.lo) / (self.hi - self.lo) end
   return math.log(v / self.lo) / math.log(self.hi / self.lo)
end

function Axis:can_show(v)
   return v == v and math.abs(v) ~= math.huge and (not self.log or v > 0)
end

function Axis:text(v)
   return self.format(v)
end

-- The smallest and largest that lists of values have and the axis can show.
local function extent(lists, log)
   local lo, hi = math.huge, -math.huge
   for _, list in ipairs(lists) do
      for i = 1, #list do
         local v = list[i]
         if v == v and math.abs(v) ~= math.huge and (not log or v > 0) then
            lo, hi = math.min(lo, v), math.max(hi, v)
         end
      end
   end
   if lo > hi then return log and 1 or 0, log and 10 or 1 end
   return lo, hi
end

-- An axis for lists of values. Options: log; min and max where the data do not decide;
-- format; count, how many ticks would be good; tight, if it ends where the data do;
-- zero, if it must begin there.
function M.new(lists, o)
   local lo, hi = extent(lists, o.log)
   local near_zero = lo >= 0 and (o.zero or lo < 0.4 * hi)
   if not o.log and near_zero and not o.tight then lo = 0 end
   lo, hi = o.min or lo, o.max or hi
   if lo == hi then
      lo, hi = o.log and lo / 2 or math.min(lo, 0), o.log and hi * 2 or math.max(hi, 0)
      if lo == hi then hi = lo + 1 end
   end
   local self = setmetatable({ lo = lo, hi = hi, log = o.log, ticks = {},
      format = M.format(o.format) }, Axis)
   local count = o.count or 5
   if o.log then
      log_ticks(self, count, o.format)
   else
      local step = round_step((hi - lo) / count, o.format)
      if not o.tight then
         self.lo = o.min or math.floor(lo / step + 1e-9) * step
         self.hi = o.max or math.ceil(hi / step - 1e-9) * step
      end
      linear_ticks(self, step)
   end
   return self
end

-- The axes of a chart, with about so many ticks; the first is nil where bars have names.
function M.of(c, x_count, y_count)
   local xs, ys = {}, {}
   for i, s in ipairs(c.series) do
      xs[i], ys[i] = s.x, s.y
   end
   if c.edges then xs = { c.edges } end
   if c.stacked then
      local sums = {}
      for j = 1, #c.labels do
         sums[j] = 0
         for _, s in ipairs(c.series) do sums[j] = sums[j] + (s.y[j] or 0) end
      end
      ys = { sums }
   end
   for _, m in ipairs(c.marks) do
      if m.y then ys[#ys + 1] = { m.y } end
   end
   local y = M.new(ys, { log = c.log_y, min = c.y_min, max = c.y_max,
      format = c.y_format, count = y_count, zero = c.kind == "bars" })
   if c.labels and not c.edges then return nil, y end
   return M.new(xs, { log = c.log_x, min = c.x_min, max = c.x_max,
      format = c.x_format, count = x_count, tight = true }), y
end

return M
