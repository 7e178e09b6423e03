/*
 * publish.c - an engine's record in a registry: put when it opens, put again
 * before its lease runs out, withdrawn when it closes. With the peer registry a
 * name is an address and there is nothing to do.
 */
#include "engine.h"

#include "../registry/record.h"

enum {
	PUBLISH_TTL_MS = 10000,
	PUBLISH_EVERY_MS = 3000,
};

struct publish {
	struct mc_engine *e;
	struct mc_registry *r;
	struct mc_record record;
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t wake;
	bool stopping;
};

static bool publish_is_peer(const struct mc_engine *e)
{
	return !e->opts.registry || !strcmp(e->opts.registry, "peer");
}

static bool publish_sleep(struct publish *p)
{
	uint64_t until = mc_clock_ns() + PUBLISH_EVERY_MS * (uint64_t)MC_MS;
	struct timespec t = { until / 1000000000u, until % 1000000000u };
	bool stopping;

	pthread_mutex_lock(&p->lock);
	while (!p->stopping && !pthread_cond_clockwait(&p->wake, &p->lock,
						       CLOCK_MONOTONIC, &t))
		;
	stopping = p->stopping;
	pthread_mutex_unlock(&p->lock);
	return !stopping;
}

/* A registry that was away, or lost its records, gets ours again. */
static void *publish_main(void *arg)
{
	struct publish *p = arg;
	bool lost = false;

	pthread_setname_np(pthread_self(), "mc-publish");
	while (publish_sleep(p)) {
		int r = mc_record_publish(p->r, &p->record, PUBLISH_TTL_MS);

		if (r < 0 && !lost)
			mc_log(MC_WARN, "registry", "%s: trying on",
			       mc_errmsg());
		if (!r && lost)
			mc_log(MC_WARN, "registry", "%s published again",
			       p->record.name);
		lost = r < 0;
	}
	return NULL;
}

static int publish_start(struct publish *p)
{
	struct mc_engine *e = p->e;
	int r = mc_registry_open(&p->r, e->opts.registry);

	if (r < 0 || !e->server)
		return r;
	mc_copy(p->record.name, e->name);
	mc_copy(p->record.addr, e->addr);
	p->record.epoch = e->epoch;
	p->record.host_id = e->host_id;
	r = mc_record_publish(p->r, &p->record, PUBLISH_TTL_MS);
	if (r < 0)
		return r;
	r = -pthread_create(&p->thread, NULL, publish_main, p);
	return r < 0 ? mc_syserr(r, "cannot start a thread") : 0;
}

int publish_open(struct mc_engine *e)
{
	struct publish *p;

	if (publish_is_peer(e))
		return 0;
	p = calloc(1, sizeof(*p));
	if (!p)
		return mc_err(-ENOMEM, "out of memory");
	p->e = e;
	pthread_mutex_init(&p->lock, NULL);
	pthread_cond_init(&p->wake, NULL);
	e->publish = p;
	return publish_start(p);
}

void publish_close(struct mc_engine *e)
{
	struct publish *p = e->publish;

	if (!p)
		return;
	if (p->thread) {
		pthread_mutex_lock(&p->lock);
		p->stopping = true;
		pthread_cond_broadcast(&p->wake);
		pthread_mutex_unlock(&p->lock);
		pthread_join(p->thread, NULL);
		if (mc_record_withdraw(p->r, e->name, e->epoch) < 0)
			mc_log(MC_INFO, "registry", "%s", mc_errmsg());
	}
	mc_registry_close(p->r);
	pthread_mutex_destroy(&p->lock);
	pthread_cond_destroy(&p->wake);
	free(p);
	e->publish = NULL;
}

/* Where does segment @name lead? The epoch in its record is what the registry
 * knew last: the peer's own word, at the first contact, is what counts. */
int publish_resolve(struct mc_engine *e, const char *name, struct mc_peer *at)
{
	struct mc_registry *r;
	struct mc_record record;
	int ret;

	if (publish_is_peer(e)) {
		mc_copy(at->addr, name);
		return 0;
	}
	/* Handles are for one thread; this is rare. */
	ret = mc_registry_open(&r, e->opts.registry);
	if (ret < 0)
		return ret;
	ret = mc_record_fetch(r, name, &record);
	mc_registry_close(r);
	if (!ret)
		mc_copy(at->addr, record.addr);
	return ret;
}
