-- ffi.lua - the C namespace of mooncake.h, declared once from the text the library
-- carries. In the command that is the program itself; from plain luajit it is
-- libmooncake.so, or the file that $MOONCAKE_LIB names.

local ffi = require "ffi"

ffi.cdef "extern const char mc_header[];"

local function has_header(C)
   return pcall(function() return C.mc_header end)
end

local function library()
   if has_header(ffi.C) then return ffi.C end
   local name = os.getenv "MOONCAKE_LIB"
   if name then return ffi.load(name) end
   local ok, lib = pcall(ffi.load, "libmooncake.so.0")
   return ok and lib or ffi.load "mooncake"
end

-- The handle stays in package.loaded: were it collected, its code would go too.
local C = library()
ffi.cdef(ffi.string(C.mc_header))
return C
