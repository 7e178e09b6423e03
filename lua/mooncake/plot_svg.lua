-- plot_svg.lua - charts as SVG. Sizes are in units of the view box, which browsers scale;
-- colours are in the style sheet, one set for light and one for dark. What stands under
-- the pointer says its values (the title elements). Text is measured by the eye of a
-- needle: so many units a character.

local axis = require "mooncake.plot_axis"

local M = {}

-- The colours of series: those of Okabe and Ito ("Color Universal Design", 2008), which
-- people with any colour vision can tell apart, darker or lighter where the ground
-- needs it, and without the yellow.
M.style = [[
svg.plot { --ink: #1b1f24; --soft: #656d76; --grid: #d9dee3; --ground: #ffffff;
  --s1: #0072b2; --s2: #d55e00; --s3: #009e73; --s4: #cc79a7; --s5: #b8860b;
  --s6: #3a9bd9; --s7: #6a4c93; --s8: #444b54; --mark: #b42318;
  font: 12px system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
@media (prefers-color-scheme: dark) {
svg.plot { --ink: #e6edf3; --soft: #9aa4af; --grid: #30363d; --ground: #0d1117;
  --s1: #4ea8de; --s2: #ff8c42; --s3: #2ec4a0; --s4: #e39ac3; --s5: #e0b040;
  --s6: #8ecdf5; --s7: #b197d8; --s8: #aab2bb; --mark: #ff7b72; } }
svg.plot .ground { fill: var(--ground); }
svg.plot text { fill: var(--soft); }
svg.plot .title { fill: var(--ink); font-size: 14px; font-weight: 600; }
svg.plot .name { fill: var(--ink); }
svg.plot .grid { stroke: var(--grid); stroke-width: 1; }
svg.plot .axis { stroke: var(--soft); stroke-width: 1; }
svg.plot .line { fill: none; stroke-width: 2; stroke-linejoin: round;
  stroke-linecap: round; }
svg.plot .bar:hover { opacity: 0.75; }
svg.plot .hit { fill: transparent; stroke: none; }
svg.plot .hit:hover { fill: currentColor; fill-opacity: 0.3; }
svg.plot .mark { stroke: var(--mark); stroke-width: 1.5; stroke-dasharray: 6 4; }
svg.plot .marked { fill: var(--mark); }
svg.plot .dashed { stroke-dasharray: 7 4; }
]]

local WIDTH, PLOT_HEIGHT, CHAR = 640, 230, 6.7

local ENTITY = { ["&"] = "&amp;", ["<"] = "&lt;", [">"] = "&gt;", ['"'] = "&quot;" }

function M.escape(s)
   return (tostring(s):gsub('[&<>"]', ENTITY))
end

local function chars(s)
   local _, tails = s:gsub("[\128-\191]", "")
   return #s - tails
end

-- ---- the canvas: a list of elements and where the plot lies in it ------

local Canvas = {}
Canvas.__index = Canvas

function Canvas:add(fmt, ...)
   self[#self + 1] = fmt:format(...)
end

function Canvas:words(x, y, text, class, anchor)
   self:add('<text x="%.1f" y="%.1f"%s%s>%s</text>', x, y,
      class and ' class="' .. class .. '"' or "",
      anchor and ' text-anchor="' .. anchor .. '"' or "", M.escape(text))
end

function Canvas:rule(x1, y1, x2, y2, class)
   self:add('<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" class="%s"/>', x1, y1, x2, y2,
      class)
end

function Canvas:px(part) return self.left + part * (self.right - self.left) end
function Canvas:py(part) return self.bottom - part * (self.bottom - self.top) end

local function color(c, i)
   return ("var(--s%d)"):format(((c.series[i].color or i) - 1) % 8 + 1)
end

-- ---- around the plot ----------------------------------------------------

-- Title, what y is, and the names of the series; the height that this takes.
local function header(canvas, c, y)
   if c.title then
      canvas:words(0, y + 14, c.title, "title")
      y = y + 24
   end
   local named = 0
   for _, s in ipairs(c.series) do named = named + (s.name and 1 or 0) end
   if named > 1 or named == 1 and c.kind == "lines" then
      local x = 0
      for i, s in ipairs(c.series) do
         local name = s.name or ""
         local w = 20 + chars(name) * CHAR + 16
         if x > 0 and x + w > WIDTH then x, y = 0, y + 18 end
         if c.kind == "bars" then
            canvas:add('<rect x="%.1f" y="%.1f" width="12" height="12" rx="2" '
               .. 'fill="%s"/>', x, y + 1, color(c, i))
         else
            canvas:add('<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" class="line%s" '
               .. 'stroke="%s"/>', x, y + 7, x + 15, y + 7, s.dashed and " dashed" or "",
               color(c, i))
         end
         canvas:words(x + 20, y + 11, name, "name")
         x = x + w
      end
      y = y + 22
   end
   if c.y then
      canvas:words(0, y + 11, c.y)
      y = y + 20
   end
   return y + 6
end

local function y_axis(canvas, y)
   local widest = 0
   for _, v in ipairs(y.ticks) do widest = math.max(widest, chars(y:text(v))) end
   canvas.left, canvas.right = widest * 7.6 + 10, WIDTH - 14
   for _, v in ipairs(y.ticks) do
      local at = canvas:py(y:at(v))
      canvas:rule(canvas.left, at, canvas.right, at, "grid")
      canvas:words(canvas.left - 8, at + 4, y:text(v), nil, "end")
   end
end

-- Values or names below the axis, as many as there is room for.
local function labels(canvas, items)
   local free = -math.huge
   for _, item in ipairs(items) do
      local half = chars(item.text) * CHAR / 2
      if item.at - half > free then
         local anchor, x = "middle", item.at
         if x + half > WIDTH then anchor, x = "end", WIDTH end
         canvas:words(x, canvas.bottom + 18, item.text, nil, anchor)
         free = item.at + half + 8
      end
   end
end

local function x_axis(canvas, x)
   local items = {}
   for i, v in ipairs(x.ticks) do
      local at = canvas:px(x:at(v))
      canvas:rule(at, canvas.bottom, at, canvas.bottom + 4, "axis")
      items[i] = { at = at, text = x:text(v) }
   end
   labels(canvas, items)
end

local function marks(canvas, c, x, y)
   for _, m in ipairs(c.marks) do
      if m.y then
         local at = canvas:py(y:at(m.y))
         canvas:rule(canvas.left, at, canvas.right, at, "mark")
         canvas:words(canvas.right, at - 5, m.label or "", "marked", "end")
      elseif x and m.x >= x.lo and m.x <= x.hi then
         local at = canvas:px(x:at(m.x))
         local near_end = at + chars(m.label or "") * CHAR > WIDTH
         canvas:rule(at, canvas.top, at, canvas.bottom, "mark")
         canvas:words(at + (near_end and -5 or 5), canvas.top + 12, m.label or "",
            "marked", near_end and "end" or nil)
      end
   end
end

-- ---- lines --------------------------------------------------------------

-- Of points that fall on one unit of the picture the first, last, lowest and highest
-- make the same line as all of them.
local function thinned(points)
   if #points < 2 * WIDTH then return points end
   local out, i = {}, 1
   while i <= #points do
      local first, last = i, i
      local lo, hi = i, i
      while points[last + 1] and
         math.floor(points[last + 1].px) == math.floor(points[first].px) do
         last = last + 1
         if points[last].py < points[lo].py then lo = last end
         if points[last].py > points[hi].py then hi = last end
      end
      local at = { first, math.min(lo, hi), math.max(lo, hi), last }
      for k, j in ipairs(at) do
         if j ~= at[k - 1] then out[#out + 1] = points[j] end
      end
      i = last + 1
   end
   return out
end

-- What the axes can show of a series; what lies outside of them is cut off by the clip.
local function points_of(canvas, s, x, y)
   local points = {}
   for i = 1, math.min(#s.x, #s.y) do
      if x:can_show(s.x[i]) and y:can_show(s.y[i]) then
         points[#points + 1] = { x = s.x[i], y = s.y[i], px = canvas:px(x:at(s.x[i])),
            py = canvas:py(y:at(s.y[i])) }
      end
   end
   return thinned(points)
end

local function path(points, step)
   local d = {}
   for i, p in ipairs(points) do
      if i == 1 then
         d[i] = ("M%.1f %.1f"):format(p.px, p.py)
      elseif step then
         d[i] = ("H%.1fV%.1f"):format(p.px, p.py)
      else
         d[i] = ("L%.1f %.1f"):format(p.px, p.py)
      end
   end
   return table.concat(d)
end

-- At most 60 places of a line say what they are.
local function tooltips(canvas, s, points, x, y, ink)
   local every = math.max(1, math.ceil(#points / 60))
   local few = #points <= 30 and not s.step
   for i = 1, #points, every do
      local p = points[i]
      if few then
         canvas:add('<circle cx="%.1f" cy="%.1f" r="2.5" fill="%s"/>', p.px, p.py, ink)
      end
      canvas:add('<circle cx="%.1f" cy="%.1f" r="7" class="hit" color="%s"><title>%s%s: '
         .. '%s</title></circle>', p.px, p.py, ink,
         s.name and M.escape(s.name) .. "\n" or "", M.escape(x:text(p.x)),
         M.escape(y:text(p.y)))
   end
end

local function lines(canvas, c, x, y, id)
   canvas:add('<clipPath id="%s"><rect x="%.1f" y="%.1f" width="%.1f" height="%.1f"/>'
      .. '</clipPath><g clip-path="url(#%s)">', id, canvas.left - 3, canvas.top - 3,
      canvas.right - canvas.left + 6, canvas.bottom - canvas.top + 6, id)
   local all = {}
   for i, s in ipairs(c.series) do
      all[i] = points_of(canvas, s, x, y)
      canvas:add('<path d="%s" class="line%s" stroke="%s"/>', path(all[i], s.step),
         s.dashed and " dashed" or "", color(c, i))
   end
   for i, s in ipairs(c.series) do tooltips(canvas, s, all[i], x, y, color(c, i)) end
   canvas:add "</g>"
end

-- ---- bars ---------------------------------------------------------------

local function one_bar(canvas, c, i, j, x, w, from, to)
   local s, label = c.series[i], c.labels[j]
   local top, bottom = canvas:py(math.max(0, math.min(1, to))), canvas:py(from)
   if c.edges then label = label .. " to " .. axis.format(c.x_format)(c.edges[j + 1]) end
   canvas:add('<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" fill="%s" class="bar">'
      .. '<title>%s%s: %s</title></rect>', x, top, w, math.max(0, bottom - top),
      color(c, i), s.name and M.escape(s.name) .. "\n" or "", M.escape(label),
      M.escape(axis.format(c.y_format)(s.y[j])))
end

-- A name under each bar; aslant where they are too long to stand side by side, and as
-- steep as it takes for the first ones to stay on the picture.
local function names(canvas, list, band)
   local longest, items, slant = 0, {}, math.rad(30)
   for j, text in ipairs(list) do
      local at, long = canvas.left + (j - 0.5) * band, chars(text) * CHAR
      longest = math.max(longest, long)
      if long > at then slant = math.max(slant, math.acos(at / long)) end
      items[j] = { text = text, at = at }
   end
   if longest + 8 <= band or band < 14 then return labels(canvas, items) end
   local y = canvas.bottom + 16
   for _, item in ipairs(items) do
      canvas:add('<text x="%.1f" y="%.1f" text-anchor="end" transform="rotate(%.0f %.1f '
         .. '%.1f)">%s</text>', item.at + 4, y, -math.deg(slant), item.at + 4, y,
         M.escape(item.text))
   end
   canvas.below = math.max(0, longest * math.sin(slant) - 6)
end

local function bars(canvas, c, y)
   local n, m = #c.labels, #c.series
   local band = (canvas.right - canvas.left) / n
   local gap = c.edges and math.min(1, band * 0.1) or band * 0.2
   local each = (band - gap) / (c.stacked and 1 or m)
   local base = y:at(y.log and y.lo or math.max(0, y.lo))
   for j = 1, n do
      local sum, x = 0, canvas.left + (j - 1) * band + gap / 2
      for i, s in ipairs(c.series) do
         local v = s.y[j]
         if v and c.stacked then
            one_bar(canvas, c, i, j, x, each, y:at(sum), y:at(sum + v))
            sum = sum + v
         elseif v and y:can_show(v) then
            one_bar(canvas, c, i, j, x + (i - 1) * each, each, base, y:at(v))
         end
      end
   end
   if not c.edges then names(canvas, c.labels, band) end
end

-- ---- documents ----------------------------------------------------------

-- Ids are of the whole page when charts lie in one.
local made = 0

local function group(c, y)
   local xs, ys = axis.of(c, 7, 5)
   local canvas = setmetatable({ below = 0 }, Canvas)
   canvas.top = header(canvas, c, y)
   canvas.bottom = canvas.top + PLOT_HEIGHT
   y_axis(canvas, ys)
   made = made + 1
   if c.kind == "bars" then
      bars(canvas, c, ys)
   else
      lines(canvas, c, xs, ys, "plot" .. made)
   end
   if xs then x_axis(canvas, xs) end
   if c.x then
      canvas:words((canvas.left + canvas.right) / 2, canvas.bottom + canvas.below + 36,
         c.x, nil, "middle")
   end
   canvas:rule(canvas.left, canvas.bottom, canvas.right, canvas.bottom, "axis")
   marks(canvas, c, xs, ys)
   return table.concat(canvas, "\n"), canvas.bottom + canvas.below + (c.x and 42 or 24)
end

-- One svg element; with @style it stands alone.
function M.element(charts, style)
   local out, bottom = {}, 0
   for i, c in ipairs(charts) do
      out[i], bottom = group(c, bottom + (i > 1 and 24 or 0))
   end
   local pad = style and 16 or 0
   local w, h = WIDTH + 2 * pad, bottom + 2 * pad
   local box = ("%d %d %d %d"):format(-pad, -pad, w, h)
   local size = style and (' width="%d" height="%d"'):format(w, h) or ""
   local ground = style and ('\n<style>%s</style>\n<rect x="%d" y="%d" width="%d" '
      .. 'height="%d" class="ground"/>'):format(style, -pad, -pad, w, h) or ""
   return ('<svg xmlns="http://www.w3.org/2000/svg" class="plot" role="img" '
      .. 'aria-label="%s" viewBox="%s"%s>%s\n%s\n</svg>\n'):format(
      M.escape(charts[1] and charts[1].title or ""), box, size, ground,
      table.concat(out, "\n"))
end

function M.document(...)
   return M.element({ ... }, M.style)
end

return M
