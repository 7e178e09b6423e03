-- copy.lua - one copy from end to end: a few buffers in turn, so that reading and
-- writing overlap; sums compared group by group; and on again from the last good place
-- after a link broke. What cannot heal, as a wrong address, ends it at once.

local buffer_names = { "source", "what came", "destination" }

local mooncake = require "mooncake"
local sum = require "mooncake.sum"

local CHUNK = sum.PIECE
local SLOTS = 4
local GROUP = 64 * CHUNK
local TRIES = 3
local MARK_EVERY = 1
local PAUSE, LONGEST_PAUSE = 0.1, 1

-- A request that is wrong stays so: EACCES, EFAULT, EINVAL, ENOENT.
local WRONG = { [13] = true, [14] = true, [22] = true, [2] = true }
local EACCES, EINVAL = 13, 22

local Copy = {}
Copy.__index = Copy

local copy = {}

-- spec: source, dest (see ends.lua), engine, verify, resume, there (with resume: the
-- destination as a source, which may be complete), retry (seconds), rate (bytes per
-- second or nil), slots (of an earlier copy), on_progress(done), on_note(text),
-- stopped().
function copy.new(spec)
   spec.retries, spec.done, spec.reached, spec.pause = 0, 0, 0, PAUSE
   return setmetatable(spec, Copy)
end

-- ---- moving a group --------------------------------------------------------

local function slots(self)
   if self.slots then return true end
   local list = {}
   for i = 1, SLOTS do
      local b, why, errno = self.engine:alloc(CHUNK, { access = "local" })
      if not b then return nil, why, errno, true end
      list[i] = { buffer = b }
   end
   self.slots = list
   return true
end

local function finish(x)
   if type(x) ~= "table" then return x end
   local ok, why, errno = x:wait()
   return ok, why, errno
end

-- Nothing may be under way in a buffer that is used again.
local function quiesce(self)
   for _, s in ipairs(self.slots) do
      for _, k in ipairs { "filling", "draining" } do
         if type(s[k]) == "table" then
            s[k]:cancel()
            s[k]:wait()
         end
         s[k] = nil
      end
   end
end

-- Have the destination note how far it has got: now and then, should this process die.
local function remember(self)
   local now = mooncake.now()
   if now - (self.remembered or 0) < MARK_EVERY then return end
   self.remembered = now
   self.dest:mark(self.done)
end

local function pace(self, from)
   if not self.rate then return end
   self.paced_from = self.paced_from or { from, mooncake.now() }
   local due = self.paced_from[2] + (self.done - self.paced_from[1]) / self.rate
   if due > mooncake.now() then mooncake.sleep((due - mooncake.now()) * 1000) end
end

-- Further than ever before: what comes next is another trouble than the last.
local function progress(self)
   if self.done > self.reached then
      self.reached, self.since, self.pause = self.done, mooncake.now(), PAUSE
      self.opened_anew, self.noted = false, nil
   end
   self.on_progress(self.done)
end

-- Copy [from, to); self.done is how far it got. Chunk k goes through slot k % SLOTS:
-- first filled, then drained; x, d and f are the next to finish, to drain and to fill.
local function pump(self, from, to, total)
   local n, f, d, x = math.ceil((to - from) / CHUNK), 0, 0, 0
   local function place(k)
      local off = from + k * CHUNK
      return self.slots[k % SLOTS + 1], off, math.min(CHUNK, to - off)
   end
   while x < n do
      if self.stopped() then return nil, "interrupted", 4, true end
      while f < n and f - x < SLOTS do
         local s, off, len = place(f)
         local ok, why, errno, final = self.source:fill(s.buffer, off, len)
         if not ok then return nil, why, errno, final end
         s.filling, f = ok, f + 1
      end
      while d < f and d - x < SLOTS / 2 do
         local s, off, len = place(d)
         local ok, why, errno, final = finish(s.filling)
         s.filling = nil
         if not ok then return nil, why, errno end
         total:add(s.buffer.ptr, len)
         ok, why, errno, final = self.dest:drain(s.buffer, off, len)
         if not ok then return nil, why, errno, final end
         s.draining, d = ok, d + 1
      end
      local s, off, len = place(x)
      local ok, why, errno = finish(s.draining)
      s.draining = nil
      if not ok then return nil, why, errno end
      self.done, x = off + len, x + 1
      progress(self)
      remember(self)
      pace(self, from)
   end
   return true
end

-- The sums of both ends and of what went through must be one.
local function verified(self, from, to, came)
   local sums = { 0, came, 0 }
   for i, side in pairs { [1] = self.source, [3] = self.dest } do
      local hex, why, errno, final = side:sum(from, to - from)
      if not hex then return nil, why, errno, final end
      sums[i] = hex
   end
   for i, name in ipairs(buffer_names) do
      if sums[i] ~= sums[1] then
         return false, ("bytes %d to %d differ: %s %s, %s %s"):format(
            from, to, buffer_names[1], sums[1], name, sums[i])
      end
   end
   return true
end

