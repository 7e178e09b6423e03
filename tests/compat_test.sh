#!/bin/bash
# compat_test.sh - libtransfer_engine.so shows the 27 functions of the public C
# interface; a program that declares them itself links with it and runs, over
# tcp and over what the engine chooses; our header has the documented layout, in
# C and in C++.
set -eu
cd "$(dirname "$0")/.."
make -s lib
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
so=build/libtransfer_engine.so

readelf -d $so | grep -qF 'SONAME' && readelf -d $so |
	grep -qF '[libtransfer_engine.so]'
sed -n 's/^[a-z].*[ *]\([a-z][A-Za-z]*\)(.*/\1/p' \
	src/compat/transfer_engine_c.h | sort > "$tmp/declared"
sed -n '/documented interface/,/helpers/s/^[a-z].*[ *]\([a-z][A-Za-z]*\)(.*/\1/p' \
	tests/compat_test.c | sort > "$tmp/documented"
diff "$tmp/declared" "$tmp/documented"
[ "$(wc -l < "$tmp/declared")" = 27 ]
nm -D --defined-only $so | awk '{ print $3 }' | grep -v '^mc_te_' | sort |
	diff - "$tmp/declared"

cat > "$tmp/layout.c" <<'END'
#include "transfer_engine_c.h"
#ifdef __cplusplus
#define _Static_assert static_assert
#endif
#define AT(s, m, o) _Static_assert(offsetof(struct s, m) == o, #s "." #m)
#define SIZE(s, n) _Static_assert(sizeof(struct s) == n, #s)
AT(transfer_request, opcode, 0); AT(transfer_request, source, 8);
AT(transfer_request, target_id, 16); AT(transfer_request, target_offset, 24);
AT(transfer_request, length, 32); SIZE(transfer_request, 40);
AT(transfer_status, status, 0); AT(transfer_status, transferred_bytes, 8);
SIZE(transfer_status, 16);
AT(notify_msg, name, 0); AT(notify_msg, msg, 8); SIZE(notify_msg, 16);
AT(buffer_entry, addr, 0); AT(buffer_entry, length, 8); SIZE(buffer_entry, 16);
AT(nic_load_stat, inflight_bytes, 64);
AT(nic_load_stat, ewma_bandwidth_bps, 72); SIZE(nic_load_stat, 80);
SIZE(segment_desc, 48);
_Static_assert(LOCAL_SEGMENT == 0 && INVALID_BATCH == UINT64_MAX, "ids");
_Static_assert(OPCODE_READ == 0 && OPCODE_WRITE == 1, "opcodes");
_Static_assert(STATUS_WAITING == 0 && STATUS_PENDING == 1 &&
	       STATUS_INVALID == 2 && STATUS_CANCELED == 3 &&
	       STATUS_COMPLETED == 4 && STATUS_TIMEOUT == 5 &&
	       STATUS_FAILED == 6, "states");
END
gcc -std=c11 -Wall -Wextra -Werror -Isrc/compat -c -o "$tmp/l.o" "$tmp/layout.c"
g++ -std=c++11 -Wall -Wextra -Werror -Isrc/compat -x c++ -c -o "$tmp/l.o" \
	"$tmp/layout.c"

gcc -std=gnu11 -O1 -Wall -Wextra -Werror -o "$tmp/compat_test" \
	tests/compat_test.c -Lbuild -ltransfer_engine -Wl,-rpath-link,build \
	-Wl,-rpath,"$PWD/build"
for transports in tcp ""; do
	echo "transports: ${transports:-all}"
	MOONCAKE_TRANSPORTS=$transports timeout 60 "$tmp/compat_test"
done
