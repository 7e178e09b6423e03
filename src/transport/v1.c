/*
 * v1.c - the initiating side of the public Mooncake's data plane, for peers
 * that speak nothing else; what travels is in ../v1/data.c.
 *
 * The public server takes one request after the other from a connection, and
 * so answers them in order: any number may be on the way, and are. A slice is a
 * run of requests, one for each piece. A write of version 1 has no answer, and
 * that it was sent says little; so such a slice ends with a read of the last
 * byte that it wrote, whose answer proves that all before it was stored.
 *
 * There is nothing to confirm that a connection which is given up is no longer
 * served. So we say that no more comes, and wait for the peer to hang up: it
 * does so after the last byte that it got. One that does not, frozen or cut
 * off, may still store what had reached its socket, once it goes on.
 */
#include "host.h"
#include "wire.h"

#include "../base/clock.h"
#include "../base/err.h"
#include "../base/net.h"
#include "../base/util.h"

#include <endian.h>
#include <errno.h>
#include <linux/sockios.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

enum {
	V1_REQUESTS = 64,		/* laid out for one system call */
	V1_HEAD_LEN = 24,
	V1_ACKED = 0x80,		/* operation: version 2, see data.c */
	V1_DEAF = 256 << 10,		/* taken by a peer that does not run */
	V1_DRAIN_MS = 60,
	V1_LOOK_NS = 20 * MC_MS,	/* at the queue when nothing moves */
};

struct v1_head {
	uint64_t size, addr;
	uint8_t op, pad[7];
};

struct v1_path {
	struct mc_path base;
	struct mc_stream s;
	bool acked;			/* version 2 */
	bool unheard;			/* it takes no more, but may have said
					 * why */
	char name[MC_NAME_MAX];		/* of the peer */

	/* Slices from head (oldest without an answer) to the last; those before
	 * @sending are sent. */
	struct mc_slice *head, **tail, *sending;
	uint32_t tx;			/* request of @sending at hand */
	uint64_t tx_off;		/* into its header and bytes */
	struct v1_head heads[V1_REQUESTS];

	struct wire_rx rx;
	uint32_t rx_i;			/* request of @head at hand */
	bool rx_begun;			/* its status has come */
	struct wire_span rx_span;
	struct mc_piece proof;		/* into which it is read */
	uint8_t proof_byte;
	uint64_t sent, looked_ns, queued_bytes;
};

static struct v1_path *v1_of(struct mc_path *p)
{
	return mc_container_of(p, struct v1_path, base);
}

/* ---- opening --------------------------------------------------------- */

static int v1_open(void **ctx, struct mc_host *host,
		   const struct mc_options *opts)
{
	(void)host;
	*ctx = NULL;
	if (!opts->profile || strncmp(opts->profile, "v1", 2))
		return mc_err(-EOPNOTSUPP, "profile v1 is off");
	return 0;
}

static struct v1_path *v1_new(const struct mc_peer *peer)
{
	struct v1_path *p = calloc(1, sizeof(*p));

	if (!p)
		return NULL;
	p->rx.buf = malloc(WIRE_BUF);
	if (!p->rx.buf) {
		free(p);
		return NULL;
	}
	p->tail = &p->head;
	p->acked = peer->v1_version >= 2;
	pthread_mutex_init(&p->base.lock, NULL);
	mc_copy(p->name, peer->name);
	mc_copy(p->base.remote_dev, peer->v1_addr);
	return p;
}

static void v1_free(struct v1_path *p)
{
	pthread_mutex_destroy(&p->base.lock);
	free(p->rx.buf);
	free(p);
}

static int v1_connect(void *ctx, const struct mc_peer *peer, int dev,
		      uint64_t deadline_ns, struct mc_path **out)
{
	struct v1_path *p;
	int fd, r;

	(void)ctx;
	(void)dev;
	if (!peer->v1_addr[0])
		return mc_err(-EOPNOTSUPP, "%s is not served by tcp",
			      peer->name);
	p = v1_new(peer);
	if (!p)
		return mc_err(-ENOMEM, "out of memory");
	r = mc_net_connect(peer->v1_addr, NULL, deadline_ns, &fd);
	if (!r) {
		r = mc_stream_init(&p->s, fd, NULL, false);
		if (r < 0)
			close(fd);
	}
	if (r < 0) {
		v1_free(p);
		return r;
	}
	p->base.fd = p->s.fd;
	p->base.events = POLLIN;
	*out = &p->base;
	return 0;
}

static void v1_disconnect(struct mc_path *base)
{
	struct v1_path *p = v1_of(base);

	mc_stream_fini(&p->s);
	v1_free(p);
}

/* ---- failure --------------------------------------------------------- */

/* Until the peer hangs up: what it says until then is of no use. One that has
 * never said anything is not waited for as long: it is likely to be frozen, and
 * who asked is to hear so within a second. */
