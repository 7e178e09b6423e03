/*
 * dist_test.c - moves bytes between two engines of one process, each way.
 * dist_test.sh builds it from the single-file edition alone, install_test.sh
 * against an installed library.
 */
#ifndef INSTALLED
#define MOONCAKE_IMPLEMENTATION
#endif
#include "mooncake.h"

#include <stdio.h>
#include <string.h>

static char ours[1 << 20], theirs[1 << 20];

static int fail(const char *what)
{
	printf("%s: %s\n", what, mc_errmsg());
	return 1;
}

static int move(const char *transports)
{
	struct mc_options opts = { .transports = transports };
	struct mc_req req = { .op = MC_WRITE, .buf = ours,
		.remote = (uintptr_t)theirs, .len = sizeof(ours) };
	struct mc_engine *a, *b;

	mc_fill(ours, sizeof(ours), 1);
	memset(theirs, 0, sizeof(theirs));
	if (mc_open(&a, &opts) < 0 || mc_open(&b, &opts) < 0)
		return fail("open");
	if (mc_buffer_reg(a, ours, sizeof(ours), NULL, MC_LOCAL) < 0 ||
	    mc_buffer_reg(b, theirs, sizeof(theirs), NULL, MC_REMOTE_RW) < 0)
		return fail("register");
	req.segment = mc_segment_open(a, mc_engine_name(b), 1000);
	if (req.segment < 0 || mc_transfer(a, &req, 1, NULL, NULL) < 0)
		return fail("write");
	if (memcmp(ours, theirs, sizeof(ours)))
		return puts("the bytes differ");
	memset(ours, 0, sizeof(ours));
	req.op = MC_READ;
	if (mc_transfer(a, &req, 1, NULL, NULL) < 0)
		return fail("read");
	mc_close(a);
	mc_close(b);
	return memcmp(ours, theirs, sizeof(ours)) ? puts("differ") : 0;
}

int main(void)
{
	return move(NULL) || move("tcp");
}
