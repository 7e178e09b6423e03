/*
 * engine.h - the engine's own structs, seen by the files of this folder only.
 *
 * Locks, in the order in which they are taken: peers, a peer, a path; a batch's
 * lock and the buffers' are taken last and alone.
 */
#ifndef MC_ENGINE_H
#define MC_ENGINE_H

#include "../base/clock.h"
#include "../base/err.h"
#include "../base/loop.h"
#include "../base/ranges.h"
#include "../base/spin.h"
#include "../base/tasks.h"
#include "../base/util.h"
#include "../registry/record.h"
#include "../topology/matrix.h"
#include "../transport/host.h"
#include "../transport/server.h"
#include "../transport/wire.h"
#include "../v1/segment.h"
#include "../v1/server.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
	ENGINE_TRANSPORTS = 8,
	ENGINE_PEERS = 4096,
	ENGINE_BATCHES = 65536,
	ENGINE_RAILS = 32,		/* per peer */
	ENGINE_DEVS = 16,		/* per transport */
	ENGINE_PATHS = 8,		/* per rail */
	ENGINE_NOTES = 4096,		/* notifications waiting */
	ENGINE_GONE = 4096,		/* removed buffers remembered */
	ENGINE_QUIET_MS = 900,		/* default: fails when nothing moved */
	ENGINE_STALL_MS = 400,		/* a path that moves nothing so long
					 * has failed */
	ENGINE_TICK_MS = 20,
	WAIT_PATHS = 32,		/* one thread leads at a time */
};

struct peer;
struct rail;
struct slice;
struct batch;

/* ---- buffers (buffers.c) -------------------------------------------- */

struct buffer {
	struct mc_node node;		/* address, length */
	struct mc_buffer_info info;
	uint64_t version;		/* of the table when it came; 0: not all
					 * transports know it yet */
	uint64_t mapped;		/* of mc_buffer_alloc(): bytes, or 0 */
	int fd;				/* of that memory; -1 */
	uint32_t near;			/* rails it uses first: bits */
	int uses;			/* by own requests; atomic */
};

struct buffers {
	pthread_rwlock_t lock;
	struct mc_ranges by_addr;
	uint32_t last_id;
	uint64_t version;
	struct { uint32_t id; uint64_t version; } gone[ENGINE_GONE];
	uint64_t n_gone;
};

/* The buffer that holds [addr, addr+len), with a use taken, or NULL. */
struct buffer *buffer_use(struct mc_engine *e, uint64_t addr, uint64_t len);
void buffer_drop(struct buffer *b);

/* The table since @since for a peer, malloc'd. */
int buffers_describe(struct mc_engine *e, uint64_t since, void **out,
		     uint32_t *len);
void buffers_fini(struct mc_engine *e, bool in_child);

/* Those that peers may reach, malloc'd. */
int buffers_shared(struct mc_engine *e, struct mc_buffer_info **out,
		   uint64_t *n);

/* ---- peers (peers.c), descriptors (describe.c) ---------------------- */

/* What a peer said of its buffers; never changed once it is shared. */
struct desc {
	int refs;			/* atomic */
	uint64_t epoch, version;
	uint64_t n, bytes;
	struct mc_matrix *matrix;	/* of its devices; NULL */
	struct mc_buffer_info buf[];	/* by address */
};

/* Of @n buffers in order. */
struct desc *desc_new(uint64_t epoch, const struct mc_buffer_info *buf,
		      uint64_t n);
struct desc *desc_get(struct peer *p);
struct desc *desc_get_at(struct peer *p, bool *current);
void desc_put(struct desc *d);

/* The buffer that holds the range, or NULL; @hint is the last hit's index. */
const struct mc_buffer_info *desc_find(const struct desc *d, uint64_t addr,
				       uint64_t len, uint64_t *hint);

/* Merge a peer's answer to WIRE_DESCRIBE into what was known. */
int desc_merge(const struct desc *old, uint64_t epoch, const void *msg,
	       uint32_t len, struct desc **out, char addrs[4][MC_ADDR_MAX],
	       int *n_addrs);

/* A control connection to a peer. */
struct link {
	pthread_mutex_t lock;
	struct mc_stream s;
	bool up;
	struct mc_event ev;		/* local link: its end is the peer's */
	uint64_t epoch;			/* control link: who is there */
};

struct peer {
	struct mc_engine *e;
	int id;
	pthread_mutex_t lock;
	struct mc_peer at;		/* changes when it restarts */
	char addrs[4][MC_ADDR_MAX];	/* one per interface it offers */
	int n_addrs;
	struct desc *desc;
	struct rail *rails[ENGINE_RAILS];
	int n_rails;
	struct slice *pending, **pending_tail;
	uint64_t n_pending;		/* read without the lock */
	bool sift;			/* some of them have expired; atomic */
	struct link control, local;
	pthread_mutex_t v1_lock;	/* a leaf */
	struct mc_v1_segment v1;	/* of one that is strange */
	int batches;			/* in flight; atomic */
	uint64_t moved_ns;		/* bytes last moved; atomic */
	int tasks;			/* and threads, that know the peer;
					 * atomic */
	bool closing;
};

