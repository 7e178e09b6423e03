/*
 * rdma.h - the RDMA transport, as its files see it.
 *
 *	rdma.c		the transport: devices, and the vtable
 *	rdma_memory.c	buffers registered with every device
 *	rdma_keys.c	how a peer learns the key of a buffer
 *	rdma_end.c	one end of a connection: a queue pair and what it needs
 *	rdma_connect.c	two ends meet, and part
 *	rdma_endpoint.c	the same with engines of the public protocol
 *	rdma_path.c	slices posted, and taken back
 *	rdma_note.c	notifications
 *	rdma_pool.c	how many paths there may be
 *
 * A path is one reliable connection. Its queue pair sends; the one at the
 * other end, which is there for this path alone, only answers: its device does
 * for reads and writes, and a worker for notifications. So there is
 * nothing to settle between two engines that connect to each other at the same
 * time: each has its own.
 */
#ifndef MC_RDMA_H
#define MC_RDMA_H

#include "host.h"
#include "rdma_keys.h"
#include "verbs.h"

#include "../base/env.h"
#include "../base/loop.h"
#include "../base/ranges.h"
#include "../base/tasks.h"

enum {
	RDMA_CHAIN = 32,		/* requests posted by one call */
	RDMA_SGES = 4,			/* pieces that one request joins */
	RDMA_CACHE = 1024,		/* keys a path remembers */
	RDMA_ANSWER = 0,		/* no request has that number, so the
					 * receive of an answer has */
	RDMA_SERVED = 4096,		/* ends that answer */
	RDMA_REQUEST = 256 << 10,	/* bytes: a larger one would not show
					 * that it moves */
};

/* ---- devices (rdma.c) ----------------------------------------------- */

struct rdma_dev {
	struct verbs_dev v;
	struct ibv_pd *pd;
	struct rdma_keys keys;		/* of our buffers, for peers */
	struct rdma_ctx *rdma;
	struct ibv_comp_channel *channel;	/* of ends that answer */
	struct ibv_cq *cq;
	struct mc_event notes;		/* some have come */
	pthread_mutex_t event_lock;
	uint32_t faults;		/* port or device failed; atomic */
	char fault[64];			/* the last; under event_lock */
	uint32_t turn;			/* which peer's device is next */
};

/* Paths are bounded in number: one more takes the place of one that has not
 * been used for long (rdma_pool.c). */
struct rdma_pool {
	pthread_mutex_t lock;
	struct rdma_path *newest, *oldest, *hand;
	int n, max;
	uint64_t idle_ns;		/* of a path that is ended; 0: never */
	uint64_t swept_ns;		/* when those were last looked for;
					 * atomic */
};

struct rdma_ctx {
	struct mc_host *host;
	volatile uint8_t *alive;	/* a page that fork() wipes */
	bool asked;			/* rdma was asked for by name */
	struct rdma_dev devs[VERBS_DEVS];
	int n_devs;

	pthread_rwlock_t memory_lock;
	struct mc_ranges by_addr;	/* of struct rdma_buffer */
	uint32_t memory_version;	/* grows as buffers go; atomic */
	bool warned;			/* of memory that cannot be had */
	uint8_t chunk_bits;		/* buffers are cut at multiples */
	bool on_demand;			/* asked for: pages are not pinned */
	struct mc_tasks tasks;		/* register much memory, and part */

	struct rdma_pool pool;		/* paths that are open */

	pthread_mutex_t served_lock;
	struct rdma_served *served;	/* ends that answer peers' paths */
	int n_served;

	pthread_mutex_t endpoint_lock;
	struct rdma_endpoint *endpoints;	/* with strange peers */
	int n_endpoints;
};

/* Look for events of the device; never waits. */
void mc_rdma_dev_look(struct rdma_dev *d);

/* ---- memory (rdma_memory.c) ----------------------------------------- */

/* A chunk of a buffer, to be used while no buffer has gone since. */
struct rdma_local {
	uint64_t addr, len;
	uint32_t lkey, version;
};

int mc_rdma_reg(void *ctx, const struct mc_buffer_info *b, int fd,
		uint64_t offset);
int mc_rdma_unreg(void *ctx, const struct mc_buffer_info *b);
void mc_rdma_memory_fini(struct rdma_ctx *c);

/* The key for device @dev of a whole buffer, for strange peers: false if it has
 * none, or one for each of its chunks. */
bool mc_rdma_v1_key(void *ctx, const struct mc_buffer_info *b, int dev,
		    uint32_t *rkey);

/* The chunk that holds @addr with its key for device @dev: false if there is
 * none. */
bool mc_rdma_local(struct rdma_ctx *c, int dev, uint64_t addr,
		   struct rdma_local *out);

