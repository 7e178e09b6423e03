/*
 * p2p_fuzz.c - libFuzzer target: any bytes as the record of an object, and as
 * the key of a node. What decodes must encode, and to the same text again.
 */
#include "replay.h"

#include "../../src/p2p/p2p.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static void check_again(const struct p2p_record *r)
{
	struct p2p_record again;
	char *json, *text;

	if (p2p_record_encode(r, &json) < 0 ||
	    p2p_record_decode(json, strlen(json), &again) < 0 ||
	    p2p_record_encode(&again, &text) < 0)
		abort();
	/* Offsets of 0 are left out, and who has no others with them. */
	if (again.n_shards != r->n_shards || again.id != r->id ||
	    again.n_seeds > r->n_seeds || again.size != r->size)
		abort();
	free(text);
	free(json);
	p2p_record_fini(&again);
}

static void check_layout(const struct p2p_record *r)
{
	struct p2p_shard *at = calloc(r->n_shards, sizeof(*at));
	uint64_t sum = 0;

	if (!at)
		abort();
	p2p_lay_out(r, at);
	for (uint32_t i = 0; i < r->n_shards; i++) {
		if (at[i].buffer >= r->n_buffers || !at[i].len ||
		    at[i].off + at[i].len > r->sizes[at[i].buffer])
			abort();
		sum += at[i].len;
	}
	if (sum != r->size)
		abort();
	free(at);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char segment[MC_NAME_MAX];
	struct p2p_record r;
	uint64_t map;
	uint32_t hash;
	int ret = p2p_record_decode((const char *)data, size, &r);

	if (!ret) {
		check_layout(&r);
		check_again(&r);
		p2p_record_fini(&r);
	} else if ((ret != -EBADMSG && ret != -EPROTONOSUPPORT) ||
		   !*mc_errmsg()) {
		abort();
	}
	if (p2p_member_parse((const char *)data, size, &hash, segment, &map) &&
	    (!map || !*segment))
		abort();
	return 0;
}
