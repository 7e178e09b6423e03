/*
 * tcp.c - the initiating side over TCP: one path is one connection, on which
 * slices travel as frames, in order, any number at a time. The serving side is
 * server.c.
 *
 * The thread that posts sends as much as the socket takes; the rest goes, and
 * replies are read, whenever someone polls. Nothing is copied on the way: the
 * payload leaves from and arrives at the slices' memory.
 */
#include "host.h"
#include "verbs.h"
#include "wire.h"

#include "../base/clock.h"
#include "../base/err.h"
#include "../base/net.h"
#include "../base/util.h"

#include <errno.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

enum {
	TCP_IOV = 256,
	TCP_DEVS = 16,
	TCP_AGAIN_US = 10000,		/* between tries to ask for a fence */
	TCP_LOOK_NS = 20 * MC_MS,	/* at the queue when nothing moves */
};

struct tcp_ctx {
	struct mc_host *host;
	char devs[TCP_DEVS][32];
	int n_devs;
};

struct tcp_path {
	struct mc_path base;
	struct tcp_ctx *tcp;
	struct mc_stream s;
	struct mc_peer peer;
	uint64_t conn;			/* the server's number for it */

	/* Slices from head (oldest without a reply) to the last; those before
	 * @sending are sent. */
	struct mc_slice *head, **tail, *sending;
	uint64_t head_id, send_id;
	uint8_t *tx;			/* header and pieces of @sending */
	uint32_t tx_len, tx_off;
	struct wire_span tx_span;

	struct wire_rx rx;
	struct wire_frame reply;	/* type 0: none begun */
	struct wire_span rx_span;
	uint64_t sent, looked_ns, queued_bytes;
};

static struct tcp_path *tcp_of(struct mc_path *p)
{
	return mc_container_of(p, struct tcp_path, base);
}

/* ---- opening -------------------------------------------------------- */

static int tcp_open(void **ctx, struct mc_host *host,
		    const struct mc_options *opts)
{
	struct tcp_ctx *t = calloc(1, sizeof(*t));
	char list[512], *save = NULL;

	if (!t)
		return mc_err(-ENOMEM, "out of memory");
	t->host = host;
	mc_copy(list, opts->devices ? opts->devices : "");
	for (char *d = strtok_r(list, ", ", &save); d && t->n_devs < TCP_DEVS;
	     d = strtok_r(NULL, ", ", &save))
		/* RDMA devices may be named beside interfaces. */
		if (!mc_verbs_is_device(d))
			mc_copy(t->devs[t->n_devs++], d);
	for (int i = 0; i < t->n_devs; i++)
		if (!if_nametoindex(t->devs[i])) {
			int r = mc_err(-ENODEV, "no interface is called '%s': "
				       "see `mooncake topo`", t->devs[i]);

			free(t);
			return r;
		}
	*ctx = t;
	return 0;
}

static void tcp_close(void *ctx)
{
	free(ctx);
}

static int tcp_devices(void *ctx, char names[][32], int max)
{
	struct tcp_ctx *t = ctx;

	for (int i = 0; i < t->n_devs && i < max; i++)
		mc_copy(names[i], t->devs[i]);
	if (t->n_devs || !max)
		return mc_min(t->n_devs, max);
	strcpy(names[0], "tcp");
	return 1;
}

static void tcp_dialing(struct tcp_ctx *t, const struct mc_peer *peer, int dev,
			uint64_t deadline_ns, struct wire_dial *d)
{
	*d = (struct wire_dial){
		.addr = peer->addr,
		.dev = t->n_devs ? t->devs[dev] : NULL,
		.key = mc_host_key(t->host),
		.tls = mc_host_tls(t->host),
		.epoch = mc_host_epoch(t->host),
		.peer_epoch = peer->epoch,
		.name = mc_host_name(t->host),
		.deadline_ns = deadline_ns,
	};
}

static struct tcp_path *tcp_new(struct tcp_ctx *t, const struct mc_peer *peer)
{
	struct tcp_path *p = calloc(1, sizeof(*p));

	if (!p)
		return NULL;
	p->tx = malloc(WIRE_BUF);
	p->rx.buf = malloc(WIRE_BUF);
	if (!p->tx || !p->rx.buf) {
		free(p->tx);
		free(p->rx.buf);
		free(p);
		return NULL;
	}
	p->tcp = t;
	p->peer = *peer;
	p->tail = &p->head;
	pthread_mutex_init(&p->base.lock, NULL);
	mc_copy(p->base.remote_dev, peer->addr);
	return p;
}

static void tcp_free(struct tcp_path *p)
{
	pthread_mutex_destroy(&p->base.lock);
	free(p->tx);
	free(p->rx.buf);
	free(p);
}

