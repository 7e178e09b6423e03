/*
 * serve_conn.c - one connection of the server: the handshake, and the frames
 * that come after it, answered in order. Control frames go to the engine.
 *
 * A connection belongs to one worker, which holds its lock while it works on
 * it. Another thread that takes the lock therefore finds it between two
 * steps, and can take memory back from it (mc_serve_revoke()).
 */
#include "serve_conn.h"

#include "../base/clock.h"
#include "../base/err.h"
#include "../base/net.h"
#include "../base/util.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
	SERVE_IOV = 256,
	SERVE_FIRST = 8,		/* bytes that tell a protocol */
};

/* ---- sending -------------------------------------------------------- */

void mc_serve_drop(struct serve_out *o)
{
	for (int i = 0; i < o->n_fds; i++)
		close(o->fds[i]);
	free(o->own.local);
	free(o);
}

/* It has been sent, or never will be. */
static void serve_done_with(struct serve_conn *c, struct serve_out *o)
{
	if (o != &c->data_out)
		mc_serve_drop(o);
}

static void serve_queue(struct serve_conn *c, struct serve_out *o)
{
	o->next = NULL;
	*c->out_tail = o;
	c->out_tail = &o->next;
}

/* The header of a reply with descriptors: they ride on its first byte. */
static ssize_t serve_send_fds(struct serve_conn *c, struct serve_out *o)
{
	ssize_t r = mc_net_sendmsg_fds(c->s.fd, &o->head, sizeof(o->head),
				       o->fds, o->n_fds);

	if (r == -EAGAIN) {
		c->s.want = POLLOUT;
		return 0;
	}
	return r;
}

static ssize_t serve_send_some(struct serve_conn *c, struct serve_out *o)
{
	struct iovec iov[SERVE_IOV];
	int n = 0;

	if (!o->sent && o->n_fds)
		return serve_send_fds(c, o);
	if (o->sent < sizeof(o->head))
		iov[n++] = (struct iovec){ (char *)&o->head + o->sent,
					   sizeof(o->head) - o->sent };
	n += wire_span_iov(&o->span, iov + n, SERVE_IOV - n);
	return mc_stream_writev(&c->s, iov, n);
}

/* 1: all sent, 0: the socket is full, -errno. */
static int serve_flush(struct serve_conn *c)
{
	while (c->out) {
		struct serve_out *o = c->out;
		ssize_t r = serve_send_some(c, o);
		uint32_t head;

		if (r <= 0)
			return r;
		head = mc_min((size_t)r, sizeof(o->head) - o->sent);
		o->sent += head;
		c->sent += r;
		wire_span_skip(&o->span, r - head);
		if (o->sent < sizeof(o->head) || o->span.left)
			continue;
		c->out = o->next;
		if (!c->out)
			c->out_tail = &c->out;
		serve_done_with(c, o);
	}
	return 1;
}

/* The reply to the data frame at hand. */
static int serve_done(struct serve_conn *c)
{
	bool read = c->frame.type == WIRE_READ && !c->status;
	struct serve_out *o = &c->data_out;

	*o = (struct serve_out){
		.head = { .type = WIRE_DONE, .kind = c->frame.type,
			  .status = c->status, .id = c->frame.id,
			  .len = read ? c->frame.len : 0 },
	};
	if (read)
		wire_span_init(&o->span, c->pieces, c->frame.n, c->frame.len);
	if (!c->status)
		mc_host_served(c->server->host,
			       read ? MC_READ : MC_WRITE, c->frame.len);
	c->state = SERVE_HEAD;
	serve_queue(c, o);
	return serve_flush(c);
}

/* ---- handshake ------------------------------------------------------ */

static void serve_opened(struct serve_conn *c)
{
	c->state = SERVE_HEAD;
	/* Not under the server's lock, which comes before a connection's. */
	__atomic_sub_fetch(&c->server->n_half, 1, __ATOMIC_RELAXED);
}

