#!/bin/bash
# lan.sh - lan.lua in two guests that share a network: lan.sh [BUILD].
set -eu
cd "$(dirname "$0")/../.."
build=${1:-build}
tmp=$(mktemp -d)
other=
# shellcheck disable=SC2317
clean() {
	[ -z "$other" ] || kill "$other" 2>/dev/null || :
	wait
	rm -rf "$tmp"
}
trap clean EXIT

guest() {
	local host=$1
	shift
	exec scripts/vm --lan "$tmp/lan" --host "$host" --mem 768 --timeout 400 -- \
		"$build/mooncake" run tests/vm/lan.lua "$@"
}

start=$EPOCHREALTIME
guest 1 serve >"$tmp/other" 2>&1 &
other=$!
status=0
# The first one makes the socket, the second one joins there.
while [ ! -S "$tmp/lan" ] && kill -0 "$other" 2>/dev/null; do
	sleep 0.05
done
(guest 0) >"$tmp/log" 2>&1 || status=$?
# What it needs is not installed.
[ $status != 77 ] || { tail -n 1 "$tmp/log"; exit 77; }
printf '%-4s %-40s %4d s\n' "$([ $status = 0 ] && echo ok || echo FAIL)" \
	"two guests" $(((${EPOCHREALTIME/./} - ${start/./}) / 1000000))
if [ $status = 0 ]; then
	grep -E ' ms$|: .* MiB written' "$tmp/log" | sed 's/^/    /'
	echo "1 passed, 0 failed, 0 skipped"
	exit
fi
echo "failed: two guests"
tail -n 30 "$tmp/log" "$tmp/other" | cut -c1-250 | sed 's/^/    | /'
echo "0 passed, 1 failed, 0 skipped"
exit 1
