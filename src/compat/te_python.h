/*
 * te_python.h - what the Python package calls by ctypes, beside the public C
 * functions: one call for a batch, whose lists are arrays of 64-bit numbers,
 * and the message of what failed. Nothing here writes to stderr. The calls
 * block without the interpreter's lock; none calls back.
 *
 * Engines are those of createTransferEngine(). Results are 0 or -errno, but for
 * memory the public numbers; mc_te_why() is the thread's message.
 */
#ifndef MC_COMPAT_TE_PYTHON_H
#define MC_COMPAT_TE_PYTHON_H

#include <stdbool.h>
#include <stdint.h>

#pragma GCC visibility push(default)

const char *mc_te_why(void);

/* NULL on failure. mc_te_note() is what was decided on opening, "" if
 * nothing. */
void *mc_te_open(const char *metadata, const char *name, const char *protocol,
		 const char *devices);
const char *mc_te_note(void *engine);

/* At the end of the interpreter, when other threads may be inside a call. */
bool mc_te_shutdown(void *engine, int wait_ms);
void mc_te_free(void *engine);
int mc_te_port(void *engine);

int mc_te_segment(void *engine, const char *name);
int mc_te_probe(void *engine, const char *name);
uint64_t mc_te_first_buffer(void *engine, int segment);

/* Memory. @n arrays elements; all or none, and as much as can be. */
int mc_te_register(void *engine, const uint64_t *addrs, const uint64_t *lens,
		   uint64_t n, const char *location);
int mc_te_unregister(void *engine, const uint64_t *addrs, uint64_t n);
uint64_t mc_te_alloc(void *engine, uint64_t len);
int mc_te_alloc_free(void *engine, uint64_t addr);

/* @opcode as the public one. @notify_name NULL: no notification. */
int mc_te_transfer(void *engine, int segment, int opcode, uint64_t n,
		   const uint64_t *bufs, const uint64_t *remotes,
		   const uint64_t *lens, const char *notify_name,
		   const char *notify_msg, uint32_t notify_len);

/* One piece, in one argument: ctypes converts each on its own. */
struct mc_te_piece {
	void *engine;
	int32_t segment;
	int32_t opcode;
	uint64_t buf;
	uint64_t remote;
	uint64_t len;
};

int mc_te_transfer_one(const struct mc_te_piece *p);

/* A batch in flight: its id, or 0. mc_te_check(): 0 pending, 1 done, -1 failed;
 * the batch is freed unless pending. */
uint64_t mc_te_submit(void *engine, int segment, int opcode, uint64_t n,
		      const uint64_t *bufs, const uint64_t *remotes,
		      const uint64_t *lens);
int mc_te_check(void *engine, uint64_t batch, bool wait);

/* 1 and a notification, whose message mc_te_note_free() frees, or 0. */
struct mc_te_message {
	char name[128];
	const void *msg;
	uint32_t len;
};
int mc_te_notify_next(void *engine, struct mc_te_message *out);
void mc_te_notify_free(struct mc_te_message *m);

/* JSON; mc_te_text_free(). */
char *mc_te_topology(const char *devices);
void mc_te_text_free(char *text);

#pragma GCC visibility pop
#endif
