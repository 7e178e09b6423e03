/*
 * registryd_store.c - the records of our registry server, in memory.
 */
#define HASH_NONFATAL_OOM 1
#include "registryd_store.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

int64_t mc_store_wall_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

void mc_store_init(struct mc_store *s, uint64_t version, uint64_t max_bytes)
{
	memset(s, 0, sizeof(*s));
	s->version = s->forgotten = version;
	s->max_bytes = max_bytes;
}

static void store_record_free(struct mc_store_record *rec)
{
	free(rec->key);
	free(rec->value);
	free(rec);
}

void mc_store_fini(struct mc_store *s)
{
	struct mc_store_record *rec, *next;

	HASH_ITER(hh, s->records, rec, next) {
		HASH_DEL(s->records, rec);
		store_record_free(rec);
	}
	free(s->leases);
	for (size_t i = 0; i < MC_STORE_HISTORY; i++)
		free(s->history[i].key);
	memset(s, 0, sizeof(*s));
}

/* ---- leases: a binary heap --------------------------------------------- */

static void store_place(struct mc_store *s, size_t i,
			struct mc_store_record *rec)
{
	s->leases[i] = rec;
	rec->place = i;
}

/* Move @rec from place @i to where it belongs. */
static void store_sift(struct mc_store *s, size_t i,
		       struct mc_store_record *rec)
{
	struct mc_store_record **a = s->leases;
	size_t child;

	for (; i && rec->deadline_ns < a[(i - 1) / 2]->deadline_ns;
	     i = (i - 1) / 2)
		store_place(s, i, a[(i - 1) / 2]);
	for (; (child = 2 * i + 1) < s->n_leases; i = child) {
		if (child + 1 < s->n_leases &&
		    a[child + 1]->deadline_ns < a[child]->deadline_ns)
			child++;
		if (rec->deadline_ns <= a[child]->deadline_ns)
			break;
		store_place(s, i, a[child]);
	}
	store_place(s, i, rec);
}

static int store_lease_room(struct mc_store *s)
{
	size_t max = s->max_leases ? 2 * s->max_leases : 64;
	void *grown;

	if (s->n_leases < s->max_leases)
		return 0;
	grown = realloc(s->leases, max * sizeof(*s->leases));
	if (!grown)
		return -ENOMEM;
	s->leases = grown;
	s->max_leases = max;
	return 0;
}

static void store_lease_drop(struct mc_store *s, struct mc_store_record *rec)
{
	struct mc_store_record *last;

	if (!rec->deadline_ns)
		return;
	rec->deadline_ns = 0;
	last = s->leases[--s->n_leases];
	if (last != rec)
		store_sift(s, rec->place, last);
}

int mc_store_lease(struct mc_store *s, struct mc_store_record *rec,
		   uint32_t ttl_ms, uint64_t deadline_ns)
{
	int r = deadline_ns && !rec->deadline_ns ? store_lease_room(s) : 0;

	if (r < 0)
		return r;
	if (!deadline_ns) {
		store_lease_drop(s, rec);
	} else {
		if (!rec->deadline_ns)
			rec->place = s->n_leases++;
		rec->deadline_ns = deadline_ns;
		store_sift(s, rec->place, rec);
	}
	rec->ttl_ms = ttl_ms;
	return 0;
}

struct mc_store_record *mc_store_next_lease(struct mc_store *s)
{
	return s->n_leases ? s->leases[0] : NULL;
}

/* ---- changes ----------------------------------------------------------- */

/* A change whose name there is no memory for is forgotten, with all before it:
 * watchers then begin again. */
static void store_note(struct mc_store *s, const char *key, bool deleted,
		       uint64_t version)
{
	struct mc_store_change *c = &s->history[s->n_changes %
						MC_STORE_HISTORY];

	if (s->n_changes >= MC_STORE_HISTORY && c->version > s->forgotten)
		s->forgotten = c->version;
	free(c->key);
	c->key = strdup(key);
	c->deleted = deleted;
	c->version = version;
	if (!c->key)
		s->forgotten = version;
	s->n_changes++;
	if (version > s->version)
		s->version = version;
}

