-- desk.lua - questions to a serving node and their answers, as small tables.
--
-- A question is a notification. The answer is laid on the node's desk, a buffer that
-- peers can only read, under the question's id; who asked looks there until it is. So
-- the asking side needs no port of its own, and nothing has to find a way back to it.
-- The desk has 63 places, used in turn: an answer is there until 63 others have come.

local bit = require "bit"
local ffi = require "ffi"
local C = require "mooncake.ffi"
local json = require "mooncake.json"
local timer = require "mooncake.timer"

-- The first slot says what this is; sum is of the text, with the id as the seed: one
-- that is just being written does not fit.
ffi.cdef [[
struct mcl_desk_slot { uint64_t id, sum; uint32_t len, unused; char text[1000]; };
]]

local MAGIC = "mooncake desk 1"
local QUESTION = "mooncake.desk"
local SLOTS = 64
local SIZE = SLOTS * ffi.sizeof "struct mcl_desk_slot"
local TEXT = 1000
local E2BIG, EPROTO, ETIMEDOUT, EOPNOTSUPP = 7, 71, 110, 95

local desk = {}

-- ---- the node's side -------------------------------------------------------

local Desk = {}
Desk.__index = Desk

function desk.open(engine)
   local b, why, errno = engine:alloc(SIZE, { access = "r" })
   if not b then return nil, why, errno end
   b:set(24, MAGIC)
   return setmetatable({
      buffer = b, slots = ffi.cast("struct mcl_desk_slot *", b.ptr), next = 1,
   }, Desk)
end

function Desk:lay(id, answer)
   local text = json.encode(answer)
   if #text > TEXT then
      text = json.encode { error = "the answer is too long", errno = E2BIG }
   end
   local slot = self.slots[self.next]
   self.next = self.next % (SLOTS - 1) + 1
   slot.id = 0
   ffi.copy(slot.text, text, #text)
   slot.len, slot.sum = #text, C.mc_hash(text, #text, id)
   slot.id = id
end

-- Answer a notification if it is a question: ops[op](args, from) returns the answer as a
-- table, or nil, why, errno. Returns the op, or nil for what was no question.
function Desk:answer(note, ops)
   if note.name ~= QUESTION then return nil end
   local hex, text = note.msg:match "^(%x+) (.*)$"
   local args = text and json.decode(text)
   local id = hex and #hex == 16 and ffi.new("uint64_t", tonumber(hex:sub(1, 8), 16)) *
              2 ^ 32 + tonumber(hex:sub(9), 16)
   if not id or type(args) ~= "table" then return "?" end
   local op = ops[args.op]
   if not op then
      self:lay(id, { error = ("this node does not answer '%s'"):format(tostring(args.op)),
                     errno = EOPNOTSUPP })
      return args.op
   end
   local ok, answer, why, errno = pcall(op, args, note.from)
   if not ok then answer, why, errno = nil, tostring(answer), EPROTO end
   self:lay(id, answer or { error = why, errno = errno or EPROTO })
   return args.op
end

-- ---- who asks --------------------------------------------------------------

local Client = {}
Client.__index = Client

-- The desk of a segment, or nil, why, errno: not every engine has one.
function desk.find(segment)
   local list, why, errno = segment:buffers()
   if not list then return nil, why, errno end
   for _, b in ipairs(list) do
      if b.len == SIZE and b.access == "r" and
         segment:read_string(b.addr + 24, #MAGIC) == MAGIC then
         local mine
         mine, why, errno = segment.engine:alloc(SIZE, { access = "local" })
         if not mine then return nil, why, errno end
         return setmetatable({
            segment = segment, addr = b.addr, buffer = mine,
            slots = ffi.cast("struct mcl_desk_slot *", mine.ptr),
         }, Client)
      end
   end
   why = segment.name .. " answers no questions: is it a `mooncake serve`?"
   return nil, why, EOPNOTSUPP
end

local serial = 0

local function new_id()
   serial = serial + 1
   local seed = tostring(C.mc_now_ns()) .. serial
   return C.mc_hash(seed, #seed, ffi.cast("uintptr_t", ffi.new "char[1]"))
end

local function look(self, id)
   local n, why, errno = self.segment:read(self.buffer, self.addr, SIZE)
   if not n then return nil, why, errno end
   for i = 1, SLOTS - 1 do
      local slot = self.slots[i]
      if slot.id == id and slot.len <= TEXT then
         local text = ffi.string(slot.text, slot.len)
         if C.mc_hash(text, #text, id) == slot.sum then return text end
      end
   end
   return false
end

-- The answer as a table, or nil, why, errno - of the node, or of the way to it.
function Client:ask(op, args, timeout_ms)
   local question = { op = op }
   for k, v in pairs(args or {}) do question[k] = v end
   local id = new_id()
   local ok, why, errno = self.segment:notify(QUESTION, bit.tohex(id) .. " " ..
                                              json.encode(question))
   if not ok then return nil, why, errno end
   local stop, pause = tonumber(C.mc_now_ns()) + (timeout_ms or 5000) * 1e6, 0
   repeat
      local text
      text, why, errno = look(self, id)
      if text == nil then return nil, why, errno end
      if text then
         local answer, bad = json.decode(text)
         if not answer then return nil, bad, EPROTO end
         if answer.error then return nil, answer.error, answer.errno, true end
         return answer
      end
      timer.sleep(pause)
      pause = math.min(pause * 1.5 + 0.05, 20)
   until tonumber(C.mc_now_ns()) > stop
   return nil, ("%s did not answer '%s' in time"):format(self.segment.name, op), ETIMEDOUT
end

function Client:close() self.buffer:free() end

return desk
