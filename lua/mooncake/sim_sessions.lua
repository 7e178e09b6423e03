-- sim_sessions.lua - conversations: after the answer to a turn, and a pause, the next
-- turn, whose prompt is all that was said so far and something new.
--
-- What is drawn for a turn depends on the seed, the session and the turn alone, so that
-- two policies meet the same conversations although turns come at other times.

local bit = require "bit"
local ffi = require "ffi"
local C = require "mooncake.ffi"
local random = require "mooncake.tracegen_random"

local Sessions = {}
Sessions.__index = Sessions

local sessions = {}

-- Ids of blocks that a session makes, apart from those of traces.
local FIRST_ID = 0xc000000000000000ULL

-- The finalizer of splitmix64 (Steele et al., OOPSLA'14): bits that look random.
local function mixed(x)
   x = bit.bxor(x, bit.rshift(x, 30)) * 0xbf58476d1ce4e5b9ULL
   x = bit.bxor(x, bit.rshift(x, 27)) * 0x94d049bb133111ebULL
   return bit.bxor(x, bit.rshift(x, 31))
end

local function chance(self, s)
   local x = mixed(mixed(self.seed + s.number) + s.turn)
   return random.new(tonumber(bit.rshift(x, 32)))
end

-- turns: of a session, on average; think: seconds of a pause, on average; message and
-- output: tokens of what is said next and of its answer, as random.lengths() has them;
-- context: tokens at which a session ends.
function sessions.new(params, seed)
   return setmetatable({
      again = 1 - 1 / params.turns, think_s = params.think, message = params.message,
      output = params.output, context = params.context, seed = seed + 0ULL,
      of = {}, number = 0, next_id = FIRST_ID, req = ffi.new "struct mc_trace_req",
   }, Sessions)
end

-- Request id is the first turn of a session.
function Sessions:begin(id, req)
   local s = { number = self.number, turn = 1, n = req.n_blocks, size = req.n_blocks,
               input = req.input_tokens, output = req.output_tokens,
               ids = ffi.new("uint64_t[?]", req.n_blocks) }
   ffi.copy(s.ids, req.blocks, req.n_blocks * 8)
   self.block_tokens, self.number = req.block_tokens, self.number + 1
   self.of[id] = s
end

-- The prompt has grown: blocks that were full stay.
local function extend(self, s, input)
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
   s.input, s.n, s.turn = input, n, s.turn + 1
end

local function request(self, s, at_s)
   local req = self.req
   req.at_ns, req.input_tokens, req.output_tokens = at_s * 1e9, s.input, s.output
   req.block_tokens, req.n_blocks, req.blocks = self.block_tokens, s.n, s.ids
   return req
end

-- Request record.id has ended: the next turn of its session, which is request id, or
-- nil. A refused turn ends the session: the user has gone.
function Sessions:follow(record, id)
   local was = tonumber(record.id)
   local s = self.of[was]
   self.of[was] = nil
   if record.outcome ~= C.MC_SIM_COMPLETED then return nil end
   local rnd = chance(self, s)
   if rnd:next() >= self.again then return nil end
   local pause_s = rnd:exponential(self.think_s)
   local input = s.input + s.output + rnd:length(self.message, self.context)
   if input > self.context then return nil end
   extend(self, s, input)
   s.output = rnd:length(self.output, self.context)
   self.of[id] = s
   return request(self, s, record.done_s + pause_s)
end

return sessions
