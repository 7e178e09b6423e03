/* wire.c - the native protocol's bytes, both sides; see wire.h. */
#include "wire.h"

#include "../base/clock.h"
#include "../base/err.h"
#include "../base/net.h"
#include "../base/util.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

enum {
	WIRE_IOV = 256,
	/* Read at once: meanwhile the kernel does not acknowledge what comes,
	 * and a sender with a small window waits. */
	WIRE_ONCE = 64 << 10,
	WIRE_LOOK_MS = 50,
};

void wire_span_init(struct wire_span *s, const struct mc_piece *p, uint32_t n,
		    uint64_t len)
{
	*s = (struct wire_span){ .p = p, .n = n, .left = len };
}

int wire_span_iov(const struct wire_span *s, struct iovec *iov, int max)
{
	uint32_t off = s->off;
	int n = 0;

	for (uint32_t i = s->i; i < s->n && n < max; i++) {
		iov[n].iov_base = (char *)s->p[i].local + off;
		iov[n].iov_len = s->p[i].len - off;
		n += iov[n].iov_len > 0;
		off = 0;
	}
	return n;
}

/* Keep as much of the @n ranges as is read at once: their length; @n: how many
 * are left. */
static size_t wire_iov_cut(struct iovec *iov, int *n)
{
	size_t len = 0;

	for (int i = 0; i < *n; i++) {
		len += iov[i].iov_len;
		if (len < WIRE_ONCE)
			continue;
		iov[i].iov_len -= len - WIRE_ONCE;
		*n = i + 1;
		return WIRE_ONCE;
	}
	return len;
}

void wire_span_skip(struct wire_span *s, uint64_t len)
{
	s->left -= len;
	while (len) {
		uint32_t room = s->p[s->i].len - s->off;

		if (len < room) {
			s->off += len;
			return;
		}
		len -= room;
		s->i++;
		s->off = 0;
	}
}

/* Make what is unread begin at the start of the buffer. */
static void wire_compact(struct wire_rx *rx)
{
	rx->have -= rx->used;
	memmove(rx->buf, rx->buf + rx->used, rx->have);
	rx->used = 0;
}

/* A socket gives what came before it was reset, even so. Who counts on the
 * reset to end all storing is wrong if this process was stopped between looking
 * at the socket and reading: so after a while it is looked at again. */
static int wire_look(struct wire_rx *rx, struct mc_stream *s)
{
	struct pollfd f = { .fd = s->fd };
	uint64_t now = mc_clock_tick_ns();

	if (now < rx->looked_ns + WIRE_LOOK_MS * (uint64_t)MC_MS)
		return 0;
	rx->looked_ns = now;
	return poll(&f, 1, 0) > 0 ? mc_err(-ECONNRESET, "%s: reset", s->peer) :
	       0;
}

/* A plain socket that gave less than was asked for has no more: asking would
 * cost a system call to hear so. */
static ssize_t wire_recv(struct wire_rx *rx, struct mc_stream *s,
			 const struct iovec *iov, int n, size_t len)
{
	ssize_t r;

	if (rx->drained)
		return 0;
	r = rx->looked_ns ? wire_look(rx, s) : 0;
	if (r < 0)
		return r;
	r = mc_stream_readv(s, iov, n);
	if (r > 0)
		rx->total += r;
	rx->drained = r >= 0 && (size_t)r < len && !s->tls;
	return r;
}

int wire_fill(struct wire_rx *rx, struct mc_stream *s, uint32_t want)
{
	while (rx->have - rx->used < want) {
		struct iovec iov;
		ssize_t r;

		wire_compact(rx);
		iov.iov_base = rx->buf + rx->have;
		iov.iov_len = mc_max(want, (uint32_t)WIRE_AHEAD) - rx->have;
		r = wire_recv(rx, s, &iov, 1, iov.iov_len);
		if (r <= 0)
			return r;
		rx->have += r;
	}
	return 1;
}

/* Copy into the span what came with the header. */
static void wire_drain(struct wire_rx *rx, struct wire_span *span)
{
	struct iovec iov;

	while (span->left && rx->have > rx->used) {
		uint64_t n = rx->have - rx->used;

		wire_span_iov(span, &iov, 1);
		n = mc_min(n, iov.iov_len);
		memcpy(iov.iov_base, rx->buf + rx->used, n);
		rx->used += n;
		wire_span_skip(span, n);
	}
}

int wire_recv_span(struct wire_rx *rx, struct mc_stream *s,
		   struct wire_span *span)
{
	struct iovec iov[WIRE_IOV];
	int look = rx->looked_ns ? wire_look(rx, s) : 0;

