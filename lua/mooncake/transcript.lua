-- transcript.lua - runs a transcript: commands with what they must print, in the form
-- of cram. The whole file is one shell, so variables and functions stay.

local ffi = require "ffi"
local proc = require "mooncake.proc"
local util = require "mooncake.util"

ffi.cdef [[
int mcl_regcomp(void *re, const char *pattern, int flags) __asm__("regcomp");
int mcl_regexec(const void *re, const char *s, size_t n, void *m, int flags)
                __asm__("regexec");
void mcl_regfree(void *re) __asm__("regfree");
]]

local transcript = {}

-- ---- reading ---------------------------------------------------------------

-- Commands: { line =, text =, want = {lines}, status = }.
local function parse(text)
   local steps, step, n = {}, nil, 0
   for line in text:gmatch "([^\n]*)\n?" do
      n = n + 1
      local command, more = line:match "^  %$ (.*)$", line:match "^  > ?(.*)$"
      if command then
         step = { line = n, text = command, want = {}, status = 0 }
         steps[#steps + 1] = step
      elseif more and step and #step.want == 0 then
         step.text = step.text .. "\n" .. more
      elseif line:match "^  " and step then
         local status = line:match "^  %[(%d+)%]$"
         if status then
            step.status = tonumber(status)
         else
            step.want[#step.want + 1] = line:sub(3)
         end
      elseif line ~= "" then
         step = nil
      end
   end
   return steps
end

-- ---- matching --------------------------------------------------------------

local function glob_pattern(glob)
   local p = glob:gsub("\\?.", function(c)
      if c == "*" then return ".*" end
      if c == "?" then return "." end
      return "%" .. c:sub(-1)
   end)
   -- "%a" would be a class: only what is not alphanumeric may be escaped.
   return "^" .. p:gsub("%%(%w)", "%1") .. "$"
end

local function regex_match(pattern, s)
   local re = ffi.new "uint64_t[64]"
   pattern = "^(" .. pattern:gsub("\\d", "[0-9]") .. ")$"
   if ffi.C.mcl_regcomp(re, pattern, 1) ~= 0 then return false end
   local found = ffi.C.mcl_regexec(re, s, 0, nil, 0) == 0
   ffi.C.mcl_regfree(re)
   return found
end

local function unescape(s)
   local plain = { n = "\n", t = "\t", r = "\r", ["\\"] = "\\" }
   s = s:gsub("\\x(%x%x)", function(h) return string.char(tonumber(h, 16)) end)
   return (s:gsub("\\([ntr\\])", plain))
end

local function line_matches(want, got)
   if want == got then return true end
   local body, kind = want:match "^(.*) %((%S+)%)$"
   if kind == "glob" then return got:find(glob_pattern(body)) ~= nil end
   if kind == "re" then return regex_match(body, got) end
   if kind == "esc" then return unescape(body) == got end
   return false
end

-- ---- running ---------------------------------------------------------------

local read_file = util.read_file

local function write_file(path, text)
   assert(util.write_file(path, text))
end

local function absolute(path)
   local dir = path:match "^(.*)/[^/]*$" or "."
   return (proc.run { "sh", "-c", 'cd "$1" && pwd', "sh", dir }:gsub("\n$", ""))
end

-- After each command the shell prints a line with the mark, its index and status.
local function script(steps, mark)
   local out = {}
   for i, step in ipairs(steps) do
      out[#out + 1] = step.text
      out[#out + 1] = ("echo %s %d $?"):format(mark, i)
   end
   return table.concat(out, "\n") .. "\n"
end

local function environment(path, dir)
   local bin = proc.exe():match "^(.*)/"
   return { PATH = bin .. ":" .. (os.getenv "PATH" or "/usr/bin:/bin"),
            TESTDIR = absolute(path), HOME = dir, TMPDIR = dir, LC_ALL = "C.UTF-8",
            TZ = "UTC", LANG = false, MOONCAKE_KEY_FILE = false, MC_LOG = false }
end

-- Run it: what was printed, and the status of the shell, nil if it took too long.
local function execute(path, steps, mark, dir, timeout_s)
   write_file(dir .. "/script", script(steps, mark))
   local work = dir .. "/work"
   os.execute("mkdir " .. work)
   local p = assert(proc.spawn {
      "sh", "-c", "cd " .. work .. " && . ../script",
      stdin = "null", stdout = dir .. "/output", stderr = "stdout",
      env = environment(path, work), group = true,
   })
   local status = p:wait(timeout_s * 1000)
   -- What it left in the background, too.
   proc.kill_group(p.pid)
   p:wait()
   return read_file(dir .. "/output") or "", status
end

-- Give each step that ran the lines it printed and its status.
local function distribute(steps, output, mark, status)
   local i, got = 1, {}
   for line, eol in output:gmatch "([^\n]*)(\n?)" do
      local before, index, status = line:match("^(.*)" .. mark .. " (%d+) (%d+)$")
      if index then
         if before ~= "" then got[#got + 1] = before .. " (no-eol)" end
         steps[i].got, steps[i].result = got, tonumber(status)
         i, got = tonumber(index) + 1, {}
      elseif line ~= "" or eol ~= "" then
         got[#got + 1] = line
      end
   end
   -- A step that ends the shell prints no mark: its status is that of the shell.
   if steps[i] then steps[i].got, steps[i].result = got, status end
end

local function step_matches(step)
   if not step.got or step.result ~= step.status or #step.got ~= #step.want then
      return false
   end
   for i, want in ipairs(step.want) do
      if not line_matches(want, step.got[i]) then return false end
   end
   return true
end

-- The lines as a diff that aligns what is equal (longest common subsequence).
local function diff(want, got)
   local n, m, len = #want, #got, {}
   for i = n + 1, 1, -1 do
      len[i] = {}
      for j = m + 1, 1, -1 do
         if i > n or j > m then
            len[i][j] = 0
         elseif line_matches(want[i], got[j]) then
            len[i][j] = len[i + 1][j + 1] + 1
         else
            len[i][j] = math.max(len[i + 1][j], len[i][j + 1])
         end
      end
   end
   local out, i, j = {}, 1, 1
   while i <= n or j <= m do
      if i <= n and j <= m and line_matches(want[i], got[j]) then
         out[#out + 1], i, j = "    " .. got[j], i + 1, j + 1
      elseif j > m or (i <= n and len[i + 1][j] >= len[i][j + 1]) then
         out[#out + 1], i = "  - " .. want[i], i + 1
      else
         out[#out + 1], j = "  + " .. got[j], j + 1
      end
   end
   return out
end

local function explain(path, step, timed_out)
   print(("failed: %s:%d: $ %s"):format(path, step.line, step.text:match "^[^\n]*"))
   for _, line in ipairs(diff(step.want, step.got or {})) do print(line) end
   if not step.result then
      print(timed_out and "  (took too long)" or "  (the shell had ended)")
   elseif step.result ~= step.status then
      print(("  exit status %d, want %d"):format(step.result, step.status))
   end
end

local function judge(path, steps, status, opt)
   local count = { passed = 0, failed = 0, skipped = 0 }
   if status == 77 then
      local last
      for _, step in ipairs(steps) do last = step.got and step.got[#step.got] or last end
      print(("skipped: %s: %s"):format(path, last or "no reason given"))
      count.skipped = 1
      return count
   end
   for _, step in ipairs(steps) do
      if not step_matches(step) then
         count.failed = 1
         explain(path, step, status == nil)
         if not step.result then break end
      end
   end
   if count.failed == 0 then count.passed = 1 end
   if opt.verbose and count.passed == 1 then print("passed: " .. path) end
   return count
end

-- Run a transcript, which counts as one test: { passed =, failed =, skipped = }.
function transcript.run_file(path, opt)
   local text, why = read_file(path)
   if not text then
      print("failed: " .. why)
      return { passed = 0, failed = 1, skipped = 0 }
   end
   local steps = parse(text)
   local mark = ("mark_%d_%.0f"):format(proc.pid(), proc.now() * 1e6)
   local dir = proc.run { "mktemp", "-d" }:gsub("\n$", "")
   local output, status = execute(path, steps, mark, dir, opt.timeout)
   os.execute("rm -rf " .. dir)
   distribute(steps, output, mark, status)
   return judge(path, steps, status, opt)
end

return transcript
