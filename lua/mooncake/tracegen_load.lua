-- tracegen_load.lua - a load from a few parameters: arrivals, lengths, shared prefixes
-- and sessions, each drawn by itself.
--
-- * Requests come as a Poisson process. In batches: those of a period at its end.
-- * The first part of a prompt, prefix_ratio of its tokens, is the beginning of one of so
--   many shared prefixes, which are as long as it takes; the rest is its own.
-- * A request has a next turn with probability 1 - 1/turns: sessions have that many on
--   average. A next turn is all that was said so far, and a message. Sessions that pause
--   are a pool of as many as come in the time of a pause (Little's law); while there are
--   more, the next request is a turn of any of them. So the pauses are exponential, with
--   no clock for each.
--
-- Blocks have ids without a table of them: a full block's is even and says of which
-- prefix or session and where it is, a partial one's is odd and comes once. Nothing is
-- kept of a request but its session, while that pauses, and iterating makes no garbage.

local ffi = require "ffi"
local random = require "mooncake.tracegen_random"

require "mooncake.ffi"

local M = {}

-- ---- one request -----------------------------------------------------------

-- When: in microseconds, which is how finely traces are written.
local function arrival(self)
   self.at_s = self.at_s + self.rnd:exponential(self.gap_s)
   local at = self.at_s
   if self.period_s > 0 then at = math.ceil(at / self.period_s) * self.period_s end
   return math.floor(at * 1e6 + 0.5) * 1000
end

local function first_turn(self, s)
   s.input = self.rnd:length(self.input, self.context)
   s.prefix, s.shared = 0, 0
   if self.prefix_ratio > 0 then
      local whole = math.floor(s.input / self.block_tokens)
      local shared = self.prefix_ratio * s.input / self.block_tokens
      s.prefix = self.rnd:pick(self.prefixes)
      s.shared = math.min(whole, math.floor(shared + self.rnd:next()))
   end
   s.base = self.next_base - s.shared
   local room = self.again > 0 and self.span or s.input / self.block_tokens
   self.next_base = s.base + math.floor(room)
end

local function pause(self, s)
   local at = self.paused + self.n * 5
   at[0], at[1], at[2], at[3], at[4] = s.base, s.prefix, s.shared, s.input, s.output
   self.n = self.n + 1
end

-- Go on with a session that pauses: false if none has paused for long enough, or if its
-- context is full, which ends it.
local function next_turn(self, s)
   if self.n <= self.pool then return false end
   self.n = self.n - 1
   local at = self.paused + math.floor(self.rnd:next() * (self.n + 1)) * 5
   local last = self.paused + self.n * 5
   s.base, s.prefix, s.shared, s.input, s.output = at[0], at[1], at[2], at[3], at[4]
   at[0], at[1], at[2], at[3], at[4] = last[0], last[1], last[2], last[3], last[4]
   s.input = s.input + s.output + self.rnd:length(self.message, self.context)
   return s.input <= self.context
end

local function fill(self, s)
   local ids, whole = self.ids, math.floor(s.input / self.block_tokens)
   local first = s.prefix * self.span
   for i = 0, s.shared - 1 do ids[i] = 2 * (first + i) end
   for i = s.shared, whole - 1 do ids[i] = 2 * (s.base + i) end
   if whole * self.block_tokens == s.input then return whole end
   ids[whole] = 2 * self.partial + 1
   self.partial = self.partial + 1
   return whole + 1
end

local function next_request(self)
   if self.made >= self.requests then return nil end
   local req, s = self.req, self.session
   self.made = self.made + 1
   req.line, req.at_ns = self.made, arrival(self)
   if not next_turn(self, s) then first_turn(self, s) end
   s.output = self.rnd:length(self.output, self.context)
   req.input_tokens, req.output_tokens = s.input, s.output
   req.n_blocks = fill(self, s)
   if self.again > 0 and self.rnd:next() < self.again then pause(self, s) end
   return req
end

-- ---- all of them -----------------------------------------------------------

-- An iterator over requests, each a struct mc_trace_req that holds until the next. @p:
-- requests, rate, arrivals (seconds of a batch; 0: none), input, output, message (of
-- random.lengths()), prefix_ratio, prefixes, zipf, turns, think, block_tokens, context,
-- seed.
function M.requests(p)
   local span = math.ceil(p.context / p.block_tokens) + 1
   local again = 1 - 1 / p.turns
   local pool = math.floor(p.think * p.rate * again + 0.5)
   local buffer = ffi.new("uint64_t[?]", span)
   local self = { rnd = random.new(p.seed), requests = p.requests, gap_s = 1 / p.rate,
      period_s = p.arrivals, at_s = 0, made = 0,
      input = p.input, output = p.output, message = p.message, context = p.context,
      block_tokens = p.block_tokens, span = span,
      prefix_ratio = p.prefix_ratio, prefixes = random.zipf(p.prefixes, p.zipf),
      next_base = p.prefixes * span, partial = 0,
      again = again, pool = pool, n = 0, paused = ffi.new("double[?]", 5 * (pool + 1)),
      session = { base = 0, prefix = 0, shared = 0, input = 0, output = 0 },
      req = ffi.new "struct mc_trace_req",
      -- Signed, since numbers become those faster.
      buffer = buffer, ids = ffi.cast("int64_t *", buffer) }
   self.req.blocks, self.req.block_tokens = buffer, p.block_tokens
   return function() return next_request(self) end
end

return M
