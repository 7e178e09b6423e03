#!/bin/bash
# dist_test.sh - a program is built from dist/mooncake.h alone, with the line
# that stands in its head, and moves bytes.
set -eu
cd "$(dirname "$0")/.."
make -s dist
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
line=$(sed -n 's/^ \*	\(cc .* program\.c .*\)/\1/p' dist/mooncake.h)
cp dist/mooncake.h "$tmp"
cp tests/dist_test.c "$tmp/program.c"
cd "$tmp"
[ -n "$line" ] || { echo "no cc line in the head of dist/mooncake.h"; exit 1; }
echo "$line"
$line
./a.out

# A second file without the define, and a C++ one, see the interface only.
cat > other.cc <<'END'
#include "mooncake.h"
int main() { return mc_version()[0] == 0; }
END
printf '#define MOONCAKE_IMPLEMENTATION\n#include "mooncake.h"\n' > core.c
# shellcheck disable=SC2001
libs=$(sed 's/.* program\.c//' <<<"$line")
gcc -std=gnu11 -O1 -c core.c
g++ -std=c++11 -c other.cc
# shellcheck disable=SC2086
g++ other.o core.o $libs
./a.out
