-- costs_fit.lua - a struct mc_cost from measured times: a profile, read from CSV, and the
-- least-squares fit to it. mooncake.costs is where to look for either.

local ffi = require "ffi"
local C = require "mooncake.ffi"

local costs_fit = {}

local cost_t = ffi.typeof "struct mc_cost"

-- ---- least squares ---------------------------------------------------------

-- Solve a x = b in place by elimination; nil if the equations depend on each other.
local function solve(a, b)
   local n = #b
   for c = 1, n do
      local pivot = c
      for r = c + 1, n do
         if math.abs(a[r][c]) > math.abs(a[pivot][c]) then pivot = r end
      end
      a[c], a[pivot], b[c], b[pivot] = a[pivot], a[c], b[pivot], b[c]
      if math.abs(a[c][c]) < 1e-9 then return nil end
      for r = 1, n do
         local f = r ~= c and a[r][c] / a[c][c] or 0
         for k = c, n do a[r][k] = a[r][k] - f * a[c][k] end
         b[r] = b[r] - f * b[c]
      end
   end
   for c = 1, n do b[c] = b[c] / a[c][c] end
   return b
end

local function dot(rows, f, g)
   local sum = 0
   for _, row in ipairs(rows) do sum = sum + row[f] * row[g] end
   return sum
end

-- The coefficients of some columns of rows that come closest to row.y; scaled, as the
-- columns differ by ten orders of magnitude.
local function least_squares(rows, columns)
   local a, b, scale = {}, {}, {}
   for i, c in ipairs(columns) do scale[i] = math.sqrt(dot(rows, c, c)) end
   for i, c in ipairs(columns) do
      if scale[i] == 0 then return nil end
      a[i], b[i] = {}, dot(rows, c, "y") / scale[i]
      for k, d in ipairs(columns) do a[i][k] = dot(rows, c, d) / scale[i] / scale[k] end
   end
   local x = solve(a, b)
   for i in ipairs(columns) do
      if x then x[i] = x[i] / scale[i] end
   end
   return x
end

local function distance(rows, x)
   local sum = 0
   for _, row in ipairs(rows) do
      sum = sum + (row[1] * x[1] + row[2] * x[2] + row[3] * x[3] - row.y) ^ 2
   end
   return sum
end

local SUBSETS = { { 1, 2, 3 }, { 1, 2 }, { 1, 3 }, { 2, 3 }, { 1 }, { 2 }, { 3 } }

-- As least_squares() of three columns, none negative: the best of all choices of which
-- are zero. nil if no row has a figure.
local function non_negative(rows)
   local best, best_distance
   for _, columns in ipairs(SUBSETS) do
      local found, x, ok = least_squares(rows, columns), { 0, 0, 0 }, true
      for i, c in ipairs(found and columns or {}) do
         x[c], ok = found[i], ok and found[i] >= 0
      end
      local d = found and ok and distance(rows, x)
      if d and (not best or d < best_distance * (1 - 1e-9)) then
         best, best_distance = x, d
      end
   end
   return best
end

-- ---- fitting ---------------------------------------------------------------

-- What counts is the error in parts of a time, not in seconds: a short prompt's first
-- token matters as much to who waits for it.
local function weighed(a, b, c, y, seconds)
   return { a / seconds, b / seconds, c / seconds, y = y / seconds }
end

local function fit_prefill(rows)
   local list = {}
   for i, r in ipairs(rows) do
      local n, p = r.tokens, r.prefix or 0
      list[i] = weighed(1, n, (p + n) ^ 2 - p ^ 2, r.seconds, r.seconds)
   end
   return non_negative(list)
end

-- Iterations of which computing is the bound, not reading weights, say nothing about
-- decode_s; which ones those are depends on it.
local function fit_decode(rows, token_s)
   local x
   for _ = 1, 4 do
      local list = {}
      for i, r in ipairs(rows) do
         local compute_s = r.sequences * token_s
         local bound = x and compute_s > x[1]
         list[i] = weighed(bound and 0 or 1, r.sequences, r.context,
                           r.seconds - (bound and compute_s or 0), r.seconds)
      end
      x = non_negative(list)
   end
   return x
