/*
 * redis.h - records and their versions in a redis server; shared by the two
 * halves of the backend, redis.c and redis_watch.c.
 */
#ifndef MC_REGISTRY_REDIS_H
#define MC_REGISTRY_REDIS_H

#include "redis_link.h"
#include "redis_text.h"

/* Names under @prefix, sorted, one a line. */
int mc_redis_names(struct mc_redis *l, struct mc_redis_op *op,
		   const char *prefix, struct mc_registry_text *out);

/* The versions of records, 0 where there is none: @n names, at most
 * MC_REDIS_BATCH, to as many @versions. */
enum { MC_REDIS_BATCH = 500 };

int mc_redis_versions(struct mc_redis *l, struct mc_redis_op *op, int n,
		      const char *const *names, uint64_t *versions);

/* What a watch knows between two calls (redis_watch.c). */
struct mc_redis_watch;

/* As a backend's; @l is for commands, the subscription has its own. */
int mc_redis_watch(struct mc_redis_watch **w, struct mc_redis *l,
		   const char *prefix, uint64_t *version, int wait_ms,
		   struct mc_registry_text *out);
void mc_redis_watch_free(struct mc_redis_watch *w);

#endif
