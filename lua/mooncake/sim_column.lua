-- sim_column.lua - a column of figures, one per request, and what is said of it: mean,
-- spread, exact quantiles. Ten million fit in 40 MB; nothing of it is a Lua object.

local ffi = require "ffi"
local bit = require "bit"

ffi.cdef [[
void *mcl_col_realloc(void *p, size_t n) __asm__("realloc");
void mcl_col_free(void *p) __asm__("free");
]]

local C = ffi.C
local band, rshift = bit.band, bit.rshift

local Column = {}
Column.__index = Column

local column = {}

local FIRST = 1024

-- Outside of the collector's memory, which does not grow in place and is small with some
-- builds of LuaJIT.
local function resized(old, bytes)
   local p = C.mcl_col_realloc(old and ffi.gc(old, nil) or nil, bytes)
   if p == nil then error(("no memory for %d bytes of results"):format(bytes), 0) end
   return ffi.gc(ffi.cast("float *", p), C.mcl_col_free)
end

-- An empty column of numbers >= 0.
function column.new()
   return setmetatable({ n = 0, size = FIRST, data = resized(nil, FIRST * 4),
                         sum = 0 }, Column)
end

function Column:add(x)
   local n = self.n
   if n == self.size then
      self.size = n * 2
      self.data = resized(self.data, self.size * 4)
   end
   self.data[n] = x
   self.sum = self.sum + x
   self.n, self.sorted = n + 1, false
end

-- ---- order -----------------------------------------------------------------

local BITS, BUCKETS = 11, 2048

-- One pass of a radix sort: from and to are the bits of floats, which are in order as
-- integers because none is negative.
local function pass(from, to, n, shift, count)
   ffi.fill(count, BUCKETS * 4)
   for i = 0, n - 1 do
      local b = band(rshift(from[i], shift), BUCKETS - 1)
      count[b] = count[b] + 1
   end
   local at = 0
   for b = 0, BUCKETS - 1 do
      count[b], at = at, at + count[b]
   end
   for i = 0, n - 1 do
      local b = band(rshift(from[i], shift), BUCKETS - 1)
      to[count[b]] = from[i]
      count[b] = count[b] + 1
   end
end

local function sort(self)
   if self.sorted or self.n == 0 then return end
   local other = resized(nil, self.size * 4)
   local count = ffi.new("uint32_t[?]", BUCKETS)
   local a = ffi.cast("uint32_t *", self.data)
   local b = ffi.cast("uint32_t *", other)
   for i = 0, 2 do
      pass(a, b, self.n, i * BITS, count)
      a, b = b, a
   end
   self.data, self.sorted = other, true
end

-- ---- what is said of it ----------------------------------------------------

-- The value below which the share q lies, as trace.percentile(); nil of an empty column.
function Column:quantile(q)
   if self.n == 0 then return nil end
   sort(self)
   return self.data[math.min(self.n - 1, math.floor(q * self.n))]
end

-- The share of values that are at most x.
function Column:share(x)
   if self.n == 0 then return nil end
   sort(self)
   local low, high = 0, self.n
   while low < high do
      local mid = math.floor((low + high) / 2)
      if self.data[mid] <= x then low = mid + 1 else high = mid end
   end
   return low / self.n
end

local function deviation(self, mean)
   local sum = 0
   for i = 0, self.n - 1 do
      local d = self.data[i] - mean
      sum = sum + d * d
   end
   return math.sqrt(sum / self.n)
end

-- What a float is good for; a whole number stays one.
local function rounded(x)
   return tonumber(("%.7g"):format(x))
end

column.rounded = rounded

local QUANTILES = { p50 = 0.5, p75 = 0.75, p90 = 0.9, p95 = 0.95, p99 = 0.99 }

-- mean, std, min, max and quantiles; an empty table of an empty column.
function Column:summary()
   if self.n == 0 then return {} end
   local mean = self.sum / self.n
   local s = { mean = rounded(mean), min = rounded(self:quantile(0)),
               max = rounded(self:quantile(1)), std = rounded(deviation(self, mean)) }
   for name, q in pairs(QUANTILES) do s[name] = rounded(self:quantile(q)) end
   return s
end

return column
