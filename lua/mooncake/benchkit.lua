-- benchkit.lua - what the benchmarks in tests/bench share: their options, the machine's
-- line, and a table of figures with bars.

local bench = require "mooncake.bench"
local json = require "mooncake.json"
local proc = require "mooncake.proc"
local util = require "mooncake.util"

local kit = {}

-- Options "--name VALUE" over @defaults, whose types they take; false: a flag.
function kit.options(argv, defaults)
   local opt, i = {}, 1
   for k, v in pairs(defaults) do opt[k] = v end
   while i <= #argv do
      local name = argv[i]:match "^%-%-(%a+)$"
      local default = defaults[name]
      if default == nil then util.fail("unknown option '%s'", argv[i]) end
      if default == false then
         opt[name] = true
      else
         i = i + 1
         local value = argv[i] or util.fail("--%s takes a value", name)
         opt[name] = type(default) ~= "number" and value or tonumber(value) or
                     util.fail("--%s takes a number", name)
      end
      i = i + 1
   end
   return opt
end

function kit.exists(path)
   local f = io.open(path)
   if f then f:close() end
   return f ~= nil
end

-- ---- the machine -----------------------------------------------------------

local function first_line(path, pattern)
   local f = io.open(path)
   local found
   for line in f and f:lines() or function() end do
      found = line:match(pattern)
      if found then break end
   end
   if f then f:close() end
   return found
end

local function machine()
   local ram = tonumber(first_line("/proc/meminfo", "^MemTotal:%s*(%d+)") or 0)
   return {
      cpu = first_line("/proc/cpuinfo", "^model name%s*:%s*(.+)") or "unknown CPU",
      cpus = proc.cpu_count(), memory = ram * 1024,
      kernel = first_line("/proc/sys/kernel/osrelease", "(.+)"),
      load = tonumber(first_line("/proc/loadavg", "^(%S+)")),
   }
end

-- Print it, and what the figures are.
function kit.print_machine(as_json, fmt, ...)
   local m = machine()
   if as_json then
      print(json.encode { machine = m })
      return
   end
   print(("%s, %d CPUs, %s, Linux %s, load %.2f"):format(m.cpu, m.cpus,
      util.bytes(m.memory), m.kernel, m.load))
   print(fmt:format(...) .. "\n")
end

-- ---- figures ---------------------------------------------------------------

local Figures = {}
Figures.__index = Figures

-- Rows of a figure and its bar, printed at the end, or each as JSON at once.
function kit.figures(as_json)
   return setmetatable({ json = as_json, rows = {}, missed = 0 }, Figures)
end

-- The median of @list; show(value) says it. bar: { least = } or { most = }.
function Figures:add(what, list, show, bar)
   local value, ok = bench.median(list), nil
   if bar then
      ok = value >= (bar.least or 0) and value <= (bar.most or math.huge)
      if not ok then self.missed = self.missed + 1 end
   end
   if self.json then
      print(json.encode { what = what, value = value, all = list, ok = ok,
                          least = bar and bar.least, most = bar and bar.most })
      return
   end
   self.rows[#self.rows + 1] = {
      what, show(value), bar and bar.least and ">= " .. show(bar.least) or
      bar and "<= " .. show(bar.most) or "", ok and "ok" or bar and "MISSED" or "",
   }
end

-- The table; the exit status.
function Figures:finish()
   if not self.json then
      util.print_table({ "what", "", "bar", "" }, self.rows, "lrrl")
      print(self.missed == 0 and "\nevery bar is met" or
            ("\n%d bars are missed"):format(self.missed))
   end
   return self.missed == 0 and 0 or 1
end

return kit
