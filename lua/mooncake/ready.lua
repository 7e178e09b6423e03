-- ready.lua - sleeping until descriptors are readable.

local ffi = require "ffi"

ffi.cdef [[
struct mcl_ready { int fd; short events; short revents; };
struct mcl_ready_time { long s, ns; };
int mcl_ready_ppoll(struct mcl_ready *fds, unsigned long n,
                    const struct mcl_ready_time *timeout, const void *mask)
                    __asm__("ppoll");
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
   local time
   if timeout_ms and timeout_ms >= 0 then
      local ms = math.min(timeout_ms, 2 ^ 30)
      time = ffi.new("struct mcl_ready_time", math.floor(ms / 1e3),
                     math.ceil(ms % 1e3 * 1e6))
      if time.ns == 1e9 then time.s, time.ns = time.s + 1, 0 end
   end
   if ffi.C.mcl_ready_ppoll(list, #fds, time, nil) <= 0 then return nil end
   for i = 1, #fds do
      if list[i - 1].revents ~= 0 then return i end
   end
end

function ready.sleep(ms) ready.wait({}, math.max(ms, 0)) end

return ready
