A benchmark with a target of its own; figures differ, the form does not.

  $ mooncake bench --self --span 4M --duration 0.05 --block 4k,64k --batch 16 --transport shm
  via    op        block  batch  threads    GB/s       p50       p99      p999  CPU s/GB  limited by
  shm    write     4 KiB     16        1  * (glob)
  shm    write    64 KiB     16        1  * (glob)
  $ mooncake bench --self --span 4M --duration 0.05 --block 4k --batch 1 --json | tr , '\n' | grep -c -E '"(transport|op|block|batch|threads|gb_per_s|p50_us|p99_us|p999_us|cpu_s_per_gb|errors|rails)"'
  13
  $ mooncake bench
  mooncake bench: a target is needed: HOST:PORT of a `mooncake bench --target`, or --self
  [2]
  $ mooncake bench --self --duration 0
  mooncake bench: --duration takes seconds from 0.001 to 1000000, not '0'
  [2]
