/*
 * redis_watch.c - changes under a prefix of a redis server, which keeps no
 * history: what is there is compared with what was seen last.
 *
 * Where the server sends notifications of keyspace events (K, and A or g$x),
 * they say which keys to look at; elsewhere, and now and then, all keys under
 * the prefix are. Between two looks only the last change of a key is seen.
 */
#include "redis.h"

#include "../base/clock.h"
#include "../base/err.h"
#include "../base/util.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <unistd.h>

enum {
	RWATCH_POLL_MS = 250,		/* between looks without hints */
	RWATCH_CHECK_MS = 5000,		/* with them, which may be lost */
	RWATCH_SHARE = 10,		/* look a tenth of the time at most */
};

struct rwatch_key {
	char *name;
	uint64_t version;
	bool deleted;			/* of a change: the name is its own */
};

struct rwatch_list {
	struct rwatch_key *k;
	size_t n, cap;
};

struct mc_redis_watch {
	struct mc_redis *link;
	struct mc_redis sub;		/* of hints; not connected: none */
	struct mc_redis_op op;
	char *prefix;
	uint64_t version;		/* of the latest change that was told */
	struct rwatch_list keys;	/* as seen last, by name */
	struct rwatch_list changes;	/* not told yet */
	bool looked;			/* at all keys, in this call */
	uint64_t look_ns;		/* when to do so next */
	uint64_t subscribe_ns;		/* when to ask for hints next */
};

/* ---- lists ------------------------------------------------------------- */

static void rwatch_clear(struct rwatch_list *l, bool all)
{
	for (size_t i = 0; i < l->n; i++)
		if (all || l->k[i].deleted)
			free(l->k[i].name);
	l->n = 0;
}

/* Put @k at place @i. */
static int rwatch_insert(struct rwatch_list *l, size_t i, struct rwatch_key k)
{
	size_t cap = l->cap ? 2 * l->cap : 64;
	void *grown;

	if (l->n == l->cap) {
		grown = realloc(l->k, cap * sizeof(*l->k));
		if (!grown)
			return -ENOMEM;
		l->k = grown;
		l->cap = cap;
	}
	memmove(&l->k[i + 1], &l->k[i], (l->n - i) * sizeof(*l->k));
	l->k[i] = k;
	l->n++;
	return 0;
}

/* Where @name is, or would be. */
static size_t rwatch_place(const struct rwatch_list *l, const char *name)
{
	size_t from = 0, to = l->n;

	/* Names mostly come in order. */
	if (to && strcmp(l->k[to - 1].name, name) < 0)
		return to;
	while (from < to) {
		size_t mid = (from + to) / 2;

		if (strcmp(l->k[mid].name, name) < 0)
			from = mid + 1;
		else
			to = mid;
	}
	return from;
}

static void rwatch_free(struct mc_redis_watch *w)
{
	rwatch_clear(&w->changes, false);
	rwatch_clear(&w->keys, true);
	free(w->changes.k);
	free(w->keys.k);
	free(w->prefix);
	mc_redis_close(&w->sub);
	free(w);
}

void mc_redis_watch_free(struct mc_redis_watch *w)
{
	if (w)
		rwatch_free(w);
}

/* ---- what has changed -------------------------------------------------- */

/* @name has gone: the name moves to the change. */
static int rwatch_gone(struct mc_redis_watch *w, size_t i)
{
	struct rwatch_key k = { .name = w->keys.k[i].name, .deleted = true };
	int r = rwatch_insert(&w->changes, w->changes.n, k);

	if (r < 0)
		return r;
	w->keys.n--;
	memmove(&w->keys.k[i], &w->keys.k[i + 1],
		(w->keys.n - i) * sizeof(*w->keys.k));
	return 0;
}

/* The record @name has @version, 0: there is none. */
static int rwatch_note(struct mc_redis_watch *w, const char *name,
		       uint64_t version)
{
	size_t i = rwatch_place(&w->keys, name);
	bool known = i < w->keys.n && !strcmp(w->keys.k[i].name, name);
	struct rwatch_key k = { .version = version };
	int r;

	if (!version)
		return known ? rwatch_gone(w, i) : 0;
	if (known && w->keys.k[i].version == version)
		return 0;
	if (!known) {
		k.name = strdup(name);
		r = k.name ? rwatch_insert(&w->keys, i, k) : -ENOMEM;
		if (r < 0) {
			free(k.name);
			return r;
		}
	}
	w->keys.k[i].version = version;
	return rwatch_insert(&w->changes, w->changes.n, w->keys.k[i]);
}

