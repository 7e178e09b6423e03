/*
 * catalog.c - what the registry says of objects: their records, changed by
 * compare-and-swap only, their names, and news of them.
 */
#include "p2p.h"

#include "../base/err.h"
#include "../base/util.h"
#include "../registry/registry.h"

#include <errno.h>
#include <stdlib.h>

enum {
	CATALOG_TRIES = 20,		/* a record that others change too */
};

static const char catalog_top[] = "mooncake/checkpoint/";

/* ---- records come and go ----------------------------------------------- */

int p2p_lookup(struct mc_p2p *p, const char *name,
		       struct p2p_record *r)
{
	uint64_t version;
	int ret;

	pthread_mutex_lock(&p->reg_lock);
	ret = p2p_record_fetch(p->reg, name, r, &version);
	pthread_mutex_unlock(&p->reg_lock);
	return ret;
}

/* May the object that is there be replaced? */
static int catalog_replaceable(struct mc_p2p *p, const struct p2p_record *old,
			     bool force)
{
	char *names = NULL;
	int64_t n;

	if (force)
		return 0;
	if (old->pinned)
		return mc_err(-EBUSY, "object '%.200s' is pinned", old->name);
	n = old->native ? p2p_members(p->reg, old->id, &names) : 1;
	free(names);
	if (n < 0)
		return n;
	return n ? mc_err(-EEXIST, "object '%.200s' exists; replace it by "
			  "force, or remove it", old->name) : 0;
}

/* The record, in place of none, or of one that may go. */
int p2p_publish_record(struct p2p_object *o, bool force)
{
	struct mc_p2p *p = o->p;
	int r = 0;

	for (int i = 0; i < CATALOG_TRIES; i++) {
		struct p2p_record old;
		uint64_t version = 0;

		r = p2p_record_fetch(p->reg, o->r.name, &old, &version);
		if (r == -ENOENT) {
			version = 0;
		} else if (!r) {
			r = catalog_replaceable(p, &old, force);
			p2p_record_fini(&old);
			if (r < 0)
				return r;
		} else if (r != -EBADMSG || !force) {
			return r;
		}
		r = p2p_record_store(p->reg, &o->r, version);
		if (r != -EAGAIN)
			return r;
	}
	return mc_err(r, "object '%.200s': others change it all the time",
		      o->r.name);
}

/* Take our name out of the record; the last one takes the record. */
int p2p_withdraw_record(struct p2p_object *o)
{
	const char *self = mc_engine_name(o->p->e);
	struct mc_registry *reg = o->p->reg;
	int r = 0;

	for (int i = 0; i < CATALOG_TRIES; i++) {
		struct p2p_record rec;
		uint64_t version;
		char key[P2P_KEY_MAX], *names = NULL;
		bool named;

		r = p2p_record_fetch(reg, o->r.name, &rec, &version);
		if (r < 0)
			return r == -ENOENT ? 0 : r;
		named = p2p_record_seed(&rec, self, true, false);
		p2p_record_unseed(&rec, self);
		if (rec.id != o->r.id) {
			r = 0;
		} else if (!rec.n_seeds && rec.native && !rec.pinned &&
			   !p2p_members(reg, rec.id, &names)) {
			p2p_key(o->r.name, key);
			r = mc_registry_del_if(reg, key, version);
		} else if (named) {
			r = p2p_record_store(reg, &rec, version);
		}
		free(names);
		p2p_record_fini(&rec);
		if (r != -EAGAIN)
			return r;
	}
	return r;
}

/* ---- what the registry says -------------------------------------------- */

/* Change a record, or, with @change NULL, delete it; again if others do. */
static int catalog_change(struct mc_p2p *p, const char *name, bool force,
			const bool *pin)
{
	int r = 0;

	for (int i = 0; i < CATALOG_TRIES; i++) {
		struct p2p_record rec;
		uint64_t version;
		char key[P2P_KEY_MAX];

		r = p2p_record_fetch(p->reg, name, &rec, &version);
		if (r == -EBADMSG && force && !pin && !p2p_key(name, key))
			return mc_registry_del(p->reg, key);
		if (r < 0)
			return r;
		if (pin && !rec.native) {
			r = mc_err(-EOPNOTSUPP, "object '%.200s' is of the "
				   "public store's: it cannot be pinned", name);
		} else if (pin) {
			rec.pinned = *pin;
			r = p2p_record_store(p->reg, &rec, version);
		} else if (rec.pinned && !force) {
			r = mc_err(-EBUSY, "object '%.200s' is pinned", name);
		} else {
			p2p_key(name, key);
			r = mc_registry_del_if(p->reg, key, version);
		}
		p2p_record_fini(&rec);
		if (r != -EAGAIN)
			return r;
	}
	return r;
}

int mc_p2p_remove(struct mc_p2p *p, const char *name, bool force)
{
	int r;

	pthread_mutex_lock(&p->reg_lock);
	r = catalog_change(p, name, force, NULL);
	pthread_mutex_unlock(&p->reg_lock);
	return r;
}

