/*
 * rdma_memory.c - buffers, each registered once with every device, so that
 * nothing has to be registered when a transfer begins.
 *
 * A part is what is registered at a time: the buffer, or if that is too large a
 * chunk of it (rdma_keys.h), with a device. To pin much memory takes long, so
 * several threads share the parts of a large buffer, and whoever asked for it
 * tells now and then how far they are. Most of that time the kernel looks for
 * pages and clears them; so that is asked for first, in pieces: they can be
 * shared and counted where there is one device, and no two devices look for the
 * same page.
 *
 * Where rdma was not asked for by name, memory that cannot be registered is no
 * error: the buffer is then moved by other transports.
 */
#include "rdma.h"
#include "cuda.h"

#include "../base/clock.h"
#include "../base/err.h"
#include "../base/memfd.h"
#include "../base/util.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

enum {
	MEMORY_TELL_S = 2,
	MEMORY_LARGE = 16 << 20,	/* for less, no thread is asked */
	MEMORY_TOUCH = 64 << 20,	/* a piece */
	MEMORY_MAX_BITS = 40,		/* of a chunk, as the public one has
					 * it */
};

/* Part i is chunk i / n_devs for device i % n_devs; or all of the buffer, if
 * there is one for each device. */
struct rdma_buffer {
	struct mc_node node;
	uint32_t id, parts;
	struct ibv_mr *mr[];
};

/* Something to be done with a buffer, in parts. */
struct memory_job {
	struct rdma_ctx *c;
	struct rdma_buffer *m;
	int (*part)(struct memory_job *j, uint32_t i);
	uint32_t parts;
	const char *doing;
	const struct mc_buffer_info *info;
	int access;
	bool gpu;
	int dmabuf, dmabuf_err;		/* -1: there is none */
	uint64_t dmabuf_base;
	char no_dmabuf[MC_WHY_MAX];

	uint32_t next, done;		/* parts; atomic */
	pthread_mutex_t lock;
	pthread_cond_t over;
	int hands;			/* at work; this and what follows: by
					 * the lock */
	int err;			/* the first; atomic */
	char why[MC_WHY_MAX];
};

/* ---- chunks --------------------------------------------------------- */

int mc_rdma_chunk_bits(const struct rdma_ctx *c)
{
	uint64_t max = mc_env_number("MC_MAX_MR_SIZE", 1 << RDMA_CHUNK_MIN,
				    INT64_MAX, 1ll << MEMORY_MAX_BITS);
	int bits = RDMA_CHUNK_MIN;

	for (int i = 0; i < c->n_devs; i++)
		if (c->devs[i].v.attr.max_mr_size)
			max = mc_min(max, c->devs[i].v.attr.max_mr_size);
	while (bits < RDMA_CHUNK_MAX && 2ull << bits <= max)
		bits++;
	return bits;
}

static struct mc_node memory_chunk(const struct rdma_ctx *c,
				   const struct rdma_buffer *m, uint32_t i)
{
	const struct mc_node *b = &m->node;
	uint64_t k = (b->addr >> c->chunk_bits) + i / c->n_devs;
	uint64_t from = mc_max(b->addr, k << c->chunk_bits);

	if (m->parts == (uint32_t)c->n_devs)
		return *b;
	return (struct mc_node){ from, mc_min(b->addr + b->len - from,
			mc_rdma_chunk_left(c->chunk_bits, from)) };
}

static struct rdma_buffer *memory_new(const struct rdma_ctx *c,
				      const struct mc_buffer_info *b)
{
	uint64_t chunks = ((b->addr + b->len - 1) >> c->chunk_bits) -
			  (b->addr >> c->chunk_bits) + 1;
	struct rdma_buffer *m = NULL;

	if (b->len <= 1ull << c->chunk_bits)
		chunks = 1;
	if (chunks < UINT32_MAX / VERBS_DEVS)
		m = calloc(1, sizeof(*m) + chunks * c->n_devs *
			   sizeof(m->mr[0]));
	if (!m)
		return NULL;
	m->node = (struct mc_node){ b->addr, b->len };
	m->id = b->id;
	m->parts = chunks * c->n_devs;
	return m;
}

