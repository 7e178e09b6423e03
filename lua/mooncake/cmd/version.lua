-- version.lua - `mooncake version`: of the program, and of what it stands on.

local ffi = require "ffi"
local C = require "mooncake.ffi"
local json = require "mooncake.json"

local function run(opt)
   local version = ffi.string(C.mc_version())
   if opt.json then
      print(json.encode { version = version, lua = jit.version, arch = jit.arch })
   else
      print(("mooncake %s (%s, %s)"):format(version, jit.version, jit.arch))
   end
   return 0
end

return {
   usage = "version [OPTIONS]",
   summary = "the version of this program",
   options = { json = { false, "print one JSON object" } },
   run = run,
}
