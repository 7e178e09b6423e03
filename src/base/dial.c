/*
 * dial.c - looking up names and connecting to them by a deadline, from an
 * interface if asked; see net.h.
 */
#include "net.h"

#include "clock.h"
#include "err.h"
#include "util.h"

#include <errno.h>
#include <ifaddrs.h>
#include <limits.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifndef IP_BIND_ADDRESS_NO_PORT
#define IP_BIND_ADDRESS_NO_PORT 24
#endif

/* ---- looking up names ----------------------------------------------- */

/* getaddrinfo() knows no deadline. It runs in a thread of its own, which has
 * half of this; who comes last frees it. */
struct dial_lookup {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	int refs;
	bool done;
	int err;
	int sys;			/* errno, with EAI_SYSTEM */
	struct addrinfo hints, *found;
	char host[MC_HOST_MAX], port[8];
};

static void dial_lookup_put(struct dial_lookup *l)
{
	bool last;

	pthread_mutex_lock(&l->lock);
	last = !--l->refs;
	pthread_mutex_unlock(&l->lock);
	if (!last)
		return;
	if (l->found)
		freeaddrinfo(l->found);
	pthread_cond_destroy(&l->changed);
	pthread_mutex_destroy(&l->lock);
	free(l);
}

static void *dial_lookup_run(void *arg)
{
	struct dial_lookup *l = arg;
	struct addrinfo *found = NULL;
	int r = getaddrinfo(l->host, l->port, &l->hints, &found);
	int sys = errno;

	pthread_mutex_lock(&l->lock);
	l->err = r;
	l->sys = sys;
	l->found = r ? NULL : found;
	l->done = true;
	pthread_cond_signal(&l->changed);
	pthread_mutex_unlock(&l->lock);
	dial_lookup_put(l);
	return NULL;
}

static struct dial_lookup *dial_lookup_new(const struct mc_net_name *name,
					   int flags)
{
	struct dial_lookup *l = calloc(1, sizeof(*l));
	pthread_condattr_t attr;

	if (!l)
		return NULL;
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&l->changed, &attr);
	pthread_condattr_destroy(&attr);
	pthread_mutex_init(&l->lock, NULL);
	l->refs = 1;
	/* Not AI_ADDRCONFIG: it hides the loopback address of a family for
	 * which the host has no other, and so loses localhost. */
	l->hints.ai_socktype = SOCK_STREAM;
	l->hints.ai_flags = flags;
	mc_copy(l->host, name->host);
	snprintf(l->port, sizeof(l->port), "%d", name->port);
	return l;
}

static int dial_lookup_start(struct dial_lookup *l)
{
	pthread_attr_t attr;
	sigset_t all, old;
	pthread_t thread;
	int r;

	l->refs++;
	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	r = pthread_create(&thread, &attr, dial_lookup_run, l);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	pthread_attr_destroy(&attr);
	if (r)
		l->refs--;
	return -r;
}

static int dial_lookup_wait(struct dial_lookup *l, uint64_t deadline_ns)
{
	struct timespec t = {
		.tv_sec = mc_min(deadline_ns / 1000000000u, (uint64_t)INT_MAX),
		.tv_nsec = deadline_ns % 1000000000u,
	};
	int r = 0;

	pthread_mutex_lock(&l->lock);
	while (!l->done && r != ETIMEDOUT)
		r = pthread_cond_timedwait(&l->changed, &l->lock, &t);
	r = l->done ? 0 : -ETIMEDOUT;
	pthread_mutex_unlock(&l->lock);
	return r;
}

static int dial_lookup_failed(const struct dial_lookup *l)
{
	switch (l->err) {
	case EAI_MEMORY:
		return mc_err(-ENOMEM, "out of memory");
	case EAI_SYSTEM:
		return mc_syserr(-l->sys, "look up '%.80s'", l->host);
	}
	return mc_err(-EHOSTUNREACH, "look up '%.80s': %s", l->host,
		      gai_strerror(l->err));
}

static int dial_lookup_name(const struct mc_net_name *name, int flags,
			    uint64_t deadline_ns, struct addrinfo **out)
{
	struct dial_lookup *l = dial_lookup_new(name, flags);
	int r;

	if (!l)
		return mc_err(-ENOMEM, "out of memory");
	r = dial_lookup_start(l);
	if (r < 0)
		mc_syserr(r, "look up '%.80s'", name->host);
	else if ((r = dial_lookup_wait(l, deadline_ns)) < 0)
		mc_err(r, "look up '%.80s': no answer from the name server",
		       name->host);
	else if (l->err)
		r = dial_lookup_failed(l);
	if (!r) {
		*out = l->found;
		l->found = NULL;
	}
	dial_lookup_put(l);
	return r;
}

