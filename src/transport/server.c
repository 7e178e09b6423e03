/*
 * server.c - the serving side of the native protocol: accepts, authenticates,
 * and serves reads and writes of registered memory; control frames go to the
 * engine. It never makes a request of its own.
 *
 * A connection belongs to one worker, which holds its lock while it works on
 * it. Another thread that takes the lock therefore finds it between two
 * steps, and can take memory back from it (mc_server_revoke()).
 */
#include "server.h"

#include "wire.h"

#include "../base/clock.h"
#include "../base/err.h"
#include "../base/net.h"
#include "../base/util.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

enum {
	SERVE_HELLO_MS = 2000,		/* to finish the handshake */
	SERVE_LOOK_MS = 200,		/* between looks at those that do not */
	SERVE_MAX = 8192,		/* connections */
	SERVE_STEPS = 64,		/* per event, then others' turn */
	SERVE_IOV = 256,
	SERVE_FIRST = 8,		/* bytes that tell a protocol */
};

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
	uint64_t id, epoch, born_ns;
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

/* ---- sending -------------------------------------------------------- */

static void serve_free_out(struct serve_conn *c, struct serve_out *o)
{
	for (int i = 0; i < o->n_fds; i++)
		close(o->fds[i]);
	o->n_fds = 0;
	if (o == &c->data_out)
		return;
	free(o->own.local);
	free(o);
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
		wire_span_skip(&o->span, r - head);
		if (o->sent < sizeof(o->head) || o->span.left)
			continue;
		c->out = o->next;
		if (!c->out)
			c->out_tail = &c->out;
		serve_free_out(c, o);
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

static struct serve_conn *serve_find(struct mc_server *s, uint64_t id)
{
	struct serve_conn *c = s->conns;

	while (c && c->id != id)
		c = c->next;
	return c;
}

/* Close connection @id of the same client and answer once its worker will not
 * touch memory for it again, which is when its lock was had. */
static void serve_fence(struct serve_conn *c, uint64_t id)
{
	struct mc_server *s = c->server;
	struct serve_conn *other;

	pthread_mutex_lock(&s->lock);
	other = serve_find(s, id);
	if (other && other != c && other->epoch == c->epoch) {
		pthread_mutex_lock(&other->lock);
		other->dead = true;
		shutdown(other->s.fd, SHUT_RDWR);
		pthread_mutex_unlock(&other->lock);
	}
	pthread_mutex_unlock(&s->lock);
}

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
		serve_fence(c, id);
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
	uint32_t size = c->frame.n * sizeof(struct wire_piece);
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

/* ---- connections ---------------------------------------------------- */

static void serve_free(struct serve_conn *c)
{
	while (c->out) {
		struct serve_out *o = c->out;

		c->out = o->next;
		serve_free_out(c, o);
	}
	mc_stream_fini(&c->s);
	pthread_mutex_destroy(&c->lock);
	free(c->control);
	free(c->pieces);
	free(c->rx.buf);
	free(c);
}

/* On its worker, or when the workers are gone. */
static void serve_close(struct serve_conn *c)
{
	struct mc_server *s = c->server;

	if (c->loop)
		mc_loop_del(c->loop, &c->ev);
	pthread_mutex_lock(&s->lock);
	*c->prev = c->next;
	if (c->next)
		c->next->prev = c->prev;
	__atomic_sub_fetch(&s->n_conns, 1, __ATOMIC_RELAXED);
	if (c->state <= SERVE_PROOF)
		__atomic_sub_fetch(&s->n_half, 1, __ATOMIC_RELAXED);
	/* Who found it in the list has let go of it by now. */
	pthread_mutex_unlock(&s->lock);
	if (c->state <= SERVE_PROOF)
		mc_host_rejected(s->host);
	if (c->asked)
		mc_host_gone(s->host, c->id);
	serve_free(c);
}

static void serve_watch(struct serve_conn *c)
{
	uint32_t events = EPOLLRDHUP;

	if (!c->out)
		events |= EPOLLIN;
	if (c->out || (c->state == SERVE_TLS && c->s.want == POLLOUT))
		events |= EPOLLOUT;
	if (events == c->watched)
		return;
	c->watched = events;
	mc_loop_arm(c->loop, &c->ev, events);
}

static int serve_run(struct serve_conn *c)
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

static void serve_event(struct mc_event *ev, uint32_t events)
{
	struct serve_conn *c = mc_container_of(ev, struct serve_conn, ev);
	int r = -ECONNRESET;

	pthread_mutex_lock(&c->lock);
	/* After an error nothing is taken from the socket, even if it has
	 * bytes: a client that gave up has reset it, and counts on this. */
	if (!c->dead && !(events & (EPOLLERR | EPOLLHUP)))
		r = serve_run(c);
	/* It says no more, and what it said is done, or cannot be answered
	 * for it does not read. */
	if (c->dead || (!r && (events & EPOLLRDHUP)))
		r = -ECONNRESET;
	if (r >= 0)
		serve_watch(c);
	pthread_mutex_unlock(&c->lock);
	if (r < 0) {
		if (r != -ECONNRESET && r != -EPIPE)
			mc_log(MC_INFO, "serve", "%s: %s",
			       c->from[0] ? c->from : "a connection",
			       mc_errmsg());
		serve_close(c);
	}
}

static struct serve_conn *serve_new(struct mc_server *s, int fd, bool is_unix)
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
	c->ev = (struct mc_event){ serve_event, fd };
	c->watched = EPOLLIN | EPOLLRDHUP;
	return c;
}

