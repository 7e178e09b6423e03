/*
 * server.c - the serving side of the native protocol: accepts connections, has
 * workers run them (serve_conn.c), and does with them what the engine asks. It
 * never makes a request of its own.
 */
#include "serve_conn.h"

#include "../base/clock.h"
#include "../base/err.h"
#include "../base/net.h"
#include "../base/util.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

enum {
	SERVE_HELLO_MS = 2000,		/* to finish the handshake */
	SERVE_LOOK_MS = 200,		/* between looks at those that do not */
	SERVE_MAX = 8192,		/* connections */
};

/* ---- connections ---------------------------------------------------- */

static struct serve_conn *serve_find(struct mc_server *s, uint64_t id)
{
	struct serve_conn *c = s->conns;

	while (c && c->id != id)
		c = c->next;
	return c;
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
	mc_serve_free(c);
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

static void serve_event(struct mc_event *ev, uint32_t events)
{
	struct serve_conn *c = mc_container_of(ev, struct serve_conn, ev);
	int r = -ECONNRESET;

	pthread_mutex_lock(&c->lock);
	/* After an error nothing is taken from the socket, even if it has
	 * bytes: a client that gave up has reset it, and counts on this. */
	if (!c->dead && !(events & (EPOLLERR | EPOLLHUP)))
		r = mc_serve_run(c);
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
	struct serve_conn *c = mc_serve_new(s, fd, is_unix);

	if (!c) {
		close(fd);
		return;
	}
	c->ev = (struct mc_event){ serve_event, fd };
	c->watched = EPOLLIN | EPOLLRDHUP;
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

static void serve_refused(struct mc_server *s)
{
	mc_log(MC_WARN, "serve", "out of file descriptors: connection refused "
	       "(raise ulimit -n)");
	mc_host_rejected(s->host);
}

static void serve_accept(struct mc_server *s, int listen_fd, bool is_unix)
{
	for (int i = 0; i < SERVE_STEPS; i++) {
		int fd = mc_net_accept(listen_fd, &s->spare_fd);

		if (fd == -EMFILE || fd == -ENFILE)
			serve_refused(s);
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

/* Of those that did not finish the handshake. */
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
		if (c->state <= SERVE_PROOF && c->born_ns < old)
			mc_serve_hang_up(c);
		pthread_mutex_unlock(&c->lock);
	}
	if (__atomic_load_n(&s->n_half, __ATOMIC_RELAXED))
		serve_arm_timer(s);
	pthread_mutex_unlock(&s->lock);
}

/* ---- for the engine ------------------------------------------------- */

void mc_server_fence(struct serve_conn *c, uint64_t id)
{
	struct mc_server *s = c->server;
	struct serve_conn *other;

	pthread_mutex_lock(&s->lock);
	other = serve_find(s, id);
	if (other && other != c && other->epoch == c->epoch) {
		pthread_mutex_lock(&other->lock);
		mc_serve_hang_up(other);
		pthread_mutex_unlock(&other->lock);
	}
	pthread_mutex_unlock(&s->lock);
}

void mc_server_reply(struct mc_server *s, uint64_t conn, uint64_t id,
		     int status, const void *data, uint32_t len,
		     const int *fds, int n_fds)
{
	struct serve_out *o = mc_serve_reply(id, status, data, len, fds, n_fds);
	struct serve_conn *c;

	if (!o)
		return;
	pthread_mutex_lock(&s->lock);
	c = serve_find(s, conn);
	if (c) {
		pthread_mutex_lock(&c->lock);
		if (mc_serve_send(c, o) < 0)
			mc_serve_hang_up(c);
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
	if (!c)
		mc_serve_drop(o);
}

void mc_server_revoke(struct mc_server *s, uint64_t addr, uint64_t len)
{
	pthread_mutex_lock(&s->lock);
	for (struct serve_conn *c = s->conns; c; c = c->next) {
		pthread_mutex_lock(&c->lock);
		mc_serve_revoke(c, addr, len);
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

int mc_server_list(struct mc_server *s, int skip,
		   struct mc_connection_info *out, int max)
{
	uint64_t now = mc_clock_ns();
	int n = 0;

	pthread_mutex_lock(&s->lock);
	for (struct serve_conn *c = s->conns; c && n < max; c = c->next) {
		pthread_mutex_lock(&c->lock);
		if (c->state > SERVE_PROOF && !c->dead && skip-- <= 0) {
			out[n] = (struct mc_connection_info){
				.epoch = c->epoch, .age_ns = now - c->born_ns,
				.bytes_in = c->rx.total, .bytes_out = c->sent,
			};
			mc_copy(out[n].peer, c->from);
			mc_net_peer_name(c->s.fd, out[n++].from);
		}
		pthread_mutex_unlock(&c->lock);
	}
	pthread_mutex_unlock(&s->lock);
	return n;
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
	s->spare_fd = mc_net_spare();
	pthread_mutex_init(&s->lock, NULL);
	r = serve_listen(s, addr, unix_name);
	if (r < 0) {
		mc_server_close(s);
		return r;
	}
	*out = s;
	return 0;
}

static void serve_unlisten(struct mc_server *s)
{
	struct mc_event *all[] = { &s->tcp, &s->local, &s->timer };

	for (int i = 0; i < 3; i++)
		if (all[i]->fd >= 0)
			close(all[i]->fd);
	close(s->spare_fd);
}

/* Of its locks, any may be held by a thread that is not here. */
void mc_server_forget(struct mc_server *s)
{
	if (!s)
		return;
	serve_unlisten(s);
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

/* The workers have been stopped. */
void mc_server_close(struct mc_server *s)
{
	if (!s)
		return;
	serve_unlisten(s);
	while (s->conns) {
		s->conns->loop = NULL;
		serve_close(s->conns);
	}
	pthread_mutex_destroy(&s->lock);
	free(s);
}
