/*
 * scout.c - the thread that knows the registry: it keeps our leases, finds out
 * who else holds what is being fetched, and connects to them.
 *
 *	mooncake/p2p/77c0.../3f09a1c2-10.0.0.7:7000@7f3a10000000
 *
 * A node's key says all that is needed to read its map: the object's id, where
 * the node is, and the map's address. The digits before the address are a hash
 * of the node; among thousands, a node lists only those whose digits begin in
 * one of four ways, others for each node. So a node costs the registry a few
 * small operations, however many there are, and they see different parts of
 * the crowd: a random graph, in which all are a few steps from the source.
 */
#include "p2p.h"

#include "../base/clock.h"
#include "../base/err.h"
#include "../base/util.h"
#include "../registry/registry.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

enum {
	SCOUT_FIRST_MS = 50,		/* from the first look to the second */
	SCOUT_LIST_MS = 100,		/* doubles while nothing changes */
	SCOUT_OPEN_MS = 1000,
	SCOUT_PARTS = 4,		/* they are not of one size */
	SCOUT_AGAIN_MS = 500,		/* the registry was away */
	SCOUT_STALL_MS = 3000,		/* then look at others, too */
	SCOUT_KEY_MAX = MC_NAME_MAX + 80,
};

struct scout_found {
	uint32_t hash;
	char segment[MC_NAME_MAX];
	uint64_t map_addr;
};

/* ---- keys -------------------------------------------------------------- */

static uint32_t scout_hash(const struct p2p_object *o)
{
	return mc_hash(&o->map->node, sizeof(o->map->node), o->r.id);
}

static void scout_key(const struct p2p_object *o, char key[SCOUT_KEY_MAX])
{
	snprintf(key, SCOUT_KEY_MAX, "mooncake/p2p/%016" PRIx64 "/%08x-%s@%"
		 PRIx64, o->r.id, scout_hash(o), mc_engine_name(o->p->e),
		 (uint64_t)(uintptr_t)o->map);
}

int p2p_member_put(struct p2p_object *o, struct mc_registry *reg)
{
	char key[SCOUT_KEY_MAX];
	const char *value = o->source ? "{\"source\":true}" :
			    "{\"source\":false}";

	scout_key(o, key);
	return mc_registry_put(reg, key, value, strlen(value), o->p->lease_ms);
}

int p2p_member_del(struct p2p_object *o, struct mc_registry *reg)
{
	char key[SCOUT_KEY_MAX];

	scout_key(o, key);
	return mc_registry_del(reg, key);
}

/* Hex digits up to @stop, and step over it. */
static bool scout_hex(const char **s, const char *end, char stop, int most,
		      uint64_t *out)
{
	int n = 0;

	*out = 0;
	for (; *s < end && **s != stop; (*s)++, n++) {
		char c = **s;
		int digit = c >= '0' && c <= '9' ? c - '0' :
			    c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;

		if (digit < 0 || n == most)
			return false;
		*out = *out << 4 | digit;
	}
	if (*s < end)
		(*s)++;
	return n;
}

bool p2p_member_parse(const char *key, size_t len, uint32_t *hash,
		      char segment[MC_NAME_MAX], uint64_t *map_addr)
{
	static const char top[] = "mooncake/p2p/";
	const char *end = key + len, *at;
	uint64_t n;

	if (len < sizeof(top) || memcmp(key, top, sizeof(top) - 1))
		return false;
	key += sizeof(top) - 1;
	if (!scout_hex(&key, end, '/', 16, &n) ||
	    !scout_hex(&key, end, '-', 8, &n))
		return false;
	*hash = n;
	at = key < end ? memrchr(key, '@', end - key) : NULL;
	if (!at || at == key || at - key >= MC_NAME_MAX ||
	    memchr(key, 0, at - key))
		return false;
	memcpy(segment, key, at - key);
	segment[at - key] = 0;
	at++;
	return scout_hex(&at, end, 0, 16, map_addr) && at == end && *map_addr;
}

/* The keys that begin so, one a line, to be freed; how many they are. */
static int64_t scout_keys(struct mc_registry *reg, const char *prefix,
			  char **out)
{
	char *text = NULL;
	int64_t len = mc_registry_names(reg, prefix, &text), n = 0;

	if (len < 0)
		return len;
	for (const char *s = text; *s; s++)
		n += *s == '\n';
	if (len && text[len - 1] != '\n')
		n++;
	*out = text;
	return n;
}

