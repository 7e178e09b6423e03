/*
 * mooncake.h - the public interface of Mooncake, and its manual.
 *
 * An engine is one process's part in a cluster. It registers buffers of its
 * own memory, opens segments (the memory of other engines), and moves bytes
 * between the two with one-sided, batched reads and writes over whatever
 * connects the two hosts: the process's own memory, shared memory, TCP.
 *
 * Conventions of every function below:
 * - returns 0 or a count, or a negative errno; mc_errmsg() then says what
 *   happened, to whom, and what to do about it;
 * - sizes and offsets are bytes, times have their unit in the name;
 * - strings and structs passed in are copied; memory to transfer is borrowed
 *   until the request that names it has an outcome;
 * - functions may be called from any thread unless they say otherwise;
 * - an options struct that is all zeros asks for the defaults.
 *
 * What a caller is promised:
 * 1. MC_COMPLETED: the bytes are visible at the destination. MC_FAILED or
 *    MC_CANCELED: no one will touch the buffers of that request any more.
 * 2. A failure names peer, rail and cause, and comes within a second unless
 *    a longer deadline was asked for.
 * 3. What fails on one rail is tried on the others while the deadline allows.
 * 4. Every engine and buffer has an epoch; stale addresses are refused.
 * 5. Nothing outside a registered buffer is reachable, nothing against its
 *    access flags, and nothing without the cluster key when there is one.
 * 6. Batch ids are an index and a generation: a stale id is refused, not
 *    followed. Waiting is by mc_poll(), mc_wait(), or mc_engine_fd().
 * 7. An idle engine uses no CPU.
 */
