#!/bin/bash
# netns_test.sh - two hosts, made of network namespaces, with two links between
# them: bytes flow over both, over the other one when a link goes down in the
# middle, and over both again when it is back.
set -eu
cd "$(dirname "$0")/.."
mooncake=${MOONCAKE:-build/mooncake}
bytes=$((128 << 20))
a=mcnear$$ b=mcfar$$
tmp=$(mktemp -d)

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

[ "$(id -u)" = 0 ] || skip "network namespaces need root"
command -v ip > /dev/null || skip "no ip command (package iproute2)"
ip netns add "$a" 2> "$tmp/why" || skip "no network namespaces: $(cat "$tmp/why")"
ip netns add "$b"
for i in 0 1; do
	ip link add "mca$i" netns "$a" type veth peer name "mcb$i" netns "$b" \
		2> "$tmp/why" || skip "no veth pairs: $(cat "$tmp/why")"
	ip -n "$a" addr add "10.98.$i.1/24" dev "mca$i"
	ip -n "$b" addr add "10.98.$i.2/24" dev "mcb$i"
	ip -n "$a" link set "mca$i" up
	ip -n "$b" link set "mcb$i" up
	# Slow enough for a transfer to have a middle.
	for end in "$a mca$i" "$b mcb$i"; do
		# shellcheck disable=SC2086
		set -- $end
		ip netns exec "$1" tc qdisc add dev "$2" root tbf rate 1gbit \
			burst 256kb latency 50ms 2> "$tmp/why" ||
			echo "links are not limited: $(cat "$tmp/why")"
	done
done
ip -n "$a" link set lo up
ip -n "$b" link set lo up

mkfifo "$tmp/in" "$tmp/out"
ip netns exec "$b" "$mooncake" run tests/netns/far.lua 10.98.0.2 mcb0,mcb1 \
	$bytes < "$tmp/in" > "$tmp/out" &
far=$!
exec 9> "$tmp/in"
read -r -t 10 _ name addr < "$tmp/out"
ip netns exec "$a" "$mooncake" run tests/netns/near.lua "$a" mca0,mca1 \
	"$name" "$addr" $bytes
