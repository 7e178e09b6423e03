/*
 * stream.h - one connected socket, plain or TLS 1.3, that never blocks.
 *
 * A stream belongs to one thread at a time, and may be moved in memory. Its
 * errors name the peer. An end of the stream without notice is the same as
 * one with: the frames on it have lengths, and say themselves what is missing.
 * So closing sends no TLS farewell, and a child made by fork() can close its
 * copy without the parent's connection noticing.
 */
#ifndef MC_STREAM_H
#define MC_STREAM_H

#include <mooncake.h>

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

/* ---- certificates --------------------------------------------------- */

struct mc_tls;

/* Read PEM files: our certificate (and those between it and the authority),
 * its key (NULL: in the same file), and who signs the peers' (NULL: @cert,
 * which then is the peers' too). Both sides of a connection show a certificate
 * and check the other's; names in it are not compared, whom @ca signs belongs
 * to the cluster. With @cert NULL there is no TLS: *out is NULL. */
int mc_tls_open(struct mc_tls **out, const char *cert, const char *key,
		const char *ca);
/* No stream of it may be left. NULL is a no-op. */
void mc_tls_close(struct mc_tls *tls);

/* ---- streams -------------------------------------------------------- */

struct mc_stream_tls;

struct mc_stream {
	int fd;				/* -1 once closed */
	short want;			/* POLLIN, POLLOUT: what 0 waits for */
	struct mc_stream_tls *tls;	/* NULL: plain */
	char peer[MC_ADDR_MAX];		/* for messages */
	const int *stop;		/* blocking calls end with -ECANCELED
					 * once it is not 0; NULL: never */
};

/* @fd is connected and does not block. With @tls NULL the stream is plain. On
 * error (-ENOMEM) @fd is still the caller's. */
int mc_stream_init(struct mc_stream *s, int fd, struct mc_tls *tls,
		   bool server);

/* Close it; what was sent is still delivered. Twice does no harm. */
void mc_stream_fini(struct mc_stream *s);

/* Close it at once: what is not sent yet never is, the peer gets a reset. Bytes
 * that have reached it already, it can still read. */
void mc_stream_reset(struct mc_stream *s);

/* Before anything else on a TLS stream: 1 done (plain: at once), 0 not yet,
 * see want. -EACCES: a certificate was not accepted, -EPROTO: that is not TLS,
 * -ECONNRESET: closed by peer. As the client is done first, whether the server
 * took its certificate it hears from the first read. */
int mc_stream_handshake(struct mc_stream *s);

/* Move what can be moved now: bytes > 0, or 0 if none, see want. The end of
 * the stream is -ECONNRESET, "closed by peer". After a writev() that did not
 * take everything, the next one has to begin with the bytes not taken: some of
 * them may be encrypted already. Lists longer than IOV_MAX are cut. */
ssize_t mc_stream_readv(struct mc_stream *s, const struct iovec *iov, int n);
ssize_t mc_stream_writev(struct mc_stream *s, const struct iovec *iov, int n);

/* May readv() have something though the socket is not readable? Then do not
 * sleep on the socket. It can turn out to be less than a record, once. */
bool mc_stream_pending(const struct mc_stream *s);

/* ---- for handshakes: block until all is done, or -ETIMEDOUT --------- */

int mc_stream_read_full(struct mc_stream *s, void *buf, size_t len,
			uint64_t deadline_ns);
int mc_stream_write_full(struct mc_stream *s, const void *buf, size_t len,
			 uint64_t deadline_ns);

/* The same with descriptors, over a plain stream on a unix socket. Reading
 * fills up to *n_fds of @fds, sets *n_fds and closes those beyond; on error
 * there are none. */
int mc_stream_read_fds(struct mc_stream *s, void *buf, size_t len, int *fds,
		       int *n_fds, uint64_t deadline_ns);
int mc_stream_write_fds(struct mc_stream *s, const void *buf, size_t len,
			const int *fds, int n_fds, uint64_t deadline_ns);

#endif
