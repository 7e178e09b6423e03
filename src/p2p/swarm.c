/*
 * swarm.c - a store opens and closes.
 */
#include "p2p.h"

#include "../base/err.h"
#include "../base/util.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum {
	SWARM_LEASE_MS = 10000,
	SWARM_PARALLEL = 8,
	SWARM_FANOUT = 12,
	SWARM_NEIGHBOURS = 24,
};

/* ---- small things ------------------------------------------------------ */

uint64_t p2p_random(struct mc_p2p *p)
{
	p->random += 0x9e3779b97f4a7c15u;
	return mc_hash(&p->random, sizeof(p->random), 0);
}

void p2p_wake(struct mc_p2p *p)
{
	uint64_t one = 1;

	if (write(p->wake_fd, &one, sizeof(one)) < 0)
		mc_log(MC_DEBUG, "p2p", "the puller is awake");
	pthread_cond_signal(&p->scout_wake);
}

void p2p_object_drop(struct p2p_object *o)
{
	o->refs--;
	if (o->closing)
		pthread_cond_broadcast(&o->p->changed);
}

struct p2p_object *p2p_find(struct mc_p2p *p, const char *name)
{
	for (struct p2p_object *o = p->objects; o; o = o->next)
		if (!strcmp(o->r.name, name))
			return o;
	return NULL;
}

/* ---- open and close ---------------------------------------------------- */

static int swarm_number(int given, int usual, int most, const char *what,
			int *out)
{
	if (given < 0 || given > most)
		return mc_err(-EINVAL, "p2p: %s is of 1 to %d", what, most);
	*out = given ? given : usual;
	return 0;
}

static int swarm_options(struct mc_p2p *p, const struct mc_p2p_options *o)
{
	int r = swarm_number(o->lease_ms, SWARM_LEASE_MS, 3600000, "lease_ms",
			     &p->lease_ms);

	if (!r)
		r = swarm_number(o->parallel, SWARM_PARALLEL,
				 P2P_ASKS - P2P_SPARES, "parallel",
				 &p->parallel);
	if (!r)
		r = swarm_number(o->fanout, SWARM_FANOUT, 10000, "fanout",
				 &p->fanout);
	if (!r)
		r = swarm_number(o->neighbours, SWARM_NEIGHBOURS,
				 MC_P2P_HOLDERS_MAX - 8, "neighbours",
				 &p->neighbours);
	if (!r && !o->registry)
		r = mc_err(-EINVAL, "p2p: a registry is needed, as "
			   "http://host:port or etcd://host:port");
	return r;
}

static int swarm_start(struct mc_p2p *p, const struct mc_p2p_options *opts)
{
	static const struct mc_options usual = { 0 };
	int r = mc_open(&p->e, opts->engine ? opts->engine : &usual);

	if (!r)
		r = mc_registry_open(&p->reg, p->url);
	if (!r)
		r = mc_registry_open(&p->scout_reg, p->url);
	if (r < 0)
		return r;
	p->random = mc_engine_epoch(p->e);
	p->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (p->wake_fd < 0)
		return mc_syserr(-errno, "cannot make an eventfd");
	r = -pthread_create(&p->puller, NULL, p2p_pull_main, p);
	p->pulling = !r;
	if (!r) {
		r = -pthread_create(&p->scout, NULL, p2p_scout_main, p);
		p->scouting = !r;
	}
	return r < 0 ? mc_syserr(r, "cannot start a thread") : 0;
}

int mc_p2p_open(struct mc_p2p **out, const struct mc_p2p_options *opts)
{
	struct mc_p2p *p = calloc(1, sizeof(*p));
	int r;

	if (!p)
		return mc_err(-ENOMEM, "out of memory");
	p->wake_fd = -1;
	pthread_mutex_init(&p->lock, NULL);
	pthread_mutex_init(&p->reg_lock, NULL);
	pthread_cond_init(&p->changed, NULL);
	pthread_cond_init(&p->scout_wake, NULL);
	r = swarm_options(p, opts);
	if (!r) {
		p->url = strdup(opts->registry);
		r = p->url ? swarm_start(p, opts) :
		    mc_err(-ENOMEM, "out of memory");
	}
	if (r < 0) {
		mc_p2p_close(p);
		return r;
	}
	*out = p;
	return 0;
}

static void swarm_stop(struct mc_p2p *p)
{
	pthread_mutex_lock(&p->lock);
	p->stopping = true;
	pthread_mutex_unlock(&p->lock);
	if (p->wake_fd >= 0)
		p2p_wake(p);
	if (p->pulling)
		pthread_join(p->puller, NULL);
	if (p->scouting)
		pthread_join(p->scout, NULL);
}

void mc_p2p_close(struct mc_p2p *p)
{
	char name[MC_P2P_NAME_MAX];

	if (!p)
		return;
	for (;;) {
		pthread_mutex_lock(&p->lock);
		if (p->objects)
			mc_copy(name, p->objects->r.name);
		else
			name[0] = 0;
		pthread_mutex_unlock(&p->lock);
		if (!name[0])
			break;
		mc_p2p_unregister(p, name);
	}
	swarm_stop(p);
	mc_close(p->e);
	mc_registry_close(p->reg);
	mc_registry_close(p->scout_reg);
	if (p->wake_fd >= 0)
		close(p->wake_fd);
	pthread_mutex_destroy(&p->lock);
	pthread_mutex_destroy(&p->reg_lock);
	pthread_cond_destroy(&p->changed);
	pthread_cond_destroy(&p->scout_wake);
	free(p->url);
	free(p);
}

struct mc_engine *mc_p2p_engine(struct mc_p2p *p)
{
	return p->e;
}
