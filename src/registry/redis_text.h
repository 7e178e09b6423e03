/*
 * redis_text.h - what a redis server says, read: replies that hiredis has taken
 * apart, and names. Pure functions over untrusted text; they set no message.
 */
#ifndef MC_REGISTRY_REDIS_TEXT_H
#define MC_REGISTRY_REDIS_TEXT_H

#include "hiredis.h"
#include "registry.h"

/* The name of what keeps versions (redis.c). */
#define MC_REDIS_SIDE "mooncake.version"

/* Is it a key of ours, and not one that keeps a version? */
bool mc_redis_is_name(const char *key, size_t len);

/* "prefix*", with what has a meaning in a pattern of redis escaped: -E2BIG. */
enum { MC_REDIS_GLOB_MAX = 2 * MC_KEY_MAX + 2 };

int mc_redis_glob(const char *prefix, char *out, size_t size);

/* Sort the lines of @in, each once, to @out; @in is used up. -ENOMEM. */
int mc_redis_sort(struct mc_registry_text *in, struct mc_registry_text *out);

/* A number as text: -EINVAL it is none. */
int mc_redis_number(const redisReply *reply, uint64_t *out);

/* Add the names of a SCAN's reply to @out as lines, and go on from its cursor.
 * -EBADMSG it is no such reply, -ENOMEM. */
int mc_redis_scanned(const redisReply *reply, char cursor[24],
		     struct mc_registry_text *out);

/* What a server's error means, as -errno; -EBUSY: later it may be done. */
int mc_redis_refusal(const char *why);

/* Does this answer to CONFIG GET notify-keyspace-events say that there are the
 * events that we need? */
bool mc_redis_has_events(const redisReply *reply);

/* The key that an event is about, NULL: none that matters. Renewing a lease
 * changes nothing. */
const char *mc_redis_key_of(const redisReply *reply);

#endif
