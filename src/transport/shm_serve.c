/*
 * shm_serve.c - the peers that reach our memory: how they attach, what they ask
 * of buffers, and how to wait until none is copying.
 */
#include "shm_owner.h"

#include "../base/clock.h"
#include "../base/memfd.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum {
	SHM_WAIT_MS = 1000,		/* for a peer in the middle of a copy */
	SHM_LOOK_MS = 2,		/* in between: is it alive? */
};

/* ---- attachments ---------------------------------------------------- */

void mc_shm_attachment_free(struct shm_attachment *a)
{
	if (a->slots)
		munmap(a->slots, sizeof(*a->slots));
	if (a->slots_fd >= 0)
		close(a->slots_fd);
	if (a->pidfd >= 0)
		close(a->pidfd);
	free(a);
}

/* It will not touch our memory, whatever its slots say. */
static bool shm_harmless(const struct shm_attachment *a)
{
	return __atomic_load_n(&a->slots->slot[0].left, __ATOMIC_ACQUIRE) ||
	       !mc_cma_alive(a->pidfd) || (a->gone && a->pidfd < 0);
}

/* Forget who has left, has ended, or has lost its connection and is in no
 * copy: its token is zero, so it enters no more. */
static void shm_reap(struct shm_ctx *s)
{
	for (uint32_t i = 0; i < s->n_attached; i++) {
		struct shm_attachment *a = s->attached[i];

		if (!a || a->refs || !(shm_harmless(a) ||
		    (a->gone && mc_slots_drain(a->slots, 0))))
			continue;
		__atomic_store_n(&s->control->tokens[i], 0, __ATOMIC_SEQ_CST);
		s->attached[i] = NULL;
		mc_shm_attachment_free(a);
	}
	while (s->n_attached && !s->attached[s->n_attached - 1])
		s->n_attached--;
}

/* Wait until a peer has left the windows it is in now. */
static bool shm_settle_one(const struct shm_attachment *a, uint64_t deadline)
{
	for (int i = 0; i < MC_SLOTS; i++) {
		const uint64_t *word = &a->slots->slot[i].seq;
		uint64_t seq = __atomic_load_n(word, __ATOMIC_SEQ_CST);
		uint64_t now = mc_clock_ns();

		if (!(seq & 1))
			continue;
		while (!mc_slots_wait(word, seq,
				      now + SHM_LOOK_MS * MC_MS)) {
			if (shm_harmless(a))
				return true;
			now = mc_clock_ns();
			if (now >= deadline)
				return false;
		}
	}
	return true;
}

/* Wait for every peer. The lock is not held while one is waited for: a peer
 * that attaches meanwhile finds what was made invalid before. */
int mc_shm_settle(struct shm_ctx *s, const char *what)
{
	uint64_t deadline = mc_clock_ns() + SHM_WAIT_MS * (uint64_t)MC_MS;
	int r = 0;

	pthread_mutex_lock(&s->lock);
	for (uint32_t i = 0; i < s->n_attached && !r; i++) {
		struct shm_attachment *a = s->attached[i];

		if (!a || mc_slots_drain(a->slots, 0))
			continue;
		a->refs++;
		pthread_mutex_unlock(&s->lock);
		if (!shm_settle_one(a, deadline))
			r = mc_err(-EBUSY, "shm: %s: %s (process %d) is "
				   "stopped in the middle of a copy", what,
				   a->name, a->pid);
		pthread_mutex_lock(&s->lock);
		a->refs--;
	}
	pthread_mutex_unlock(&s->lock);
	return r;
}

/* ---- what peers ask ------------------------------------------------- */

static struct shm_attachment *shm_attachment_new(struct shm_ctx *s,
						 uint64_t conn,
						 const struct shm_hello *q)
{
	struct shm_attachment *a = calloc(1, sizeof(*a));
	void *mem;

	if (!a) {
		mc_err(-ENOMEM, "shm: no memory for a peer");
		return NULL;
	}
	a->conn = conn;
	a->pid = mc_host_peer_pid(s->host, NULL, conn);
	a->pidfd = mc_cma_pidfd(a->pid);
	snprintf(a->name, sizeof(a->name), "%.*s", MC_NAME_MAX - 1, q->name);
	for (char *c = a->name; *c; c++)
		if (*c < ' ' || *c > '~')
			*c = '?';
	a->slots_fd = mc_memfd_create("mooncake-slots", sizeof(*a->slots));
	if (a->slots_fd < 0)
		goto fail;
	(void)fcntl(a->slots_fd, F_ADD_SEALS, F_SEAL_SEAL);
	mem = mmap(NULL, sizeof(*a->slots), PROT_READ | PROT_WRITE, MAP_SHARED,
		   a->slots_fd, 0);
	if (mem == MAP_FAILED) {
		mc_syserr(-errno, "shm: mapping a peer's slots");
		goto fail;
	}
	a->slots = mem;
	return a;
fail:
	mc_shm_attachment_free(a);
	return NULL;
}

static int shm_place(struct shm_ctx *s, struct shm_attachment *a)
{
	uint32_t i = 0;

	shm_reap(s);
	while (i < s->n_attached && s->attached[i])
		i++;
	if (i == SHM_ATTACHMENTS)
		return mc_err(-EBUSY, "shm: %d peers are attached already",
			      SHM_ATTACHMENTS);
	s->attached[i] = a;
	s->n_attached = mc_max(s->n_attached, i + 1);
	return i;
}

