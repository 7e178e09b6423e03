-- node.lua - a process that serves: an engine with memory and files, a desk that answers
-- questions about them, and Lua from peers where it is allowed.

local ffi = require "ffi"
local C = require "mooncake.ffi"
local desk = require "mooncake.desk"
local eval = require "mooncake.eval"
local files = require "mooncake.files"
local fs = require "mooncake.fs"
local measure = require "mooncake.measure"
local mooncake = require "mooncake"
local proc = require "mooncake.proc"
local sum = require "mooncake.sum"

local Node = {}
Node.__index = Node

local node = {}

local EFAULT = 14
local TICK_MS = 60000

-- ---- questions -------------------------------------------------------------

-- The sum of a range that peers may read.
local function sum_range(self, q)
   for _, b in ipairs(self.engine:buffers() or {}) do
      if type(q.addr) == "number" and type(q.len) == "number" and q.len >= 0 and
         q.addr >= b.addr and q.addr + q.len <= b.addr + b.len and
         (b.access == "r" or b.access == "rw") then
         return { sum = sum.memory(ffi.cast("uintptr_t", q.addr), q.len) }
      end
   end
   return nil, "not inside a buffer that can be read", EFAULT
end

local function ops(self)
   local list = self.files:ops()
   function list.sum_range(q) return sum_range(self, q) end
   function list.cpu() return { cpu_ns = measure.cpu_ns(), pid = proc.pid() } end
   return list
end

-- ---- opening ---------------------------------------------------------------

local function foreign(self, len)
   local ptr, why, errno = fs.anonymous(len)
   if not ptr then return nil, why, errno end
   return self.engine:register(ptr, len, { access = "rw" })
end

local function memory(self, spec)
   if spec.foreign then return foreign(self, spec.memory) end
   return self.engine:alloc(spec.memory, { access = "rw", huge = spec.huge })
end

local function offer(self, spec)
   local ok, why, errno = true, nil, nil
   if spec.memory and spec.memory > 0 then
      self.memory, why, errno = memory(self, spec)
      if not self.memory then return nil, why, errno end
   end
   for _, file in ipairs(spec.files or {}) do
      ok, why, errno = self.files:add(file)
      if not ok then return nil, why, errno end
   end
   if spec.dir then
      ok, why, errno = self.files:below(spec.dir)
      if not ok then return nil, why, errno end
   end
   if spec.allow_repl then return self:allow_repl(spec.eval_timeout or 5) end
   return true
end

-- spec: engine (options of mooncake.open), memory (bytes) with foreign or huge, files
-- (list), dir, allow_repl with eval_timeout (seconds that a text may take; 5).
function node.open(spec)
   local e, why, errno = mooncake.open(spec.engine)
   if not e then return nil, why, errno end
   local self = setmetatable({ engine = e, files = files.open(e) }, Node)
   self.desk, why, errno = desk.open(e)
   local ok = self.desk
   if ok then ok, why, errno = offer(self, spec) end
   if not ok then
      self:close()
      return nil, why, errno
   end
   self.ops = ops(self)
   return self
end

function Node:allow_repl(limit)
   local ok, why, errno = self.engine:eval_allow(true)
   if not ok then return nil, why, errno end
   self.session = eval.session { node = self, engine = self.engine }
   self.session.limit = limit
   self.session.env.__words = function()
      return table.concat(self.session:words(), "\n")
   end
   return true
end

-- ---- serving ---------------------------------------------------------------

local function answer_text(self, q)
   local lines = {}
   local ok, result = self.session:run(q.text, function(line)
      lines[#lines + 1] = line
   end)
   if ok and result then lines[#lines + 1] = result end
   if not ok then lines[#lines + 1] = result end
   self.engine:eval_reply(q.id, table.concat(lines, "\n"), not ok)
end

-- Do what is waiting; true if there was something.
function Node:work()
   local did = false
   local note = self.engine:next_notify()
   while note do
      did = true
      local op = self.desk:answer(note, self.ops)
      if self.on_note and not op then self.on_note(note) end
      note = self.engine:next_notify()
   end
   local q = self.session and self.engine:eval_next(0)
   while q do
      did = true
      answer_text(self, q)
      q = self.engine:eval_next(0)
   end
   return did
end

-- Serve until done() is true; fds are further descriptors that make it look.
function Node:serve(done, fds)
   local watched = { self.engine:fd(), unpack(fds or {}) }
   while not done() do
      self:work()
      self.engine:drain()
      self.files:expire()
      if not done() then
         mooncake.readable(watched, next(self.files.handles) and TICK_MS or -1)
      end
   end
end

function Node:close()
   self.files:close()
   self.engine:close()
end

return node
