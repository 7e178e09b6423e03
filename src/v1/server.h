/*
 * server.h - the serving side of the public Mooncake's protocol: the data port,
 * and handshake frames that come to the engine's own port. It has no
 * authentication, so the engine opens it only when it is asked to.
 */
#ifndef MC_V1_SERVER_H
#define MC_V1_SERVER_H

#include "../base/loop.h"
#include "../transport/host.h"

struct mc_v1_server;

/* Listen for data on a free port of @host; serves on @loops from
 * mc_v1_server_start(). */
int mc_v1_server_open(struct mc_v1_server **out, struct mc_host *h,
		      struct mc_loop *loops, int n_loops, const char *host);
int mc_v1_server_start(struct mc_v1_server *s);
void mc_v1_server_close(struct mc_v1_server *s);

/* In a child made by fork(): close and free the copy, touch nothing else. */
void mc_v1_server_forget(struct mc_v1_server *s);
int mc_v1_server_port(const struct mc_v1_server *s);
int mc_v1_server_connections(const struct mc_v1_server *s);

/* Take over a connection whose first @n bytes, of a handshake frame, have been
 * read; @fd is the server's now. */
void mc_v1_server_take(struct mc_v1_server *s, int fd, const void *first,
		       uint32_t n);

/* [addr, addr+len) is no longer ours to serve: when this returns, nothing is
 * received into it or sent from it. */
void mc_v1_server_revoke(struct mc_v1_server *s, uint64_t addr, uint64_t len);

/* A random port of those that the public Mooncake uses: MC_MIN_RPC_PORT to
 * MC_MAX_RPC_PORT, or 15000 to 17000. */
int mc_v1_port(void);

#endif