static int tcp_connect(void *ctx, const struct mc_peer *peer, int dev,
		       uint64_t deadline_ns, struct mc_path **out)
{
	struct tcp_path *p = tcp_new(ctx, peer);
	struct wire_welcome w;
	struct wire_dial d;
	int r;

	if (!p)
		return mc_err(-ENOMEM, "out of memory");
	tcp_dialing(ctx, peer, dev, deadline_ns, &d);
	r = wire_connect(&d, &p->s, &w);
	if (r < 0) {
		tcp_free(p);
		return r;
	}
	p->conn = w.conn;
	p->base.fd = p->s.fd;
	p->base.events = POLLIN;
	*out = &p->base;
	return 0;
}

static void tcp_disconnect(struct mc_path *base)
{
	struct tcp_path *p = tcp_of(base);

	mc_stream_fini(&p->s);
	tcp_free(p);
}

/* ---- failure -------------------------------------------------------- */

/* One try: true when asking again is of no use. */
static bool tcp_ask_fence(struct tcp_path *p, const struct wire_dial *d)
{
	struct wire_call call = { .kind = WIRE_FENCE, .msg = &p->conn,
				  .len = sizeof(p->conn) };
	struct mc_stream s;
	struct wire_welcome w;
	int r = wire_connect(d, &s, &w);

	/* No one listens, or another engine: the old one is gone. */
	if (r < 0)
		return r == -ECONNREFUSED || r == -ESTALE;
	r = wire_call(&s, &call, d->deadline_ns);
	if (r < 0)
		mc_log(MC_DEBUG, "tcp", "%s: no word on what was in flight: "
		       "%s", p->peer.addr, mc_errmsg());
	wire_call_free(&call);
	mc_stream_fini(&s);
	return !r;
}

/* Ask the peer, on a new connection, to close the old one: its word is that
 * nothing is written for it any more. A peer that is gone needs no asking; one
 * that does not answer will find the old one reset before it reads on. */
static void tcp_fence(struct tcp_path *p, uint64_t deadline_ns)
{
	struct wire_dial d;

	tcp_dialing(p->tcp, &p->peer, 0, deadline_ns, &d);
	if (p->tcp->n_devs)
		d.dev = NULL;
	while (!tcp_ask_fence(p, &d) && mc_clock_ns() < deadline_ns)
		usleep(TCP_AGAIN_US);
}

static void tcp_abort(struct mc_path *base, uint64_t deadline_ns)
{
	struct tcp_path *p = tcp_of(base);
	bool writes = false;

	for (struct mc_slice *s = p->head; s && s != p->sending; s = s->next)
		writes |= s->op == MC_WRITE;
	writes |= p->sending && p->tx_off && p->sending->op == MC_WRITE;
	mc_err(-ECANCELED, "%s: connection given up", p->peer.addr);
	mc_path_fail(&p->base, -ECANCELED);
	mc_stream_reset(&p->s);
	p->base.fd = -1;
	if (writes)
		tcp_fence(p, deadline_ns);
	p->head = p->sending = NULL;
	p->tail = &p->head;
}

/* ---- sending -------------------------------------------------------- */

/* Lay out the frame of the slice that is sent next. */
static void tcp_begin(struct tcp_path *p)
{
	struct mc_slice *s = p->sending;
	struct wire_frame f = {
		.type = s->op == MC_READ ? WIRE_READ : WIRE_WRITE,
		.n = s->n, .id = p->send_id++, .len = s->len,
	};

	p->tx_len = wire_pack(p->tx, &f, s->pieces);
	p->tx_off = 0;
	wire_span_init(&p->tx_span, s->pieces, s->n,
		       s->op == MC_WRITE ? s->len : 0);
}

static ssize_t tcp_send_some(struct tcp_path *p)
{
	struct iovec iov[TCP_IOV];
	int n = 0;

	if (p->tx_off < p->tx_len)
		iov[n++] = (struct iovec){ p->tx + p->tx_off,
					   p->tx_len - p->tx_off };
	if (p->tx_span.left)
		n += wire_span_iov(&p->tx_span, iov + n, TCP_IOV - n);
	return mc_stream_writev(&p->s, iov, n);
}

static int tcp_send(struct tcp_path *p)
{
	while (p->sending) {
		uint32_t head;
		ssize_t r;

		if (!p->tx_len)
			tcp_begin(p);
		r = tcp_send_some(p);
		if (r <= 0) {
			p->base.events = POLLIN | (r ? 0 : p->s.want);
			return r;
		}
		p->sent += r;
		p->base.progress++;
		head = mc_min((size_t)r, (size_t)(p->tx_len - p->tx_off));
		p->tx_off += head;
		wire_span_skip(&p->tx_span, r - head);
		if (p->tx_off < p->tx_len || p->tx_span.left)
			continue;
		p->tx_len = 0;
		p->sending = p->sending->next;
	}
	p->base.events = POLLIN;
	return 0;
}