int mc_net_resolve(const struct mc_net_name *name, int flags,
		   uint64_t deadline_ns, struct addrinfo **out)
{
	struct addrinfo hints = {
		.ai_socktype = SOCK_STREAM,
		.ai_flags = flags | AI_NUMERICHOST | AI_NUMERICSERV,
	};
	char port[8];

	snprintf(port, sizeof(port), "%d", name->port);
	if (!getaddrinfo(name->host[0] ? name->host : NULL, port, &hints, out))
		return 0;
	if (strchr(name->host, ':'))
		return mc_err(-ENODEV, "address '%.80s': no such interface",
			      name->host);
	return dial_lookup_name(name, flags | AI_NUMERICSERV, deadline_ns, out);
}

/* ---- connecting ----------------------------------------------------- */

/* Whatever their ports. */
static bool dial_same_host(const struct sockaddr *a, const struct sockaddr *b)
{
	const struct sockaddr_in *a4 = (const void *)a, *b4 = (const void *)b;
	const struct sockaddr_in6 *a6 = (const void *)a, *b6 = (const void *)b;

	if (a->sa_family != b->sa_family)
		return false;
	if (a->sa_family == AF_INET)
		return a4->sin_addr.s_addr == b4->sin_addr.s_addr;
	return a->sa_family == AF_INET6 &&
	       IN6_ARE_ADDR_EQUAL(&a6->sin6_addr, &b6->sin6_addr);
}

static bool dial_is_link_local(const struct sockaddr *sa)
{
	const struct sockaddr_in6 *v6 = (const void *)sa;

	return sa->sa_family == AF_INET6 &&
	       IN6_IS_ADDR_LINKLOCAL(&v6->sin6_addr);
}

static bool dial_is_loopback(const struct sockaddr *sa)
{
	const struct sockaddr_in *v4 = (const void *)sa;
	const struct sockaddr_in6 *v6 = (const void *)sa;

	if (sa->sa_family == AF_INET)
		return ntohl(v4->sin_addr.s_addr) >> 24 == 127;
	return sa->sa_family == AF_INET6 &&
	       IN6_IS_ADDR_LOOPBACK(&v6->sin6_addr);
}

/* The address of @dev from which to reach @to, and whether @to is of this
 * host. */
static bool dial_find_source(struct ifaddrs *all, const char *dev,
			     const struct sockaddr *to,
			     struct sockaddr_storage *from, bool *here)
{
	size_t len = to->sa_family == AF_INET ? sizeof(struct sockaddr_in) :
		     sizeof(struct sockaddr_in6);
	bool found = false;

	*here = dial_is_loopback(to);
	for (struct ifaddrs *i = all; i; i = i->ifa_next) {
		if (!i->ifa_addr || i->ifa_addr->sa_family != to->sa_family)
			continue;
		*here |= dial_same_host(i->ifa_addr, to);
		if (found || strcmp(i->ifa_name, dev) ||
		    dial_is_link_local(i->ifa_addr) != dial_is_link_local(to))
			continue;
		memcpy(from, i->ifa_addr, len);
		found = true;
	}
	return found;
}

/* The address alone decides where answers go; where packets leave is decided
 * by the route, unless the socket is bound to the interface. Peers on this
 * host are reached through lo whatever the interface. */
static int dial_bind_dev(int fd, const char *dev, const struct sockaddr *to)
{
	struct sockaddr_storage from = { 0 };
	socklen_t len = to->sa_family == AF_INET ?
			sizeof(struct sockaddr_in) :
			sizeof(struct sockaddr_in6);
	struct ifaddrs *all;
	bool found, here, bound = false;
	int on = 1;

	if (!if_nametoindex(dev))
		return mc_err(-ENODEV, "no interface '%.20s' on this host",
			      dev);
	if (getifaddrs(&all))
		return mc_syserr(-errno, "list interfaces");
	found = dial_find_source(all, dev, to, &from, &here);
	freeifaddrs(all);
	if (!here)
		bound = !setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, dev,
				    strlen(dev) + 1);
	if (!found)
		return bound ? 0 : mc_err(-EADDRNOTAVAIL, "interface %.20s "
					  "has no IPv%d address", dev,
					  to->sa_family == AF_INET ? 4 : 6);
	/* Leave the port to connect(): more of them then. */
	setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof(on));
	if (bind(fd, (struct sockaddr *)&from, len))
		return mc_syserr(-errno, "bind to interface %.20s", dev);
	return 0;
}

