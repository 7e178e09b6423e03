/*
 * host.h - what an engine does for its transports. A transport calls these
 * and knows nothing else of the engine.
 */
#ifndef MC_HOST_H
#define MC_HOST_H

#include "transport.h"

struct mc_event;
struct mc_key;
struct mc_tls;

enum {
	MC_HOST_FDS = 4,		/* descriptors one handshake passes */
};

/* The epoch of the local engine, and its name in messages. */
uint64_t mc_host_epoch(const struct mc_host *h);
const char *mc_host_name(const struct mc_host *h);

/* Ask the same transport of @peer: its accept() gets @hello and fills @reply
 * (may be @hello itself). With @fds the connection must be one that passes
 * descriptors, a unix socket of this host: -EOPNOTSUPP with the reason if
 * there is none; up to MC_HOST_FDS come back, the caller owns them. While the
 * connection lives, the peer's accept() sees one and the same conn number for
 * every handshake of this engine; when it breaks, the engine aborts and
 * disconnects the paths made by it. */
int mc_host_handshake(struct mc_host *h, const struct mc_peer *peer,
		      const char *transport, const struct mc_blob *hello,
		      struct mc_blob *reply, int *fds, int *n_fds,
		      uint64_t deadline_ns);

/* The process at the other end of the connection that asked @conn of accept(),
 * or, with @conn 0, of the connection to @peer: as the kernel says, 0 unless
 * it is a unix socket. */
int mc_host_peer_pid(struct mc_host *h, const struct mc_peer *peer,
		     uint64_t conn);

/* The cluster key (length 0: none) and the TLS context (NULL: none). */
const struct mc_key *mc_host_key(const struct mc_host *h);
struct mc_tls *mc_host_tls(const struct mc_host *h);
uint64_t mc_host_id(const struct mc_host *h);

/* ---- what the server asks of its engine ----------------------------- */

/* A peer asks for @op on @n pieces of our memory: each must lie inside the
 * buffer that has its id and admits it; their local ends are then set. -ESTALE,
 * -EFAULT or -EACCES with a message. */
int mc_host_admit(struct mc_host *h, enum mc_op op, struct mc_piece *p,
		  uint32_t n);
void mc_host_served(struct mc_host *h, enum mc_op op, uint64_t bytes);

/* ---- and what the server of the public protocol asks ---------------- */

/* The same for one range, which has no id; a length of 0 is refused. */
int mc_host_admit_range(struct mc_host *h, enum mc_op op, uint64_t addr,
			uint64_t len);

/* The segment descriptor as the public Mooncake has it, which the caller
 * frees. @brief: without buffers. */
int mc_host_segment_json(struct mc_host *h, bool brief, char **json);

/* Someone wants to connect to a device of ours: answered, and @fd closed, on a
 * task. @old: by a frame without a type. */
void mc_host_v1_meet(struct mc_host *h, int fd, bool old, const char *json,
		     size_t len);

/* ---- what transports ask of peers that speak only that --------------- */

/* The peer's devices: how many. */
int mc_host_v1_devices(struct mc_host *h, const struct mc_peer *peer,
		       struct mc_v1_device out[MC_V1_DEVICES]);

/* The key of its buffer @id for its device @dev: false if it has none. Takes
 * no lock that is held while a path's is taken. */
bool mc_host_v1_key(struct mc_host *h, const struct mc_peer *peer, uint32_t id,
		    int dev, uint32_t *rkey);

/* Tell it of a connection, and hear what it says. */
int mc_host_v1_ask(struct mc_host *h, const struct mc_peer *peer,
		   const struct mc_meeting *asked, struct mc_meeting *reply,
		   uint64_t deadline_ns);

/* ---- what serves peers without being asked by a thread of theirs ----- */

/* Have @ev called on a worker when its descriptor is readable, until the
 * engine has no workers any more, which is before the context closes. */
int mc_host_watch(struct mc_host *h, struct mc_event *ev);

/* A notification has come: 0 once it is with those that wait to be taken. */
int mc_host_notified(struct mc_host *h, const char *from, const char *name,
		     const void *msg, uint32_t len);

/* ---- what both ask -------------------------------------------------- */

/* A connection to the engine's port began with these bytes, which are not of
 * the native protocol: true if they are of the public one, and are served; @fd
 * is left to the caller. */
bool mc_host_stranger(struct mc_host *h, int fd, const void *first,
		      uint32_t n);

/* A connection was turned away. */
void mc_host_rejected(struct mc_host *h);

/* A control frame: to be answered by mc_server_reply(), now or later, from any
 * thread. Runs on a worker: may not block. @msg is valid during the call. */
void mc_host_control(struct mc_host *h, uint64_t conn, const char *from,
		     int kind, uint64_t id, const void *msg, uint32_t len);

/* Connection @conn is gone; it had asked something. Runs on a worker. */
void mc_host_gone(struct mc_host *h, uint64_t conn);

#endif
