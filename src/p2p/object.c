/*
 * object.c - an object as this node has it: its memory, its map, and the tables
 * that fetching it needs.
 */
#include "p2p.h"

#include "../base/err.h"
#include "../base/util.h"

#include <errno.h>
#include <stdlib.h>
#include <time.h>

/* ---- memory ------------------------------------------------------------ */

/* Is [addr, addr + len) inside a buffer that peers may read already? */
static bool object_covered(struct mc_engine *e, const struct mc_range *b)
{
	struct mc_buffer_info info[64];
	uint64_t skip = 0;
	int n;

	while ((n = mc_buffer_list(e, skip, info, 64)) > 0) {
		for (int i = 0; i < n; i++)
			if (b->addr >= info[i].addr &&
			    b->addr - info[i].addr <= info[i].len &&
			    b->len <= info[i].len - (b->addr - info[i].addr))
				return info[i].access & MC_REMOTE_READ;
		skip += n;
	}
	return false;
}

static int object_register(struct p2p_object *o)
{
	for (uint32_t i = 0; i < o->r.n_buffers; i++) {
		struct mc_range *b = &o->buffers[i];
		int r = mc_buffer_reg(o->p->e, (void *)(uintptr_t)b->addr,
				      b->len, NULL, MC_REMOTE_READ);

		if (r == -EEXIST && object_covered(o->p->e, b))
			r = 0;
		else if (!r)
			o->ours[i] = true;
		if (r < 0)
			return r;
		o->registered = i + 1;
	}
	return 0;
}

static int object_alloc(struct p2p_object *o)
{
	void *mem;
	int r;

	o->own_memory = true;
	for (uint32_t i = 0; i < o->r.n_buffers; i++) {
		r = mc_buffer_alloc(o->p->e, o->r.sizes[i], MC_REMOTE_READ, 0,
				    -1, &mem);
		if (r < 0)
			return r;
		o->buffers[i].addr = (uintptr_t)mem;
		o->buffers[i].len = o->r.sizes[i];
		o->registered = i + 1;
	}
	return 0;
}

/* A peer on this host that is stopped in the middle of a copy is waited for a
 * second; then the memory stays, as the engine's, rather than go from under
 * it. */
static void object_unregister(struct p2p_object *o, void *mem, bool own)
{
	const struct timespec pause = { .tv_nsec = 1000000 };
	int r = -EBUSY;

	for (int i = 0; r == -EBUSY && i < 1000; i++) {
		r = own ? mc_buffer_free(o->p->e, mem) :
			  mc_buffer_unreg(o->p->e, mem);
		if (r == -EBUSY)
			nanosleep(&pause, NULL);
	}
	if (r < 0)
		mc_log(MC_WARN, "p2p", "%s: %s", o->r.name, mc_errmsg());
}

void *p2p_shard_mem(const struct p2p_object *o, uint32_t shard)
{
	const struct p2p_shard *s = &o->at[shard];

	return (void *)(uintptr_t)(o->buffers[s->buffer].addr + s->off);
}

bool p2p_shard_ok(const struct p2p_object *o, uint32_t shard, const void *mem)
{
	return !o->r.native ||
	       mc_hash(mem, o->at[shard].len, 0) == o->r.sums[shard];
}

bool p2p_shard_here(const struct p2p_object *o, uint32_t shard)
{
	return p2p_bit(o->map->words, shard);
}

/* These are out, if we have not heard of it: one copy more of each. */
void p2p_rumour(struct p2p_object *o, uint32_t w, uint64_t bits)
{
	uint64_t *out = &o->map->words[p2p_words(o->r.n_shards) + w];
	uint64_t new = bits & ~*out;

	if (o->source || !new)
		return;
	if (w == o->r.n_shards / 64)
		new &= ((uint64_t)1 << o->r.n_shards % 64) - 1;
	p2p_publish(out, *out | new);
	for (; new; new &= new - 1)
		o->copies[w * 64 + __builtin_ctzll(new)]++;
}

/* From now on it can be had from us. */
void p2p_shard_add(struct p2p_object *o, uint32_t shard)
{
	uint64_t *w = &o->map->words[shard / 64];

	p2p_publish(w, *w | (uint64_t)1 << shard % 64);
	p2p_clear(o->wanted, shard);
	p2p_rumour(o, shard / 64, (uint64_t)1 << shard % 64);
	o->told.shards_here++;
	o->told.bytes_here += o->at[shard].len;
}

