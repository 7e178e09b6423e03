-- sum.lua - the checksum of a long range: each piece of 4 MiB hashed with the sum so far
-- as the seed, so that both ends may take it as the bytes come.

local bit = require "bit"
local ffi = require "ffi"
local C = require "mooncake.ffi"

local PIECE = 4 * 2 ^ 20

local Sum = {}
Sum.__index = Sum

local sum = { PIECE = PIECE }

function sum.new()
   return setmetatable({ value = ffi.new "uint64_t" }, Sum)
end

-- The next bytes: a whole number of pieces, or the last.
function Sum:add(ptr, n)
   ptr = ffi.cast("const uint8_t *", ptr)
   for at = 0, n - 1, PIECE do
      self.value = C.mc_hash(ptr + at, math.min(PIECE, n - at), self.value)
   end
end

function Sum:hex()
   return bit.tohex(self.value)
end

-- Of n bytes in memory.
function sum.memory(ptr, n)
   local s = sum.new()
   s:add(ptr, n)
   return s:hex()
end

-- Of n bytes of a file from an offset; read, not mapped: a file that was cut short is
-- an error then, and not the end of the process.
function sum.file(file, off, n)
   local buf, s = ffi.new("uint8_t[?]", math.min(PIECE, math.max(n, 1))), sum.new()
   for at = 0, n - 1, PIECE do
      local m = math.min(PIECE, n - at)
      local ok, why, errno = file:pread(buf, m, off + at)
      if not ok then return nil, why, errno end
      s:add(buf, m)
   end
   return s:hex()
end

return sum
