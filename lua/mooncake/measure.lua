-- measure.lua - runs that are measured, and limits of the machine; as mooncake.h
-- declares them.

local ffi = require "ffi"
local C = require "mooncake.ffi"
local failed = require "mooncake.failed"

local measure = {}

local OP = { read = C.MC_READ, write = C.MC_WRITE }
local KIND = { memcpy = C.MC_LIMIT_MEMCPY, vm = C.MC_LIMIT_VM, socket = C.MC_LIMIT_SOCKET,
               ["socket poll"] = C.MC_LIMIT_SOCKET_POLL }
local ERRORS = 100
local SLICE_MS = 500

function measure.new() return ffi.new "struct mc_measure" end

-- CPU nanoseconds and resident bytes of a process (nil: this one), or nil.
function measure.cpu_ns(pid)
   local n = tonumber(C.mc_measure_cpu_ns(pid or 0))
   return n >= 0 and n or nil
end

function measure.rss(pid)
   local n = tonumber(C.mc_measure_rss(pid or 0))
   return n >= 0 and n or nil
end

local function add(sum, m)
   for _, k in ipairs { "batches", "bytes", "wall_ns", "cpu_ns" } do
      sum[k] = sum[k] + m[k]
   end
   if sum.errors == 0 then ffi.copy(sum.why, m.why, C.MC_WHY_MAX) end
   sum.errors = sum.errors + m.errors
   for i = 0, C.MC_MEASURE_FINE - 1 do sum.fine[i] = sum.fine[i] + m.fine[i] end
end

-- run_for(ms) in parts, for a caller whose stopped() is to be heard between them.
local function in_slices(ms, stopped, run_for)
   if not stopped or ms <= SLICE_MS then return run_for(ms) end
   local n, sum = math.ceil(ms / SLICE_MS), measure.new()
   for _ = 1, n do
      local m, why, errno = run_for(ms / n)
      if not m then return nil, why, errno end
      add(sum, m)
      if stopped() or sum.errors >= ERRORS then break end
   end
   return sum
end

-- ---- runs of ours ----------------------------------------------------------

-- The places of block i: as struct mc_limit_run says.
local STEP = 7919

-- Requests for n blocks at pattern places of two ranges.
function measure.requests(segment, op, near, far, span, block, n)
   local reqs, blocks = ffi.new("struct mc_req[?]", n), math.floor(span / block)
   for i = 0, n - 1 do
      local at = i * STEP % blocks * block
      reqs[i].op, reqs[i].segment, reqs[i].len = OP[op], segment, block
      reqs[i].buf = ffi.cast("void *", ffi.cast("uintptr_t", near + at))
      reqs[i].remote = far + at
   end
   return reqs
end

-- The inner loop: compiled by the JIT, no garbage. k goes through the batches in turn.
local function loop(e, reqs, batch, batches, stop, m, res)
   local k, start = 0, C.mc_now_ns()
   local t0 = start
   while t0 < stop do
      if C.mc_transfer(e, reqs + k * batch, batch, nil, res) < 0 then
         if m.errors == 0 then ffi.copy(m.why, C.mc_errmsg(), C.MC_WHY_MAX - 1) end
         m.errors = m.errors + 1
         if m.errors >= ERRORS then break end
      end
      local t1 = C.mc_now_ns()
      C.mc_measure_add(m, t1 - t0)
      m.bytes = m.bytes + res.bytes
      m.batches = m.batches + 1
      t0 = t1
      k = k + 1
      if k == batches then k = 0 end
   end
   m.wall_ns = t0 - start
end

local function run_for(engine, reqs, n, batch, threads, ms, from_c)
   local m = measure.new()
   if threads > 1 or from_c then
      local r = C.mc_measure_run(engine:handle(), reqs, n, batch, threads, ms, m)
      if r < 0 then return failed(r) end
      return m
   end
   local cpu, res = measure.cpu_ns(), ffi.new "struct mc_result"
   loop(engine:handle(), reqs, batch, math.floor(n / batch),
        C.mc_now_ns() + ms * 1000000ULL, m, res)
   m.cpu_ns = measure.cpu_ns() - cpu
   return m
end

-- Run batches of `batch` out of n requests for a time, from Lua on one thread, or from C
-- on several (or one, with from_c); a part of the time if stopped().
function measure.run(engine, reqs, n, batch, threads, ms, from_c, stopped)
   return in_slices(ms, stopped, function(part)
      return run_for(engine, reqs, n, batch, threads, part, from_c)
   end)
end

-- ---- limits ----------------------------------------------------------------

local Limit = {}
Limit.__index = Limit

-- kind: "memcpy", "vm", "socket", "socket poll"; mem: memory of span bytes, kept by the
-- caller.
function measure.limit(kind, mem, span)
   local out = ffi.new "struct mc_limit *[1]"
   local r = C.mc_limit_open(out, KIND[kind], mem, span)
   if r < 0 then return failed(r) end
   return setmetatable({ c = ffi.gc(out[0], C.mc_limit_close) }, Limit)
end

-- cycle: after how many blocks the places repeat (nil: with every batch).
function Limit:run(op, block, batch, ms, cycle, stopped)
   return in_slices(ms, stopped, function(part)
      local m = measure.new()
      local run = ffi.new("struct mc_limit_run", OP[op], batch, block, cycle or 0, part)
      local r = C.mc_limit_measure(self.c, run, m)
      if r < 0 then return failed(r) end
      return m
   end)
end

function Limit:close()
   if self.c then C.mc_limit_close(ffi.gc(self.c, nil)) end
   self.c = nil
end

-- ---- results ---------------------------------------------------------------

-- A measure as a table of figures; cpu_ns is what the other process used.
function measure.figures(m, cpu_ns)
   local bytes, wall = tonumber(m.bytes), tonumber(m.wall_ns)
   local cpu = tonumber(m.cpu_ns) + (cpu_ns or 0)
   return {
      gb_per_s = wall > 0 and bytes / wall or 0,
      p50_us = C.mc_measure_quantile(m, 0.5) / 1e3,
      p99_us = C.mc_measure_quantile(m, 0.99) / 1e3,
      p999_us = C.mc_measure_quantile(m, 0.999) / 1e3,
      cpu_s_per_gb = bytes > 0 and cpu / bytes or 0,
      cpu_share = wall > 0 and tonumber(m.cpu_ns) / wall or 0,
      errors = tonumber(m.errors), batches = tonumber(m.batches), bytes = bytes,
      why = m.errors > 0 and ffi.string(m.why) or nil,
   }
end

return measure
