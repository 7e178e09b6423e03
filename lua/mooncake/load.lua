-- load.lua - where the requests of a simulation come from: a trace or a generator, as it
-- is or at another speed, in its own time or in a closed loop, as single requests or as
-- sessions.
--
--    local l = assert(load.open { trace = "trace.jsonl", speed = 2 })
--    local req, why = l:next()        -- a struct mc_trace_req; nil: none now; nil, why
--    local req, room = l:done(record) -- what follows from a request that has ended, if
--                                     -- anything: the next turn of its session
--
-- Times count from the first request. A request is valid until the next call.

local ffi = require "ffi"
local C = require "mooncake.ffi"
local sessions = require "mooncake.sim_sessions"
local trace = require "mooncake.trace"
local tracegen = require "mooncake.tracegen"

local Load = {}
Load.__index = Load

local load = {}

local REQ_SIZE = ffi.sizeof "struct mc_trace_req"

-- ---- sources ---------------------------------------------------------------

-- A source has next() and rewind(), as a trace reader.
local Made = {}
Made.__index = Made

local function made(words)
   local self = setmetatable({ words = words }, Made)
   local ok, why, errno = self:rewind()
   if not ok then return nil, why, errno end
   return self
end

function Made:next() return self.iterator() end

function Made:rewind()
   local iterator, why, errno = tracegen.requests(self.words)
   if not iterator then return nil, why, errno end
   self.iterator = iterator
   return true
end

local function source_of(opts)
   if opts.synthetic then return made(opts.synthetic) end
   return trace.open(opts.trace, { format = opts.format,
                                   block_tokens = opts.block_tokens })
end

-- ---- opening ---------------------------------------------------------------

local known = { trace = true, format = true, block_tokens = true, synthetic = true,
                sessions = true, speed = true, start = true, limit = true,
                repeats = true, concurrency = true, seed = true }

-- A load. Options: trace (a path, "-": standard input) with format and block_tokens, or
-- synthetic (words for tracegen.requests); start (seconds of the trace to leave
-- out), repeats (how often it is played), limit (requests), speed (divides the gaps);
-- concurrency (in its place: so many at any time); sessions (parameters of
-- mooncake.sim_sessions), seed. The first request is read, so that a trace that cannot
-- be is refused here: nil, why. It is in load.first.
function load.open(opts)
   for k in pairs(opts) do
      if not known[k] then error("load.open: no option '" .. tostring(k) .. "'", 2) end
   end
   local source, why = source_of(opts)
   if not source then return nil, why end
   local self = setmetatable({
      source = source, speed = opts.speed or 1, repeats = opts.repeats or 1,
      limit = opts.limit or math.huge, start_ns = (opts.start or 0) * 1e9,
      concurrency = opts.concurrency, active = 0, given = 0, shift_ns = 0, last_ns = 0,
      seen = 0, out = ffi.new "struct mc_trace_req",
      first = ffi.new "struct mc_trace_req",
   }, Load)
   self.sessions = opts.sessions and sessions.new(opts.sessions, opts.seed or 1)
   local ok
   ok, why = self:peek()
   if ok then return self end
   return nil, why or (opts.trace or "the generator") .. ": there is no request in it" ..
                     (opts.start and opts.start > 0 and " from there on" or "")
end

-- ---- one after the other ---------------------------------------------------

-- The trace once more, after a pause like those in it.
local function again(self)
   if self.repeats <= 1 or self.seen == 0 then return nil end
   local ok, why = self.source:rewind()
   if not ok then return nil, why end
   self.repeats = self.repeats - 1
   self.shift_ns = self.last_ns + self.last_ns / math.max(1, self.seen - 1)
   return true
end

-- The next request of the source into self.out, timed from the first: true, or nil.
local function read(self)
   local out = self.out
   while true do
      local req, why = self.source:next()
      if why then return nil, why end
      if req == nil then
         local ok
         ok, why = again(self)
         if not ok then return nil, why end
      else
         local at = tonumber(req.at_ns)
         self.zero_ns = self.zero_ns or at
         at = at - self.zero_ns - self.start_ns
         if at >= 0 then
            ffi.copy(out, req, REQ_SIZE)
            self.last_ns = at + self.shift_ns
            self.seen = self.seen + 1
            out.at_ns = self.last_ns / self.speed
            return true
         end
      end
   end
end

-- Have the first request before anyone asks for it.
function Load:peek()
   local ok, why = read(self)
   if not ok then return nil, why end
   ffi.copy(self.first, self.out, REQ_SIZE)
   self.peeked = true
   return true
end

-- The requests of a load are numbered in the order in which it gives them.
local function give(self, req)
   self.given = self.given + 1
   return req
end

-- The next request that begins something; nil if there is none now or any more, and why
-- if the trace is wrong.
function Load:next()
   if self.given >= self.limit then return nil end
   if self.concurrency and self.active >= self.concurrency then return nil end
   if self.peeked then
      self.peeked = false
   else
      local ok, why = read(self)
      if not ok then return nil, why end
   end
   if self.concurrency then self.out.at_ns = 0 end
   self.active = self.active + 1
   if self.sessions then self.sessions:begin(self.given, self.out) end
   return give(self, self.out)
end

-- Hear that a request has ended: the request that follows from it, or nil and whether
-- there is room for another one now, in a closed loop.
function Load:done(record)
   local more = self.sessions and self.given < self.limit
   local req = more and self.sessions:follow(record, self.given)
   if req then return give(self, req) end
   self.active = self.active - 1
   return nil, self.concurrency ~= nil
end

return load