static int serve_say(struct serve_conn *c, const void *msg, uint32_t len)
{
	struct iovec iov = { (void *)msg, len };
	ssize_t r = mc_stream_writev(&c->s, &iov, 1);

	/* A fresh socket has room for so little; one that has not is no
	 * friend. */
	return r == (ssize_t)len ? 0 : mc_err(-EPROTO, "short handshake");
}

static int serve_refuse_hello(struct serve_conn *c, const struct wire_hello *h)
{
	const struct mc_key *key = mc_host_key(c->server->host);

	if (h->version != WIRE_VERSION)
		return -EPROTONOSUPPORT;
	if (h->server_epoch &&
	    h->server_epoch != mc_host_epoch(c->server->host))
		return -ESTALE;
	if (key->len && !(h->flags & WIRE_KEY))
		return -EACCES;
	return 0;
}

/* Not the native protocol: the engine may have a server for what it is. That
 * gets the socket, by a descriptor of its own, and here it ends. */
static int serve_stranger(struct serve_conn *c)
{
	int fd = c->s.tls || c->is_unix ? -1 :
		 fcntl(c->s.fd, F_DUPFD_CLOEXEC, 3);

	if (fd < 0 || !mc_host_stranger(c->server->host, fd, c->rx.buf +
					c->rx.used, c->rx.have - c->rx.used)) {
		if (fd >= 0)
			close(fd);
		return mc_err(-EPROTO, "not the native protocol");
	}
	serve_opened(c);
	return -ECONNRESET;
}

static int serve_hello(struct serve_conn *c)
{
	struct mc_host *host = c->server->host;
	const struct mc_key *key = mc_host_key(host);
	struct wire_welcome w = {
		.magic = WIRE_MAGIC, .version = WIRE_VERSION,
		.epoch = mc_host_epoch(host), .conn = c->id,
		.host_id = mc_host_id(host), .flags = key->len ? WIRE_KEY : 0,
	};
	struct wire_hello h;
	int r = wire_fill(&c->rx, &c->s, SERVE_FIRST);

	if (r <= 0)
		return r;
	memcpy(&h, c->rx.buf + c->rx.used, sizeof(h.magic));
	if (h.magic != WIRE_MAGIC)
		return serve_stranger(c);
	r = wire_fill(&c->rx, &c->s, sizeof(h));
	if (r <= 0)
		return r;
	memcpy(&h, c->rx.buf + c->rx.used, sizeof(h));
	c->rx.used += sizeof(h);
	h.name[sizeof(h.name) - 1] = 0;
	mc_copy(c->from, h.name);
	c->epoch = h.epoch;
	w.status = serve_refuse_hello(c, &h);
	if (!w.status && key->len) {
		uint64_t epochs[2] = { h.epoch, w.epoch };

		memcpy(c->nonce_c, h.nonce, sizeof(c->nonce_c));
		mc_auth_nonce(c->nonce_s);
		memcpy(w.nonce, c->nonce_s, sizeof(w.nonce));
		mc_auth_proof(key, "server", c->nonce_c, c->nonce_s, epochs,
			      sizeof(epochs), w.proof);
	}
	r = serve_say(c, &w, sizeof(w));
	if (r < 0 || w.status)
		return r < 0 ? r : w.status;
	if (key->len)
		c->state = SERVE_PROOF;
	else
		serve_opened(c);
	return 1;
}

static int serve_proof(struct serve_conn *c)
{
	struct mc_host *host = c->server->host;
	uint64_t epochs[2] = { c->epoch, mc_host_epoch(host) };
	struct wire_ready ready = { 0 };
	uint8_t proof[32];
	int r = wire_fill(&c->rx, &c->s, sizeof(proof));

	if (r <= 0)
		return r;
	mc_auth_proof(mc_host_key(host), "client", c->nonce_c, c->nonce_s,
		      epochs, sizeof(epochs), proof);
	if (!mc_auth_equal(proof, c->rx.buf + c->rx.used))
		ready.status = -EACCES;
	c->rx.used += sizeof(proof);
	r = serve_say(c, &ready, sizeof(ready));
	if (r < 0 || ready.status)
		return r < 0 ? r : ready.status;
	serve_opened(c);
	return 1;
}