/* Half-open connections are looked at now and then while there are any. */
static void serve_arm_timer(struct mc_server *s)
{
	struct itimerspec t = { { 0, 0 }, { 0, SERVE_LOOK_MS * MC_MS } };

	timerfd_settime(s->timer.fd, 0, &t, NULL);
}

/* A number nobody can guess: who knows it may have the connection closed
 * (WIRE_FENCE). Under the server's lock. */
static uint64_t serve_new_id(struct mc_server *s)
{
	uint8_t nonce[MC_NONCE_LEN];
	uint64_t id;

	do {
		mc_auth_nonce(nonce);
		memcpy(&id, nonce, sizeof(id));
	} while (!id || serve_find(s, id));
	return id;
}

static void serve_add(struct mc_server *s, int fd, bool is_unix)
{
	struct serve_conn *c = serve_new(s, fd, is_unix);

	if (!c) {
		close(fd);
		return;
	}
	pthread_mutex_lock(&s->lock);
	c->id = serve_new_id(s);
	c->next = s->conns;
	c->prev = &s->conns;
	if (c->next)
		c->next->prev = &c->next;
	s->conns = c;
	__atomic_add_fetch(&s->n_conns, 1, __ATOMIC_RELAXED);
	if (!__atomic_fetch_add(&s->n_half, 1, __ATOMIC_RELAXED))
		serve_arm_timer(s);
	c->loop = &s->loops[c->id % s->n_loops];
	pthread_mutex_unlock(&s->lock);
	if (mc_loop_add(c->loop, &c->ev, c->watched) < 0) {
		c->loop = NULL;
		serve_close(c);
	}
}

/* Out of descriptors: a connection that waits would wake us for ever. */
static void serve_refuse(struct mc_server *s, int listen_fd)
{
	mc_log(MC_WARN, "serve", "out of file descriptors: connection refused "
	       "(raise ulimit -n)");
	close(s->spare_fd);
	close(accept(listen_fd, NULL, NULL));
	s->spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	mc_host_rejected(s->host);
}

