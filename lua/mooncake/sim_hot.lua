-- sim_hot.lua - which blocks are used most, and how many instances had them then, in
-- bounded memory and time.
--
-- Uses are counted in a hash table. Once it has counted LIMIT of them, it halves all
-- counts, forgets blocks whose count is gone, and from then on looks at every second
-- request, at every fourth, and so on: a sample that grows thinner with the trace, in
-- which what is hot stays hot. A trace of fewer uses is counted exactly.

local ffi = require "ffi"
local bit = require "bit"
local C = require "mooncake.ffi"

local Hot = {}
Hot.__index = Hot

local hot = {}

local LIMIT = 2 ^ 21
local FIRST = 2 ^ 12
local GOLDEN = 0x9e3779b97f4a7c15ULL

local function table_of(self, size)
   self.id, self.uses = ffi.new("uint64_t[?]", size), ffi.new("uint32_t[?]", size)
   self.most = ffi.new("uint32_t[?]", size)
   self.size, self.mask, self.used = size, size - 1, 0
end

-- Where a block is counted, or would be: a slot with no uses is free.
local function slot_of(self, id)
   local ids, uses, mask = self.id, self.uses, self.mask
   local i = bit.band(tonumber(bit.rshift(id * GOLDEN, 33)), mask)
   while uses[i] ~= 0 and ids[i] ~= id do i = bit.band(i + 1, mask) end
   return i
end

-- The same counts, each divided, in a table of another size.
local function rebuild(self, size, divisor)
   local id, uses, most, n = self.id, self.uses, self.most, self.size
   table_of(self, size)
   self.counted = 0
   for i = 0, n - 1 do
      local left = math.floor(uses[i] / divisor)
      if left > 0 then
         local at = slot_of(self, id[i])
         self.id[at], self.uses[at], self.most[at] = id[i], left, most[i]
         self.used, self.counted = self.used + 1, self.counted + left
      end
   end
end

local function count(self, sim, id)
   local i = slot_of(self, id)
   if self.uses[i] == 0 then
      self.id[i], self.most[i] = id, 0
      self.used = self.used + 1
   else
      self.most[i] = math.max(self.most[i], C.mc_sim_replicas(sim, id))
   end
   self.uses[i] = self.uses[i] + 1
end

function hot.new(limit)
   local self = setmetatable({ limit = limit or LIMIT, stride = 1, turn = 0,
                               counted = 0 }, Hot)
   table_of(self, FIRST)
   return self
end

-- Count the blocks of a request, and look who has them.
function Hot:add(sim, blocks, n)
   self.turn = self.turn + 1
   if self.turn < self.stride then return end
   self.turn = 0
   for i = 0, n - 1 do
      if self.used * 2 >= self.size then rebuild(self, self.size * 2, 1) end
      count(self, sim, blocks[i])
   end
   self.counted = self.counted + n
   if self.counted >= self.limit then
      self.stride = self.stride * 2
      rebuild(self, self.size, 2)
   end
end

local function before(a, b)
   if a.uses ~= b.uses then return a.uses > b.uses end
   return a.id < b.id
end

-- Those with the most uses, at most n of them and each used twice or more: a list of
-- { id = uint64_t, uses =, most = instances at a time }, the hottest first.
function Hot:top(n)
   local histogram, bound = {}, 2
   for i = 0, self.size - 1 do
      local u = self.uses[i]
      if u >= 2 then histogram[u] = (histogram[u] or 0) + 1 end
   end
   local counts, left = {}, n
   for u in pairs(histogram) do counts[#counts + 1] = u end
   table.sort(counts, function(a, b) return a > b end)
   for _, u in ipairs(counts) do
      bound, left = u, left - histogram[u]
      if left <= 0 then break end
   end
   local list = {}
   for i = 0, self.size - 1 do
      if self.uses[i] >= bound then
         list[#list + 1] = { id = self.id[i] + 0ULL, uses = self.uses[i] * self.stride,
                             most = self.most[i] }
      end
   end
   table.sort(list, before)
   for i = n + 1, #list do list[i] = nil end
   return list
end

return hot
