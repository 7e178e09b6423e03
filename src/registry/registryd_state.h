/*
 * registryd_state.h - the file in which our registry server keeps its records:
 * a log of JSON lines, written over in short form when it has grown.
 *
 * A line is in the file before its request is answered, so records survive the
 * process being killed; they are on the disk within a second of that
 * (mc_statefile_sync()). A last line that was cut short is dropped. Any other
 * line that does not parse makes opening fail, and the file stays as it is.
 */
#ifndef MC_REGISTRYD_STATE_H
#define MC_REGISTRYD_STATE_H

#include "registryd_store.h"

enum { MC_STATEFILE_FORMAT = 1 };

struct mc_statefile;

/* Open or create the file and put its records into @s, which is empty; leases
 * that ran out meanwhile are due. -EBUSY another server has it, -EBADMSG it is
 * not a state file or is damaged. @s stays the caller's and outlives it. */
int mc_statefile_open(struct mc_statefile **out, const char *path,
		      struct mc_store *s);

/* Everything is on the disk, then. */
void mc_statefile_close(struct mc_statefile *st);

/* Note what is about to happen to the store; ttl_ms 0: no lease. On an error
 * the file is as before. */
int mc_statefile_put(struct mc_statefile *st, const char *key,
		     const char *value, size_t len, uint64_t version,
		     uint32_t ttl_ms);
int mc_statefile_lease(struct mc_statefile *st, const char *key,
		       uint32_t ttl_ms);
int mc_statefile_del(struct mc_statefile *st, const char *key,
		     uint64_t version);

/* Is there something that mc_statefile_sync() would bring to the disk? */
bool mc_statefile_dirty(const struct mc_statefile *st);

/* Bring it there, and shorten the file if most of it is out of date. Failures
 * are logged, and tried again the next time. */
void mc_statefile_sync(struct mc_statefile *st);

/* The part of opening that reads @fd (registryd_load.c); @path for messages. */
int mc_statefile_load(int fd, const char *path, struct mc_store *s);

#endif
