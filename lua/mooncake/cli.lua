-- cli.lua - the command line: finds the command, reads its options, reports errors.
--
-- A command is a module mooncake.cmd.NAME that returns
--
--   return {
--      usage = "cp [OPTIONS] SRC DST",
--      summary = "one line",
--      help = "long text",
--      options = {
--         verify = { false, "compare checksums" },
--         ["timeout-ms"] = { 1000, "give up after N milliseconds", "N" },
--         key = { nil, "file of the cluster key", "FILE", short = "k" },
--      },
--      run = function(opt, args) ... return exit_status end,
--   }
--
-- The usage text is the truth: words outside of brackets must be given, more than it
-- names are refused, "..." takes any number, and with "[ARG...]" at the end options
-- after the first word belong to someone else. The type of an option's default says
-- what it takes: false or true a flag (--name, --no-name), a number a number ("64K" is
-- 65536), anything else a string; number = true asks for one without a default, list =
-- true collects one value per use; hidden = true keeps it out of the help. opt has "-"
-- in names as "_".

local embedded = require "mooncake.embedded"
local strict = require "mooncake.strict"

local cli = {}

local function usage_error(fmt, ...)
   error({ user = fmt:format(...), status = 2 }, 0)
end

-- ---- commands --------------------------------------------------------------

