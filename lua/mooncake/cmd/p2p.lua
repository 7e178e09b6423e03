-- p2p.lua - `mooncake p2p`: objects that nodes fetch from each other. Each subcommand is
-- a command table in mooncake.p2p.

local catalog = require "mooncake.p2p.catalog"
local cli = require "mooncake.cli"
local util = require "mooncake.util"

local SUBCOMMANDS = {
   put = require "mooncake.p2p.put", get = require "mooncake.p2p.get",
   list = catalog.list, rm = catalog.rm, pin = catalog.pin, watch = catalog.watch,
}
local ORDER = { "put", "get", "list", "rm", "pin", "watch" }

local function run(_, args)
   local cmd = SUBCOMMANDS[args[1]]
   if not cmd then
      error({ user = ("no subcommand '%s'; there are %s"):format(args[1],
         table.concat(ORDER, ", ")), status = 2 }, 0)
   end
   return cli.call(cmd, args, 2)
end

local function summaries()
   local rows = {}
   for _, name in ipairs(ORDER) do
      rows[#rows + 1] = { "  " .. name, SUBCOMMANDS[name].summary }
   end
   return util.table(nil, rows, "ll")
end

return {
   usage = "p2p SUBCOMMAND [ARG...]",
   summary = "share files among many nodes, each at the speed of its link",
   help = [[
An object is a file, or a folder of files as a checkpoint is, under a name. A node that
fetches one serves each part of it from the moment it has it, so that many nodes take
hardly longer than one, and the first sends little more than one copy. A registry keeps
who is there.

Subcommands; `mooncake p2p SUBCOMMAND --help` says more:

]] .. summaries(),
   run = run,
}
