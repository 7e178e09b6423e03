-- failed.lua - what a function of the facade returns when the world fails it: nil, the
-- library's message, and the errno as a positive number.

local ffi = require "ffi"
local C = require "mooncake.ffi"

return function(r)
   return nil, ffi.string(C.mc_errmsg()), -tonumber(r)
end
