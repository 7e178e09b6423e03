#!/bin/bash
# netns_test.sh - two hosts, made of network namespaces, with two links between
# them: bytes flow over both, over the other one when a link goes down in the
# middle, and over both again when it is back.
set -eu
cd "$(dirname "$0")/.."
mooncake=${MOONCAKE:-build/mooncake}
bytes=$((128 << 20))
a=mcnear$$ b=mcfar$$
# Not by ip netns exec nor ip -n: they mount /sys anew, and fail where / is no
# mount point, as in a chroot.
run=/var/run/netns
tmp=$(mktemp -d)

# What a command said, on one line.
reason() {
	tr '\n' ' ' < "$tmp/why"
}

skip() {
	echo "skipped: $1"
	exit 77
}

clean() {
	exec 9>&- 2> /dev/null || :
	[ -z "${far:-}" ] || kill "$far" 2> /dev/null || :
	wait 2> /dev/null || :
	ip netns del "$a" 2> /dev/null || :
	ip netns del "$b" 2> /dev/null || :
	rm -rf "$tmp"
}
trap clean EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

[ "$(id -u)" = 0 ] || skip "network namespaces need root"
for word in ip:iproute2 tc:iproute2 nsenter:util-linux; do
	command -v "${word%:*}" > /dev/null ||
		skip "no ${word%:*} command (package ${word#*:})"
done
ip netns add "$a" 2> "$tmp/why" || skip "no network namespaces: $(reason)"
nsenter --net="$run/$a" true 2> "$tmp/why" ||
	skip "no way into a namespace: $(reason)"
ip netns add "$b"
for i in 0 1; do
	ip link add "mca$i" netns "$a" type veth peer name "mcb$i" netns "$b" \
		2> "$tmp/why" || skip "no veth pairs: $(reason)"
	nsenter --net="$run/$a" ip addr add "10.98.$i.1/24" dev "mca$i"
	nsenter --net="$run/$b" ip addr add "10.98.$i.2/24" dev "mcb$i"
	nsenter --net="$run/$a" ip link set "mca$i" up
	nsenter --net="$run/$b" ip link set "mcb$i" up
	# Slow enough for a transfer to have a middle.
	for end in "$a mca$i" "$b mcb$i"; do
		# shellcheck disable=SC2086
		set -- $end
		nsenter --net="$run/$1" tc qdisc add dev "$2" root tbf rate 1gbit \
			burst 256kb latency 50ms 2> "$tmp/why" ||
			echo "links are not limited: $(reason)"
	done
done
nsenter --net="$run/$a" ip link set lo up
nsenter --net="$run/$b" ip link set lo up

mkfifo "$tmp/in" "$tmp/out"
nsenter --net="$run/$b" "$mooncake" run tests/netns/far.lua \
	10.98.0.2 mcb0,mcb1 $bytes < "$tmp/in" > "$tmp/out" &
far=$!
exec 9> "$tmp/in"
read -r -t 10 _ name addr < "$tmp/out"
nsenter --net="$run/$a" "$mooncake" run tests/netns/near.lua \
	"$a" mca0,mca1 "$name" "$addr" $bytes