	if (look < 0)
		return look;
	wire_drain(rx, span);
	while (span->left) {
		int n = wire_span_iov(span, iov, WIRE_IOV - 1);
		size_t len = wire_iov_cut(iov, &n);
		ssize_t r;

		/* Behind the last range, what follows comes for free. */
		rx->have = rx->used = 0;
		if (len == span->left) {
			iov[n++] = (struct iovec){ rx->buf, WIRE_AHEAD };
			len += WIRE_AHEAD;
		}
		r = wire_recv(rx, s, iov, n, len);
		if (r <= 0)
			return r;
		if ((uint64_t)r > span->left) {
			rx->have = r - span->left;
			r = span->left;
		}
		wire_span_skip(span, r);
	}
	return 1;
}

int wire_recv_skip(struct wire_rx *rx, struct mc_stream *s, uint64_t *left)
{
	while (*left) {
		uint64_t n;
		int r = wire_fill(rx, s, 1);

		if (r <= 0)
			return r;
		n = mc_min(*left, (uint64_t)(rx->have - rx->used));
		rx->used += n;
		*left -= n;
	}
	return 1;
}

uint32_t wire_pack(uint8_t *buf, const struct wire_frame *f,
		   const struct mc_piece *p)
{
	struct wire_piece *w = (void *)(buf + sizeof(*f));

	memcpy(buf, f, sizeof(*f));
	for (uint32_t i = 0; i < f->n; i++)
		w[i] = (struct wire_piece){ p[i].remote, p[i].len, p[i].id };
	if (f->n % 2)
		w[f->n] = (struct wire_piece){ 0 };
	return sizeof(*f) + wire_pieces_size(f->n);
}

int wire_unpack(const uint8_t *buf, struct mc_piece *p, uint32_t n,
		uint64_t len)
{
	uint64_t sum = 0;

	for (uint32_t i = 0; i < n; i++) {
		struct wire_piece w;

		memcpy(&w, buf + i * sizeof(w), sizeof(w));
		p[i] = (struct mc_piece){ NULL, w.addr, w.len, w.id };
		sum += w.len;
	}
	return sum == len ? 0 : mc_err(-EPROTO, "pieces of %llu bytes in a "
				       "frame of %llu", (long long)sum,
				       (long long)len);
}

int wire_check(const struct wire_frame *f, bool reply)
{
	bool data = f->type == WIRE_WRITE || f->type == WIRE_READ;

	if (reply ? f->type != WIRE_DONE : !data && f->type != WIRE_CONTROL)
		return mc_err(-EPROTO, "unknown frame type %u", f->type);
	if (data ? f->n < 1 || f->n > WIRE_PIECES : f->n)
		return mc_err(-EPROTO, "frame with %u pieces", f->n);
	/* Errors of the system; not "cancelled", which is for us to say. */
	if (reply && (f->status > 0 || f->status < -4095 ||
		      f->status == -ECANCELED))
		return mc_err(-EPROTO, "reply with status %d", f->status);
	if (f->type == WIRE_CONTROL && f->len > WIRE_CONTROL_MAX)
		return mc_err(-EPROTO, "control frame of %llu bytes",
			      (long long)f->len);
	return 0;
}

/* ---- dialing -------------------------------------------------------- */

static int wire_refused(const struct wire_dial *d, const struct wire_hello *h,
			const struct wire_welcome *w)
{
	if (w->magic != WIRE_MAGIC)
		return mc_err(-EPROTO, "%s is not a mooncake engine", d->addr);
	if (w->version != WIRE_VERSION)
		return mc_err(-EPROTO, "%s speaks version %u of the native "
			      "protocol, this engine %u", d->addr, w->version,
			      WIRE_VERSION);
	if (w->status == -ESTALE)
		return mc_err(-ESTALE, "%s was restarted: epoch %llx is now "
			      "%llx", d->addr, (long long)h->server_epoch,
			      (long long)w->epoch);
	if (!w->status && h->server_epoch && w->epoch != h->server_epoch)
		return mc_err(-ESTALE, "%s took epoch %llx for its own, and "
			      "has %llx", d->addr, (long long)h->server_epoch,
			      (long long)w->epoch);
	if (w->status == -EACCES)
		return mc_err(-EACCES, "%s wants a cluster key: give its file "
			      "by MOONCAKE_KEY_FILE", d->addr);
	if (w->status)
		return mc_syserr(w->status, "%s refused the connection",
				 d->addr);
	if ((h->flags & WIRE_KEY) && !(w->flags & WIRE_KEY))
		return mc_err(-EACCES, "%s has no cluster key, this engine has",
			      d->addr);
	return 0;
}

/* The key's half of the handshake: check theirs, send ours. */
static int wire_prove(const struct wire_dial *d, struct mc_stream *s,
		      const struct wire_hello *h, const struct wire_welcome *w)
{
	uint64_t epochs[2] = { h->epoch, w->epoch };
	struct wire_ready ready;
	uint8_t proof[32];
	int r;

	mc_auth_proof(d->key, "server", h->nonce, w->nonce, epochs,
		      sizeof(epochs), proof);
	if (!mc_auth_equal(proof, w->proof))
		return mc_err(-EACCES, "%s has another cluster key", d->addr);
	mc_auth_proof(d->key, "client", h->nonce, w->nonce, epochs,
		      sizeof(epochs), proof);
	r = mc_stream_write_full(s, proof, sizeof(proof), d->deadline_ns);
	if (!r)
		r = mc_stream_read_full(s, &ready, sizeof(ready),
					d->deadline_ns);
	if (!r && ready.status)
		r = mc_err(-EACCES, "%s rejected the cluster key", d->addr);
	return r;
}

