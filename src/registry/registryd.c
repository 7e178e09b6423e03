/*
 * registryd.c - our registry server: its thread, its timers, and what changes
 * its records. http.c says what the protocol is, registryd_http.c speaks it.
 *
 * Idle it uses no CPU: the lease timer is set to the next lease that runs out,
 * and only while there is one; the timer that brings the file to the disk only
 * after something was written.
 */
#include "registryd.h"

#include "../base/clock.h"
#include "../base/err.h"
#include "../base/net.h"
#include "../base/util.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum {
	REGISTRYD_SYNC_MS = 1000,
};

static const uint64_t registryd_max_bytes = 1ull << 30;

static void registryd_arm(struct event *timer, uint64_t ms)
{
	struct timeval t = { ms / 1000, ms % 1000 * 1000 };

	evtimer_add(timer, &t);
}

static void registryd_arm_expire(struct mc_registryd *d)
{
	struct mc_store_record *rec = mc_store_next_lease(&d->store);

	if (!rec)
		evtimer_del(d->expire);
	else
		registryd_arm(d->expire, mc_clock_left_ms(rec->deadline_ns,
							  INT32_MAX));
}

static void registryd_wrote(struct mc_registryd *d)
{
	if (d->state && mc_statefile_dirty(d->state) &&
	    !evtimer_pending(d->sync, NULL))
		registryd_arm(d->sync, REGISTRYD_SYNC_MS);
}

static void registryd_on_sync(evutil_socket_t fd, short what, void *arg)
{
	struct mc_registryd *d = arg;

	(void)fd;
	(void)what;
	mc_statefile_sync(d->state);
	registryd_wrote(d);
}

static void registryd_on_expire(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	mc_registryd_expire(arg);
	registryd_arm_expire(arg);
}

static void registryd_on_stop(evutil_socket_t fd, short what, void *arg)
{
	struct mc_registryd *d = arg;

	(void)fd;
	(void)what;
	event_base_loopbreak(d->base);
}

/* ---- changes ----------------------------------------------------------- */

/* Take @rec out; the file has been told, or could not be. */
static void registryd_remove(struct mc_registryd *d,
			     struct mc_store_record *rec, uint64_t version)
{
	char *key = strdup(rec->key);

	mc_store_del(&d->store, rec, version);
	mc_registryd_wake(d, key);	/* NULL: everyone looks */
	free(key);
	registryd_wrote(d);
}

void mc_registryd_expire(struct mc_registryd *d)
{
	struct mc_store_record *rec;
	uint64_t now = mc_clock_ns();

	while ((rec = mc_store_next_lease(&d->store)) &&
	       rec->deadline_ns <= now) {
		uint64_t version = d->store.version + 1;

		/* A file that does not take it has the time of expiry. */
		if (d->state &&
		    mc_statefile_del(d->state, rec->key, version) < 0)
			mc_log(MC_ERROR, "registry", "%s", mc_errmsg());
		registryd_remove(d, rec, version);
	}
}

static int registryd_condition(const struct mc_store_record *rec,
			       const uint64_t *version, uint64_t *out)
{
	*out = rec ? rec->version : 0;
	return version && *version != *out ? -EAGAIN : 0;
}

/* The same value again: a lease goes on, nobody has to hear of it. */
static int registryd_renew(struct mc_registryd *d, struct mc_store_record *rec,
			   uint32_t ttl_ms, uint64_t deadline_ns)
{
	int r = 0;

	if (!ttl_ms && !rec->ttl_ms)
		return 0;
	if (d->state && ttl_ms)
		r = mc_statefile_lease(d->state, rec->key, ttl_ms);
	else if (d->state)
		r = mc_statefile_put(d->state, rec->key, rec->value, rec->len,
				     rec->version, 0);
	if (!r)
		r = mc_store_lease(&d->store, rec, ttl_ms, deadline_ns);
	registryd_arm_expire(d);
	registryd_wrote(d);
	return r;
}

int mc_registryd_put(struct mc_registryd *d, const char *key, const char *value,
		     size_t len, uint32_t ttl_ms, const uint64_t *version,
		     uint64_t *out)
{
	struct mc_store_record *rec = mc_store_find(&d->store, key);
	uint64_t deadline_ns = ttl_ms ? mc_clock_ns() +
			       (uint64_t)ttl_ms * MC_MS : 0;
	int r = registryd_condition(rec, version, out);

	if (!r)
		r = mc_store_admit(&d->store, key, len);
	if (r < 0)
		return r;
	if (rec && rec->len == len && (!len || !memcmp(rec->value, value, len)))
		return registryd_renew(d, rec, ttl_ms, deadline_ns);
	*out = d->store.version + 1;
	if (d->state)
		r = mc_statefile_put(d->state, key, value, len, *out, ttl_ms);
	if (!r)
		r = mc_store_put(&d->store, key, value, len, *out, ttl_ms,
				 deadline_ns);
	registryd_wrote(d);
	if (r < 0)
		return r;
	registryd_arm_expire(d);
	mc_registryd_wake(d, key);
	return 0;
}

