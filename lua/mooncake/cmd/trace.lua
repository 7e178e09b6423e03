-- trace.lua - `mooncake trace`: what is done to traces themselves. Each subcommand is a
-- command table in mooncake.trace.NAME.

local cli = require "mooncake.cli"
local util = require "mooncake.util"

local NAMES = { "gen", "stat" }

local function subcommand(name)
   for _, known in ipairs(NAMES) do
      if name == known then return require("mooncake.trace." .. name) end
   end
   error({ user = ("no subcommand '%s'; there are %s"):format(name,
      table.concat(NAMES, " and ")), status = 2 }, 0)
end

local function run(_, args)
   return cli.call(subcommand(args[1]), args, 2)
end

return {
   usage = "trace SUBCOMMAND [ARG...]",
   summary = "make request traces, or see what they are like",
   help = [[
A trace is what a serving cluster was asked: when each request came, how long its prompt
and its answer were, and which blocks of KV cache it shares with others. The formats are
told apart by their first line: those of Mooncake, Qwen-Bailian, Azure and BurstGPT.

Subcommands; `mooncake trace SUBCOMMAND --help` says more:

]] .. util.table(nil, {
      { "  gen", "make a trace from the statistics of another, or from parameters" },
      { "  stat", "lengths, arrivals, sharing, and hit rates of caches" },
   }, "ll"),
   run = run,
}
