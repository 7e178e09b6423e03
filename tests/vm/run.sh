#!/bin/bash
# run.sh - the tests of RDMA, in virtual machines, as `make check` and `make
# check-vm` run them: run.sh [BUILD]. Beside other tests they give way.
set -eu
cd "$(dirname "$0")/../.."
exec nice -n 5 scripts/vm --nics 4 --numa --timeout 1500 -- \
	tests/vm/check.sh "${1:-build}"
