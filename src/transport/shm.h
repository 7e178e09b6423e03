/*
 * shm.h - what the two halves of the shm transport share: the owner of memory
 * (shm.c) and the one who copies (shm_path.c). The layouts below are seen by
 * two processes of one host; each checks whatever the other wrote.
 *
 * Two regions per pair. The control region is the owner's alone: peers map it
 * read-only, and it is sealed against any other mapping. It says what is valid:
 * the engine, each attachment, each buffer. The slots (shm_slots.h) are written
 * by the peer; each attachment has its own, so a peer can only harm itself and
 * make the owner wait.
 */
#ifndef MC_SHM_H
#define MC_SHM_H

#include "host.h"
#include "shm_ids.h"
#include "shm_slots.h"

#include "../base/err.h"
#include "../base/util.h"

enum {
	SHM_MAGIC = 0x6d63736d,
	SHM_VERSION = 1,
	SHM_ATTACHMENTS = 8192,
	SHM_BUFFERS = 1 << 20,
	SHM_IDS = 8,			/* buffers asked for at once */
};

/* Sparse: only what is used takes memory. */
struct shm_control {
	uint64_t magic;
	uint64_t epoch;			/* 0: the engine closes */
	uint8_t pad[4096 - 16];
	uint64_t tokens[SHM_ATTACHMENTS];	/* 0: no longer attached */
	uint32_t gens[SHM_BUFFERS];	/* the id of the buffer; 0: gone */
};

enum shm_ask { SHM_ATTACH = 1, SHM_FIND = 2 };

struct shm_hello {
	uint32_t magic;
	uint16_t version;
	uint16_t ask;
	uint32_t n;
	uint32_t zero;
	union {
		char name[MC_NAME_MAX];	/* SHM_ATTACH: who asks */
		uint32_t ids[SHM_IDS];	/* SHM_FIND */
	};
};

/* With descriptors of the control region and of the slots. */
struct shm_attached {
	uint32_t magic;
	uint32_t index;			/* of the token */
	uint64_t token, epoch;
	uint64_t start, probe_addr, probe;	/* as struct mc_cma_id */
};

struct shm_found {
	uint32_t id;
	int32_t err;			/* 0 or why not: negative errno */
	uint64_t addr, len, offset;
	uint32_t access;
	uint32_t gen;			/* its index in gens */
	int32_t fd;			/* which of the descriptors; -1: none,
					 * it is not memory of ours */
	uint32_t zero;
};

struct shm_answer {
	uint32_t magic;
	uint32_t n;			/* the first n that were asked */
	struct shm_found found[SHM_IDS];
};

/* shm_path.c: the slots of struct mc_transport on the copying side. */
int mc_shm_connect(void *ctx, const struct mc_peer *peer, int dev,
		   uint64_t deadline_ns, struct mc_path **out);
void mc_shm_abort(struct mc_path *path, uint64_t deadline_ns);
void mc_shm_disconnect(struct mc_path *path);
int mc_shm_copy(struct mc_path *path, enum mc_op op,
		const struct mc_piece *pieces, uint32_t n);

/* shm.c: the host of a context. */
struct mc_host *mc_shm_host(void *ctx);

#endif
