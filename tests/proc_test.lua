-- proc_test.lua - processes, their pipes and signals.

local proc = require "mooncake.proc"

local t = {}

function t.output_comes_by_lines()
   local p = test.spawn { "sh", "-c", "echo a; printf 'b\\n\\nend'" }
   test.eq(p:read_line(2000), "a")
   test.eq(p:read_line(2000), "b")
   test.eq(p:read_line(2000), "")
   test.eq(p:read_line(2000), "end")
   test.eq({ p:read_line(2000) }, { nil, "eof" })
   test.eq(p:wait(2000), 0)
end

function t.reading_waits_as_long_as_told()
   local p = test.spawn { "sleep", "20" }
   local start = proc.now()
   test.eq({ p:read_line(50) }, { nil, "timeout" })
   test.eq({ p:wait(50) }, { nil, "timeout" })
   local took = proc.now() - start
   assert(took >= 0.1 and took < 5, took)
end

function t.status_tells_exits_from_signals()
   test.eq(test.spawn { "sh", "-c", "exit 7" }:wait(2000), 7)
   local p = test.spawn { "sleep", "20" }
   test.eq(p:kill "TERM", true)
   test.eq(p:wait(2000), 128 + 15)
   test.eq(p:kill "TERM", false)
   test.eq(p:wait(0), 128 + 15)
end

function t.a_program_that_is_not_there()
   local p, why, errno = proc.spawn { "no-such-program" }
   test.eq(p, nil)
   test.eq(why, "no-such-program: No such file or directory")
   test.eq(errno, 2)
end

function t.input_and_environment()
   local p = test.spawn { "sh", "-c", "cat; echo $X-$Y", stdin = "pipe",
                          env = { X = "x", Y = false } }
   assert(p:write("line\n"))
   p:close_stdin()
   test.eq(p:read_all(2000), "line\nx-\n")
end

function t.errors_may_join_the_output()
   local out, status = proc.run { "sh", "-c", "echo a; echo b >&2; exit 3",
                                  stderr = "stdout" }
   test.eq(out, "a\nb\n")
   test.eq(status, 3)
   local _, _, err = proc.run { "sh", "-c", "echo b >&2", stderr = "pipe" }
   test.eq(err, "b\n")
end

function t.output_may_go_to_a_file()
   local path = test.tmpdir() .. "/out"
   proc.run { "echo", "one", stdout = path }
   proc.run { "echo", "two", stdout = path }
   local f = assert(io.open(path))
   test.eq(f:read "*a", "one\ntwo\n")
   f:close()
end

function t.a_group_dies_as_one()
   local p = test.spawn { "sh", "-c", "sleep 30 & echo $!; wait", group = true }
   local child = assert(tonumber(p:read_line(2000)))
   p:kill "KILL"
   test.eq(p:wait(2000), 137)
   local dead = ("grep -q '^State:.*[ZX]' /proc/%d/status 2>/dev/null || " ..
                 "! [ -d /proc/%d ]"):format(child, child)
   local gone = false
   for _ = 1, 200 do
      local _, status = proc.run { "sh", "-c", dead }
      gone = status == 0
      if gone then break end
      proc.sleep_ms(10)
   end
   assert(gone, "the child of the shell lives")
end

function t.children_have_default_signals()
   -- The command itself ignores SIGPIPE.
   local out = proc.run { "sh", "-c", "grep SigIgn /proc/self/status" }
   local mask = tonumber(out:match "SigIgn:%s*(%x+)", 16)
   test.eq(math.floor(mask / 2 ^ 12) % 2, 0)
end

function t.an_interrupt_is_a_question()
   local dir = test.tmpdir()
   local f = assert(io.open(dir .. "/child_test.lua", "w"))
   f:write [[
      local proc = require "mooncake.proc"
      return { t = function()
         local stopped, fd = proc.on_sigint()
         assert(not stopped())
         print "ready"
         io.stdout:flush()
         assert(proc.wait_readable(fd, 10000))
         local came, sig = stopped()
         print("stopped", came, sig)
      end }]]
   f:close()
   local p = test.spawn { "mooncake", "test", dir .. "/child_test.lua" }
   test.eq(p:read_line(5000), "ready")
   p:kill "INT"
   test.eq(p:read_line(5000), "stopped\ttrue\t2")
   test.eq(p:wait(5000), 0)
end

function t.the_clock_and_the_machine()
   local start = proc.now()
   proc.sleep_ms(20)
   local took = proc.now() - start
   assert(took >= 0.019 and took < 5, took)
   assert(proc.cpu_count() >= 1)
   assert(proc.exe():match "^/")
end

return t
