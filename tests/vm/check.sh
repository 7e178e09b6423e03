#!/bin/bash
# check.sh - what is tested inside the virtual machine of scripts/vm (run.sh):
# check.sh BUILD. One line per test with its time, the ends of what failed ones
# said, and last "N passed, N failed, N skipped".
set -u
build=$1
passed=0 failed=0
modprobe sch_netem
log=$(mktemp) fails=$(mktemp)

# run NAME COMMAND...
run() {
	local name=$1 start=$EPOCHREALTIME status
	shift
	# As it was, whatever the one before has left.
	for eth in /sys/class/net/eth*; do
		tc qdisc del dev "${eth##*/}" root 2>/dev/null
		ip link set "${eth##*/}" up
	done
	timeout -k 5 400 "$@" >"$log" 2>&1
	status=$?
	printf '%-4s %-40s %4d s\n' "$([ $status = 0 ] && echo ok || echo FAIL)" \
		"$name" $(((${EPOCHREALTIME/./} - ${start/./}) / 1000000))
	if [ $status = 0 ]; then
		passed=$((passed + 1))
		grep -E ' (ms|s)$|: .* MiB written' "$log" | sed 's/^/    /'
	else
		failed=$((failed + 1))
		{
			echo "failed: $name"
			{
				grep -E '^\[  (FAILED|ERROR)  |^ERROR: |rror: ' \
					"$log" | awk '!seen[$0]++' | head -n 10
				echo "..."
				tail -n 15 "$log"
			} | cut -c1-300 | sed 's/^/    | /'
		} >>"$fails"
	fi
}

for setup in rdma rdma-child rdma-2; do
	run "transport_test [$setup]" env MC_SETUP=$setup \
		"$build/tests/unit/transport_test"
done
run "batch_test [rdma]" env MC_SETUP=rdma "$build/tests/unit/batch_test"
run "failure_test [rdma-child]" env MC_SETUP=rdma-child \
	"$build/tests/unit/failure_test"
run "rails: links down and up" "$build/mooncake" run tests/vm/rails.lua \
	rxe0,rxe1 rxe2,rxe3
run "loss: packets vanish" "$build/mooncake" run tests/vm/loss.lua \
	rxe0,rxe1 rxe2,rxe3
run "peers: killed, frozen, restarted" "$build/mooncake" run \
	tests/vm/peers.lua rxe0,rxe1 rxe2,rxe3
run "notifications" "$build/mooncake" run tests/vm/notes.lua \
	rxe0,rxe1 rxe2,rxe3
run "numa: the nearer device" "$build/mooncake" run tests/vm/numa.lua \
	rxe0,rxe1 rxe2,rxe3
run "topology: near at both ends" "$build/mooncake" test \
	tests/topology_rdma_test.lua
run "many buffers" "$build/mooncake" run tests/vm/many.lua rxe0 rxe1
run "memory of a GPU" "$build/mooncake" run tests/vm/gpu.lua rxe0 rxe2
run "memory in small chunks" env MC_MAX_MR_SIZE=65536 \
	"$build/mooncake" run tests/vm/memory.lua rxe0,rxe1 rxe2 4096
run "memory in large chunks" env MC_MAX_MR_SIZE=4096 \
	"$build/mooncake" run tests/vm/memory.lua rxe0 rxe2,rxe3 1048576
run "memory in one piece, of two chunks" env MC_MAX_MR_SIZE=8388608 \
	"$build/mooncake" run tests/vm/memory.lua rxe0,rxe1 rxe2 8388608
run "pool: 4 paths for 32 peers" env MC_MAX_EP_PER_CTX=4 MC_IB_IDLE_S=2 \
	"$build/mooncake" run tests/vm/pool.lua rxe0 rxe1
run "errors" "$build/mooncake" run tests/vm/errors.lua
# The public wheel does not find the address by itself here: GID 1 has it.
run "the public wheel" env MC_GID_INDEX=1 PEER_PROTOCOL=rdma PEER_DEVICES=rxe2 \
	OUR_DEVICES=rxe0 "$build/mooncake" test tests/public_test.lua
run "the public wheel, two devices" env MC_GID_INDEX=1 PEER_PROTOCOL=rdma \
	PEER_DEVICES=rxe2,rxe3 OUR_DEVICES=rxe0,rxe1 \
	"$build/mooncake" test tests/public_test.lua
cat "$fails"
echo "$passed passed, $failed failed, 0 skipped"
[ $failed = 0 ]