-- Names of all commands, sorted.
function cli.names()
   local names = {}
   for module in pairs(embedded.files) do
      names[#names + 1] = module:match "^mooncake%.cmd%.([%w_-]+)$"
   end
   table.sort(names)
   return names
end

-- A command by name, or nil.
function cli.command(name)
   local module = "mooncake.cmd." .. name
   if not name:match "^%a[%w_-]*$" then return nil end
   if embedded.files[module] then return require(module) end
   -- Not in the program: perhaps a new one below MOONCAKE_LUA.
   local ok, found = pcall(require, module)
   if ok then return found end
   if not tostring(found):find("module '" .. module .. "' not found", 1, true) then
      error(found, 0)
   end
end

-- ---- options ---------------------------------------------------------------

local HELP = { false, "this text", short = "h" }

local function option_table(cmd)
   local specs = { help = HELP, h = HELP }
   for name, spec in pairs(cmd.options or {}) do
      name = name:gsub("_", "-")
      specs[name] = spec
      if spec.short then specs[spec.short] = spec end
   end
   return specs
end

local function defaults(cmd)
   local opt = {}
   for name, spec in pairs(cmd.options or {}) do
      opt[name:gsub("-", "_")] = spec.list and {} or spec[1]
   end
   return opt
end

local function is_flag(spec)
   return type(spec[1]) == "boolean"
end

local function number(text, flag)
   local util = require "mooncake.util"
   local n = tonumber(text) or util.parse_bytes(text)
   return n or usage_error("%s takes a number, not '%s'", flag, text)
end

local function store(opt, key, spec, value, flag)
   if spec.number or type(spec[1]) == "number" then value = number(value, flag) end
   if spec.list then
      table.insert(opt[key], value)
   else
      opt[key] = value
   end
end

-- "--name=value", "-n" as spec, name, value given with "=", and whether "--no-name".
local function find(specs, word)
   local name, value = word:match "^%-%-([^=]+)=(.*)$"
   name = name or word:match "^%-%-(.+)$" or word:match "^%-(.)$"
   local spec = name and specs[name]
   local base = not spec and name and name:match "^no%-(.+)$"
   if base and specs[base] and is_flag(specs[base]) then
      return specs[base], base, value, true
   end
   return spec, name, value, false
end

local function key_of(cmd, spec, name)
   for long, s in pairs(cmd.options or {}) do
      if s == spec then return (long:gsub("-", "_")) end
   end
   return name
end

-- Options and other words of argv from index first on.
function cli.parse(cmd, argv, first)
   local opt, args, specs = defaults(cmd), {}, option_table(cmd)
   local stop = cmd.usage:match "%[ARG%.%.%.%]$"
   local i = first
   while i <= #argv do
      local word = argv[i]
      if word == "--" or word == "-" or word:sub(1, 1) ~= "-" then
         if word ~= "--" then args[#args + 1] = word end
         if word == "--" or stop then
            for j = i + 1, #argv do args[#args + 1] = argv[j] end
            break
         end
      else
         local spec, name, value, negative = find(specs, word)
         if not spec then usage_error("unknown option '%s'", word) end
         local key = key_of(cmd, spec, name)
         if is_flag(spec) then
            if value then usage_error("%s takes no value", word:match "^[^=]+") end
            opt[spec == HELP and "help" or key] = not negative
         else
            if not value then
               i = i + 1
               value = argv[i] or usage_error("%s needs a value", word)
            end
            store(opt, key, spec, value, word:match "^[^=]+")
         end
      end
      i = i + 1
   end
   return opt, args
end

-- Do the words fit the usage text? It begins with the name, and that of a subcommand.
local function check_args(cmd, args)
   local needed, allowed = {}, 0
   local words = cmd.usage:gsub("^%S+%s*", ""):gsub("^%l+ ", ""):gsub("%[OPTIONS%]", "")
   for word in words:gmatch "%S+" do
      if not word:match "^%[" and not word:match "%]$" then needed[#needed + 1] = word end
      allowed = word:find("...", 1, true) and math.huge or allowed + 1
   end
   if #args < #needed then usage_error("%s is missing", needed[#args + 1]) end
   if #args > allowed then usage_error("unexpected argument '%s'", args[allowed + 1]) end
end

-- ---- help ------------------------------------------------------------------

local function option_row(name, spec)
   local left = "--" .. name:gsub("_", "-")
   if spec.short then left = "-" .. spec.short .. ", " .. left end
   if not is_flag(spec) then left = left .. " " .. (spec[3] or "VALUE") end
   local doc, default = spec[2] or "", spec[1]
   if default and default ~= "" and default ~= true then
      doc = doc .. " (" .. tostring(default) .. ")"
   elseif default == true then
      doc = doc .. " (on; --no-" .. name:gsub("_", "-") .. ")"
   end
   return { "  " .. left, doc, name }
end

local function option_rows(cmd)
   local rows = {}
   for name, spec in pairs(cmd.options or {}) do
      if not spec.hidden then rows[#rows + 1] = option_row(name, spec) end
   end
   table.sort(rows, function(a, b) return a[3] < b[3] end)
   rows[#rows + 1] = { "  -h, --help", HELP[2] }
   return rows
end

-- The help text of one command.
function cli.help(cmd)
   local out = { "usage: mooncake " .. cmd.usage, "" }
   if cmd.help then out[#out + 1] = (cmd.help:gsub("%s+$", "")) .. "\n" end
   local rows, width = option_rows(cmd), 0
   for _, row in ipairs(rows) do width = math.max(width, #row[1]) end
   for _, row in ipairs(rows) do
      out[#out + 1] = row[1] .. (" "):rep(width - #row[1] + 2) .. row[2]
   end
   return table.concat(out, "\n")
end

-- ---- running ---------------------------------------------------------------

-- The reader of our output has gone, as in `mooncake topo | head -1`.
local function reader_gone(why)
   if tostring(why):find "Broken pipe" then os.exit(141, true) end
end

local function checked_output()
   local stdout = io.stdout
   function io.write(...)
      local ok, why = io.output():write(...)
      if not ok then reader_gone(why) end
      return ok, why
   end
   function print(...)
      local line = {}
      for i = 1, select("#", ...) do line[i] = tostring((select(i, ...))) end
      local ok, why = stdout:write(table.concat(line, "\t"), "\n")
      if not ok then reader_gone(why) end
   end
end

local function traceback(e)
   if type(e) == "table" and e.user then return e end
   return debug.traceback(tostring(e), 2)
end

local function report(name, e)
   io.stdout:flush()
   local prefix = name and "mooncake " .. name .. ": " or "mooncake: "
   if type(e) ~= "table" then
      io.stderr:write(prefix, e, "\n")
      return 1
   end
   io.stderr:write(prefix, tostring(e.user), "\n")
   return e.status or 1
end

local function exit_status(result)
   if result == nil or result == true then return 0 end
   return type(result) == "number" and result or 1
end

-- Run a command with the words of argv from index first on: the exit status.
function cli.call(cmd, argv, first)
   local opt, args = cli.parse(cmd, argv, first)
   if opt.help then
      print(cli.help(cmd))
      return 0
   end
   check_args(cmd, args)
   return exit_status(cmd.run(opt, args))
end

local function run(argv)
   local name = argv[1]
   if not name or name == "--help" or name == "-h" then name = "help" end
   if name == "--version" or name == "-V" then name = "version" end
   local cmd = cli.command(name)
   if not cmd then
      error({ user = ("no command '%s'; see `mooncake help`"):format(name), status = 2,
              bare = true }, 0)
   end
   return cli.call(cmd, argv, 2)
end

-- Run the command line argv (argv[0] is the program): the exit status.
function cli.main(argv)
   checked_output()
   strict.on()
   local ok, result = xpcall(function() return run(argv) end, traceback)
   if not ok then
      local bare = type(result) == "table" and result.bare
      result = report(not bare and argv[1] or nil, result)
   end
   local flushed, why = io.stdout:flush()
   if not flushed then reader_gone(why) end
   if not argv[1] and result == 0 then return 2 end
   return result
end

return cli
