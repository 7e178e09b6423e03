The runner: what passes is silent, what fails says why, and the sum is last.

  $ cat > good_test.lua <<'END'
  > local t = {}
  > function t.one() test.eq({ 1, { a = 2 } }, { 1, { a = 2 } }) end
  > function t.two() test.near(0.1 + 0.2, 0.3) made_here = 1 end
  > function t.not_here() test.skip "no such device" end
  > return t
  > END
  $ mooncake test good_test.lua
  skipped: good_test.lua: not_here: no such device
  2 passed, 0 failed, 1 skipped
  $ mooncake test -v --match one good_test.lua
  passed: good_test.lua: one (* ms) (glob)
  1 passed, 0 failed, 0 skipped

  $ cat > bad_test.lua <<'END'
  > local ffi = require "ffi"
  > local t = {}
  > function t.differs() test.eq({ 1, x = "a" }, { 2 }) end
  > function t.raises_not() test.raises("x", function() end) end
  > function t.finalizer()
  >    ffi.gc(ffi.new "int[1]", function() error "in gc" end)
  > end
  > return t
  > END
  $ mooncake test bad_test.lua | grep -v '^ '
  failed: bad_test.lua: differs: bad_test.lua:3: got { 1, x = "a" }, want { 2 }
  failed: bad_test.lua: finalizer: after the test: * in gc (glob)
  failed: bad_test.lua: raises_not: bad_test.lua:4: no error, want one that matches "x"
  0 passed, 3 failed, 0 skipped
  $ mooncake test bad_test.lua > /dev/null
  [1]

A file that does not load, and one that skips as a whole.

  $ echo 'x x' > broken_test.lua
  $ mooncake test broken_test.lua
  failed: broken_test.lua: loading: broken_test.lua:1: '=' expected near 'x'
  0 passed, 1 failed, 0 skipped
  [1]
  $ echo 'test.skip "not today"' > none_test.lua
  $ mooncake test none_test.lua
  skipped: none_test.lua: loading: not today
  0 passed, 0 failed, 1 skipped

The library is there as `mooncake`. A file that is none is wrong use, before any test.

  $ echo 'return { t = function() assert(mooncake.open()):close() end }' > lib_test.lua
  $ mooncake test lib_test.lua
  1 passed, 0 failed, 0 skipped
  $ mooncake test lib_test.lua no_test.lua
  mooncake test: no_test.lua: No such file or directory
  [2]
  $ mooncake test nothing
  mooncake test: nothing: a test is a file *_test.lua or *.t
  [2]

Processes that a test leaves are killed, its folders removed.

  $ cat > left_test.lua <<'END'
  > return { t = function()
  >    local p = test.spawn { "sleep", "31" }
  >    print(p.pid)
  >    print(test.tmpdir())
  > end }
  > END
  $ mooncake test left_test.lua > left
  $ kill -0 $(sed -n 1p left) 2>/dev/null; ls -d "$(sed -n 2p left)" 2>/dev/null
  [2]

Transcripts: a difference is a diff with the line of the command.

  $ sed 's/^|//' > bad.t <<'END'
  > |  $ seq 3
  > |  1
  > |  3
  > |  4
  > |  $ false
  > |  $ echo x.y; printf tail; (exit 3)
  > |  x?? (glob)
  > |  t[aeiou]il (re)
  > |  [3]
  > END
  $ mooncake test bad.t
  failed: bad.t:1: $ seq 3
      1
    + 2
      3
    - 4
  failed: bad.t:5: $ false
    exit status 1, want 0
  failed: bad.t:6: $ echo x.y; printf tail; (exit 3)
      x.y
    - t[aeiou]il (re)
    + tail (no-eol)
  0 passed, 1 failed, 0 skipped
  [1]

  $ sed 's/^|//' > good.t <<'END'
  > |  $ f() {
  > |  >   printf 'a\tb\nend'
  > |  > }
  > |  $ f; echo "$TESTDIR" >&2; cat
  > |  a\tb (esc)
  > |  end/* (glob)
  > |  $ printf x
  > |  x (no-eol)
  > |  $ sleep 60 & exit 0
  > END
  $ mooncake test good.t
  1 passed, 0 failed, 0 skipped
  $ sed 's/^|//' > skip.t <<'END'
  > |  $ echo no network; exit 77
  > |  $ echo never
  > END
  $ mooncake test skip.t
  skipped: skip.t: no network
  0 passed, 0 failed, 1 skipped
