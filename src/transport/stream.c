/* stream.c - one connected socket, plain or TLS 1.3; see stream.h. */
#include "tls.h"

#include "../base/clock.h"
#include "../base/err.h"
#include "../base/net.h"
#include "../base/util.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { STREAM_LOOK_MS = 50 };

int mc_stream_closed(const struct mc_stream *s)
{
	return mc_err(-ECONNRESET, "%s: closed by peer", s->peer);
}

int mc_stream_failed(const struct mc_stream *s, int err)
{
	if (err == -ECONNRESET || err == -EPIPE)
		return mc_stream_closed(s);
	return mc_syserr(err, "%s", s->peer);
}

int mc_stream_init(struct mc_stream *s, int fd, struct mc_tls *tls,
		   bool server)
{
	*s = (struct mc_stream){ .fd = fd, .want = POLLIN };
	mc_net_peer_name(fd, s->peer);
	if (!tls)
		return 0;
	s->tls = mc_tls_attach(tls, fd, server);
	if (s->tls)
		return 0;
	s->fd = -1;
	return mc_err(-ENOMEM, "%s: no memory for a TLS stream", s->peer);
}

void mc_stream_fini(struct mc_stream *s)
{
	mc_tls_detach(s->tls);
	s->tls = NULL;
	if (s->fd >= 0)
		close(s->fd);
	s->fd = -1;
}