static int store_change_line(const struct mc_store_change *c,
			     struct mc_registry_text *out)
{
	char head[40];
	int n = snprintf(head, sizeof(head), "%" PRIu64 " %s ", c->version,
			 c->deleted ? "del" : "put");
	int r = mc_registry_text_add(out, head, n);

	if (!r)
		r = mc_registry_text_add(out, c->key, strlen(c->key));
	return r ? r : mc_registry_text_add(out, "\n", 1);
}

int mc_store_changes(const struct mc_store *s, const char *prefix,
		     uint64_t after, struct mc_registry_text *out)
{
	uint64_t i = s->n_changes;
	size_t len = strlen(prefix);
	int n = 0, r;

	if (after < s->forgotten || after > s->version)
		return -ESTALE;
	/* Back to the first one that is after, then forward. */
	while (i && s->n_changes - i < MC_STORE_HISTORY &&
	       s->history[(i - 1) % MC_STORE_HISTORY].version > after)
		i--;
	for (; i < s->n_changes; i++) {
		const struct mc_store_change *c =
			&s->history[i % MC_STORE_HISTORY];

		if (strncmp(c->key, prefix, len))
			continue;
		r = store_change_line(c, out);
		if (r < 0)
			return r;
		n++;
	}
	return n;
}

/* ---- records ----------------------------------------------------------- */

struct mc_store_record *mc_store_find(struct mc_store *s, const char *key)
{
	struct mc_store_record *rec;

	HASH_FIND_STR(s->records, key, rec);
	return rec;
}

int mc_store_admit(struct mc_store *s, const char *key, size_t len)
{
	struct mc_store_record *rec = mc_store_find(s, key);
	uint64_t more = rec ? len : len + strlen(key);
	uint64_t less = rec ? rec->len : 0;

	if (s->bytes - less + more > s->max_bytes)
		return -ENOSPC;
	return store_lease_room(s);
}

static struct mc_store_record *store_add(struct mc_store *s, const char *key)
{
	struct mc_store_record *rec = calloc(1, sizeof(*rec));

	if (rec)
		rec->key = strdup(key);
	if (rec && rec->key) {
		HASH_ADD_KEYPTR(hh, s->records, rec->key, strlen(key), rec);
		if (rec->hh.tbl) {
			s->bytes += strlen(key);
			return rec;
		}
	}
	if (rec)
		store_record_free(rec);
	return NULL;
}

int mc_store_put(struct mc_store *s, const char *key, const char *value,
		 size_t len, uint64_t version, uint32_t ttl_ms,
		 uint64_t deadline_ns)
{
	struct mc_store_record *rec = mc_store_find(s, key);
	char *copy = malloc(len + 1);

	if (!copy || store_lease_room(s) < 0 ||
	    (!rec && !(rec = store_add(s, key)))) {
		free(copy);
		return -ENOMEM;
	}
	if (len)
		memcpy(copy, value, len);
	copy[len] = 0;
	s->bytes += len;
	s->bytes -= rec->len;
	free(rec->value);
	rec->value = copy;
	rec->len = len;
	rec->version = version;
	mc_store_lease(s, rec, ttl_ms, deadline_ns);	/* there is room */
	store_note(s, key, false, version);
	return 0;
}

void mc_store_del(struct mc_store *s, struct mc_store_record *rec,
		  uint64_t version)
{
	store_lease_drop(s, rec);
	store_note(s, rec->key, true, version);
	s->bytes -= rec->len + strlen(rec->key);
	HASH_DEL(s->records, rec);
	store_record_free(rec);
}

static int store_by_name(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

int mc_store_list(struct mc_store *s, const char *prefix,
		  struct mc_registry_text *out)
{
	size_t len = strlen(prefix), n = 0;
	struct mc_store_record *rec, *next;
	const char **names = calloc(HASH_COUNT(s->records) + 1,
				    sizeof(*names));
	int r = names ? 0 : -ENOMEM;

	if (r < 0)
		return r;
	HASH_ITER(hh, s->records, rec, next)
		if (!strncmp(rec->key, prefix, len))
			names[n++] = rec->key;
	qsort(names, n, sizeof(*names), store_by_name);
	for (size_t i = 0; i < n && !r; i++) {
		r = mc_registry_text_add(out, names[i], strlen(names[i]));
		if (!r)
			r = mc_registry_text_add(out, "\n", 1);
	}
	free(names);
	return r;
}
