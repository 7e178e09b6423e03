-- index.lua - how fast and how large the block index is, from Lua through FFI.
--
--   mooncake run tests/bench/index.lua [--json] [--rounds N] [--blocks N]
--                                      [--only PATTERN]
--
-- Chains of blocks with random ids, one prompt each, on one instance each, are added to
-- an empty index, matched in random order, and taken out again. Then the two worst
-- cases of a match for 1,024 instances. Medians of 5 rounds, each in a new index. Rates
-- are of blocks; what is matched is checked. The exit status is 1 if a bar is missed.

local C = require "mooncake.ffi"
local ffi = require "ffi"
local kit = require "mooncake.benchkit"
local util = require "mooncake.util"

local opt = kit.options(arg, { rounds = 5, blocks = 1e7, only = "", json = false })
local figures = kit.figures(opt.json)

-- ---- indexes ---------------------------------------------------------------

local function index_of(instances)
   local out = ffi.new "struct mc_index *[1]"
   local r = C.mc_index_open(out, instances)
   if r < 0 then util.fail("%s", ffi.string(C.mc_errmsg())) end
   return ffi.gc(out[0], C.mc_index_close)
end

local function close(x) C.mc_index_close(ffi.gc(x, nil)) end

local function size(x)
   local s = ffi.new "struct mc_index_size"
   C.mc_index_size(x, s)
   return { blocks = tonumber(s.blocks), pairs = tonumber(s.pairs),
            bytes = tonumber(s.bytes) }
end

-- The two sides of a count: a benchmark of what does not happen is none.
local function expect(n, expected)
   if n ~= expected then util.fail("%s blocks, not %s", n, expected) end
end

local function random_ids(n)
   local ids = ffi.new("uint64_t[?]", n)
   C.mc_fill(ids, n * 8, 20260701)
   return ids
end

-- Seconds that f takes for each i below n, and the longest of them.
local function time(n, f)
   local start, longest = mooncake.now(), 0
   local last = start
   for i = 0, n - 1 do
      f(i)
      local now = mooncake.now()
      longest = math.max(longest, now - last)
      last = now
   end
   return last - start, longest
end

-- ---- what is measured ------------------------------------------------------

-- A life of an index of chains: rates and sizes.
local function life(ids, chains, length, instances)
   local x, f, changed = index_of(instances), {}, 0
   local matched = ffi.new("uint32_t[?]", instances)
   local add_s, longest = time(chains, function(i)
      changed = changed + C.mc_index_add(x, i % instances, ids + i * length, length)
   end)
   expect(changed, chains * length)
   f.add, f.longest_ms = changed / add_s, longest * 1e3
   local s = size(x)
   f.bytes = s.bytes / s.pairs

   -- 7919 is prime to the number of chains, so that this is a walk through all.
   local found, prompts = 0, math.min(chains, 40000)
   local match_s = time(prompts, function(i)
      local k = i * 7919 % chains
      found = found + C.mc_index_match(x, ids + k * length, length, matched)
   end)
   expect(found, prompts * length)
   f.match, f.match_us = found / match_s, match_s / prompts * 1e6

   local start = mooncake.now()
   C.mc_index_drop(x, 1)
   f.drop_ms = (mooncake.now() - start) * 1e3
   local before = size(x).pairs
   changed = 0
   local del_s = time(chains, function(i)
      changed = changed + C.mc_index_del(x, i % instances, ids + i * length, length)
   end)
   expect(changed, before)
   f.del = changed / del_s
   expect(size(x).blocks, 0)
   close(x)
   return f
end

-- Microseconds of a match where so many of the instances hold the first so many
-- blocks of each of 100 prompts.
local function crowded(ids, instances, holders, held, length)
   local x = index_of(instances)
   for p = 0, 99 do
      for i = 0, holders - 1 do
         C.mc_index_add(x, (i * 7 + p) % instances, ids + p * length, held)
      end
   end
   local matched, found, n = ffi.new("uint32_t[?]", instances), 0, 20000
   local s = time(n, function(i)
      found = found + C.mc_index_match(x, ids + i % 100 * length, length, matched)
   end)
   expect(found, n * held)
   close(x)
   return s / n * 1e6
end

-- ---- output ----------------------------------------------------------------

local function row(what, unit, list, bar)
   figures:add(what, list, function(n)
      return unit == "M/s" and ("%.2f M/s"):format(n / 1e6) or
             unit == "us" and ("%.2f us"):format(n) or
             unit == "ms" and ("%.1f ms"):format(n) or ("%.1f %s"):format(n, unit)
   end, bar)
end

local function wanted(what) return what:find(opt.only) end

local function lives(ids, blocks, length, instances, bars)
   local what = ("%g M blocks, chains of %d, %d instances"):format(blocks / 1e6, length,
                                                                   instances)
   if not wanted(what) then return end
   local all = {}
   for _ = 1, opt.rounds do
      local f = life(ids, math.floor(blocks / length), length, instances)
      for k, v in pairs(f) do
         all[k] = all[k] or {}
         table.insert(all[k], v)
      end
   end
   row(what .. ": add", "M/s", all.add)
   row(what .. ": match", "M/s", all.match, bars.match)
   row(what .. ": delete", "M/s", all.del)
   row(what .. ": size", "bytes a pair", all.bytes, bars.bytes)
   row(what .. ": one match", "us", all.match_us)
   row(what .. ": longest add", "ms", all.longest_ms)
   row(what .. ": drop of an instance", "ms", all.drop_ms)
end

local function crowd(ids, what, ...)
   if not wanted(what) then return end
   local all = {}
   for i = 1, opt.rounds do all[i] = crowded(ids, 1024, ...) end
   row(what, "us", all, { most = 15 })
end

kit.print_machine(opt.json, "one core, medians of %d rounds", opt.rounds)
local ids = random_ids(opt.blocks)
local bars = { match = { least = 5e6 }, bytes = { most = 40 } }
lives(ids, opt.blocks, 50, 64, bars)
lives(ids, opt.blocks, 128, 1024, bars)
lives(ids, math.min(opt.blocks, 1e6), 50, 64, bars)
crowd(ids, "match of 128 blocks, 10 of them on all of 1,024", 1024, 10, 128)
crowd(ids, "match of 128 blocks, all of them on 100 of 1,024", 100, 128, 128)
crowd(ids, "match of 128 blocks, all of them on all of 1,024", 1024, 128, 128)
return figures:finish()
