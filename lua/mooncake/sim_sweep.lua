-- sim_sweep.lua - the same simulation with other values of some options: a process for
-- each point of the grid, one per CPU at a time, results in the order of the grid.

local json = require "mooncake.json"
local proc = require "mooncake.proc"

local sweep = {}

-- ---- the grid --------------------------------------------------------------

local function values_of(text)
   local list, separator = {}, text:find ";" and "[^;]+" or "[^,]+"
   for value in text:gmatch(separator) do
      list[#list + 1] = value:match "^%s*(.-)%s*$"
   end
   return list
end

-- The axes of a list of words NAME=VALUE,VALUE... (or with ";" between values that have
-- commas themselves): { { name =, values = }, ... }; nil, why. specs: the options of the
-- command; those of which sweepable(name) is false are refused.
function sweep.axes(words, specs, sweepable)
   local axes, seen = {}, {}
   for _, word in ipairs(words) do
      local name, rest = word:match "^%-*([%w_-]+)=(.+)$"
      if not name then
         return nil, ("--sweep takes NAME=VALUE,VALUE..., not '%s'"):format(word)
      end
      name = name:gsub("_", "-")
      if not specs[name] or not sweepable(name) then
         return nil, ("--sweep: no option '%s' to sweep"):format(name)
      end
      if seen[name] then return nil, ("--sweep: '%s' is there twice"):format(name) end
      seen[name] = true
      axes[#axes + 1] = { name = name, values = values_of(rest) }
   end
   return axes
end

-- Every point of the grid, the last axis running fastest: lists of values, one per axis.
function sweep.points(axes)
   local points = { {} }
   for _, axis in ipairs(axes) do
      local longer = {}
      for _, point in ipairs(points) do
         for _, value in ipairs(axis.values) do
            local p = { unpack(point) }
            p[#p + 1] = value
            longer[#longer + 1] = p
         end
      end
      points = longer
   end
   return points
end

-- "speed=2 policy=random"
function sweep.label(axes, point)
   local parts = {}
   for i, axis in ipairs(axes) do parts[i] = axis.name .. "=" .. point[i] end
   return table.concat(parts, " ")
end

-- ---- one point -------------------------------------------------------------

-- An option as a word of the command line; nil if it is as by default.
local function word_of(name, value, spec)
   local default = spec[1]
   if value == nil or value == default then return nil end
   if type(default) ~= "boolean" then return ("--%s=%s"):format(name, tostring(value)) end
   return (tostring(value) == "true" and "--" or "--no-") .. name
end

-- The command line of a point: the options given, with its own values.
local function argv_of(opt, args, specs, sweepable, axes, point)
   local argv, own = { proc.exe(), "sim", "--json", "--quiet" }, {}
   for i, axis in ipairs(axes) do own[axis.name] = point[i] end
   local names = {}
   for name in pairs(specs) do
      if sweepable(name) then names[#names + 1] = name end
   end
   table.sort(names)
   for _, name in ipairs(names) do
      local value = own[name]
      if value == nil then value = opt[name:gsub("-", "_")] end
      argv[#argv + 1] = word_of(name, value, specs[name])
   end
   argv[#argv + 1] = "--"
   for _, word in ipairs(args) do argv[#argv + 1] = word end
   return argv
end

-- In a group of its own: of a terminal's Ctrl-C we hear, and pass it on once.
local function start(argv)
   argv.stdout, argv.stderr, argv.stdin = "pipe", "pipe", "null"
   argv.group, argv.env = true, { MOONCAKE_SIM_CHILD = 1 }
   return proc.spawn(argv)
end

-- The result of a process that has ended: nil, why, and its exit status.
local function result_of(p)
   local why, status = p.err:all(), p:wait()
   p:close()
   local result = p.out.text ~= "" and json.decode(p.out.text)
   if result and (status == 0 or status == 130) then return result end
   return nil, (why:gsub("^mooncake sim: ", ""):gsub("%s+$", "")), status
end

-- ---- all of them -----------------------------------------------------------

local TICK_MS = 20

local function stop(running)
   for _, job in ipairs(running) do job.p:kill "KILL" end
   for _, job in ipairs(running) do
      job.p:wait()
      job.p:close()
   end
end

local function interrupt(running)
   for _, job in ipairs(running) do job.p:kill "INT" end
end

-- Take from the running ones what they write; those that have ended leave the list.
local function collect(running, results)
   for i = #running, 1, -1 do
      local job = running[i]
      local more, why = job.p.out:fill(TICK_MS / #running)
      if not more and why == "eof" then
         table.remove(running, i)
         local result, status
         result, why, status = result_of(job.p)
         if not result then return nil, why, status, job end
         results[job.at] = result
      end
   end
   return true
end

-- The points that were run, and their results.
local function those_run(points, results)
   local ran = { runs = {}, points = {}, interrupted = results.interrupted }
   for i, point in ipairs(points) do
      if results[i] then
         ran.runs[#ran.runs + 1], ran.points[#ran.points + 1] = results[i], point
      end
   end
   return ran
end

-- Run all points. hooks: stopped() says that it should end early, on_progress(done, n).
-- Returns { points =, runs =, interrupted = true if it did }; nil, why, and the exit
-- status of the one that failed.
function sweep.run(opt, args, specs, sweepable, axes, jobs, hooks)
   local points, running, results, next_point = sweep.points(axes), {}, {}, 1
   local done = 0
   while #running > 0 or next_point <= #points do
      if not results.interrupted and hooks.stopped() then
         results.interrupted = true
         next_point = #points + 1
         interrupt(running)
      end
      while #running < jobs and next_point <= #points do
         local p, why = start(argv_of(opt, args, specs, sweepable, axes,
                                      points[next_point]))
         if not p then
            stop(running)
            return nil, why, 1
         end
         table.insert(running, 1, { p = p, at = next_point })
         next_point = next_point + 1
      end
      local before = #running
      local ok, why, status, job = collect(running, results)
      if not ok then
         stop(running)
         return nil, sweep.label(axes, points[job.at]) .. ": " .. why, status
      end
      done = done + before - #running
      hooks.on_progress(done, #points)
   end
   return those_run(points, results)
end

return sweep