static int rwatch_out_of_memory(struct mc_redis_watch *w)
{
	w->version = 0;			/* so that nobody goes on from here */
	return mc_redis_fail(w->link, &w->op, -ENOMEM, "out of memory");
}

/* Look at @n names, at most MC_REDIS_BATCH. */
static int rwatch_check(struct mc_redis_watch *w, int n,
			const char *const *names)
{
	uint64_t versions[MC_REDIS_BATCH];
	int r = n ? mc_redis_versions(w->link, &w->op, n, names, versions) : 0;

	for (int i = 0; i < n && !r; i++)
		if (rwatch_note(w, names[i], versions[i]) < 0)
			r = rwatch_out_of_memory(w);
	return r;
}

/* Note those that are not among @names, which are in order. */
static int rwatch_vanished(struct mc_redis_watch *w, size_t n,
			   const char *const *names)
{
	size_t i = 0, j = 0;

	while (i < w->keys.n) {
		int d = j < n ? strcmp(w->keys.k[i].name, names[j]) : -1;

		if (d < 0 && rwatch_gone(w, i) < 0)
			return rwatch_out_of_memory(w);
		i += !d;
		j += d >= 0;
	}
	return 0;
}

/* Look at all names there are: the lines of @text. */
static int rwatch_check_all(struct mc_redis_watch *w, char *text, size_t lines)
{
	const char **names = calloc(lines + 1, sizeof(*names));
	int r = names ? 0 : rwatch_out_of_memory(w);

	for (size_t i = 0; i < lines && names; i++)
		names[i] = strsep(&text, "\n");
	for (size_t i = 0; i < lines && !r; i += MC_REDIS_BATCH)
		r = rwatch_check(w, mc_min(lines - i, (size_t)MC_REDIS_BATCH),
				 names + i);
	if (!r)
		r = rwatch_vanished(w, lines, names);
	free(names);
	return r;
}

static int rwatch_look(struct mc_redis_watch *w)
{
	struct mc_registry_text text = { 0 };
	uint64_t start = mc_clock_ns(), wait, took;
	size_t lines = 0;
	int r;

	w->op = mc_redis_begin(w->link, "watch", w->prefix);
	r = mc_redis_names(w->link, &w->op, w->prefix, &text);
	for (size_t i = 0; i < text.len; i++)
		lines += text.data[i] == '\n';
	if (!r)
		r = rwatch_check_all(w, text.data, lines);
	free(text.data);
	took = mc_clock_ns() - start;
	wait = (w->sub.curl ? RWATCH_CHECK_MS : RWATCH_POLL_MS) *
	       (uint64_t)MC_MS;
	w->look_ns = start + took + mc_max(wait, RWATCH_SHARE * took);
	w->looked |= !r;
	return r;
}

/* ---- hints ------------------------------------------------------------- */

/* Does the server send events? One that does not let us ask: no. */
static bool rwatch_ask_events(struct mc_redis_watch *w)
{
	static const char *const argv[] = { "CONFIG", "GET",
					    "notify-keyspace-events" };
	redisReply *reply;
	bool yes;

	if (mc_redis_ask(w->link, &w->op, 3, argv, NULL, &reply) < 0)
		return false;
	yes = mc_redis_has_events(reply);
	mc_hiredis.freeReplyObject(reply);
	return yes;
}

/* Before a look at all keys, so that nothing falls between the two. */
static void rwatch_subscribe(struct mc_redis_watch *w)
{
	char glob[MC_REDIS_GLOB_MAX];
	char pattern[MC_REDIS_GLOB_MAX + MC_URL_PART + 32];
	const char *argv[] = { "PSUBSCRIBE", pattern };
	const char *db = w->link->url->path;
	redisReply *reply;

	w->op = mc_redis_begin(w->link, "watch", w->prefix);
	w->subscribe_ns = mc_clock_ns() + RWATCH_CHECK_MS * (uint64_t)MC_MS;
	if (mc_redis_glob(w->prefix, glob, sizeof(glob)) < 0 ||
	    !rwatch_ask_events(w))
		return;
	snprintf(pattern, sizeof(pattern), "__keyspace@%s__:%s",
		 db[0] ? db : "0", glob);
	if (!mc_redis_ask(&w->sub, &w->op, 2, argv, NULL, &reply))
		mc_hiredis.freeReplyObject(reply);
	else
		mc_redis_close(&w->sub);
}

/* Look at the keys of the notifications that come until @until, and of those
 * that come with the first. */
