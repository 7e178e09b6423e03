-- ready.lua - sleeping until descriptors are readable.

local ffi = require "ffi"

ffi.cdef [[
struct mcl_ready { int fd; short events; short revents; };
int mcl_ready_poll(struct mcl_ready *fds, unsigned long n, int timeout_ms)
	__asm__("poll");
]]

local POLLIN = 1

local ready = {}

-- Wait until one of the descriptors in the list is readable, closed or broken, for
-- timeout_ms at most (nil or negative: for ever). Returns the first such one's index, or
-- nil when the time is over or a signal came.
function ready.wait(fds, timeout_ms)
   local list = ffi.new("struct mcl_ready[?]", math.max(#fds, 1))
   for i, fd in ipairs(fds) do
      list[i - 1].fd, list[i - 1].events = fd, POLLIN
   end
   local ms = -1
   if timeout_ms and timeout_ms >= 0 then ms = math.min(math.ceil(timeout_ms), 2 ^ 30) end
   if ffi.C.mcl_ready_poll(list, #fds, ms) <= 0 then return nil end
   for i = 1, #fds do
      if list[i - 1].revents ~= 0 then return i end
   end
end

function ready.sleep(ms) ready.wait({}, math.max(ms, 0)) end

return ready
