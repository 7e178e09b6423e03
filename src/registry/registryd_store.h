/*
 * registryd_store.h - the records of our registry server, in memory: values
 * under keys, leases in the order in which they run out, the latest changes.
 * Knows nothing of http, files or threads; times are of mc_clock_ns().
 */
#ifndef MC_REGISTRYD_STORE_H
#define MC_REGISTRYD_STORE_H

#include "registry.h"

#include <uthash.h>

enum {
	MC_STORE_HISTORY = 4096,	/* changes that a watch can go back */
};

struct mc_store_record {
	UT_hash_handle hh;
	char *key;
	char *value;			/* with a zero behind it */
	size_t len;
	uint64_t version;
	uint64_t deadline_ns;		/* 0: it stays */
	uint32_t ttl_ms;
	size_t place;			/* among the leases */
};

struct mc_store_change {
	uint64_t version;
	bool deleted;
	char *key;
};

struct mc_store {
	struct mc_store_record *records;
	struct mc_store_record **leases;	/* a heap, the next first */
	size_t n_leases, max_leases;
	uint64_t version;		/* of the latest change */
	uint64_t forgotten;		/* the latest change not in history */
	uint64_t bytes;			/* of keys and values */
	uint64_t max_bytes;
	struct mc_store_change history[MC_STORE_HISTORY];
	uint64_t n_changes;		/* ever; the next one's place */
};

/* Milliseconds of the wall clock, which goes on while no server runs. */
int64_t mc_store_wall_ms(void);

/* @version: changes are numbered from the one after it. */
void mc_store_init(struct mc_store *s, uint64_t version, uint64_t max_bytes);
void mc_store_fini(struct mc_store *s);

struct mc_store_record *mc_store_find(struct mc_store *s, const char *key);

/* 0, -ENOSPC or -ENOMEM: would a put of so much work? Keeps room for its lease,
 * so that mc_store_put() after it can only fail for want of memory. */
int mc_store_admit(struct mc_store *s, const char *key, size_t len);

/* Set a record; ttl_ms 0: it stays. -ENOMEM: nothing has changed. */
int mc_store_put(struct mc_store *s, const char *key, const char *value,
		 size_t len, uint64_t version, uint32_t ttl_ms,
		 uint64_t deadline_ns);

/* Change when a record goes: -ENOMEM: it has not. */
int mc_store_lease(struct mc_store *s, struct mc_store_record *rec,
		   uint32_t ttl_ms, uint64_t deadline_ns);

void mc_store_del(struct mc_store *s, struct mc_store_record *rec,
		  uint64_t version);

/* The record whose lease runs out first, NULL: there are no leases. */
struct mc_store_record *mc_store_next_lease(struct mc_store *s);

/* Names that begin with @prefix, sorted, one a line. */
int mc_store_list(struct mc_store *s, const char *prefix,
		  struct mc_registry_text *out);

/* Changes after @after as lines. How many, -ESTALE: not all are known. */
int mc_store_changes(const struct mc_store *s, const char *prefix,
		     uint64_t after, struct mc_registry_text *out);

#endif
