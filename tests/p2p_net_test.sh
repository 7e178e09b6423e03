#!/bin/bash
# p2p_net_test.sh - four hosts fetch an object over links of 100 Mbit/s, and one
# of them is killed in the middle: the others have the right bytes, sooner than
# the source alone could have sent them, and it has sent little more than one
# copy. The same with one host whose link has a tenth of that. What the
# benchmark says is checked with much room, for a busy machine.
set -eu
cd "$(dirname "$0")/.."
mooncake=${MOONCAKE:-build/mooncake}
out=$(mktemp)
trap 'rm -f "$out"' EXIT

command -v etcd > /dev/null || {
	echo "skipped: no etcd command (package etcd-server)"
	exit 77
}

# run ARGS...: one figure of the result a line, as NAME VALUE.
run() {
	"$mooncake" run tests/bench/p2p.lua --receivers 4 --mode stream \
		--rate 100 --size 24M --shard 256K --json "$@" > "$out" || {
		status=$?
		cat "$out"
		exit $status
	}
	cat "$out"
}

# below NAME MOST
below() {
	awk -v name="$1" -v most="$2" '
	match($0, "\"" name "\":[0-9.]+") {
		split(substr($0, RSTART, RLENGTH), part, ":")
		found = 1
		if (part[2] > most) {
			print name " is " part[2] ", not below " most
			exit 1
		}
	}
	END { exit !found }' "$out"
}

run --kill 0.4
grep -q '"killed":1' "$out"
below ratio 2.6
below source_bytes_ratio 1.9
run --slow 10
below ratio 2.6
below source_bytes_ratio 1.9
echo ok