#ifndef MOONCAKE_H
#define MOONCAKE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#pragma GCC visibility push(default)
#ifdef __cplusplus
extern "C" {
#endif

/* [ffi] LuaJIT reads from here to the closing mark as it stands: plain
 * declarations and comments only - no directives, macros or bodies. */

enum {
	MC_NAME_MAX = 128,		/* names, with the final zero */
	MC_ADDR_MAX = 80,		/* "[v6-address%scope]:port" */
	MC_WHY_MAX = 240,		/* one line that explains an error */
	MC_NOTIFY_MAX = 65536,		/* longest notification message */
	MC_HIST_BUCKETS = 32,		/* latency: bucket i counts < 2^i us */
};

/* ---- errors ------------------------------------------------------------ */

/* The calling thread's message for the last function that returned a negative
 * errno. Never NULL; valid until the thread's next failing call. */
const char *mc_errmsg(void);

/* The version of the library, such as "0.1.0". */
const char *mc_version(void);

/* ---- engines ----------------------------------------------------------- */

struct mc_engine;

struct mc_options {
	const char *name;	/* segment name to publish; NULL: the address */
	const char *listen;	/* "host:port", "[v6]:port", ":port"; NULL:
				 * loopback and a free port; "none": serve no
				 * one, only initiate */
	const char *advertise;	/* host[:port] told to peers; NULL: as listen */
	const char *registry;	/* "peer" (NULL), or a server's URL as below,
				 * such as "etcd://a:2379,b:2379" */
	const char *transports;	/* allowed, as "tcp,shm,local"; NULL: all; in
				 * profile v1, "v1" alone is for its protocol
				 * with our own engines too */
	const char *devices;	/* interfaces for tcp, as "eth0,eth1"; NULL:
				 * one rail, routed by the kernel */
	const char *topology;	/* which devices memory at a location uses
				 * first, as mc_topology_matrix() writes it:
				 * the JSON, or the name of a file with it;
				 * NULL: $MC_CUSTOM_TOPO_JSON, or what /sys
				 * says where that is unset */
	const char *key_file;	/* cluster key; NULL: $MOONCAKE_KEY_FILE, or
				 * no authentication where that is unset */
	const char *tls_cert;	/* PEM files: a certificate and its key turn */
	const char *tls_key;	/* TLS 1.3 on for every connection; */
	const char *tls_ca;	/* who signs the peers' (NULL: tls_cert); each
				 * may be in the environment instead, as
				 * MOONCAKE_TLS_CERT, _KEY and _CA */
	const char *profile;	/* "native" (NULL); "v1": speak the public
				 * Mooncake's protocol too, both ways;
				 * NULL: $MOONCAKE_PROFILE. It has no
				 * authentication: with a cluster key it must
				 * be asked for as "v1,unauthenticated", and
				 * never goes with TLS. Nor has it epochs, or a
				 * way to hear that a peer which is frozen
				 * stores no more: promises 1 and 4 end there */
	const char *fault;	/* fault injection for tests, such as
				 * "seed=7,delay=10,fail=5"; see `mooncake
				 * help fault` */
	int streams;		/* connections per rail; 0: by CPU count */
	int workers;		/* threads that serve; 0: by CPU count */
	int spin_us;		/* poll so long before sleeping; 0: only while
				 * answers come soon and a CPU is to spare;
				 * -1: never */
	int timeout_ms;		/* default deadline; 0: a request fails once
				 * nothing of it has moved for 900 ms */
	uint64_t slice_bytes;	/* largest slice; 0: chosen per batch */
};

/* Start an engine: bind its port, publish its segment, start its threads.
 * Several engines per process are independent of each other. */
int mc_open(struct mc_engine **out, const struct mc_options *opts);

/* Cancel what is in flight, withdraw the segment, stop the threads, free all,
 * memory of mc_buffer_alloc() included. NULL is a no-op. The caller sees to it
 * that no other thread is inside a call on @e. In a child made by fork() it
 * frees memory and descriptors and tells no one: a fork inherits no engine. */
void mc_close(struct mc_engine *e);

/* The name under which others open this engine's segment; @e owns it. */
const char *mc_engine_name(const struct mc_engine *e);

/* "host:port" where peers reach this engine, "" if it serves no one. */
const char *mc_engine_addr(const struct mc_engine *e);

/* Which of its devices this engine uses first for memory at a location, as
 * mc_topology_matrix(): "{}" if it has none to choose from. */
int64_t mc_engine_topology(struct mc_engine *e, char *out, uint64_t size);

/* The epoch of this engine: differs between any two incarnations. */
uint64_t mc_engine_epoch(const struct mc_engine *e);

/* A descriptor that polls readable while batches of mc_submit() have ended
 * that mc_completed() has not yet returned, or notifications are waiting.
 * @e owns it. */
int mc_engine_fd(const struct mc_engine *e);

/* ---- buffers ----------------------------------------------------------- */

enum mc_access {
	MC_LOCAL = 0,		/* only as our end of a request */
	MC_REMOTE_READ = 1,
	MC_REMOTE_WRITE = 2,
	MC_REMOTE_RW = 3,
};

enum mc_alloc_flags {
	MC_ALLOC_HUGE = 1,	/* 2 MiB pages if there are any, else 4 KiB */
	MC_ALLOC_POPULATE = 2,	/* touch every page now */
};

/* Make [addr, addr+len) known to the engine and, by @access, to its peers.
 * @location is "cpu:0" and the like; NULL asks the kernel. Ranges of one engine
 * do not overlap (-EEXIST). O(log n) in the number of buffers; nothing is sent
 * to peers, who learn of it when they first ask. */
int mc_buffer_reg(struct mc_engine *e, void *addr, uint64_t len,
		  const char *location, unsigned access);

/* Take the buffer that begins at @addr back. When it returns 0, no peer will
 * touch the memory again: what was being received into it was refused.
 * -ENOENT: no such buffer. -EBUSY: own requests still use it, or a peer on
 * this host is stopped in the middle of a copy; the message says which, and
 * the buffer stays registered. */
int mc_buffer_unreg(struct mc_engine *e, void *addr);

/* Allocate @len bytes and register them. The memory is shared with engines of
 * this host that @access admits (a memfd they map), on NUMA node @node or
 * anywhere (-1). @flags are of enum mc_alloc_flags. */
int mc_buffer_alloc(struct mc_engine *e, uint64_t len, unsigned access,
		    unsigned flags, int node, void **out);

/* Unregister and free memory of mc_buffer_alloc(); errors as
 * mc_buffer_unreg(). */
int mc_buffer_free(struct mc_engine *e, void *addr);

struct mc_buffer_info {
	uint64_t addr;
	uint64_t len;
	uint32_t id;			/* never used twice by one engine */
	uint16_t access;		/* of enum mc_access */
	uint16_t gpu;			/* 1: memory of a GPU, as the CUDA
					 * driver says */
	char location[16];
};

/* The engine's buffers by address: skips @skip, fills up to @max of @out.
 * Returns how many it filled. */
int mc_buffer_list(struct mc_engine *e, uint64_t skip,
		   struct mc_buffer_info *out, int max);

/* ---- segments ---------------------------------------------------------- */

/* Open the segment published under @name: with the peer registry, "host:port",
 * which will do with another too if it is not published there. Its buffers are
 * asked from its engine now and again whenever they have changed. Opening a
 * name twice gives the same id. Returns an id >= 0. */
int mc_segment_open(struct mc_engine *e, const char *name, int timeout_ms);

/* Forget a segment. -EBUSY while requests to it are in flight. */
int mc_segment_close(struct mc_engine *e, int segment);

struct mc_segment_info {
	char name[MC_NAME_MAX];
	char addr[MC_ADDR_MAX];
	uint64_t epoch;			/* of its engine, as last seen */
	uint64_t buffers;		/* how many, as last seen */
	uint64_t bytes;
};

/* What is known of segment @segment, without asking the peer. */
int mc_segment_stat(struct mc_engine *e, int segment,
		    struct mc_segment_info *out);

/* The peer's mc_engine_topology(), as it was told when the segment was
 * opened. */
int64_t mc_segment_topology(struct mc_engine *e, int segment, char *out,
			    uint64_t size);

/* Ask the peer for its buffers now, then as mc_buffer_list(). With @max 0 only
 * the asking is done. */
int mc_segment_list(struct mc_engine *e, int segment, uint64_t skip,
		    struct mc_buffer_info *out, int max);

/* ---- requests ---------------------------------------------------------- */

enum mc_op {
	MC_READ,			/* remote to local */
	MC_WRITE,			/* local to remote */
};

struct mc_range {
	uint64_t addr;
	uint64_t len;
};

/* One read or write. The plain form is @buf, @remote and @len. The scatter and
 * gather form has @locals and @remotes instead: lists of ranges, cut at
 * different places if need be, of equal total length; @buf, @remote and @len
 * are then ignored. Local addresses lie inside buffers of this engine, remote
 * ones inside buffers of the segment. A length of zero is a request that
 * completes. The arrays are read during mc_submit() only. */
struct mc_req {
	enum mc_op op;
	int segment;
	void *buf;
	uint64_t remote;		/* address in the peer's memory */
	uint64_t len;
	const struct mc_range *locals;
	const struct mc_range *remotes;
	uint32_t n_locals;
	uint32_t n_remotes;
};

enum mc_state {
	MC_PENDING,
	MC_COMPLETED,
	MC_FAILED,
	MC_CANCELED,
};

struct mc_batch_opts {
	int timeout_ms;			/* 0: the engine's; < 0: no deadline */
	int notify_segment;		/* with notify_name: who is told */
	const char *notify_name;	/* NULL: no notification */
	const void *notify_msg;
	uint32_t notify_len;
	uint32_t workers_only;		/* 1: leave copies to the workers too */
	const double *weights;		/* per transport id; NULL: all 1 */
};

/* Submit @n requests as one batch; they may run in any order. Its id goes to
 * @batch; it stays valid until mc_batch_free(). Nothing is started on error:
 * -EINVAL names the first bad request. With a notification (name and message,
 * copied) the batch ends after its peer has it, which is after all bytes are
 * visible there. */
int mc_submit(struct mc_engine *e, const struct mc_req *reqs, int n,
	      const struct mc_batch_opts *opts, uint64_t *batch);

struct mc_result {
	enum mc_state state;
	int err;			/* 0 or negative errno */
	uint64_t bytes;			/* moved by requests that completed */
	uint32_t done;			/* requests with an outcome */
	uint32_t failed;		/* of those, not completed */
	char why[MC_WHY_MAX];		/* peer, rail, cause, what was tried */
};

/* The state of a batch, without waiting. FAILED or CANCELED when all requests
 * have an outcome and at least one is not COMPLETED. -ESTALE: no such batch. */
int mc_poll(struct mc_engine *e, uint64_t batch, struct mc_result *out);

/* Wait until the batch has ended, @timeout_ms at most (-1: for ever, its own
 * deadline holds). 0 and the outcome in @out; -EAGAIN while it has not. The
 * waiting thread does the batch's work itself where it can. */
int mc_wait(struct mc_engine *e, uint64_t batch, int timeout_ms,
	    struct mc_result *out);

/* Ask that a batch end now. Its requests end CANCELED, or COMPLETED if they had
 * done so; wait for that before using the buffers. */
int mc_cancel(struct mc_engine *e, uint64_t batch);

/* The outcome of request @i of the batch. */
int mc_batch_req(struct mc_engine *e, uint64_t batch, int i,
		 struct mc_result *out);

/* Give the id back. -EBUSY while the batch has not ended. */
int mc_batch_free(struct mc_engine *e, uint64_t batch);

/* Ids of batches that have ended since the last call, up to @max, oldest
 * first; each is returned once. See mc_engine_fd(). */
int mc_completed(struct mc_engine *e, uint64_t *out, int max);

/* Submit, wait and free in one call, done by the calling thread as far as
 * possible: no allocation, no hop between threads, for small requests on one
 * host no system call either. Returns 0 if all requests completed, else the
 * first error; @out may be NULL. Requests before one that
 * is wrong may have been done. */
int mc_transfer(struct mc_engine *e, const struct mc_req *reqs, int n,
		const struct mc_batch_opts *opts, struct mc_result *out);

/* ---- notifications ----------------------------------------------------- */

struct mc_notify {
	char from[MC_NAME_MAX];		/* name of the sending engine */
	char name[MC_NAME_MAX];
	uint32_t len;
	const void *msg;		/* free it with mc_notify_free() */
};

/* Send @name and @msg to the engine of a segment; returns when it has them. It
 * goes as a message by a rail that carries them (rdma, up to 4 KiB with the
 * name), else over the control connection; once, whatever fails meanwhile. */
int mc_notify_send(struct mc_engine *e, int segment, const char *name,
		   const void *msg, uint32_t len, int timeout_ms);

/* Take the oldest waiting notification. 1 if there was one, 0 if not. A
 * receiver that does not take them makes senders fail with -ENOBUFS once 4096
 * are waiting. */
int mc_notify_next(struct mc_engine *e, struct mc_notify *out);
void mc_notify_free(struct mc_notify *n);

/* ---- rails and statistics ---------------------------------------------- */

enum mc_rail_state {
	MC_RAIL_NEW,			/* not tried yet */
	MC_RAIL_UP,
	MC_RAIL_QUARANTINED,		/* failed; a probe brings it back */
	MC_RAIL_ABSENT,			/* this pair cannot use it: see why */
};

struct mc_rail_info {
	char peer[MC_NAME_MAX];
	char transport[16];
	char local_dev[32];
	char remote_dev[MC_ADDR_MAX];
	enum mc_rail_state state;
	int segment;
	uint64_t bytes_read, bytes_written;
	uint64_t slices, errors, local_errors, connects;
	uint64_t notes;			/* notifications that went by it */
	uint64_t inflight;		/* bytes posted and not yet ended */
	double bw;			/* bytes per second, moving average */
	double latency_us;		/* of a slice, moving average */
	uint64_t hist[MC_HIST_BUCKETS];	/* slices by latency */
	char why[MC_WHY_MAX];		/* last error, or why it is absent */
};

/* The rails to all open segments, for each those that are up first, then by
 * preference; as mc_buffer_list(). */
int mc_rail_list(struct mc_engine *e, int skip, struct mc_rail_info *out,
		 int max);

/* A connection that another engine made to this one. What it copies by itself,
 * on this host, passes by it. */
struct mc_connection_info {
	char peer[MC_NAME_MAX];		/* its name, and */
	uint64_t epoch;			/* its incarnation */
	char from[MC_ADDR_MAX];		/* "host:port", or "process N" */
	uint64_t age_ns;
	uint64_t bytes_in, bytes_out;
};

/* Newest first; as mc_buffer_list(). */
int mc_connection_list(struct mc_engine *e, int skip,
		       struct mc_connection_info *out, int max);

struct mc_stats {
	uint64_t bytes_read, bytes_written;	/* by our requests */
	uint64_t served_read, served_written;	/* by peers, over tcp */
	uint64_t batches, requests, slices, retries, failed, canceled;
	uint64_t buffers, peers, connections;	/* as of now */
	uint64_t refused;			/* peers' requests, by us */
	uint64_t rejected;			/* connections, by us */
};

/* Counters since the engine was opened. */
int mc_stats(struct mc_engine *e, struct mc_stats *out);

/* Measure the round trip to a segment's engine: microseconds to @rtt_us. */
int mc_probe(struct mc_engine *e, int segment, int timeout_ms, double *rtt_us);

/* ---- serving ----------------------------------------------------------- */

/* Requests that peers make of this process rather than of its memory: Lua text
 * of `mooncake repl --node`. Off until mc_eval_allow(e, true); it needs a
 * cluster key (-EPERM without). */
struct mc_eval {
	uint64_t id;
	char from[MC_NAME_MAX];
	uint32_t len;
	const char *text;		/* valid until answered */
};
int mc_eval_allow(struct mc_engine *e, bool on);

/* Take the next waiting text: 1 or 0; wait up to @timeout_ms for one. */
int mc_eval_next(struct mc_engine *e, int timeout_ms, struct mc_eval *out);

/* Send its result; @status is 0 or negative errno. */
int mc_eval_reply(struct mc_engine *e, uint64_t id, int status,
		  const char *text, uint32_t len);

/* The other side: send text, wait, and copy the result to @out, of capacity
 * @size, ending it with a zero. Returns its full length. */
int64_t mc_eval_send(struct mc_engine *e, int segment, const char *text,
		     uint32_t len, int timeout_ms, char *out, uint32_t size);

/* ---- registry ---------------------------------------------------------- */

/* A registry: small values under names. @url as in struct mc_options:
 *
 *	http://host:port/path		our server, or one of the public
 *					Mooncake: get, put, delete
 *	etcd://host:port,host:port	members of a cluster, 3.4 or later
 *	redis://host:port/database	6 or later
 *
 * with user:password@ or :password@ before the hosts, percent-encoded where
 * need be. https, etcds and rediss are over TLS; the latter two may name PEM
 * files: ?cacert=FILE for who signs the server, &cert=FILE&key=FILE for us. The
 * peer registry keeps no values, and is refused here. One handle per thread.
 *
 * Operations end within 3 s. -ECONNREFUSED, -EHOSTUNREACH the server was not
 * reached; -ECONNRESET, -ETIMEDOUT, -EBUSY (try later) what was asked may have
 * been done; -EACCES user, password, certificate or rights. */
struct mc_registry;
int mc_registry_open(struct mc_registry **out, const char *url);
void mc_registry_close(struct mc_registry *r);

/* Copy the value of @key to @out with a final zero; its length is returned,
 * which may exceed @size, and its version goes to @version (NULL: not asked).
 * -ENOENT: no such key. */
int64_t mc_registry_get(struct mc_registry *r, const char *key, char *out,
			uint64_t size, uint64_t *version);

/* Set @key. @ttl_ms > 0 makes the record expire unless put again; etcd counts
 * in seconds, from 2 on. */
int mc_registry_put(struct mc_registry *r, const char *key, const char *value,
		    uint64_t len, int ttl_ms);

/* Set @key if its version is still @version (0: if it does not exist).
 * -EAGAIN: it is not. */
int mc_registry_cas(struct mc_registry *r, const char *key, const char *value,
		    uint64_t len, uint64_t version, int ttl_ms);
int mc_registry_del(struct mc_registry *r, const char *key);

/* Names that begin with @prefix, one a line, as mc_registry_get(). */
int64_t mc_registry_list(struct mc_registry *r, const char *prefix, char *out,
			 uint64_t size);

/* Our http registry server on its own thread. @addr as listen above; @state is
 * a file that keeps records over restarts, NULL for memory only. */
struct mc_registryd;
int mc_registryd_open(struct mc_registryd **out, const char *addr,
		      const char *state);
const char *mc_registryd_addr(const struct mc_registryd *d);
void mc_registryd_close(struct mc_registryd *d);

/* ---- P2P store --------------------------------------------------------- */

/* Named objects that reach every node at the speed of its own link: a node
 * serves each shard of an object from the moment it has it. The registry keeps
 * who is there; the bytes go from memory to memory. How: src/p2p/. */

struct mc_p2p;

enum {
	MC_P2P_NAME_MAX = 1024,		/* names, with the final zero */
	MC_P2P_HOLDERS_MAX = 64,	/* that a node looks at */
};

struct mc_p2p_options {
	const char *registry;		/* URL of a server; needed */
	const struct mc_options *engine; /* of the store; its registry is for
					 * the names of segments only */
	int lease_ms;			/* that a dead node is listed; 10 s */
	int parallel;			/* shards on their way here; 8 */
	int fanout;			/* shards of one node at once; 12 */
	int neighbours;			/* nodes to look at; 24 */
};

/* A store has an engine of its own, and two threads that sleep while nothing is
 * fetched. */
int mc_p2p_open(struct mc_p2p **out, const struct mc_p2p_options *opts);

/* Leaves all objects, as mc_p2p_unregister(); NULL is a no-op. */
void mc_p2p_close(struct mc_p2p *p);

/* The store's engine: for memory, and to look at. Its mc_completed() is the
 * store's own. */
struct mc_engine *mc_p2p_engine(struct mc_p2p *p);

struct mc_p2p_register {
	uint64_t shard_bytes;		/* 0: by size; else a power of two,
					 * 4 KiB to 4 GiB */
	bool force;			/* in place of an object of that name */
	const char *note;		/* kept in the record; NULL: "" */
};

/* Publish @n buffers as object @name, without a copy: the memory stays as it is
 * until mc_p2p_unregister(). Reads all of it once, for the checksums. -EEXIST:
 * there is such an object, and someone holds it; -EBUSY: it is pinned. */
int mc_p2p_register(struct mc_p2p *p, const char *name,
		    const struct mc_range *buffers, uint32_t n,
		    const struct mc_p2p_register *opts);

struct mc_p2p_get {
	bool resume;			/* some of it may be here: look */
	int timeout_ms;			/* without any progress; 0: 30 s */
};

/* Begin to fetch @name into @n buffers of its sizes, or, with NULL, into memory
 * of the store's, and serve what is there from then on. -ENOENT: no such
 * object. Returns once it has begun; see mc_p2p_wait(). */
int mc_p2p_get(struct mc_p2p *p, const char *name,
	       const struct mc_range *buffers, uint32_t n,
	       const struct mc_p2p_get *opts);

struct mc_p2p_progress {
	uint64_t bytes, bytes_here;	/* in all; here and verified */
	uint64_t from_source;		/* fetched from who registered it */
	uint64_t wasted;		/* fetched twice, or wrong */
	uint32_t shards, shards_here;
	uint32_t holders;		/* that are known and answer */
	uint32_t resumed;		/* shards that were there already */
	uint32_t bad;			/* copies with a wrong checksum */
	uint32_t failed;		/* reads that failed or were late */
	uint32_t readers;		/* nodes that read from us, as known */
	bool source;
	char why[MC_WHY_MAX];		/* the last trouble, and with whom */
};

/* Wait until @name is here, @timeout_ms at most (-1: for ever). 0: it is;
 * -EAGAIN: not yet; else why it will not come. @out may be NULL. */
int mc_p2p_wait(struct mc_p2p *p, const char *name, int timeout_ms,
		struct mc_p2p_progress *out);

/* Where object @name lies in this process, up to @max buffers of it. Returns
 * how many it has. -ENOENT: it is not held here. */
int mc_p2p_buffers(struct mc_p2p *p, const char *name, struct mc_range *out,
		   int max);

/* Stop to fetch or serve @name; when it returns, no peer touches the memory,
 * which is freed if it is the store's. A source's name is taken out of the
 * record, which goes with the last who holds the object. */
int mc_p2p_unregister(struct mc_p2p *p, const char *name);

/* Take @name out of the registry, whoever holds it: those who fetch it go on,
 * others do not find it. -EBUSY: it is pinned, and not @force. */
int mc_p2p_remove(struct mc_p2p *p, const char *name, bool force);

/* A pinned object cannot be replaced or removed unless by force. */
int mc_p2p_pin(struct mc_p2p *p, const char *name, bool on);

struct mc_p2p_info {
	uint64_t id;			/* of this version of it */
	uint64_t bytes, shard_bytes;
	uint32_t shards, buffers;
	uint32_t nodes;			/* that hold or fetch it, as leased */
	uint32_t sources;		/* in the record */
	bool pinned;
};

/* What the registry knows of @name; the sizes of up to @max buffers go to
 * @sizes, and @note, of @size bytes, gets the note, cut if need be. */
int mc_p2p_stat(struct mc_p2p *p, const char *name, struct mc_p2p_info *out,
		uint64_t *sizes, uint32_t max, char *note, uint32_t size);

/* Names that begin with @prefix, one a line, as mc_registry_list(). */
int64_t mc_p2p_list(struct mc_p2p *p, const char *prefix, char *out,
		    uint64_t size);

/* Objects that come, change and go. */
struct mc_p2p_watch;
int mc_p2p_watch_open(struct mc_p2p_watch **out, struct mc_p2p *p,
		      const char *prefix);
void mc_p2p_watch_close(struct mc_p2p_watch *w);

/* Wait for the next change: 1 and its name, 0 after @timeout_ms. *@gone: the
 * object is there no longer. -ESTALE: some were missed; list, and go on. */
int mc_p2p_watch_next(struct mc_p2p_watch *w, int timeout_ms, char *name,
		      uint32_t size, bool *gone);

/* What a node knows when it chooses what to fetch next. Bit i of word i / 64 is
 * shard i. */
struct mc_p2p_view {
	uint32_t shards, holders;	/* MC_P2P_HOLDERS_MAX at most */
	const uint64_t *wanted;		/* neither here nor on their way */
	const uint64_t *have;		/* of each holder, in their order */
	const uint16_t *copies;		/* of each shard, had or awaited, but by
					 * sources */
	const float *cost;		/* seconds until a shard of that holder
					 * would be here; INFINITY: ask not */
	const uint8_t *source;		/* 1: that holder is one */
};

/* The shard to fetch, and from whom; false: there is none. The store and the
 * simulation choose by this. */
bool mc_p2p_choose(const struct mc_p2p_view *v, uint64_t seed, uint32_t *shard,
		   uint32_t *holder);

/* ---- topology ---------------------------------------------------------- */

struct mc_device_info {
	char name[32];			/* "eth0", "cpu:0", "mlx5_0" */
	char kind[16];			/* cpu, net, rdma, gpu or nvme */
	char pci[32];			/* "0000:3b:00.0" or "" */
	char addr[MC_ADDR_MAX];		/* of an interface */
	int numa;			/* -1: unknown */
	int up;				/* link state; -1: unknown */
	uint64_t bw;			/* bytes per second; 0: unknown */
};

struct mc_topology;

/* Read devices and distances under @root ("" or NULL: this machine's /). */
int mc_topology_open(struct mc_topology **out, const char *root);
void mc_topology_close(struct mc_topology *t);
int mc_topology_count(const struct mc_topology *t);
int mc_topology_device(const struct mc_topology *t, int i,
		       struct mc_device_info *out);

/* The distance of two devices, smaller is nearer: 0 the same, 1 the same PCI
 * switch, 2 the same root, 3 the same NUMA node, 4 another one. */
int mc_topology_distance(const struct mc_topology *t, int i, int j);

/* Which network devices memory at a location uses first, and which after
 * those, as JSON of the public Mooncake's form:
 *
 *	{"cpu:0": [["mlx5_0"], ["mlx5_1"]], "cuda:0": [["mlx5_1"], ["mlx5_0"]]}
 *
 * @devices is "mlx5_0,mlx5_1"; NULL: those for RDMA, or interfaces that are
 * hardware where there are none. The length of the text, of which @out gets
 * what @size bytes take, with a zero at the end. */
int64_t mc_topology_matrix(const struct mc_topology *t, const char *devices,
			   char *out, uint64_t size);

struct mc_rdma_info {
	char name[32];			/* of the device: "mlx5_0" */
	char link[16];			/* InfiniBand or RoCE */
	char gid[48];			/* it is reached by; "": none, */
	char why[MC_WHY_MAX];		/* and this says why */
	int port;			/* the one in use, */
	int up;				/* and whether it is active */
	int gid_index;			/* -1: none */
	int mtu;			/* bytes */
	uint64_t bw;			/* bytes per second; 0: unknown */
};

/* The RDMA devices that can be opened. How many, or -EOPNOTSUPP: no library or
 * no device, and the message says which. */
int mc_rdma_list(struct mc_rdma_info *out, int max);

/* ---- traces ------------------------------------------------------------ */

/* Request traces are read one record at a time, in bounded memory: when each
 * came, how many tokens it brought and produced, and the ids of its blocks. */

struct mc_trace;

/* Formats: "mooncake" and "qwen", JSON objects with blocks of 512 and 16
 * tokens; "azure" and "burstgpt", CSV without blocks, whose times count from
 * the first request, and the latter without requests that failed. */
struct mc_trace_options {
	const char *format;	/* NULL: seen at the first line */
	uint32_t block_tokens;	/* tokens of a block; 0: as the format has it */
};

/* One request. The blocks are those of its input in order, the last one may be
 * partial. An id names a block together with all before it: equal ids, equal
 * prefixes. Formats that know no blocks leave n_blocks 0. */
struct mc_trace_req {
	uint64_t line;			/* in the file, from 1 */
	uint64_t at_ns;			/* arrival on the trace's own clock */
	uint32_t input_tokens;
	uint32_t output_tokens;
	uint32_t block_tokens;
	uint32_t n_blocks;
	const uint64_t *blocks;		/* valid until the next call */
};

/* Open a trace file, "-" for standard input. @opts may be NULL. */
int mc_trace_open(struct mc_trace **out, const char *path,
		  const struct mc_trace_options *opts);

/* The next request: 1, or 0 at the end. -EINVAL with file, line and column in
 * the message for a record that is not as its format says, that has more or
 * fewer blocks than its tokens fill, or that comes before its predecessor; the
 * call after that goes on with the line that follows. */
int mc_trace_next(struct mc_trace *t, struct mc_trace_req *out);

/* Go back to the first request. -ESPIPE for what is not a file. */
int mc_trace_rewind(struct mc_trace *t);

/* The name of the format, "" while no line has been seen. */
const char *mc_trace_format(const struct mc_trace *t);
void mc_trace_close(struct mc_trace *t);

/* ---- block caches ------------------------------------------------------ */

/* Which KV blocks lie in a cache of a bounded number of blocks, and which one
 * goes when another must come in. One thread at a time. Policies, each with
 * its source where src/sim/cache.c has it: "lru", "lfu", "fifo", "length",
 * "s3fifo", "sieve". */

struct mc_cache;

enum mc_cache_touched { MC_CACHE_HIT, MC_CACHE_NEW, MC_CACHE_EVICTED };

/* @policy NULL: "lru". @capacity in blocks, 0: without bound. */
int mc_cache_open(struct mc_cache **out, const char *policy,
		  uint64_t capacity);
void mc_cache_close(struct mc_cache *c);

/* Use a block: MC_CACHE_HIT if it was there, else it is there now; for
 * MC_CACHE_EVICTED *@evicted went for it. @position: which block of its
 * request this is, for "length". -ENOMEM. */
int mc_cache_touch(struct mc_cache *c, uint64_t id, uint32_t position,
		   uint64_t *evicted);

bool mc_cache_has(const struct mc_cache *c, uint64_t id);
uint64_t mc_cache_used(const struct mc_cache *c);

/* Put out the block that the policy would put out next; false: it is empty. */
bool mc_cache_evict(struct mc_cache *c, uint64_t *id);

/* How many of the leading @n blocks are there. Does not count as use. */
uint32_t mc_cache_prefix(const struct mc_cache *c, const uint64_t *ids,
			 uint32_t n);

/* ---- hit rates --------------------------------------------------------- */

/* What caches would do for a whole trace. It is held for that: some 10 bytes
 * for each block and some 60 for each different one. One thread at a time. */

struct mc_hits;

/* A block of the trace, and in how many requests it is. */
struct mc_hits_block {
	uint64_t id;
	uint64_t uses;
};

int mc_hits_open(struct mc_hits **out);
void mc_hits_close(struct mc_hits *h);

/* The trace's next request. Its blocks are copied. Returns how many of its
 * leading blocks came before: the hits of a cache without bound. -ENOMEM, after
 * which it can only be closed. */
int mc_hits_add(struct mc_hits *h, const struct mc_trace_req *r);

/* How many blocks the requests have, and the different ones in the order in
 * which they first come; valid until the next mc_hits_add(). */
uint64_t mc_hits_blocks(const struct mc_hits *h);
uint64_t mc_hits_unique(const struct mc_hits *h,
			const struct mc_hits_block **out);

/* How many of the blocks a cache of @capacity blocks (0: without bound) would
 * have had. A request's hits are its longest prefix that is in the cache when
 * it comes; then each of its blocks is touched in order. @policy is one of
 * mc_cache_open(), or "belady", which knows what comes: no policy does better
 * on a trace where equal ids are equal prefixes. -EINVAL, -ENOMEM. */
int64_t mc_hits_count(struct mc_hits *h, const char *policy,
		      uint64_t capacity);

/* ---- block index ------------------------------------------------------- */

/* Which instances, of up to 65,534, hold which blocks. One thread at a time. */

struct mc_index;

int mc_index_open(struct mc_index **out, uint32_t instances);
void mc_index_close(struct mc_index *x);

/* Instance @i holds these blocks now, or no longer. What is known already is
 * no error. Returns how many changed. */
int mc_index_add(struct mc_index *x, uint32_t i, const uint64_t *ids,
		 uint32_t n);
int mc_index_del(struct mc_index *x, uint32_t i, const uint64_t *ids,
		 uint32_t n);

/* Forget all that instance @i holds. */
void mc_index_drop(struct mc_index *x, uint32_t i);

/* @matched[i]: how many of the leading @n blocks instance i holds, for every
 * instance. Returns the largest. */
uint32_t mc_index_match(const struct mc_index *x, const uint64_t *ids,
			uint32_t n, uint32_t *matched);

/* How many instances hold a block. */
uint32_t mc_index_holders(const struct mc_index *x, uint64_t id);

/* Blocks, pairs of a block and a holder, and the bytes that they take. */
struct mc_index_size {
	uint64_t blocks, pairs, bytes;
};
void mc_index_size(const struct mc_index *x, struct mc_index_size *out);

/* ---- what things cost -------------------------------------------------- */

/* How long an instance computes. mooncake.costs makes one from a model and a
 * GPU, or fits one to a profile. A prefill of n tokens behind a prefix of p:
 *   prefill_s + n * prefill_token_s + ((p + n)^2 - p^2) * prefill_pair_s
 * and one iteration that adds a token to each of b sequences with c tokens of
 * context in all:
 *   max(decode_s, b * prefill_token_s) + b * decode_seq_s + c * decode_token_s
 */
struct mc_cost {
	double prefill_s, prefill_token_s, prefill_pair_s;
	double decode_s, decode_seq_s, decode_token_s;
	double kv_bytes_token;		/* of KV cache per token */
};

double mc_cost_prefill_s(const struct mc_cost *c, double tokens,
			 double prefix);
double mc_cost_decode_s(const struct mc_cost *c, double sequences,
			double context_tokens);

/* ---- scheduling -------------------------------------------------------- */

/* What a policy is shown, the same by the simulator and by the conductor. The
 * memory is theirs and changes with time; a policy reads it and keeps none. */

enum mc_role { MC_PREFILL, MC_DECODE, MC_COUPLED };

/* A request as the scheduler sees it: how long its answer will be is unknown.
 * Blocks as in struct mc_trace_req. */
struct mc_prompt {
	uint64_t id;
	double arrived_s;
	uint32_t input_tokens, block_tokens;
	uint32_t n_blocks;
	const uint64_t *blocks;
};

struct mc_instance {
	enum mc_role role;
	uint32_t prefix_tokens;		/* of this prompt that it holds */
	uint32_t queued;		/* placed, and prefill not over */
	double queue_s;			/* until a new prefill would begin */
	uint32_t running;		/* sequences that it decodes */
	uint32_t coming;		/* placed to decode, not there yet */
	/* Whole numbers, as double: a script divides by them. */
	double context_tokens;		/* of those running and coming */
	double running_tokens;		/* of those running */
	double vram_tokens;		/* its VRAM can hold; 0: no bound */
	double out_Bps, in_Bps;		/* a new transfer would get */
};

/* The instances for prefill are [0, prefill_n), those for decode
 * [decode_first, n); coupled ones are both. */
struct mc_cluster {
	double now_s;
	uint32_t n, prefill_n, decode_first;
	uint32_t best;			/* has the longest prefix, and */
	uint32_t best_tokens;		/* how long it is; 0: none has any */
	const struct mc_instance *instances;
	uint32_t prefill_nodes;		/* of a prefill instance, a pipeline */
	uint32_t chunk_tokens;		/* that pass it one by one; 0: all */
	struct mc_cost cost;		/* of a node */
	double ttft_slo_s, tbt_slo_s;	/* what was promised; 0: nothing */
	double expected_output_tokens;	/* mean of the requests so far */
	double expected_decode_s;	/* how long they decoded, mean */
};

/* ---- simulator --------------------------------------------------------- */

/* A cluster in virtual time. The caller drives: it feeds requests, asks for
 * the next event, and answers those that ask for a decision. What is modelled
 * and how: the file comments in src/sim/. Deterministic; one thread at a time.
 */

struct mc_sim;

struct mc_sim_options {
	uint32_t prefill, decode, coupled; /* instances of each role */
	uint32_t prefill_nodes;		/* of a pipeline for prefill; 1 */
	uint32_t block_tokens;		/* 512 */
	struct mc_cost cost;
	uint32_t chunk_tokens;		/* of a prefill at once; 0: all of it */
	uint32_t batch_tokens;		/* coupled: of an iteration; 131072,
					   chunked 512 */
	bool chunked;			/* coupled: prefill and decode mixed */
	bool no_prefix_cache;
	bool no_overlap;		/* store and send after the prefill */
	bool ask_decode;		/* MC_SIM_ADMIT before decoding */
	bool keep_intervals;		/* for mc_sim_intervals() */
	uint32_t max_sequences;		/* that an instance decodes; 256 */
	uint64_t vram_tokens;		/* beside the weights; no bound */
	uint64_t dram_tokens;		/* cache of a prefill node; no bound */
	uint64_t ssd_tokens;		/* second tier of it; 0: none */
	const char *eviction;		/* of the tiers, NULL: "lru" */
	double h2d_Bps, nic_Bps, ssd_Bps; /* per node; 0: not a limit */
	double event_lag_s;		/* until the index sees a change */
	double sample_s;		/* between two samples; 0: none */
	double ttft_slo_s, tbt_slo_s;
};

/* One request's story, times on the simulation's clock. */
enum mc_sim_outcome {
	MC_SIM_COMPLETED,
	MC_SIM_REFUSED,			/* at arrival */
	MC_SIM_REFUSED_LATE,		/* its prefill was for nothing */
};

struct mc_sim_record {
	uint64_t id;			/* 0, 1, ... in the order of feeding */
	enum mc_sim_outcome outcome;
	uint32_t input_tokens, output_tokens;
	uint32_t local_tokens;		/* of the prefix, found where placed */
	uint32_t remote_tokens;		/* and fetched from another instance */
	uint32_t prefill, decode;	/* instances; UINT32_MAX: none */
	uint32_t preempted;		/* how often */
	double arrived_s;
	double ready_s;			/* its prefix has been fetched */
	double started_s;		/* prefill */
	double first_s;			/* first token */
	double second_s;		/* second; 0: there was none */
	double joined_s;		/* decode */
	double done_s;
	double prefill_gpu_s;		/* of one node; computed, or wasted */
	double tbt_s;			/* mean of its longest tenth */
	double itl_s;			/* mean of its intervals */
};

enum mc_sim_what {
	MC_SIM_END,			/* no event is left */
	MC_SIM_FEED,			/* mc_sim_feed() what comes next */
	MC_SIM_PLACE,			/* mc_sim_place() or mc_sim_refuse() */
	MC_SIM_ADMIT,			/* mc_sim_admit() or mc_sim_refuse() */
	MC_SIM_DONE,			/* @record is complete */
};

struct mc_sim_event {
	enum mc_sim_what what;
	struct mc_prompt prompt;	/* PLACE and ADMIT */
	uint32_t prefill, decode;	/* ADMIT: where it was placed */
	struct mc_sim_record record;	/* DONE */
};

int mc_sim_open(struct mc_sim **out, const struct mc_sim_options *opts);
void mc_sim_close(struct mc_sim *s);

/* Go on to the next event. -EINVAL while an earlier one waits for its answer
 * (FEED needs none: it comes again after a request is done, and when nothing
 * else is left the next event is END). */
int mc_sim_next(struct mc_sim *s, struct mc_sim_event *ev);

/* The seconds between the tokens of the request whose record DONE has just
 * brought, with keep_intervals; how many there are. Valid until the next event.
 */
uint32_t mc_sim_intervals(const struct mc_sim *s, const float **out);

/* A request that arrives at @r->at_ns, or now if that is past. May be called
 * at any time. The blocks are copied. */
int mc_sim_feed(struct mc_sim *s, const struct mc_trace_req *r);

/* What policies see; up to date while PLACE or ADMIT waits for its answer. */
const struct mc_cluster *mc_sim_cluster(const struct mc_sim *s);

/* Answer PLACE: prefill there, fetch what @source has beyond that (@source ==
 * @prefill: nothing), then decode there. A coupled instance does both. */
int mc_sim_place(struct mc_sim *s, uint32_t prefill, uint32_t decode,
		 uint32_t source);
int mc_sim_admit(struct mc_sim *s);
int mc_sim_refuse(struct mc_sim *s);

/* What the decode instances are expected to carry at @at_s, if every request
 * decodes for expected_decode_s and no more are placed (arXiv paper, 7.4). */
struct mc_forecast {
	double sequences, context_tokens;
};
void mc_sim_forecast(const struct mc_sim *s, double at_s,
		     struct mc_forecast *out);

struct mc_sim_totals {
	double now_s;
	uint64_t fed, completed, refused, refused_late, in_flight;
	uint64_t input_tokens, output_tokens;	/* of those completed */
	uint64_t placed_tokens;		/* of input */
	uint64_t blocks, blocks_hit;	/* of those placed; hit anywhere */
	uint64_t local_tokens, remote_tokens, ssd_tokens;
	uint64_t preemptions, iterations;
	double prefill_gpu_s, decode_gpu_s;	/* busy, over all nodes */
	double bytes_asked, bytes_sent;		/* over links */
	uint64_t cached_blocks, stored, evicted; /* in all tiers of all */
};
void mc_sim_totals(const struct mc_sim *s, struct mc_sim_totals *out);

/* The state of the cluster, every sample_s. */
struct mc_sim_sample {
	double at_s;
	double prefill_load, decode_load; /* predicted TTFT and TBT over SLO */
	uint32_t queued, running, coming;
	double link_Bps;		/* sent since the last sample */
	uint64_t completed, refused, refused_late, hit_tokens, input_tokens;
};
uint32_t mc_sim_samples(const struct mc_sim *s,
			const struct mc_sim_sample **out);

/* Link use of an instance: bytes sent and received, seconds with any flow. */
struct mc_sim_link {
	double out_bytes, in_bytes, out_busy_s, in_busy_s;
	uint64_t cached_blocks;
};
int mc_sim_link(const struct mc_sim *s, uint32_t instance,
		struct mc_sim_link *out);

/* How many instances have a block in their tiers. */
uint32_t mc_sim_replicas(const struct mc_sim *s, uint64_t block);

/* The laws of conservation: every request fed is completed, refused or in
 * flight; every block stored is cached or evicted; bytes sent are bytes asked
 * once nothing is in flight. -EILSEQ names the one that is broken. */
int mc_sim_check(const struct mc_sim *s);

/* ---- measuring --------------------------------------------------------- */

/* For benchmarks: what runs of transfers cost, and limits: the same pattern of
 * blocks moved by the plainest means there is, so that a figure of ours can be
 * set against what is physically there. */

enum {
	MC_MEASURE_FINE = 1280,		/* buckets of a fine histogram */
};

/* What a run of batches moved and cost. */
struct mc_measure {
	uint64_t batches, bytes, errors;
	uint64_t wall_ns;
	uint64_t cpu_ns;		/* user and system, all threads */
	uint64_t fine[MC_MEASURE_FINE];	/* batches by latency; see _add() */
	char why[MC_WHY_MAX];		/* of the first error */
};

/* Count a batch that took @ns in the histogram: 32 buckets per power of two,
 * so quantiles are good to 3 %. */
void mc_measure_add(struct mc_measure *m, uint64_t ns);

/* The latency in ns below which the share @q (0 to 1) of the batches was. */
double mc_measure_quantile(const struct mc_measure *m, double q);

/* CPU nanoseconds that process @pid (0: this one) has used in all threads. */
int64_t mc_measure_cpu_ns(int pid);

/* Resident bytes of process @pid (0: this one). */
int64_t mc_measure_rss(int pid);

/* Submit @n requests, cut into batches of @batch, over and over by
 * mc_transfer(), from @threads threads for @duration_ms, each with a share of
 * the batches to itself, if there are enough. The result goes to
 * @out; requests that fail are counted there, and 100 of them end the run. */
int mc_measure_run(struct mc_engine *e, const struct mc_req *reqs, uint32_t n,
		   uint32_t batch, int threads, int duration_ms,
		   struct mc_measure *out);

enum mc_limit_kind {
	MC_LIMIT_MEMCPY,		/* one thread, into a shared mapping */
	MC_LIMIT_VM,			/* process_vm_writev or _readv */
	MC_LIMIT_SOCKET,		/* a loopback socket: a vectored write,
					 * received in place, one byte back */
	MC_LIMIT_SOCKET_POLL,		/* the same, both ends polling */
};

/* The pattern: block i of a run is at ((i mod @cycle) * 7919 mod N) * @block,
 * at both ends, where N is how many blocks the span holds. */
struct mc_limit_run {
	enum mc_op op;
	uint32_t batch;
	uint64_t block;
	uint64_t cycle;			/* 0: as batch, the same places again */
	int duration_ms;
};

/* Make the far end, in another process where @kind needs one: @span bytes, as
 * many as at @mem, which the caller keeps. Forks, so the child is this
 * process's until mc_limit_close(). */
struct mc_limit;
int mc_limit_open(struct mc_limit **out, enum mc_limit_kind kind, void *mem,
		  uint64_t span);
int mc_limit_measure(struct mc_limit *l, const struct mc_limit_run *run,
		     struct mc_measure *out);
void mc_limit_close(struct mc_limit *l);

/* ---- for scripts and tools --------------------------------------------- */

/* Monotonic nanoseconds. */
uint64_t mc_now_ns(void);

/* xxh3 of memory: a checksum for tests and --verify. */
uint64_t mc_hash(const void *addr, uint64_t len, uint64_t seed);

/* Fill memory with bytes that only depend on @seed and the offset. */
void mc_fill(void *addr, uint64_t len, uint64_t seed);

/* The text between the marks of this header. */
extern const char mc_header[];

/* [/ffi] */

#ifdef __cplusplus
}
#endif
#pragma GCC visibility pop
#endif
