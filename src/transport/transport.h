/*
 * transport.h - what the engine and a transport know of each other.
 *
 * A transport makes paths to peers. A path is one connection (or queue pair,
 * or mapping) of a rail; the engine gives it slices and takes them back. There
 * are two kinds of path, told apart by which functions the transport has:
 *
 * - copy(): the bytes are moved by the calling thread, before it returns.
 * - post() and poll(): slices are queued and come back later, exactly once, in
 *   any order; fd and events say what to sleep on in between.
 *
 * Threads: the engine holds the path's lock in post(), poll() and abort(), so
 * whoever wants progress (a worker, or a caller that waits) drives the path,
 * one at a time. copy() runs in many threads at once without a lock. connect()
 * and disconnect() may block and run on no worker; disconnect() only when no
 * one uses the path any more.
 *
 * Functions return 0 or a count, or -errno with a message by mc_err().
 */
#ifndef MC_TRANSPORT_H
#define MC_TRANSPORT_H

#include <mooncake.h>

#include <pthread.h>

struct mc_host;
struct mc_path;
struct mc_transport;

/* The part of a request between two cuts: contiguous at both ends. */
struct mc_piece {
	void *local;
	uint64_t remote;
	uint32_t len;
	uint32_t id;			/* of the remote buffer: its epoch */
};

enum {
	MC_BLOB_MAX = 512,
	/* A slice that is a notification: name, zero, message. It ends when
	 * the peer has it, or with the peer's error. */
	MC_NOTE = MC_WRITE + 1,
	MC_NOTE_MAX = 4096,
};

/* What travels on one path as a unit; the engine's struct embeds it. */
struct mc_slice {
	int op;				/* enum mc_op, or MC_NOTE */
	int err;			/* set when poll() returns it */
	uint32_t n;
	uint64_t len;			/* of all pieces */
	struct mc_piece *pieces;
	const void *note;		/* MC_NOTE: @len bytes, and then a */
	bool there;			/* thread of the peer's is to answer */
	struct mc_slice *next;		/* for queues of whoever holds it */
	uint64_t posted_ns;
	struct mc_path *path;		/* the engine's note: where it is */
	char *why;			/* MC_WHY_MAX bytes, set with err */
};

/* Bytes that mean something to one transport only, at both ends. */
struct mc_blob {
	uint32_t len;
	uint8_t data[MC_BLOB_MAX];
};

/* A device of a peer that speaks only the public protocol, or of ours as such a
 * peer is told of it. */
struct mc_v1_device {
	char name[32];
	uint16_t lid;
	uint8_t gid[16];
	uint8_t dev;			/* of ours: its number */
};

enum {
	MC_V1_DEVICES = 16,
	MC_V1_NIC_MAX = MC_NAME_MAX + 40,
	MC_V1_QPS = 16,			/* queue pairs of a connection */
};

/* What one such engine tells another of a connection between two of their
 * devices, and hears from it. */
struct mc_meeting {
	char from[MC_V1_NIC_MAX];	/* "name@device" of who says it */
	char to[MC_V1_NIC_MAX];		/* and of whom it is meant for */
	uint8_t gid[16];		/* all 0: not told */
	uint16_t lid;
	uint32_t qps[MC_V1_QPS];
	int n_qps;
	bool can_ack, ack;		/* it confirms readiness; it does now */
	char why[MC_WHY_MAX];		/* not "": refused */
};

/* A remote engine as a transport sees it. */
struct mc_peer {
	char name[MC_NAME_MAX];
	char addr[MC_ADDR_MAX];		/* host:port of its listener */
	uint64_t epoch;			/* 0: not known yet */
	uint64_t host_id;		/* equal: it may be on this host */
	bool strange;			/* it speaks only the public protocol */
	char v1_addr[MC_ADDR_MAX];	/* then its data port, or "" */
	int v1_version;			/* of its framing */
	char wish[32];			/* the device of its to connect to, if
					 * it can be; or "" */
	void *engine;			/* the engine's own note of it */
};

