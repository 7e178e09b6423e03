-- tracegen_like.lua - request traces with the statistics of another one: its profile, how
-- it is measured, and what is drawn from it.
--
-- The model: batches of requests come one after the other; a request is a session's first
-- turn, or the next turn of one whose pause is over. A next turn extends the conversation
-- (all whole blocks of the turn before are shared), branches off it (some are), or
-- repeats it. All may share the first block. What the model leaves out: the hour of the
-- day, and lengths that depend on one another. Since long prompts branch more often in
-- truth, sessions of the model grow a little faster.

local ffi = require "ffi"
local random = require "mooncake.tracegen_random"

require "mooncake.ffi"

local M = {}

-- The points of every table of quantiles below, in percent.
M.points = { 0, 5, 10, 15, 20, 25, 30, 35, 40, 45, 50, 55, 60, 65, 70, 75, 80, 85, 90, 95,
   97, 98, 99, 99.5, 100 }

-- Measured of the public conversation trace, by `mooncake trace gen --measure`.
M.conversation = {
   again = { 0.33376, 0.437612, 0.557576, 0.644118, 0.666667, 0.708661,
      0.810127, 0.84186 },
   batch = 10.1958,
   block_tokens = 512,
   branch = 0.150064,
   branch_new = { 1, 2, 4, 8, 10, 12, 14, 16, 17, 18, 19, 20, 22, 24, 27, 30,
      32, 34, 39, 52, 59, 63, 85, 95, 186 },
   branch_share = { 0.0149254, 0.0526316, 0.0677966, 0.0810811, 0.0967742,
      0.111111, 0.129032, 0.15, 0.166667, 0.185185, 0.214286, 0.25, 0.290323,
      0.342105, 0.4, 0.45283, 0.52381, 0.686275, 0.833333, 0.90625, 0.925926,
      0.9375, 0.957447, 0.966667, 0.986395 },
   common_block = true,
   extend = 0.822885,
   first = { 891, 897, 905, 943, 1092, 1336, 1756, 2767, 3914, 4587, 5264, 6191,
      7417, 8828, 10775, 13056, 15871, 19453, 25561, 38538, 51792, 67212, 89869,
      111800, 126195 },
   growth = { -1197, -10, 4, 6, 8, 10, 12, 14, 17, 22, 28, 37, 58, 98, 195, 383,
      774, 2754, 4289, 7062, 9529, 12119, 17091, 22478, 91467 },
   max_input = 126195,
   output = { 1, 10, 24, 46, 100, 156, 213, 256, 291, 322, 350, 375, 399, 423,
      447, 472, 504, 543, 597, 698, 802, 893, 1120, 1570, 2000 },
   pause_ms = { 0, 29999, 42000, 51000, 59999, 66001, 75000, 84000, 96000,
      108000, 123000, 138001, 161999, 188999, 222000, 264000, 318000, 390000,
      482999, 617999, 756000, 1032000, 1481999, 1908000, 3030000 },
   period_ms = 3000,
   requests = 12031,
}

-- From a table of quantiles, linear in between.
local function draw(rnd, quantiles)
   local u = rnd:next() * 100
   local i = 1
   while M.points[i + 1] < u do i = i + 1 end
   local a, b = M.points[i], M.points[i + 1]
   local qa, qb = quantiles[i], quantiles[i + 1]
   return qa + (qb - qa) * (u - a) / (b - a)
end

-- What draw() gives on average.
local function mean_of(quantiles)
   local sum = 0
   for i = 2, #M.points do
      local share = (M.points[i] - M.points[i - 1]) / 100
      sum = sum + share * (quantiles[i - 1] + quantiles[i]) / 2
   end
   return sum
end

-- ---- generating ---------------------------------------------------------

local function round(x) return math.floor(x + 0.5) end

local function new_ids(self, ids, upto)
   for i = #ids + 1, upto do
      ids[i], self.next_id = self.next_id, self.next_id + 1
   end
   return ids
end

local function request(self, input, shared, turn)
   local n = math.ceil(input / self.block_tokens)
   return { turn = turn, input_tokens = input, block_tokens = self.block_tokens,
      output_tokens = math.max(1, round(draw(self.rnd, self.profile.output))),
      ids = new_ids(self, shared, n) }
end

local function first_turn(self)
   local input = math.max(1, round(draw(self.rnd, self.profile.first)))
   local common = self.profile.common_block and { 0 } or {}
   return request(self, input, common, 1)
end