/* ---- frames --------------------------------------------------------- */

static int serve_control(struct serve_conn *c)
{
	struct mc_piece into = { c->control, 0, c->frame.len, 0 };
	uint64_t id = 0;
	int r;

	c->span.p = &into;
	r = wire_recv_span(&c->rx, &c->s, &c->span);
	if (r <= 0)
		return r;
	c->state = SERVE_HEAD;
	if (c->frame.kind == WIRE_FENCE && c->frame.len == sizeof(id)) {
		memcpy(&id, c->control, sizeof(id));
		/* Not while holding our own lock: two could fence each
		 * other. */
		pthread_mutex_unlock(&c->lock);
		mc_server_fence(c, id);
		mc_server_reply(c->server, c->id, c->frame.id, 0, NULL, 0,
				NULL, 0);
	} else {
		c->asked = true;
		pthread_mutex_unlock(&c->lock);
		mc_host_control(c->server->host, c->id, c->from,
				c->frame.kind, c->frame.id, c->control,
				c->frame.len);
	}
	pthread_mutex_lock(&c->lock);
	free(c->control);
	c->control = NULL;
	return 1;
}

static int serve_begin_control(struct serve_conn *c)
{
	c->control = malloc(c->frame.len + 1);
	if (!c->control)
		return mc_err(-ENOMEM, "out of memory");
	c->control[c->frame.len] = 0;
	wire_span_init(&c->span, NULL, 1, c->frame.len);
	c->state = SERVE_CONTROL;
	return 1;
}

static int serve_head(struct serve_conn *c)
{
	int r;

	/* A peer that does not read its replies gets no more of them made. */
	if (c->out)
		return 0;
	r = wire_fill(&c->rx, &c->s, sizeof(c->frame));
	if (r <= 0)
		return r;
	memcpy(&c->frame, c->rx.buf + c->rx.used, sizeof(c->frame));
	c->rx.used += sizeof(c->frame);
	r = wire_check(&c->frame, false);
	if (r < 0)
		return r;
	if (c->frame.type == WIRE_CONTROL)
		return serve_begin_control(c);
	c->state = SERVE_PIECES;
	return 1;
}

static int serve_pieces(struct serve_conn *c)
{
	uint32_t size = wire_pieces_size(c->frame.n);
	enum mc_op op = c->frame.type == WIRE_READ ? MC_READ : MC_WRITE;
	int r = wire_fill(&c->rx, &c->s, size);

	if (r <= 0)
		return r;
	if (!c->pieces)
		c->pieces = malloc(WIRE_PIECES * sizeof(*c->pieces));
	if (!c->pieces)
		return mc_err(-ENOMEM, "out of memory");
	r = wire_unpack(c->rx.buf + c->rx.used, c->pieces, c->frame.n,
			c->frame.len);
	if (r < 0)
		return r;
	c->rx.used += size;
	c->status = mc_host_admit(c->server->host, op, c->pieces, c->frame.n);
	if (op == MC_READ)
		return serve_done(c);
	wire_span_init(&c->span, c->pieces, c->frame.n, c->frame.len);
	c->skip = c->frame.len;
	c->state = c->status ? SERVE_SKIP : SERVE_DATA;
	return 1;
}

static int serve_step(struct serve_conn *c)
{
	int r;

	switch (c->state) {
	case SERVE_TLS:
		r = mc_stream_handshake(&c->s);
		if (r == 1)
			c->state = SERVE_HELLO;
		return r;
	case SERVE_HELLO:
		return serve_hello(c);
	case SERVE_PROOF:
		return serve_proof(c);
	case SERVE_HEAD:
		return serve_head(c);
	case SERVE_PIECES:
		return serve_pieces(c);
	case SERVE_DATA:
		r = wire_recv_span(&c->rx, &c->s, &c->span);
		return r == 1 ? serve_done(c) : r;
	case SERVE_SKIP:
		r = wire_recv_skip(&c->rx, &c->s, &c->skip);
		return r == 1 ? serve_done(c) : r;
	case SERVE_CONTROL:
		return serve_control(c);
	}
	return -EPROTO;
}