/* ---- tables ------------------------------------------------------------ */

static int object_tables(struct p2p_object *o)
{
	uint32_t shards = o->r.n_shards, words = p2p_words(shards);

	o->n_holders = mc_min(o->p->neighbours + 8, MC_P2P_HOLDERS_MAX);
	o->at = calloc(shards, sizeof(*o->at));
	o->ours = calloc(o->r.n_buffers, sizeof(*o->ours));
	o->buffers = calloc(o->r.n_buffers, sizeof(*o->buffers));
	o->holders = calloc(o->n_holders, sizeof(*o->holders));
	o->have = calloc((size_t)o->n_holders * words, 8);
	o->wanted = calloc(words, 8);
	o->one = calloc(words, 8);
	o->copies = calloc(shards, sizeof(*o->copies));
	if (!o->at || !o->ours || !o->buffers || !o->holders || !o->have ||
	    !o->wanted || !o->one || !o->copies)
		return mc_err(-ENOMEM, "out of memory");
	p2p_lay_out(&o->r, o->at);
	for (uint32_t i = 0; i < shards; i++)
		p2p_set(o->wanted, i);
	o->told.bytes = o->r.size;
	o->told.shards = shards;
	return 0;
}

static int object_maps(struct p2p_object *o)
{
	uint32_t shards = o->r.n_shards, buffers = o->r.n_buffers;
	uint64_t bytes = p2p_map_bytes(shards, buffers);
	struct p2p_map *m;
	void *mem;
	int r = mc_buffer_alloc(o->p->e, bytes, MC_REMOTE_READ, 0, -1, &mem);

	if (r < 0)
		return r;
	o->map = m = mem;
	m->version = P2P_MAP_VERSION;
	m->id = o->r.id;
	m->node = mc_engine_epoch(o->p->e);
	m->shards = shards;
	m->buffers = buffers;
	m->source = o->source;
	memset(m->asks, 0xff, sizeof(m->asks));
	for (uint32_t i = 0; i < buffers; i++)
		m->words[2 * p2p_words(shards) + i] = o->buffers[i].addr;
	m->magic = P2P_MAP_MAGIC;
	if (o->source)
		return 0;
	r = mc_buffer_alloc(o->p->e, bytes * o->n_holders, MC_LOCAL, 0, -1,
			    &mem);
	if (!r)
		o->landing = mem;
	return r;
}

int p2p_object_open(struct mc_p2p *p, struct p2p_record *r,
		    const struct mc_range *buffers, bool source,
		    struct p2p_object **out)
{
	struct p2p_object *o = calloc(1, sizeof(*o));
	int ret;

	if (!o)
		return mc_err(-ENOMEM, "out of memory");
	o->p = p;
	o->r = *r;
	o->source = o->told.source = source;
	ret = object_tables(o);
	if (!ret && buffers) {
		memcpy(o->buffers, buffers,
		       r->n_buffers * sizeof(*buffers));
		ret = object_register(o);
	} else if (!ret) {
		ret = object_alloc(o);
	}
	if (!ret)
		ret = object_maps(o);
	if (ret < 0) {
		o->r = (struct p2p_record){ 0 };
		p2p_object_close(o);
		return ret;
	}
	*out = o;
	return 0;
}

/* Segments that no other object looks at. */
static void object_leave_segments(struct p2p_object *o)
{
	pthread_mutex_lock(&o->p->lock);
	for (int i = 0; o->holders && i < o->n_holders; i++)
		if (o->holders[i].slot != P2P_FREE)
			p2p_holder_empty(o, &o->holders[i]);
	pthread_mutex_unlock(&o->p->lock);
}

void p2p_object_close(struct p2p_object *o)
{
	object_leave_segments(o);
	for (uint32_t i = 0; i < o->registered; i++)
		if (o->own_memory || o->ours[i])
			object_unregister(o, (void *)(uintptr_t)
					  o->buffers[i].addr, o->own_memory);
	if (o->map)
		object_unregister(o, o->map, true);
	if (o->landing)
		object_unregister(o, o->landing, true);
	for (int i = 0; i < P2P_SPARES; i++)
		if (o->spares[i])
			object_unregister(o, o->spares[i], true);
	p2p_record_fini(&o->r);
	free(o->at);
	free(o->ours);
	free(o->buffers);
	free(o->holders);
	free(o->have);
	free(o->wanted);
	free(o->one);
	free(o->copies);
	free(o);
}
