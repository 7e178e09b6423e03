A machine with two sockets; each has a PCI switch with two GPUs and a NIC below it,
and the first has one more NIC on a root port of its own.

  $ node() {
  >   mkdir -p m/sys/devices/system/node/node$1
  >   echo $2 > m/sys/devices/system/node/node$1/cpulist
  > }
  $ pci() {  # path class vendor node
  >   mkdir -p m/sys/devices/$1 m/sys/bus/pci/devices
  >   ln -s ../../../devices/$1 m/sys/bus/pci/devices/${1##*/}
  >   echo $2 > m/sys/devices/$1/class
  >   echo $3 > m/sys/devices/$1/vendor
  >   echo $4 > m/sys/devices/$1/numa_node
  >   echo "16.0 GT/s PCIe" > m/sys/devices/$1/max_link_speed
  >   echo 16 > m/sys/devices/$1/max_link_width
  > }
  $ rdma() {  # path name rate
  >   mkdir -p m/sys/devices/$1/infiniband/$2/ports/1 m/sys/class/infiniband
  >   ln -s ../.. m/sys/devices/$1/infiniband/$2/device
  >   ln -s ../../devices/$1/infiniband/$2 m/sys/class/infiniband/$2
  >   echo "$3 Gb/sec (4X NDR)" > m/sys/devices/$1/infiniband/$2/ports/1/rate
  >   echo "4: ACTIVE" > m/sys/devices/$1/infiniband/$2/ports/1/state
  >   echo InfiniBand > m/sys/devices/$1/infiniband/$2/ports/1/link_layer
  > }
  $ net() {  # path name speed
  >   mkdir -p m/sys/devices/$1/net/$2 m/sys/class/net
  >   ln -s ../.. m/sys/devices/$1/net/$2/device
  >   ln -s ../../devices/$1/net/$2 m/sys/class/net/$2
  >   echo up > m/sys/devices/$1/net/$2/operstate
  >   echo $3 > m/sys/devices/$1/net/$2/speed
  > }
  $ below() {  # bus of a root, node, name of the NIC
  >   sw=pci0000:$1/0000:$1:01.0/0000:${1%0}1:00.0
  >   pci $sw/0000:${1%0}2:00.0/0000:${1%0}3:00.0 0x030200 0x10de $2
  >   pci $sw/0000:${1%0}2:01.0/0000:${1%0}4:00.0 0x030200 0x10de $2
  >   pci $sw/0000:${1%0}2:02.0/0000:${1%0}5:00.0 0x020700 0x15b3 $2
  >   rdma $sw/0000:${1%0}2:02.0/0000:${1%0}5:00.0 $3 400
  > }
  $ node 0 0-31; node 1 32-63
  $ below 10 0 mlx5_0; below 80 1 mlx5_1
  $ pci pci0000:10/0000:10:02.0/0000:16:00.0 0x020000 0x8086 0
  $ net pci0000:10/0000:10:02.0/0000:16:00.0 eth0 25000

The drawing leaves out bridges that lead to one device only.

  $ mooncake topo --root m
  m
  ├─ NUMA node 0  cpu:0  (CPUs 0-31)
  │  └─ root pci0000:10
  │     ├─ switch 0000:11:00.0
  │     │  ├─ gpu:0   gpu   0000:13:00.0  31.5 GB/s        NVIDIA
  │     │  ├─ gpu:1   gpu   0000:14:00.0  31.5 GB/s        NVIDIA
  │     │  └─ mlx5_0  rdma  0000:15:00.0   400 Gb/s  up    InfiniBand
  │     └─ eth0    net   0000:16:00.0    25 Gb/s  up
  └─ NUMA node 1  cpu:1  (CPUs 32-63)
     └─ root pci0000:80
        └─ switch 0000:81:00.0
           ├─ gpu:2   gpu   0000:83:00.0  31.5 GB/s        NVIDIA
           ├─ gpu:3   gpu   0000:84:00.0  31.5 GB/s        NVIDIA
           └─ mlx5_1  rdma  0000:85:00.0   400 Gb/s  up    InfiniBand
  
  distances
          cpu:0   cpu:1   eth0    mlx5_0  mlx5_1  gpu:0   gpu:1   gpu:2   gpu:3
  cpu:0   x       far     node    node    far     node    node    far     far
  cpu:1   far     x       far     far     node    far     far     node    node
  eth0    node    far     x       root    far     root    root    far     far
  mlx5_0  node    far     root    x       far     switch  switch  far     far
  mlx5_1  far     node    far     far     x       far     far     switch  switch
  gpu:0   node    far     root    switch  far     x       switch  far     far
  gpu:1   node    far     root    switch  far     switch  x       far     far
  gpu:2   far     node    far     far     switch  far     far     x       switch
  gpu:3   far     node    far     far     switch  far     far     switch  x
  
  x       itself
  dev     same device, or ports of one card
  switch  same PCI switch or bridge
  root    same PCI root complex
  node    same NUMA node
  far     another NUMA node, or not known
  
  network devices by where the memory is
  memory at  first   then
  cpu:0      mlx5_0  mlx5_1
  cpu:1      mlx5_1  mlx5_0
  cuda:0     mlx5_0  mlx5_1
  cuda:1     mlx5_0  mlx5_1
  cuda:2     mlx5_1  mlx5_0
  cuda:3     mlx5_1  mlx5_0

The same for programs.

  $ mooncake topo --root m --json | grep -o '"matrix":{"cpu:0":[^}]*,"cuda:0":[^a-z]*'
  "matrix":{"cpu:0":[["mlx5_0"],["mlx5_1"]],"cpu:1":[["mlx5_1"],["mlx5_0"]],"cuda:0":[["

A running engine tells what it uses: here, what a file says.

  $ echo '{"cpu:0": [["eth1"], ["eth0"]], "gpu:0": [["eth0"], []]}' > custom.json
  $ MC_CUSTOM_TOPO_JSON=custom.json mooncake serve --quiet --memory 1M > out & node=$!
  $ until grep -qs ready out; do sleep 0.05; done
  $ at=$(sed -n 's/^ready //p' out)
  $ mooncake topo --node $at
  memory at  first  then
  cpu:0      eth1   eth0
  cuda:0     eth0
  $ mooncake topo --node $at --json
  {"matrix":{"cpu:0":[["eth1"],["eth0"]],"cuda:0":[["eth0"],[]]},"node":"127.0.0.1:*"} (glob)
  $ kill $node && wait $node; rm out
  $ mooncake serve --quiet --memory 1M > out & node=$!
  $ until grep -qs ready out; do sleep 0.05; done
  $ at=$(sed -n 's/^ready //p' out)
  $ mooncake topo --node $at | sed s/$at/AT/
  AT has no devices to choose from
  $ kill $node && wait $node; rm out
  $ echo '{"cpu:0": ["eth1"]}' > custom.json
  $ MC_CUSTOM_TOPO_JSON=custom.json mooncake serve --memory 1M
  mooncake serve: custom.json: topology: at 'cpu:0' expected two lists of device names, [[first choice], [others]]
  [1]
  $ mooncake topo --join http://localhost:1
  mooncake topo: --join is for the name of a --node
  [2]

A machine without anything, and none at all.

  $ mkdir -p empty/sys && mooncake topo --root empty
  empty
  $ mooncake topo --root absent
  mooncake topo: topology: no sys folder under absent: No such file or directory
  [1]
  $ mooncake topo everything
  mooncake topo: unexpected argument 'everything'
  [2]
