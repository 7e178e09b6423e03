-- run.lua - `mooncake run`: a script with the library at hand.

local environment = require "mooncake.environment"
local strict = require "mooncake.strict"
local util = require "mooncake.util"

local function load_script(path)
   if path ~= "-" then return loadfile(path) end
   return loadstring(io.read "*a", "=stdin")
end

-- Modules beside the script come before those of the system.
local function search_beside(path)
   local dir = path:match "^(.*)/[^/]*$" or "."
   package.path = dir .. "/?.lua;" .. dir .. "/?/init.lua;" .. package.path
end

local function run(_, args)
   local path = table.remove(args, 1)
   local chunk, why = load_script(path)
   if not chunk then util.fail("%s", why) end
   args[0] = path
   search_beside(path)
   _G.arg = args
   setfenv(chunk, strict.env { mooncake = require "mooncake", arg = args })
   local status = chunk(unpack(args))
   return type(status) == "number" and status or status == false and 1 or 0
end

return {
   usage = "run SCRIPT [ARG...]",
   summary = "run a Lua script that moves bytes",
   help = [[
Runs SCRIPT ("-": standard input) with the library as the global `mooncake`; what
follows is in `arg` and `...`. Modules beside the script can be required. The script's
result is the exit status: a number, or false for 1. `mooncake help lua` is the manual.

   local a = assert(mooncake.open())
   local memory = assert(a:alloc(4096))
   local b = assert(mooncake.open())
   local s = assert(b:segment(a:addr()))
   assert(s:write("hello", memory.addr))
   print(memory:string(0, 5))]] .. environment,
   run = run,
}