local function head(ids, n)
   local list = {}
   for i = 1, math.min(n, #ids) do list[i] = ids[i] end
   return list
end

local function extended(self, last)
   local whole = math.floor(last.input_tokens / self.block_tokens)
   local input = last.input_tokens + last.output_tokens
      + round(draw(self.rnd, self.profile.growth))
   return math.max(input, whole * self.block_tokens + 1), whole
end

local function branched(self, last)
   local shared = round(draw(self.rnd, self.profile.branch_share) * #last.ids)
   shared = math.max(math.min(2, #last.ids), math.min(shared, #last.ids - 1))
   local added = math.max(1, round(draw(self.rnd, self.profile.branch_new)))
   local in_last = 1 + math.floor(self.rnd:next() * self.block_tokens)
   return (shared + added - 1) * self.block_tokens + in_last, shared
end

-- The turn after @last; a first turn where it would outgrow the context.
local function next_turn(self, last)
   local p, u = self.profile, self.rnd:next()
   local input, shared
   if u < p.extend then
      input, shared = extended(self, last)
   elseif u < p.extend + p.branch then
      input, shared = branched(self, last)
   else
      input, shared = last.input_tokens, #last.ids
   end
   if input > p.max_input then return first_turn(self) end
   return request(self, input, head(last.ids, shared), last.turn + 1)
end

-- Decide whether @req has a next turn and put it where its pause is over.
local function plan(self, req)
   local again = self.profile.again
   if self.rnd:next() >= (again[req.turn] or again[#again]) then return end
   local pause = draw(self.rnd, self.profile.pause_ms) * self.think
   local due = self.batch + math.max(1, round(pause / self.profile.period_ms))
   local list = self.due[due] or {}
   self.due[due] = list
   list[#list + 1] = req
end

-- Those whose next turn is due, the ones that waited longest first.
local function ready(self)
   for _, req in ipairs(self.due[self.batch] or {}) do
      self.last = self.last + 1
      self.queue[self.last] = req
   end
   self.due[self.batch] = nil
end

local function pop(self)
   local req = self.queue[self.first]
   if not req then return nil end
   self.queue[self.first] = nil
   self.first = self.first + 1
   return req
end

-- Time to the next batch: a period to the millisecond, or as the gaps are distributed.
local function gap_ms(self)
   local p = self.profile
   if p.gap_ms then return draw(self.rnd, p.gap_ms) * self.gap_scale end
   local u = self.rnd:next()
   return p.period_ms + (u < 0.22 and -1 or u < 0.44 and 1 or 0)
end

local function start_batch(self)
   local p = self.profile
   if self.batch > 0 then self.at_ms = self.at_ms + gap_ms(self) end
   self.left = p.gap_ms and 1 + self.rnd:poisson(p.batch - 1)
      or math.max(1, self.rnd:poisson(p.batch))
   ready(self)
   self.batch = self.batch + 1
end

local function next_request(self)
   if self.made >= self.requests then return nil end
   if self.left == 0 then start_batch(self) end
   local last = pop(self)
   local req = last and next_turn(self, last) or first_turn(self)
   plan(self, req)
   self.left, self.made = self.left - 1, self.made + 1
   local out, n = self.out, #req.ids
   if n > self.room then
      self.room, self.blocks = 2 * n, ffi.new("uint64_t[?]", 2 * n)
   end
   for i = 1, n do self.blocks[i - 1] = req.ids[i] end
   out.line, out.at_ns = self.made, round(self.at_ms * 1e6)
   out.input_tokens, out.output_tokens = req.input_tokens, req.output_tokens
   out.n_blocks, out.blocks, out.block_tokens = n, self.blocks, self.block_tokens
   return out
end

-- An iterator over the requests of a new trace, each a struct mc_trace_req that holds
-- until the next. requests: how many, or as many as the profile is of. think_s: the mean
-- pause between turns. A trace of fewer requests is shorter in time, so by default pauses
-- shrink with it: then as many turns find their session's blocks as in the whole.
function M.requests(profile, requests, seed, think_s)
   local p = profile
   requests = requests or p.requests
   local think = think_s and think_s * 1000 / mean_of(p.pause_ms)
      or math.min(1, requests / p.requests)
   local self = { profile = p, requests = requests, think = think, rnd = random.new(seed),
      gap_scale = p.gap_ms and p.period_ms / mean_of(p.gap_ms),
      made = 0, batch = 0, at_ms = 0, left = 0, due = {}, queue = {}, first = 1, last = 0,
      next_id = p.common_block and 1 or 0, block_tokens = p.block_tokens,
      out = ffi.new "struct mc_trace_req", room = 0 }
   return function() return next_request(self) end
end

-- ---- measuring ----------------------------------------------------------

local function quantiles(list)
   if #list == 0 then list[1] = 0 end
   table.sort(list)
   local q = {}
   for i, p in ipairs(M.points) do
      q[i] = list[math.min(#list, math.floor(p / 100 * #list) + 1)]
   end
   return q
end

-- What request @now shares with the last one that had the same longest prefix.
local function compare(m, now, before)
   local whole = math.floor(before.input_tokens / m.block_tokens)
   local kinds, pause = m.kinds, now.at_ms - before.at_ms
   m.pause_ms[#m.pause_ms + 1] = pause
   if now.shared == before.n_blocks then
      kinds.repeated = kinds.repeated + 1
   elseif now.shared >= whole then
      kinds.extend = kinds.extend + 1
      m.growth[#m.growth + 1] = now.input_tokens - before.input_tokens
         - before.output_tokens
   else
      kinds.branch = kinds.branch + 1
      m.branch_share[#m.branch_share + 1] = now.shared / before.n_blocks
      m.branch_new[#m.branch_new + 1] = now.n_blocks - now.shared
   end
end

-- Any 64 bits as the key of a table: of a number's 53 the ids in a row would share most.
local function key(id)
   return tonumber(id * 0x9e3779b97f4a7c15ULL)
end

local function look(m, req)
   local now = { at_ms = tonumber(req.at_ns) / 1e6, input_tokens = req.input_tokens,
      output_tokens = req.output_tokens, n_blocks = req.n_blocks, shared = 0, turn = 1 }
   local before
   for i = 0, req.n_blocks - 1 do
      local user = m.user[key(req.blocks[i])]
      if not user then break end
      now.shared, before = i + 1, user
   end
   m.common = m.common and req.n_blocks > 0 and (#m.all == 0 or now.shared > 0)
   if now.shared > 1 then
      compare(m, now, before)
      now.turn, before.again = before.turn + 1, true
   else
      m.first[#m.first + 1] = now.input_tokens
   end
   for i = 0, req.n_blocks - 1 do m.user[key(req.blocks[i])] = now end
   m.output[#m.output + 1], m.all[#m.all + 1] = now.output_tokens, now
   m.max_input = math.max(m.max_input, now.input_tokens)
end

-- How often a turn has another, by its number; turns too late in the trace for that are
-- left out, and the high turns, of which there are few, are taken together.
local function continuation(all)
   local turns, last = 8, all[#all].at_ms
   local n, yes = {}, {}
   for _, req in ipairs(all) do
      if req.at_ms < 0.75 * last or last == 0 then
         local t = math.min(req.turn, turns)
         n[t], yes[t] = (n[t] or 0) + 1, (yes[t] or 0) + (req.again and 1 or 0)
      end
   end
   local again = {}
   for t = 1, #n do again[t] = yes[t] / n[t] end
   return again
end

-- Mean gap between batches, mean batch, and the gaps unless all are about the same.
local function arrivals(all)
   local gaps, batches = {}, 1
   for i = 2, #all do
      local gap = all[i].at_ms - all[i - 1].at_ms
      if gap > 0 then batches, gaps[#gaps + 1] = batches + 1, gap end
   end
   if #gaps == 0 then return 1, #all end
   local q = quantiles(gaps)
   local low, median, high = q[3], q[11], q[19]
   if high - low < 0.01 * median then return median, #all / batches end
   return (all[#all].at_ms - all[1].at_ms) / #gaps, #all / batches, q
end

-- The profile of a trace, from its reader (of the mooncake.trace module); nil, message,
-- errno if it cannot be read.
function M.measure(reader)
   local m = { pause_ms = {}, growth = {}, branch_share = {}, branch_new = {}, first = {},
      output = {}, all = {}, user = {}, max_input = 1, common = true, block_tokens = 512,
      kinds = { extend = 0, branch = 0, repeated = 0 } }
   while true do
      local req, why, errno = reader:next()
      if why then return nil, why, errno end
      if req == nil then break end
      m.block_tokens = req.block_tokens
      look(m, req)
   end
   if #m.all == 0 then return nil, reader.path .. ": no request to measure" end
   local period, batch, gaps = arrivals(m.all)
   local k = m.kinds
   local next_turns = math.max(1, k.extend + k.branch + k.repeated)
   return { requests = #m.all, block_tokens = m.block_tokens, period_ms = period,
      gap_ms = gaps, batch = batch, common_block = m.common, max_input = m.max_input,
      extend = k.extend / next_turns, branch = k.branch / next_turns,
      again = continuation(m.all), first = quantiles(m.first),
      output = quantiles(m.output), growth = quantiles(m.growth),
      pause_ms = quantiles(m.pause_ms),
      branch_share = quantiles(m.branch_share), branch_new = quantiles(m.branch_new) }
end

local function number(x)
   return (x == math.floor(x) and "%d" or "%.6g"):format(x)
end

-- "{ 1, 2, 3 }" in lines of at most 80 columns after @indent.
local function list(items, indent)
   local lines, line = {}, indent .. "{ "
   for i, x in ipairs(items) do
      local word = number(x) .. (i < #items and "," or " }")
      if #line + #word > 80 then
         lines[#lines + 1], line = line, "      "
      end
      line = line .. word .. (i < #items and " " or "")
   end
   lines[#lines + 1] = line
   return (table.concat(lines, "\n"):gsub(" \n", "\n"))
end

-- A profile as Lua text.
function M.text(profile)
   local names, lines = {}, {}
   for name in pairs(profile) do names[#names + 1] = name end
   table.sort(names)
   for i, name in ipairs(names) do
      local v, start = profile[name], "   " .. name .. " = "
      lines[i] = type(v) == "table" and list(v, start) or
         start .. (type(v) == "number" and number(v) or tostring(v))
   end
   return "{\n" .. table.concat(lines, ",\n") .. ",\n}\n"
end

return M