/* ---- why not -------------------------------------------------------- */

static int memory_refused_gpu(const struct memory_job *j,
			      const struct rdma_dev *d, int err)
{
	bool peermem = !access("/sys/module/nvidia_peermem", F_OK);

	return mc_err(-err, "rdma: %s cannot register memory of %s: by "
		      "dma-buf: %s; without: %s", d->v.name,
		      j->info->location, j->no_dmabuf[0] ? j->no_dmabuf :
		      strerror(j->dmabuf_err), peermem ? strerror(err) :
		      "nvidia-peermem is not loaded (modprobe "
		      "nvidia-peermem)");
}

/* Before RDMA pins memory, the kernel counts it against a limit. */
static int memory_refused(const struct memory_job *j,
			  const struct rdma_dev *d, uint64_t len, int err)
{
	struct rlimit lim = { 0 };

	getrlimit(RLIMIT_MEMLOCK, &lim);
	if (j->gpu)
		return memory_refused_gpu(j, d, err);
	if (err == ENOMEM && lim.rlim_cur != RLIM_INFINITY)
		return mc_err(-ENOMEM, "rdma: %s cannot pin %llu bytes: the "
			      "memlock limit is %llu KiB (ulimit -l "
			      "unlimited)", d->v.name, (long long)len,
			      (long long)lim.rlim_cur / 1024);
	if (err == EFAULT)
		return mc_err(-EFAULT, "rdma: %s: not all of the %llu bytes "
			      "are memory that can be written; if it is a "
			      "GPU's, nvidia-peermem is missing", d->v.name,
			      (long long)len);
	return mc_syserr(-err, "rdma: %s cannot register %llu bytes",
			 d->v.name, (long long)len);
}

/* ---- one part ------------------------------------------------------- */

static struct ibv_mr *memory_register(struct memory_job *j,
				      struct rdma_dev *d,
				      const struct mc_node *at)
{
	struct ibv_mr *mr = NULL;

	if (j->dmabuf >= 0) {
		mr = mc_verbs.reg_dmabuf_mr(d->pd, at->addr - j->dmabuf_base,
					    at->len, at->addr, j->dmabuf,
					    j->access);
		if (!mr)
			__atomic_store_n(&j->dmabuf_err, errno,
					 __ATOMIC_RELAXED);
	}
	return mr ? mr : mc_verbs.reg_mr_iova2(d->pd, (void *)at->addr,
					       at->len, at->addr, j->access);
}

/* The chunks at both ends of a part: one, but where a buffer of no more than a
 * chunk's size lies in two. */
static int memory_chunks(const struct memory_job *j, const struct mc_node *at,
			 struct rdma_chunk out[2])
{
	int bits = j->c->chunk_bits;

	out[0] = mc_rdma_chunk(bits, j->m->id, at->addr);
	out[1] = mc_rdma_chunk(bits, j->m->id, at->addr + at->len - 1);
	return out[0].number == out[1].number ? 1 : 2;
}

static int memory_reg_part(struct memory_job *j, uint32_t i)
{
	struct rdma_dev *d = &j->c->devs[i % j->c->n_devs];
	struct mc_node at = memory_chunk(j->c, j->m, i);
	struct rdma_chunk chunks[2];
	int r = 0, n = memory_chunks(j, &at, chunks);
	struct ibv_mr *mr;

	if (__atomic_load_n(&j->err, __ATOMIC_RELAXED))
		return 0;
	mr = j->m->mr[i] = memory_register(j, d, &at);
	if (!mr)
		return memory_refused(j, d, at.len, errno);
	if (j->info->access & MC_REMOTE_RW)
		while (n-- && !r)
			r = mc_rdma_keys_add(&d->keys, chunks[n], mr->rkey);
	return r;
}