static bool v1_drain(struct v1_path *p, uint64_t deadline_ns)
{
	uint64_t soon = mc_clock_ns() + V1_DRAIN_MS * (uint64_t)MC_MS;
	uint64_t all = UINT64_MAX;
	int r;

	if (!p->rx.total)
		deadline_ns = mc_min(deadline_ns, soon);
	if (p->s.fd < 0 || shutdown(p->s.fd, SHUT_WR) < 0)
		return true;
	p->rx.drained = false;
	while (!(r = wire_recv_skip(&p->rx, &p->s, &all))) {
		p->rx.drained = false;
		if (mc_net_wait(p->s.fd, POLLIN, deadline_ns) < 0)
			return false;
	}
	return true;
}

static void v1_abort(struct mc_path *base, uint64_t deadline_ns)
{
	struct v1_path *p = v1_of(base);
	bool writes = false;

	for (struct mc_slice *s = p->head; s; s = s->next) {
		if (s == p->sending && !p->tx && !p->tx_off)
			break;
		writes |= s->op == MC_WRITE;
		if (s == p->sending)
			break;
	}
	mc_err(-ECANCELED, "%s: connection given up", p->base.remote_dev);
	mc_path_fail(&p->base, -ECANCELED);
	if (writes && !v1_drain(p, deadline_ns))
		mc_log(MC_INFO, "v1", "%s: no word on what was in flight",
		       p->base.remote_dev);
	mc_stream_reset(&p->s);
	p->base.fd = -1;
	p->head = p->sending = NULL;
	p->tail = &p->head;
}

/* ---- sending --------------------------------------------------------- */

/* How many requests a slice is: one more to prove that it is stored. */
static uint32_t v1_requests(const struct v1_path *p, const struct mc_slice *s)
{
	return s->n + (s->op == MC_WRITE && !p->acked);
}

/* Lay out the header of a request, and return how many bytes follow it. */
static uint64_t v1_head(const struct v1_path *p, const struct mc_slice *s,
			uint32_t i, struct v1_head *h)
{
	bool proof = i == s->n;
	const struct mc_piece *piece = &s->pieces[proof ? i - 1 : i];
	enum mc_op op = proof ? MC_READ : s->op;

	*h = (struct v1_head){
		.size = htole64(proof ? 1 : piece->len),
		.addr = htole64(proof ? piece->remote + piece->len - 1 :
				piece->remote),
		.op = (op == MC_WRITE) | (p->acked ? V1_ACKED : 0),
	};
	return op == MC_WRITE ? piece->len : 0;
}

/* What is to be sent of the slice at hand, from where we are. */
static int v1_gather(struct v1_path *p, struct iovec *iov)
{
	struct mc_slice *s = p->sending;
	uint32_t end = mc_min(v1_requests(p, s), p->tx + V1_REQUESTS);
	uint64_t off = p->tx_off;
	int n = 0;

	for (uint32_t i = p->tx; i < end; i++) {
		struct v1_head *h = &p->heads[i - p->tx];
		uint64_t len = v1_head(p, s, i, h);
		uint64_t skip = mc_min(off, (uint64_t)V1_HEAD_LEN);

		if (skip < V1_HEAD_LEN)
			iov[n++] = (struct iovec){ (char *)h + skip,
						   V1_HEAD_LEN - skip };
		off -= skip;
		if (len)
			iov[n++] = (struct iovec){
				(char *)s->pieces[i].local + off, len - off };
		off = 0;
	}
	return n;
}

/* Something moves: unless it is only that the kernel of a peer that is frozen
 * takes what fits its buffer. That can be connected to again and again. */
static void v1_moved(struct v1_path *p, uint64_t taken)
{
	if (p->rx.total || taken > V1_DEAF)
		p->base.progress++;
}

/* So many bytes are on their way. */
static void v1_sent(struct v1_path *p, uint64_t len)
{
	struct mc_slice *s = p->sending;
	struct v1_head h;

	p->sent += len;
	v1_moved(p, 0);
	p->tx_off += len;
	while (p->tx < v1_requests(p, s)) {
		uint64_t whole = V1_HEAD_LEN + v1_head(p, s, p->tx, &h);

		if (p->tx_off < whole)
			return;
		p->tx_off -= whole;
		p->tx++;
	}
	p->sending = s->next;
	p->tx = 0;
}

static void v1_send(struct v1_path *p)
{
	struct iovec iov[2 * V1_REQUESTS];

	p->base.events = POLLIN;
	while (p->sending && !p->unheard) {
		ssize_t r = mc_stream_writev(&p->s, iov, v1_gather(p, iov));

		if (r > 0) {
			v1_sent(p, r);
			continue;
		}
		p->unheard = r < 0;
		p->base.events |= r ? 0 : p->s.want;
		return;
	}
}

static int v1_post(struct mc_path *base, struct mc_slice *const *slices, int n)
{
	struct v1_path *p = v1_of(base);

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
	v1_send(p);
	return n;
}

/* ---- receiving ------------------------------------------------------- */

/* Has the request at hand been sent, its bytes included if @whole? */
static bool v1_asked(const struct v1_path *p, bool whole)
{
	if (p->head != p->sending)
		return true;
	return p->rx_i < p->tx ||
	       (!whole && p->rx_i == p->tx && p->tx_off >= V1_HEAD_LEN);
}

