/*
 * registry.h - what a registry backend is, and the calls on a registry that
 * are not in mooncake.h because only the engine and the P2P store need them.
 *
 * A registry keeps small values under names. Each record has a version, which
 * is new whenever the value is; versions of one server only grow. A record put
 * with a time to live is a lease: putting it again in time keeps it (and leaves
 * its version, if the value is the same), otherwise it goes.
 */
#ifndef MC_REGISTRY_H
#define MC_REGISTRY_H

#include "query.h"

#include <mooncake.h>

/* Bytes that grow, with a zero behind them; all zeros is an empty one. */
struct mc_registry_text {
	char *data;
	size_t len;
	size_t cap;
};

/* -ENOMEM without a message; the text is as it was. */
int mc_registry_text_add(struct mc_registry_text *t, const void *data,
			 size_t len);

/* How long an operation may take in all, and reaching the server. */
struct mc_registry_times {
	int total_ms;
	int connect_ms;
};

/*
 * One backend. Functions return 0 or -errno and have said why by mc_err(), with
 * server and key: -ENOENT no such key, -EAGAIN another version, -EOPNOTSUPP the
 * server cannot, -ETIMEDOUT, -ECONNREFUSED and so on. They get keys that
 * mc_key_check() admits and add to texts that are empty. No function is NULL.
 * A handle is used by one thread at a time.
 */
struct mc_registry_backend {
	const char *const *schemes;	/* "http", ...; ends with NULL */

	/* Prepare; need not reach the server. @times stays valid and may
	 * change between operations. */
	int (*open)(void **ctx, const char *url,
		    const struct mc_registry_times *times);
	void (*close)(void *ctx);

	/* @version is 0 where the server has none. */
	int (*get)(void *ctx, const char *key, struct mc_registry_text *out,
		   uint64_t *version);

	/* With @version: only if the record's is *version, 0 meaning that there
	 * is no record. */
	int (*put)(void *ctx, const char *key, const void *value, size_t len,
		   int ttl_ms, const uint64_t *version);
	int (*del)(void *ctx, const char *key, const uint64_t *version);

	/* Names, one a line. */
	int (*list)(void *ctx, const char *prefix,
		    struct mc_registry_text *out);

	/* Changes after *version, one a line as mc_change_next() reads them,
	 * waiting up to @wait_ms for the first; *version then is what to go on
	 * from. From 0 there are none, and no waiting: that is how to begin.
	 * Several changes of a key may come as the last one. -ESTALE: the
	 * changes are forgotten, begin again and list. */
	int (*watch)(void *ctx, const char *prefix, uint64_t *version,
		     int wait_ms, struct mc_registry_text *out);
};

extern const struct mc_registry_backend mc_registry_http;
extern const struct mc_registry_backend mc_registry_etcd;
extern const struct mc_registry_backend mc_registry_redis;

/* Deadlines other than 3 s in all and 1.5 s to connect; 0 leaves one alone. */
void mc_registry_set_times(struct mc_registry *r, int total_ms,
			   int connect_ms);

/* Delete @key if its version still is @version: -EAGAIN it is not. */
int mc_registry_del_if(struct mc_registry *r, const char *key,
		       uint64_t version);

/* As mc_registry_get() and mc_registry_list(), whole, in memory that the caller
 * frees. */
int64_t mc_registry_read(struct mc_registry *r, const char *key, char **out,
			 uint64_t *version);
int64_t mc_registry_names(struct mc_registry *r, const char *prefix,
			  char **out);

/* As the backend's: begin with *version 0, list, then go on. Returns how many
 * changes there are; take them by mc_registry_change(), before the next call on
 * @r. */
int mc_registry_watch(struct mc_registry *r, const char *prefix,
		      uint64_t *version, int wait_ms);

/* 1 and the next change of the last watch, 0 if there are no more. */
int mc_registry_change(struct mc_registry *r, struct mc_registry_change *out);

#endif