static int memory_unreg_part(struct memory_job *j, uint32_t i)
{
	struct rdma_dev *d = &j->c->devs[i % j->c->n_devs];
	struct mc_node at = memory_chunk(j->c, j->m, i);
	struct rdma_chunk chunks[2];
	int r, n = memory_chunks(j, &at, chunks);

	if (!j->m->mr[i])
		return 0;
	while (n--)
		mc_rdma_keys_del(&d->keys, chunks[n]);
	r = mc_verbs.dereg_mr(j->m->mr[i]);
	if (r)
		return mc_syserr(-r, "rdma: %s does not let go of the buffer "
				 "at %#llx", d->v.name, (long long)at.addr);
	j->m->mr[i] = NULL;
	return 0;
}

/* What cannot be had is left to those who will say so. */
static int memory_touch_part(struct memory_job *j, uint32_t i)
{
	uint64_t page = sysconf(_SC_PAGESIZE);
	uint64_t from = j->m->node.addr + i * (uint64_t)MEMORY_TOUCH;
	uint64_t end = mc_min(from + MEMORY_TOUCH,
			      j->m->node.addr + j->m->node.len);

	from &= ~(page - 1);
	(void)madvise((void *)from, end - from, MADV_POPULATE_WRITE);
	return 0;
}

/* ---- all parts ------------------------------------------------------ */

static void memory_work(void *arg)
{
	struct memory_job *j = arg;
	uint32_t i;

	while ((i = __atomic_fetch_add(&j->next, 1, __ATOMIC_RELAXED)) <
	       j->parts) {
		int r = j->part(j, i);

		__atomic_add_fetch(&j->done, 1, __ATOMIC_RELAXED);
		if (!r)
			continue;
		pthread_mutex_lock(&j->lock);
		if (!j->err) {
			mc_copy(j->why, mc_errmsg());
			__atomic_store_n(&j->err, r, __ATOMIC_RELAXED);
		}
		pthread_mutex_unlock(&j->lock);
	}
	pthread_mutex_lock(&j->lock);
	if (!--j->hands)
		pthread_cond_signal(&j->over);
	pthread_mutex_unlock(&j->lock);
}

static void memory_tell(const struct memory_job *j, int s)
{
	uint64_t all = j->m->node.len >> 20;

	mc_log(MC_INFO, "rdma", "%s: %llu of %llu MiB in %d s", j->doing,
	       (long long)(all * __atomic_load_n(&j->done, __ATOMIC_RELAXED) /
			   j->parts), (long long)all, s);
}

/* Locked. */
static void memory_wait(struct memory_job *j)
{
	struct timespec until;
	int s = 0;

	clock_gettime(CLOCK_MONOTONIC, &until);
	while (j->hands) {
		s += MEMORY_TELL_S;
		until.tv_sec += MEMORY_TELL_S;
		while (j->hands && !pthread_cond_timedwait(&j->over, &j->lock,
							   &until))
			;
		if (j->hands)
			memory_tell(j, s);
	}
}

/* 0, or the first error, with its message. */
static int memory_run(struct memory_job *j)
{
	int max = j->m->node.len < MEMORY_LARGE ? 0 :
		  mc_min(j->parts, VERBS_DEVS);
	pthread_condattr_t a;

	pthread_mutex_init(&j->lock, NULL);
	pthread_condattr_init(&a);
	pthread_condattr_setclock(&a, CLOCK_MONOTONIC);
	pthread_cond_init(&j->over, &a);
	pthread_condattr_destroy(&a);
	pthread_mutex_lock(&j->lock);
	while (j->hands < max && !mc_tasks_run(&j->c->tasks, memory_work, j))
		j->hands++;
	if (j->hands) {
		memory_wait(j);
		pthread_mutex_unlock(&j->lock);
	} else {
		j->hands = 1;
		pthread_mutex_unlock(&j->lock);
		memory_work(j);
	}
	pthread_mutex_destroy(&j->lock);
	pthread_cond_destroy(&j->over);
	return j->err ? mc_err(j->err, "%s", j->why) : 0;
}