struct peer *peer_of(struct mc_engine *e, int segment);
struct mc_peer peer_at(struct peer *p);

/* A peer that stays until it is dropped; with a message if there is none. */
struct peer *peer_use(struct mc_engine *e, int segment);
int peer_need(struct mc_engine *e, int segment, struct peer **out);
void peer_drop(struct peer *p);
int peer_refresh(struct peer *p, uint64_t deadline_ns);
int peer_call(struct peer *p, struct wire_call *c, bool local,
	      uint64_t deadline_ns);
void peer_close(struct peer *p);

/* ---- rails (rails.c) ------------------------------------------------ */

/* A path and what the engine knows of it. */
struct epath {
	struct mc_path *p;
	struct rail *rail;
	struct mc_event ev;
	struct slice *inflight;		/* under the path's lock */
	uint64_t inflight_bytes;	/* atomic; read without */
	uint64_t seen_progress, seen_ns; /* when it last grew */
	uint64_t done_ns, done_posted_ns; /* the last slice: ended, posted */
	struct mc_loop *loop;		/* that watches it; NULL: no fd */
	uint64_t near;			/* places of the peer that its device
					 * there suits: bits */
	bool gone;			/* aborted; under the path's lock */
	struct waiter *leader;		/* who sleeps on it; atomic */
	bool innocent;			/* given up for a batch's sake */
	bool dead;			/* under the peer's lock */
	int refs;			/* under the peer's lock */
};

struct rail {
	struct peer *peer;
	const struct mc_transport *t;
	void *ctx;
	int id, index, dev;		/* id: of the transport */
	int wish;			/* a place of the peer: the next path is
					 * to be from a device near it; -1 */
	uint64_t wish_ns;		/* no wishes before */
	char local_dev[32], remote_addr[MC_ADDR_MAX];
	char remote_dev[MC_ADDR_MAX];	/* of its last path */
	enum mc_rail_state state;
	bool connecting;
	struct epath *paths[ENGINE_PATHS];
	int n_paths;
	uint64_t retry_ns, backoff_ns;
	char why[MC_WHY_MAX];
	/* Live figures: atomic, relaxed. */
	uint64_t bytes[2], slices, notes, errors, local_errors, connects;
	uint64_t inflight;
	uint64_t bw, latency_ns;	/* moving averages */
	uint64_t hist[MC_HIST_BUCKETS];
};

void rails_build(struct peer *p);
int rails_connect_first(struct peer *p, uint64_t deadline_ns);
void rail_connect(struct rail *r, int wish);
bool rail_wanted(struct rail *r, uint64_t now);

/* Under the peer's lock: a path more, from a device near @place. */
void rail_wish(struct rail *r, int place);
void rails_lost_local(struct peer *p);
void rails_reset(struct peer *p);
void rail_sample(struct rail *r, enum mc_op op, uint64_t len, uint64_t ns);
void rail_error(struct rail *r, int err, const char *why);
void path_fail(struct epath *ep, const char *why);
void path_put(struct epath *ep);
bool rails_end(struct peer *p);
void rails_free(struct peer *p);
static inline bool rail_copies(const struct rail *r)
{
	return r->t->copy;
}

/* ---- batches (batch.c, split.c, spray.c, drive.c) ------------------- */

struct slice {
	struct mc_slice s;
	struct batch *batch;
	struct peer *peer;
	struct epath *on;		/* posted there */
	struct slice *next, *prev;	/* pending, or in flight on a path */
	uint64_t epoch;			/* of the peer whose ids it has */
	uint32_t tried;			/* rails, by index */
	uint32_t tries;
	uint32_t near;			/* rails for its first byte: bits */
	int place;			/* of that at the peer, in its matrix;
					 * -1: no matter */
	bool gpu;			/* memory of one, at either end */
	bool hopeless;			/* memory that no rail reaches */
	bool no_copy, refreshed;
	char why[MC_WHY_MAX];		/* its last error */
};

struct breq {
	uint64_t len;
	uint32_t left;			/* pieces */
	int err;
};

struct waiter {
	int fd;				/* eventfd */
	pthread_t thread;
	bool woken;			/* under the batch's lock */
	struct epath *led[WAIT_PATHS];	/* it sleeps on; with a reference */
	int n_led;
	struct waiter *next;
};

