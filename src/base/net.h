/*
 * net.h - addresses, sockets that do not block, and descriptors over unix
 * sockets. What travels on a socket is not known here: see
 * ../transport/stream.h.
 *
 * Functions return 0 or what they say, or -errno with a message by mc_err()
 * that names the peer and the cause. Deadlines are of mc_clock_ns();
 * UINT64_MAX never comes.
 */
#ifndef MC_BASE_NET_H
#define MC_BASE_NET_H

#include <mooncake.h>

#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>

enum {
	MC_HOST_MAX = 256,		/* a host name with its final zero */
	MC_NET_FDS = 16,		/* descriptors one message can pass */
};

/* ---- addresses ------------------------------------------------------ */

struct mc_net_name {
	char host[MC_HOST_MAX];		/* no brackets; "": any, or this host */
	int port;
};

/* Take "host:port", "[v6]:port", "[v6%scope]:port" or ":port" apart. With
 * @default_port >= 0 the port may be missing, and a bare IPv6 address is one
 * without a port; -1: it must be there. No name is looked up. */
int mc_net_parse(const char *text, int default_port, struct mc_net_name *out);

/* Put it together again, with brackets where needed: -EINVAL if too long. */
int mc_net_join(const char *host, int port, char out[MC_ADDR_MAX]);

/* "10.0.0.2:7000", "[fe80::1%eth0]:7000", "unix:@name". An IPv4 address mapped
 * into IPv6 is written as IPv4. */
void mc_net_format(const struct sockaddr *sa, socklen_t len,
		   char out[MC_ADDR_MAX]);

/* The two ends of a socket; of a unix socket the peer is "process 123". */
void mc_net_local_name(int fd, char out[MC_ADDR_MAX]);
void mc_net_peer_name(int fd, char out[MC_ADDR_MAX]);

/* The addresses of a name, by getaddrinfo() with @flags of its hints; free them
 * by freeaddrinfo(). No name server is asked about a numeric address. With host
 * "" it is this host, or with AI_PASSIVE everywhere. */
struct addrinfo;
int mc_net_resolve(const struct mc_net_name *name, int flags,
		   uint64_t deadline_ns, struct addrinfo **out);

/* ---- making sockets: all are nonblocking and close on exec ---------- */

/* Listen at @addr. ":port" is every address of both families (IPv4 only where
 * there is no IPv6). Port 0 picks a free one: @actual is where it listens,
 * "[::]:port" or "0.0.0.0:port" if everywhere. */
int mc_net_listen(const char *addr, int *fd, char actual[MC_ADDR_MAX]);

/* Listen at an abstract unix name (no file, gone with the process). */
int mc_net_listen_unix(const char *name, int *fd);

/* The next connection that waits at @listen_fd: its descriptor, or -errno,
 * -EAGAIN if there is none. -EMFILE or -ENFILE: out of descriptors it was
 * refused, since one that waits would wake us for ever; *@spare, any
 * descriptor, was given up for that and opened again. */
int mc_net_accept(int listen_fd, int *spare);
int mc_net_spare(void);

/* Connect to any address of @addr's host. With @dev, an interface, from there:
 * bound to its address and, where the kernel lets us and the peer is not on
 * this host, to the interface itself. -EINVAL the address is malformed,
 * -EHOSTUNREACH its name is not known or there is no route, -ENODEV no such
 * interface, -ETIMEDOUT no answer, or what connect() says. Looking up a name
 * keeps to the deadline too. */
int mc_net_connect(const char *addr, const char *dev, uint64_t deadline_ns,
		   int *fd);
int mc_net_connect_unix(const char *name, uint64_t deadline_ns, int *fd);

/* For TCP sockets that were accepted; connected ones have it: no delay, and a
 * peer that has vanished is noticed within half a minute. So is one that does
 * not take what was sent to it for 20 seconds: -ETIMEDOUT. */
void mc_net_tune(int fd);

/* ---- using them ----------------------------------------------------- */

/* Sleep until @events (POLLIN, POLLOUT) or an error: 0, or -ETIMEDOUT. */
int mc_net_wait(int fd, short events, uint64_t deadline_ns);

/* The process at the other end of a unix socket, 0 if it is none. */
int mc_net_peer_pid(int fd);

/* Send at least one byte of @buf with @n_fds descriptors riding on the first
 * one. Bytes sent, -EAGAIN (without a message) if the socket is full. */
ssize_t mc_net_sendmsg_fds(int fd, const void *buf, size_t len,
			   const int *fds, int n_fds);

/* Receive, with the descriptors that ride along: the first of *n_fds into
 * @fds, *n_fds then is how many; those beyond are closed. Bytes received, 0 at
 * the end of the stream, -EAGAIN (without a message) if there are none yet. */
ssize_t mc_net_recvmsg_fds(int fd, void *buf, size_t len, int *fds,
			   int *n_fds);

#endif