local no_sum = { add = function() end }

local function group(self, from, to)
   for try = 1, TRIES do
      local total = self.verify and sum.new() or no_sum
      local ok, why, errno, final = pump(self, from, to, total)
      if not ok then
         quiesce(self)
         return nil, why, errno, final
      end
      if not self.verify then return true end
      ok, why, errno, final = verified(self, from, to, total:hex())
      if ok ~= false then return ok, why, errno, final end
      self.on_note(why .. (try < TRIES and "; copying them again" or ""))
      if try == TRIES then
         self.mismatch = true
         return nil, why, 74, true
      end
   end
end

-- ---- resuming --------------------------------------------------------------

-- How much of what lies at `dest` is the source's: whole groups by sum.
local function trusted(self, dest, have)
   local off = 0
   while off < have do
      local to = math.min(off + GROUP, have)
      local a, why, errno, final = self.source:sum(off, to - off)
      if not a then return nil, why, errno, final end
      local b
      b, why, errno, final = dest:sum(off, to - off)
      if not b then return nil, why, errno, final end
      if a ~= b then return off end
      off = to
   end
   return have
end

-- Of the part that a broken copy left behind.
local function resumed(self, have)
   local off, why, errno = trusted(self, self.dest, have)
   if off and off < have then
      self.on_note(("the part that is there differs from byte %d on"):format(off))
   end
   return off, why, errno
end

-- Is all of it there, under its name?
local function complete(self, len)
   local there = self.resume and self.there
   local same = there and there:open() == len and trusted(self, there, len) == len
   if there then there:close() end
   return same
end

-- Wait before another try, longer each time, but not for one who wants to stop.
local function hold(self)
   local stop = mooncake.now() + self.pause
   while mooncake.now() < stop and not self.stopped() do
      mooncake.sleep(math.min(0.1, math.max(0, stop - mooncake.now())) * 1000)
   end
   self.pause = math.min(self.pause * 2, LONGEST_PAUSE)
end

-- Is this error one that trying again cannot change? A node that started again has its
-- files elsewhere: there a wrong address is news until they were opened anew.
local function hopeless(self, errno)
   local files = self.source.kind == "file" or self.dest.kind == "file"
   return WRONG[errno] and (self.opened_anew or not files)
end

-- Say it once.
local function note_once(self, text)
   if text == self.noted then return end
   self.noted = text
   self.on_note(text)
end

-- Open both ends again until it works, or until retry seconds are over.
local function reconnect(self, off)
   local why, errno, final
   repeat
      hold(self)
      if self.stopped() then break end
      local ok, have
      ok, why, errno, final = self.source:reopen()
      if ok then
         have, why, errno, final = self.dest:reopen()
         if have then
            self.opened_anew = true
            -- A part that was made anew begins anew.
            local anew = have ~= true and have < self.marked
            if anew then self.reached = have end
            return anew and have or off
         end
      end
      final = final or errno == EACCES or errno == EINVAL
   until final or self.stopped() or mooncake.now() - self.since > self.retry
   return nil, why, errno, final
end

local function move_all(self, off, len)
   self.since, self.reached, self.opened_anew = mooncake.now(), off, true
   self.marked = off
   while off < len do
      local to = math.min(off + GROUP, len)
      local ok, why, errno, final = group(self, off, to)
      -- Little is soon copied again.
      if ok and len > CHUNK then ok, why, errno, final = self.dest:mark(to) end
      final = final or not ok and hopeless(self, errno)
      if ok then
         off, self.marked, self.since = to, to, mooncake.now()
      elseif final or mooncake.now() - self.since > self.retry then
         if self.done > off then self.dest:mark(self.done) end
         return nil, why, errno, not final
      else
         if not self.verify and self.done > off then off = self.done end
         self.retries = self.retries + 1
         note_once(self, why .. "; trying again")
         local next_off
         next_off, why, errno, final = reconnect(self, off)
         if not next_off then return nil, why, errno, not final end
         off = next_off
      end
   end
   return true
end

-- ---- the whole -------------------------------------------------------------

local function start(self, len, have)
   self.len, self.resumed_at, self.done = len, have, have
   if self.on_start then self.on_start(len, have) end
end

-- True; or nil, why, errno, and whether it was the link, for ever.
function Copy:run()
   local len, why, errno = self.source:open()
   if not len then return nil, why, errno end
   if complete(self, len) then
      start(self, len, len)
      return true
   end
   local have
   have, why, errno = self.dest:open(len, self.resume)
   if not have then return nil, why, errno end
   local ok, broken = slots(self), nil
   if ok and have > 0 then
      have, why, errno = resumed(self, have)
      ok = have
   end
   if ok then ok, why, errno = self.dest:rewind(have) end
   if not ok then return nil, why, errno end
   start(self, len, have)
   ok, why, errno, broken = move_all(self, have, len)
   if ok then ok, why, errno = self.dest:commit() end
   if not ok then return nil, why, errno, broken end
   return true
end

function Copy:close()
   self.source:close()
   self.dest:close()
end

return copy
