-- plot_page.lua - one HTML file with charts, tables and text, which needs nothing else:
-- no script, no font, no picture from anywhere.

local svg = require "mooncake.plot_svg"

local M = {}

local STYLE = [[
:root { color-scheme: light dark; --page: #f6f7f9; --card: #ffffff; --ink: #1b1f24;
  --soft: #656d76; --edge: #dfe3e8; }
@media (prefers-color-scheme: dark) { :root { --page: #090c10; --card: #0d1117;
  --ink: #e6edf3; --soft: #9aa4af; --edge: #30363d; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans",
  sans-serif; }
main { max-width: 88rem; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
h1 { font-size: 1.7rem; margin: 0 0 0.25rem; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 0.5rem; }
p { margin: 0.25rem 0 0.75rem; color: var(--soft); max-width: 52rem; }
.figures, .charts { display: grid; gap: 1rem; margin: 0.75rem 0; }
.figures { grid-template-columns: repeat(auto-fill, minmax(9.5rem, 1fr)); }
.charts { grid-template-columns: repeat(auto-fill, minmax(min(100%, 30rem), 1fr)); }
.card { background: var(--card); border: 1px solid var(--edge); border-radius: 8px; }
.figures .card { padding: 0.6rem 0.9rem; }
.figures b { display: block; font-size: 1.25rem; font-weight: 600;
  font-variant-numeric: tabular-nums; }
.figures span { color: var(--soft); font-size: 0.85rem; }
figure { margin: 0; padding: 1rem; }
figure svg { display: block; width: 100%; height: auto; }
figcaption { color: var(--soft); font-size: 0.85rem; margin-top: 0.5rem; }
.table { overflow-x: auto; margin: 0.75rem 0; width: fit-content; max-width: 100%; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: 0.4rem 0.9rem; text-align: left; white-space: nowrap; }
th { font-weight: 600; border-bottom: 1px solid var(--edge); }
tr + tr td { border-top: 1px solid var(--edge); }
tbody tr:hover { background: var(--page); }
td.right, th.right { text-align: right; }
]]

local function paragraphs(out, text)
   for part in ((text or "") .. "\n\n"):gmatch "(.-)\n\n+" do
      if part:match "%S" then out[#out + 1] = "<p>" .. svg.escape(part) .. "</p>" end
   end
end

-- { value, what it is } each.
local function figures(out, list)
   if not list or #list == 0 then return end
   out[#out + 1] = '<div class="figures">'
   for _, f in ipairs(list) do
      out[#out + 1] = ('<div class="card"><b>%s</b><span>%s</span></div>'):format(
         svg.escape(f[1]), svg.escape(f[2]))
   end
   out[#out + 1] = "</div>"
end

local function charts(out, list)
   if not list or #list == 0 then return end
   out[#out + 1] = '<div class="charts">'
   for _, c in ipairs(list) do
      out[#out + 1] = '<figure class="card">' .. svg.element({ c })
      if c.note then
         out[#out + 1] = "<figcaption>" .. svg.escape(c.note) .. "</figcaption>"
      end
      out[#out + 1] = "</figure>"
   end
   out[#out + 1] = "</div>"
end

local function row(cells, right, tag)
   local line = {}
   for i, numeric in ipairs(right) do
      line[i] = ("<%s%s>%s</%s>"):format(tag, numeric and ' class="right"' or "",
         svg.escape(cells[i] ~= nil and cells[i] or ""), tag)
   end
   return "<tr>" .. table.concat(line) .. "</tr>"
end

-- Of which columns every cell that says something is a number.
local function numeric_columns(t)
   local right, n = {}, t.head and #t.head or 0
   for _, cells in ipairs(t.rows) do n = math.max(n, table.maxn(cells)) end
   for i = 1, n do
      right[i] = true
      for _, cells in ipairs(t.rows) do
         local text = cells[i] ~= nil and tostring(cells[i]) or "-"
         if text ~= "-" and not text:match "^[-+]?%d" then right[i] = false end
      end
   end
   return right
end

local function data(out, t)
   if not t then return end
   local right = numeric_columns(t)
   out[#out + 1] = '<div class="table card"><table>'
   if t.head then
      out[#out + 1] = "<thead>" .. row(t.head, right, "th") .. "</thead>"
   end
   out[#out + 1] = "<tbody>"
   for _, cells in ipairs(t.rows) do out[#out + 1] = row(cells, right, "td") end
   out[#out + 1] = "</tbody></table></div>"
end

function M.html(page)
   local out = { '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
      .. '<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>'
      .. svg.escape(page.title) .. "</title>\n<style>\n" .. STYLE .. svg.style
      .. "svg.plot { --ground: transparent; }\n</style>\n</head>\n<body>\n<main>",
      "<h1>" .. svg.escape(page.title) .. "</h1>" }
   paragraphs(out, page.text)
   for _, s in ipairs(page.sections) do
      out[#out + 1] = "<section>"
      if s.title then out[#out + 1] = "<h2>" .. svg.escape(s.title) .. "</h2>" end
      paragraphs(out, s.text)
      figures(out, s.figures)
      charts(out, s.charts)
      data(out, s.table)
      out[#out + 1] = "</section>"
   end
   out[#out + 1] = "</main>\n</body>\n</html>\n"
   return table.concat(out, "\n")
end

return M
