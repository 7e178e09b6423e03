-- lru.lua - blocks by 64-bit id in a fixed number of slots; the least recently used goes.
--
-- The index of a pool of equal slots: which block lies in which slot. A pinned slot stays
-- where it is until it is unpinned as often. Ids are any 64 bits (uint64_t or numbers).
-- Without a capacity nothing is ever put out. Slots count from 0 and keep their number.

local ffi = require "ffi"
local bit = require "bit"

local Lru = {}
Lru.__index = Lru

local first_size = 1024

local function buckets_of(slots)
   local log2 = 4
   while 2 ^ log2 < slots do log2 = log2 + 1 end
   return 2 ^ log2, 64 - log2
end

local function grown(ctype, bytes, old, used, size)
   local new = ffi.new(ctype, size)
   if used > 0 then ffi.copy(new, old, used * bytes) end
   return new
end

local function bucket(self, id)
   return tonumber(bit.rshift(id * 0x9e3779b97f4a7c15ULL, self.shift))
end

-- Make room for @size slots: the arrays anew, and the chains of the hash table.
local function resize(self, size)
   local ends = size + 1
   self.id = grown("uint64_t[?]", 8, self.id, self.used, ends)
   self.chain = ffi.new("int32_t[?]", ends)
   self.prev = grown("int32_t[?]", 4, self.prev, self.used, ends)
   self.succ = grown("int32_t[?]", 4, self.succ, self.used, ends)
   self.pins = grown("int32_t[?]", 4, self.pins, self.used, ends)
   local n, shift = buckets_of(size)
   self.head, self.shift, self.size = ffi.new("int32_t[?]", n), shift, size
   ffi.fill(self.head, n * 4, 0xff)
   for slot = 0, self.used - 1 do
      local b = bucket(self, self.id[slot])
      self.chain[slot], self.head[b] = self.head[b], slot
   end
end

local function unlink(self, slot)
   local p, s = self.prev[slot], self.succ[slot]
   if p >= 0 then self.succ[p] = s else self.oldest = s end
   if s >= 0 then self.prev[s] = p else self.newest = p end
end

local function append(self, slot)
   self.prev[slot], self.succ[slot] = self.newest, -1
   if self.newest >= 0 then self.succ[self.newest] = slot else self.oldest = slot end
   self.newest = slot
end

local function unhash(self, slot)
   local b = bucket(self, self.id[slot])
   local at = self.head[b]
   if at == slot then
      self.head[b] = self.chain[slot]
      return
   end
   while self.chain[at] ~= slot do at = self.chain[at] end
   self.chain[at] = self.chain[slot]
end

-- The slot of a block, or nil. Does not count as use.
function Lru:find(id)
   id = ffi.cast("uint64_t", id)
   local slot = self.head[bucket(self, id)]
   while slot >= 0 do
      if self.id[slot] == id then return slot end
      slot = self.chain[slot]
   end
end

function Lru:touch(slot)
   if self.pins[slot] == 0 then
      unlink(self, slot)
      append(self, slot)
   end
end

-- A slot for a block that has none: a new one, or that of the oldest block that is not
-- pinned, which is out then. nil if all are pinned.
function Lru:insert(id)
   local slot
   if self.used < self.capacity then
      if self.used == self.size then
         resize(self, math.min(self.size * 2, self.capacity))
      end
      slot = self.used
      self.used = slot + 1
   else
      slot = self.oldest
      if slot < 0 then return nil end
      unlink(self, slot)
      unhash(self, slot)
      self.evicted = self.evicted + 1
   end
   self.id[slot] = id
   self.pins[slot] = 0
   local b = bucket(self, self.id[slot])
   self.chain[slot], self.head[b] = self.head[b], slot
   append(self, slot)
   return slot
end

function Lru:pin(slot)
   if self.pins[slot] == 0 then unlink(self, slot) end
   self.pins[slot] = self.pins[slot] + 1
end

function Lru:unpin(slot)
   self.pins[slot] = self.pins[slot] - 1
   if self.pins[slot] == 0 then append(self, slot) end
end

-- How many blocks could be inserted now without touching a pinned one. O(pool).
function Lru:free()
   local n, slot = self.capacity - self.used, self.oldest
   while slot >= 0 do n, slot = n + 1, self.succ[slot] end
   return n
end

local M = {}

-- An index of @capacity slots (nil: without bound). To read: used, evicted, id[slot].
function M.new(capacity)
   local self = setmetatable({ capacity = capacity or math.huge, used = 0, evicted = 0,
      oldest = -1, newest = -1 }, Lru)
   resize(self, math.min(first_size, self.capacity))
   return self
end

return M