struct batch {
	struct mc_engine *e;
	uint32_t index, gen;
	int refs;			/* of threads inside; e->batch_lock */
	bool used, freed, async;
	pthread_mutex_t lock;
	struct breq *reqs;
	uint32_t n_reqs, cap_reqs;
	struct mc_piece *pieces;
	uint32_t *piece_req;
	uint32_t n_pieces, cap_pieces;
	struct slice *slices;
	uint32_t n_slices, cap_slices;
	struct buffer **held;
	uint32_t n_held, cap_held;
	uint32_t left;			/* slices without an outcome */
	uint32_t done, failed;		/* requests */
	uint64_t bytes;
	int err;
	char why[MC_WHY_MAX];
	enum mc_state state;		/* of the whole; atomic */
	uint64_t deadline_ns;		/* 0: by progress */
	uint64_t progress_ns;		/* when something last moved */
	bool beginning;			/* not all is posted: it moves */
	bool canceled;
	int expired;			/* -ETIMEDOUT or -ECANCELED */
	uint64_t quiesce_ns;		/* then its paths are closed */
	struct waiter *waiters;
	struct batch *prev, *next;	/* active, then completed */
	bool listed;			/* among the completed */
	char *note;			/* the last slice is a notification:
					 * name, zero, message; or NULL */
	bool note_due;			/* who waits is to send it; atomic */
	double weights[ENGINE_TRANSPORTS];
	bool weighted, workers_only;
};

/* Requests to pieces: a walk that validates as it goes (split.c). */
struct split {
	struct mc_engine *e;
	const struct mc_req *reqs;
	int n, i;			/* requests; the one at hand */
	struct peer *peer;
	struct desc *desc;
	uint64_t hint;
	struct buffer *local;		/* last hit, with a use */
	bool far_gpu;			/* the last remote one is a GPU's */
	struct mc_range lone[2];	/* of a plain request */
	const struct mc_range *l, *r;
	uint32_t nl, nr, il, ir;
	uint64_t ol, or;		/* offsets into l[il], r[ir] */
	uint64_t max_len;
};

void split_init(struct split *s, struct mc_engine *e, const struct mc_req *q,
		int n, uint64_t max_len);
int split_next(struct split *s, struct mc_piece *out);

/* Is either end of the piece that came last a GPU's? */
static inline bool split_gpu(const struct split *s)
{
	return s->far_gpu || s->local->info.gpu;
}

/* The remote place of the piece that came last, in its peer's matrix; -1. */
int split_place(const struct split *s);
void split_fini(struct split *s);

/* Its peers stay, though it may end meanwhile, until batch_leave(). To enter
 * one that others may end is to hold its lock and see that it has not ended. */
void batch_enter(struct batch *b);
void batch_leave(struct batch *b);

struct batch *batch_new(struct mc_engine *e);
int batch_find(struct mc_engine *e, uint64_t id, struct batch **out);
void batch_put(struct batch *b);
int batch_build(struct batch *b, const struct mc_req *reqs, int n);
void batch_start(struct batch *b, bool async);
void batch_result(struct batch *b, struct mc_result *out);
bool batch_discard(struct batch *b);
void batch_peers(struct batch *b, int by);
int batch_options(struct batch *b, const struct mc_batch_opts *o);
void batch_check(struct batch *b, uint64_t now);
void batches_fini(struct mc_engine *e);
static inline int batch_expired(struct batch *b)
{
	return __atomic_load_n(&b->expired, __ATOMIC_ACQUIRE);
}

static inline bool batch_ended(struct batch *b)
{
	/* Pairs with the release in batch_end(). */
	return __atomic_load_n(&b->state, __ATOMIC_ACQUIRE) != MC_PENDING;
}

/* A slice has an outcome on its path, or needs another (batch.c). */
void slice_end(struct slice *s, int err, const char *why);
void slice_requeue(struct slice *s);
int slice_refresh(struct slice *s);
void batch_note(struct batch *b);
void batch_wake(struct batch *b);
uint64_t batch_id(const struct batch *b);

/* Give pending slices to rails (spray.c). @self: who drives its paths. */
void spray_pump(struct peer *p, struct batch *self);

/* Send a notification by a rail: false if there is none that takes it. */
bool spray_note(struct slice *s);

/* Take what a path has finished; true if it had anything (drive.c). @events are
 * what to sleep on: who asks leads, and comes next where another thread is at
 * the path; with NULL that one is left to it. */
bool drive_path(struct epath *ep, short *events);
void drive_pump_all(struct batch *b, struct batch *self);

/* Wait, and do the batch's work meanwhile (wait.c). */
int batch_wait(struct batch *b, uint64_t until_ns);
void drive_on_event(struct mc_event *ev, uint32_t events);
void drive_arm(struct epath *ep);
void drive_end_slice(struct slice *s);
void drive_tick(void *engine);

