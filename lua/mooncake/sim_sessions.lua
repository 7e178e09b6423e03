-- sim_sessions.lua - conversations: after the answer to a turn, and a pause, the next
-- turn, whose prompt is all that was said so far and something new.
--
-- What is drawn for a turn depends on the seed, the session and the turn alone, so that
-- two policies meet the same conversations although turns come at other times.

local ffi = require "ffi"
local bit = require "bit"
local C = require "mooncake.ffi"

local Sessions = {}
Sessions.__index = Sessions

local sessions = {}

local GOLDEN = 0x9e3779b97f4a7c15ULL
-- Ids of blocks that a session makes, apart from those of traces.
local FIRST_ID = 0xc000000000000000ULL

-- The finalizer of splitmix64 (Steele et al., OOPSLA'14): bits that look random.
local function mixed(x)
   x = bit.bxor(x, bit.rshift(x, 30)) * 0xbf58476d1ce4e5b9ULL
   x = bit.bxor(x, bit.rshift(x, 27)) * 0x94d049bb133111ebULL
   return bit.bxor(x, bit.rshift(x, 31))
end

-- Uniform in (0, 1).
local function uniform(self, session, turn, what)
   local x = mixed(self.seed + session.number * GOLDEN)
   x = mixed(x + turn * 8 + what)
   return (tonumber(bit.rshift(x, 11)) + 0.5) / 2 ^ 53
end

local THINK, MESSAGE, ANSWER = 0, 1, 2

-- Exponential: what is known of it is the mean.
local function draw(self, session, what, mean)
   return -mean * math.log(uniform(self, session, session.turn, what))
end

-- turns: in every session; think_s: mean pause; message, answer: mean tokens of what the
-- user says next, and is answered; max_input: where a session ends early.
function sessions.new(params, seed)
   return setmetatable({
      turns = params.turns, think_s = params.think_s, message = params.message,
      answer = params.answer, max_input = params.max_input or 131072, seed = seed + 0ULL,
      of = {}, number = 0, next_id = FIRST_ID, out = ffi.new "struct mc_trace_req",
   }, Sessions)
end

-- Request id is the first turn of a session.
function Sessions:begin(id, req)
   if self.turns <= 1 then return end
   local s = { number = self.number, turn = 1, n = req.n_blocks, size = req.n_blocks,
               input = req.input_tokens, output = req.output_tokens,
               ids = ffi.new("uint64_t[?]", req.n_blocks) }
   ffi.copy(s.ids, req.blocks, req.n_blocks * 8)
   self.block_tokens, self.number = req.block_tokens, self.number + 1
   self.of[id] = s
end

-- The prompt has grown by an answer and a message: blocks that were full stay.
local function extend(self, s, input)
   if s.n > 0 then
      local whole = math.floor(s.input / self.block_tokens)
      local n = math.ceil(input / self.block_tokens)
      if n > s.size then
         local ids = ffi.new("uint64_t[?]", n * 2)
         ffi.copy(ids, s.ids, s.n * 8)
         s.ids, s.size = ids, n * 2
      end
      for i = whole, n - 1 do
         s.ids[i], self.next_id = self.next_id, self.next_id + 1
      end
      s.n = n
   end
   s.input, s.turn = input, s.turn + 1
end

local function request(self, s, at_s)
   local req = self.out
   req.at_ns = (at_s + draw(self, s, THINK, self.think_s)) * 1e9
   req.input_tokens, req.output_tokens = s.input, s.output
   req.block_tokens, req.n_blocks = self.block_tokens, s.n
   req.blocks = s.n > 0 and s.ids or nil
   return req
end

-- Request record.id has ended: the next turn of its session, which is request id, or
-- nil. A refused turn ends the session: the user has gone.
function Sessions:follow(record, id)
   local was = tonumber(record.id)
   local s = self.of[was]
   if not s then return nil end
   self.of[was] = nil
   if record.outcome ~= C.MC_SIM_COMPLETED or s.turn >= self.turns then return nil end
   local message = math.ceil(draw(self, s, MESSAGE, self.message))
   local input = s.input + s.output + message
   if input > self.max_input then return nil end
   extend(self, s, input)
   s.output = math.ceil(draw(self, s, ANSWER, self.answer))
   self.of[id] = s
   return request(self, s, record.done_s)
end

return sessions
