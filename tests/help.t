Help is on everything, and wrong use says what is wrong.

  $ mooncake help | head -1
  usage: mooncake COMMAND [OPTIONS] [ARGUMENTS]
  $ mooncake --help | grep -c '^  topo  *devices'
  1
  $ mooncake > without; echo $?
  2
  $ mooncake --help | cmp - without

One command: the same by help and by --help or -h.

  $ mooncake help version
  usage: mooncake version [OPTIONS]
  
    --json      print one JSON object
    -h, --help  this text
  $ mooncake help version > a; mooncake version --help | cmp - a
  $ mooncake version -h | cmp - a
  $ for c in $(mooncake help | sed -n '/^commands/,/^$/s/^  \([a-z]*\) .*/\1/p'); do
  >   mooncake $c --help | head -1 | grep -q "^usage: mooncake $c" || echo $c
  > done

What the environment says is in the help of each command that opens engines.

  $ for c in cp bench repl serve run topo; do
  >   for v in MOONCAKE_KEY_FILE MOONCAKE_TLS_CERT MOONCAKE_TLS_KEY MOONCAKE_TLS_CA \
  >       MOONCAKE_PROFILE MC_LOG; do
  >     mooncake help $c | grep -q "$v" || echo $c does not name $v
  >   done
  > done

Topics.

  $ mooncake help header | grep -c 'mc_open('
  1
  $ mooncake help nothing
  mooncake help: no command or topic 'nothing'; see `mooncake help`
  [1]

The version, for people and programs.

  $ mooncake version
  mooncake \d+\.\d+\.\d+ \(LuaJIT .*\) (re)
  $ mooncake --version --json
  {"arch":"*","lua":"LuaJIT *","version":"*"} (glob)

Wrong use is status 2.

  $ mooncake fly
  mooncake: no command 'fly'; see `mooncake help`
  [2]
  $ mooncake version --loud
  mooncake version: unknown option '--loud'
  [2]
  $ mooncake version --json=yes
  mooncake version: --json takes no value
  [2]
  $ mooncake version now
  mooncake version: unexpected argument 'now'
  [2]
  $ mooncake test
  mooncake test: FILE... is missing
  [2]
  $ mooncake test --timeout long x.t
  mooncake test: --timeout takes a number, not 'long'
  [2]
  $ mooncake test x.t --match
  mooncake test: --match needs a value
  [2]

So is a file that is no test.

  $ mooncake test unknown.txt
  mooncake test: unknown.txt: a test is a file *_test.lua or *.t
  [2]

A reader that leaves early ends the command without a word.

  $ mooncake help header | head -1
  /*  LuaJIT reads from here to the closing mark as it stands: plain

MOONCAKE_LUA puts files before those in the program; errors show file and line.

  $ mkdir -p lua/mooncake/cmd
  $ echo 'return { usage = "hi", run = function() print "hello" end }' \
  >   > lua/mooncake/cmd/hi.lua
  $ MOONCAKE_LUA=lua mooncake hi
  hello
  $ echo 'return { usage = "hi", run = function() x = 1 end }' \
  >   > lua/mooncake/cmd/hi.lua
  $ MOONCAKE_LUA=lua mooncake hi 2>&1 | head -1
  mooncake hi: lua/mooncake/cmd/hi.lua:1: global 'x' set by library code: use a local
  $ echo 'syntax' > lua/mooncake/cmd/hi.lua
  $ MOONCAKE_LUA=lua mooncake hi 2>&1 | head -1
  mooncake hi: lua/mooncake/cmd/hi.lua:2: '=' expected near '<eof>'