/* With no one listening at a port of this host, it can be picked as the local
 * one, and TCP then connects to itself. */
static bool dial_is_self(int fd)
{
	struct sockaddr_storage a = { 0 }, b = { 0 };
	socklen_t alen = sizeof(a), blen = sizeof(b);

	return !getsockname(fd, (struct sockaddr *)&a, &alen) &&
	       !getpeername(fd, (struct sockaddr *)&b, &blen) &&
	       dial_same_host((struct sockaddr *)&a, (struct sockaddr *)&b) &&
	       ((struct sockaddr_in *)&a)->sin_port ==
	       ((struct sockaddr_in *)&b)->sin_port;
}

static int dial_finish(int fd, uint64_t deadline_ns)
{
	int err = 0;
	socklen_t len = sizeof(err);
	int r = mc_net_wait(fd, POLLOUT, deadline_ns);

	if (r < 0)
		return r;
	if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &len))
		return -errno;
	return -err;
}

static int dial_failed(int r, const char *whom, uint64_t began_ns)
{
	switch (r) {
	case -ECONNREFUSED:
		return mc_err(r, "connect %s: connection refused (nothing "
			      "listens there)", whom);
	case -ETIMEDOUT:
		return mc_err(r, "connect %s: no answer within %d ms", whom,
			      (int)((mc_clock_ns() - began_ns) / MC_MS));
	case -EADDRNOTAVAIL:
		return mc_err(r, "connect %s: no free local port, or no route "
			      "from this address", whom);
	}
	return mc_syserr(r, "connect %s", whom);
}

/* Connect to one address; the message speaks of @whom. A descriptor. */
static int dial_one(const struct addrinfo *a, const char *whom,
		    const char *dev, uint64_t deadline_ns)
{
	uint64_t began_ns = mc_clock_ns();
	int fd = socket(a->ai_family,
			SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	int r;

	if (fd < 0)
		return dial_failed(-errno, whom, began_ns);
	mc_net_tune(fd);
	r = dev ? dial_bind_dev(fd, dev, a->ai_addr) : 0;
	if (r < 0) {
		char why[MC_WHY_MAX];

		mc_copy(why, mc_errmsg());
		mc_err(r, "connect %s: %s", whom, why);
		goto fail;
	}
	if (connect(fd, a->ai_addr, a->ai_addrlen))
		r = -errno;
	if (r == -EINPROGRESS || r == -EINTR)
		r = dial_finish(fd, deadline_ns);
	if (!r && dial_is_self(fd))
		r = -ECONNREFUSED;
	if (!r)
		return fd;
	dial_failed(r, whom, began_ns);
fail:
	close(fd);
	return r;
}

/* "node:7000 (10.0.0.2:7000) from eth0", as far as it says something. */
static void dial_whom(const char *addr, const struct addrinfo *a,
		      const char *dev, char *out, size_t size)
{
	char number[MC_ADDR_MAX];
	int n;

	mc_net_format(a->ai_addr, a->ai_addrlen, number);
	n = strcmp(addr, number) ?
	    snprintf(out, size, "%.90s (%s)", addr, number) :
	    snprintf(out, size, "%s", number);
	if (dev)
		snprintf(out + n, size - n, " from %.20s", dev);
}

/* The time is shared fairly among the addresses that are left. */
static uint64_t dial_share(uint64_t deadline_ns, const struct addrinfo *a)
{
	uint64_t now = mc_clock_ns();
	int left = 0;

	for (; a; a = a->ai_next)
		left++;
	if (deadline_ns == UINT64_MAX || deadline_ns <= now)
		return deadline_ns;
	return now + (deadline_ns - now) / left;
}

int mc_net_connect(const char *addr, const char *dev, uint64_t deadline_ns,
		   int *fd)
{
	struct addrinfo *all;
	struct mc_net_name name;
	char whom[2 * MC_ADDR_MAX + 64];
	int r = mc_net_parse(addr, -1, &name);

	if (r < 0)
		return r;
	if (!name.port)
		return mc_err(-EINVAL, "connect %.80s: port 0 is for "
			      "listening", addr);
	r = mc_net_resolve(&name, 0, deadline_ns, &all);
	if (r < 0)
		return r;
	r = -EHOSTUNREACH;
	for (struct addrinfo *a = all; a && r < 0; a = a->ai_next) {
		dial_whom(addr, a, dev, whom, sizeof(whom));
		r = dial_one(a, whom, dev, dial_share(deadline_ns, a));
	}
	freeaddrinfo(all);
	if (r < 0)
		return r;
	*fd = r;
	return 0;
}
