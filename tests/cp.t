A node offers a file and a folder.

  $ mkdir pool && seq 1 100000 > numbers
  $ mooncake serve --file numbers --dir pool > out 2> err & node=$!
  $ until grep -qs ready out; do sleep 0.05; done
  $ addr=$(sed -n 's/^ready //p' out)
  $ cat err
  mooncake serve: file 127.0.0.1:*/numbers, 575.1 KiB (glob)
  mooncake serve: folder pool

Copies go both ways.

  $ mooncake cp $addr/numbers copy --verify
  575.1 KiB in *, by shm, verified (glob)
  $ cmp numbers copy
  $ mooncake cp --quiet copy $addr/some/where/
  $ cmp numbers pool/some/where/copy
  $ mooncake cp --quiet --transport tcp $addr/some/where/copy again && cmp numbers again

So do the files below a folder.

  $ mooncake cp -r pool/some back
  1 file, 575.1 KiB in *, by local files (glob)
  $ mooncake cp -r $addr/some/ tree --verify && find tree -type f
  1 file, 575.1 KiB in *, by shm, verified (glob)
  tree/where/copy

Names lead nowhere else.

  $ mooncake cp $addr/letters copy
  mooncake cp: no file 'letters' there; it has numbers
  [1]
  $ mooncake cp copy $addr/../copy
  mooncake cp: ../copy: not a name below the folder
  [1]
  $ ln -s .. pool/up
  $ mooncake cp copy $addr/up/copied
  mooncake cp: up/copied: leads out of the folder
  [1]

The node ends by a signal, and is missed.

  $ kill -INT $node && wait $node
  $ mooncake cp $addr/numbers copy
  mooncake cp: *refused* (glob)
  [1]
