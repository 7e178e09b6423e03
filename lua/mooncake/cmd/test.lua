-- test.lua - `mooncake test`: runs Lua tests and transcripts.

local KINDS = {
   { "_test%.lua$", "mooncake.test" },
   { "%.t$", "mooncake.transcript" },
}

local function wrong_use(text) error({ user = text, status = 2 }, 0) end

local function runner(path)
   local module
   for _, kind in ipairs(KINDS) do
      if path:match(kind[1]) then module = kind[2] end
   end
   if not module then wrong_use(path .. ": a test is a file *_test.lua or *.t") end
   local file, why = io.open(path)
   if not file then wrong_use(why) end
   file:close()
   return require(module)
end

local function run(opt, args)
   local sum, runners = { passed = 0, failed = 0, skipped = 0 }, {}
   for i, path in ipairs(args) do runners[i] = runner(path) end
   for i, path in ipairs(args) do
      local count = runners[i].run_file(path, opt)
      for k in pairs(sum) do sum[k] = sum[k] + count[k] end
   end
   print(("%d passed, %d failed, %d skipped"):format(sum.passed, sum.failed,
                                                     sum.skipped))
   return sum.failed == 0 and 0 or 1
end

return {
   usage = "test [OPTIONS] FILE...",
   summary = "run Lua tests (*_test.lua) and transcripts (*.t)",
   help = [[
A Lua test file returns a table of functions; one fails by raising an error. They
find the library as the global `mooncake`, and helpers in the global `test`:
  test.eq(got, want)           equal, tables by content
  test.near(got, want, eps)    numbers at most eps apart (relative, 1e-9)
  test.raises(pattern, f, ...) f raises an error that matches; returns its text
  test.skip(reason)            this test cannot run here
  test.tmpdir()                a folder, removed after the test
  test.spawn(argv)             as proc.spawn, killed after the test; "mooncake" is
                               this program
  test.defer(f)                call f after the test
  test.dir                     the folder of the test file
Garbage is collected after each test, so that a bad finalizer fails that one.

A transcript has commands as `  $ command` with `  > ` before further lines, and below
what they print, indented by two; `[1]` after it is the exit status. A line of output
that ends in (glob) or (re) is a pattern, in (esc) has escapes, in (no-eol) has no line
end. It runs in sh in an empty folder, with this program as `mooncake` on PATH and
TESTDIR the transcript's folder; a command that ends the shell with 77 skips it.]],
   options = {
      match = { nil, "only Lua tests whose name has this Lua pattern", "PATTERN" },
      verbose = { false, "name the tests that pass, too", short = "v" },
      ["timeout"] = { 240, "seconds for one transcript", "SECONDS" },
   },
   run = run,
}
