-- future.lua - a batch that has been submitted: f:wait(), f:poll(), f:cancel(), and
-- waiting for several at once.
--
-- Its id is given back when the outcome is known. A future that is dropped before that
-- is canceled by the collector, so do not drop what you want to happen.

local ffi = require "ffi"
local C = require "mooncake.ffi"
local failed = require "mooncake.failed"
local ready = require "mooncake.ready"
local request = require "mooncake.request"

local Future = {}
Future.__index = Future

local future = {}

local EAGAIN = 11
local id_t = ffi.typeof "uint64_t[1]"

function future.submit(engine, reqs, opts)
   local list, n, keep = request.build(reqs, opts, 3)
   local o, weights = request.opts(opts, 3)
   local id = id_t()
   local r = C.mc_submit(engine:handle(), list, n, o, id)
   if r < 0 then return failed(r) end
   return setmetatable({
      engine = engine, n = n, id = ffi.gc(id, engine.reap), keep = { keep, weights },
   }, Future)
end

-- Each request's own outcome, for batches in which some failed.
local function outcomes(self)
   local list, r = {}, ffi.new "struct mc_result"
   for i = 0, self.n - 1 do
      if C.mc_batch_req(self.engine:handle(), self.id[0], i, r) < 0 then break end
      list[i + 1] = request.result(r)
   end
   return list
end

local function ended(self, r)
   self.result = request.result(r)
   if r.failed > 0 then self.result.requests = outcomes(self) end
   local id = ffi.gc(self.id, nil)
   self.id, self.keep = nil, nil
   C.mc_batch_free(self.engine:handle(), id[0])
end

local function outcome(self)
   local t = self.result
   if t.state == "completed" then return t end
   return nil, t.why ~= "" and t.why or "the batch was " .. t.state, t.errno
end

-- "pending", "completed", "failed" or "canceled", without waiting; then the result.
function Future:poll()
   if not self.result then
      local r = ffi.new "struct mc_result"
      local err = C.mc_poll(self.engine:handle(), self.id[0], r)
      if err < 0 then return failed(err) end
      if r.state == C.MC_PENDING then return "pending" end
      ended(self, r)
   end
   return self.result.state, self.result
end

-- The result if all requests completed; nil, why, errno if not, or if the batch has not
-- ended after timeout_ms (EAGAIN); without a timeout its own deadline holds.
function Future:wait(timeout_ms)
   if not self.result then
      local r = ffi.new "struct mc_result"
      local err = C.mc_wait(self.engine:handle(), self.id[0], timeout_ms or -1, r)
      if err == -EAGAIN then return nil, "the batch has not ended yet", EAGAIN end
      if err < 0 and r.state == C.MC_PENDING then return failed(err) end
      ended(self, r)
   end
   return outcome(self)
end

-- Ask that it end; wait() then says how it did.
function Future:cancel()
   if self.result then return true end
   local r = C.mc_cancel(self.engine:handle(), self.id[0])
   if r < 0 then return failed(r) end
   return true
end

local function left(deadline)
   return deadline and math.max(0, (deadline - tonumber(C.mc_now_ns())) / 1e6)
end

local function deadline_of(timeout_ms)
   return timeout_ms and tonumber(C.mc_now_ns()) + timeout_ms * 1e6
end

-- The results in the order of the list, or nil, why, errno of the first that failed -
-- after all have ended, so that no buffer is in use. On EAGAIN some have not.
function future.wait_all(list, timeout_ms)
   local deadline, results, bad = deadline_of(timeout_ms), {}, nil
   for i, f in ipairs(list) do
      local result, why, errno = f:wait(deadline and math.ceil(left(deadline)))
      if not f.result then return nil, why, errno end
      results[i] = result
      bad = bad or not result and { why, errno }
   end
   if bad then return nil, bad[1], bad[2] end
   return results
end

-- The index of one that has ended, and it; nil, message, errno when the time is over.
function future.wait_any(list, timeout_ms)
   local deadline, fds, seen = deadline_of(timeout_ms), {}, {}
   if #list == 0 then error("nothing to wait for", 2) end
   for _, f in ipairs(list) do
      local e = f.engine
      if not seen[e] then fds[#fds + 1], seen[e] = e:fd(), true end
   end
   while true do
      for i, f in ipairs(list) do
         if f:poll() ~= "pending" then return i, f end
      end
      if deadline and left(deadline) == 0 then
         return nil, "none has ended yet", EAGAIN
      end
      -- The first is driven by this thread for a moment; the rest have workers.
      if list[1]:wait(1) == nil and not list[1].result then
         ready.wait(fds, math.min(left(deadline) or 20, 20))
         for e in pairs(seen) do e:drain() end
      end
   end
end

return future
