/*
 * registryd.h - the parts of our registry server, as they see each other. All
 * of it runs on one thread; only open and close are called from others.
 */
#ifndef MC_REGISTRYD_H
#define MC_REGISTRYD_H

#include "registryd_state.h"

#include <event2/event.h>
#include <event2/http.h>
#include <pthread.h>

/* A watch request that waits for a change. */
struct mc_registryd_waiter {
	struct mc_registryd *d;
	struct evhttp_request *req;
	struct event *timer;
	char *prefix;
	uint64_t after;
	struct mc_registryd_waiter *prev, *next;	/* utlist */
};

struct mc_registryd {
	struct mc_store store;
	struct mc_statefile *state;	/* NULL: memory only */
	struct mc_registryd_waiter *waiters;
	uint32_t n_waiters;
	struct event_base *base;
	struct evhttp *http;
	struct event *stop;		/* readable: end the loop */
	struct event *expire;		/* set while there are leases */
	struct event *sync;		/* set while the file is dirty */
	int stop_fd;
	bool running;
	pthread_t thread;
	char addr[MC_ADDR_MAX];
};

/* ---- registryd.c: what requests do ------------------------------------- */

/* Records whose leases have run out go, now. */
void mc_registryd_expire(struct mc_registryd *d);

/* Set @key under the condition, if there is one; *out is its version then.
 * -EAGAIN another version (*out is the record's, 0: none), -ENOSPC, -ENOMEM or
 * what writing the file gave. */
int mc_registryd_put(struct mc_registryd *d, const char *key, const char *value,
		     size_t len, uint32_t ttl_ms, const uint64_t *version,
		     uint64_t *out);

/* As put; -ENOENT there is none. */
int mc_registryd_del(struct mc_registryd *d, const char *key,
		     const uint64_t *version, uint64_t *out);

/* ---- registryd_http.c: requests ---------------------------------------- */

/* Serve the listening socket @fd. */
int mc_registryd_serve(struct mc_registryd *d, int fd);

/* Answer watchers that a change concerns, or all of them. */
void mc_registryd_wake(struct mc_registryd *d, const char *key);

#endif