int64_t p2p_members(struct mc_registry *reg, uint64_t id, char **names)
{
	char prefix[64];

	snprintf(prefix, sizeof(prefix), "mooncake/p2p/%016" PRIx64 "/", id);
	return scout_keys(reg, prefix, names);
}

/* ---- finding others ---------------------------------------------------- */

/* Keys of nodes, of a part of them where they are many: those whose hash
 * begins with the first o->digits of @part. */
static int64_t scout_some(struct p2p_object *o, uint32_t part, char **names)
{
	int64_t few = o->p->neighbours / 2;
	char prefix[64], text[12];
	int64_t n;

	snprintf(text, sizeof(text), "%08x", part);
	for (;;) {
		snprintf(prefix, sizeof(prefix), "mooncake/p2p/%016" PRIx64
			 "/%.*s", o->r.id, (int)o->digits, text);
		n = scout_keys(o->p->scout_reg, prefix, names);
		if (n < 0 || n > few || !o->digits)
			break;
		free(*names);
		o->digits--;
	}
	return n;
}

static struct p2p_holder *scout_known(struct p2p_object *o, const char *segment,
				      bool map)
{
	for (int i = 0; i < o->n_holders; i++) {
		struct p2p_holder *h = &o->holders[i];

		if (h->slot != P2P_FREE && !strcmp(h->segment, segment) &&
		    (!map || h->map_addr))
			return h;
	}
	return NULL;
}

static int scout_next(const char **names, struct scout_found *f)
{
	const char *s = *names;
	size_t len = strcspn(s, "\n");

	if (!*s)
		return 0;
	*names = s + len + (s[len] == '\n');
	return p2p_member_parse(s, len, &f->hash, f->segment, &f->map_addr) ?
	       1 : -1;
}

/* Connect, without the lock. False: it cannot be reached now. */
static bool scout_open(struct p2p_object *o, struct p2p_holder *h)
{
	char segment[MC_NAME_MAX];
	int id;

	mc_copy(segment, h->segment);
	pthread_mutex_unlock(&o->p->lock);
	id = mc_segment_open(o->p->e, segment, SCOUT_OPEN_MS);
	pthread_mutex_lock(&o->p->lock);
	if (id < 0) {
		if (o->state == P2P_GETTING)
			mc_copy(o->told.why, mc_errmsg());
		p2p_holder_empty(o, h);
		return false;
	}
	h->id = id;
	h->slot = P2P_UP;
	p2p_wake(o->p);
	return true;
}

static int scout_count(const struct p2p_object *o)
{
	int n = 0;

	for (int i = 0; i < o->n_holders; i++)
		n += (o->holders[i].slot == P2P_OPENING ||
		      o->holders[i].slot == P2P_UP) && o->holders[i].map_addr;
	return n;
}

/* Holders whose keys should be among @names and are not have died or left. */
static bool scout_drop_gone(struct p2p_object *o, const char *names,
			    uint32_t part)
{
	bool stays[MC_P2P_HOLDERS_MAX] = { false }, dropped = false;
	uint32_t shift = 32 - 4 * o->digits;
	struct scout_found f;
	int r;

	while ((r = scout_next(&names, &f)))
		for (int i = 0; r > 0 && i < o->n_holders; i++)
			if (o->holders[i].map_addr == f.map_addr &&
			    !strcmp(o->holders[i].segment, f.segment))
				stays[i] = true;
	for (int i = 0; i < o->n_holders; i++) {
		struct p2p_holder *h = &o->holders[i];

		if (h->slot != P2P_UP || !h->map_addr || stays[i] ||
		    (o->digits && h->hash >> shift != part >> shift))
			continue;
		h->slot = P2P_GONE;
		dropped = true;
	}
	return dropped;
}

static bool scout_is_source(const struct p2p_object *o, const char *segment)
{
	for (uint32_t i = 0; i < o->r.n_seeds; i++)
		if (o->r.seeds[i].gold &&
		    !strcmp(o->r.seeds[i].segment, segment))
			return true;
	return false;
}

/* Whom one prefers to know is a matter of chance, but of the same chance at any
 * time: so those who came first are not known to more than who comes last. */
static uint64_t scout_rank(const struct p2p_object *o, const char *segment)
{
	return scout_is_source(o, segment) ? 0 :
	       mc_hash(segment, strlen(segment), o->map->node);
}