static int wire_greet(const struct wire_dial *d, struct mc_stream *s,
		      struct wire_welcome *w)
{
	bool keyed = d->key && d->key->len;
	struct wire_hello h = {
		.magic = WIRE_MAGIC, .version = WIRE_VERSION,
		.flags = keyed ? WIRE_KEY : 0,
		.epoch = d->epoch, .server_epoch = d->peer_epoch,
	};
	int r;

	mc_copy(h.name, d->name);
	mc_auth_nonce(h.nonce);
	r = mc_stream_write_full(s, &h, sizeof(h), d->deadline_ns);
	if (!r)
		r = mc_stream_read_full(s, w, sizeof(*w), d->deadline_ns);
	if (r == -ETIMEDOUT)
		return mc_err(r, "%s accepts connections but does not answer",
			      d->addr);
	if (r == -ECONNRESET)
		return mc_err(r, "%s closed the connection during the "
			      "handshake%s", d->addr, d->tls ? "" :
			      " (does it use TLS?)");
	if (!r)
		r = wire_refused(d, &h, w);
	if (!r && keyed)
		r = wire_prove(d, s, &h, w);
	return r;
}

static int wire_secure(const struct wire_dial *d, struct mc_stream *s)
{
	int r;

	while (!(r = mc_stream_handshake(s))) {
		r = mc_net_wait(s->fd, s->want, d->deadline_ns);
		if (r < 0)
			return mc_err(r, "%s: no answer to the TLS handshake",
				      d->addr);
	}
	return r < 0 ? r : 0;
}

int wire_connect(const struct wire_dial *d, struct mc_stream *s,
		 struct wire_welcome *w)
{
	int fd, r;

	r = d->is_unix ? mc_net_connect_unix(d->addr, d->deadline_ns, &fd) :
	    mc_net_connect(d->addr, d->dev, d->deadline_ns, &fd);
	if (r < 0)
		return r;
	r = mc_stream_init(s, fd, d->is_unix ? NULL : d->tls, false);
	if (r < 0) {
		close(fd);
		return r;
	}
	r = wire_secure(d, s);
	if (!r)
		r = wire_greet(d, s, w);
	if (r < 0)
		mc_stream_fini(s);
	return r;
}

/* ---- control calls -------------------------------------------------- */

static int wire_call_head(struct mc_stream *s, struct wire_call *c,
			  struct wire_frame *f, uint64_t deadline_ns)
{
	int r;

	if (!c->want_fds)
		return mc_stream_read_full(s, f, sizeof(*f), deadline_ns);
	c->n_fds = mc_array_len(c->fds);
	r = mc_stream_read_fds(s, f, sizeof(*f), c->fds, &c->n_fds,
			       deadline_ns);
	if (r < 0)
		c->n_fds = 0;
	return r;
}

static int wire_call_reply(struct mc_stream *s, struct wire_call *c,
			   uint64_t deadline_ns)
{
	struct wire_frame f;
	int r = wire_call_head(s, c, &f, deadline_ns);

	if (!r)
		r = wire_check(&f, true);
	if (r < 0)
		return r;
	if (f.len > WIRE_CONTROL_MAX)
		return mc_err(-EPROTO, "reply of %llu bytes",
			      (long long)f.len);
	c->reply = calloc(1, f.len + 1);
	if (!c->reply)
		return mc_err(-ENOMEM, "out of memory");
	r = mc_stream_read_full(s, c->reply, f.len, deadline_ns);
	c->reply_len = f.len;
	c->status = f.status;
	if (!r && f.status && f.len)
		mc_err(f.status, "%s", (char *)c->reply);
	else if (!r && f.status)
		mc_syserr(f.status, "the peer refused");
	return r;
}

int wire_call(struct mc_stream *s, struct wire_call *c, uint64_t deadline_ns)
{
	struct wire_frame f = { .type = WIRE_CONTROL, .kind = c->kind,
				.len = c->len };
	int r;

	s->stop = c->stop;
	r = mc_stream_write_full(s, &f, sizeof(f), deadline_ns);
	if (!r && c->len)
		r = mc_stream_write_full(s, c->msg, c->len, deadline_ns);
	if (!r)
		r = wire_call_reply(s, c, deadline_ns);
	s->stop = NULL;
	if (r < 0)
		wire_call_free(c);
	return r;
}

void wire_call_free(struct wire_call *c)
{
	while (c->n_fds)
		close(c->fds[--c->n_fds]);
	free(c->reply);
	c->reply = NULL;
	c->reply_len = 0;
}
