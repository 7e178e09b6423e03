/* tls.h - the encrypted half of stream.c; nobody else needs it. */
#ifndef MC_TLS_H
#define MC_TLS_H

#include "stream.h"

/* TLS state for a socket: NULL if there is no memory. */
struct mc_stream_tls *mc_tls_attach(struct mc_tls *tls, int fd, bool server);
void mc_tls_detach(struct mc_stream_tls *t);

/* As the functions of stream.h that call them. */
int mc_tls_handshake(struct mc_stream *s);
ssize_t mc_tls_readv(struct mc_stream *s, const struct iovec *iov, int n);
ssize_t mc_tls_writev(struct mc_stream *s, const struct iovec *iov, int n);
bool mc_tls_pending(const struct mc_stream_tls *t);

/* The messages of a stream that has ended, or whose socket failed. */
int mc_stream_closed(const struct mc_stream *s);
int mc_stream_failed(const struct mc_stream *s, int err);

#endif
