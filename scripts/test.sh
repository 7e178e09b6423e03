#!/bin/bash
# test.sh - the runner of all tests.
#
#   test.sh VARIANT      C and Lua tests of one variant: release, debug, asan, tsan
#   test.sh check        everything, as the gate does
#   test.sh PROGRAM...   only these: paths of tests
#
# One line per test program with its time and counts, the output of those that
# fail, then what was skipped and why, and last "N passed, N failed, N skipped".
# Exit status 77 of a program
# is a skip; it says the reason in its last line. Environment: MC_VARIANTS, the
# variants of check (release asan tsan); MC_VARIANT is the one that runs, as
# tests see it; MC_JOBS, programs at a time (2);
# MC_TIMEOUT, seconds for one program (300).
set -u
cd "$(dirname "$0")/.." || exit 2
jobs_max=${MC_JOBS:-2}
limit=${MC_TIMEOUT:-300}
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
passed=0 failed=0 skipped=0
number=0
export MC_FAULT_ROUNDS=${MC_FAULT_ROUNDS:-500}
# A sanitizer's finding is an exit status of its own, not that of a test.
export ASAN_OPTIONS=${ASAN_OPTIONS:-exitcode=99:detect_leaks=1}
export UBSAN_OPTIONS=${UBSAN_OPTIONS:-print_stacktrace=1}
export TSAN_OPTIONS=${TSAN_OPTIONS:-exitcode=99:halt_on_error=0}

# Tests may do less where code runs at a tenth of its speed.
variant() {
	export MC_VARIANT=$1
}

build_of() {
	[ "$1" = release ] && echo build || echo "build-$1"
}

# The counts in a log: cmocka's summaries, or a runner's last line.
count() {
	awk '
	/^\[  PASSED  \] [0-9]+ test/ { p += $4 }
	/^\[  FAILED  \] [0-9]+ test/ { f += $4 }
	/^\[  SKIPPED \] [0-9]+ test/ { s += $4 }
	/^[0-9]+ passed, [0-9]+ failed, [0-9]+ skipped$/ {
		p += $1; f += $3; s += $5
	}
	END { print p + 0, f + 0, s + 0 }' "$1"
}

# What a reader of a failure needs: the findings of sanitizers, each once, the
# tests that failed, and how the log ends.
explain() {
	{
		grep -E '^SUMMARY: |runtime error: |^failed: |^\[  (FAILED|ERROR)  ' \
			"$1" | cut -c1-300 | awk '!seen[$0]++' | head -30
		echo "..."
		tail -n 30 "$1" | cut -c1-300
	} | sed 's/^/    | /'
}

# reasons STATUS LOG: why tests of a log were skipped; cmocka has only names.
reasons() {
	if [ "$1" = 77 ]; then
		tail -n 1 "$2"
	else
		grep -E '^skipped: ' "$2" ||
			grep -E '^\[  SKIPPED \] [A-Za-z_]' "$2"
	fi | sed -E 's,^skipped: (tests/[^ :]*: )?,,' | cut -c1-200 |
		awk '!seen[$0]++' | head -8
}

# run_one NUMBER LABEL COMMAND...: leaves its counts in $out/NUMBER.count.
run_one() {
	local n=$1 label=$2 log="$out/$1.log" start=$EPOCHREALTIME rc p f s ms note
	shift 2
	timeout -k 10 "$limit" "$@" > "$log" 2>&1 < /dev/null
	rc=$?
	read -r p f s < <(count "$log")
	note=
	if [ $rc = 77 ]; then
		s=$((s + 1)) note=" (skipped)"
	elif [ $rc != 0 ]; then
		[ "$f" -gt 0 ] || f=1
		[ $rc = 124 ] || [ $rc = 137 ] && note=" (not done in $limit s)"
		[ $rc = 99 ] && note=" (a sanitizer's finding)"
	elif [ "$((p + f + s))" = 0 ]; then
		p=1
	fi
	ms=$(((${EPOCHREALTIME/./} - ${start/./}) / 1000))
	printf '%-4s %-44s %3d passed %3d failed %3d skipped %4d.%d s%s\n' \
		"$([ "$f" = 0 ] && echo ok || echo FAIL)" "$label" "$p" "$f" \
		"$s" $((ms / 1000)) $((ms % 1000 / 100)) "$note"
	[ "$f" = 0 ] || explain "$log"
	[ "$s" = 0 ] || reasons "$rc" "$log" | sed "s|^|skipped: $label: |" \
		> "$out/$n.skips"
	echo "$p $f $s" > "$out/$n.count"
}