/* ---- serving (serve.c) ---------------------------------------------- */

struct note {
	struct mc_notify n;
	struct note *next;
};

struct question {
	struct mc_eval q;
	uint64_t conn, frame;
	struct question *next;
	char text[];
};

struct serving {
	pthread_mutex_t lock;
	pthread_cond_t asked;
	struct note *notes, **notes_tail;
	int n_notes;
	bool eval;
	uint64_t last_question;
	struct question *waiting, **waiting_tail, *answering;
	int n_waiting;
};

void serving_init(struct mc_engine *e);
void serving_fini(struct mc_engine *e);

void engine_signal(struct mc_engine *e);
void engine_unsignal(struct mc_engine *e);

/* ---- the engine (engine.c) ------------------------------------------ */

struct engine_transport {
	const struct mc_transport *t;
	void *ctx;
	int id;
	char devs[ENGINE_DEVS][32];	/* rails of every peer, in this order */
	int n_devs;
};

struct mc_engine {
	char name[MC_NAME_MAX], addr[MC_ADDR_MAX];
	uint64_t epoch, host_id;
	char addrs[1024];		/* of its devices, each with a zero */
	uint32_t addrs_len;
	struct mc_matrix *matrix;	/* of its devices; NULL: one will do */
	struct mc_options opts;		/* strings are ours */
	volatile uint8_t *alive;	/* a page that fork() wipes */
	struct mc_key key;
	struct mc_tls *tls;
	struct engine_transport tr[ENGINE_TRANSPORTS];
	int n_tr;
	struct mc_loop loops[16];
	int n_loops;
	struct mc_tasks tasks;		/* what ends by itself, soon */
	struct mc_tasks slow;		/* copies, and what peers take long
					 * over */
	struct mc_server *server;
	bool public;			/* the profile is v1 */
	struct mc_v1_server *v1;	/* NULL: it is not served */
	struct publish *publish;
	struct buffers buffers;
	pthread_mutex_t peer_lock;
	struct peer *peers[ENGINE_PEERS];
	int n_peers;			/* high water */
	pthread_mutex_t batch_lock;
	struct batch **batches;		/* ENGINE_BATCHES */
	uint32_t n_batches;
	struct batch *pool;		/* free ones */
	struct batch *active;		/* submitted by mc_submit() */
	struct batch *completed, *completed_last;
	struct waiter *waiters;		/* pool */
	bool ticking;
	int waiting;			/* threads; atomic */
	uint64_t copy_paths;		/* how many there are; atomic */
	struct mc_spin spin;		/* of threads that wait */
	int fd;
	bool signaled;
	struct serving serving;
	struct mc_stats stats;		/* atomic, relaxed */
	bool closing;
};

static inline void count(uint64_t *counter, uint64_t n)
{
	__atomic_add_fetch(counter, n, __ATOMIC_RELAXED);
}

/* Is @name one of a list such as "tcp,shm"? */
bool engine_listed(const char *list, const char *name);

/* address.c: where peers reach us. */
int engine_address(struct mc_engine *e);
void engine_devices(struct mc_engine *e);

/* -EPERM in a process that only inherited @e by fork(). */
int engine_check(const struct mc_engine *e);

/* There: let go of what the fork copied (forked.c). */
void engine_forget(struct mc_engine *e);
uint64_t engine_deadline(const struct mc_engine *e, int timeout_ms);

/* publish.c: the record in a registry, kept alive. */
int publish_open(struct mc_engine *e);
void publish_close(struct mc_engine *e);
int publish_resolve(struct mc_engine *e, const char *name, struct mc_peer *at);
bool publish_is_peer(const struct mc_engine *e);

/* What the record says has changed: it is put again, soon. */
void publish_changed(struct mc_engine *e);

/* ---- the public Mooncake's protocol (public.c) ---------------------- */

/* What the profile says, and listening: the native server at @listen, and the
 * port for data. */
int public_profile(struct mc_engine *e);
int public_serve(struct mc_engine *e, const char *listen,
		 const char *unix_name);

/* What a record points to. */
struct public_record {
	struct mc_buffer_info *buffers;
	struct mc_record_dev devs[MC_V1_DEVICES];
	uint32_t *keys;
};

/* The record of this engine; @own is freed in any case. */
int public_record(struct mc_engine *e, struct mc_record *out,
		  struct public_record *own);
void public_record_free(struct public_record *own);

/* What is @p? 1: one of our engines, to be asked natively; 0: one that speaks
 * only the public protocol, and what it said of itself is now known. */
int public_refresh(struct peer *p, uint64_t deadline_ns);

/* A call to such a one, as peer_call(); under the lock of its control link. */
int public_call(struct peer *p, struct wire_call *c, uint64_t deadline_ns);

#endif