struct mc_path {
	const struct mc_transport *transport;
	void *ctx;
	pthread_mutex_t lock;
	int fd;				/* sleep on this, -1: nothing */
	short events;			/* POLLIN and POLLOUT as wanted now */
	int err;			/* dead since: negative errno; -ESTALE:
					 * as a slice was refused, and not the
					 * others */
	char why[MC_WHY_MAX];
	uint64_t queued;		/* bytes posted and not returned */
	uint64_t progress;		/* grows while anything moves */
	bool notes;			/* it takes MC_NOTE */
	char remote_dev[MC_ADDR_MAX];
};

enum mc_strangers { MC_STRANGERS_NO, MC_STRANGERS_TOO, MC_STRANGERS_ONLY };

struct mc_transport {
	const char *name;
	enum mc_strangers strangers;	/* who speak only the public protocol */
	bool gpu;			/* it reaches memory of GPUs, too */

	/* @host is what the engine does for the transport (below). The context
	 * lives as long as the engine. -EOPNOTSUPP: not on this machine. */
	int (*open)(void **ctx, struct mc_host *host,
		    const struct mc_options *opts);
	void (*close)(void *ctx);

	/* Names of local devices, each a rail; NULL: one, called after the
	 * transport. */
	int (*devices)(void *ctx, char names[][32], int max);

	/* Memory comes and goes. @fd and @offset say what it is a mapping of,
	 * -1 for memory that is not ours. unreg() returns when no peer reaches
	 * the range through this transport any more. */
	int (*reg)(void *ctx, const struct mc_buffer_info *b, int fd,
		   uint64_t offset);
	int (*unreg)(void *ctx, const struct mc_buffer_info *b);

	/* Make a path from local device @dev; accept() is the peer's half of
	 * what connect() asks by mc_host_handshake(), on a thread that may
	 * block; the descriptors it gives are the caller's to close.
	 * -EOPNOTSUPP: this pair cannot, and the message says why. */
	int (*connect)(void *ctx, const struct mc_peer *peer, int dev,
		       uint64_t deadline_ns, struct mc_path **out);
	int (*accept)(void *ctx, uint64_t conn, const struct mc_blob *hello,
		      struct mc_blob *reply, int *fds, int *n_fds);

	/* The same with the public protocol: devices to be told of, the key of
	 * a buffer for one of them (false: it has none), and the answer to who
	 * wants to connect to one; NULL: never. */
	int (*v1_devices)(void *ctx, struct mc_v1_device *out, int max);
	bool (*v1_key)(void *ctx, const struct mc_buffer_info *b, int dev,
		       uint32_t *rkey);
	void (*v1_accept)(void *ctx, const struct mc_meeting *asked,
			  struct mc_meeting *reply);

	/* The connection that asked @conn of accept() has gone. */
	void (*gone)(void *ctx, uint64_t conn);

	/* Stop: afterwards neither end touches memory of posted slices, which
	 * the engine then takes back. Waits for the peer's word on that until
	 * the deadline. Of a notification err says what became of it: 0 the
	 * peer has it, -EAGAIN it does not, as the engine has set it before,
	 * -ECONNRESET that is not known. */
	void (*abort)(struct mc_path *path, uint64_t deadline_ns);
	void (*disconnect)(struct mc_path *path);

	/* Move all pieces, or fail: -ESTALE a buffer has gone, -EHOSTDOWN the
	 * peer has. */
	int (*copy)(struct mc_path *path, enum mc_op op,
		    const struct mc_piece *pieces, uint32_t n);

	/* post() takes the first r of n slices (r < n: full, poll first). */
	int (*post)(struct mc_path *path, struct mc_slice *const *s, int n);
	int (*poll)(struct mc_path *path, struct mc_slice **out, int max);
};

/* A path is dead, for the reason that mc_errmsg() gives: the first one counts.
 * Under its lock. */
void mc_path_fail(struct mc_path *path, int err);

/* Best first; ends with NULL. The index is the transport's id. */
extern const struct mc_transport *const mc_transports[];

#endif
