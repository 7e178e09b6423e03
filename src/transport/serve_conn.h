/*
 * serve_conn.h - one connection of the server, seen by serve_conn.c (what is
 * said on it) and server.c (where it comes from and goes).
 */
#ifndef MC_SERVE_CONN_H
#define MC_SERVE_CONN_H

#include "server.h"
#include "wire.h"

enum serve_state {
	SERVE_TLS,
	SERVE_HELLO,
	SERVE_PROOF,
	SERVE_HEAD,			/* waiting for a frame */
	SERVE_PIECES,
	SERVE_DATA,			/* receiving into place */
	SERVE_SKIP,			/* receiving what was refused */
	SERVE_CONTROL,
};

/* Something to send: a header, then bytes of pieces. */
struct serve_out {
	struct wire_frame head;
	uint32_t sent;			/* of the header */
	struct wire_span span;
	struct mc_piece own;		/* the piece of an allocated reply */
	int fds[MC_HOST_FDS], n_fds;
	struct serve_out *next;
};

struct serve_conn {
	struct mc_event ev;
	struct mc_server *server;
	struct mc_loop *loop;
	struct serve_conn *next, **prev;	/* server's list */
	pthread_mutex_t lock;
	struct mc_stream s;
	uint64_t id, epoch, born_ns, sent;
	enum serve_state state;
	bool is_unix, dead, asked;
	uint32_t watched;			/* epoll events as set */
	char from[MC_NAME_MAX];
	uint8_t nonce_c[16], nonce_s[16];

	struct wire_rx rx;
	struct wire_frame frame;		/* being received */
	struct mc_piece *pieces;
	struct wire_span span;
	uint64_t skip;
	int status;				/* of the frame, so far */
	char *control;

	struct serve_out data_out;		/* reply to a data frame */
	struct serve_out *out, **out_tail;
};

struct mc_server {
	struct mc_host *host;
	struct mc_loop *loops;
	int n_loops;
	struct mc_event tcp, local, timer;
	int spare_fd;				/* to refuse when out of fds */
	char addr[MC_ADDR_MAX];
	pthread_mutex_t lock;			/* of the list */
	struct serve_conn *conns;
	int n_conns, n_half;			/* n_half: not yet open */
};

enum {
	SERVE_STEPS = 64,		/* per event, then others' turn */
};

/* For a socket that was accepted, which it then owns; NULL: no memory. */
struct serve_conn *mc_serve_new(struct mc_server *s, int fd, bool is_unix);
void mc_serve_free(struct serve_conn *c);

/* Under the connection's lock, on its worker. Take and answer what has come: 0
 * that is all for now, 1 there is more, -errno it is to be closed. */
int mc_serve_run(struct serve_conn *c);

/* A reply to control frame @id, with copies of the data and the descriptors;
 * NULL: no memory. mc_serve_send() takes it: -errno as above. */
struct serve_out *mc_serve_reply(uint64_t id, int status, const void *data,
				 uint32_t len, const int *fds, int n_fds);
int mc_serve_send(struct serve_conn *c, struct serve_out *o);
void mc_serve_drop(struct serve_out *o);

/* Its worker then sees the end of the stream, and closes it. */
void mc_serve_hang_up(struct serve_conn *c);

/* [addr, addr+len) is taken back: nothing is received into it any more. */
void mc_serve_revoke(struct serve_conn *c, uint64_t addr, uint64_t len);

/* Close connection @id of the same client and return once its worker will not
 * touch memory for it again (server.c). */
void mc_server_fence(struct serve_conn *c, uint64_t id);

#endif
