/*
 * rdma_memory.c - buffers, each registered once with every device, so that
 * nothing has to be registered when a transfer begins.
 *
 * Where rdma was not asked for by name, memory that cannot be registered is no
 * error: the buffer is then moved by other transports.
 */
#include "rdma.h"

#include "../base/clock.h"
#include "../base/err.h"
#include "../base/util.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/resource.h>

struct rdma_buffer {
	struct mc_node node;
	uint32_t id;
	struct ibv_mr *mr[VERBS_DEVS];
};

enum { MEMORY_SLOW_MS = 2000 };

/* Before RDMA pins memory, the kernel counts it against a limit. */
static int memory_refused(const struct rdma_dev *d, uint64_t len, int err)
{
	struct rlimit lim = { 0 };

	getrlimit(RLIMIT_MEMLOCK, &lim);
	if (err == ENOMEM && lim.rlim_cur != RLIM_INFINITY)
		return mc_err(-ENOMEM, "rdma: %s cannot pin %llu bytes: the "
			      "memlock limit is %llu KiB (ulimit -l "
			      "unlimited)", d->v.name, (long long)len,
			      (long long)lim.rlim_cur / 1024);
	if (len > d->v.attr.max_mr_size)
		return mc_err(-err, "rdma: %s registers at most %llu bytes "
			      "at a time, not %llu", d->v.name,
			      (long long)d->v.attr.max_mr_size,
			      (long long)len);
	if (err == EFAULT)
		return mc_err(-EFAULT, "rdma: %s: not all of the %llu bytes "
			      "are memory that can be written; if it is a "
			      "GPU's, nvidia-peermem is missing", d->v.name,
			      (long long)len);
	return mc_syserr(-err, "rdma: %s cannot register %llu bytes",
			 d->v.name, (long long)len);
}

static int memory_access(const struct mc_buffer_info *b)
{
	int access = IBV_ACCESS_LOCAL_WRITE;

	if (b->access & MC_REMOTE_READ)
		access |= IBV_ACCESS_REMOTE_READ;
	if (b->access & MC_REMOTE_WRITE)
		access |= IBV_ACCESS_REMOTE_WRITE;
	if (mc_verbs_env("MC_IB_PCI_RELAXED_ORDERING", 0, 1, 1))
		access |= IBV_ACCESS_RELAXED_ORDERING;
	return access;
}

static int memory_reg_one(struct rdma_dev *d, const struct mc_buffer_info *b,
			  struct ibv_mr **out)
{
	int r = 0;

	*out = mc_verbs.reg_mr_iova2(d->pd, (void *)b->addr, b->len, b->addr,
				     memory_access(b));
	if (!*out)
		return memory_refused(d, b->len, errno);
	if (b->access & MC_REMOTE_RW)
		r = mc_rdma_keys_add(&d->keys, b->id, (*out)->rkey);
	return r;
}

static int memory_forget(struct rdma_ctx *c, struct rdma_buffer *m)
{
	int r = 0;

	for (int i = 0; i < c->n_devs; i++) {
		if (!m->mr[i])
			continue;
		mc_rdma_keys_del(&c->devs[i].keys, m->id);
		r = mc_verbs.dereg_mr(m->mr[i]);
		if (r)
			return mc_syserr(-r, "rdma: %s does not let go of the "
					 "buffer at %#llx", c->devs[i].v.name,
					 (long long)m->node.addr);
		m->mr[i] = NULL;
	}
	return 0;
}

static int memory_refuse(struct rdma_ctx *c, int r)
{
	if (c->asked)
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
	struct rdma_buffer *m = calloc(1, sizeof(*m));
	struct mc_node *clash;
	int r = 0;

	(void)fd;
	(void)offset;
	if (!m)
		return mc_err(-ENOMEM, "out of memory");
	m->node = (struct mc_node){ b->addr, b->len };
	m->id = b->id;
	for (int i = 0; i < c->n_devs && !r; i++)
		r = memory_reg_one(&c->devs[i], b, &m->mr[i]);
	if (!r) {
		pthread_rwlock_wrlock(&c->memory_lock);
		r = mc_ranges_add(&c->by_addr, &m->node, &clash);
		pthread_rwlock_unlock(&c->memory_lock);
		if (r < 0)
			mc_err(r, "out of memory");
	}
	if (r < 0) {
		char why[MC_WHY_MAX];

		mc_copy(why, mc_errmsg());
		memory_forget(c, m);
		free(m);
		return memory_refuse(c, mc_err(r, "%s", why));
	}
	start = (mc_clock_ns() - start) / MC_MS;
	if (start > MEMORY_SLOW_MS)
		mc_log(MC_INFO, "rdma", "%llu bytes registered in %llu ms",
		       (long long)b->len, (long long)start);
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
	found = m && m->id == b->id;
	if (found)
		*rkey = m->mr[dev]->rkey;
	pthread_rwlock_unlock(&c->memory_lock);
	return found;
}

bool mc_rdma_local(struct rdma_ctx *c, int dev, uint64_t addr, uint64_t len,
		   struct rdma_local *out)
{
	struct rdma_buffer *m;
	bool found;

	pthread_rwlock_rdlock(&c->memory_lock);
	m = (void *)mc_ranges_find(&c->by_addr, addr);
	found = m && len <= m->node.len - (addr - m->node.addr);
	if (found)
		*out = (struct rdma_local){
			.addr = m->node.addr, .len = m->node.len,
			.lkey = m->mr[dev]->lkey,
			.version = __atomic_load_n(&c->memory_version,
						   __ATOMIC_RELAXED),
		};
	pthread_rwlock_unlock(&c->memory_lock);
	return found;
}