static int shm_dup(int fd)
{
	int copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);

	return copy < 0 ? mc_syserr(-errno, "shm: a descriptor for a peer") :
			  copy;
}

/* Both descriptors or none. */
static int shm_pass(struct shm_ctx *s, const struct shm_attachment *a,
		    int *fds)
{
	fds[0] = shm_dup(s->control_fd);
	if (fds[0] < 0)
		return fds[0];
	fds[1] = shm_dup(a->slots_fd);
	if (fds[1] < 0)
		close(fds[0]);
	return mc_min(fds[1], 0);
}

static int shm_attach(struct shm_ctx *s, uint64_t conn,
		      const struct shm_hello *q, struct mc_blob *reply,
		      int *fds, int *n_fds)
{
	struct shm_attached out;
	struct shm_attachment *a = shm_attachment_new(s, conn, q);
	int r, i;

	if (!a)
		return -ENOMEM;
	r = shm_pass(s, a, fds);
	if (r < 0) {
		mc_shm_attachment_free(a);
		return r;
	}
	pthread_mutex_lock(&s->lock);
	i = shm_place(s, a);
	if (i >= 0) {
		out = (struct shm_attached){ SHM_MAGIC, i, ++s->last_token,
			s->control->epoch, s->id.start, s->id.probe_addr,
			s->id.probe };
		__atomic_store_n(&s->control->tokens[i], out.token,
				 __ATOMIC_SEQ_CST);
	}
	pthread_mutex_unlock(&s->lock);
	if (i < 0) {
		close(fds[0]);
		close(fds[1]);
		mc_shm_attachment_free(a);
		return i;
	}
	memcpy(reply->data, &out, sizeof(out));
	reply->len = sizeof(out);
	*n_fds = 2;
	return 0;
}

/* Describe one buffer; false: it does not go into this answer any more. */
static bool shm_describe(struct shm_ctx *s, uint32_t id, struct shm_found *f,
			 int *fds, int *n_fds)
{
	struct shm_buffer *b = mc_ids_find(&s->ids, id);

	*f = (struct shm_found){ .id = id, .fd = -1 };
	if (!b || b->leaving) {
		f->err = -ESTALE;
		return true;
	}
	if (b->gen == SHM_GEN_NONE) {
		f->err = -EOPNOTSUPP;
		return true;
	}
	if (b->fd >= 0) {
		if (*n_fds == MC_HOST_FDS)
			return false;
		f->fd = fcntl(b->fd, F_DUPFD_CLOEXEC, 3);
		if (f->fd >= 0) {
			fds[*n_fds] = f->fd;
			f->fd = (*n_fds)++;
		}
	}
	f->addr = b->info.addr;
	f->len = b->info.len;
	f->access = b->info.access;
	f->offset = b->offset;
	f->gen = b->gen;
	return true;
}

static int shm_find(struct shm_ctx *s, const struct shm_hello *q,
		    struct mc_blob *reply, int *fds, int *n_fds)
{
	struct shm_answer out = { .magic = SHM_MAGIC };
	uint32_t n = 0;

	if (!q->n || q->n > SHM_IDS)
		return mc_err(-EPROTO, "shm: a question for %u buffers", q->n);
	*n_fds = 0;
	pthread_mutex_lock(&s->lock);
	while (n < q->n && shm_describe(s, q->ids[n], &out.found[n], fds,
					n_fds))
		n++;
	pthread_mutex_unlock(&s->lock);
	out.n = n;
	memcpy(reply->data, &out, sizeof(out));
	reply->len = sizeof(out);
	return 0;
}

int mc_shm_accept(void *ctx, uint64_t conn, const struct mc_blob *hello,
		  struct mc_blob *reply, int *fds, int *n_fds)
{
	struct shm_hello q;

	if (hello->len != sizeof(q))
		return mc_err(-EPROTO, "shm: a question of %u bytes",
			      hello->len);
	memcpy(&q, hello->data, sizeof(q));
	if (q.magic != SHM_MAGIC || q.version != SHM_VERSION)
		return mc_err(-EPROTO, "shm: version %u, not %d", q.version,
			      SHM_VERSION);
	if (q.ask == SHM_ATTACH)
		return shm_attach(ctx, conn, &q, reply, fds, n_fds);
	if (q.ask == SHM_FIND)
		return shm_find(ctx, &q, reply, fds, n_fds);
	return mc_err(-EPROTO, "shm: question %u is not known", q.ask);
}

void mc_shm_gone(void *ctx, uint64_t conn)
{
	struct shm_ctx *s = ctx;

	pthread_mutex_lock(&s->lock);
	for (uint32_t i = 0; i < s->n_attached; i++) {
		struct shm_attachment *a = s->attached[i];

		if (!a || a->conn != conn)
			continue;
		a->gone = true;
		__atomic_store_n(&s->control->tokens[i], 0, __ATOMIC_SEQ_CST);
	}
	shm_reap(s);
	pthread_mutex_unlock(&s->lock);
}
