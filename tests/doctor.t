Each transport is tried with a second process; the end is 0 because tcp works.

  $ mooncake doctor > out
  $ grep -c '^  .*  memlock ' out
  1
  $ sed -n '/^transports/,$p' out | grep -v foreign | grep -v '  -> '
  transports
    ok       local         allocated memory: 1 MiB written and read back in *, equal, by rail local (glob)
    ok       shm           allocated memory: 1 MiB written and read back in *, equal, by rail shm (glob)
    ok       tcp           allocated memory: 1 MiB written and read back in *, equal, by rail tcp (glob)
    ok       v1            allocated memory: 1 MiB written and read back in *, equal, by rail v1 (glob)
  $ mooncake doctor --json | grep -o '"usable":true'
  "usable":true

Where a limit leaves no room it says which.

  $ (ulimit -n 200; mooncake doctor | grep -A1 'open files')
    warn     open files    200, may be raised to 200: each peer takes several connections
                           -> ulimit -n 4096

What it starts itself with is not offered.

  $ mooncake doctor --help | grep -c -e --far
  0
  [1]
