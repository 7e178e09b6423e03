-- bench.lua - what `make bench` runs: our paths against the best this machine does by
-- plainer means, two processes on one host, alternating runs, medians, the ratio.
--
--   mooncake run tests/bench/bench.lua [--json] [--rounds N] [--ms N] [--only PATTERN]
--
-- The exit status is 1 if a bar is missed. Figures without a bar follow the table.

local bench = require "mooncake.bench"
local ffi = require "ffi"
local json = require "mooncake.json"
local kit = require "mooncake.benchkit"
local measure = require "mooncake.measure"
local proc = require "mooncake.proc"
local util = require "mooncake.util"

local KIB, MIB = 2 ^ 10, 2 ^ 20
local SPAN = 2 ^ 30
local SPIN_US = 200

local opt = kit.options(arg, { rounds = 5, ms = 1000, only = "", json = false })

local missed = 0

-- ---- rows ---------------------------------------------------------------

local COLUMNS = { 40, 12, 34, 12, 7, 9, 6 }

local function line(...)
   local out = {}
   for i, width in ipairs(COLUMNS) do
      local text = tostring((select(i, ...)) or "")
      local pad = (" "):rep(width - #text)
      out[i] = (i == 1 or i == 3 or i == 7) and text .. pad or pad .. text
   end
   print((table.concat(out, "  "):gsub("%s+$", "")))
   io.stdout:flush()
end

local function shown(unit, n)
   return unit == "GB/s" and ("%.2f GB/s"):format(n) or
          unit == "us" and util.duration(n / 1e6) or ("%.3f"):format(n)
end

-- r: what, against, unit, ours and theirs (lists), least or most (the bar on the ratio),
-- or most_value (an absolute bar on ours).
local function row(r)
   local ours = bench.median(r.ours)
   local theirs = r.theirs and bench.median(r.theirs)
   local ratio = theirs and ours / theirs
   local bar, ok
   if r.least then
      bar, ok = (">= %.2f"):format(r.least), ratio >= r.least
   elseif r.most then
      bar, ok = ("<= %.2f"):format(r.most), ratio <= r.most
   else
      bar, ok = "<= " .. shown(r.unit, r.most_value), ours <= r.most_value
   end
   if not ok then missed = missed + 1 end
   if opt.json then
      print(json.encode {
         what = r.what, against = r.against, unit = r.unit, ours = ours, theirs = theirs,
         ratio = ratio, bar = bar, ok = ok, all_ours = r.ours, all_theirs = r.theirs,
      })
      io.stdout:flush()
      return
   end
   line(r.what, shown(r.unit, ours), r.against, theirs and shown(r.unit, theirs),
        ratio and ("%.2f"):format(ratio), bar, ok and "ok" or "MISSED")
end

local function wanted(what) return what:find(opt.only) end

local function skipped(what, why)
   if opt.json then
      print(json.encode { what = what, skipped = why })
   else
      line(what, "-", "skipped: " .. why)
   end
end

local function point(block, batch, more)
   local p = { op = "write", block = block, batch = batch, ms = opt.ms }
   for k, v in pairs(more or {}) do p[k] = v end
   return p
end

-- Ours and the other by turns: two lists of one figure.
local function alternate(field, ours, theirs)
   local a, b = {}, {}
   for i = 1, opt.rounds do
      local x = util.check(ours())
      if x.errors and x.errors > 0 then util.fail("%d errors: %s", x.errors, x.why) end
      a[i], b[i] = x[field], util.check(theirs())[field]
   end
   return a, b
end

local function against_limit(s, r, kind, p)
   if not wanted(r.what) then return end
   r.ours, r.theirs = alternate(r.unit == "us" and "p50_us" or "gb_per_s",
                                function() return s:run(p) end,
                                function() return s:limit(kind, p) end)
   row(r)
end

-- ---- iperf3 -------------------------------------------------------------

-- Bytes per ns of iperf3 over loopback with so many streams.
local function iperf(streams)
   local port = 20000 + proc.pid() % 20000
   local server = util.check(proc.spawn {
      "iperf3", "-s", "-1", "-p", port, stdout = "null", stderr = "null",
   })
   local text
   for _ = 1, 50 do
      proc.sleep_ms(50)
      local status
      text, status = proc.run {
         "iperf3", "-c", "127.0.0.1", "-p", port, "-P", streams, "-J", "-t",
         math.max(1, math.floor(opt.ms / 1000 + 0.5)), stderr = "null",
      }
      if status == 0 then break end
   end
   server:kill "KILL"
   server:wait()
   local t = util.check(json.decode(text))
   return { gb_per_s = t["end"].sum_received.bits_per_second / 8e9 }
end

local function best_iperf()
   local one, two = iperf(1), iperf(2)
   return one.gb_per_s > two.gb_per_s and one or two
end

local function has_iperf()
   local p = proc.spawn { "iperf3", "--version", stdout = "null", stderr = "null" }
   return p and p:wait() == 0
end

-- ---- the table ----------------------------------------------------------

local function session(spec)
   spec.span, spec.memory = SPAN, spec.memory or "alloc"
   return util.check(bench.open(spec))
end

local function tcp_rows()
   local s = session { transport = "tcp" }
   local what = "tcp, 1 MiB x 16"
   if wanted(what) and not has_iperf() then
      skipped(what, "no iperf3")
   elseif wanted(what) then
      local r = { what = what, against = "iperf3, best of 1 and 2 streams", unit = "GB/s",
                  least = 0.95 }
      local function ours() return s:run(point(MIB, 16)) end
      r.ours, r.theirs = alternate("gb_per_s", ours, best_iperf)
      row(r)
   end
   against_limit(s, { what = "tcp, 64 KiB x 16", against = "one socket, vectored write",
                      unit = "GB/s", least = 0.85 }, "socket", point(64 * KIB, 16))
   against_limit(s, { what = "tcp, 4 KiB x 128", against = "one socket, vectored write",
                      unit = "GB/s", least = 0.85 }, "socket", point(4 * KIB, 128))
   against_limit(s, { what = "tcp, one 4 KiB write, p50", against = "blocking ping-pong",
                      unit = "us", most = 1.25 }, "socket", point(4 * KIB, 1))
   s:close()
   if not wanted "tcp, one 4 KiB write, both poll, p50" then return end
   s = session { transport = "tcp", spin = SPIN_US }
   against_limit(s, { what = "tcp, one 4 KiB write, both poll, p50",
                      against = "ping-pong, both ends polling", unit = "us", most = 1.3 },
                 "socket poll", point(4 * KIB, 1))
   s:close()
end

local function shm_rows()
   local s = session { transport = "shm" }
   against_limit(s, { what = "shm, 1 MiB x 16", against = "memcpy into a shared mapping",
                      unit = "GB/s", least = 0.85 }, "memcpy", point(MIB, 16))
   against_limit(s, { what = "shm, 4 KiB x 128", against = "memcpy into a shared mapping",
                      unit = "GB/s", least = 0.5 }, "memcpy", point(4 * KIB, 128))
   if wanted "shm, one 4 KiB write, p50" then
      local list = {}
      for i = 1, opt.rounds do list[i] = util.check(s:run(point(4 * KIB, 1))).p50_us end
      row { what = "shm, one 4 KiB write, p50", against = "absolute", unit = "us",
            ours = list, most_value = 1 }
   end
   s:close()
   if not wanted "shm, foreign memory" then return end
   s = session { transport = "shm", memory = "foreign" }
   against_limit(s, { what = "shm, foreign memory, 4 KiB x 128",
                      against = "one process_vm_writev", unit = "GB/s", least = 0.85 },
                 "vm", point(4 * KIB, 128))
   against_limit(s, { what = "shm, foreign memory, 1 MiB x 16",
                      against = "one process_vm_writev", unit = "GB/s", least = 0.85 },
                 "vm", point(MIB, 16))
   s:close()
end

-- The median time of a batch from Lua over that from C.
local function ffi_rows()
   if not wanted "FFI overhead" then return end
   for _, c in ipairs { { "shm", 1 }, { "shm", 128 }, { "tcp", 128 } } do
      local s = session { transport = c[1] }
      local r = { what = ("FFI overhead, %s, 4 KiB x %d"):format(c[1], c[2]),
                  against = "the same batch from C", unit = "us", most = 1.1 }
      local function timed(from_c)
         return s:run(point(4 * KIB, c[2], { from_c = from_c }))
      end
      r.ours, r.theirs = alternate("p50_us", function() return timed(false) end,
                                   function() return timed(true) end)
      row(r)
      s:close()
   end
end

-- ---- figures without a bar ----------------------------------------------

local function figure(name, text, value)
   if opt.json then
      print(json.encode { figure = name, value = value, text = text })
   else
      print(("%-44s  %s"):format(name, text))
   end
   io.stdout:flush()
end

local FIRST_BYTE = [[
local e = assert(mooncake.open { listen = "none" })
assert(assert(e:segment(arg[1])):write("x", tonumber(arg[2])))
os.exit(0)
]]

local function script(text)
   local path = os.tmpname()
   assert(util.write_file(path, text))
   return path
end

-- From the start of a process to its first byte in our memory, in ms.
local function first_byte()
   local e = util.check(mooncake.open())
   local b = util.check(e:alloc(4096))
   local path, times = script(FIRST_BYTE), {}
   local seen = ffi.cast("volatile uint8_t *", b.ptr)
   for i = 1, math.max(5, opt.rounds) do
      seen[0] = 0
      local start = mooncake.now()
      local p = util.check(proc.spawn { proc.exe(), "run", path, e:addr(),
                                        ("%d"):format(b.addr) })
      while seen[0] == 0 and mooncake.now() - start < 5 do mooncake.sleep(0.2) end
      times[i] = (mooncake.now() - start) * 1e3
      p:wait()
   end
   os.remove(path)
   e:close()
   return bench.median(times)
end

-- A node that does nothing for two seconds: its memory and CPU time.
local function idle()
   local p = util.check(proc.spawn { proc.exe(), "serve", "--quiet", stdout = "pipe" })
   p:read_line(5000)
   proc.sleep_ms(300)
   local cpu, rss = measure.cpu_ns(p.pid), measure.rss(p.pid)
   proc.sleep_ms(2000)
   local used = measure.cpu_ns(p.pid) - cpu
   p:kill "TERM"
   p:wait()
   return rss, used
end

local RSS = [[
local measure = require "mooncake.measure"
collectgarbage()
local before = measure.rss()
local e = assert(mooncake.open())
mooncake.sleep(50)
print(measure.rss() - before)
]]

local function engine_rss()
   local path = script(RSS)
   local text = proc.run { proc.exe(), "run", path }
   os.remove(path)
   return tonumber(text)
end

-- Register n buffers, list them from a peer, add one more, list again: seconds each.
local function many_buffers(n)
   local a, b = util.check(mooncake.open()), util.check(mooncake.open())
   local memory, size = ffi.new("uint8_t[?]", n * 64), 64
   local function timed(f)
      local start = mooncake.now()
      f()
      return mooncake.now() - start
   end
   local C, handle = require "mooncake.ffi", a:handle()
   local reg = timed(function()
      for i = 0, n - 1 do
         if C.mc_buffer_reg(handle, memory + i * size, 32, "cpu:0", 3) < 0 then
            util.fail("%s", ffi.string(C.mc_errmsg()))
         end
      end
   end)
   local s = util.check(b:segment(a:addr(), 30000))
   local function ask() C.mc_segment_list(b:handle(), s.id, 0, nil, 0) end
   local first = timed(ask)
   util.check(a:alloc(4096))
   local again = timed(ask)
   local unreg = timed(function()
      for i = 0, n - 1 do C.mc_buffer_unreg(handle, memory + i * size) end
   end)
   a:close()
   b:close()
   return reg, first, again, unreg
end

local function growth()
   for _, transport in ipairs { "shm", "tcp" } do
      local s = session { transport = transport }
      local out, values = {}, {}
      for _, batch in ipairs { 1, 4, 16, 64, 256, 1024, 4096 } do
         local f = util.check(s:run(point(4 * KIB, batch, { ms = opt.ms / 2 })))
         local us = 4 * KIB / f.gb_per_s / 1e3
         values[#values + 1] = { batch = batch, us_per_block = us }
         out[#out + 1] = ("%d: %s"):format(batch, util.duration(us / 1e6))
      end
      figure(transport .. ", time per 4 KiB block by batch", table.concat(out, ", "),
             values)
      out, values = {}, {}
      for _, threads in ipairs { 1, 2, 4, 8 } do
         local f = util.check(s:run(point(4 * KIB, 16, { threads = threads, from_c = true,
                                                          ms = opt.ms / 2 })))
         values[#values + 1] = { threads = threads, gb_per_s = f.gb_per_s }
         out[#out + 1] = ("%d: %.2f GB/s"):format(threads, f.gb_per_s)
      end
      figure(transport .. ", 4 KiB x 16 by threads", table.concat(out, ", "), values)
      s:close()
   end
end

local function figures()
   if not opt.json then print "\nwithout a bar" end
   local ms = first_byte()
   figure("start to first byte moved", ("%.1f ms (aim: 15 ms)"):format(ms), ms)
   local rss, used = idle()
   figure("resident memory of an idle `mooncake serve`", util.bytes(rss), rss)
   local one = engine_rss()
   figure("  of which the engine", util.bytes(one) .. " (aim: 8 MiB)", one)
   figure("CPU of an idle engine", ("%.0f us in 2 s (aim: 0)"):format(used / 1e3), used)
   local reg, first, again, unreg = many_buffers(100000)
   figure("100,000 buffers registered", util.duration(reg), reg)
   figure("  described to a peer, all", util.duration(first), first)
   figure("  described to it again, with one more", util.duration(again), again)
   figure("  unregistered", util.duration(unreg), unreg)
   growth()
end

kit.print_machine(opt.json,
   "medians of %d alternating runs of %d ms; blocks scattered over 1 GiB", opt.rounds,
   opt.ms)
if not opt.json then line("path", "ours", "against", "theirs", "ratio", "bar", "") end
tcp_rows()
shm_rows()
ffi_rows()
if wanted "figures" then figures() end
if not opt.json then
   print(missed == 0 and "\nevery bar is met" or ("\n%d bars are missed"):format(missed))
end
return missed == 0 and 0 or 1
