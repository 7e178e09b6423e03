-- peer.lua - what the tests in the virtual machine share: a process that serves memory,
-- requests to all of it, links and rails.
--
--   local peer = dofile "tests/vm/peer.lua"
--   local far = peer.start { devices = "rxe2,rxe3", len = 2 ^ 24 }
--   far.name, far.base, far:kill "KILL"

local mooncake = require "mooncake"
local proc = require "mooncake.proc"

if arg[1] == "serve" and arg[0]:find "/peer%.lua$" then
   local e = assert(mooncake.open {
      devices = arg[2], transports = arg[3], listen = arg[4],
   })
   local memory = assert(e:alloc(tonumber(arg[5]), { access = "rw" }))
   print(("ready %s %.0f"):format(e:addr(), memory.addr))
   io.stdout:flush()
   io.stdin:read "*l"
   os.exit(0)
end

local peer = {}
local Far = {}
Far.__index = Far

-- Start it; opts: devices, len, transports ("rdma"), listen (a free port).
function peer.start(opts)
   local p = assert(mooncake.spawn {
      proc.exe(), "run", "tests/vm/peer.lua", "serve", opts.devices,
      opts.transports or "rdma", opts.listen or "127.0.0.1:0", ("%d"):format(opts.len),
      stdin = "pipe", stdout = "pipe",
   })
   local line = assert(p:read_line(20000))
   local name, base = line:match "^ready (%S+) (%d+)$"
   return setmetatable({ p = p, name = name, base = tonumber(base), len = opts.len }, Far)
end

function Far:kill(sig) return self.p:kill(sig) end

-- One request for each @block bytes of the far memory, from or to @near.
function peer.reqs(op, segment, near, far, block)
   local n = far.len / block
   local q = mooncake.reqs(n)
   for i = 0, n - 1 do
      q[i].op, q[i].segment, q[i].len = op, segment.id, block
      q[i].buf, q[i].remote = near.ptr + i * block, far.base + i * block
   end
   return q
end

function peer.sh(command, ...)
   command = command:format(...)
   if os.execute(command) ~= 0 then error(command .. ": failed") end
end

-- The interface that carries a device: ethN carries rxeN.
function peer.eth(device) return (device:gsub("rxe", "eth")) end

-- Rails of an engine by their device.
function peer.rails(e)
   local by = {}
   for _, r in ipairs(e:rails()) do by[r.local_dev] = r end
   return by
end

function peer.show(e)
   for _, r in ipairs(e:rails()) do
      print(("  %s -> %s: %s, %.1f MiB written, %d errors, %d local: %s"):format(
         r.local_dev, r.remote_dev, r.state, r.bytes_written / 2 ^ 20, r.errors,
         r.local_errors, r.why))
   end
end

-- Milliseconds until f() is true; an error if it takes longer than that.
function peer.wait_for(what, seconds, f)
   local start = mooncake.now()
   while not f() do
      if mooncake.now() - start > seconds then error(what .. ": not in time") end
      mooncake.sleep(2)
   end
   return (mooncake.now() - start) * 1000
end

function peer.report(what, ms) print(("%s: %.0f ms"):format(what, ms)) end

return peer