void mc_stream_reset(struct mc_stream *s)
{
	struct linger now = { .l_onoff = 1 };

	if (s->fd >= 0)
		setsockopt(s->fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
	mc_stream_fini(s);
}

int mc_stream_handshake(struct mc_stream *s)
{
	return s->tls ? mc_tls_handshake(s) : 1;
}

/* ---- plain ---------------------------------------------------------- */

static size_t stream_total(const struct iovec *iov, int n)
{
	size_t len = 0;

	for (int i = 0; i < n; i++)
		len += iov[i].iov_len;
	return len;
}

static ssize_t stream_plain_readv(struct mc_stream *s, const struct iovec *iov,
				  int n)
{
	struct msghdr m = { .msg_iov = (struct iovec *)iov, .msg_iovlen = n };
	ssize_t r;

	do
		r = recvmsg(s->fd, &m, MSG_DONTWAIT);
	while (r < 0 && errno == EINTR);
	if (r > 0)
		return r;
	if (r < 0 && errno != EAGAIN)
		return mc_stream_failed(s, -errno);
	if (!r && stream_total(iov, n))
		return mc_stream_closed(s);
	s->want = POLLIN;
	return 0;
}

static ssize_t stream_plain_writev(struct mc_stream *s,
				   const struct iovec *iov, int n)
{
	struct msghdr m = { .msg_iov = (struct iovec *)iov, .msg_iovlen = n };
	ssize_t r;

	do
		r = sendmsg(s->fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
	while (r < 0 && errno == EINTR);
	if (r >= 0 || errno == EAGAIN) {
		s->want = POLLOUT;
		return mc_max(r, 0);
	}
	return mc_stream_failed(s, -errno);
}

/* ---- both ----------------------------------------------------------- */

ssize_t mc_stream_readv(struct mc_stream *s, const struct iovec *iov, int n)
{
	n = mc_min(n, IOV_MAX);
	return s->tls ? mc_tls_readv(s, iov, n) :
	       stream_plain_readv(s, iov, n);
}

ssize_t mc_stream_writev(struct mc_stream *s, const struct iovec *iov, int n)
{
	n = mc_min(n, IOV_MAX);
	return s->tls ? mc_tls_writev(s, iov, n) :
	       stream_plain_writev(s, iov, n);
}

bool mc_stream_pending(const struct mc_stream *s)
{
	return s->tls && mc_tls_pending(s->tls);
}

/* ---- blocking ------------------------------------------------------- */

static int stream_wait(struct mc_stream *s, const char *what,
		       uint64_t deadline_ns)
{
	int r = -ETIMEDOUT;

	/* Who says stop cannot wake us: look again every so often. */
	while (s->stop && r == -ETIMEDOUT && mc_clock_ns() < deadline_ns) {
		if (__atomic_load_n(s->stop, __ATOMIC_ACQUIRE))
			return mc_err(-ECANCELED, "%s: %s, and was given up",
				      s->peer, what);
		r = mc_net_wait(s->fd, s->want,
				mc_min(deadline_ns, mc_clock_ns() +
				       STREAM_LOOK_MS * (uint64_t)MC_MS));
	}
	if (!s->stop)
		r = mc_net_wait(s->fd, s->want, deadline_ns);
	if (r == -ETIMEDOUT)
		return mc_err(r, "%s: %s", s->peer, what);
	return r;
}

int mc_stream_read_full(struct mc_stream *s, void *buf, size_t len,
			uint64_t deadline_ns)
{
	struct iovec iov = { buf, len };

	while (iov.iov_len) {
		ssize_t r = mc_stream_readv(s, &iov, 1);

		if (!r)
			r = stream_wait(s, "no answer in time", deadline_ns);
		else if (r > 0) {
			iov.iov_base = (char *)iov.iov_base + r;
			iov.iov_len -= r;
		}
		if (r < 0)
			return r;
	}
	return 0;
}

int mc_stream_write_full(struct mc_stream *s, const void *buf, size_t len,
			 uint64_t deadline_ns)
{
	struct iovec iov = { (void *)buf, len };

	while (iov.iov_len) {
		ssize_t r = mc_stream_writev(s, &iov, 1);

		if (!r)
			r = stream_wait(s, "does not read", deadline_ns);
		else if (r > 0) {
			iov.iov_base = (char *)iov.iov_base + r;
			iov.iov_len -= r;
		}
		if (r < 0)
			return r;
	}
	return 0;
}

/* One step of the reading: bytes, 0 after waiting, or -errno. */
static ssize_t stream_read_fds(struct mc_stream *s, void *buf, size_t len,
			       int *fds, int *n_fds, uint64_t deadline_ns)
{
	ssize_t r = mc_net_recvmsg_fds(s->fd, buf, len, fds, n_fds);

	if (!r)
		return mc_stream_closed(s);
	if (r != -EAGAIN)
		return r == -ECONNRESET ? mc_stream_closed(s) : r;
	s->want = POLLIN;
	return stream_wait(s, "no answer in time", deadline_ns);
}

int mc_stream_read_fds(struct mc_stream *s, void *buf, size_t len, int *fds,
		       int *n_fds, uint64_t deadline_ns)
{
	int have = 0, max = *n_fds;
	size_t done = 0;
	ssize_t r = 0;

	if (s->tls)
		r = mc_err(-EINVAL, "%s: descriptors over TLS", s->peer);
	while (r >= 0 && done < len) {
		int n = max - have;

		r = stream_read_fds(s, (char *)buf + done, len - done,
				    fds + have, &n, deadline_ns);
		have += n;
		done += mc_max(r, 0);
	}
	*n_fds = have;
	if (r >= 0)
		return 0;
	while (*n_fds)
		close(fds[--*n_fds]);
	return r;
}

int mc_stream_write_fds(struct mc_stream *s, const void *buf, size_t len,
			const int *fds, int n_fds, uint64_t deadline_ns)
{
	ssize_t r;

	if (s->tls)
		return mc_err(-EINVAL, "%s: descriptors over TLS", s->peer);
	while ((r = mc_net_sendmsg_fds(s->fd, buf, len, fds, n_fds)) ==
	       -EAGAIN) {
		s->want = POLLOUT;
		r = stream_wait(s, "does not read", deadline_ns);
		if (r < 0)
			return r;
	}
	if (r == -EPIPE || r == -ECONNRESET)
		return mc_stream_closed(s);
	if (r < 0)
		return r;
	return mc_stream_write_full(s, (const char *)buf + r, len - r,
				    deadline_ns);
}
