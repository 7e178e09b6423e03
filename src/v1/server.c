/*
 * server.c - connections of the public Mooncake's protocol: accepted or taken
 * over, driven by the engine's workers, and hung up on. What they say is in
 * data.c and control.c.
 *
 * A connection belongs to one worker, which holds its lock while it works on
 * it. Another thread that takes the lock therefore finds it between two
 * steps, and can take memory back from it (mc_v1_server_revoke()).
 */
#include "conn.h"

#include "frame.h"

#include "../base/clock.h"
#include "../base/env.h"
#include "../base/err.h"
#include "../base/memfd.h"
#include "../base/net.h"
#include "../base/util.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

enum {
	V1SERVE_ANSWER_MS = 5000,	/* to say a frame, and to hang up */
	V1SERVE_LOOK_MS = 200,		/* between looks at those */
	V1SERVE_MAX = 8192,		/* connections */
	V1SERVE_STEPS = 64,		/* per event, then others' turn */
	V1SERVE_PIECE = 1 << 30,
	V1SERVE_APART = 32 << 10,	/* not sent with the status */
	V1SERVE_PORTS = 100,		/* tried before giving up */
};

struct mc_v1_server {
	struct mc_host *host;
	struct mc_loop *loops;
	int n_loops, next_loop;
	struct mc_event data, timer;
	int port, spare_fd;		/* to refuse when out of fds */
	int ok_fd;			/* holds the status of what went well */
	pthread_mutex_t lock;		/* of the list */
	struct v1_conn *conns;
	int n_conns;
};

struct mc_host *v1serve_host(const struct v1_conn *c)
{
	return c->server->host;
}

/* ---- sending --------------------------------------------------------- */

void v1serve_span(struct v1_conn *c, void *at, uint64_t len)
{
	uint64_t n = mc_min(len, (uint64_t)V1SERVE_PIECE);

	c->piece = (struct mc_piece){ .local = at, .len = n };
	wire_span_init(&c->span, &c->piece, 1, n);
	c->more = len - n;
}

bool v1serve_span_next(struct v1_conn *c)
{
	if (!c->more)
		return false;
	v1serve_span(c, (char *)c->piece.local + c->piece.len, c->more);
	return true;
}

/* Is it the socket's turn? Then no more is made to be sent. */
static bool v1serve_sends(const struct v1_conn *c)
{
	return c->state == V1_SEND || c->state == V1_ANSWER ||
	       c->out_len > V1_OUT - V1_STATUS;
}

static void v1serve_arm_timer(struct mc_v1_server *s)
{
	struct itimerspec t = { { 0, 0 }, { 0, V1SERVE_LOOK_MS * MC_MS } };

	timerfd_settime(s->timer.fd, 0, &t, NULL);
}

static void v1serve_until(struct v1_conn *c, int ms)
{
	c->until_ns = mc_clock_ns() + ms * (uint64_t)MC_MS;
	v1serve_arm_timer(c->server);
}

/* All of it has been sent. */
static void v1serve_sent(struct v1_conn *c)
{
	c->out_len = c->out_off = 0;
	if (c->state == V1_SEND) {
		v1data_sent(c);
	} else if (c->state == V1_ANSWER) {
		shutdown(c->s.fd, SHUT_WR);
		v1serve_until(c, V1SERVE_ANSWER_MS);
		c->state = V1_LINGER;
	}
}

/*
 * Send what is left of the one status that much follows, from a file: that
 * takes the file's page along. A send would copy it to where the thread's next
 * bytes then go, 8 bytes out of step with theirs, and to copy those would take
 * three to six times as long. SIGPIPE is blocked in a worker. 0: the socket is
 * full.
 */
static ssize_t v1serve_send_ok(struct v1_conn *c)
{
	off_t at = c->out_off;
	ssize_t r = sendfile(c->s.fd, c->server->ok_fd, &at,
			     c->out_len - c->out_off);

	if (r >= 0 || errno == EAGAIN)
		return mc_max(r, 0);
	return mc_syserr(-errno, "%s", c->s.peer);
}

