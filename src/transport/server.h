/*
 * server.h - the serving side of the native protocol: one listening port, and
 * one abstract unix socket for peers of this host.
 */
#ifndef MC_SERVER_H
#define MC_SERVER_H

#include "host.h"

#include "../base/loop.h"

struct mc_server;

/* Listen at @addr (host:port; port 0: a free one, see mc_server_addr()) and at
 * the abstract unix name @unix_name ("" : not). Who connects waits until
 * mc_server_start(), from when on it serves on @loops. */
int mc_server_open(struct mc_server **out, struct mc_host *h,
		   struct mc_loop *loops, int n_loops, const char *addr,
		   const char *unix_name);
int mc_server_start(struct mc_server *s);
void mc_server_close(struct mc_server *s);

/* In a child made by fork(): close and free the copy, touch nothing else. */
void mc_server_forget(struct mc_server *s);
const char *mc_server_addr(const struct mc_server *s);
int mc_server_connections(struct mc_server *s);

/* Those that are past the handshake: as mc_connection_list(). */
int mc_server_list(struct mc_server *s, int skip,
		   struct mc_connection_info *out, int max);

/* Answer control frame @id of @conn; the data is copied, descriptors (unix
 * only) are duplicated. With a negative status the data is its message.
 * Nothing happens if the connection has gone. */
void mc_server_reply(struct mc_server *s, uint64_t conn, uint64_t id,
		     int status, const void *data, uint32_t len,
		     const int *fds, int n_fds);

/* [addr, addr+len) is no longer ours to serve: when this returns, nothing is
 * received into it or sent from it. What was has been refused. */
void mc_server_revoke(struct mc_server *s, uint64_t addr, uint64_t len);

/* The process at the other end, 0 unless it is a unix socket. */
int mc_server_peer_pid(struct mc_server *s, uint64_t conn);

#endif
