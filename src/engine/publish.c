/*
 * publish.c - an engine's record in a registry: put when it opens, put again
 * before its lease runs out, withdrawn when it closes. With the peer registry a
 * name is an address and there is nothing to do.
 *
 * In profile v1 the record names the buffers, and is put again when they
 * change; changes that come while it is being put are put together. Beside it
 * is rpc_meta, which says where the engine is.
 */
#include "engine.h"

#include "../base/net.h"
#include "../registry/registry.h"

enum {
	PUBLISH_TTL_MS = 10000,
	PUBLISH_EVERY_MS = 3000,
	PUBLISH_GATHER_MS = 2,		/* changes that come together, */
	PUBLISH_GATHER_MAX_MS = 500,	/* or for as long as putting takes */
};

struct publish {
	struct mc_engine *e;
	struct mc_registry *r;
	char *json;			/* the record */
	int gather_ms;
	char place[2 * MC_ADDR_MAX];	/* the value of rpc_meta; or "" */
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t wake;
	bool stopping, changed;
};

bool publish_is_peer(const struct mc_engine *e)
{
	return !e->opts.registry || !strcmp(e->opts.registry, "peer");
}

/* ---- rpc_meta -------------------------------------------------------- */

static int publish_place_is(struct publish *p, const char *key)
{
	char *now = NULL;
	char addr[MC_ADDR_MAX];
	uint64_t version;
	int64_t len = mc_registry_read(p->r, key, &now, &version);
	int r = len < 0 ? len : mc_v1_place_decode(now, len, addr);

	free(now);
	return r < 0 ? r : !strcmp(addr, p->e->addr);
}

static int publish_put_place(struct publish *p, const char *key)
{
	return mc_registry_put(p->r, key, p->place, strlen(p->place),
			       PUBLISH_TTL_MS);
}

/* Public servers refuse to put what is there: that of a predecessor who did not
 * say farewell is deleted. */
static int publish_place(struct publish *p)
{
	char key[MC_RECORD_KEY_MAX];
	int r = mc_record_key("rpc_meta", p->e->name, key);

	if (r < 0 || !p->place[0])
		return r;
	r = publish_put_place(p, key);
	if (r >= 0 || publish_place_is(p, key) == 1)
		return 0;
	r = mc_registry_del(p->r, key);
	return r < 0 && r != -ENOENT ? r : publish_put_place(p, key);
}

static void publish_unplace(struct publish *p)
{
	char key[MC_RECORD_KEY_MAX];

	/* Unless a successor has put its own. */
	if (p->place[0] && !mc_record_key("rpc_meta", p->e->name, key) &&
	    publish_place_is(p, key) == 1 && mc_registry_del(p->r, key) < 0)
		mc_log(MC_INFO, "registry", "%s", mc_errmsg());
}

/* ---- the record ------------------------------------------------------ */

static int publish_encode(struct publish *p)
{
	struct public_record own;
	struct mc_record record;
	char *json;
	int r = public_record(p->e, &record, &own);

	if (!r)
		r = mc_record_encode(&record, &json);
	public_record_free(&own);
	if (r < 0)
		return r;
	free(p->json);
	p->json = json;
	return 0;
}

/* What has not changed is put as it was: that renews its lease. */
static int publish_put(struct publish *p, bool changed)
{
	char key[MC_RECORD_KEY_MAX];
	uint64_t start = mc_clock_ns();
	int r = mc_record_key("ram", p->e->name, key);

	if (!r && changed)
		r = publish_encode(p);
	if (!r)
		r = mc_registry_put(p->r, key, p->json, strlen(p->json),
				    PUBLISH_TTL_MS);
	p->gather_ms = (mc_clock_ns() - start) / MC_MS;
	return r < 0 ? r : publish_place(p);
}

static struct timespec publish_in(int ms)
{
	uint64_t until = mc_clock_ns() + ms * (uint64_t)MC_MS;

	return (struct timespec){ until / 1000000000u, until % 1000000000u };
}

/* Until it is time, or something has @changed; false: the engine closes. */
static bool publish_sleep(struct publish *p, bool *changed)
{
	struct timespec t = publish_in(PUBLISH_EVERY_MS);
	bool stopping;

	pthread_mutex_lock(&p->lock);
	while (!p->stopping && !p->changed &&
	       !pthread_cond_clockwait(&p->wake, &p->lock, CLOCK_MONOTONIC,
				       &t))
		;
	t = publish_in(mc_max(mc_min(p->gather_ms, PUBLISH_GATHER_MAX_MS),
			      PUBLISH_GATHER_MS));
	while (!p->stopping && p->changed &&
	       !pthread_cond_clockwait(&p->wake, &p->lock, CLOCK_MONOTONIC,
				       &t))
		;
	*changed = p->changed;
	p->changed = false;
	stopping = p->stopping;
	pthread_mutex_unlock(&p->lock);
	return !stopping;
}

void publish_changed(struct mc_engine *e)
{
	struct publish *p = e->publish;

	if (!p || !e->v1)
		return;
	pthread_mutex_lock(&p->lock);
	if (!p->changed)
		pthread_cond_broadcast(&p->wake);
	p->changed = true;
	pthread_mutex_unlock(&p->lock);
}

/* A registry that was away, or lost its records, gets ours again. */
static void *publish_main(void *arg)
{
	struct publish *p = arg;
	bool lost = false, changed;

	pthread_setname_np(pthread_self(), "mc-publish");
	while (publish_sleep(p, &changed)) {
		int r = publish_put(p, changed);

		if (r < 0 && !lost)
			mc_log(MC_WARN, "registry", "%s: trying on",
			       mc_errmsg());
		if (!r && lost)
			mc_log(MC_WARN, "registry", "%s published again",
			       p->e->name);
		lost = r < 0;
	}
	return NULL;
}

static int publish_start(struct publish *p)
{
	struct mc_engine *e = p->e;
	int r = mc_registry_open(&p->r, e->opts.registry);

	if (!r && e->v1)
		r = mc_v1_place_encode(e->addr, p->place, sizeof(p->place));
	if (r < 0 || !e->server)
		return r;
	r = publish_put(p, true);
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
		publish_unplace(p);
		if (mc_record_withdraw(p->r, e->name, e->epoch) < 0)
			mc_log(MC_INFO, "registry", "%s", mc_errmsg());
	}
	mc_registry_close(p->r);
	free(p->json);
	pthread_mutex_destroy(&p->lock);
	pthread_cond_destroy(&p->wake);
	free(p);
	e->publish = NULL;
}

/* Where does segment @name lead? The epoch in its record is what the registry
 * knew last: the peer's own word, at the first contact, is what counts. An
 * address that the registry does not know leads to itself. */
int publish_resolve(struct mc_engine *e, const char *name, struct mc_peer *at)
{
	struct mc_net_name address;
	bool is_address = !mc_net_parse(name, -1, &address);
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
	if (ret == -ENOENT && is_address) {
		mc_copy(at->addr, name);
		return 0;
	}
	if (!ret)
		mc_copy(at->addr, record.addr);
	return ret;
}
