-- trace_test.lua - the trace reader as Lua sees it, and the LRU index.

local ffi = require "ffi"
local lru = require "mooncake.lru"
local trace = require "mooncake.trace"
local tracegen = require "mooncake.tracegen"
local util = require "mooncake.util"

local SMALL = "traces/small.jsonl"

local function file_of(text)
   local path = os.tmpname()
   assert(util.write_file(path, text))
   return path
end

local function with_file(text, fn)
   local path = file_of(text)
   local ok, why = pcall(fn, path)
   os.remove(path)
   if not ok then error(why, 0) end
end

local function equal(got, want, what)
   if got ~= want then
      error(("%s: %s, expected %s"):format(what, tostring(got), tostring(want)), 2)
   end
end

local function near(got, want, part, what)
   if math.abs(got - want) > part * want then
      error(("%s: %g, expected %g within %g %%"):format(what, got, want, part * 100), 2)
   end
end

local tests = {}

function tests.keeps_ids_of_64_bits_and_fractions_of_a_millisecond()
   local line = '{"timestamp": 1.25, "input_length": 1000, "output_length": 1, '
      .. '"hash_ids": [18446744073709551615, 9007199254740993]}'
   with_file(line .. "\n", function(path)
      equal(tracegen.line(assert(trace.open(path)):next()), line, "line")
   end)
end

function tests.a_bad_record_says_file_and_line()
   with_file("{}\n", function(path)
      local reader = assert(trace.open(path))
      local req, why, errno = reader:next()
      equal(req, nil, "request")
      equal(errno, 22, "errno")
      assert(why:find(path .. ":1:", 1, true), why)
      assert(reader:rewind())
      local ok, message = pcall(function() for _ in reader:each() do end end)
      assert(not ok and message == why, message)
   end)
end

function tests.open_says_why()
   local reader, why, errno = trace.open "/nowhere/trace.jsonl"
   equal(reader, nil, "reader")
   equal(errno, 2, "errno")
   assert(why:find "/nowhere/trace.jsonl", why)
   assert(not pcall(trace.open, SMALL, { blok_tokens = 16 }))
   local _, message = trace.open(SMALL, { format = "morse" })
   assert(message:find "'morse'", message)
end

function tests.the_small_trace_is_like_the_public_one()
   local s = trace.stat(assert(trace.open(SMALL)), { capacities = { 805, math.huge } })
   equal(s.requests, 1000, "requests")
   near(s.input_tokens_mean, 12035, 0.1, "input_tokens_mean")
   near(s.output_tokens_mean, 343, 0.1, "output_tokens_mean")
   near(s.batch.mean, 10.2, 0.1, "requests of a batch")
   near(s.blocks / s.requests, 24, 0.1, "blocks of a request")
   near(s.hit_rate.lru.inf, 0.366, 0.1, "hit rate")
   assert(s.hit_rate.lru["805"] < s.hit_rate.lru.inf)
end

function tests.an_empty_trace_has_statistics()
   with_file("\n", function(path)
      equal(trace.stat(assert(trace.open(path))).requests, 0, "requests")
   end)
end

-- Against a plain list in order of use.
function tests.lru_is_as_a_model_in_a_list()
   for _, capacity in ipairs { 1, 2, 7, 100, 3000 } do
      local index, order, rnd = lru.new(capacity), {}, 12345 + capacity
      for step = 1, 6000 do
         rnd = (rnd * 1103515245 + 12345) % 2147483648
         local key = math.floor(rnd / 65536) % (capacity * 2)
         local id = 0xfffffffffff00000ULL + key
         local at
         for i = #order, 1, -1 do
            if order[i] == key then at = i break end
         end
         local slot = index:find(id)
         equal(slot ~= nil, at ~= nil, "found at step " .. step)
         if slot then
            index:touch(slot)
            table.remove(order, at)
         else
            if #order == capacity then table.remove(order, 1) end
            slot = assert(index:insert(id))
         end
         order[#order + 1] = key
         equal(index.id[slot], ffi.cast("uint64_t", id), "id of the slot")
      end
   end
end

function tests.lru_leaves_pinned_blocks()
   local index = lru.new(3)
   for id = 1, 3 do index:pin(index:insert(id)) end
   equal(index:insert(4), nil, "slot with all pinned")
   equal(index:free(), 0, "free")
   index:pin(index:find(2))
   index:unpin(index:find(2))
   equal(index:insert(4), nil, "slot while pinned once")
   index:unpin(index:find(2))
   equal(index:free(), 1, "free")
   assert(index:insert(4))
   equal(index:find(2), nil, "the one that was unpinned")
   assert(index:find(1) and index:find(3) and index:find(4))
   equal(index.evicted, 1, "evicted")
end

return tests
