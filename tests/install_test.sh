#!/bin/bash
# install_test.sh - make install into an empty prefix; a program finds header
# and library by pkg-config, shared and static; the command and plain luajit
# work from there.
set -eu
cd "$(dirname "$0")/.."
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
prefix=$tmp/usr
make -s install PREFIX="$prefix"
export PKG_CONFIG_PATH=$prefix/lib/pkgconfig

for f in bin/mooncake include/mooncake.h lib/libmooncake.a lib/libmooncake.so \
	lib/libmooncake.so.0 lib/pkgconfig/mooncake.pc \
	lib/libtransfer_engine.so include/transfer_engine_c.h \
	share/man/man1/mooncake.1 share/lua/5.1/mooncake/ffi.lua; do
	[ -e "$prefix/$f" ] || { echo "not installed: $f"; exit 1; }
done
version=$(pkg-config --modversion mooncake)
"$prefix/bin/mooncake" version | grep -F "mooncake $version "
readelf -d "$prefix/lib/libmooncake.so" | grep -F '[libmooncake.so.0]'

# The library shows all that the header declares, and no name without prefix.
nm -D --defined-only "$prefix/lib/libmooncake.so" |
	awk '$2 ~ /[A-Z]/ { print $3 }' | sed 's/@.*//' | sort > "$tmp/shown"
sed -n '/\[ffi\]/,/\[\/ffi\]/p' mooncake.h |
	grep -vE '^[ 	]*\*|^/\*' | sed 's,/\*.*,,' |
	grep -oE '\bmc_[a-z_0-9]+ *(\(|\[\])' | tr -d ' ([]' | sort -u \
	> "$tmp/declared"
if comm -13 "$tmp/shown" "$tmp/declared" | grep . ||
	grep -v '^mc_' "$tmp/shown"; then
	echo "the symbols of the library are not those of the header"
	exit 1
fi

# shellcheck disable=SC2046
gcc -DINSTALLED -o "$tmp/shared" tests/dist_test.c \
	$(pkg-config --cflags --libs mooncake)
LD_LIBRARY_PATH=$prefix/lib "$tmp/shared"
readelf -d "$tmp/shared" | grep -F libmooncake.so.0

# shellcheck disable=SC2046
gcc -DINSTALLED -o "$tmp/static" tests/dist_test.c \
	$(pkg-config --cflags mooncake) "$prefix/lib/libmooncake.a" \
	$(pkg-config --static --libs mooncake | sed 's/-lmooncake//')
"$tmp/static"
if readelf -d "$tmp/static" | grep -F libmooncake; then
	echo "the static program needs the shared library"
	exit 1
fi

# DESTDIR goes in front of PREFIX and does not show in what is installed.
make -s install DESTDIR="$tmp/pkg" PREFIX=/usr
[ -x "$tmp/pkg/usr/bin/mooncake" ]
if grep -F "$tmp" "$tmp/pkg/usr/lib/pkgconfig/mooncake.pc"; then
	echo "DESTDIR is in what was installed"
	exit 1
fi

if command -v luajit >/dev/null; then
	LUA_PATH="$prefix/share/lua/5.1/?.lua;;" LD_LIBRARY_PATH=$prefix/lib \
		luajit -e 'local C = require "mooncake.ffi"
		print(require("ffi").string(C.mc_version()))' |
		grep -Fx "$version"
fi
