#!/bin/bash
# deps.sh - install the Debian and Ubuntu packages that are missing.
#
#   deps.sh [build|test|bench|peers|vm|vllm]
#
# Says what and why before it does; with nothing missing it is silent and
# quick. As root, or by sudo.
set -eu
level=${1:-build}

# package: why
build_list='
gcc: compiles the sources
libc6-dev: headers of the C library
pkg-config: finds the libraries
libluajit-5.1-dev: the script language in the command
libjson-c-dev: JSON of segments and registries
libevent-dev: the embedded registry server
libcurl4-openssl-dev: registry clients
libhiredis-dev: the registry client for redis
libnuma-dev: memory on a NUMA node
libibverbs-dev: headers of RDMA verbs; the library is loaded at run time
libssl-dev: the cluster key, TLS
libedit-dev: line editing in the REPL
libxxhash-dev: checksums (a header)
uthash-dev: hash tables (a header)'
test_list='
clang: second compiler, fuzz targets
g++: compiles the header as C++
libcmocka-dev: the C unit tests
etcd-server: registry tests run their own; the package starts one too
redis-server: registry tests run their own; the package starts one too
iproute2: network namespaces for link tests
iperf3: what tcp is measured against
openssl: certificates for TLS tests
curl: talks to the registry from outside
procps: looks at processes in tests
valgrind: counts instructions
python3: runs the public Mooncake, which tests talk to
python3-venv: installs it, apart from the system
libibverbs1: it does not load without
python3-numpy: the example of prefill and decode'
bench_list='
iperf3: what tcp is measured against
valgrind: counts instructions
etcd-server: the registry of the P2P store
iproute2: hosts and links of a given rate'
peers_list='
python3: runs what others have written
python3-venv: installs it, apart from the system
libibverbs1: the public Mooncake does not load without'
vm_list='
qemu-system-x86: the virtual machine
busybox-static: its first root
cpio: packs that
kmod: which modules the kernel needs
xz-utils: unpacks the kernel
iproute2: makes RDMA devices (rdma link)
ibverbs-providers: the driver of those
perftest: what RDMA is measured against
util-linux: processes with fewer rights (setpriv)'
vllm_list='
python3: runs vLLM
python3-venv: installs it, apart from the system'

case $level in
build) list=$build_list ;;
test) list=$build_list$test_list$vm_list ;;
bench) list=$build_list$bench_list ;;
peers) list=$build_list$peers_list ;;
vm) list=$build_list$vm_list ;;
vllm) list=$build_list$vllm_list ;;
*) echo "usage: deps.sh [build|test|bench|peers|vm|vllm]" >&2; exit 2 ;;
esac

installed() {
	dpkg-query -W -f '${db:Status-Abbrev}' "$1" 2>/dev/null | grep -q '^ii'
}

# Names of this list that are not installed, in one query.
missing() {
	local names have
	names=$(sed -n 's/^\([^:]*\):.*/\1/p' <<<"$1")
	# shellcheck disable=SC2086
	have=$(dpkg-query -W -f '${db:Status-Abbrev} ${Package}\n' $names \
		2>/dev/null | sed -n 's/^ii *//p' || true)
	comm -23 <(sort -u <<<"$names") <(sort -u <<<"$have")
}

# clang's sanitizer and fuzzer runtime has a package of its own since 14 on
# Debian 12 and on Ubuntu 24.04; before, it came with clang.
runtime() {
	local version name
	compgen -G "$(clang -print-resource-dir 2>/dev/null \
		)/lib/*/libclang_rt.fuzzer*.a" >/dev/null && return 0
	version=$(apt-cache depends clang 2>/dev/null |
		sed -n 's/.*Depends: clang-\([0-9]*\)$/\1/p' | head -1)
	name=libclang-rt-$version-dev
	[ -n "$version" ] && apt-cache show "$name" >/dev/null 2>&1 ||
		return 0
	installed "$name" || echo "$name"
}

as_root() {
	if [ "$(id -u)" = 0 ]; then
		"$@"
	elif command -v sudo >/dev/null; then
		sudo "$@"
	else
		echo "deps.sh: run it as root, or install sudo" >&2
		exit 1
	fi
}

# Packages of PyPI in an environment of their own. What is measured against or
# tested with one that cannot be had says that it was skipped.
peer() {
	local to=build/peers/$1
	shift
	[ -e "$to/bin/python" ] && return 0
	echo "deps.sh: installs $* from PyPI into $to"
	mkdir -p "${to%/*}"
	python3 -m venv "$to.new" && "$to.new/bin/pip" install -q "$@" >&2 ||
		{ echo "deps.sh: it cannot be installed here" >&2; return 0; }
	mv "$to.new" "$to"
}

# What others have built: the public Mooncake, NVIDIA's NIXL.
others() {
	case $level in test|peers)
		peer mooncake mooncake-transfer-engine-non-cuda==0.3.13.post1
	esac
	[ "$level" != peers ] || peer nixl --no-deps nixl-cu12==1.5.1 numpy
}

known() {
	local name
	for name; do
		apt-cache show "$name" >/dev/null 2>&1 || return 1
	done
}

install() {
	as_root env DEBIAN_FRONTEND=noninteractive \
		apt-get install -y --no-install-recommends "$@" >&2
}

if ! command -v dpkg-query >/dev/null; then
	echo "deps.sh: no Debian or Ubuntu; these are needed:$list" >&2
	exit 0
fi

wanted=$(missing "$list")
extra=
[ "$level" = test ] && [ -z "$wanted" ] && extra=$(runtime)
[ -z "$wanted$extra" ] && { others; exit 0; }

echo "deps.sh: will install, with apt-get, what is missing to $level:"
for name in $wanted; do
	grep "^$name:" <<<"$list" | head -1 | sed 's/^\([^:]*\): */  \1\t/' |
		expand -t 26
done
if [ "$level" = test ]; then
	echo "  clang's runtime         sanitizers and fuzzing, where it is" \
		"a package of its own"
fi
# shellcheck disable=SC2086
known $wanted || as_root apt-get update -q >&2
# shellcheck disable=SC2086
[ -z "$wanted" ] || install $wanted || { as_root apt-get update -q >&2 &&
	install $wanted; }
if [ "$level" = test ]; then
	extra=$(runtime)
	[ -z "$extra" ] || install "$extra"
fi
others