static int tcp_post(struct mc_path *base, struct mc_slice *const *slices,
		    int n)
{
	struct tcp_path *p = tcp_of(base);
	int r;

	if (base->err)
		return 0;
	for (int i = 0; i < n; i++) {
		slices[i]->next = NULL;
		*p->tail = slices[i];
		p->tail = &slices[i]->next;
		if (!p->sending)
			p->sending = slices[i];
		base->queued += slices[i]->len;
	}
	r = tcp_send(p);
	if (r < 0)
		mc_path_fail(&p->base, r);
	return n;
}

/* ---- receiving ------------------------------------------------------ */

static int tcp_begin_reply(struct tcp_path *p)
{
	struct mc_slice *s = p->head;
	bool data;
	int r = wire_fill(&p->rx, &p->s, sizeof(p->reply));

	if (r <= 0)
		return r;
	memcpy(&p->reply, p->rx.buf + p->rx.used, sizeof(p->reply));
	p->rx.used += sizeof(p->reply);
	r = wire_check(&p->reply, true);
	if (r < 0)
		return r;
	if (!s || s == p->sending || p->reply.id != p->head_id)
		return mc_err(-EPROTO, "%s: reply to no request",
			      p->peer.addr);
	data = s->op == MC_READ && !p->reply.status;
	if (data && p->reply.len != s->len)
		return mc_err(-EPROTO, "%s: %llu bytes for a read of %llu",
			      p->peer.addr, (long long)p->reply.len,
			      (long long)s->len);
	if (!data && p->reply.len)
		return mc_err(-EPROTO, "%s: bytes that were not asked for",
			      p->peer.addr);
	wire_span_init(&p->rx_span, s->pieces, s->n, data ? s->len : 0);
	return 1;
}

static const char *tcp_cause(int status)
{
	switch (status) {
	case -ESTALE:
		return "the buffer has been unregistered";
	case -EFAULT:
		return "outside the registered buffers";
	case -EACCES:
		return "the buffer's access flags forbid it";
	case -EOPNOTSUPP:
		return "memory of a GPU, which tcp does not move";
	}
	return strerror(-status);
}

/* One reply, as far as it is there: 1 a slice ended, 0 not yet, -errno. */
static int tcp_recv(struct tcp_path *p, struct mc_slice **out)
{
	struct mc_slice *s;
	int r = 1;

	if (!p->reply.type)
		r = tcp_begin_reply(p);
	if (r == 1)
		r = wire_recv_span(&p->rx, &p->s, &p->rx_span);
	if (r <= 0)
		return r;
	s = p->head;
	p->head = s->next;
	if (!p->head)
		p->tail = &p->head;
	p->head_id++;
	p->base.queued -= s->len;
	s->err = p->reply.status;
	if (s->err)
		snprintf(s->why, MC_WHY_MAX, "%s refused: %s", p->peer.name,
			 tcp_cause(s->err));
	p->reply.type = 0;
	*out = s;
	return 1;
}

/* Bytes that leave the send queue are progress too. */
static void tcp_look(struct tcp_path *p)
{
	uint64_t now = mc_clock_tick_ns();
	int queued = 0;

	if (now - p->looked_ns < TCP_LOOK_NS)
		return;
	p->looked_ns = now;
	if (ioctl(p->s.fd, SIOCOUTQ, &queued) < 0)
		return;
	if (p->sent - queued != p->queued_bytes)
		p->base.progress++;
	p->queued_bytes = p->sent - queued;
}

static int tcp_poll(struct mc_path *base, struct mc_slice **out, int max)
{
	struct tcp_path *p = tcp_of(base);
	uint64_t before = p->rx.total;
	int n = 0, r = 0;

	if (base->err)
		return 0;
	if (p->sending)
		r = tcp_send(p);
	p->rx.drained = false;
	while (r >= 0 && n < max && (p->head || !n)) {
		r = tcp_recv(p, &out[n]);
		if (r == 1)
			n++;
		if (!r)
			break;
	}
	if (r < 0)
		mc_path_fail(&p->base, r);
	if (p->rx.total != before)
		base->progress++;
	else if (!n && p->head)
		tcp_look(p);
	return n;
}

const struct mc_transport mc_tcp_transport = {
	.name = "tcp",
	.open = tcp_open,
	.close = tcp_close,
	.devices = tcp_devices,
	.connect = tcp_connect,
	.abort = tcp_abort,
	.disconnect = tcp_disconnect,
	.post = tcp_post,
	.poll = tcp_poll,
};