int mc_registryd_del(struct mc_registryd *d, const char *key,
		     const uint64_t *version, uint64_t *out)
{
	struct mc_store_record *rec = mc_store_find(&d->store, key);
	int r = registryd_condition(rec, version, out);

	if (!r && !rec)
		r = -ENOENT;
	if (r < 0)
		return r;
	*out = d->store.version + 1;
	if (d->state)
		r = mc_statefile_del(d->state, key, *out);
	if (r < 0)
		return r;
	registryd_remove(d, rec, *out);
	registryd_arm_expire(d);
	return 0;
}

/* ---- the thread -------------------------------------------------------- */

static void *registryd_main(void *arg)
{
	struct mc_registryd *d = arg;

	pthread_setname_np(pthread_self(), "mc-registryd");
	event_base_dispatch(d->base);
	/* Watchers hear of nothing, at once. */
	mc_registryd_wake(d, NULL);
	event_base_loop(d->base, EVLOOP_NONBLOCK);
	return NULL;
}

/* Signals are for the threads of the program; a client that is gone must not
 * end it by SIGPIPE. */
static int registryd_start(struct mc_registryd *d)
{
	sigset_t all, old;
	int r;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	r = -pthread_create(&d->thread, NULL, registryd_main, d);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	d->running = !r;
	return r < 0 ? mc_syserr(r, "registry server: cannot start a thread") :
	       0;
}

static int registryd_events(struct mc_registryd *d)
{
	d->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (d->stop_fd < 0)
		return mc_syserr(-errno, "registry server: eventfd");
	d->base = event_base_new();
	if (!d->base)
		return mc_err(-ENOMEM, "registry server: libevent does not "
			      "start");
	d->stop = event_new(d->base, d->stop_fd, EV_READ, registryd_on_stop, d);
	d->expire = evtimer_new(d->base, registryd_on_expire, d);
	d->sync = evtimer_new(d->base, registryd_on_sync, d);
	if (!d->stop || !d->expire || !d->sync || event_add(d->stop, NULL) < 0)
		return mc_err(-ENOMEM, "out of memory");
	return 0;
}

/* Versions start from the clock in microseconds, which no server changes
 * records faster than: one that has lost its records does not give out again
 * what its clients still hold. */
static uint64_t registryd_first_version(void)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	return (uint64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static int registryd_records(struct mc_registryd *d, const char *state)
{
	mc_store_init(&d->store, registryd_first_version(),
		      registryd_max_bytes);
	return state ? mc_statefile_open(&d->state, state, &d->store) : 0;
}

static int registryd_setup(struct mc_registryd *d, const char *addr,
			   const char *state)
{
	int fd, r = registryd_events(d);

	if (!r)
		r = registryd_records(d, state);
	if (r < 0)
		return r;
	r = mc_net_listen(addr ? addr : "127.0.0.1:0", &fd, d->addr);
	if (r < 0)
		return r;
	r = mc_registryd_serve(d, fd);
	if (r < 0) {
		close(fd);
		return r;
	}
	mc_registryd_expire(d);
	registryd_arm_expire(d);
	registryd_wrote(d);
	return registryd_start(d);
}

static void registryd_event_free(struct event *e)
{
	if (e)
		event_free(e);
}

int mc_registryd_open(struct mc_registryd **out, const char *addr,
		      const char *state)
{
	struct mc_registryd *d = calloc(1, sizeof(*d));
	int r;

	if (!d)
		return mc_err(-ENOMEM, "out of memory");
	d->stop_fd = -1;
	r = registryd_setup(d, addr, state);
	if (r < 0) {
		mc_registryd_close(d);
		return r;
	}
	*out = d;
	return 0;
}

const char *mc_registryd_addr(const struct mc_registryd *d)
{
	return d->addr;
}

void mc_registryd_close(struct mc_registryd *d)
{
	uint64_t one = 1;

	if (!d)
		return;
	if (d->running) {
		while (write(d->stop_fd, &one, sizeof(one)) < 0 &&
		       errno == EINTR)
			;
		pthread_join(d->thread, NULL);
	}
	if (d->http)
		evhttp_free(d->http);
	registryd_event_free(d->stop);
	registryd_event_free(d->expire);
	registryd_event_free(d->sync);
	if (d->base)
		event_base_free(d->base);
	if (d->stop_fd >= 0)
		close(d->stop_fd);
	mc_statefile_close(d->state);
	mc_store_fini(&d->store);
	free(d);
}