/* May one of that rank be added, be it in the place of another? */
static bool scout_make_room(struct p2p_object *o, uint64_t rank)
{
	struct p2p_holder *worst = NULL;

	if (scout_count(o) < o->p->neighbours)
		return true;
	for (int i = 0; i < o->n_holders; i++) {
		struct p2p_holder *h = &o->holders[i];

		if (h->slot == P2P_UP && h->map_addr && h->rank > rank &&
		    (!worst || h->rank > worst->rank))
			worst = h;
	}
	if (worst)
		worst->slot = P2P_GONE;
	return worst;
}

static bool scout_add_new(struct p2p_object *o, const char *names)
{
	struct scout_found f;
	bool added = false;
	int r;

	/* Those that do not answer take their time, and our lease goes on. */
	while (!o->closing && mc_clock_ns() < o->renew_ns &&
	       (r = scout_next(&names, &f))) {
		struct p2p_holder *h;
		uint64_t rank;

		if (r < 0 || !strcmp(f.segment, mc_engine_name(o->p->e)) ||
		    scout_known(o, f.segment, true))
			continue;
		rank = scout_rank(o, f.segment);
		h = scout_make_room(o, rank) ? p2p_holder_new(o, f.segment) :
		    NULL;
		if (!h)
			continue;
		h->hash = f.hash;
		h->map_addr = f.map_addr;
		h->rank = rank;
		added |= scout_open(o, h);
	}
	return added;
}

/* Are we among the few that ask the source? If all are listed, those who come
 * first in an order that is the same for all; else by a lot that so many draw,
 * about, and another one each time for who gets nothing. */
static bool scout_in_ring(struct p2p_object *o, const char *names, int64_t n,
			  bool stalled)
{
	const char *self = mc_engine_name(o->p->e);
	uint64_t mine = mc_hash(self, strlen(self), o->r.id), before = 0;
	struct scout_found f;
	int r;

	if (o->digits) {
		if (stalled)
			mine = p2p_random(o->p);
		return mine / 18446744073709551616.0 *
		       (n << 4 * o->digits) < 2 * P2P_RING;
	}
	while ((r = scout_next(&names, &f)))
		before += r > 0 && !scout_is_source(o, f.segment) &&
			  mine > mc_hash(f.segment, strlen(f.segment),
					 o->r.id);
	return before < P2P_RING;
}

static bool scout_listed(const char *names, const char *segment)
{
	struct scout_found f;
	int r;

	while ((r = scout_next(&names, &f)))
		if (r > 0 && !strcmp(f.segment, segment))
			return true;
	return false;
}

/* A source of ours that died leaves its name in the record, which has no
 * lease: whoever sees it there, and no key of it, takes it out. */
static void scout_clean(struct p2p_object *o, const char *segment)
{
	struct p2p_record r;
	uint64_t version;

	if (p2p_record_fetch(o->p->scout_reg, o->r.name, &r, &version) < 0)
		return;
	if (r.id == o->r.id && p2p_record_seed(&r, segment, false, false)) {
		p2p_record_unseed(&r, segment);
		if (p2p_record_store(o->p->scout_reg, &r, version) < 0)
			mc_log(MC_INFO, "p2p", "%s", mc_errmsg());
	}
	p2p_record_fini(&r);
}

/* Segments in the record that have no key: of the public store, or a source
 * that has not been heard of for a lease. */
static void scout_seeds(struct p2p_object *o, const char *names, uint64_t now)
{
	uint64_t lease = o->p->lease_ms * (uint64_t)MC_MS;
	bool orphan = false;

	for (uint32_t i = 0; i < o->r.n_seeds; i++) {
		const struct p2p_seed *s = &o->r.seeds[i];
		struct p2p_holder *h;

		if (scout_listed(names, s->segment) ||
		    !strcmp(s->segment, mc_engine_name(o->p->e)))
			continue;
		if (o->r.native && s->gold && !o->digits) {
			orphan = true;
			if (o->orphan_ns && now > o->orphan_ns + lease) {
				pthread_mutex_unlock(&o->p->lock);
				scout_clean(o, s->segment);
				pthread_mutex_lock(&o->p->lock);
			}
		}
		if (scout_known(o, s->segment, false))
			continue;
		h = p2p_holder_new(o, s->segment);
		if (!h)
			break;
		h->source = s->gold;
		h->offsets = calloc(o->r.n_shards, sizeof(*h->offsets));
		if (!h->offsets) {
			p2p_holder_empty(o, h);
			break;
		}
		memcpy(h->offsets, s->offsets,
		       o->r.n_shards * sizeof(*h->offsets));
		if (scout_open(o, h))
			p2p_holder_static(o, h);
	}
	o->orphan_ns = !orphan ? 0 : o->orphan_ns ? o->orphan_ns : now;
}

