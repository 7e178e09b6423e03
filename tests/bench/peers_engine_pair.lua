-- peers_engine_pair.lua - two processes between which blocks are moved, for
-- peers_engine.lua: two of peers_engine.py, or this one and a target of ours.
--
--   local pair = assert(pairs_of.open(side, span))
--   local figures = assert(pair:run { op = "write", block = 4096, batch = 16, ms = 300 })
--   pair:close()
--
-- Figures as Session:run() of mooncake.bench has them; CPU time is that of both ends.
-- A side: from and to, each an engine of peers_engine.py: { python, kind, env }; or
-- c = true and transport, for ours from this process.

local bench = require "mooncake.bench"
local json = require "mooncake.json"
local kit = require "mooncake.benchkit"
local measure = require "mooncake.measure"
local proc = require "mooncake.proc"

local pairs_of = {}

local Pair = {}
Pair.__index = Pair

local SCRIPT = "tests/bench/peers_engine.py"
local OPEN_MS, ANSWER_MS, END_MS = 60000, 60000, 2000

-- ---- one process -----------------------------------------------------------

local function spawn(engine, span)
   return proc.spawn { engine.python, SCRIPT, engine.kind, ("%d"):format(span),
                       env = engine.env, stdin = "pipe", stdout = "pipe",
                       stderr = "null" }
end

-- Its next line, or nil and why there is none.
local function hear(p, ms)
   local line, why = p:read_line(ms)
   if not line then
      return nil, why == "eof" and ("it ended, status %d"):format(p:wait()) or
                  "it does not answer"
   end
   local t
   t, why = json.decode(line)
   if not t then return nil, why end
   if t.error then return nil, t.error end
   return t
end

local function ask(p, command, ms)
   local ok, why = p:write(json.encode(command) .. "\n")
   if not ok then return nil, why end
   return hear(p, ms)
end

-- They end with their stdin, and take shared memory that they made with them.
local function finish(p)
   p:close_stdin()
   if not p:wait(END_MS) then
      p:kill "KILL"
      p:wait()
   end
   p:close()
end

-- ---- two of them -----------------------------------------------------------

local function start(self, side, span)
   local why
   self.to, why = spawn(side.to, span)
   if not self.to then return nil, why end
   self.from, why = spawn(side.from, span)
   if not self.from then return nil, why end
   local peer, ready
   peer, why = hear(self.to, OPEN_MS)
   if not peer then return nil, why end
   ready, why = hear(self.from, OPEN_MS)
   if not ready then return nil, why end
   return ask(self.from, { what = "connect", peer = peer }, ANSWER_MS)
end

-- Why a side cannot be measured here, or nil.
function pairs_of.absent(side)
   for _, engine in ipairs { side.from, side.to } do
      local python = engine.python
      if python:find "/" and not kit.exists(python) then
         return ("no %s: scripts/deps.sh peers"):format(python)
      end
   end
end

function pairs_of.open(side, span)
   if side.c then
      return bench.open { span = span, memory = "foreign", transport = side.transport }
   end
   local self = setmetatable({}, Pair)
   local ok, why = start(self, side, span)
   if ok then return self end
   self:close()
   return nil, why
end

function Pair:close()
   if self.from then finish(self.from) end
   if self.to then finish(self.to) end
   self.from, self.to = nil, nil
end

-- CPU nanoseconds of both so far.
local function cpu_ns(self)
   return measure.cpu_ns(self.from.pid) + measure.cpu_ns(self.to.pid)
end

function Pair:run(p)
   local command = { what = "run", op = p.op, block = p.block, batch = p.batch,
                     ms = math.max(20, p.ms / 10) }
   local f, why = ask(self.from, command, ANSWER_MS)
   if not f then return nil, why end
   local before = cpu_ns(self)
   command.ms = p.ms
   f, why = ask(self.from, command, p.ms + ANSWER_MS)
   if not f then return nil, why end
   f.cpu_s_per_gb = (cpu_ns(self) - before) / f.bytes
   return f
end

return pairs_of
