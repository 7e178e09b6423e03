#!/bin/sh
# instructions_test.sh - what a block costs over rdma stays under its bar: a count
# of instructions does not depend on what else the machine does.
cd "$(dirname "$0")/.." || exit 2
command -v valgrind >/dev/null || {
	echo "skipped: no valgrind"
	exit 77
}
exec build/mooncake run tests/bench/instructions.lua build/tests/bench/stub
