-- test.lua - runs the tests of one Lua file, and the helpers they see as `test`.
-- No order between tests; each ends with its processes killed, its folders removed and
-- garbage collected.

local proc = require "mooncake.proc"
local strict = require "mooncake.strict"

local test = {}
local cleanup = {}

-- ---- helpers ---------------------------------------------------------------

-- A value as text, tables by content.
local function show(v, depth)
   if type(v) == "string" then return ("%q"):format(v) end
   if type(v) ~= "table" or (depth or 0) > 4 then return tostring(v) end
   local parts, n = {}, #v
   for i = 1, n do parts[i] = show(v[i], (depth or 0) + 1) end
   local named = {}
   for k, x in pairs(v) do
      if type(k) ~= "number" or k < 1 or k > n or k % 1 ~= 0 then
         named[#named + 1] = tostring(k) .. " = " .. show(x, (depth or 0) + 1)
      end
   end
   table.sort(named)
   for _, s in ipairs(named) do parts[#parts + 1] = s end
   return "{ " .. table.concat(parts, ", ") .. " }"
end

local function same(a, b)
   if type(a) ~= "table" or type(b) ~= "table" then return a == b end
   for k, v in pairs(a) do
      if not same(v, b[k]) then return false end
   end
   for k in pairs(b) do
      if a[k] == nil then return false end
   end
   return true
end

local function fail(level, fmt, ...)
   error(fmt:format(...), level + 1)
end

function test.eq(got, want, what)
   if same(got, want) then return got end
   fail(2, "%sgot %s, want %s", what and what .. ": " or "", show(got), show(want))
end

function test.near(got, want, eps)
   eps = eps or math.abs(want) * 1e-9
   if type(got) == "number" and math.abs(got - want) <= eps then return got end
   fail(2, "got %s, want %s within %s", show(got), show(want), show(eps))
end

-- f(...) must raise an error that matches the pattern: its text, or user message.
function test.raises(pattern, f, ...)
   local ok, e = pcall(f, ...)
   if ok then fail(2, "no error, want one that matches %q", pattern) end
   local text = type(e) == "table" and e.user or tostring(e)
   if text:find(pattern) then return text end
   fail(2, "error %q does not match %q", text, pattern)
end

function test.skip(reason)
   error({ skip = reason or "no reason given" }, 0)
end

function test.defer(f)
   cleanup[#cleanup + 1] = f
end

local function shell_quote(s)
   return "'" .. s:gsub("'", "'\\''") .. "'"
end

function test.tmpdir()
   local path, status = proc.run { "mktemp", "-d" }
   if status ~= 0 then error("mktemp failed", 2) end
   path = path:gsub("\n$", "")
   test.defer(function() os.execute("rm -rf " .. shell_quote(path)) end)
   return path
end

-- As proc.spawn(), stdout a pipe unless said otherwise. Fails if it cannot start.
function test.spawn(argv)
   local spec = {}
   for k, v in pairs(argv) do spec[k] = v end
   if spec[1] == "mooncake" then spec[1] = proc.exe() end
   spec.stdout = spec.stdout or "pipe"
   local p, why = proc.spawn(spec)
   if not p then fail(2, "%s", why) end
   test.defer(function()
      if not p.status then
         p:kill "KILL"
         p:wait(5000)
      end
      p:close()
   end)
   return p
end

-- ---- running ---------------------------------------------------------------

local function trace(e)
   if type(e) == "table" then
      if e.skip then return e end
      e = e.user or show(e)
   end
   return debug.traceback(tostring(e), 2)
end

-- Without the runner's own frames at its end.
local function readable(text)
   text = text:gsub("\n%s*%[C%]: in function 'xpcall'.*$", "")
   return (text:gsub("\n", "\n    "))
end

local function clean_up()
   local ok, why = true, nil
   for i = #cleanup, 1, -1 do
      local done, e = xpcall(cleanup[i], trace)
      if not done and ok then ok, why = false, e end
      cleanup[i] = nil
   end
   local done, e = pcall(function() collectgarbage() collectgarbage() end)
   if not done and ok then return false, "in a finalizer: " .. tostring(e) end
   return ok, why
end

-- "ok", "failed" or "skipped", with the reason.
local function run_one(f)
   local ok, e = xpcall(f, trace)
   local cleaned, why = clean_up()
   if not ok and type(e) == "table" then return "skipped", e.skip end
   if not ok then return "failed", readable(e) end
   if not cleaned then return "failed", "after the test: " .. readable(tostring(why)) end
   return "passed"
end

local function load_file(path)
   local chunk, why = loadfile(path)
   if not chunk then return nil, why end
   test.dir = path:match "^(.*)/[^/]*$" or "."
   setfenv(chunk, strict.env { test = test, mooncake = require "mooncake" })
   local ok, tests = xpcall(chunk, trace)
   if not ok then return nil, type(tests) == "table" and tests or readable(tests) end
   if type(tests) ~= "table" then return nil, path .. " returns no table of tests" end
   return tests
end

local function report(path, name, outcome, why, opt, ms)
   if outcome == "passed" and not opt.verbose then return end
   local line = ("%s: %s: %s"):format(outcome, path, name)
   if outcome == "passed" then line = line .. (" (%.0f ms)"):format(ms) end
   print(why and line .. ": " .. why or line)
end

local function selected(tests, match)
   local names = {}
   for name, f in pairs(tests) do
      if type(f) == "function" and (not match or tostring(name):find(match)) then
         names[#names + 1] = name
      end
   end
   table.sort(names)
   return names
end

-- Run the tests of a file: { passed =, failed =, skipped = }. Prints all but what
-- passes.
function test.run_file(path, opt)
   local count = { passed = 0, failed = 0, skipped = 0 }
   local tests, why = load_file(path)
   if not tests then
      local outcome = type(why) == "table" and "skipped" or "failed"
      report(path, "loading", outcome, type(why) == "table" and why.skip or why, opt)
      count[outcome] = 1
      clean_up()
      return count
   end
   for _, name in ipairs(selected(tests, opt.match)) do
      local start = proc.now()
      local outcome, reason = run_one(tests[name])
      count[outcome] = count[outcome] + 1
      report(path, name, outcome, reason, opt, (proc.now() - start) * 1000)
      io.stdout:flush()
   end
   return count
end

return test
