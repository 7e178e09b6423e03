/*
 * redis_link.h - a connection to a redis server, made when it is needed, and
 * commands on it. One that fails is closed, and the next command makes another.
 */
#ifndef MC_REGISTRY_REDIS_LINK_H
#define MC_REGISTRY_REDIS_LINK_H

#include "curl.h"
#include "hiredis.h"
#include "redis_text.h"

struct mc_redis {
	const struct mc_registry_url *url;
	const struct mc_registry_times *times;
	CURL *curl;			/* the connection; NULL: none */
	redisReader *reader;
	char curl_why[CURL_ERROR_SIZE];
};

/* What a command is part of. */
struct mc_redis_op {
	const char *what;		/* in messages: "get", "put" */
	const char *key;
	uint64_t deadline_ns;
};

/* @url and @times outlive it. */
void mc_redis_init(struct mc_redis *l, const struct mc_registry_url *url,
		   const struct mc_registry_times *times);
void mc_redis_close(struct mc_redis *l);	/* may be used again */

/* An operation that begins now. */
struct mc_redis_op mc_redis_begin(const struct mc_redis *l, const char *what,
				  const char *key);

/* Send a command of @argc words and wait for its reply, which freeReplyObject()
 * frees. It is sent once, and again only if the server refused it because it is
 * busy. -ECONNRESET or -ETIMEDOUT: it may have been done. */
int mc_redis_ask(struct mc_redis *l, struct mc_redis_op *op, int argc,
		 const char *const *argv, const size_t *lens,
		 redisReply **reply);

/* The next reply that comes unasked: 1, 0 none until the deadline. */
int mc_redis_next(struct mc_redis *l, struct mc_redis_op *op,
		  redisReply **reply);

/* The message of an operation: "registry URL: what 'key': why". */
int mc_redis_fail(const struct mc_redis *l, const struct mc_redis_op *op,
		  int err, const char *why);

#endif
