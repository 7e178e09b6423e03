#!/bin/sh
# embed.sh - write C that carries text: sed only, so a build needs no Lua.
#
#   embed.sh header mooncake.h   the [ffi] region as mc_header[]
#   embed.sh lua FILE...         files below lua/ as mc_embedded[]
set -eu

quote() {
	sed -e 's/\\/\\\\/g' -e 's/"/\\"/g' -e 's/^/"/' -e 's/$/\\n"/' "$@"
}

header() {
	text=$(sed -n '/\[ffi\]/,/\[\/ffi\]/p' "$1")
	if printf '%s\n' "$text" | grep -n '^[[:space:]]*#'; then
		echo "embed.sh: $1 has a directive inside [ffi], which" \
			"ffi.cdef refuses" >&2
		exit 1
	fi
	echo "/* header.c - made from $1 by scripts/embed.sh */"
	echo '#include <mooncake.h>'
	echo 'const char mc_header[] ='
	# The marks stand inside comments whose other halves are cut off.
	printf '%s\n' "$text" | sed -e '1s,^.*\[ffi\],/* ,' \
		-e '$s,/\* \[/ffi\] \*/,,' | quote
	echo ';'
}

lua() {
	echo '/* embed.c - made from lua/ by scripts/embed.sh */'
	echo 'extern const char *const mc_embedded[][3];'
	echo 'const char *const mc_embedded[][3] = {'
	for file; do
		name=${file#lua/}
		name=${name%.*}
		name=$(printf '%s' "${name%/init}" | tr / .)
		printf '{ "%s", "@%s",\n""' "$name" "$file"
		quote "$file"
		echo '},'
	done
	echo '{ 0, 0, 0 } };'
}

what=$1
shift
case $what in
header|lua) "$what" "$@" ;;
*) echo "usage: embed.sh header|lua FILE..." >&2; exit 2 ;;
esac
