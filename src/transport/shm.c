/*
 * shm.c - memory of this engine for other engines of this host: which buffers
 * are valid, and how they are taken back. Peers are served by shm_serve.c; the
 * copying side is shm_path.c.
 */
#include "shm_owner.h"

#include "../base/memfd.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <unistd.h>

struct mc_host *mc_shm_host(void *ctx)
{
	return ((struct shm_ctx *)ctx)->host;
}

/* ---- the context ---------------------------------------------------- */

/* The region is sealed after it was mapped here: no one else ever writes. */
static int shm_make_control(struct shm_ctx *s)
{
	int r, fd = mc_memfd_create("mooncake-control", sizeof(*s->control));

	if (fd < 0)
		return fd;
	s->control_fd = fd;
	s->control = mmap(NULL, sizeof(*s->control), PROT_READ | PROT_WRITE,
			  MAP_SHARED, fd, 0);
	if (s->control == MAP_FAILED) {
		r = -errno;
		s->control = NULL;
		return mc_syserr(r, "shm: mapping the control region");
	}
	if (fcntl(fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE | F_SEAL_SEAL) < 0)
		return mc_syserr(-EOPNOTSUPP, "shm: the kernel cannot share "
				 "memory read-only (before Linux 5.1)");
	s->control->magic = SHM_MAGIC;
	s->control->epoch = mc_host_epoch(s->host);
	return 0;
}

static int shm_make_alive(struct shm_ctx *s)
{
	void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (page == MAP_FAILED)
		return mc_syserr(-errno, "shm: mapping a page");
	s->alive = page;
	*s->alive = 1;
	(void)madvise(page, 4096, MADV_WIPEONFORK);
	return 0;
}

static void shm_free(struct shm_ctx *s)
{
	uint32_t at = 0;
	void *b;

	for (uint32_t i = 0; i < s->n_attached; i++)
		if (s->attached[i])
			mc_shm_attachment_free(s->attached[i]);
	while ((b = mc_ids_next(&s->ids, &at)))
		free(b);
	mc_ids_fini(&s->ids);
	free(s->free_gens);
	if (s->control)
		munmap(s->control, sizeof(*s->control));
	if (s->control_fd >= 0)
		close(s->control_fd);
	if (s->alive)
		munmap(s->alive, 4096);
	pthread_mutex_destroy(&s->lock);
	free(s);
}

static int shm_open_ctx(void **ctx, struct mc_host *host,
			const struct mc_options *opts)
{
	struct shm_ctx *s = calloc(1, sizeof(*s));
	int r;

	(void)opts;
	if (!s)
		return mc_err(-ENOMEM, "shm: no memory");
	s->host = host;
	s->control_fd = -1;
	pthread_mutex_init(&s->lock, NULL);
	r = shm_make_alive(s);
	if (!r)
		r = shm_make_control(s);
	if (!r && getrandom(&s->probe, sizeof(s->probe), 0) < 0)
		r = mc_syserr(-errno, "shm: getrandom");
	if (r < 0) {
		shm_free(s);
		return r;
	}
	s->id = (struct mc_cma_id){ mc_cma_start(getpid()),
				    (uint64_t)(uintptr_t)&s->probe, s->probe };
	*ctx = s;
	return 0;
}

/* In a child made by fork() the control region is the parent's still. */
static void shm_close(void *ctx)
{
	struct shm_ctx *s = ctx;

	if (*s->alive) {
		__atomic_store_n(&s->control->epoch, 0, __ATOMIC_SEQ_CST);
		for (uint32_t i = 0; i < s->n_attached; i++)
			__atomic_store_n(&s->control->tokens[i], 0,
					 __ATOMIC_SEQ_CST);
		if (mc_shm_settle(s, "closing") < 0)
			mc_log(MC_WARN, "shm", "%s", mc_errmsg());
	}
	shm_free(s);
}

/* ---- buffers -------------------------------------------------------- */

/* A peer that may not write gets a descriptor that admits no writable mapping,
 * and no peer can add seals to harm the others. */