# start LABEL COMMAND...: now, or when fewer than $jobs_max run.
start() {
	while [ "$(jobs -rp | wc -l)" -ge "$jobs_max" ]; do
		wait -n
	done
	number=$((number + 1))
	run_one "$number" "$@" &
}

# alone LABEL COMMAND...: nothing beside it; its success is the exit status.
alone() {
	wait
	number=$((number + 1))
	run_one "$number" "$@"
	[ "$(cut -d' ' -f2 "$out/$number.count")" = 0 ]
}

build() {
	local save=$limit ok
	limit=1200
	# The edition, too: nothing may make it while others read it.
	alone "build $1" make -s -j2 VARIANT="$1" all lib tests replay dist
	ok=$?
	limit=$save
	return $ok
}

unit() {
	local b t
	b=$(build_of "$1")
	for t in tests/unit/*_test.c; do
		[ -e "$t" ] || continue
		t=$b/${t%.c}
		[ -x "$t" ] && start "$t" "$t"
	done
}

corpora() {
	local b t name
	b=$(build_of "$1")
	for t in tests/fuzz/*_fuzz.c; do
		[ -e "$t" ] || continue
		name=$(basename "$t" _fuzz.c)
		t=$b/${t%.c}
		[ -x "$t" ] && [ -d "tests/corpus/$name" ] &&
			start "$t" "$t" "tests/corpus/$name"/*
	done
}

lua() {
	local b t
	b=$(build_of "$1")
	for t in tests/*_test.lua tests/*.t; do
		[ -e "$t" ] && start "$b $t" "$b/mooncake" test "$t"
	done
}

shell() {
	local t
	for t in tests/*_test.sh; do
		[ -e "$t" ] && start "$t" "$t"
	done
}

# Made once, with the release build: it takes minutes, and some of both CPUs.
machine() {
	local limit=1600
	start "tests/vm: RDMA in a virtual machine" tests/vm/run.sh
}

one() {
	case $1 in
	*.lua|*.t) start "$1" build/mooncake test "$1" ;;
	*.c) make -s "build/${1%.c}" && start "$1" "build/${1%.c}" ;;
	*) start "$1" "$1" ;;
	esac
}

# In the order in which a reader wants to know.
check() {
	local v
	alone "text: form and caps" scripts/check.sh form
	for v in ${MC_VARIANTS:-release asan tsan}; do
		variant "$v"
		build "$v" || continue
		[ "$v" != release ] || machine
		[ "$v" != release ] ||
			start "text: compilers" scripts/check.sh compile
		unit "$v"
		corpora "$v"
		# LuaJIT is not instrumented, and memory that peers read and
		# write is shared without locks: the C tests know what races.
		[ "$v" = tsan ] || lua "$v"
		[ "$v" != release ] || shell
	done
}

case ${1:-} in
check) check ;;
release|debug|asan|tsan) variant "$1"; build "$1" && { unit "$1"; corpora "$1"; lua "$1"; } ;;
'') echo "usage: test.sh check|VARIANT|PROGRAM..." >&2; exit 2 ;;
*) for t; do one "$t"; done ;;
esac
wait
find "$out" -name '*.skips' | sort -V | xargs -r cat
for f in "$out"/*.count; do
	[ -e "$f" ] || continue
	read -r p f s < "$f"
	passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
done
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
