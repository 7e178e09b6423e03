/*
 * redis_text.c - what a redis server says, read.
 */
#include "redis_text.h"

#include "../base/util.h"

#include <errno.h>
#include <stdlib.h>

/* ---- names ------------------------------------------------------------- */

bool mc_redis_is_name(const char *key, size_t len)
{
	size_t n = strlen(MC_REDIS_SIDE);

	return !mc_key_check(key, len) &&
	       (len < n || memcmp(key, MC_REDIS_SIDE, n) ||
		(len > n && key[n] != ':'));
}

int mc_redis_glob(const char *prefix, char *out, size_t size)
{
	size_t n = 0;

	for (; *prefix; prefix++) {
		if (n + 4 > size)
			return -E2BIG;
		if (strchr("*?[]^\\", *prefix))
			out[n++] = '\\';
		out[n++] = *prefix;
	}
	if (n + 2 > size)
		return -E2BIG;
	strcpy(out + n, "*");
	return 0;
}

static int rtext_by_name(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

int mc_redis_sort(struct mc_registry_text *in, struct mc_registry_text *out)
{
	char **names, *rest = in->data;
	size_t n = 0, max = 0;
	int r = 0;

	for (size_t i = 0; i < in->len; i++)
		max += in->data[i] == '\n';
	names = calloc(max + 1, sizeof(*names));
	if (!names)
		return -ENOMEM;
	while (n < max)
		names[n++] = strsep(&rest, "\n");
	qsort(names, n, sizeof(*names), rtext_by_name);
	for (size_t i = 0; i < n && !r; i++) {
		if (i && !strcmp(names[i], names[i - 1]))
			continue;
		r = mc_registry_text_add(out, names[i], strlen(names[i]));
		if (!r)
			r = mc_registry_text_add(out, "\n", 1);
	}
	free(names);
	return r;
}

/* ---- replies ----------------------------------------------------------- */

int mc_redis_number(const redisReply *reply, uint64_t *out)
{
	return reply->type == REDIS_REPLY_STRING ?
	       mc_query_number(reply->str, out) : -EINVAL;
}

int mc_redis_scanned(const redisReply *reply, char cursor[24],
		     struct mc_registry_text *out)
{
	const redisReply *names;
	int r = 0;

	if (reply->type != REDIS_REPLY_ARRAY || reply->elements != 2 ||
	    reply->element[0]->type != REDIS_REPLY_STRING ||
	    reply->element[0]->len >= 24 ||
	    reply->element[1]->type != REDIS_REPLY_ARRAY)
		return -EBADMSG;
	mc_copy_to(cursor, 24, reply->element[0]->str);
	names = reply->element[1];
	for (size_t i = 0; i < names->elements && !r; i++) {
		const redisReply *name = names->element[i];

		if (name->type != REDIS_REPLY_STRING ||
		    !mc_redis_is_name(name->str, name->len))
			continue;
		r = mc_registry_text_add(out, name->str, name->len);
		if (!r)
			r = mc_registry_text_add(out, "\n", 1);
	}
	return r;
}

int mc_redis_refusal(const char *why)
{
	static const struct {
		const char *says;
		int err;
	} known[] = {
		{ "NOAUTH", -EACCES },
		{ "WRONGPASS", -EACCES },
		{ "NOPERM", -EACCES },
		{ "invalid password", -EACCES },
		{ "without any password", -EACCES },
		{ "LOADING", -EBUSY },
		{ "BUSY", -EBUSY },
		{ "MASTERDOWN", -EBUSY },
		{ "max number of clients", -EBUSY },
		{ "OOM ", -ENOSPC },
		{ "MISCONF", -EIO },
		{ "READONLY", -EROFS },
		{ "MOVED", -EOPNOTSUPP },
		{ "CROSSSLOT", -EOPNOTSUPP },
		{ "unknown command", -EOPNOTSUPP },
		{ "WRONGTYPE", -EBADMSG },
		{ "DB index", -EINVAL },
		{ "string exceeds maximum", -EFBIG },
		{ "invalid bulk length", -EFBIG },
	};

	for (size_t i = 0; i < mc_array_len(known); i++)
		if (strstr(why, known[i].says))
			return known[i].err;
	return -EREMOTEIO;
}

/* ---- events ------------------------------------------------------------ */

bool mc_redis_has_events(const redisReply *reply)
{
	const char *flags = reply->type == REDIS_REPLY_ARRAY &&
			    reply->elements == 2 &&
			    reply->element[1]->type == REDIS_REPLY_STRING ?
			    reply->element[1]->str : "";

	return strchr(flags, 'K') && (strchr(flags, 'A') ||
	       (strchr(flags, 'g') && strchr(flags, '$') &&
		strchr(flags, 'x')));
}

const char *mc_redis_key_of(const redisReply *reply)
{
	const char *key, *event;

	if (reply->type != REDIS_REPLY_ARRAY || reply->elements != 4)
		return NULL;
	for (int i = 0; i < 4; i++)
		if (reply->element[i]->type != REDIS_REPLY_STRING)
			return NULL;
	key = strstr(reply->element[2]->str, "__:");
	event = reply->element[3]->str;
	if (!key || strcmp(reply->element[0]->str, "pmessage") ||
	    !strcmp(event, "expire") || !strcmp(event, "persist"))
		return NULL;
	key += 3;
	return mc_redis_is_name(key, strlen(key)) ? key : NULL;
}
