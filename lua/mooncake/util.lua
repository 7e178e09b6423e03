-- util.lua - what commands share: units, tables of text, a progress line, errors that
-- a user made.

local ffi = require "ffi"
local proc = require "mooncake.proc"

ffi.cdef [[
int mcl_isatty(int fd) __asm__("isatty");
]]

local util = {}

-- ---- errors ----------------------------------------------------------------

-- End the command with a message and no traceback: the user made the error.
function util.fail(fmt, ...)
   error({ user = select("#", ...) > 0 and fmt:format(...) or fmt }, 0)
end

-- As assert(), for `nil, message` of what the user asked for.
function util.check(ok, why, ...)
   if not ok then util.fail("%s", tostring(why)) end
   return ok, why, ...
end

-- ---- whole files -----------------------------------------------------------

-- The text of a file, or nil and why not.
function util.read_file(path)
   local f, why = io.open(path)
   if not f then return nil, why end
   local text, failed = f:read "*a"
   f:close()
   if not text then return nil, path .. ": " .. failed end
   return text
end

-- Make a file of a text: true, or nil and why not.
function util.write_file(path, text)
   local f, why = io.open(path, "w")
   if not f then return nil, why end
   local ok, failed = f:write(text)
   if ok then
      ok, failed = f:close()
   else
      f:close()
   end
   if not ok then return nil, path .. ": " .. failed end
   return true
end

-- ---- units -----------------------------------------------------------------

local POWER = { K = 2 ^ 10, M = 2 ^ 20, G = 2 ^ 30, T = 2 ^ 40 }

-- "64K", "1.5M", "4GiB", "4096" as a number; nil for anything else.
function util.parse_bytes(s)
   local n, unit = tostring(s):match "^(%d+%.?%d*)%s*([KMGTkmgt]?)i?[Bb]?$"
   return n and tonumber(n) * (unit == "" and 1 or POWER[unit:upper()])
end

local function scaled(n, step, units, fmt)
   local i = 1
   while math.abs(n) >= step and i < #units do
      n, i = n / step, i + 1
   end
   return (i == 1 and "%g %s" or fmt):format(n, units[i])
end

local function round3(n)
   return n < 9.995 and "%.2f %s" or n < 99.95 and "%.1f %s" or "%.0f %s"
end

-- "512 B", "64 KiB", "1.5 GiB"
function util.bytes(n)
   n = tonumber(n)
   local text = scaled(n, 1024, { "B", "KiB", "MiB", "GiB", "TiB", "PiB" }, "%.1f %s")
   return (text:gsub("%.0 ", " "))
end

-- Bytes per second: "3.21 GB/s"
function util.rate(n)
   local units = { "B/s", "kB/s", "MB/s", "GB/s", "TB/s" }
   local i = 1
   n = tonumber(n)
   while n >= 999.5 and i < #units do
      n, i = n / 1000, i + 1
   end
   return (i == 1 and "%.0f %s" or round3(n)):format(n, units[i])
end

-- Seconds: "850 ns", "12.3 us", "4.56 ms", "7.89 s", "3m 20s", "2h 05m"
function util.duration(s)
   if s < 0 then return "-" .. util.duration(-s) end
   if s < 59.95 then
      local units = { "s", "ms", "us", "ns" }
      local i = 1
      while s < 0.9995 and i < #units and s > 0 do
         s, i = s * 1000, i + 1
      end
      return round3(s):format(s, units[i])
   end
   s = math.floor(s + 0.5)
   if s < 3600 then return ("%dm %02ds"):format(s / 60, s % 60) end
   return ("%dh %02dm"):format(s / 3600, s % 3600 / 60)
end

-- 1234567 as "1,234,567"
function util.commas(n)
   local text = ("%.0f"):format(tonumber(n))
   local sign, digits = text:match "^(-?)(%d+)$"
   digits = digits:reverse():gsub("(%d%d%d)", "%1,"):reverse():gsub("^,", "")
   return sign .. digits
end

-- ---- tables ----------------------------------------------------------------

-- Columns on a screen, as far as UTF-8 says.
local function width(s)
   local _, tails = s:gsub("[\128-\191]", "")
   return #s - tails
end

local function looks_numeric(rows, column)
   local any = false
   for _, row in ipairs(rows) do
      local cell = row[column]
      if cell ~= nil and cell ~= "" and cell ~= "-" then
         if not tostring(cell):match "^[-+]?%d" then return false end
         any = true
      end
   end
   return any
end

local function pad(cell, w, right)
   local blank = (" "):rep(w - width(cell))
   return right and blank .. cell or cell .. blank