static void serve_accept(struct mc_server *s, int listen_fd, bool is_unix)
{
	for (int i = 0; i < SERVE_STEPS; i++) {
		int fd = accept4(listen_fd, NULL, NULL,
				 SOCK_NONBLOCK | SOCK_CLOEXEC);

		if (fd < 0 && (errno == EMFILE || errno == ENFILE))
			serve_refuse(s, listen_fd);
		if (fd < 0)
			return;
		if (mc_server_connections(s) >= SERVE_MAX) {
			close(fd);
			mc_host_rejected(s->host);
			continue;
		}
		if (!is_unix)
			mc_net_tune(fd);
		serve_add(s, fd, is_unix);
	}
}

static void serve_on_tcp(struct mc_event *ev, uint32_t events)
{
	(void)events;
	serve_accept(mc_container_of(ev, struct mc_server, tcp), ev->fd,
		     false);
}

static void serve_on_local(struct mc_event *ev, uint32_t events)
{
	(void)events;
	serve_accept(mc_container_of(ev, struct mc_server, local), ev->fd,
		     true);
}

/* Hang up on those that did not finish the handshake: their worker then sees
 * the end of the stream. */
static void serve_on_timer(struct mc_event *ev, uint32_t events)
{
	struct mc_server *s = mc_container_of(ev, struct mc_server, timer);
	uint64_t old = mc_clock_ns() - (uint64_t)SERVE_HELLO_MS * MC_MS;
	uint64_t n;

	(void)events;
	if (read(ev->fd, &n, sizeof(n)) < 0)
		return;
	pthread_mutex_lock(&s->lock);
	for (struct serve_conn *c = s->conns; c; c = c->next) {
		pthread_mutex_lock(&c->lock);
		if (c->state <= SERVE_PROOF && c->born_ns < old) {
			c->dead = true;
			shutdown(c->s.fd, SHUT_RDWR);
		}
		pthread_mutex_unlock(&c->lock);
	}
	if (__atomic_load_n(&s->n_half, __ATOMIC_RELAXED))
		serve_arm_timer(s);
	pthread_mutex_unlock(&s->lock);
}

/* ---- for the engine ------------------------------------------------- */

static struct serve_out *serve_make_reply(uint64_t id, int status,
					  const void *data, uint32_t len,
					  const int *fds, int n_fds)
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

void mc_server_reply(struct mc_server *s, uint64_t conn, uint64_t id,
		     int status, const void *data, uint32_t len,
		     const int *fds, int n_fds)
{
	struct serve_out *o = serve_make_reply(id, status, data, len, fds,
					       n_fds);
	struct serve_conn *c;

	if (!o)
		return;
	pthread_mutex_lock(&s->lock);
	c = serve_find(s, conn);
	if (c) {
		pthread_mutex_lock(&c->lock);
		if (!c->is_unix)
			while (o->n_fds)
				close(o->fds[--o->n_fds]);
		serve_queue(c, o);
		if (serve_flush(c) < 0) {
			c->dead = true;
			shutdown(c->s.fd, SHUT_RDWR);
		}
		serve_watch(c);
		/* Frames that it has, but did not look at for the sake of the
		 * reply that waited: no event of the socket tells of them. */
		if (!c->out && c->rx.have > c->rx.used) {
			c->watched |= EPOLLOUT;
			mc_loop_arm(c->loop, &c->ev, c->watched);
		}
		pthread_mutex_unlock(&c->lock);
	}
	pthread_mutex_unlock(&s->lock);
	if (!c) {
		for (int i = 0; i < o->n_fds; i++)
			close(o->fds[i]);
		free(o->own.local);
		free(o);
	}
}

static bool serve_overlaps(const struct mc_piece *p, uint32_t n, uint64_t addr,
			   uint64_t len)
{
	for (uint32_t i = 0; i < n; i++)
		if (p[i].remote < addr + len && addr < p[i].remote + p[i].len)
			return true;
	return false;
}

static void serve_revoke(struct serve_conn *c, uint64_t addr, uint64_t len)
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
		c->dead = true;
		c->data_out.span.left = 0;
		shutdown(c->s.fd, SHUT_RDWR);
	}
}

