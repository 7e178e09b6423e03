-- tracegen_random.lua - numbers that look random and are the same for the same seed
-- everywhere, and what is drawn with them: gaps, counts, lengths.

local bit = require "bit"
local ffi = require "ffi"

local M = {}

local Random = {}
Random.__index = Random

function M.new(seed)
   local r = setmetatable({ x = 123456789, y = 362436069, z = 521288629,
      w = bit.bxor(bit.tobit(seed), 88675123) }, Random)
   for _ = 1, 32 do r:next() end
   return r
end

-- Marsaglia's xorshift128: uniform in [0, 1).
function Random:next()
   local t = bit.bxor(self.x, bit.lshift(self.x, 11))
   self.x, self.y, self.z = self.y, self.z, self.w
   self.w = bit.bxor(self.w, bit.rshift(self.w, 19), t, bit.rshift(t, 8))
   return self.w % 4294967296 / 4294967296
end

function Random:exponential(mean)
   return -mean * math.log(1 - self:next())
end

-- Box and Muller's: half of it, so that nothing is kept between two calls.
function Random:normal()
   local r = math.sqrt(-2 * math.log(1 - self:next()))
   return r * math.cos(2 * math.pi * self:next())
end

function Random:poisson(mean)
   local n, p, limit = 0, self:next(), math.exp(-mean)
   while p > limit do n, p = n + 1, p * self:next() end
   return n
end

-- ---- lengths ---------------------------------------------------------------

-- What "8192", "8192:0.5" and so on say: always the same, or a mean and how it is spread,
-- log-normal with this coefficient of variation, exponential or uniform. nil if nothing.
function M.lengths(text)
   local mean, spread = tostring(text):match "^([%d.]+):?(.*)$"
   mean = tonumber(mean)
   if not mean or mean < 0 then return nil end
   local d = { mean = mean, kind = spread ~= "" and spread or "0" }
   local cv = tonumber(d.kind)
   if cv and cv >= 0 and cv < 100 then
      d.kind = cv > 0 and mean > 0 and "lognormal" or "always"
      d.sigma = math.sqrt(math.log(1 + cv * cv))
      d.mu = math.log(mean) - d.sigma * d.sigma / 2
   elseif d.kind ~= "exp" and d.kind ~= "uniform" then
      return nil
   end
   return d
end

-- A whole number of tokens, from 1 to @max.
function Random:length(d, max)
   local x = d.mean
   if d.kind == "lognormal" then
      x = math.exp(d.mu + d.sigma * self:normal())
   elseif d.kind == "exp" then
      x = self:exponential(x)
   elseif d.kind == "uniform" then
      x = 2 * x * self:next()
   end
   return math.max(1, math.min(max, math.floor(x + 0.5)))
end

-- ---- popularity ------------------------------------------------------------

-- Of @n things the first is the most popular; the k-th comes k^@exponent times less often
-- than it does. 0: all the same.
function M.zipf(n, exponent)
   local upto, sum = ffi.new("double[?]", n), 0
   for k = 1, n do
      sum = sum + k ^ -exponent
      upto[k - 1] = sum
   end
   return { n = n, upto = upto, sum = sum }
end

-- One of them, counted from 0.
function Random:pick(zipf)
   local upto, low, high = zipf.upto, 0, zipf.n - 1
   local u = self:next() * zipf.sum
   while low < high do
      local middle = math.floor((low + high) / 2)
      if upto[middle] > u then high = middle else low = middle + 1 end
   end
   return low
end

return M