static int memory_forget(struct rdma_ctx *c, struct rdma_buffer *m)
{
	struct memory_job j = { .c = c, .m = m, .part = memory_unreg_part,
				.parts = m->parts,
				.doing = "unregistering" };

	return memory_run(&j);
}

/* ---- buffers -------------------------------------------------------- */

static int memory_access(const struct rdma_ctx *c, const struct memory_job *j)
{
	int access = IBV_ACCESS_LOCAL_WRITE;

	if (j->info->access & MC_REMOTE_READ)
		access |= IBV_ACCESS_REMOTE_READ;
	if (j->info->access & MC_REMOTE_WRITE)
		access |= IBV_ACCESS_REMOTE_WRITE;
	if (mc_env_number("MC_IB_PCI_RELAXED_ORDERING", 0, 1, 1))
		access |= IBV_ACCESS_RELAXED_ORDERING;
	if (c->on_demand && !j->gpu)
		access |= IBV_ACCESS_ON_DEMAND;
	return access;
}

static void memory_touch(struct rdma_ctx *c, struct rdma_buffer *m)
{
	struct memory_job j = { .c = c, .m = m, .part = memory_touch_part,
				.parts = (m->node.len - 1) / MEMORY_TOUCH + 1,
				.doing = "finding memory" };

	memory_run(&j);
}

/* What is a GPU's is registered by its dma-buf, if it has one. */
static void memory_locate(struct memory_job *j)
{
	const struct mc_buffer_info *b = j->info;

	j->dmabuf = mc_cuda_dmabuf(b->addr, b->len, &j->dmabuf_base);
	j->gpu = j->dmabuf != -ENOENT || !strncmp(b->location, "cuda", 4);
	if (j->dmabuf == -ENOENT)
		mc_copy(j->no_dmabuf, "this process has not loaded "
			"libcuda.so.1, or does not know the address");
	else if (j->dmabuf < 0)
		mc_copy(j->no_dmabuf, mc_errmsg());
	if (j->dmabuf < 0 || mc_verbs.reg_dmabuf_mr)
		return;
	mc_copy(j->no_dmabuf, "libibverbs.so.1 has no ibv_reg_dmabuf_mr: it "
		"is older than rdma-core 34");
	close(j->dmabuf);
	j->dmabuf = -1;
}

static int memory_add(struct rdma_ctx *c, const struct mc_buffer_info *b,
		      struct rdma_buffer *m)
{
	struct memory_job j = { .c = c, .m = m, .part = memory_reg_part,
				.parts = m->parts, .doing = "registering",
				.info = b };
	struct mc_node *clash;
	int r;

	memory_locate(&j);
	j.access = memory_access(c, &j);
	if (b->len >= MEMORY_LARGE && !j.gpu && !c->on_demand)
		memory_touch(c, m);
	r = memory_run(&j);
	if (j.dmabuf >= 0)
		close(j.dmabuf);	/* the devices hold it */
	if (r < 0)
		return r;
	pthread_rwlock_wrlock(&c->memory_lock);
	r = mc_ranges_add(&c->by_addr, &m->node, &clash);
	pthread_rwlock_unlock(&c->memory_lock);
	return r < 0 ? mc_err(r, "out of memory") : 0;
}

static int memory_refuse(struct rdma_ctx *c, const struct mc_buffer_info *b,
			 int r)
{
	if (c->asked || b->gpu)
		return r;
	if (!__atomic_exchange_n(&c->warned, true, __ATOMIC_RELAXED))
		mc_log(MC_WARN, "rdma", "%s; such buffers go over other "
		       "transports", mc_errmsg());
	return 0;
}

