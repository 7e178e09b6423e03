/*
 * shm_owner.h - the context of the shm transport, of an engine that owns
 * memory: seen by shm.c (what is valid) and shm_serve.c (who is attached).
 */
#ifndef MC_SHM_OWNER_H
#define MC_SHM_OWNER_H

#include "cma.h"
#include "shm.h"

enum { SHM_GEN_NONE = SHM_BUFFERS };

struct shm_buffer {
	struct mc_buffer_info info;
	int fd;				/* of the engine; -1: not ours */
	uint64_t offset;
	uint32_t gen;			/* index; SHM_GEN_NONE */
	bool leaving;
};

struct shm_attachment {
	uint64_t conn;
	struct mc_slots *slots;		/* the peer writes here */
	int slots_fd, pidfd, pid;
	int refs;
	bool gone;			/* its connection is */
	char name[MC_NAME_MAX];
};

struct shm_ctx {
	struct mc_host *host;
	uint8_t *alive;			/* a page that fork() wipes */
	struct shm_control *control;
	int control_fd;
	struct mc_cma_id id;
	uint64_t probe;			/* peers read it by address */
	pthread_mutex_t lock;		/* of all below */
	struct mc_ids ids;
	uint32_t next_gen, n_free, cap_free, *free_gens;
	uint64_t last_token;
	uint32_t n_attached;		/* high water */
	struct shm_attachment *attached[SHM_ATTACHMENTS];
};

/* What was made invalid before is free to go: wait for every peer to have left
 * the windows it is in, a second at most. -EBUSY names @what and the peer. */
int mc_shm_settle(struct shm_ctx *s, const char *what);
void mc_shm_attachment_free(struct shm_attachment *a);

/* As in struct mc_transport. The descriptors are duplicates that the caller
 * closes when it has sent them: what they are of may be closed before. */
int mc_shm_accept(void *ctx, uint64_t conn, const struct mc_blob *hello,
		  struct mc_blob *reply, int *fds, int *n_fds);
void mc_shm_gone(void *ctx, uint64_t conn);

#endif
