-- mktrace.lua - make a request trace, or print the profile of one.
--
-- Run it with `mooncake run scripts/mktrace.lua ...`; to make a trace, plain
-- `luajit scripts/mktrace.lua ...` in the checkout does as well.

local usage = [[
Usage: mooncake run scripts/mktrace.lua [OPTION...]
Write a Mooncake-format trace to standard output.

  --requests N     how many requests (default: as many as the profile was of)
  --seed N         the same seed gives the same trace (default 1)
  --like FILE      with the statistics of this trace (default: those of the
                   public conversation trace)
  --think X        factor on the pauses between the turns of a session
                   (default: N over the requests of the profile)
  --output FILE    write there instead

  --measure FILE   instead: print the profile of a trace as Lua text
]]

package.path = "lua/?.lua;lua/?/init.lua;" .. package.path
local tracegen = require "mooncake.tracegen"

local function fail(fmt, ...)
   io.stderr:write("mktrace: ", fmt:format(...), "\n")
   os.exit(2)
end

local function options(args)
   local opt = {}
   local numbers = { requests = true, seed = true, think = true }
   local words = { like = true, output = true, measure = true }
   local i = 1
   while args[i] do
      local name = args[i]:match "^%-%-(%a+)$"
      if name == "help" then
         io.write(usage)
         os.exit(0)
      end
      if not name or not (numbers[name] or words[name]) then
         fail("unknown argument '%s'; --help lists the options", args[i])
      end
      local value = args[i + 1] or fail("--%s needs a value", name)
      opt[name] = numbers[name] and
         (tonumber(value) or fail("--%s: '%s' is not a number", name, value)) or value
      i = i + 2
   end
   return opt
end

local function open(path)
   local reader, why = require "mooncake.trace".open(path)
   return reader or fail("%s", why)
end

local function measure(path)
   local profile, why = tracegen.measure(open(path))
   return profile or fail("%s", why)
end

local function make(opt)
   local out = io.stdout
   if opt.output then
      local file, why = io.open(opt.output, "w")
      out = file or fail("%s", why)
   end
   local profile = opt.like and measure(opt.like) or nil
   for req in tracegen.generate { profile = profile, requests = opt.requests,
      seed = opt.seed, think = opt.think } do
      out:write(tracegen.line(req), "\n")
   end
   local ok, why = out:flush()
   if not ok then fail("cannot write the trace: %s", why or "unknown reason") end
end

local opt = options(arg)
if opt.measure then
   io.write(tracegen.text(measure(opt.measure)))
else
   make(opt)
end