end

-- Lines of aligned text. head is an array of titles or nil, rows an array of arrays of
-- strings, numbers and nils; columns of numbers (or what begins with one) go right,
-- unless align says "l" or "r" for them, as "llr".
function util.table(head, rows, align)
   local n = head and #head or 0
   for _, row in ipairs(rows) do n = math.max(n, table.maxn(row)) end
   local w, right, lines = {}, {}, {}
   for c = 1, n do
      w[c] = head and width(head[c] or "") or 0
      for _, row in ipairs(rows) do
         w[c] = math.max(w[c], row[c] ~= nil and width(tostring(row[c])) or 0)
      end
      local said = align and align:sub(c, c) or ""
      right[c] = said == "r" or said == "" and looks_numeric(rows, c)
   end
   local function line(row)
      local cells = {}
      for c = 1, n do
         local cell = row[c] ~= nil and tostring(row[c]) or ""
         cells[c] = pad(cell, w[c], right[c])
      end
      lines[#lines + 1] = (table.concat(cells, "  "):gsub("%s+$", ""))
   end
   if head then line(head) end
   for _, row in ipairs(rows) do line(row) end
   return table.concat(lines, "\n")
end

function util.print_table(head, rows, align)
   print(util.table(head, rows, align))
end

-- ---- terminals -------------------------------------------------------------

local FDS = { [io.stdin] = 0, [io.stdout] = 1, [io.stderr] = 2 }

-- Is this file (io.stdout and the like, or a descriptor) a terminal?
function util.is_tty(file)
   return ffi.C.mcl_isatty(FDS[file] or file) == 1
end

local progress = {}
progress.__index = progress

-- A line on stderr that follows work of opts.total bytes (nil: not known): redrawn on
-- a terminal ten times a second, else a line every 2 s. opts.label comes first;
-- opts.quiet turns it off. Call bar:update(done) as often as you like, bar:finish()
-- once.
function util.progress(opts)
   local tty = util.is_tty(io.stderr)
   local now = proc.now()
   return setmetatable({
      label = opts.label or "", total = opts.total, quiet = opts.quiet, tty = tty,
      every = tty and 0.1 or 2, start = now, shown = tty and 0 or now,
      done = 0, base = opts.base or 0,
   }, progress)
end

-- The rate over the last seconds: what a user sees change when a link breaks.
function progress:rate(now)
   local marks = self.marks or { { self.start, self.base } }
   self.marks = marks
   local first, last = marks[1], marks[#marks]
   if now - last[1] >= 0.25 then marks[#marks + 1] = { now, self.done } end
   if now - first[1] > 3 and #marks > 2 then table.remove(marks, 1) end
   return now > first[1] and (self.done - first[2]) / (now - first[1]) or 0
end

function progress:text(now)
   local rate = self:rate(now)
   local parts = { self.label ~= "" and self.label or nil }
   if self.total and self.total > 0 then
      local part = self.done / self.total
      if self.tty then
         local full = math.floor(part * 24)
         parts[#parts + 1] = "[" .. ("#"):rep(full) .. ("."):rep(24 - full) .. "]"
      end
      parts[#parts + 1] = ("%3.0f%%"):format(math.floor(part * 100))
      parts[#parts + 1] = util.bytes(self.done) .. " of " .. util.bytes(self.total)
   else
      parts[#parts + 1] = util.bytes(self.done)
   end
   parts[#parts + 1] = util.rate(rate)
   if self.total and self.done < self.total and rate > 0 then
      parts[#parts + 1] = "ETA " .. util.duration((self.total - self.done) / rate)
   end
   return table.concat(parts, "  ")
end

function progress:update(done)
   self.done = tonumber(done)
   if self.quiet then return end
   local now = proc.now()
   if now - self.shown < self.every then return end
   self.shown = now
   local text = self:text(now)
   io.stderr:write(self.tty and "\r\27[K" .. text or text .. "\n")
end

-- Leave the terminal as it was; with text, as the last line.
function progress:finish(text)
   if self.quiet then return end
   if self.tty then io.stderr:write "\r\27[K" end
   if text then io.stderr:write(text, "\n") end
end

-- ---- the environment of this process, and of those that it starts --------------------

ffi.cdef [[
int mcl_setenv(const char *name, const char *value, int overwrite) __asm__("setenv");
int mcl_unsetenv(const char *name) __asm__("unsetenv");
]]

-- nil: take it away.
function util.setenv(name, value)
   if value == nil then
      ffi.C.mcl_unsetenv(name)
   else
      ffi.C.mcl_setenv(name, tostring(value), 1)
   end
end

return util
