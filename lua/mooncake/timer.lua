-- timer.lua - functions that run later, in this thread: while mooncake.sleep() or
-- mooncake.loop() waits, and never in between.

local C = require "mooncake.ffi"
local ready = require "mooncake.ready"

local Timer = {}
Timer.__index = Timer

local timer = {}
local pending = {}

local function now_ms() return tonumber(C.mc_now_ns()) / 1e6 end

local function add(ms, every, fn)
   if type(ms) ~= "number" or ms < 0 then error("a time in ms is needed", 3) end
   if type(fn) ~= "function" then error("a function is needed", 3) end
   local t = setmetatable({ at = now_ms() + ms, every = every, fn = fn }, Timer)
   pending[t] = true
   return t
end

function timer.after(ms, fn) return (add(ms, nil, fn)) end
function timer.every(ms, fn) return (add(ms, ms, fn)) end

function Timer:cancel() pending[self] = nil end

local function next_due()
   local first
   for t in pairs(pending) do
      if not first or t.at < first.at then first = t end
   end
   return first
end

-- Run what is due now; a timer that is late by more than its period skips beats.
local function run_due()
   local now = now_ms()
   local t = next_due()
   while t and t.at <= now do
      if t.every then
         t.at = math.max(t.at + t.every, now_ms())
      else
         pending[t] = nil
      end
      t.fn(t)
      t = next_due()
   end
end

-- Wait, and run the timers that come due.
function timer.sleep(ms)
   local stop = now_ms() + ms
   while true do
      run_due()
      local now = now_ms()
      if now >= stop then return end
      local t = next_due()
      ready.sleep(math.min(stop, t and t.at or stop) - now)
   end
end

-- Run timers until none is left, or until done() is true (looked at after each).
function timer.loop(done)
   while not (done and done()) do
      run_due()
      local t = next_due()
      if not t or done and done() then return end
      ready.sleep(t.at - now_ms())
   end
end

-- mooncake.timer(ms, fn) is once, later.
return setmetatable(timer, {
   __call = function(_, ms, fn) return timer.after(ms, fn) end,
})