static void scout_look(struct p2p_object *o)
{
	bool stalled = mc_clock_ns() > o->moved_ns +
		       SCOUT_STALL_MS * (uint64_t)MC_MS;
	uint32_t part = stalled ? p2p_random(o->p) :
			mc_hash(&o->map->node, 8, o->looks++ % SCOUT_PARTS);
	uint64_t now;
	char *names = NULL;
	bool changed;
	int64_t n;

	pthread_mutex_unlock(&o->p->lock);
	n = scout_some(o, part, &names);
	pthread_mutex_lock(&o->p->lock);
	now = mc_clock_ns();
	if (n < 0) {
		if (!p2p_holders_up(o))
			mc_copy(o->told.why, mc_errmsg());
		o->list_ns = now + SCOUT_AGAIN_MS * (uint64_t)MC_MS;
		return;
	}
	changed = scout_drop_gone(o, names, part);
	/* Not at the first look: others may be about to come. */
	o->in_ring = o->list_ms && scout_in_ring(o, names, n, stalled);
	changed |= scout_add_new(o, names);
	/* What is not listed among all has no key; else it may have one. */
	if (!o->digits || o->in_ring)
		scout_seeds(o, names, now);
	if (n > 16 * o->p->neighbours && o->digits < 7)
		o->digits++;
	changed &= scout_count(o) < o->p->neighbours;
	free(names);
	o->list_ms = !o->list_ms ? SCOUT_FIRST_MS : changed ? SCOUT_LIST_MS :
		     mc_min(2 * o->list_ms, (uint32_t)o->p->lease_ms / 3);
	o->list_ns = mc_clock_ns() + o->list_ms * (uint64_t)MC_MS;
}

/* ---- leases ------------------------------------------------------------ */

/* A registry that was away may have lost what we told it. */
static void scout_renew(struct p2p_object *o)
{
	bool was = o->published;
	int r;

	pthread_mutex_unlock(&o->p->lock);
	r = p2p_member_put(o, o->p->scout_reg);
	if (!r && !was && o->source)
		p2p_record_store(o->p->scout_reg, &o->r, 0);
	if (r < 0 && was)
		mc_log(MC_WARN, "p2p", "%s: trying on", mc_errmsg());
	pthread_mutex_lock(&o->p->lock);
	o->published = !r;
	o->renew_ns = mc_clock_ns() + (r < 0 ?
		mc_min(o->p->lease_ms / 3, SCOUT_AGAIN_MS) :
		o->p->lease_ms / 3) * (uint64_t)MC_MS;
}

/* When something is to be done for an object. */
static uint64_t scout_due(const struct p2p_object *o)
{
	if (o->closing)
		return UINT64_MAX;
	return o->state == P2P_GETTING ? mc_min(o->renew_ns, o->list_ns) :
	       o->renew_ns;
}

static struct p2p_object *scout_first(struct mc_p2p *p, uint64_t *due)
{
	struct p2p_object *first = NULL;

	*due = UINT64_MAX;
	for (struct p2p_object *o = p->objects; o; o = o->next)
		if (scout_due(o) < *due) {
			*due = scout_due(o);
			first = o;
		}
	return first;
}

static void scout_sleep(struct mc_p2p *p, uint64_t until)
{
	struct timespec t = { until / 1000000000u, until % 1000000000u };

	if (until == UINT64_MAX)
		pthread_cond_wait(&p->scout_wake, &p->lock);
	else
		pthread_cond_clockwait(&p->scout_wake, &p->lock,
				       CLOCK_MONOTONIC, &t);
}

void *p2p_scout_main(void *arg)
{
	struct mc_p2p *p = arg;
	struct p2p_object *o;
	uint64_t due;

	pthread_setname_np(pthread_self(), "mc-p2p-scout");
	pthread_mutex_lock(&p->lock);
	while (!p->stopping) {
		o = scout_first(p, &due);
		if (!o || due > mc_clock_ns()) {
			scout_sleep(p, due);
			continue;
		}
		o->refs++;
		if (o->renew_ns == due)
			scout_renew(o);
		else
			scout_look(o);
		p2p_object_drop(o);
	}
	pthread_mutex_unlock(&p->lock);
	return NULL;
}