void mc_server_revoke(struct mc_server *s, uint64_t addr, uint64_t len)
{
	pthread_mutex_lock(&s->lock);
	for (struct serve_conn *c = s->conns; c; c = c->next) {
		pthread_mutex_lock(&c->lock);
		serve_revoke(c, addr, len);
		pthread_mutex_unlock(&c->lock);
	}
	pthread_mutex_unlock(&s->lock);
}

int mc_server_peer_pid(struct mc_server *s, uint64_t conn)
{
	struct serve_conn *c;
	int pid = 0;

	pthread_mutex_lock(&s->lock);
	c = serve_find(s, conn);
	if (c && c->is_unix)
		pid = mc_net_peer_pid(c->s.fd);
	pthread_mutex_unlock(&s->lock);
	return pid;
}

int mc_server_connections(struct mc_server *s)
{
	return __atomic_load_n(&s->n_conns, __ATOMIC_RELAXED);
}

const char *mc_server_addr(const struct mc_server *s)
{
	return s->addr;
}

static int serve_listen(struct mc_server *s, const char *addr,
			const char *unix_name)
{
	int fd, r = mc_net_listen(addr, &fd, s->addr);

	if (r < 0)
		return r;
	s->tcp = (struct mc_event){ serve_on_tcp, fd };
	if (unix_name[0]) {
		r = mc_net_listen_unix(unix_name, &fd);
		if (r < 0)
			return r;
		s->local = (struct mc_event){ serve_on_local, fd };
	}
	return 0;
}

int mc_server_start(struct mc_server *s)
{
	int r = mc_loop_add(&s->loops[0], &s->timer, EPOLLIN);

	if (!r)
		r = mc_loop_add(&s->loops[0], &s->tcp, EPOLLIN);
	if (!r && s->local.fd >= 0)
		r = mc_loop_add(&s->loops[0], &s->local, EPOLLIN);
	return r < 0 ? mc_syserr(r, "epoll") : 0;
}

int mc_server_open(struct mc_server **out, struct mc_host *h,
		   struct mc_loop *loops, int n_loops, const char *addr,
		   const char *unix_name)
{
	struct mc_server *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return mc_err(-ENOMEM, "out of memory");
	s->host = h;
	s->loops = loops;
	s->n_loops = n_loops;
	s->tcp.fd = s->local.fd = -1;
	s->timer = (struct mc_event){ serve_on_timer,
		timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK) };
	s->spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	pthread_mutex_init(&s->lock, NULL);
	r = serve_listen(s, addr, unix_name);
	if (r < 0) {
		mc_server_close(s);
		return r;
	}
	*out = s;
	return 0;
}

static void serve_unlisten(struct mc_event *ev)
{
	if (ev->fd < 0)
		return;
	/* Its loop has gone, or never had it. */
	close(ev->fd);
}

/* The workers have been stopped. */
static void serve_forget(struct mc_event *ev)
{
	if (ev->fd >= 0)
		close(ev->fd);
}

/* Of its locks, any may be held by a thread that is not here. */
void mc_server_forget(struct mc_server *s)
{
	if (!s)
		return;
	serve_forget(&s->tcp);
	serve_forget(&s->local);
	serve_forget(&s->timer);
	close(s->spare_fd);
	while (s->conns) {
		struct serve_conn *c = s->conns;

		s->conns = c->next;
		mc_stream_fini(&c->s);
		free(c->control);
		free(c->pieces);
		free(c->rx.buf);
		free(c);
	}
	free(s);
}

void mc_server_close(struct mc_server *s)
{
	if (!s)
		return;
	serve_unlisten(&s->tcp);
	serve_unlisten(&s->local);
	serve_unlisten(&s->timer);
	while (s->conns) {
		s->conns->loop = NULL;
		serve_close(s->conns);
	}
	close(s->spare_fd);
	pthread_mutex_destroy(&s->lock);
	free(s);
}