int mc_serve_run(struct serve_conn *c)
{
	int steps = 0;
	int r = serve_flush(c);

	if (r < 0)
		return r;
	c->rx.drained = false;
	c->rx.looked_ns = c->loop->asked_ns;
	do {
		r = serve_step(c);
	} while (r > 0 && !c->dead &&
		 (++steps < SERVE_STEPS || mc_stream_pending(&c->s) ||
		  c->rx.have > c->rx.used));
	return r;
}

/* ---- for the server ------------------------------------------------- */

struct serve_conn *mc_serve_new(struct mc_server *s, int fd, bool is_unix)
{
	struct mc_tls *tls = is_unix ? NULL : mc_host_tls(s->host);
	struct serve_conn *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	c->rx.buf = malloc(WIRE_BUF);
	if (!c->rx.buf || mc_stream_init(&c->s, fd, tls, true) < 0) {
		free(c->rx.buf);
		free(c);
		return NULL;
	}
	pthread_mutex_init(&c->lock, NULL);
	c->server = s;
	c->is_unix = is_unix;
	c->state = tls ? SERVE_TLS : SERVE_HELLO;
	c->out_tail = &c->out;
	c->born_ns = mc_clock_ns();
	return c;
}

void mc_serve_free(struct serve_conn *c)
{
	while (c->out) {
		struct serve_out *o = c->out;

		c->out = o->next;
		serve_done_with(c, o);
	}
	mc_stream_fini(&c->s);
	pthread_mutex_destroy(&c->lock);
	free(c->control);
	free(c->pieces);
	free(c->rx.buf);
	free(c);
}

struct serve_out *mc_serve_reply(uint64_t id, int status, const void *data,
				 uint32_t len, const int *fds, int n_fds)
{
	struct serve_out *o = calloc(1, sizeof(*o));

	if (!o)
		return NULL;
	o->own.local = malloc(len + 1);
	if (!o->own.local) {
		free(o);
		return NULL;
	}
	if (len)
		memcpy(o->own.local, data, len);
	o->own.len = len;
	o->head = (struct wire_frame){ .type = WIRE_DONE, .status = status,
				       .kind = WIRE_CONTROL, .id = id,
				       .len = len };
	wire_span_init(&o->span, &o->own, 1, len);
	for (int i = 0; i < n_fds; i++)
		o->fds[o->n_fds++] = fcntl(fds[i], F_DUPFD_CLOEXEC, 3);
	return o;
}

int mc_serve_send(struct serve_conn *c, struct serve_out *o)
{
	if (!c->is_unix)
		while (o->n_fds)
			close(o->fds[--o->n_fds]);
	serve_queue(c, o);
	return mc_min(serve_flush(c), 0);
}

void mc_serve_hang_up(struct serve_conn *c)
{
	c->dead = true;
	shutdown(c->s.fd, SHUT_RDWR);
}

static bool serve_overlaps(const struct mc_piece *p, uint32_t n, uint64_t addr,
			   uint64_t len)
{
	for (uint32_t i = 0; i < n; i++)
		if (p[i].remote < addr + len && addr < p[i].remote + p[i].len)
			return true;
	return false;
}

void mc_serve_revoke(struct serve_conn *c, uint64_t addr, uint64_t len)
{
	bool sending = c->out && c->data_out.span.left;

	if (!c->pieces || !serve_overlaps(c->pieces, c->frame.n, addr, len))
		return;
	if (c->state == SERVE_DATA) {
		c->skip = c->span.left;
		c->status = -ESTALE;
		c->state = SERVE_SKIP;
	} else if (sending) {
		/* A reply half sent cannot be taken back but by hanging up. */
		c->data_out.span.left = 0;
		mc_serve_hang_up(c);
	}
}
