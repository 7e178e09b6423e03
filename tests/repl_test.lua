-- repl_test.lua - evaluation, here and on a node: results, errors, what is incomplete,
-- the helpers, completion, the terminal.

local engines = require "mooncake.engines"
local eval = require "mooncake.eval"
local mooncake = require "mooncake"
local proc = require "mooncake.proc"
local util = require "mooncake.util"

local tests = {}

-- ---- evaluation ---------------------------------------------------------

local function run(text, session)
   local lines = {}
   session = session or eval.session()
   local ok, result = session:run(text, function(l) lines[#lines + 1] = l end)
   return ok, result, table.concat(lines, "\n")
end

function tests.an_expression_prints_its_value()
   test.eq({ run "1 + 1" }, { true, "2", "" })
   test.eq({ run "'a', nil, 2" }, { true, "a  nil  2", "" })
   test.eq({ run "return 5" }, { true, "5", "" })
   local ok, result = run "x = 3"
   test.eq({ ok, result }, { true, nil })
   test.eq({ run "print('a', 1) return 7" }, { true, "7", "a\t1" })
end

function tests.globals_stay_in_the_session()
   local s = eval.session { extra = 12 }
   run("x = 3", s)
   test.eq({ run("x + extra", s) }, { true, "15", "" })
   test.eq({ run "tostring(x)" }, { true, "nil", "" })
   test.eq(rawget(_G, "x"), nil)
end

function tests.errors_have_a_traceback()
   local ok, why = run "if true then error 'boom' end"
   test.eq(ok, false)
   assert(why:find "input:1: boom" and why:find "stack traceback", why)
   ok, why = run "local x = ("
   test.eq(ok, false)
   assert(why:find "input:1", why)
   ok, why = run "error { code = 4 }"
   test.eq(ok, false)
   assert(why:find "code = 4", why)
end

function tests.what_lacks_its_end_is_known()
   local function more(text) return (select(3, eval.compile(text))) end
   test.eq(more "for i = 1, 2 do", true)
   test.eq(more "x = {", true)
   test.eq(more "f(", true)
   test.eq(more "x = = 1", false)
   test.eq(eval.compile "1 + 1" ~= nil, true)
   test.eq(eval.compile "x = 1" ~= nil, true)
end

function tests.values_are_shown_as_one_reads_them()
   test.eq(eval.show "text", "text")
   test.eq(eval.show {}, "{}")
   test.eq(eval.show(0x7f1234567890), "139716164221072")
   test.eq(eval.show { 0.5, 2 ^ 70 }, "{ 0.5, 1.1805916207174e+21 }")
   test.eq(eval.show { 1, "a", x = { true } }, '{ 1, "a", x = { true } }')
   test.eq(eval.show { ["not a name"] = 1 }, '{ ["not a name"] = 1 }')
   local loop = {}
   loop.again = loop
   test.eq(eval.show(loop), "{ again = { ... } }")
   local long = {}
   for i = 1, 40 do long[i] = i end
   assert(eval.show(long):find "\n")
   local e = assert(mooncake.open())
   assert(eval.show({ e }):find "engine 127")
   e:close()
end

function tests.a_rail_that_fails_says_at_which_end()
   local r = { local_dev = "rxe1", remote_dev = "node2/rxe0", errors = 1541,
               local_errors = 1541 }
   local head = "rail rxe1 -> node2/rxe0: 1,541 errors, "
   test.eq(engines.fault(r), head .. "all with local rxe1")
   r.local_errors = 0
   test.eq(engines.fault(r), head .. "none with local rxe1")
   r.errors, r.local_errors, r.remote_dev = 2, 1, ""
   test.eq(engines.fault(r), "rail rxe1 -> -: 2 errors, 1 with local rxe1")
end

function tests.helpers_show_what_goes_on()
   local s = eval.session()
   local a, b = assert(mooncake.open()), assert(mooncake.open())
   test.defer(function()
      a:close()
      b:close()
   end)
   local mem = assert(a:alloc(65536))
   local to = assert(b:segment(a:addr()))
   assert(to:write("hello", mem.addr))
   local function shows(text, pattern)
      local ok, result = run(text, s)
      test.eq(ok, true, result)
      assert(result:find(pattern), text .. ": " .. result)
   end
   shows("peers()", a:addr():gsub("%p", "%%%0"))
   shows("peers()", "connected to it.+" .. b:name():gsub("%p", "%%%0"))
   shows("rails()", "shm +.- up")
   shows("rails()", "connected to it.+process " .. proc.pid())
   shows("buffers()", ("0x%x"):format(mem.addr))
   shows("counters()", "bytes_written +5\n")
   assert(to:write(assert(b:alloc(65536)), mem.addr))
   shows("counters()", "bytes_written +65,541 +64 KiB\n")
   shows(("probe %q"):format(a:addr()), "round trip")
   shows("probe 'no.such.host.invalid:1'", "no.such.host")
   shows("#engines() >= 2", "true")
   shows("help", "peers%(%)")
   shows("trace(true)", "tracing")
   local _, _, out = run("1", s)
   assert(out:find "^%-%- %d+%.%d+ ms", out)
   shows("trace(false)", "not tracing")
   test.eq(os.getenv "MC_LOG", nil)
end

function tests.words_complete_globals_fields_and_methods()
   local s = eval.session()
   local e = assert(mooncake.open())
   s.env.e = e
   local set = {}
   for _, w in ipairs(s:words()) do set[w] = true end
   for _, w in ipairs { "mooncake", "mooncake.open(", "peers", "print", "string.format(",
                        "e:alloc(", "function", "tostring" } do
      test.eq(set[w], true, w)
   end
   e:close()
end

-- ---- the command --------------------------------------------------------

local function repl(input, args, env)
   local argv = { proc.exe(), "repl", stdin = "pipe", stdout = "pipe", stderr = "stdout",
                  env = env }
   for _, a in ipairs(args or {}) do argv[#argv + 1] = a end
   local p = test.spawn(argv)
   p:write(input)
   p:close_stdin()
   local text = p:read_all(10000)
   return text, p:wait(5000)
end

function tests.a_pipe_is_read_without_prompts()
   local text, status = repl "1 + 1\nfor i = 1, 2 do\n  print(i)\nend\nx = 4\n= x\n"
   test.eq(text, "2\n1\n2\n4\n")
   test.eq(status, 0)
   text, status = repl "local x = nil + 1\n5\n"
   assert(text:find "input:1: attempt to" and text:find "5\n", text)
   test.eq(status, 1)
   text, status = repl "for\n\n7\n"
   assert(text:find "7\n", text)
   text, status = repl "f(\n"
   test.eq(status, 1)
   assert(text:find "eof", text)
end

function tests.a_terminal_has_prompt_history_and_completion()
   local dir = test.tmpdir()
   local p = test.spawn { "script", "-qec", "exec " .. proc.exe() .. " repl", "/dev/null",
                          stdin = "pipe", stdout = "pipe",
                          env = { MOONCAKE_HISTORY = dir .. "/history", TERM = "vt100" } }
   local function type_line(s)
      p:write(s)
      proc.sleep_ms(200)
   end
   proc.sleep_ms(400)
   type_line "x = 40\n"
   type_line "if x then\n"
   type_line "y = x + 2 end\n"
   type_line "mooncake.vers\t)\n"
   type_line "y\n"
   type_line "\4"
   p:close_stdin()
   local text = p:read_all(10000)
   assert(text:find "mooncake> ", text)
   assert(text:find "%.%.>", text)
   assert(text:find "%d+%.%d+%.%d+", text)
   assert(text:find "42", text)
   local f = assert(io.open(dir .. "/history"))
   local history = f:read "*a"
   f:close()
   assert(history:find("mooncake.version()", 1, true) or
          history:find("mooncake.version", 1, true), history)
   assert(history:find "if", history)
end

function tests.ctrl_c_drops_a_line_and_ends_a_loop()
   local p = test.spawn { "script", "-qec", "exec " .. proc.exe() .. " repl", "/dev/null",
                          stdin = "pipe", stdout = "pipe",
                          env = { MOONCAKE_HISTORY = "", TERM = "vt100" } }
   local function type_line(s)
      p:write(s)
      proc.sleep_ms(300)
   end
   proc.sleep_ms(400)
   type_line "z = 1 +"
   type_line "\3"
   type_line "if true then\n"
   type_line "\3"
   type_line "\3"
   type_line "while true do end\n"
   type_line "\3"
   type_line "mooncake.sleep(60000)\n"
   type_line "\3"
   type_line "40 + 2, z\n"
   type_line "\4"
   p:close_stdin()
   local text = p:read_all(10000)
   test.eq(p:wait(5000), 0, text)
   test.eq(select(2, text:gsub("interrupted", "")), 2, text)
   assert(text:find "42  nil", text)
end

function tests.ctrl_c_ends_a_script()
   local p = test.spawn { proc.exe(), "repl", stdin = "pipe", stdout = "pipe" }
   p:write "io.stdout:setvbuf 'no' print 'there' while true do end\n"
   test.eq(p:read_line(5000), "there")
   p:kill "INT"
   test.eq(p:wait(3000), 130)
end

-- ---- on a node ----------------------------------------------------------

local function node_with_key(args)
   local dir = test.tmpdir()
   local key, other = dir .. "/key", dir .. "/other"
   for _, path in ipairs { key, other } do
      assert(util.write_file(path, path .. " is a secret of some length"))
      os.execute("chmod 600 " .. path)
   end
   local argv = { "mooncake", "serve", "--quiet", "--allow-repl", "--key", key,
                  "--memory", "64K", unpack(args or {}) }
   local p = test.spawn(argv)
   local addr = (p:read_line(10000) or ""):match "^ready (%S+)"
   assert(addr)
   return addr, key, other, p
end

function tests.a_node_evaluates_for_who_has_the_key()
   local addr, key, other = node_with_key()
   local text, status = repl("x = 20\nx * 2 + 2\nprint 'there'\n#engines()\n" ..
                             "node.memory.len\nbuffers()\n",
                             { "--node", addr, "--key", key })
   test.eq(status, 0, text)
   test.eq(text:match "^42\nthere\n1\n65536\n" ~= nil, true, text)
   assert(text:find "64 KiB", text)
   text, status = repl("do error 'far away' end\n1\n", { "--node", addr, "--key", key })
   test.eq(status, 1)
   assert(text:find "input:1: far away" and text:find "1\n", text)
   text, status = repl("1\n", { "--node", addr, "--key", other })
   test.eq(status, 1)
   assert(text:find "key", text)
   text, status = repl("1\n", { "--node", addr }, { MOONCAKE_KEY_FILE = false })
   test.eq(status, 1, text)
   text = repl(("('x'):rep(%d):len()\n('y'):rep(200000)\n"):format(1000000),
               { "--node", addr, "--key", key })
   test.eq(text, "1000000\n" .. ("y"):rep(200000) .. "\n")
end

function tests.a_node_has_a_name_in_a_registry()
   local registry = test.spawn { "mooncake", "serve", "--quiet", "--registry",
                                 "127.0.0.1:0", stderr = "null" }
   local url = "http://" .. registry:read_line(10000):match "^registry (%S+)" ..
               "/metadata"
   local _, key = node_with_key { "--join", url, "--name", "seven" }
   local text, status = repl("6 + 1\n", { "--node", "seven", "--join", url, "--key",
                                          key })
   test.eq({ text, status }, { "7\n", 0 })
   text, status = repl("1\n", { "--join", url })
   test.eq(status, 2, text)
end

function tests.a_node_that_does_not_allow_it_says_so()
   local p = test.spawn { "mooncake", "serve", "--quiet" }
   local addr = p:read_line(10000):match "^ready (%S+)"
   local text, status = repl("1\n", { "--node", addr })
   test.eq(status, 1)
   assert(text:find "allow%-repl", text)
end

-- ---- what does not end --------------------------------------------------

function tests.a_text_that_does_not_end_is_stopped()
   local s = eval.session()
   s.limit = 0.2
   for _, text in ipairs {
      "while true do end",
      "while true do pcall(function() while true do end end) end",
      "loadstring 'while true do end' ()",
      "mooncake.sleep(60000)",
      "coroutine.wrap(function() while true do end end)()",
      "timer = mooncake.timer.every(1, function() end) mooncake.loop()",
   } do
      local start = proc.now()
      local ok, why = run(text, s)
      test.eq(ok, false, text)
      assert(why:find "took too long", why)
      assert(proc.now() - start < 2, text)
   end
   s.env.timer:cancel()
   test.eq({ run("40 + 2", s) }, { true, "42", "" })
   test.eq(jit.status(), true)
end

function tests.an_endless_text_of_a_peer_is_stopped()
   local addr, key = node_with_key { "--eval-timeout", "0.5" }
   local text, status = repl("while true do end\n1 + 1\n",
                             { "--node", addr, "--key", key })
   test.eq(status, 1)
   assert(text:find "took too long" and text:find "\n2\n", text)
end

function tests.a_node_ends_in_spite_of_an_endless_text()
   for _, signal in ipairs { "TERM", "INT" } do
      local addr, key, _, p = node_with_key { "--eval-timeout", "60" }
      local r = test.spawn { proc.exe(), "repl", "--node", addr, "--key", key,
                             stdin = "pipe", stderr = "stdout" }
      r:write "while true do end\n"
      r:close_stdin()
      proc.sleep_ms(500)
      p:kill(signal)
      test.eq(p:wait(3000), 0, signal)
      r:wait(3000)
   end
end

function tests.a_node_that_waits_for_texts_uses_no_cpu()
   local measure = require "mooncake.measure"
   local addr, key, _, p = node_with_key()
   test.eq(repl("1\n", { "--node", addr, "--key", key }), "1\n")
   proc.sleep_ms(200)
   local function switches()
      local f = assert(io.open(("/proc/%d/status"):format(p.pid)))
      local n = f:read "*a":match "\nvoluntary_ctxt_switches:%s*(%d+)"
      f:close()
      return tonumber(n)
   end
   local before, woken = measure.cpu_ns(p.pid), switches()
   proc.sleep_ms(700)
   test.eq(switches(), woken)
   assert(measure.cpu_ns(p.pid) - before < 2e6)
end

function tests.tracebacks_show_what_was_typed_and_no_more()
   local _, why = run "local function f() error 'boom' end f()"
   test.eq(why, "input:1: boom\nstack traceback:\n\t[C]: in function 'error'\n\t" ..
                "input:1: in function 'f'\n\tinput:1: in main chunk")
   _, why = run "return error 'boom'"
   test.eq(why:find("builtin", 1, true), nil)
   local addr, key = node_with_key()
   local text = repl("pcall(1, error 'boom')\n", { "--node", addr, "--key", key })
   assert(text:find "boom" and not text:find("builtin", 1, true), text)
   assert(not text:find("node.lua", 1, true), text)
end

return tests