static bool shm_seal(int fd, unsigned access)
{
	int want = F_SEAL_SEAL, have;

	if (!(access & MC_REMOTE_WRITE))
		want |= F_SEAL_FUTURE_WRITE;
	if (fd >= 0 && !fcntl(fd, F_ADD_SEALS, want))
		return true;
	have = fd >= 0 ? fcntl(fd, F_GET_SEALS) : -1;
	return have >= 0 && (have & want) == want;
}

/* Room for every index in use to come back, so that giving back never fails. */
static int shm_gen_take(struct shm_ctx *s, uint32_t *gen)
{
	if (s->n_free) {
		*gen = s->free_gens[--s->n_free];
		return 0;
	}
	*gen = SHM_GEN_NONE;
	if (s->next_gen == SHM_BUFFERS)
		return 0;
	if (s->next_gen == s->cap_free) {
		uint32_t cap = s->cap_free ? 2 * s->cap_free : 64;
		void *p = realloc(s->free_gens, cap * sizeof(*s->free_gens));

		if (!p)
			return mc_err(-ENOMEM, "shm: no memory for a buffer");
		s->free_gens = p;
		s->cap_free = cap;
	}
	*gen = s->next_gen++;
	return 0;
}

static void shm_gen_give(struct shm_ctx *s, uint32_t gen)
{
	if (gen != SHM_GEN_NONE)
		s->free_gens[s->n_free++] = gen;
}

static void shm_gen_set(struct shm_ctx *s, uint32_t gen, uint32_t id)
{
	if (gen != SHM_GEN_NONE)
		__atomic_store_n(&s->control->gens[gen], id,
				 __ATOMIC_SEQ_CST);
}

static int shm_reg(void *ctx, const struct mc_buffer_info *info, int fd,
		   uint64_t offset)
{
	struct shm_ctx *s = ctx;
	struct shm_buffer *b;
	void *retired = NULL;
	int r;

	if (!(info->access & MC_REMOTE_RW))
		return 0;
	b = malloc(sizeof(*b));
	if (!b)
		return mc_err(-ENOMEM, "shm: no memory for a buffer");
	*b = (struct shm_buffer){ .info = *info, .offset = offset,
		.fd = shm_seal(fd, info->access) ? fd : -1 };
	pthread_mutex_lock(&s->lock);
	r = shm_gen_take(s, &b->gen);
	if (!r) {
		r = mc_ids_add(&s->ids, info->id, b, &retired);
		if (r < 0)
			shm_gen_give(s, b->gen);
		else
			shm_gen_set(s, b->gen, info->id);
	}
	free(retired);
	pthread_mutex_unlock(&s->lock);
	if (r < 0)
		free(b);
	return r;
}

static int shm_unreg(void *ctx, const struct mc_buffer_info *info)
{
	struct shm_ctx *s = ctx;
	struct shm_buffer *b;
	char what[48];
	int r;

	pthread_mutex_lock(&s->lock);
	b = mc_ids_find(&s->ids, info->id);
	if (b) {
		b->leaving = true;
		shm_gen_set(s, b->gen, 0);
	}
	pthread_mutex_unlock(&s->lock);
	if (!b)
		return 0;
	snprintf(what, sizeof(what), "buffer at 0x%llx",
		 (unsigned long long)info->addr);
	r = mc_shm_settle(s, what);
	pthread_mutex_lock(&s->lock);
	if (r < 0) {
		b->leaving = false;
		shm_gen_set(s, b->gen, info->id);
	} else {
		mc_ids_del(&s->ids, info->id);
		shm_gen_give(s, b->gen);
		free(b);
	}
	pthread_mutex_unlock(&s->lock);
	return r;
}

const struct mc_transport mc_shm_transport = {
	.name = "shm",
	.open = shm_open_ctx,
	.close = shm_close,
	.reg = shm_reg,
	.unreg = shm_unreg,
	.connect = mc_shm_connect,
	.accept = mc_shm_accept,
	.gone = mc_shm_gone,
	.abort = mc_shm_abort,
	.disconnect = mc_shm_disconnect,
	.copy = mc_shm_copy,
};