/* How large chunks are, by the devices and MC_MAX_MR_SIZE: rdma_keys.h. */
int mc_rdma_chunk_bits(const struct rdma_ctx *c);

/* ---- ends (rdma_end.c) ---------------------------------------------- */

struct rdma_end {
	struct ibv_comp_channel *channel;	/* NULL: it only answers */
	struct ibv_cq *cq;		/* NULL: the device's */
	struct ibv_qp *qp;
	uint32_t depth, sges, inline_max, psn;
};

/* What an end has to know of the other. */
struct rdma_far {
	uint32_t qpn, psn;
	uint16_t lid;
	uint8_t rd_atomic;
	int mtu;			/* bytes */
	uint8_t sgid_index;		/* of our own GID, for it */
	uint8_t gid[16];
};

/* A queue of @n completions, and a channel that tells of them without
 * blocking; what there is of them on error is the caller's to destroy. */
int mc_rdma_channel(struct rdma_dev *d, int n, struct ibv_comp_channel **ch,
		    struct ibv_cq **cq);

int mc_rdma_end_open(struct rdma_dev *d, bool sends, struct rdma_end *out);
int mc_rdma_end_join(struct rdma_dev *d, struct rdma_end *e,
		     const struct rdma_far *far);

/* Stop it: nothing more is sent or received. Waits for its requests to be
 * given back, until the deadline. */
void mc_rdma_end_stop(struct rdma_end *e, uint64_t last, uint64_t deadline_ns);
void mc_rdma_end_close(struct rdma_end *e);

/* ---- notifications (rdma_note.c) ------------------------------------ */

/* What a notification is sent from, or received in. */
struct rdma_note_mem {
	char *bytes;			/* MC_NOTE_MAX */
	struct ibv_mr *mr;
};

/* An end of ours that answers a peer's path. */
struct rdma_served {
	uint64_t token, epoch;
	uint64_t conn;			/* 0: that has gone, since */
	uint64_t gone_ns;
	char peer[MC_NAME_MAX];
	struct rdma_end end;
	struct rdma_note_mem note_mem;
	uint32_t notes;			/* taken */
	struct rdma_served *next;
};

struct rdma_path;

void mc_rdma_note_mem_close(struct rdma_note_mem *l);

/* The device tells of notifications from now on. */
int mc_rdma_notes_serve(struct rdma_ctx *c, struct rdma_dev *d);

/* The end can be sent one: with its token, before the peer knows of it. */
int mc_rdma_notes_receive(struct rdma_dev *d, struct rdma_served *s);

/* The path can send some. */
int mc_rdma_notes_open(struct rdma_path *p);

/* Under the path's lock: send one of those that wait, if it can be. */
void mc_rdma_notes_push(struct rdma_path *p);

/* Now and then: is the end still there that an answer is to come from? */
void mc_rdma_notes_look(struct rdma_path *p, uint64_t now);

/* The peer has answered, or the queue pair says why not. */
void mc_rdma_note_answered(struct rdma_path *p, const struct ibv_wc *wc);

/* Nothing is sent any more: the peer has said how many it has taken, -1: it has
 * not. */
void mc_rdma_notes_settle(struct rdma_path *p, int64_t taken);

/* ---- connections (rdma_connect.c) ----------------------------------- */

int mc_rdma_connect(void *ctx, const struct mc_peer *peer, int dev,
		    uint64_t deadline_ns, struct mc_path **out);
int mc_rdma_accept(void *ctx, uint64_t conn, const struct mc_blob *hello,
		   struct mc_blob *reply, int *fds, int *n_fds);
void mc_rdma_gone(void *ctx, uint64_t conn);
void mc_rdma_served_fini(struct rdma_ctx *c);

/* Ask the peer to end its end of the path: nothing more is written then. How
 * many notifications it has taken; -1: it did not say. */
int64_t mc_rdma_part(struct rdma_path *p, bool patient, uint64_t deadline_ns);

/* The same on a task, for a path that nothing is in flight on. If there can be
 * no task, it is left to mc_rdma_part(). */
void mc_rdma_part_later(struct rdma_path *p);

/* ---- with strange peers (rdma_endpoint.c) ---------------------------- */

int mc_rdma_endpoint_connect(struct rdma_path *p, int dev,
			     uint64_t deadline_ns);

/* The path lets go of its queue pair; @broken: it is of no use to others. */
void mc_rdma_endpoint_release(struct rdma_path *p, bool broken);
void mc_rdma_endpoints_fini(struct rdma_ctx *c);

int mc_rdma_v1_devices(void *ctx, struct mc_v1_device *out, int max);
void mc_rdma_v1_accept(void *ctx, const struct mc_meeting *asked,
		       struct mc_meeting *reply);

/* ---- the pool (rdma_pool.c) ----------------------------------------- */

