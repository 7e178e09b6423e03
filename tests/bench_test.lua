-- bench_test.lua - `mooncake bench`: what it prints can be read by programs, moved bytes
-- are counted, limits are measured, and mistakes are said.

local bench = require "mooncake.bench"
local json = require "mooncake.json"
local measure = require "mooncake.measure"
local mooncake = require "mooncake"
local proc = require "mooncake.proc"
local util = require "mooncake.util"

local tests = {}

local FIELDS = { "transport", "op", "block", "batch", "threads", "gb_per_s", "p50_us",
                 "p99_us", "p999_us", "cpu_s_per_gb", "errors" }

local function run(...)
   local argv = { proc.exe(), "bench", "--duration", "0.05", "--span", "4M",
                  stderr = "stdout" }
   for _, a in ipairs { ... } do argv[#argv + 1] = a end
   return proc.run(argv)
end

local function lines(...)
   local out, status = run("--json", ...)
   test.eq(status, 0, out)
   local list = {}
   for line in out:gmatch "[^\n]+" do list[#list + 1] = assert(json.decode(line)) end
   return list
end

function tests.each_point_is_a_json_object()
   local list = lines("--self", "--transport", "tcp,shm", "--op", "write,read", "--block",
                      "4k,64k", "--batch", "1,8", "--limits")
   test.eq(#list, 16)
   local seen = {}
   for _, r in ipairs(list) do
      for _, f in ipairs(FIELDS) do assert(r[f] ~= nil, f) end
      assert(r.gb_per_s > 0 and r.limit_gb_per_s > 0 and r.ratio > 0)
      assert(r.p50_us > 0 and r.p50_us <= r.p99_us and r.p99_us <= r.p999_us)
      assert(r.cpu_s_per_gb > 0)
      test.eq(r.errors, 0)
      assert(#r.limited_by > 0)
      seen[table.concat({ r.transport, r.op, r.block, r.batch }, " ")] = true
   end
   test.eq(seen["tcp read 65536 8"], true)
   test.eq(seen["shm write 4096 1"], true)
end

function tests.threads_and_other_places_are_measured()
   local list = lines("--self", "--block", "4k", "--batch", "4", "--threads", "1,3",
                      "--random")
   test.eq(#list, 2)
   test.eq({ list[1].threads, list[2].threads, list[2].random }, { 1, 3, true })
   assert(list[2].gb_per_s > 0)
   test.eq(list[2].errors, 0)
end

function tests.foreign_memory_is_measured()
   local list = lines("--self", "--memory", "foreign", "--block", "64k", "--batch", "2")
   test.eq(#list, 1)
   assert(list[1].gb_per_s > 0)
end

function tests.the_table_names_its_columns()
   local out, status = run("--self", "--block", "4k", "--batch", "1")
   test.eq(status, 0, out)
   for _, c in ipairs { "GB/s", "p50", "p99", "p999", "CPU s/GB", "limited by" } do
      assert(out:find(c, 1, true), out)
   end
   assert(not out:find "ratio", out)
   assert(out:find "4 KiB", out)
end

function tests.a_target_elsewhere_is_used()
   local t = test.spawn { "mooncake", "bench", "--target", "--span", "4M" }
   local addr = t:read_line(10000):match "^ready (%S+)"
   local list = lines(addr, "--block", "4k", "--batch", "1")
   test.eq(#list, 1)
   test.eq(list[1].cpu_of_target, true)
   t:kill "INT"
   test.eq(t:wait(5000), 0)
end

function tests.an_engine_without_a_desk_is_a_target_too()
   local e = assert(mooncake.open { listen = "127.0.0.1:0" })
   test.defer(function() e:close() end)
   local out, status = run(e:addr(), "--block", "4k", "--batch", "1")
   test.eq(status, 1)
   assert(out:find "offers no", out)
   assert(e:alloc(4 * 2 ^ 20))
   local list = lines(e:addr(), "--block", "4k", "--batch", "1")
   test.eq(list[1].cpu_of_target, false)
end

function tests.mistakes_are_said()
   for _, case in ipairs {
      { "target is needed" }, { "4q", "--self", "--block", "4q" },
      { "'0'", "--self", "--batch", "0" }, { "'1.5'", "--self", "--threads", "1.5" },
      { "more than 1024", "--self", "--threads", "2000" },
      { "blocks of", "--self", "--batch", "1G" },
      { "delete", "--self", "--op", "delete" }, { "--op needs", "--self", "--op", "," },
      { "--memory", "--self", "--memory", "lent" },
      { "larger than the span", "--self", "--block", "8M" },
      { "--span", "--self", "--span", "0" }, { "--spin", "--self", "--spin", "-1" },
      { "--duration", "--self", "--duration", "0" },
      { "--duration", "--self", "--duration", "-3" },
      { "--duration", "--self", "--duration", "nan" },
      { "exclude each other", "--self", "127.0.0.1:1" },
      { "no transport is called 'foo'", "--self", "--transport", "foo" },
   } do
      local want = table.remove(case, 1)
      local out, status = run(unpack(case))
      test.eq(status, 2, want .. ": " .. out)
      assert(out:find(want, 1, true), out)
      test.eq(select(2, out:gsub("\n", "")), 1, out)
   end
end

function tests.a_target_that_is_not_there_is_said_without_a_table()
   local out, status = run "127.0.0.1:1"
   test.eq(status, 1)
   assert(out:find "127.0.0.1:1", out)
   assert(not out:find "limited by", out)
end

local function child_of(pid)
   local f = io.open(("/proc/%d/task/%d/children"):format(pid, pid))
   local child = f and f:read "*a":match "%d+"
   if f then f:close() end
   return child
end

function tests.an_interrupt_leaves_the_rows_and_no_target()
   for _, threads in ipairs { "1", "2" } do
      local p = test.spawn { "mooncake", "bench", "--self", "--span", "4M", "--duration",
                             "0.2", "--block", "4k", "--batch", ("1,"):rep(100) .. "1",
                             "--threads", threads, stderr = "pipe" }
      assert(p:read_line(10000):find "limited by")
      assert(p:read_line(10000):find "4 KiB")
      local child = assert(child_of(p.pid), "no target")
      local start = proc.now()
      p:kill "INT"
      test.eq(p:wait(5000), 130)
      assert(proc.now() - start < 2, "slow")
      assert(p.err:all(1000):find "interrupted")
      test.eq(io.open("/proc/" .. child .. "/fd"), nil, "the target is left")
   end
end

function tests.an_interrupt_does_not_wait_for_a_long_point()
   local p = test.spawn { "mooncake", "bench", "--self", "--span", "4M", "--duration",
                          "5", "--block", "4k", "--batch", "1", stderr = "stdout" }
   proc.sleep_ms(1500)
   local start = proc.now()
   p:kill "INT"
   test.eq(p:wait(10000), 130)
   assert(proc.now() - start < 1.5, "slow")
   test.eq(p:read_all(1000), "mooncake bench: interrupted\n")
end

function tests.runs_in_parts_add_up()
   local s = assert(bench.open { span = 2 ^ 20, memory = "alloc",
                                 stopped = function() return false end })
   test.defer(function() s:close() end)
   local f = assert(s:run { op = "write", block = 4096, batch = 2, ms = 1200 })
   test.eq(f.errors, 0)
   test.eq(f.bytes, f.batches * 8192)
   assert(f.p50_us > 0 and f.p50_us <= f.p999_us)
   local seconds = f.bytes / f.gb_per_s / 1e9
   assert(seconds >= 1.1 and seconds < 2, seconds)
end

function tests.a_target_that_dies_is_errors()
   local s = assert(bench.open { span = 2 ^ 20, memory = "alloc", transport = "tcp" })
   test.defer(function() s:close() end)
   local p = { op = "write", block = 4096, batch = 1, ms = 50 }
   test.eq(assert(s:run(p)).errors, 0)
   s.child:kill "KILL"
   s.child:wait()
   local reqs = measure.requests(s.segment.id, "write", s.near.addr, s.far, s.span, 4096,
                                 1)
   local start = mooncake.now()
   local m = measure.run(s.engine, reqs, 1, 1, 1, 10)
   assert(m.errors > 0)
   local f = measure.figures(m)
   assert(#f.why > 10, f.why)
   assert(mooncake.now() - start < 5)
   assert(bench.verdict(f, p):find "^errors")
   f.errors, f.batches, f.bytes = 0, 0, 0
   test.eq(bench.verdict(f, p), nil)
end

function tests.the_loop_in_lua_is_compiled()
   local s = assert(bench.open { span = 2 ^ 20, memory = "alloc", transport = "shm" })
   test.defer(function() s:close() end)
   local traces, aborts = 0, 0
   local function watch(what)
      if what == "stop" then traces = traces + 1 end
      if what == "abort" then aborts = aborts + 1 end
   end
   jit.flush()
   jit.attach(watch, "trace")
   assert(s:run { op = "write", block = 4096, batch = 1, ms = 50 })
   jit.attach(watch)
   assert(traces > 0, "nothing was compiled")
   assert(aborts < 10, aborts .. " traces were given up")
end

function tests.sizes_and_medians()
   test.eq(bench.sizes("4k,64K,1m", util.parse_bytes), { 4096, 65536, 2 ^ 20 })
   test.eq(bench.sizes("4k,x", util.parse_bytes), nil)
   test.eq(bench.sizes("", util.parse_bytes), nil)
   test.eq(bench.median { 3, 1, 2 }, 2)
   test.eq(bench.median { 4, 1, 2, 3 }, 2.5)
end

return tests