/* The status of the request at hand: 1 it is good, or there is none. */
static int v1_status(struct v1_path *p)
{
	uint64_t status;
	int r = wire_fill(&p->rx, &p->s, sizeof(status));

	if (r <= 0)
		return r;
	memcpy(&status, p->rx.buf + p->rx.used, sizeof(status));
	p->rx.used += sizeof(status);
	status = le64toh(status);
	if (status >> 32 != 0x4d435456 || !v1_asked(p, !(uint32_t)status))
		return mc_err(-EPROTO, "%s: status %#llx, which was not asked "
			      "for", p->base.remote_dev, (long long)status);
	return (uint32_t)status ? -ESTALE : 1;
}

/* What the answer brings, once its status has come. */
static int v1_begin(struct v1_path *p)
{
	struct mc_slice *s = p->head;
	int r = p->acked ? v1_status(p) : 1;

	if (r <= 0)
		return r;
	p->proof = (struct mc_piece){ .local = &p->proof_byte, .len = 1 };
	if (s->op == MC_READ)
		wire_span_init(&p->rx_span, &s->pieces[p->rx_i], 1,
			       s->pieces[p->rx_i].len);
	else
		wire_span_init(&p->rx_span, &p->proof, 1, !p->acked);
	p->rx_begun = true;
	return 1;
}

/* One answer: 1 it is whole, 0 not yet, -errno. */
static int v1_answer(struct v1_path *p)
{
	int r = 1;

	/* Writes of version 1 have none but the last one's proof. */
	if (!p->acked && p->head->op == MC_WRITE)
		p->rx_i = p->head->n;
	if (!p->rx_begun)
		r = v1_begin(p);
	if (r == 1)
		r = wire_recv_span(&p->rx, &p->s, &p->rx_span);
	if (r == 1 && !v1_asked(p, true))
		r = mc_err(-EPROTO, "%s: an answer to no request",
			   p->base.remote_dev);
	if (r <= 0)
		return r;
	p->rx_begun = false;
	p->rx_i++;
	p->base.progress++;
	return 1;
}

static void v1_take(struct v1_path *p, int err, struct mc_slice **out)
{
	struct mc_slice *s = p->head;

	p->head = s->next;
	if (!p->head)
		p->tail = &p->head;
	if (p->sending == s)
		p->sending = NULL;
	p->rx_i = 0;
	p->base.queued -= s->len;
	s->err = err;
	if (err)
		snprintf(s->why, MC_WHY_MAX, "%s refused: outside its "
			 "registered buffers", p->name);
	*out = s;
}

/* 1 a slice ended, 0 not yet, -errno. A peer that refuses a request hangs up:
 * nothing more is sent, and what comes after the slice is tried anew. */
static int v1_recv(struct v1_path *p, struct mc_slice **out)
{
	int r = 1;

	while (r == 1 && p->rx_i < v1_requests(p, p->head))
		r = v1_answer(p);
	if (r == 0 || (r < 0 && r != -ESTALE))
		return r;
	if (r < 0) {
		mc_err(-ESTALE, "%s refused a request, and hangs up",
		       p->name);
		mc_path_fail(&p->base, -ESTALE);
	}
	v1_take(p, r < 0 ? r : 0, out);
	return 1;
}

/* Bytes that leave the send queue are progress too. */
static void v1_look(struct v1_path *p)
{
	uint64_t now = mc_clock_ns();
	int queued = 0;

	if (now - p->looked_ns < V1_LOOK_NS)
		return;
	p->looked_ns = now;
	if (ioctl(p->s.fd, SIOCOUTQ, &queued) < 0)
		return;
	if (p->sent - queued != p->queued_bytes)
		v1_moved(p, p->sent - queued);
	p->queued_bytes = p->sent - queued;
}

/* With nothing asked there is nothing to be said but the end. */
static int v1_idle(struct v1_path *p)
{
	int r = wire_fill(&p->rx, &p->s, 1);

	return r <= 0 ? r : mc_err(-EPROTO, "%s: an answer to no request",
				   p->base.remote_dev);
}

static int v1_poll(struct mc_path *base, struct mc_slice **out, int max)
{
	struct v1_path *p = v1_of(base);
	uint64_t before = p->rx.total;
	int n = 0, r = 0;

	if (base->err)
		return 0;
	v1_send(p);
	p->rx.drained = false;
	while (n < max && !base->err && (p->head || !n)) {
		r = p->head ? v1_recv(p, &out[n]) : v1_idle(p);
		if (r == 1)
			n++;
		if (r <= 0)
			break;
	}
	if (!r && p->unheard)
		r = mc_err(-ECONNRESET, "%s takes no more",
			   p->base.remote_dev);
	if (r < 0)
		mc_path_fail(&p->base, r);
	if (p->rx.total != before)
		base->progress++;
	else if (!n && p->head)
		v1_look(p);
	return n;
}

const struct mc_transport mc_v1_transport = {
	.name = "v1",
	.strangers = MC_STRANGERS_ONLY,
	.open = v1_open,
	.connect = v1_connect,
	.abort = v1_abort,
	.disconnect = v1_disconnect,
	.post = v1_post,
	.poll = v1_poll,
};