static ssize_t v1serve_send(struct v1_conn *c, bool span)
{
	uint32_t head = c->out_len - c->out_off;
	struct iovec iov[2];
	int n = 0;

	if (head && c->out_len == V1_STATUS && c->state == V1_SEND &&
	    c->span.left >= V1SERVE_APART)
		return v1serve_send_ok(c);
	if (head)
		iov[n++] = (struct iovec){ c->out + c->out_off, head };
	if (span && c->span.left)
		n += wire_span_iov(&c->span, iov + n, 1);
	return mc_stream_writev(&c->s, iov, n);
}

/* 1: all sent, 0: the socket is full, -errno. */
static int v1serve_flush(struct v1_conn *c)
{
	bool span = c->state == V1_SEND || c->state == V1_ANSWER;

	while (c->out_off < c->out_len || (span && c->span.left)) {
		ssize_t r = v1serve_send(c, span);
		uint32_t head;

		if (r <= 0)
			return r;
		head = mc_min((size_t)r, (size_t)(c->out_len - c->out_off));
		c->out_off += head;
		if (span)
			wire_span_skip(&c->span, r - head);
		if (span && !c->span.left)
			v1serve_span_next(c);
	}
	v1serve_sent(c);
	return 1;
}

/* ---- connections ----------------------------------------------------- */

static void v1serve_free(struct v1_conn *c)
{
	mc_stream_fini(&c->s);
	pthread_mutex_destroy(&c->lock);
	free(c->body);
	free(c->rx.buf);
	free(c);
}

/* On its worker, or when the workers are gone. */
static void v1serve_close(struct v1_conn *c)
{
	struct mc_v1_server *s = c->server;

	if (c->loop)
		mc_loop_del(c->loop, &c->ev);
	pthread_mutex_lock(&s->lock);
	*c->prev = c->next;
	if (c->next)
		c->next->prev = c->prev;
	__atomic_sub_fetch(&s->n_conns, 1, __ATOMIC_RELAXED);
	/* Who found it in the list has let go of it by now. */
	pthread_mutex_unlock(&s->lock);
	v1serve_free(c);
}

static int v1serve_step(struct v1_conn *c)
{
	uint64_t all = UINT64_MAX;

	if (c->state == V1_LINGER)
		return wire_recv_skip(&c->rx, &c->s, &all);
	return c->state < V1_FRAME ? v1data_step(c) : v1ctl_step(c);
}

static int v1serve_run(struct v1_conn *c)
{
	int steps = 0, r, sent;

	c->rx.drained = false;
	c->rx.looked_ns = c->loop->asked_ns;
	do {
		r = v1serve_sends(c) ? v1serve_flush(c) : v1serve_step(c);
	} while (r > 0 && !c->dead &&
		 (++steps < V1SERVE_STEPS || c->rx.have > c->rx.used));
	/* Statuses are sent once there is nothing more to add to them. */
	if (!c->out_len || v1serve_sends(c))
		return r;
	sent = v1serve_flush(c);
	return sent < 0 ? sent : r;
}

static void v1serve_watch(struct v1_conn *c)
{
	uint32_t events = c->ended ? 0 : EPOLLRDHUP;

	if (!v1serve_sends(c))
		events |= EPOLLIN;
	if (v1serve_sends(c) || c->out_len)
		events |= EPOLLOUT;
	if (events == c->watched)
		return;
	c->watched = events;
	mc_loop_arm(c->loop, &c->ev, events);
}

static void v1serve_event(struct mc_event *ev, uint32_t events)
{
	struct v1_conn *c = mc_container_of(ev, struct v1_conn, ev);
	int r = -ECONNRESET;

	pthread_mutex_lock(&c->lock);
	c->ended |= !!(events & EPOLLRDHUP);
	/* After an error nothing is taken from the socket, even if it has
	 * bytes: a client that gave up has reset it, and counts on this. */
	if (!c->dead && !(events & (EPOLLERR | EPOLLHUP)))
		r = v1serve_run(c);
	/* It says no more, and what it said is done. */
	if (c->dead || (!r && c->ended && !v1serve_sends(c) && !c->out_len))
		r = -ECONNRESET;
	if (r >= 0)
		v1serve_watch(c);
	pthread_mutex_unlock(&c->lock);
	if (r >= 0)
		return;
	if (r != -ECONNRESET && r != -EPIPE) {
		mc_log(MC_INFO, "v1", "%s", mc_errmsg());
		mc_host_rejected(c->server->host);
	}
	v1serve_close(c);
}

