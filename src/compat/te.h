/*
 * te.h - the engine behind the two faces of the public Mooncake that we answer:
 * its C interface (transfer_engine_c.h) and its Python package (python/). Sits
 * on mooncake.h alone.
 *
 * Functions return 0, a count, or -errno with a message in te_why(). Who stands
 * at the outside turns errno into the public numbers, and logs.
 */
#ifndef MC_COMPAT_TE_H
#define MC_COMPAT_TE_H

#include <mooncake.h>

#include "transfer_engine_c.h"

#include <pthread.h>
#include <sys/types.h>

enum { TE_WHY_MAX = 2 * MC_WHY_MAX };

/* What the engine is asked for. */
struct te_config {
	const char *metadata;		/* the public connection string */
	const char *name;		/* local_server_name */
	const char *protocol;		/* "tcp", "rdma", ...; NULL: any */
	const char *devices;		/* as "eth0,eth1"; NULL or "": any */
};

struct te_engine {
	struct mc_engine *mc;
	pid_t pid;			/* a child made by fork has none */
	uint32_t users;			/* threads inside a call */
	bool closing;
	bool closed;
	bool p2p;
	bool graceful;			/* see te_shutdown.c */
	int timeout_ms;			/* of requests, as struct mc_options */
	int open_ms;			/* to open a segment */
	int own;			/* our segment's id, -1: not open yet */
	int n_segments;			/* ids below it have been opened */
	char note[TE_WHY_MAX];		/* what was decided on opening; "" */
	pthread_mutex_t lock;		/* of what follows, and of own */
	struct te_batch **batches;	/* TE_BATCHES of them */
	struct te_batch *free_batches;
	uint32_t n_batches;
	struct te_engine *next;		/* of those with graceful */
};

/* ---- errors (te_error.c) -------------------------------------------- */

/* Set the thread's message; returns @err. */
int te_err(int err, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

/* The same from the engine's own message, for a function of mooncake.h that
 * returned @err; results that are no errors pass. */
int64_t te_mc(int64_t err);
const char *te_why(void);

/* The public numbers: negative for memory and segments, positive for
 * batches. */
int te_code(int err);
int te_status_code(int err);

/* One line on stderr, unless it is the one before it again. */
void te_log(const char *what, const char *why);

/* ---- engines (te_engine.c) ------------------------------------------ */

int te_open(struct te_engine **out, const struct te_config *c);

/* Cancel, withdraw, and stop; from then on calls are refused. False: a thread
 * was still inside a call after @wait_ms, and the engine lives on. */
bool te_close(struct te_engine *te, int wait_ms);
void te_destroy(struct te_engine *te);

/* Every call is between the two. -ESHUTDOWN, -EINVAL for NULL. */
int te_enter(struct te_engine *te);
void te_leave(struct te_engine *te);

/* The public id of a segment: 0 is our own. Back: the id of mooncake.h. */
int te_segment_open(struct te_engine *te, const char *name);
int te_segment(struct te_engine *te, int64_t id);

int te_register(struct te_engine *te, void *addr, uint64_t len,
		const char *location, bool remote);

/* ---- what the environment says (te_options.c) ----------------------- */

/* Strings that options point to. */
struct te_options {
	struct mc_options mc;
	char host[256];			/* of the public name, no brackets */
	char listen_host[256];		/* where to listen; "": everywhere */
	char advertise[260];
	char listen[MC_ADDR_MAX];
	char registry[1024];
	char devices[256];
	char transports[256];
	int port;			/* > 0: this one and no other */
	int port_min, port_max;		/* else one of these */
	bool p2p;
};

int te_options(struct te_options *o, const struct te_config *c,
	       char note[TE_WHY_MAX]);

/* Write o->listen for a port. */
int te_options_listen(struct te_options *o, int port);
bool te_env_on(const char *name);
long te_env_number(const char *name, long min, long max, long otherwise);

/* Can @protocol be had? @note says what is taken instead, if so. */
int te_protocol(const char *protocol, char note[TE_WHY_MAX]);

/* ---- batches (te_batch.c) ------------------------------------------- */

uint64_t te_batch_alloc(struct te_engine *te, uint64_t size);
int te_batch_submit(struct te_engine *te, uint64_t id,
		    const struct mc_req *reqs, uint32_t n,
		    const struct mc_batch_opts *notify);
int te_batch_status(struct te_engine *te, uint64_t id, uint64_t task,
		    struct transfer_status *out);

/* STATUS_PENDING, STATUS_COMPLETED or STATUS_FAILED, with why in te_why();
 * @wait: not before it has ended. */
int te_batch_outcome(struct te_engine *te, uint64_t id, bool wait);
int te_batch_free(struct te_engine *te, uint64_t id);

/* Ask what is in flight to end; forget all. */
void te_batches_cancel(struct te_engine *te);
void te_batches_fini(struct te_engine *te);

/* ---- reports (te_report.c), signals (te_shutdown.c) ----------------- */

int te_nic_stats(struct te_engine *te, nic_load_stat_t *stats, size_t *count);
int te_links(struct te_engine *te, char *out, size_t size, bool json);
char *te_topology(const char *devices);
int te_graceful(struct te_engine *te);
void te_graceful_forget(struct te_engine *te);

#endif
