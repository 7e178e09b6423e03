/*
 * hiredis.h - hiredis, loaded when it is first needed, as libcurl is (curl.h).
 * Only its reading and writing of the protocol: connections are of libcurl,
 * which has TLS, keeps deadlines even while looking up names, raises no signal.
 */
#ifndef MC_REGISTRY_HIREDIS_H
#define MC_REGISTRY_HIREDIS_H

#include <hiredis/hiredis.h>

#define MC_HIREDIS_FUNCTIONS(X) \
	X(redisReaderCreate) X(redisReaderFree) X(redisReaderFeed) \
	X(redisReaderGetReply) X(redisFormatCommandArgv) X(redisFreeCommand) \
	X(freeReplyObject)

#define MC_HIREDIS_FIELD(name) __typeof__(name) *name;

struct mc_hiredis {
	MC_HIREDIS_FUNCTIONS(MC_HIREDIS_FIELD)
};

/* Filled by mc_hiredis_load(), which every user calls first: 0, or -EOPNOTSUPP
 * with the reason. */
extern struct mc_hiredis mc_hiredis;
int mc_hiredis_load(void);

/* A reader that does not make room for whatever a server claims to send. NULL:
 * out of memory. */
redisReader *mc_hiredis_reader(void);

#endif
