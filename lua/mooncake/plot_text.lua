-- plot_text.lua - charts as text for a terminal: lines on a grid of characters, one sign
-- for each series; bars lie.

local axis = require "mooncake.plot_axis"

local M = {}

local SIGNS = { "*", "o", "+", "x", "#", "@", "%", "&" }
local SHADES = { "█", "▒", "░", "▓" }
local EIGHTHS = { [0] = "", "▏", "▎", "▍", "▌", "▋", "▊", "▉" }

local function width(s)
   local _, tails = s:gsub("[\128-\191]", "")
   return #s - tails
end

local function right(s, w) return (" "):rep(w - width(s)) .. s end
local function left(s, w) return s .. (" "):rep(w - width(s)) end

local function trimmed(lines)
   for i, line in ipairs(lines) do lines[i] = (line:gsub("%s+$", "")) end
   return table.concat(lines, "\n")
end

-- ---- lines --------------------------------------------------------------

local Grid = {}
Grid.__index = Grid

local function new_grid(columns, rows)
   local grid = setmetatable({ columns = columns, rows = rows }, Grid)
   for r = 1, rows do
      grid[r] = {}
      for col = 1, columns do grid[r][col] = " " end
   end
   return grid
end

-- A sign at parts of the axes, if that is on them. With @under only where nothing is.
function Grid:put(x, y, sign, under)
   local col = math.floor(x * (self.columns - 1) + 1.5)
   local r = self.rows - math.floor(y * (self.rows - 1) + 0.5)
   local there = self[r] and self[r][col]
   if there and not (under and there ~= " ") then self[r][col] = sign end
end

-- What lies between two points: a sign in each column on the way.
local function segment(grid, a, b, sign)
   local n = math.ceil(math.abs(b.x - a.x) * (grid.columns - 1))
   for i = 1, n - 1 do
      grid:put(a.x + (b.x - a.x) * i / n, a.y + (b.y - a.y) * i / n, sign, true)
   end
end