static int rwatch_hear(struct mc_redis_watch *w, uint64_t until)
{
	redisReply *heard[MC_REDIS_BATCH];
	const char *names[MC_REDIS_BATCH];
	int n = 0, keys = 0, r = 1;

	w->op.deadline_ns = until;
	while (n < MC_REDIS_BATCH &&
	       (r = mc_redis_next(&w->sub, &w->op, &heard[n])) > 0) {
		names[keys] = mc_redis_key_of(heard[n++]);
		keys += names[keys] != NULL;
		w->op.deadline_ns = 0;
	}
	if (r < 0)
		w->subscribe_ns = 0;	/* at once, and look at all */
	w->op = mc_redis_begin(w->link, "watch", w->prefix);
	r = rwatch_check(w, keys, names);
	while (n)
		mc_hiredis.freeReplyObject(heard[--n]);
	return r;
}

/* ---- the call ---------------------------------------------------------- */

static int rwatch_by_version(const void *a, const void *b)
{
	const struct rwatch_key *x = a, *y = b;

	return x->deleted != y->deleted ? x->deleted - y->deleted :
	       (x->version > y->version) - (x->version < y->version);
}

/* Deletions have no version of the server's: each is one more than the last. */
static int rwatch_tell(struct mc_redis_watch *w, struct mc_registry_text *out)
{
	struct rwatch_list *c = &w->changes;
	char head[40];
	int r = 0;

	if (c->n)
		qsort(c->k, c->n, sizeof(*c->k), rwatch_by_version);
	for (size_t i = 0; i < c->n && !r; i++) {
		uint64_t version = c->k[i].deleted ? w->version + 1 :
				   c->k[i].version;

		w->version = mc_max(w->version, version);
		snprintf(head, sizeof(head), "%" PRIu64 " %s ", version,
			 c->k[i].deleted ? "del" : "put");
		r = mc_registry_text_add(out, head, strlen(head));
		if (!r)
			r = mc_registry_text_add(out, c->k[i].name,
						 strlen(c->k[i].name));
		if (!r)
			r = mc_registry_text_add(out, "\n", 1);
	}
	rwatch_clear(c, false);
	return r < 0 ? rwatch_out_of_memory(w) : 0;
}

/* Find changes until @end. */
static int rwatch_wait(struct mc_redis_watch *w, uint64_t end)
{
	int r = 0;

	w->looked = false;
	do {
		uint64_t now = mc_clock_ns();
		uint64_t until = mc_min(end, w->look_ns);
		bool ask = !w->sub.curl && now >= w->subscribe_ns;

		if (ask)
			rwatch_subscribe(w);
		if (ask || now >= w->look_ns || (!w->sub.curl && !w->looked))
			r = rwatch_look(w);
		else if (w->sub.curl)
			r = rwatch_hear(w, until);
		else if (until > now)
			usleep((until - now) / 1000 + 1);
	} while (!r && !w->changes.n && mc_clock_ns() < end);
	return r;
}

static int rwatch_begin(struct mc_redis_watch **out, struct mc_redis *l,
			const char *prefix)
{
	struct mc_redis_watch *w = calloc(1, sizeof(*w));
	int r;

	if (!w)
		return mc_err(-ENOMEM, "out of memory");
	w->link = l;
	mc_redis_init(&w->sub, l->url, l->times);
	w->prefix = strdup(prefix);
	if (!w->prefix) {
		rwatch_free(w);
		return mc_err(-ENOMEM, "out of memory");
	}
	rwatch_subscribe(w);
	r = rwatch_look(w);
	if (r < 0) {
		rwatch_free(w);
		return r;
	}
	w->version = 1;
	for (size_t i = 0; i < w->keys.n; i++)
		w->version = mc_max(w->version, w->keys.k[i].version);
	rwatch_clear(&w->changes, false);
	*out = w;
	return 0;
}

int mc_redis_watch(struct mc_redis_watch **state, struct mc_redis *l,
		   const char *prefix, uint64_t *version, int wait_ms,
		   struct mc_registry_text *out)
{
	uint64_t end = mc_clock_ns() + wait_ms * (uint64_t)MC_MS;
	struct mc_redis_watch *w = *state;
	struct mc_redis_op op = mc_redis_begin(l, "watch", prefix);
	int r;

	if (!*version) {
		mc_redis_watch_free(w);
		*state = NULL;
		r = rwatch_begin(state, l, prefix);
		*version = r < 0 ? 0 : (*state)->version;
		return r;
	}
	if (!w || strcmp(w->prefix, prefix) || w->version != *version)
		return mc_redis_fail(l, &op, -ESTALE, "what this handle saw "
				     "last is forgotten");
	r = rwatch_wait(w, end);
	if (!r)
		r = rwatch_tell(w, out);
	if (!r)
		*version = w->version;
	return r;
}
