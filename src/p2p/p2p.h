/*
 * p2p.h - what the files of the store share.
 *
 * Two threads: the puller (pull.c) fetches the shards of all objects that are
 * being fetched, and never blocks on a server or on a peer that is not there;
 * the scout (scout.c) renews leases, finds out who else holds an object, and
 * connects to them. One lock guards all; it is not held while anything is
 * asked, moved or summed. A holder's slot is filled by the scout and used by
 * the puller, which alone empties it.
 */
#ifndef MC_P2P_P2P_H
#define MC_P2P_P2P_H

#include "map.h"
#include "record.h"

#include <pthread.h>

enum {
	P2P_PER_HOLDER = 2,		/* flights to one of several */
	P2P_SPARES = 2,			/* shards asked twice, at once */
	P2P_LIES = 3,			/* wrong copies until one is shunned */
	P2P_RING = 6,			/* nodes, about, that ask the source */
};

enum p2p_slot {
	P2P_FREE,			/* may be filled */
	P2P_OPENING,			/* the scout connects */
	P2P_UP,
	P2P_GONE,			/* to be emptied */
};

/* A node that may have shards we want. */
struct p2p_holder {
	enum p2p_slot slot;
	char segment[MC_NAME_MAX];
	int id;				/* of the segment */
	uint32_t hash;			/* as in its key */
	uint64_t rank;			/* among our neighbours; 0: the best */
	uint64_t map_addr;		/* 0: no map, it has all at @offsets */
	uint64_t *offsets;
	uint64_t *bases;		/* of its buffers */
	uint32_t tag;			/* in other maps; 0: not known yet */
	bool source;
	bool known;			/* it has answered since it was down */
	bool complete;			/* has all shards */
	uint32_t mine;			/* flights from it */
	uint32_t asked;			/* and those of others, as they say */
	uint32_t lies;
	uint32_t down_ms;		/* it is left alone, next time */
	uint64_t down_until_ns;
	uint64_t silent_ns;		/* since when it has not answered */
	uint64_t seen_ns;		/* its map was read last */
	uint64_t map_batch;		/* one that reads its map alone */
	bool map_read;			/* one is under way */
	double shard_s;			/* of its time, a shard; 0: unknown */
	uint64_t shard_ns;		/* when that was measured */
	struct p2p_ask asks[P2P_ASKS];	/* as counted */
};

/* A shard on its way. */
struct p2p_flight {
	uint64_t batch;
	bool active;
	bool spare;			/* to a spare: one is in its place */
	bool with_map;
	bool canceled;			/* the spare has come first */
	bool waiting;			/* is here, for the one in its place */
	uint32_t shard;
	int holder;
	uint32_t asks;			/* at the holder, with this one */
	uint64_t start_ns;
};

enum p2p_state { P2P_GETTING, P2P_HERE, P2P_FAILED };

struct p2p_object {
	struct p2p_object *next;
	struct mc_p2p *p;
	struct p2p_record r;
	struct p2p_shard *at;		/* of each shard */
	enum p2p_state state;
	int err;			/* why FAILED */
	uint32_t refs;			/* scout and callers that look at it */
	bool closing;
	bool source;
	bool published;			/* its key is there */
	bool own_memory;
	uint32_t registered;		/* buffers, of those given */
	bool *ours;			/* which we registered */
	struct mc_range *buffers;
	struct p2p_map *map;
	uint64_t renew_ns;		/* the key is put again */
	/* finding others */
	uint64_t list_ns;		/* the keys are listed again */
	uint32_t list_ms, digits;
	uint64_t looks;			/* how often it has looked */
	bool in_ring;			/* of those who ask the source */
	uint64_t orphan_ns;		/* the record has named a dead source */
	int n_holders;			/* slots there are */
	struct p2p_holder *holders;
	/* what is chosen from */
	uint64_t *have;			/* of the holders */
	uint64_t *wanted;
	uint64_t *one;			/* a single bit of them */
	uint16_t *copies;
	float cost[MC_P2P_HOLDERS_MAX];
	uint8_t sources[MC_P2P_HOLDERS_MAX];
	/* on the way */
	struct p2p_flight flights[P2P_ASKS];
	uint32_t busy;			/* batches under way */
	char *landing;			/* maps of the holders */
	char *spares[P2P_SPARES];
	double flight_s;		/* mean of late */
	uint64_t moved_ns;		/* last progress */
	uint32_t timeout_ms;
	struct mc_p2p_progress told;
};

