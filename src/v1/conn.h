/*
 * conn.h - a connection to the v1 server, as its files see it. It belongs to
 * one worker, which holds its lock while it works on it.
 */
#ifndef MC_V1_CONN_H
#define MC_V1_CONN_H

#include "server.h"

#include "../transport/wire.h"

enum {
	V1_OUT = 2048,			/* statuses that are sent together */
	V1_HEAD = 24,
	V1_STATUS = 8,
};

enum v1_state {
	V1_REQUEST,			/* waiting for a data header */
	V1_STORE,			/* receiving into place */
	V1_SKIP,			/* receiving what was taken back */
	V1_SEND,			/* sending what was read */
	V1_FRAME,			/* waiting for a frame's length */
	V1_BODY,			/* and for the rest of it */
	V1_ANSWER,			/* sending the last that we say */
	V1_LINGER,			/* until the other end hangs up */
};

struct v1_conn {
	struct mc_event ev;
	struct mc_v1_server *server;
	struct mc_loop *loop;
	struct v1_conn *next, **prev;	/* the server's list */
	pthread_mutex_t lock;
	struct mc_stream s;
	struct wire_rx rx;
	enum v1_state state;
	bool dead, ended;		/* ended: no more comes from there */
	uint64_t until_ns;		/* hung up then; 0: it may stay */
	uint32_t watched;		/* epoll events as set */
	uint8_t out[V1_OUT];		/* sent before the span */
	uint32_t out_len, out_off;

	/* The memory being received or sent, a piece at a time. */
	struct mc_piece piece;
	struct wire_span span;
	uint64_t more;			/* bytes after the piece */
	uint64_t addr, len;		/* of the request at hand */
	enum mc_op op;
	bool acked;			/* it wants a status */

	uint8_t *body;			/* of a frame; then of the reply */
	uint64_t body_len, body_have, body_cap;
};

/* One step in receiving: 1 there may be more to do, 0 wait for the socket,
 * -errno hang up. */
int v1data_step(struct v1_conn *c);
int v1ctl_step(struct v1_conn *c);

struct mc_host *v1serve_host(const struct v1_conn *c);

/* Lay out the status of what went well at @out: V1_STATUS bytes. */
void v1data_ok(uint8_t *out);

/* What was read has been sent. */
void v1data_sent(struct v1_conn *c);

/* Receive into, or send, @len bytes at @at next, in pieces that a span can
 * hold; v1serve_span_next() is the next of them, false at the end. */
void v1serve_span(struct v1_conn *c, void *at, uint64_t len);
bool v1serve_span_next(struct v1_conn *c);

#endif
