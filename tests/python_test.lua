-- python_test.lua - runs the tests of the Python package, tests/python/test_*.py, each in
-- an interpreter of its own on the library that was built beside the program under test.
-- The wheel and the example, which stand on the release, are tested with that alone. The
-- public engine (scripts/deps.sh installs its wheel into build/peers) is the other end of
-- some of them.

local proc = require "mooncake.proc"

local ROOT = proc.run { "sh", "-c", 'cd "$1/.." && pwd', "sh", test.dir }:gsub("\n$", "")
local BUILD = proc.exe():match "^(.*)/[^/]*$"
local PUBLIC = ROOT .. "/build/peers/mooncake/bin/python"
local SECONDS = 200

-- The system's own, for which Debian has NumPy and venv, before another on PATH.
local function python()
   local f = io.open "/usr/bin/python3"
   if f then f:close() end
   return f and "/usr/bin/python3" or "python3"
end

-- The interpreter is not instrumented, so the library's runtime must come first; what
-- the interpreter leaks is its own.
local function preload()
   if not BUILD:match "asan$" then return nil end
   local path = proc.run { "gcc", "-print-file-name=libasan.so" }
   return (path:gsub("\n$", ""))
end

local function run(args, env)
   local out = test.tmpdir() .. "/out"
   env.LD_PRELOAD = preload()
   env.ASAN_OPTIONS = "exitcode=99:detect_leaks=0"
   env.MOONCAKE_KEY_FILE, env.PYTHONDONTWRITEBYTECODE = false, "1"
   args.env, args.stdin, args.stdout, args.stderr = env, "null", out, "stdout"
   local status = test.spawn(args):wait(SECONDS * 1000)
   local f = assert(io.open(out))
   local text = f:read "*a"
   f:close()
   return status, text
end

local function unittest(name)
   local status, text = run({ python(), "-W", "error", name .. ".py" }, {
      PYTHONPATH = ROOT .. "/src/compat/python:" .. ROOT .. "/tests/python",
      MOONCAKE_LIBRARY = BUILD .. "/libtransfer_engine.so",
      MOONCAKE_PROGRAM = proc.exe(), MOONCAKE_ROOT = ROOT,
      MOONCAKE_PUBLIC_PYTHON = PUBLIC,
   })
   if status ~= 0 then error(("%s: status %s\n%s"):format(name, status, text), 0) end
   assert(text:match "\nRan [1-9]%d* tests? in ", text)
end

local tests = {}

for path in proc.run({ "sh", "-c", 'ls "$1"/python/test_*.py', "sh", test.dir })
      :gmatch "[^\n]+" do
   local name = path:match "([^/]*)%.py$"
   local release = name:match "wheel" or name:match "split"
   if not release or BUILD:match "/build$" then
      tests[name:match "^test_(.*)"] = function()
         local f = io.open(PUBLIC)
         if f then f:close() end
         if name == "test_public" and not f then
            test.skip "the public wheel is not in build/peers/mooncake"
         end
         unittest(path:match "^(.*)%.py$")
      end
   end
end

return tests