local function draw_series(grid, s, x, y, sign)
   local last
   for i = 1, math.min(#s.x, #s.y) do
      if x:can_show(s.x[i]) and y:can_show(s.y[i]) then
         local p = { x = x:at(s.x[i]), y = y:at(s.y[i]) }
         if last and s.step then
            segment(grid, last, { x = p.x, y = last.y }, sign)
         elseif last then
            segment(grid, last, p, sign)
         end
         grid:put(p.x, p.y, sign)
         last = p
      end
   end
end

local function draw_marks(grid, c, x, y)
   for _, m in ipairs(c.marks) do
      for i = 0, 2 * grid.columns do
         local part = i / (2 * grid.columns)
         if m.y then
            grid:put(part, y:at(m.y), "-", true)
         elseif x:can_show(m.x) then
            grid:put(x:at(m.x), part, "|", true)
         end
      end
   end
end

-- Text below the axis, each centred at its value, as many as there is room for.
local function x_labels(x, columns)
   local line = ""
   for _, v in ipairs(x.ticks) do
      local text = x:text(v)
      local at = math.floor(x:at(v) * (columns - 1) + 0.5) - math.floor(width(text) / 2)
      at = math.max(0, math.min(at, columns - width(text)))
      if at > width(line) or line == "" then
         line = left(line, at) .. text
      end
   end
   return line
end

-- Words in lines of at most so many columns.
local function wrapped(out, parts, columns)
   local line
   for _, part in ipairs(parts) do
      if line and width(line) + 3 + width(part) > columns then
         out[#out + 1], line = line, nil
      end
      line = line and line .. "   " .. part or part
   end
   out[#out + 1] = line
end

local function legend(out, c, signs, columns)
   local parts = {}
   for i, s in ipairs(c.series) do
      if s.name then parts[#parts + 1] = signs[(i - 1) % #signs + 1] .. " " .. s.name end
   end
   for _, m in ipairs(c.marks) do
      if m.label and signs == SIGNS then
         parts[#parts + 1] = (m.y and "- " or "| ") .. m.label
      end
   end
   wrapped(out, parts, columns)
end

local function lines(c, columns, rows)
   local x, y = axis.of(c, math.max(2, columns / 12), math.max(2, rows / 3))
   local at_row, w = {}, 0
   for _, v in ipairs(y.ticks) do
      at_row[rows - math.floor(y:at(v) * (rows - 1) + 0.5)] = y:text(v)
      w = math.max(w, width(y:text(v)))
   end
   local grid = new_grid(math.max(10, columns - w - 2), rows)
   for i, s in ipairs(c.series) do
      draw_series(grid, s, x, y, SIGNS[(i - 1) % #SIGNS + 1])
   end
   draw_marks(grid, c, x, y)
   local out = { c.title }
   legend(out, c, SIGNS, columns)
   out[#out + 1] = c.y
   for r = 1, rows do
      out[#out + 1] = right(at_row[r] or "", w) .. (at_row[r] and " ┤" or " │")
         .. table.concat(grid[r])
   end
   out[#out + 1] = (" "):rep(w) .. " └" .. ("─"):rep(grid.columns)
   out[#out + 1] = (" "):rep(w + 2) .. x_labels(x, grid.columns)
   if c.x then
      local pad = math.floor((grid.columns - width(c.x)) / 2)
      out[#out + 1] = (" "):rep(w + 2 + math.max(0, pad)) .. c.x
   end
   return out
end

-- ---- bars ---------------------------------------------------------------

local function bar(part, columns)
   local eighths = math.floor(math.max(0, math.min(1, part)) * columns * 8 + 0.5)
   return ("█"):rep(math.floor(eighths / 8)) .. EIGHTHS[eighths % 8]
end

local function stacked_row(c, j, y, columns)
   local parts, sum, drawn = {}, 0, 0
   for i, s in ipairs(c.series) do
      sum = sum + (s.y[j] or 0)
      local to = math.floor(y:at(sum) * columns + 0.5)
      parts[i] = SHADES[(i - 1) % #SHADES + 1]:rep(math.max(0, to - drawn))
      drawn = math.max(drawn, to)
   end
   return table.concat(parts) .. " " .. y:text(sum)
end

local function widest(words)
   local w = 0
   for _, word in ipairs(words) do w = math.max(w, width(word)) end
   return w
end

-- What a bar of each series says, as text, for one label.
local function values(c, j, y)
   local texts = {}
   for i, s in ipairs(c.series) do texts[i] = s.y[j] and y:text(s.y[j]) or "-" end
   return texts
end

local function bars(c, columns)
   local _, y = axis.of(c, 5, 5)
   local names, longest = {}, 0
   for i, s in ipairs(c.series) do
      names[i] = not c.stacked and #c.series > 1 and (s.name or "") .. " " or ""
   end
   for j = 1, #c.labels do longest = math.max(longest, widest(values(c, j, y))) end
   local lw, nw = widest(c.labels), widest(names)
   local room = math.max(8, columns - lw - nw - longest - 4)
   local out = { c.title }
   out[#out + 1] = c.x or c.y
   if c.stacked then legend(out, c, SHADES, columns) end
   for j, label in ipairs(c.labels) do
      if c.stacked then
         out[#out + 1] = right(label, lw) .. " │" .. stacked_row(c, j, y, room)
      else
         local texts = values(c, j, y)
         for i, s in ipairs(c.series) do
            local v = s.y[j]
            out[#out + 1] = right(i == 1 and label or "", lw) .. " " .. left(names[i], nw)
               .. "│" .. bar(v and y:can_show(v) and y:at(v) or 0, room) .. " "
               .. texts[i]
         end
      end
   end
   return out
end

-- The text of a chart, at most @columns wide; lines take @rows for the plot.
function M.draw(c, columns, rows)
   return trimmed(c.kind == "bars" and bars(c, columns) or lines(c, columns, rows))
end

return M
