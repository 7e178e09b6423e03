-- help.lua - `mooncake help`: the commands, one command, or a topic. Topics are the
-- texts lua/mooncake/help/*.txt, and "header" is mooncake.h.

local ffi = require "ffi"
local cli = require "mooncake.cli"
local embedded = require "mooncake.embedded"
local util = require "mooncake.util"

local TOPIC = "mooncake.help."

local function topics()
   local rows = { { "  header", "mooncake.h: the C interface, from C and from Lua" } }
   for module in pairs(embedded.files) do
      local name = module:match "^mooncake%.help%.([%w_-]+)$"
      if name then
         local first = embedded.text(module):match "^[^\n]*"
         rows[#rows + 1] = { "  " .. name, (first:gsub("^[^:]-%s%-%s", "")) }
      end
   end
   table.sort(rows, function(a, b) return a[1] < b[1] end)
   return rows
end

local function topic(name)
   if name == "header" then return ffi.string(require("mooncake.ffi").mc_header) end
   local dir = os.getenv "MOONCAKE_LUA"
   local f = dir and io.open(dir .. "/mooncake/help/" .. name .. ".txt")
   if not f then return embedded.text(TOPIC .. name) end
   local text = f:read "*a"
   f:close()
   return text
end

local function overview()
   local rows = {}
   for _, name in ipairs(cli.names()) do
      rows[#rows + 1] = { "  " .. name, cli.command(name).summary }
   end
   print "usage: mooncake COMMAND [OPTIONS] [ARGUMENTS]"
   print "\nMoves bytes between the memory of processes and hosts.\n\ncommands"
   print(util.table(nil, rows, "ll"))
   print "\ntopics"
   print(util.table(nil, topics(), "ll"))
   print "\n`mooncake help COMMAND` or `mooncake help TOPIC` says more."
end

local function run(_, args)
   local name = args[1]
   if not name then
      overview()
      return 0
   end
   local cmd = cli.command(name)
   local text = cmd and cli.help(cmd) or topic(name)
   if not text then util.fail("no command or topic '%s'; see `mooncake help`", name) end
   print((text:gsub("%s+$", "")))
   return 0
end

return {
   usage = "help [TOPIC]",
   summary = "what there is, or all about one command or topic",
   run = run,
}