static struct v1_conn *v1serve_new(struct mc_v1_server *s, int fd)
{
	struct v1_conn *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	c->rx.buf = malloc(WIRE_BUF);
	if (!c->rx.buf || mc_stream_init(&c->s, fd, NULL, true) < 0) {
		free(c->rx.buf);
		free(c);
		return NULL;
	}
	pthread_mutex_init(&c->lock, NULL);
	c->server = s;
	c->ev = (struct mc_event){ v1serve_event, fd };
	c->watched = EPOLLIN | EPOLLRDHUP;
	return c;
}

static void v1serve_add(struct mc_v1_server *s, struct v1_conn *c)
{
	pthread_mutex_lock(&s->lock);
	c->next = s->conns;
	c->prev = &s->conns;
	if (c->next)
		c->next->prev = &c->next;
	s->conns = c;
	__atomic_add_fetch(&s->n_conns, 1, __ATOMIC_RELAXED);
	c->loop = &s->loops[s->next_loop++ % s->n_loops];
	pthread_mutex_unlock(&s->lock);
	if (c->state == V1_FRAME)
		v1serve_until(c, V1SERVE_ANSWER_MS);
	/* What was read before has no event of its own. */
	if (c->rx.have)
		c->watched |= EPOLLOUT;
	if (mc_loop_add(c->loop, &c->ev, c->watched) < 0) {
		c->loop = NULL;
		v1serve_close(c);
	}
}

void mc_v1_server_take(struct mc_v1_server *s, int fd, const void *first,
		       uint32_t n)
{
	struct v1_conn *c = NULL;

	if (mc_v1_server_connections(s) < V1SERVE_MAX)
		c = v1serve_new(s, fd);
	if (!c) {
		close(fd);
		mc_host_rejected(s->host);
		return;
	}
	c->state = V1_FRAME;
	memcpy(c->rx.buf, first, n);
	c->rx.have = n;
	v1serve_add(s, c);
}

/* ---- accepting ------------------------------------------------------- */

static void v1serve_refused(struct mc_v1_server *s)
{
	mc_log(MC_WARN, "v1", "out of file descriptors: connection refused "
	       "(raise ulimit -n)");
	mc_host_rejected(s->host);
}

static void v1serve_on_data(struct mc_event *ev, uint32_t events)
{
	struct mc_v1_server *s = mc_container_of(ev, struct mc_v1_server,
						 data);

	(void)events;
	for (int i = 0; i < V1SERVE_STEPS; i++) {
		int fd = mc_net_accept(ev->fd, &s->spare_fd);
		struct v1_conn *c = NULL;

		if (fd == -EMFILE || fd == -ENFILE)
			v1serve_refused(s);
		if (fd < 0)
			return;
		mc_net_tune(fd);
		if (mc_v1_server_connections(s) < V1SERVE_MAX)
			c = v1serve_new(s, fd);
		if (c) {
			v1serve_add(s, c);
		} else {
			close(fd);
			mc_host_rejected(s->host);
		}
	}
}

/* Hang up on those whose time is over: their worker then sees the end. */
static void v1serve_on_timer(struct mc_event *ev, uint32_t events)
{
	struct mc_v1_server *s = mc_container_of(ev, struct mc_v1_server,
						 timer);
	uint64_t now = mc_clock_ns(), n;
	bool more = false;

	(void)events;
	if (read(ev->fd, &n, sizeof(n)) < 0)
		return;
	pthread_mutex_lock(&s->lock);
	for (struct v1_conn *c = s->conns; c; c = c->next) {
		pthread_mutex_lock(&c->lock);
		if (c->until_ns && c->until_ns < now) {
			c->dead = true;
			shutdown(c->s.fd, SHUT_RDWR);
		}
		more |= c->until_ns;
		pthread_mutex_unlock(&c->lock);
	}
	if (more)
		v1serve_arm_timer(s);
	pthread_mutex_unlock(&s->lock);
}

/* ---- for the engine -------------------------------------------------- */

static void v1serve_revoke(struct v1_conn *c, uint64_t addr, uint64_t len)
{
	if (c->addr >= addr + len || addr >= c->addr + c->len)
		return;
	if (c->state == V1_STORE) {
		c->more += c->span.left;
		wire_span_init(&c->span, NULL, 0, 0);
		c->state = V1_SKIP;
	} else if (c->state == V1_SEND) {
		/* What is half sent cannot be taken back but by hanging up. */
		c->dead = true;
		wire_span_init(&c->span, NULL, 0, 0);
		c->more = 0;
		shutdown(c->s.fd, SHUT_RDWR);
	}
}

