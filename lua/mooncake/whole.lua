-- whole.lua - what a function of the library writes to a place of some size, however long
-- it is: such a function returns the length, and writes as much as there is room for.
--
--    local value, why, errno = whole(function(out, size)
--       return C.mc_registry_get(registry, key, out, size, version)
--    end)

local ffi = require "ffi"
local failed = require "mooncake.failed"

local SIZE = 4096

-- call(out, size), more than once if need be; at first with a size of `size`.
return function(call, size)
   size = size or SIZE
   while true do
      local out = ffi.new("char[?]", size)
      local n = tonumber(call(out, size))
      if n < 0 then return failed(n) end
      if n < size then return ffi.string(out, n) end
      size = n + 1
   end
end