int mc_rdma_reg(void *ctx, const struct mc_buffer_info *b, int fd,
		uint64_t offset)
{
	uint64_t start = mc_clock_ns();
	struct rdma_ctx *c = ctx;
	struct rdma_buffer *m = memory_new(c, b);
	char why[MC_WHY_MAX];
	int r;

	(void)fd;
	(void)offset;
	if (!m)
		return mc_err(-ENOMEM, "out of memory");
	r = memory_add(c, b, m);
	if (r < 0) {
		mc_copy(why, mc_errmsg());
		memory_forget(c, m);
		free(m);
		return memory_refuse(c, b, mc_err(r, "%s", why));
	}
	start = mc_clock_ns() - start;
	if (start > MEMORY_TELL_S * 1000 * (uint64_t)MC_MS)
		mc_log(MC_INFO, "rdma", "%llu MiB registered in %llu ms",
		       (long long)b->len >> 20, (long long)(start / MC_MS));
	return 0;
}

int mc_rdma_unreg(void *ctx, const struct mc_buffer_info *b)
{
	struct rdma_ctx *c = ctx;
	struct rdma_buffer *m;
	int r;

	pthread_rwlock_wrlock(&c->memory_lock);
	m = (void *)mc_ranges_find(&c->by_addr, b->addr);
	if (m && m->id == b->id)
		mc_ranges_del(&c->by_addr, &m->node);
	else
		m = NULL;
	/* Pairs with the load in mc_rdma_local()'s callers. */
	__atomic_add_fetch(&c->memory_version, 1, __ATOMIC_RELEASE);
	pthread_rwlock_unlock(&c->memory_lock);
	if (!m)
		return 0;
	r = memory_forget(c, m);
	free(m);
	return r;
}

void mc_rdma_memory_fini(struct rdma_ctx *c)
{
	struct rdma_buffer *m;

	while ((m = (void *)mc_ranges_at(&c->by_addr, 0))) {
		mc_ranges_del(&c->by_addr, &m->node);
		if (memory_forget(c, m) < 0)
			mc_log(MC_WARN, "rdma", "%s", mc_errmsg());
		free(m);
	}
	mc_ranges_fini(&c->by_addr);
	pthread_rwlock_destroy(&c->memory_lock);
}

bool mc_rdma_v1_key(void *ctx, const struct mc_buffer_info *b, int dev,
		    uint32_t *rkey)
{
	struct rdma_ctx *c = ctx;
	struct rdma_buffer *m;
	bool found;

	pthread_rwlock_rdlock(&c->memory_lock);
	m = (void *)mc_ranges_find(&c->by_addr, b->addr);
	found = m && m->id == b->id && m->parts == (uint32_t)c->n_devs;
	if (found)
		*rkey = m->mr[dev]->rkey;
	pthread_rwlock_unlock(&c->memory_lock);
	return found;
}

bool mc_rdma_local(struct rdma_ctx *c, int dev, uint64_t addr,
		   struct rdma_local *out)
{
	struct rdma_buffer *m;

	pthread_rwlock_rdlock(&c->memory_lock);
	m = (void *)mc_ranges_find(&c->by_addr, addr);
	if (m) {
		uint64_t k = (addr >> c->chunk_bits) -
			     (m->node.addr >> c->chunk_bits);
		/* A buffer of one part has no second one. */
		uint32_t part = (k * c->n_devs + dev) % m->parts;
		struct mc_node at = memory_chunk(c, m, part);

		*out = (struct rdma_local){
			.addr = at.addr, .len = at.len,
			.lkey = m->mr[part]->lkey,
			.version = __atomic_load_n(&c->memory_version,
						   __ATOMIC_RELAXED),
		};
	}
	pthread_rwlock_unlock(&c->memory_lock);
	return m;
}