int mc_p2p_pin(struct mc_p2p *p, const char *name, bool on)
{
	int r;

	pthread_mutex_lock(&p->reg_lock);
	r = catalog_change(p, name, false, &on);
	pthread_mutex_unlock(&p->reg_lock);
	return r;
}

static int catalog_stat(struct mc_p2p *p, const struct p2p_record *r,
		      struct mc_p2p_info *out)
{
	char *names = NULL;
	int64_t nodes = p2p_members(p->reg, r->id, &names);

	free(names);
	if (nodes < 0)
		return nodes;
	*out = (struct mc_p2p_info){
		.id = r->id, .bytes = r->size, .shard_bytes = r->shard_bytes,
		.shards = r->n_shards, .buffers = r->n_buffers,
		.nodes = nodes, .pinned = r->pinned,
	};
	for (uint32_t i = 0; i < r->n_seeds; i++)
		out->sources += r->seeds[i].gold;
	return 0;
}

int mc_p2p_stat(struct mc_p2p *p, const char *name, struct mc_p2p_info *out,
		uint64_t *sizes, uint32_t max, char *note, uint32_t size)
{
	struct p2p_record r;
	int ret = p2p_lookup(p, name, &r);

	if (ret < 0)
		return ret;
	pthread_mutex_lock(&p->reg_lock);
	ret = catalog_stat(p, &r, out);
	pthread_mutex_unlock(&p->reg_lock);
	if (sizes)
		memcpy(sizes, r.sizes,
		       mc_min(max, r.n_buffers) * sizeof(*sizes));
	if (note && size)
		mc_copy_to(note, size, r.note);
	p2p_record_fini(&r);
	return ret;
}

/* Keys to names, in place. */
static int64_t catalog_names(char *text)
{
	char *out = text;

	for (const char *s = text; *s; ) {
		size_t len = strcspn(s, "\n"), top = sizeof(catalog_top) - 1;

		if (len >= top) {
			memmove(out, s + top, len - top);
			out += len - top;
			*out++ = '\n';
		}
		s += len + (s[len] == '\n');
	}
	*out = 0;
	return out - text;
}

int64_t mc_p2p_list(struct mc_p2p *p, const char *prefix, char *out,
		    uint64_t size)
{
	char key[P2P_KEY_MAX], *text = NULL;
	int64_t len;

	snprintf(key, sizeof(key), "%s%s", catalog_top, prefix ? prefix : "");
	pthread_mutex_lock(&p->reg_lock);
	len = mc_registry_names(p->reg, key, &text);
	pthread_mutex_unlock(&p->reg_lock);
	if (len >= 0)
		len = catalog_names(text);
	if (len >= 0 && out && size)
		mc_copy_to(out, size, text);
	free(text);
	return len;
}

/* ---- watching ---------------------------------------------------------- */

struct mc_p2p_watch {
	struct mc_registry *reg;
	char prefix[P2P_KEY_MAX];
	uint64_t version;
};

int mc_p2p_watch_open(struct mc_p2p_watch **out, struct mc_p2p *p,
		      const char *prefix)
{
	struct mc_p2p_watch *w = calloc(1, sizeof(*w));
	int r;

	if (!w)
		return mc_err(-ENOMEM, "out of memory");
	snprintf(w->prefix, sizeof(w->prefix), "%s%s", catalog_top,
		 prefix ? prefix : "");
	r = mc_registry_open(&w->reg, p->url);
	if (!r)
		r = mc_registry_watch(w->reg, w->prefix, &w->version, 0);
	if (r < 0) {
		mc_p2p_watch_close(w);
		return r;
	}
	*out = w;
	return 0;
}

void mc_p2p_watch_close(struct mc_p2p_watch *w)
{
	if (!w)
		return;
	mc_registry_close(w->reg);
	free(w);
}

int mc_p2p_watch_next(struct mc_p2p_watch *w, int timeout_ms, char *name,
		      uint32_t size, bool *gone)
{
	struct mc_registry_change c;
	size_t top = sizeof(catalog_top) - 1;
	char key[P2P_KEY_MAX];
	int r = mc_registry_change(w->reg, &c);

	if (!r) {
		r = mc_registry_watch(w->reg, w->prefix, &w->version,
				      timeout_ms);
		if (r == -ESTALE) {
			w->version = 0;
			mc_registry_watch(w->reg, w->prefix, &w->version, 0);
			return mc_err(-ESTALE, "watching '%.80s': some changes "
				      "were missed", w->prefix + top);
		}
		if (r > 0)
			r = mc_registry_change(w->reg, &c);
	}
	if (r <= 0)
		return r;
	snprintf(key, sizeof(key), "%.*s", (int)c.len, c.key);
	mc_copy_to(name, size, strlen(key) > top ? key + top : "");
	*gone = c.deleted;
	return 1;
}
