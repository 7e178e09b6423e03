#!/bin/sh
# amalgamate.sh - write the single-file edition of mooncake.h to stdout:
#
#   amalgamate.sh HEADER GENERATED.c SOURCE.c... > dist/mooncake.h
#
# The header as it is, then, for the one file that defines
# MOONCAKE_IMPLEMENTATION, the sources with each private header pasted where
# it is first included.
set -eu
header=$1
shift

cat <<'END'
/*
 * mooncake.h, single-file edition: the interface, and with
 *
 *	#define MOONCAKE_IMPLEMENTATION
 *	#include "mooncake.h"
 *
 * as the first lines of one C file (gnu11, Linux) the whole core: engine,
 * local, shm and tcp transports, registry client, topology. Build with
 *
END
echo " *	cc -std=gnu11 -O2 program.c ${MC_DIST_LIBS:?}"
cat <<'END'
 *
 * Other files include it without the define. Made by `make dist`; what to
 * change is in the sources, not here.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#if defined(MOONCAKE_IMPLEMENTATION) && !defined(_GNU_SOURCE)
#define _GNU_SOURCE
#endif

END
cat "$header"
echo
echo '#if defined(MOONCAKE_IMPLEMENTATION) && !defined(MOONCAKE_IMPLEMENTED)'
echo '#define MOONCAKE_IMPLEMENTED'
echo '#ifndef __USE_GNU'
echo '#error "include mooncake.h first, or define _GNU_SOURCE"'
echo '#endif'
awk '
function dir_of(path) { sub(/[^\/]*$/, "", path); return path }
function plain(path) {
	while (sub(/[^\/.][^\/]*\/\.\.\//, "", path)) ;
	gsub(/(^|\/)\.\//, "/", path)
	return path
}
function paste(path,   line, name) {
	if (seen[path]++)
		return
	print "\n/* ---- " path " ---- */"
	while ((status = (getline line < path)) > 0) {
		if (line ~ /^[ \t]*#[ \t]*include[ \t]*"/) {
			name = line
			gsub(/^[^"]*"|"[^"]*$/, "", name)
			paste(plain(dir_of(path) name))
		} else if (line !~ /#[ \t]*include[ \t]*<mooncake\.h>/) {
			print line
		}
	}
	if (status < 0) {
		print "amalgamate.sh: cannot read " path > "/dev/stderr"
		exit failed = 1
	}
	close(path)
}
BEGIN {
	for (i = 1; i < ARGC; i++)
		paste(ARGV[i])
	exit failed
}' "$@"
echo '#endif'
