-- bench.lua - measured transfers between this process and a target: what `mooncake
-- bench` and tests/bench run.
--
-- Blocks lie scattered over a span at both ends: block i at ((i * 7919) mod N) * block.
-- A batch repeats the same places unless a point is random: then each takes others,
-- until the span (or 65,536 blocks of it) has been through.

local desk = require "mooncake.desk"
local fs = require "mooncake.fs"
local measure = require "mooncake.measure"
local mooncake = require "mooncake"
local proc = require "mooncake.proc"

local bench = {}

local Session = {}
Session.__index = Session

local MAX_REQUESTS = 65536

-- ---- opening ---------------------------------------------------------------

local function spawn_target(spec)
   local argv = { proc.exe(), "bench", "--target", "--span", spec.span, "--memory",
                  spec.memory, stdout = "pipe", env = { MOONCAKE_BENCH_CHILD = 1 } }
   for _, k in ipairs { "transport", "key", "spin", "device" } do
      if spec[k] then
         argv[#argv + 1], argv[#argv + 2] = "--" .. k, spec[k]
      end
   end
   local p, why = proc.spawn(argv)
   if not p then return nil, why end
   local line = p:read_line(20000)
   local addr = line and line:match "^ready (%S+)"
   if addr then return p, addr end
   p:kill "KILL"
   p:wait()
   return nil, "the target did not start"
end

local function near_memory(self, spec)
   if spec.memory ~= "foreign" then
      return self.engine:alloc(spec.span, { access = "local" })
   end
   local ptr, why, errno = fs.anonymous(spec.span)
   if not ptr then return nil, why, errno end
   return self.engine:register(ptr, spec.span, { access = "local" })
end

local function far_memory(self, span)
   local list, why, errno = self.segment:buffers()
   if not list then return nil, why, errno end
   for _, b in ipairs(list) do
      if b.access == "rw" and b.len >= span then return b.addr end
   end
   return nil, ("%s offers no %d bytes to read and write: start it with --memory"):format(
      self.segment.name, span), 12
end

local function connect(self, spec)
   local addr, why, errno = spec.node, nil, nil
   -- First, so that an option that is wrong is said here and not by the target.
   self.engine, why, errno = mooncake.open {
      listen = "none", registry = spec.join, transports = spec.transport,
      key_file = spec.key, devices = spec.device, spin_us = spec.spin,
   }
   if not self.engine then return nil, why, errno end
   if not addr then
      self.child, addr = spawn_target(spec)
      if not self.child then return nil, addr end
   end
   self.segment, why, errno = self.engine:segment(addr, 5000)
   if not self.segment then return nil, why, errno end
   self.far, why, errno = far_memory(self, spec.span)
   if not self.far then return nil, why, errno end
   self.near, why, errno = near_memory(self, spec)
   if not self.near then return nil, why, errno end
   self.near:fill(1)
   if not self.child then self.desk = desk.find(self.segment) end
   return true
end

-- spec: node ("host:port", or a name with `join`, the registry's URL; nil: a target is
-- started), transport, memory ("alloc" or
-- "foreign"), span, key, spin (microseconds to poll before sleeping), device (names, as
-- in "rxe0,rxe1"), stopped (says whether to end early).
function bench.open(spec)
   local self = setmetatable({ spec = spec, span = spec.span, limits = {} }, Session)
   local ok, why, errno = connect(self, spec)
   if ok then return self end
   self:close()
   return nil, why, errno
end

function Session:close()
   for _, limit in pairs(self.limits) do limit:close() end
   self.limits = {}
   if self.engine then self.engine:close() end
   if self.child then
      self.child:kill "KILL"
      self.child:wait(5000)
      self.child:close()
   end
   self.engine, self.child = nil, nil
end

-- ---- points ----------------------------------------------------------------

-- CPU nanoseconds of the target, or nil where it does not say.
function Session:target_cpu()
   if self.child then return measure.cpu_ns(self.child.pid) end
   local a = self.desk and self.desk:ask("cpu", {}, 2000)
   return a and a.cpu_ns
end

-- Bytes by rail so far, in the rails' order.
local function by_rail(self)
   local list = {}
   for i, r in ipairs(self.engine:rails() or {}) do
      list[i] = { transport = r.transport, rail = r.local_dev .. " -> " .. r.remote_dev,
                  bytes = r.bytes_read + r.bytes_written }
   end
   return list
end

-- The rails that moved some since, and the transports that they are of.
local function moved_by(before, after)
   local rails, names, seen = {}, {}, {}
   for i, r in ipairs(after) do
      r.bytes = r.bytes - (before[i] and before[i].bytes or 0)
      if r.bytes > 0 then rails[#rails + 1] = r end
      if r.bytes > 0 and not seen[r.transport] then
         seen[r.transport] = true
         names[#names + 1] = r.transport
      end
   end
   table.sort(names)
   return rails, table.concat(names, "+")
end

-- How many blocks there are places for before they repeat.
local function cycle(self, p)
   local blocks = math.floor(self.span / p.block)
   local n = p.batch * (p.threads or 1)
   if p.random then n = math.min(blocks, MAX_REQUESTS) end
   return math.max(p.batch, n - n % p.batch)
end

local function requests(self, p)
   local n = cycle(self, p)
   local key = table.concat({ p.op, p.block, p.batch, n }, " ")
   if self.key ~= key then
      self.key = key
      self.reqs = measure.requests(self.segment.id, p.op, self.near.addr, self.far,
                                   self.span, p.block, n)
   end
   return self.reqs, n
end

-- Run a point: p.op, block, batch, threads, ms, random, from_c. Figures as
-- measure.figures(), with transport, the share of a CPU the target used, and rails: who
-- moved how many bytes.
function Session:run(p)
   if p.block > self.span then return nil, "a block is larger than the span" end
   local reqs, n = requests(self, p)
   local threads = p.threads or 1
   local m, why = measure.run(self.engine, reqs, n, p.batch, threads,
                              math.max(20, p.ms / 10), p.from_c)
   if not m then return nil, why end
   local rails, cpu = by_rail(self), self:target_cpu()
   m, why = measure.run(self.engine, reqs, n, p.batch, threads, p.ms, p.from_c,
                        self.spec.stopped)
   if not m then return nil, why end
   local after = cpu and self:target_cpu()
   local target_ns = after and after - cpu or 0
   local f = measure.figures(m, target_ns)
   f.rails, f.transport = moved_by(rails, by_rail(self))
   f.target_share = after and target_ns / tonumber(m.wall_ns)
   return f
end

local LIMITS = { shm = "memcpy", ["local"] = "memcpy", tcp = "socket" }

-- The kind of limit that a transport's figure is set against.
function Session:limit_kind(transport)
   if transport == "shm" and self.spec.memory == "foreign" then return "vm" end
   return LIMITS[transport]
end

-- The same point by the plainest means there is; kind as in measure.limit().
function Session:limit(kind, p)
   local limit, why = self.limits[kind], nil
   if not limit then
      -- One at a time: each has a span of memory.
      for name, other in pairs(self.limits) do
         other:close()
         self.limits[name] = nil
      end
      limit, why = measure.limit(kind, self.near.ptr, self.span)
      if not limit then return nil, why end
      self.limits[kind] = limit
   end
   local m
   m, why = limit:run(p.op, p.block, p.batch, p.ms, p.random and cycle(self, p) or nil,
                      self.spec.stopped)
   if not m then return nil, why end
   return measure.figures(m)
end

-- ---- what limits a point ---------------------------------------------------

local NEAR = { memcpy = "memory: as fast as one memcpy",
               vm = "the kernel's copy between processes",
               socket = "the kernel's tcp: as fast as a plain socket" }

-- In words, from figures f at point p, and the limit's figures where there are any; nil
-- where nothing moved.
function bench.verdict(f, p, limit, kind)
   local threads, cpus = p.threads or 1, proc.cpu_count()
   local busy = f.cpu_share + (f.target_share or 0)
   if f.errors > 0 then return ("errors: %s"):format(f.why) end
   if f.batches == 0 or f.bytes == 0 then return nil end
   if limit and f.gb_per_s >= 0.8 * limit.gb_per_s then return NEAR[kind] end
   if busy >= 0.93 * cpus then return ("the CPUs: all %d are busy"):format(cpus) end
   -- Copies are made by the submitting thread: nothing else is waited for.
   local copies = f.transport == "shm" or f.transport == "local"
   if copies or f.cpu_share >= 0.93 * threads then
      return (copies and "the copying thread" or "the submitting thread") ..
             (threads < cpus and ": try more threads" or "")
   end
   if f.target_share and f.target_share >= 0.93 then return "one CPU of the target" end
   return p.batch * p.block < 2 ^ 20 and
          "round trips: try larger batches or more threads" or
          "the way between: both ends wait"
end

-- ---- small helpers ---------------------------------------------------------

-- "4k,64k,1m" as numbers, or nil.
function bench.sizes(text, parse)
   local list = {}
   for word in tostring(text):gmatch "[^,]+" do
      local n = parse(word)
      if not n or n < 1 or n % 1 ~= 0 then return nil end
      list[#list + 1] = n
   end
   return #list > 0 and list or nil
end

-- The middle of a list of numbers.
function bench.median(list)
   local s = { unpack(list) }
   table.sort(s)
   local n = #s
   return n % 2 == 1 and s[(n + 1) / 2] or (s[n / 2] + s[n / 2 + 1]) / 2
end

return bench
