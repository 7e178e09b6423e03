#!/bin/bash
# check.sh - what can be said of the text without running it: form, caps,
# warnings of two compilers, the header alone, the single-file edition.
#
#   check.sh            all of it
#   check.sh form       form and caps only
#   check.sh compile    the rest
#
# Prints what is wrong; ends with "N passed, N failed, N skipped".
set -u
cd "$(dirname "$0")/.." || exit 2
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
passed=0 failed=0 skipped=0
warn=(-Wall -Wextra -Wshadow -Wstrict-prototypes -Wvla -Werror)

# files FOLDERS... -- TESTS-OF-FIND...
files() {
	local dirs=()
	while [ "$1" != -- ]; do
		[ ! -e "$1" ] || dirs+=("$1")
		shift
	done
	shift
	find "${dirs[@]}" -type f "$@" | sort
}
mapfile -t c_files < <(files src mooncake.h tests examples -- -name '*.[ch]')
mapfile -t lua_files < <(files lua tests examples scripts traces -- \
	-name '*.lua')
mapfile -t text_files < <(files Makefile README.md src scripts .ci examples \
	traces -- \( -name '*.md' -o -path 'scripts/*' -o -name Makefile \
	-o -path '.ci/*' \))
mapfile -t sources < <(files src -- -name '*.c' | grep -v '^src/compat/')

# check NAME COMMAND...: what it prints is what is wrong.
check() {
	local name=$1 out
	shift
	if out=$("$@" 2>&1) && [ -z "$out" ]; then
		passed=$((passed + 1))
	else
		failed=$((failed + 1))
		echo "failed: $name"
		echo "$out" | head -40 | sed 's/^/    /'
	fi
}

trailing() {
	grep -nE '[ 	]+$' -- "${c_files[@]}" "${lua_files[@]}" Makefile \
		"${text_files[@]}" | cut -c1-120
	for f in "${c_files[@]}" "${lua_files[@]}"; do
		[ -z "$(tail -c 1 "$f")" ] || echo "$f: no end of the last line"
	done
}

# Columns with tabs of eight; characters, not bytes.
columns() {
	local cap=$1 f
	shift
	for f; do
		expand -t 8 "$f" | LC_ALL=C.UTF-8 awk -v f="$f" -v cap="$cap" \
			'length > cap { print f ":" NR ": " length " columns" }'
	done
}

indent() {
	grep -nE '^ {8}' -- "${c_files[@]}" | cut -c1-120
	local f
	# What ffi.cdef reads is C.
	for f in "${lua_files[@]}"; do
		awk -v f="$f" '/cdef *\[\[/ { c = 1 } /\]\]/ { c = 0 }
			!c && /\t/ { print f ":" NR ": tab" }' "$f"
	done
}

sizes() {
	local f
	for f in "${c_files[@]}" "${lua_files[@]}"; do
		# The header is one file: it is the manual.
		[ "$f" != mooncake.h ] || continue
		awk -v f="$f" 'END { if (NR > 1000) print f ": " NR " lines" }' "$f"
	done
}

# A function of C begins at a brace in the first column and ends at one.
functions() {
	local f
	for f in "${sources[@]}"; do
		awk -v f="$f" '/^{/ { from = NR }
			/^}/ && from {
				if (NR - from > 81)
					print f ":" from ": function of " \
						NR - from - 1 " lines"
				from = 0
			}' "$f"
	done
}

opens_with_comment() {
	local f
	for f in "${c_files[@]}"; do
		head -c 2 "$f" | grep -q '/\*' || echo "$f: no opening comment"
	done
	for f in "${lua_files[@]}"; do
		head -n 2 "$f" | grep -qE '^(--|#!)' ||
			echo "$f: no opening comment"
	done
}

ffi_region() {
	sed -n '/\[ffi\]/,/\[\/ffi\]/p' mooncake.h > "$tmp/region"
	grep -nE '^[[:space:]]*#' "$tmp/region"
	# As names of fields these need ["local"] in Lua.
	grep -nwE '[a-z0-9_]+[ *]+(local|end|in|not|repeat|function|nil|or|and|then|until|elseif)(;|\[)' \
		"$tmp/region"
	[ -s "$tmp/region" ] || echo "mooncake.h: no [ffi] region"
}

header_c() {
	echo '#include <mooncake.h>' > "$tmp/h.c"
	"$1" -std=c11 -pedantic "${warn[@]}" -I. -c -o "$tmp/h.o" "$tmp/h.c"
}

header_cxx() {
	echo '#include <mooncake.h>' > "$tmp/h.cc"
	"$1" -std=c++11 -pedantic -Wall -Wextra -Werror -I. \
		-c -o "$tmp/h.o" "$tmp/h.cc"
}

flags() {
	make -s --no-print-directory flags
}

# Every source by clang; gcc's word on them is the build of the variants.
clang_sources() {
	local f
	# shellcheck disable=SC2046
	printf '%s\n' "${sources[@]}" | xargs -P 2 -n 8 clang -std=gnu11 \
		"${warn[@]}" -fvisibility=hidden -O2 -fsyntax-only $(flags)
}

gcc_sources() {
	# shellcheck disable=SC2046
	printf '%s\n' "${sources[@]}" | xargs -P 2 -I{} gcc -std=gnu11 \
		"${warn[@]}" -fvisibility=hidden -O2 $(flags) \
		-c -o /dev/null {}
}

amalgamation() {
	make -s dist || return 1
	printf '#define MOONCAKE_IMPLEMENTATION\n#include "mooncake.h"\n' \
		> "$tmp/one.c"
	"$1" -std=gnu11 "${warn[@]}" -O2 -Idist -c -o "$tmp/one.o" "$tmp/one.c"
}

shell_scripts() {
	command -v shellcheck >/dev/null || return 0
	shellcheck -S warning scripts/*.sh tests/*.sh
}

what=${1:-all}
if [ "$what" != compile ]; then
	check "trailing blanks" trailing
	check "C: 80 columns" columns 80 "${c_files[@]}"
	check "Lua: 90 columns" columns 90 "${lua_files[@]}"
	check "tabs in C, blanks in Lua" indent
	check "files of at most 1000 lines" sizes
	check "functions of at most 80 lines" functions
	check "files say their purpose" opens_with_comment
	check "the [ffi] region" ffi_region
	check "shell scripts" shell_scripts
fi
if [ "$what" != form ]; then
	for cc in gcc clang; do
		check "header alone, C11, $cc" header_c "$cc"
	done
	for cxx in g++ clang++; do
		check "header alone, C++11, $cxx" header_cxx "$cxx"
	done
	check "sources without warnings, gcc" gcc_sources
	check "sources without warnings, clang" clang_sources
	for cc in gcc clang; do
		check "single-file edition, $cc" amalgamation "$cc"
	done
fi
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
