/*
 * record_fuzz.c - libFuzzer target: any bytes as a segment record. What decodes
 * must encode, and decode to the same again.
 */
#include "replay.h"

#include "../../src/registry/record.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static void check_again(const struct mc_record *r)
{
	struct mc_record again;
	char *json;

	if (mc_record_encode(r, &json) < 0 ||
	    mc_record_decode(json, strlen(json), &again) < 0)
		abort();
	if (strcmp(r->name, again.name) || strcmp(r->addr, again.addr) ||
	    r->epoch != again.epoch || r->host_id != again.host_id)
		abort();
	free(json);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct mc_record r;
	int ret = mc_record_decode((const char *)data, size, &r);

	if (!ret)
		check_again(&r);
	else if ((ret != -EBADMSG && ret != -EPROTONOSUPPORT) ||
		 !*mc_errmsg())
		abort();
	return 0;
}
