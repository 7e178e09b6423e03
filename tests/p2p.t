A registry, and a folder that is offered as an object.

  $ mooncake serve --registry 127.0.0.1:0 --state state -q > reg 2> err & reg=$!
  $ until grep -qs ready reg; do sleep 0.05; done
  $ export MOONCAKE_REGISTRY=http://$(sed -n 's/^registry //p' reg)/metadata
  $ mkdir -p model/more && seq 1 100000 > model/weights && seq 1 9 > model/more/config
  $ : > model/empty
  $ mooncake p2p put llama/1 model > put & put=$!
  $ until grep -qs ready put; do sleep 0.05; done
  $ cat put
  ready llama/1, 575.1 KiB in 3 files, 4 shards of 256 KiB, at 127.0.0.1:* (glob)

Others see it, and fetch it.

  $ mooncake p2p list
  NAME          SIZE  SHARDS  NODES  SOURCES
  llama/1  575.1 KiB       4      1        1
  $ mooncake p2p get --verify llama/1 copy
  llama/1, 575.1 KiB in 3 files, *; 100 % from the source (glob)
  $ diff -r model copy
  $ mooncake p2p list --json nothing

What is there does not come again; a name is taken once.

  $ mv copy/weights copy/weights.part && printf x >> copy/weights.part
  $ mooncake p2p get llama/1 copy
  llama/1, *, 3 of 4 shards were there (glob)
  $ diff -r model copy
  $ mooncake p2p put llama/1 copy
  mooncake p2p: object 'llama/1' exists; replace it by force, or remove it
  [1]
  $ mooncake p2p get llama/2 copy
  mooncake p2p: no object 'llama/2'
  [1]

A pinned object stays.

  $ mooncake p2p pin llama/1 && mooncake p2p rm llama/1
  mooncake p2p rm: object 'llama/1' is pinned
  [1]
  $ mooncake p2p pin --off llama/1

Its source goes by a signal, and takes it with it.

  $ kill -INT $put && wait $put
  $ mooncake p2p list
  $ kill -INT $reg && wait $reg

What is wrong is said.

  $ mooncake p2p list
  mooncake p2p: registry http://127.0.0.1:*connect* (glob)
  [1]
  $ unset MOONCAKE_REGISTRY; mooncake p2p list
  mooncake p2p: no registry: give --registry, or set MOONCAKE_REGISTRY
  [1]
  $ mooncake p2p lsit
  mooncake p2p: no subcommand 'lsit'; there are put, get, list, rm, pin, watch
  [2]
  $ mooncake p2p get x
  mooncake p2p: DEST is missing
  [2]