void mc_v1_server_revoke(struct mc_v1_server *s, uint64_t addr, uint64_t len)
{
	pthread_mutex_lock(&s->lock);
	for (struct v1_conn *c = s->conns; c; c = c->next) {
		pthread_mutex_lock(&c->lock);
		v1serve_revoke(c, addr, len);
		pthread_mutex_unlock(&c->lock);
	}
	pthread_mutex_unlock(&s->lock);
}

int mc_v1_server_connections(const struct mc_v1_server *s)
{
	return __atomic_load_n(&s->n_conns, __ATOMIC_RELAXED);
}

int mc_v1_server_port(const struct mc_v1_server *s)
{
	return s->port;
}

int mc_v1_port(void)
{
	int first = mc_env_number("MC_MIN_RPC_PORT", 1024, 65535, 15000);
	int last = mc_env_number("MC_MAX_RPC_PORT", 1024, 65535, 17000);
	uint32_t n = 0;

	if (getrandom(&n, sizeof(n), 0) < 0)
		n = mc_clock_ns();
	return last > first ? first + (int)(n % (last - first + 1u)) : first;
}

static int v1serve_listen(struct mc_v1_server *s, const char *host)
{
	char addr[MC_ADDR_MAX], actual[MC_ADDR_MAX];
	int fd, r;

	for (int i = 0; i < V1SERVE_PORTS; i++) {
		s->port = mc_v1_port();
		r = mc_net_join(host, s->port, addr);
		if (!r)
			r = mc_net_listen(addr, &fd, actual);
		if (r != -EADDRINUSE)
			break;
	}
	if (!r)
		s->data = (struct mc_event){ v1serve_on_data, fd };
	return r;
}

static int v1serve_ok_file(void)
{
	uint8_t status[V1_STATUS];
	int fd = mc_memfd_create("mc-v1-ok", sizeof(status));

	v1data_ok(status);
	if (fd >= 0 && pwrite(fd, status, sizeof(status), 0) < 0) {
		int r = mc_syserr(-errno, "memfd");

		close(fd);
		return r;
	}
	return fd;
}

int mc_v1_server_open(struct mc_v1_server **out, struct mc_host *h,
		      struct mc_loop *loops, int n_loops, const char *host)
{
	struct mc_v1_server *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return mc_err(-ENOMEM, "out of memory");
	s->host = h;
	s->loops = loops;
	s->n_loops = n_loops;
	s->data.fd = -1;
	s->timer = (struct mc_event){ v1serve_on_timer,
		timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK) };
	s->spare_fd = mc_net_spare();
	s->ok_fd = v1serve_ok_file();
	pthread_mutex_init(&s->lock, NULL);
	r = s->ok_fd < 0 ? s->ok_fd : v1serve_listen(s, host);
	if (r < 0) {
		mc_v1_server_close(s);
		return r;
	}
	*out = s;
	return 0;
}

int mc_v1_server_start(struct mc_v1_server *s)
{
	int r = mc_loop_add(&s->loops[0], &s->timer, EPOLLIN);

	if (!r)
		r = mc_loop_add(&s->loops[0], &s->data, EPOLLIN);
	return r < 0 ? mc_syserr(r, "epoll") : 0;
}

static void v1serve_unlisten(struct mc_v1_server *s)
{
	if (s->data.fd >= 0)
		close(s->data.fd);
	close(s->timer.fd);
	close(s->spare_fd);
	if (s->ok_fd >= 0)
		close(s->ok_fd);
}

/* Of its locks, any may be held by a thread that is not here. */
void mc_v1_server_forget(struct mc_v1_server *s)
{
	if (!s)
		return;
	v1serve_unlisten(s);
	while (s->conns) {
		struct v1_conn *c = s->conns;

		s->conns = c->next;
		mc_stream_fini(&c->s);
		free(c->body);
		free(c->rx.buf);
		free(c);
	}
	free(s);
}

void mc_v1_server_close(struct mc_v1_server *s)
{
	if (!s)
		return;
	v1serve_unlisten(s);
	while (s->conns) {
		s->conns->loop = NULL;
		v1serve_close(s->conns);
	}
	pthread_mutex_destroy(&s->lock);
	free(s);
}
