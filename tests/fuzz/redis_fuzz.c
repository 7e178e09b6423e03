/*
 * redis_fuzz.c - libFuzzer target: any bytes as what a redis server sends, read
 * by hiredis and then by us, and as a prefix.
 */
#include "replay.h"

#include "../../src/registry/redis_text.h"

#include <errno.h>
#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>

static void check_lines(struct mc_registry_text *found)
{
	struct mc_registry_text sorted = { 0 };
	char *s, *last = NULL, *rest;

	if (mc_redis_sort(found, &sorted) < 0)
		abort();
	rest = sorted.data;
	while ((s = strsep(&rest, "\n")) && rest) {
		if (!mc_redis_is_name(s, strlen(s)) ||
		    (last && strcmp(last, s) >= 0))
			abort();
		last = s;
	}
	free(sorted.data);
}

static void check_reply(const redisReply *reply)
{
	struct mc_registry_text found = { 0 };
	char cursor[24] = "0";
	const char *key;
	uint64_t n;
	int r;

	r = mc_redis_scanned(reply, cursor, &found);
	if ((r && r != -EBADMSG) || strlen(cursor) > 23)
		abort();
	check_lines(&found);
	free(found.data);
	mc_redis_number(reply, &n);
	mc_redis_has_events(reply);
	key = mc_redis_key_of(reply);
	if (key && mc_key_check(key, strlen(key)) < 0)
		abort();
	if (reply->type == REDIS_REPLY_ERROR &&
	    mc_redis_refusal(reply->str) >= 0)
		abort();
}

static void check_replies(const char *data, size_t size)
{
	redisReader *reader = mc_hiredis_reader();
	void *reply;

	mc_hiredis.redisReaderFeed(reader, data, size);
	while (mc_hiredis.redisReaderGetReply(reader, &reply) == REDIS_OK &&
	       reply) {
		check_reply(reply);
		mc_hiredis.freeReplyObject(reply);
	}
	mc_hiredis.redisReaderFree(reader);
}

/* A pattern made of a prefix finds what begins with it, literally. */
static void check_glob(const char *prefix)
{
	char glob[MC_REDIS_GLOB_MAX], other[MC_KEY_MAX + 8];

	if (mc_key_check(prefix, strlen(prefix)) < 0)
		return;
	if (mc_redis_glob(prefix, glob, sizeof(glob)) < 0)
		abort();
	snprintf(other, sizeof(other), "%sx", prefix);
	if (fnmatch(glob, prefix, 0) || fnmatch(glob, other, 0))
		abort();
	other[0] ^= 1;
	if (!fnmatch(glob, other, 0))
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = malloc(size + 1);

	if (mc_hiredis_load() < 0)
		abort();
	memcpy(text, data, size);
	text[size] = 0;
	check_replies(text, size);
	check_glob(text);
	free(text);
	return 0;
}