void mc_rdma_pool_init(struct rdma_pool *p);
void mc_rdma_pool_fini(struct rdma_pool *p);

/* Take @path in; if there are too many, one that is idle is ended for it. */
void mc_rdma_pool_add(struct rdma_pool *p, struct rdma_path *path);

/* End those that were not used for long, if it is time to look for them. The
 * caller may hold the lock of a path, which then is in use. */
void mc_rdma_pool_sweep(struct rdma_pool *p);
void mc_rdma_pool_del(struct rdma_pool *p, struct rdma_path *path);

/* ---- paths (rdma_path.c) -------------------------------------------- */

/* A slice all of whose requests are posted, and the number of the last. */
struct rdma_sent {
	struct mc_slice *s;		/* NULL: a question for a key */
	uint64_t last;
	int err;			/* it ends with this all the same */
};

/* The key of a chunk of the peer's; id 0: none. */
struct rdma_known {
	struct rdma_chunk chunk;
	uint32_t rkey;
};

enum rdma_asking {
	RDMA_KNOWS, RDMA_ASKS_ROOT, RDMA_ASKS_RUN,
};

struct rdma_path {
	struct mc_path base;
	struct rdma_ctx *rdma;
	struct rdma_dev *dev;
	struct rdma_end end;
	struct mc_peer peer;
	uint64_t token;			/* the peer's name for its end */
	struct rdma_endpoint *endpoint;	/* of a strange peer; NULL */
	int end_index, far_dev;		/* which of its ends, and whose */
	uint32_t faults;		/* of the device, when it was made */

	/* Slices not yet posted whole; the first from where we are. */
	struct mc_slice *waiting, **tail;
	uint32_t piece, off;

	uint64_t posted, done;		/* requests, counted from the first */
	uint64_t marked;		/* the last that will be heard of */
	uint64_t unmarked_bytes;	/* posted since */
	uint64_t bytes;			/* posted in all */
	uint64_t *upto;			/* with each request: ring, as sent */
	struct rdma_sent *sent;		/* ring of end.depth, rounded up */
	uint32_t mask, head, next;

	struct rdma_local local;	/* last hit */
	enum rdma_asking asking;
	struct rdma_chunk ask;
	uint8_t chunk_bits;		/* of the peer's chunks */
	struct rdma_root keys;		/* where the peer's root is: its addr
					 * and rkey */
	struct rdma_answer *answer;
	struct ibv_mr *answer_mr;
	struct rdma_known cache[RDMA_CACHE];

	/* Notifications: those that wait; the one that the peer is to answer;
	 * the one that it has answered; and how many it has taken. */
	struct mc_slice *notes, **notes_tail, *note_sent, *note_answered;
	uint32_t notes_taken;
	uint64_t note_request;		/* that carries note_sent or a look */
	uint64_t note_look;		/* the last look, no progress */
	struct rdma_note_mem note_mem;

	/* In the pool. */
	struct rdma_path *newer, *older;
	bool pooled;
	bool used;			/* since the hand passed; atomic */
	uint64_t idle_posted, idle_since_ns;	/* as swept; by base.lock */

	bool armed, rung;		/* the channel will tell, has told */
	uint32_t looks;
	uint64_t looked_ns;

	struct ibv_send_wr wr[RDMA_CHAIN];
	struct ibv_sge sge[RDMA_CHAIN * RDMA_SGES];
};

struct rdma_path *mc_rdma_path_new(struct rdma_ctx *c, int dev,
				   const struct mc_peer *peer);
void mc_rdma_path_free(struct rdma_path *p);

/* What it needs to be used. */
int mc_rdma_path_memory(struct rdma_path *p);

/* Post one request that is no slice's, to be heard of: its number. */
uint64_t mc_rdma_path_request(struct rdma_path *p, struct ibv_send_wr *wr);

/* The connection has failed, as its completion says. */
void mc_rdma_path_broken(struct rdma_path *p, const struct ibv_wc *wc);

/* Read the peer's root of keys once, to see that bytes flow. */
int mc_rdma_path_probe(struct rdma_path *p, uint64_t deadline_ns);

/* Have the descriptor tell of what ends: from the first on, for whoever sleeps
 * on it without a look before. */
bool mc_rdma_path_arm(struct rdma_path *p);

/* Under its lock: end an idle one, to be made anew when it is wanted. False:
 * it is not idle. */
bool mc_rdma_path_retire(struct rdma_path *p, const char *why);

void mc_rdma_abort(struct mc_path *base, uint64_t deadline_ns);
void mc_rdma_disconnect(struct mc_path *base);
int mc_rdma_post(struct mc_path *base, struct mc_slice *const *s, int n);
int mc_rdma_poll(struct mc_path *base, struct mc_slice **out, int max);

#endif
