/*
 * net.c - sockets that do not block: listening, waiting, and descriptors over
 * unix sockets; see net.h.
 */
#include "net.h"

#include "clock.h"
#include "err.h"
#include "util.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdbool.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

enum {
	NET_BACKLOG = 1024,
	NET_VANISHED_MS = 20000,	/* unacknowledged so long: gone */
	NET_KEEP_IDLE_S = 4,
	NET_KEEP_EVERY_S = 2,
	NET_KEEP_PROBES = 3,
	NET_LISTEN_LOOKUP_MS = 5000,
	NET_KERNEL_FDS = 253,		/* SCM_MAX_FD: most in one message */
};

/* ---- listening ------------------------------------------------------ */

static int net_listen_at(const struct sockaddr *sa, socklen_t len)
{
	int on = 1, off = 0;
	int fd = socket(sa->sa_family,
			SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	int r;

	if (fd < 0)
		return -errno;
	if (sa->sa_family != AF_UNIX)
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (sa->sa_family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
	if (!bind(fd, sa, len) && !listen(fd, NET_BACKLOG))
		return fd;
	r = -errno;
	close(fd);
	return r;
}

/* Everywhere: one socket for both families, or IPv4 where that is all. */
static int net_listen_any(int port)
{
	struct sockaddr_in6 v6 = { .sin6_family = AF_INET6,
				   .sin6_port = htons(port) };
	struct sockaddr_in v4 = { .sin_family = AF_INET,
				  .sin_port = htons(port) };
	int r = net_listen_at((struct sockaddr *)&v6, sizeof(v6));

	if (r == -EAFNOSUPPORT || r == -EADDRNOTAVAIL)
		r = net_listen_at((struct sockaddr *)&v4, sizeof(v4));
	return r;
}

static int net_listen_failed(int r, const char *addr)
{
	switch (r) {
	case -EADDRINUSE:
		return mc_err(r, "listen at %.80s: address already in use "
			      "(port 0 picks a free port)", addr);
	case -EADDRNOTAVAIL:
		return mc_err(r, "listen at %.80s: this host has no such "
			      "address", addr);
	case -EACCES:
		return mc_err(r, "listen at %.80s: not permitted (ports below "
			      "1024 need privileges)", addr);
	}
	return mc_syserr(r, "listen at %.80s", addr);
}

int mc_net_listen(const char *addr, int *fd, char actual[MC_ADDR_MAX])
{
	uint64_t deadline_ns = mc_clock_ns() +
			       (uint64_t)NET_LISTEN_LOOKUP_MS * MC_MS;
	struct addrinfo *all;
	struct mc_net_name name;
	int r = mc_net_parse(addr, -1, &name);

	if (r < 0)
		return r;
	if (!name.host[0]) {
		r = net_listen_any(name.port);
	} else {
		r = mc_net_resolve(&name, AI_PASSIVE, deadline_ns, &all);
		if (r < 0)
			return r;
		r = -EADDRNOTAVAIL;
		for (struct addrinfo *a = all; a && r < 0; a = a->ai_next)
			r = net_listen_at(a->ai_addr, a->ai_addrlen);
		freeaddrinfo(all);
	}
	if (r < 0)
		return net_listen_failed(r, addr);
	*fd = r;
	mc_net_local_name(r, actual);
	return 0;
}

int mc_net_spare(void)
{
	return open("/dev/null", O_RDONLY | O_CLOEXEC);
}

int mc_net_accept(int listen_fd, int *spare)
{
	int fd = accept4(listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	int err = errno;

	if (fd >= 0)
		return fd;
	if (err == EMFILE || err == ENFILE) {
		close(*spare);
		close(accept(listen_fd, NULL, NULL));
		*spare = mc_net_spare();
	}
	return -err;
}

/* ---- unix sockets --------------------------------------------------- */

static int net_unix_addr(const char *name, struct sockaddr_un *sa,
			 socklen_t *len)
{
	size_t n = strlen(name);

	*sa = (struct sockaddr_un){ .sun_family = AF_UNIX };
	if (!n || n > sizeof(sa->sun_path) - 1)
		return mc_err(-EINVAL, "unix socket name '%.120s': expected 1 "
			      "to %d characters", name,
			      (int)sizeof(sa->sun_path) - 1);
	memcpy(sa->sun_path + 1, name, n);
	*len = offsetof(struct sockaddr_un, sun_path) + 1 + n;
	return 0;
}

int mc_net_listen_unix(const char *name, int *fd)
{
	struct sockaddr_un sa;
	socklen_t len;
	int r = net_unix_addr(name, &sa, &len);

	if (r < 0)
		return r;
	r = net_listen_at((struct sockaddr *)&sa, len);
	if (r < 0)
		return mc_syserr(r, "listen at unix:@%.100s", name);
	*fd = r;
	return 0;
}

int mc_net_connect_unix(const char *name, uint64_t deadline_ns, int *fd)
{
	struct sockaddr_un sa;
	socklen_t len;
	int s, r = net_unix_addr(name, &sa, &len);

	if (r < 0)
		return r;
	s = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (s < 0)
		return mc_syserr(-errno, "unix socket");
	/* With a full backlog there is nothing to poll for. */
	while ((r = connect(s, (struct sockaddr *)&sa, len) ? -errno : 0)) {
		if ((r != -EAGAIN && r != -EINTR) ||
		    mc_clock_ns() >= deadline_ns)
			break;
		usleep(1000);
	}
	if (!r) {
		*fd = s;
		return 0;
	}
	close(s);
	if (r == -EAGAIN)
		return mc_err(-ETIMEDOUT, "connect unix:@%.100s: its owner "
			      "does not accept", name);
	if (r == -ECONNREFUSED)
		return mc_err(r, "connect unix:@%.100s: no such socket", name);
	return mc_syserr(r, "connect unix:@%.100s", name);
}

/* ---- using sockets -------------------------------------------------- */

void mc_net_tune(int fd)
{
	static const struct { int level, name, value; } opts[] = {
		{ IPPROTO_TCP, TCP_NODELAY, 1 },
		{ SOL_SOCKET, SO_KEEPALIVE, 1 },
		{ IPPROTO_TCP, TCP_KEEPIDLE, NET_KEEP_IDLE_S },
		{ IPPROTO_TCP, TCP_KEEPINTVL, NET_KEEP_EVERY_S },
		{ IPPROTO_TCP, TCP_KEEPCNT, NET_KEEP_PROBES },
		{ IPPROTO_TCP, TCP_USER_TIMEOUT, NET_VANISHED_MS },
	};

	for (size_t i = 0; i < mc_array_len(opts); i++)
		setsockopt(fd, opts[i].level, opts[i].name, &opts[i].value,
			   sizeof(opts[i].value));
}

int mc_net_wait(int fd, short events, uint64_t deadline_ns)
{
	struct pollfd p = { .fd = fd, .events = events };

	for (;;) {
		int r = poll(&p, 1, mc_clock_left_ms(deadline_ns, INT_MAX));

		if (r > 0)
			return 0;
		if (r < 0 && errno != EINTR)
			return mc_syserr(-errno, "poll");
		if (mc_clock_ns() >= deadline_ns)
			return mc_err(-ETIMEDOUT, "timed out");
	}
}

int mc_net_peer_pid(int fd)
{
	struct sockaddr_storage ss = { 0 };
	socklen_t len = sizeof(ss);
	struct ucred c;

	if (getsockname(fd, (struct sockaddr *)&ss, &len) ||
	    ss.ss_family != AF_UNIX)
		return 0;
	len = sizeof(c);
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &c, &len))
		return 0;
	return c.pid;
}

ssize_t mc_net_sendmsg_fds(int fd, const void *buf, size_t len,
			   const int *fds, int n_fds)
{
	union {
		struct cmsghdr h;
		char room[CMSG_SPACE(MC_NET_FDS * sizeof(int))];
	} c = { 0 };
	struct iovec iov = { (void *)buf, len };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1 };
	ssize_t r;

	if (n_fds < 0 || n_fds > MC_NET_FDS)
		return mc_err(-EINVAL, "%d descriptors: %d at most", n_fds,
			      MC_NET_FDS);
	if (n_fds) {
		m.msg_control = &c;
		m.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
		c.h.cmsg_level = SOL_SOCKET;
		c.h.cmsg_type = SCM_RIGHTS;
		c.h.cmsg_len = CMSG_LEN(n_fds * sizeof(int));
		memcpy(CMSG_DATA(&c.h), fds, n_fds * sizeof(int));
	}
	do
		r = sendmsg(fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
	while (r < 0 && errno == EINTR);
	if (r >= 0)
		return r;
	if (errno == EAGAIN)
		return -EAGAIN;
	return mc_syserr(-errno, "send descriptors");
}

/* Keep what there is room for. */
static void net_take_fds(const struct cmsghdr *c, int *fds, int max, int *n)
{
	int got = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);

	for (int i = 0; i < got; i++) {
		int fd;

		memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(fd));
		if (*n < max)
			fds[(*n)++] = fd;
		else
			close(fd);
	}
}

ssize_t mc_net_recvmsg_fds(int fd, void *buf, size_t len, int *fds,
			   int *n_fds)
{
	union {
		struct cmsghdr h;
		char room[CMSG_SPACE(NET_KERNEL_FDS * sizeof(int))];
	} c;
	struct iovec iov = { buf, len };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1,
			    .msg_control = &c, .msg_controllen = sizeof(c) };
	int max = *n_fds;
	ssize_t r;

	*n_fds = 0;
	do
		r = recvmsg(fd, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	while (r < 0 && errno == EINTR);
	if (r < 0 && errno == EAGAIN)
		return -EAGAIN;
	if (r < 0)
		return mc_syserr(-errno, "receive descriptors");
	for (struct cmsghdr *h = CMSG_FIRSTHDR(&m); h; h = CMSG_NXTHDR(&m, h))
		if (h->cmsg_level == SOL_SOCKET && h->cmsg_type == SCM_RIGHTS)
			net_take_fds(h, fds, max, n_fds);
	return r;
}
