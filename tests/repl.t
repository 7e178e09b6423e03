From a pipe the REPL prints results only; a chunk may take several lines.

  $ mooncake repl <<EOS
  > 6 * 7
  > function twice(x)
  >    return 2 * x
  > end
  > twice "21", { twice(1), name = "x" }
  > e = assert(mooncake.open { transports = "shm" })
  > peers()
  > EOS
  42
  42  { 2, name = "x" }
  none

On a running node it needs the cluster key, and the node's leave.

  $ echo "a secret of some length" > key && chmod 600 key
  $ mooncake serve --quiet --key key --memory 1M --allow-repl > out & node=$!
  $ until grep -qs ready out; do sleep 0.05; done
  $ addr=$(sed -n 's/^ready //p' out)
  $ mooncake repl --node $addr --key key <<EOS
  > node.memory.len
  > counters():match "bytes_read +%d+"
  > nonsense(
  > 
  > EOS
  1048576
  bytes_read +\d+ (re)
  input:2: unexpected symbol near '<eof>'
  [1]
  $ echo 1 | mooncake repl --node $addr
  mooncake repl: *key* (glob)
  [1]
  $ kill $node && wait $node