end

local function predict(cost, row)
   if row.kind == "prefill" then
      return C.mc_cost_prefill_s(cost, row.tokens, row.prefix or 0)
   end
   return C.mc_cost_decode_s(cost, row.sequences, row.context)
end

local function report_of(cost, rows)
   local report = { rows = #rows, rms = 0, worst = 0, residuals = {} }
   for i, row in ipairs(rows) do
      local part = predict(cost, row) / row.seconds - 1
      report.residuals[i] = part
      report.rms = report.rms + part ^ 2 / #rows
      if math.abs(part) > math.abs(report.worst) then report.worst = part end
   end
   report.rms = math.sqrt(report.rms)
   return report
end

-- The cost that comes closest to measured times, no coefficient negative. Rows are
-- { kind = "prefill", tokens =, prefix =, seconds = } and { kind = "decode", sequences =,
-- context = (tokens of all), seconds = (of one iteration) }; there must be some of each.
-- Returns it with a report: rows, residuals[row], rms and worst, all as parts of the
-- time; or nil, why.
function costs_fit.fit(rows, kv_bytes_token)
   local kinds = { prefill = {}, decode = {} }
   for i, row in ipairs(rows) do
      local list = kinds[row.kind]
      if not list then error(("row %d is no prefill and no decode"):format(i), 2) end
      list[#list + 1] = row
   end
   for kind, list in pairs(kinds) do
      if #list == 0 then return nil, "a profile needs rows of " .. kind end
   end
   local p = fit_prefill(kinds.prefill)
   local d = fit_decode(kinds.decode, p[2])
   local cost = cost_t(p[1], p[2], p[3], d[1], d[2], d[3], kv_bytes_token)
   return cost, report_of(cost, rows)
end

-- ---- profiles --------------------------------------------------------------

local COLUMNS = { kind = true, tokens = true, prefix = true, sequences = true,
                  context = true, seconds = true }
local FIELDS = { prefill = { "tokens", "seconds" },
                 decode = { "sequences", "context", "seconds" } }

local function split(line)
   local cells = {}
   for cell in (line .. ","):gmatch "%s*(.-)%s*," do cells[#cells + 1] = cell end
   return cells
end

local function head_of(cells)
   for _, name in ipairs(cells) do
      if not COLUMNS[name] then return nil, ("no column '%s'"):format(name) end
   end
   return cells
end

-- A line of a profile as a row; nil and what is wrong with it.
local function row_of(head, cells)
   local row = {}
   for i, name in ipairs(head) do
      local cell = cells[i] or ""
      row[name] = name == "kind" and cell or tonumber(cell)
      if cell ~= "" and not row[name] then
         return nil, ("%s: '%s' is no number"):format(name, cell)
      end
   end
   local needed = FIELDS[row.kind]
   if not needed then
      return nil, ("kind '%s', want prefill or decode"):format(row.kind or "")
   end
   for _, name in ipairs(needed) do
      if not (row[name] and row[name] > 0 and row[name] < math.huge) then
         return nil, ("%s of a %s must be more than 0"):format(name, row.kind)
      end
   end
   if (row.prefix or 0) < 0 then return nil, "prefix is negative" end
   return row
end

-- The rows of a CSV file for fit(). Its first line names the columns: kind, tokens,
-- prefix, sequences, context, seconds; "#" begins a comment. nil, why if it is wrong.
function costs_fit.load(path)
   local f, why = io.open(path)
   if not f then return nil, why end
   local rows, head, n = {}, nil, 0
   for line in f:lines() do
      n = n + 1
      line = line:gsub("#.*", ""):gsub("%s+$", "")
      if line ~= "" and not head then
         head, why = head_of(split(line))
      elseif line ~= "" then
         rows[#rows + 1], why = row_of(head, split(line))
      end
      if why then break end
   end
   f:close()
   if why then return nil, ("%s:%d: %s"):format(path, n, why) end
   return rows
end

return costs_fit
