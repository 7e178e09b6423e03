#!/bin/bash
# run.sh - the tests of RDMA, in virtual machines, as `make check` and `make
# check-vm` run them: run.sh [BUILD]. Beside other tests they give way.
set -u
cd "$(dirname "$0")/../.." || exit 2
build=${1:-build}
# Sanitizers remember much.
mem=1536
[ "$build" = build ] || mem=4096
renice -n 5 $$ >/dev/null
status=0
scripts/vm --nics 4 --numa --mem $mem --timeout 1500 -- tests/vm/check.sh "$build" ||
	status=$?
[ $status != 77 ] || exit 77
tests/vm/lan.sh "$build" || status=1
exit $status
