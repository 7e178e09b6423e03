-- run_test.lua - `mooncake run`: what a script sees, its exit status, its errors; and the
-- examples, which run as they stand.

local proc = require "mooncake.proc"
local util = require "mooncake.util"

local tests = {}

local function run(text, ...)
   local path = test.tmpdir() .. "/script.lua"
   assert(util.write_file(path, text))
   local argv = { proc.exe(), "run", path, stderr = "stdout" }
   for _, a in ipairs { ... } do argv[#argv + 1] = a end
   return proc.run(argv)
end

function tests.a_script_sees_the_library_and_its_arguments()
   local out, status = run("print(mooncake.version(), arg[0]:match '[^/]+$', #arg, ...)",
                           "one", "--two", "-h")
   assert(out:match "^%d+%.%d+%.%d+\tscript%.lua\t3\tone\t%-%-two\t%-h\n$", out)
   test.eq(status, 0)
end

function tests.the_result_is_the_exit_status()
   test.eq({ run "return 7" }, { "", 7 })
   test.eq({ run "return false" }, { "", 1 })
   test.eq({ run "return true" }, { "", 0 })
   test.eq({ run "os.exit(5)" }, { "", 5 })
end

function tests.an_error_has_file_and_line()
   local out, status = run "local x = 1\nerror 'broken'"
   test.eq(status, 1)
   assert(out:find "script.lua:2: broken" and out:find "stack traceback", out)
   out, status = run "x = = 1"
   test.eq(status, 1)
   assert(out:find "script.lua:1" and not out:find "traceback", out)
   out, status = proc.run { proc.exe(), "run", "/no/such.lua", stderr = "stdout" }
   test.eq(status, 1)
   assert(out:find "/no/such.lua", out)
end

function tests.globals_are_the_scripts_own()
   local out, status = run [[
      mine = 1
      print(mine, undefined, _G.mine, require "mooncake" == mooncake)]]
   test.eq({ out, status }, { "1\tnil\t1\ttrue\n", 0 })
end

function tests.modules_beside_the_script_are_found()
   local dir = test.tmpdir()
   local f = assert(io.open(dir .. "/helper.lua", "w"))
   f:write "return { answer = 42 }"
   f:close()
   f = assert(io.open(dir .. "/main.lua", "w"))
   f:write "print(require('helper').answer)"
   f:close()
   test.eq({ proc.run { proc.exe(), "run", dir .. "/main.lua" } }, { "42\n", 0 })
end

function tests.standard_input_is_a_script()
   local p = test.spawn { proc.exe(), "run", "-", "x", stdin = "pipe" }
   p:write "print(...)"
   p:close_stdin()
   test.eq(p:read_all(5000), "x\n")
   test.eq(p:wait(1000), 0)
end

local function example(name, pattern)
   tests["example_" .. name] = function()
      local path = test.dir .. "/../examples/" .. name .. ".lua"
      local out, status = proc.run { proc.exe(), "run", path, stderr = "stdout" }
      test.eq(status, 0, out)
      assert(out:find(pattern), out)
   end
end

example("hello", "^hello, node\n$")
example("two_nodes", "1,024 blocks")
example("ping", "round trip")
example("futures", "all 64 equal")

return tests