struct mc_p2p {
	struct mc_engine *e;
	char *url;
	int lease_ms, parallel, fanout, neighbours;
	uint64_t random;
	pthread_mutex_t lock;
	pthread_cond_t changed;		/* an object's state, or its use */
	pthread_cond_t scout_wake;
	struct p2p_object *objects;
	int wake_fd;			/* for the puller */
	bool stopping;
	bool pulling, scouting;		/* the threads run */
	pthread_t puller, scout;
	pthread_mutex_t reg_lock;
	struct mc_registry *reg;	/* of callers */
	struct mc_registry *scout_reg;
};

/* ---- swarm.c ---- */

uint64_t p2p_random(struct mc_p2p *p);
void p2p_wake(struct mc_p2p *p);	/* the puller; with the lock or not */

/* An object of that name, with the lock. */
struct p2p_object *p2p_find(struct mc_p2p *p, const char *name);

/* Under the lock: one less looks at it; who leaves it waits to be the last. */
void p2p_object_drop(struct p2p_object *o);

/* ---- catalog.c: with the callers' handle ---- */

int p2p_lookup(struct mc_p2p *p, const char *name, struct p2p_record *r);

/* Its record, in place of none, or of one that may go; with reg_lock. */
int p2p_publish_record(struct p2p_object *o, bool force);

/* Take our name out of the record; the last one takes the record. */
int p2p_withdraw_record(struct p2p_object *o);

/* ---- object.c ---- */

/* Make what an object needs for its record, which it takes; buffers NULL: to
 * be allocated. On error the record is the caller's still. */
int p2p_object_open(struct mc_p2p *p, struct p2p_record *r,
		    const struct mc_range *buffers, bool source,
		    struct p2p_object **out);

/* Free it; nothing may be under way. Waits for peers that are in a copy. */
void p2p_object_close(struct p2p_object *o);

void *p2p_shard_mem(const struct p2p_object *o, uint32_t shard);
bool p2p_shard_ok(const struct p2p_object *o, uint32_t shard, const void *mem);
bool p2p_shard_here(const struct p2p_object *o, uint32_t shard);
void p2p_shard_add(struct p2p_object *o, uint32_t shard);
void p2p_rumour(struct p2p_object *o, uint32_t word, uint64_t bits);

/* ---- holders.c: with the lock ---- */

struct p2p_holder *p2p_holder_new(struct p2p_object *o, const char *segment);
void p2p_holder_empty(struct p2p_object *o, struct p2p_holder *h);
void p2p_holder_down(struct p2p_object *o, struct p2p_holder *h, uint64_t now);

/* Its map has come; false: it is not one of this object. */
bool p2p_holder_map(struct p2p_object *o, struct p2p_holder *h, uint64_t now);
void p2p_holder_static(struct p2p_object *o, struct p2p_holder *h);
bool p2p_holder_open(const struct p2p_holder *h, uint64_t now);
uint32_t p2p_holders_up(const struct p2p_object *o);

/* Choose among the @wanted, but not from @but (-1: from any). */
bool p2p_choose(struct p2p_object *o, const uint64_t *wanted, int but,
		uint64_t now, uint32_t *shard, int *holder);

/* ---- pull.c, scout.c ---- */

void *p2p_pull_main(void *arg);
void *p2p_scout_main(void *arg);

/* The key of our part in an object; written and deleted by the caller's
 * registry handle. */
int p2p_member_put(struct p2p_object *o, struct mc_registry *reg);
int p2p_member_del(struct p2p_object *o, struct mc_registry *reg);

/* A key "mooncake/p2p/ID/HASH-SEGMENT@MAP": false if it is none. */
bool p2p_member_parse(const char *key, size_t len, uint32_t *hash,
		      char segment[MC_NAME_MAX], uint64_t *map_addr);

/* How many keys there are for an object; -errno. */
int64_t p2p_members(struct mc_registry *reg, uint64_t id, char **names);

#endif
