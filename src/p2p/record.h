/*
 * record.h - the record of an object in a registry, and the keys it and its
 * holders have there.
 *
 * The record is that of the public Mooncake's P2P store, which reads and writes
 * the same key; members that only we have are ones it passes over. Who else
 * holds the object is said by keys of their own, one for each node, so that
 * nodes come and go without writing to one place and a dead one's key ends
 * with its lease.
 */
#ifndef MC_P2P_RECORD_H
#define MC_P2P_RECORD_H

#include <mooncake.h>

enum {
	P2P_SHARDS_MAX = 1 << 20,
	P2P_BUFFERS_MAX = 1 << 16,
	P2P_SEEDS_MAX = 64,		/* segments named in the record */
	P2P_KEY_MAX = MC_P2P_NAME_MAX + 32,
};

/* A segment that the record says holds all shards: a source, or a replica of
 * the public store. */
struct p2p_seed {
	char segment[MC_NAME_MAX];
	bool gold;
	uint64_t *offsets;		/* of each shard; 0: not there */
};

struct p2p_record {
	char name[MC_P2P_NAME_MAX];
	uint64_t id;			/* of this version of the object */
	uint64_t size, shard_bytes;
	uint32_t n_buffers, n_shards, n_seeds;
	bool native;			/* written by us: sums and members */
	bool pinned;
	uint64_t *sizes;		/* of the buffers */
	uint64_t *sums;			/* of the shards; native only */
	char *note;			/* the writer's, "" if none */
	struct p2p_seed *seeds;
};

/* Where a shard lies. */
struct p2p_shard {
	uint32_t buffer;
	uint64_t off, len;
};

/* The shards of @n buffers: a shard does not cross from one to the next. */
int64_t p2p_count_shards(const uint64_t *sizes, uint32_t n,
			 uint64_t shard_bytes);

/* Fill in @out[record->n_shards]. */
void p2p_lay_out(const struct p2p_record *r, struct p2p_shard *out);

/* As JSON text, to be freed. */
int p2p_record_encode(const struct p2p_record *r, char **json);

/* -EBADMSG: it is not the record of an object. The record is to be given to
 * p2p_record_fini() if this returns 0. */
int p2p_record_decode(const char *json, size_t len, struct p2p_record *r);
void p2p_record_fini(struct p2p_record *r);

/* The seed of @segment, or NULL; to be added if @add, -ENOMEM as NULL. */
struct p2p_seed *p2p_record_seed(struct p2p_record *r, const char *segment,
				 bool gold, bool add);
void p2p_record_unseed(struct p2p_record *r, const char *segment);

/* The key of a name: -EINVAL it cannot be one. */
int p2p_key(const char *name, char key[P2P_KEY_MAX]);

/* The record of @name and its version. -ENOENT: no such object. */
int p2p_record_fetch(struct mc_registry *reg, const char *name,
		     struct p2p_record *r, uint64_t *version);

/* Put it if the record's version still is @version. */
int p2p_record_store(struct mc_registry *reg, const struct p2p_record *r,
		     uint64_t version);

#endif
