A script has the library as `mooncake`, and its arguments.

  $ cat > hello.lua <<EOS
  > local a = assert(mooncake.open())
  > local memory = assert(a:alloc(4096))
  > local b = assert(mooncake.open())
  > local s = assert(b:segment(a:addr()))
  > assert(s:write(arg[1], memory.addr))
  > print(memory:string(0, #arg[1]))
  > EOS
  $ mooncake run hello.lua "hello, node"
  hello, node

What fails says where.

  $ echo 'assert(mooncake.open { listen = "nowhere" })' > wrong.lua
  $ mooncake run wrong.lua 2>&1 | head -1
  mooncake run: wrong.lua:1: *nowhere* (glob)
  $ echo 'return 4' | mooncake run -
  [4]
  $ mooncake run
  mooncake run: SCRIPT is missing
  [2]
