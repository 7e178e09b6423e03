-- statistics.lua - what a trace is like, in numbers: lengths, arrivals, which blocks are
-- shared, and what caches would do for it. The reader is read once.

local ffi = require "ffi"
local C = require "mooncake.ffi"
local json = require "mooncake.json"

local M = {}

-- Every policy of mc_hits_count(), in the order in which people compare them.
M.policies = { "lru", "lfu", "fifo", "length", "s3fifo", "sieve", "belady" }

local function checked(r)
   if r < 0 then error(ffi.string(C.mc_errmsg()), 0) end
   return tonumber(r)
end

-- ---- lists of numbers ---------------------------------------------------

local function sum(list)
   local total = 0
   for i = 1, #list do total = total + list[i] end
   return total
end

local function summary(list)
   local percentile = require("mooncake.trace").percentile
   local sorted = {}
   for i = 1, #list do sorted[i] = list[i] end
   table.sort(sorted)
   local s = { mean = sum(sorted) / math.max(1, #sorted), max = sorted[#sorted] }
   for _, p in ipairs { 10, 25, 50, 75, 90, 99 } do
      s["p" .. p] = percentile(sorted, p)
   end
   return s
end

-- Mean and variance.
local function moments(list)
   local n = math.max(1, #list)
   local mean, squares = sum(list) / n, 0
   for i = 1, #list do squares = squares + (list[i] - mean) ^ 2 end
   return mean, squares / n
end

-- ---- reading ------------------------------------------------------------

-- All requests: their lists, and their blocks in @hits. nil, message, errno for a record
-- that cannot be read.
local function read(reader, hits, tick)
   local t = { at = {}, input = {}, output = {}, size = {}, hit = {} }
   local n, at, input, output, size, hit = 0, t.at, t.input, t.output, t.size, t.hit
   local req, why, errno = reader:next()
   while req do
      n = n + 1
      at[n], input[n] = tonumber(req.at_ns) / 1e6, req.input_tokens
      output[n], size[n] = req.output_tokens, req.n_blocks
      hit[n] = checked(C.mc_hits_add(hits, req))
      t.block_tokens = req.block_tokens
      if n % 1000 == 0 then tick("requests read", n) end
      req, why, errno = reader:next()
   end
   if why then return nil, why, errno end
   return t
end

-- ---- arrivals -----------------------------------------------------------

local ROUND = { 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600 }

-- About a hundred windows, of a round number of seconds, or of 1, 2, 5 times a power of
-- ten below.
local function window(span_s)
   local raw = span_s / 120
   if raw <= 0 then return 1 end
   for _, s in ipairs(ROUND) do
      if raw > 0.5 and s >= raw then return s end
   end
   if raw > 3600 then return math.ceil(raw / 3600) * 3600 end
   local power = 10 ^ math.floor(math.log10(raw))
   return power * (raw <= power and 1 or raw <= 2 * power and 2 or raw <= 5 * power and 5
      or 10)
end

-- What came in each window: requests and tokens.
local function rates(t, span_s)
   local w = window(span_s)
   local r = { window_s = w, requests = {}, input_tokens = {} }
   for i = 1, math.max(1, math.ceil(span_s / w)) do
      r.requests[i], r.input_tokens[i] = 0, 0
   end
   local windows = #r.requests
   for i, at in ipairs(t.at) do
      local k = math.min(windows, math.floor((at - t.at[1]) / 1000 / w) + 1)
      r.requests[k] = r.requests[k] + 1
      r.input_tokens[k] = r.input_tokens[k] + t.input[i]
   end
   return r
end

-- Requests of the same time, and the times between one request and the next.
local function gaps_and_batches(at)
   local gaps, batches, now = {}, {}, 0
   for i = 1, #at do
      gaps[i - 1] = i > 1 and at[i] - at[i - 1] or nil
      if i > 1 and at[i] ~= at[i - 1] then
         batches[#batches + 1], now = now, 0
      end
      now = now + 1
   end
   batches[#batches + 1] = now > 0 and now or nil
   return gaps, batches
end

-- Of a Poisson process dispersion and gap_cv are 1.
local function arrivals(t, span_s)
   local gaps, batches = gaps_and_batches(t.at)
   local over_time = rates(t, span_s)
   local gap, gap_variance = moments(gaps)
   local per_window, variance = moments(over_time.requests)
   local peak = 0
   for _, n in ipairs(over_time.requests) do peak = math.max(peak, n) end
   return { window_s = over_time.window_s,
      mean_per_s = span_s > 0 and #t.at / span_s or 0,
      peak_per_s = peak / over_time.window_s,
      dispersion = per_window > 0 and variance / per_window or 0,
      gap_cv = gap > 0 and math.sqrt(gap_variance) / gap or 0,
      over_time = { requests = json.array(over_time.requests),
         input_tokens = json.array(over_time.input_tokens) } }, batches
end

-- ---- sharing ------------------------------------------------------------

-- Blocks by how many requests they are in: 1, 2, up to 4, 8, 16, ...
local function reuse_of(blocks, unique)
   local reuse = json.array {}
   for i = 0, unique - 1 do
      local uses, k = tonumber(blocks[i].uses), 1
      while uses > 2 ^ (k - 1) do k = k + 1 end
      while #reuse < k do
         local high = 2 ^ #reuse
         reuse[#reuse + 1] = { from = math.floor(high / 2) + 1, to = high, blocks = 0,
            uses = 0 }
      end
      reuse[k].blocks, reuse[k].uses = reuse[k].blocks + 1, reuse[k].uses + uses
   end
   return reuse
end

-- The numbers of all blocks, those with the most uses first.
local function by_uses(blocks, unique)
   local order = {}
   for i = 0, unique - 1 do
      if blocks[i].uses > 1 then order[#order + 1] = i end
   end
   local uses = function(i) return tonumber(blocks[i].uses) end
   table.sort(order, function(a, b)
      return uses(a) > uses(b) or uses(a) == uses(b) and a < b
   end)
   return order
end

local HOTTEST = 10

-- Uses by rank, at ranks that are even on a logarithmic axis: for a plot.
local function ranks(blocks, order)
   local r, last = { rank = json.array {}, uses = json.array {} }, 0
   for step = 0, 80 do
      local rank = math.floor(10 ^ (step / 12) + 0.5)
      if rank > last and rank <= #order then
         r.rank[#r.rank + 1] = rank
         r.uses[#r.uses + 1] = tonumber(blocks[order[rank]].uses)
         last = rank
      end
   end
   return r
end

local function sharing(hits, total)
   local out = ffi.new "const struct mc_hits_block *[1]"
   local unique = tonumber(C.mc_hits_unique(hits, out))
   local blocks = out[0]
   local order = by_uses(blocks, unique)
   local hottest, top_uses = json.array {}, 0
   local top = math.ceil(unique / 100)
   for rank = 1, math.min(#order, math.max(HOTTEST, top)) do
      local b = blocks[order[rank]]
      if rank <= HOTTEST then hottest[rank] = { id = b.id, uses = tonumber(b.uses) } end
      if rank <= top then top_uses = top_uses + tonumber(b.uses) end
   end
   top_uses = top_uses + math.max(0, top - #order)
   return { unique = unique, shared = #order, never_reused = unique > 0 and
      1 - #order / unique or 0, reuse = reuse_of(blocks, unique), hottest = hottest,
      hottest_percent_uses = total > 0 and top_uses / total or 0,
      by_rank = ranks(blocks, order) }
end

-- ---- caches -------------------------------------------------------------

-- 1, 2, 5 times powers of ten, from about half a percent of the different blocks on.
function M.ladder(unique)
   local list = {}
   for power = 0, 12 do
      for _, m in ipairs { 1, 2, 5 } do
         local n = m * 10 ^ power
         if n >= unique / 200 and n < unique then list[#list + 1] = n end
      end
   end
   list[#list + 1] = math.huge
   return list
end

local function key(capacity)
   return capacity == math.huge and "inf" or ("%.0f"):format(capacity)
end

local function in_blocks(capacities, t)
   local list = {}
   for i, n in ipairs(capacities) do
      local tokens = type(n) == "table" and n.tokens
      list[i] = tokens and math.max(1, math.floor(tokens / t.block_tokens)) or n
   end
   return list
end

-- Hit rates by policy and capacity, capacities as text.
local function hit_rates(hits, total, policies, capacities, tick)
   local rates_of, done = {}, 0
   for _, policy in ipairs(policies) do
      rates_of[policy] = {}
      for _, n in ipairs(capacities) do
         tick("caches tried", done, #policies * #capacities)
         rates_of[policy][key(n)] =
            checked(C.mc_hits_count(hits, policy, n == math.huge and 0 or n)) / total
         done = done + 1
      end
   end
   return rates_of
end

-- ---- all of it ----------------------------------------------------------

-- What is found of reuse without bound on the cache, request by request.
local function ideal(t)
   local hit_tokens, continued = 0, 0
   for i, n in ipairs(t.hit) do
      hit_tokens = hit_tokens + math.min(n * t.block_tokens, t.input[i])
      if n > 1 then continued = continued + 1 end
   end
   return hit_tokens, continued
end

local function statistics(t, hits, opts, tick)
   local blocks = tonumber(C.mc_hits_blocks(hits))
   local span_ms = (t.at[#t.at] or 0) - (t.at[1] or 0)
   local hit_tokens, continued = ideal(t)
   local input = sum(t.input)
   local s = { requests = #t.at, span_ms = span_ms, blocks = blocks,
      block_tokens = t.block_tokens, input = summary(t.input), output = summary(t.output),
      blocks_of_request = summary(t.size), continued = continued,
      ideal_token_rate = input > 0 and hit_tokens / input or 0,
      ideal_block_rate = blocks > 0 and sum(t.hit) / blocks or 0, hit_rate = {} }
   s.max_blocks = s.blocks_of_request.max or 0
   s.input_tokens_mean, s.output_tokens_mean = s.input.mean, s.output.mean
   local batches
   s.arrivals, batches = arrivals(t, span_ms / 1000)
   s.batches, s.batch = #batches, summary(batches)
   s.sharing = sharing(hits, blocks)
   s.unique_blocks = s.sharing.unique
   if blocks > 0 then
      local capacities = in_blocks(opts.capacities or M.ladder(s.unique_blocks), t)
      s.policies = json.array(opts.policies or M.policies)
      s.hit_rate = hit_rates(hits, blocks, s.policies, capacities, tick)
      s.capacities = json.array()
      for i, n in ipairs(capacities) do s.capacities[i] = key(n) end
   end
   return s
end

local known = { capacities = true, policies = true, progress = true, lists = true }

-- The statistics of a trace, or nil, message, errno. Options: capacities of caches, each
-- in blocks, { tokens = n } or math.huge for no bound (default: M.ladder); policies
-- (default: M.policies); progress(what, n, of): called now and then; lists: a table that
-- gets the lengths of all requests, input and output.
--
-- A cache's hit rate is the hits of all requests over their blocks; a request's hits are
-- its longest prefix of blocks that are in the cache when it comes.
function M.of(reader, opts)
   opts = opts or {}
   for k in pairs(opts) do
      if not known[k] then error("trace.stat: no option '" .. tostring(k) .. "'", 2) end
   end
   local out = ffi.new "struct mc_hits *[1]"
   checked(C.mc_hits_open(out))
   local hits = ffi.gc(out[0], C.mc_hits_close)
   local tick = opts.progress or function() end
   local t, why, errno = read(reader, hits, tick)
   local s = t and statistics(t, hits, opts, tick)
   C.mc_hits_close(ffi.gc(hits, nil))
   if not s then return nil, why, errno end
   if opts.lists then opts.lists.input, opts.lists.output = t.input, t.output end
   return s
end

return M
