/*
 * buffers.c - the memory an engine has registered: found by address in O(log
 * n), told to transports as it comes and goes, described to peers as changes
 * since the version they know.
 */
#include "engine.h"
#include "describe.h"

#include "../base/memfd.h"
#include "../topology/topology.h"
#include "../transport/cuda.h"

#include <sys/mman.h>
#include <unistd.h>

struct buffer *buffer_use(struct mc_engine *e, uint64_t addr, uint64_t len)
{
	struct buffer *b;

	pthread_rwlock_rdlock(&e->buffers.lock);
	b = (void *)mc_ranges_find(&e->buffers.by_addr, addr);
	if (b && len <= b->node.len - (addr - b->node.addr))
		__atomic_add_fetch(&b->uses, 1, __ATOMIC_ACQ_REL);
	else
		b = NULL;
	pthread_rwlock_unlock(&e->buffers.lock);
	return b;
}

void buffer_drop(struct buffer *b)
{
	if (b)
		__atomic_sub_fetch(&b->uses, 1, __ATOMIC_ACQ_REL);
}

/* Transports that do not reach it are not told. */
static bool buffer_suits(const struct buffer *b,
			 const struct engine_transport *tr)
{
	return !b->info.gpu || tr->t->gpu;
}

static int buffer_unreg(struct mc_engine *e, struct buffer *b, int i)
{
	const struct engine_transport *tr = &e->tr[i];

	return tr->t->unreg && buffer_suits(b, tr) ?
	       tr->t->unreg(tr->ctx, &b->info) : 0;
}

static int buffer_reg(struct mc_engine *e, struct buffer *b, int i)
{
	const struct engine_transport *tr = &e->tr[i];

	return tr->t->reg && buffer_suits(b, tr) ?
	       tr->t->reg(tr->ctx, &b->info, b->fd, 0) : 0;
}

/* Tell every transport; those told are untold if one refuses. */
static int buffer_reg_all(struct mc_engine *e, struct buffer *b)
{
	int i, r = 0, suit = 0;

	for (i = 0; i < e->n_tr; i++) {
		r = buffer_reg(e, b, i);
		if (r < 0)
			break;
		suit += buffer_suits(b, &e->tr[i]);
	}
	if (!r && !suit)
		r = mc_err(-EOPNOTSUPP, "%s: memory of a GPU is moved by rdma, "
			   "which is not here", b->info.location);
	while (r < 0 && i-- > 0)
		buffer_unreg(e, b, i);
	return r;
}

static int buffer_insert(struct mc_engine *e, struct buffer *b)
{
	struct buffers *t = &e->buffers;
	struct mc_node *clash;
	int r;

	pthread_rwlock_wrlock(&t->lock);
	if (t->last_id == UINT32_MAX) {
		pthread_rwlock_unlock(&t->lock);
		return mc_err(-ENOSPC, "an engine registers at most 2^32-1 "
			      "buffers in its life");
	}
	r = mc_ranges_add(&t->by_addr, &b->node, &clash);
	if (!r)
		b->info.id = ++t->last_id;
	pthread_rwlock_unlock(&t->lock);
	if (r == -EEXIST)
		return mc_err(r, "buffer %#llx+%llu overlaps the registered "
			      "%#llx+%llu", (long long)b->node.addr,
			      (long long)b->node.len, (long long)clash->addr,
			      (long long)clash->len);
	return r < 0 ? mc_err(r, "out of memory") : 0;
}

/* From here on peers are told of it. */
static void buffer_show(struct mc_engine *e, struct buffer *b)
{
	pthread_rwlock_wrlock(&e->buffers.lock);
	b->version = ++e->buffers.version;
	pthread_rwlock_unlock(&e->buffers.lock);
}

static void buffer_remove(struct mc_engine *e, struct buffer *b)
{
	struct buffers *t = &e->buffers;
	uint64_t at;

	mc_ranges_del(&t->by_addr, &b->node);
	at = t->n_gone++ % ENGINE_GONE;
	t->gone[at].id = b->info.id;
	t->gone[at].version = ++t->version;
}

/* Of one transport all but those whose device is the second choice there; if
 * it has no other, all. Their bits begin at that of its first rail. */
static uint64_t buffer_near_by(const struct mc_engine *e, int place,
			       const struct engine_transport *tr)
{
	uint64_t near = 0, all = (1ull << tr->n_devs) - 1;

	for (int i = 0; i < tr->n_devs; i++)
		if (mc_matrix_rank(e->matrix, place, tr->devs[i]) < 1)
			near |= 1ull << i;
	return near ? near : all;
}

static uint32_t buffer_near(const struct mc_engine *e, const char *location)
{
	int place = mc_matrix_place(e->matrix, location), rail = 0;
	uint64_t near = 0;

	for (int i = 0; i < e->n_tr && rail < ENGINE_RAILS; i++) {
		near |= buffer_near_by(e, place, &e->tr[i]) << rail;
		rail += e->tr[i].n_devs;
	}
	return near;
}

/* Where it is: as its owner says, or the kernel; if that does not know, any
 * rail will do. */
static void buffer_locate(const struct mc_engine *e, struct buffer *b,
			  const char *location)
{
	int node = 0, gpu = mc_cuda_device(b->node.addr);

	b->info.gpu = gpu >= 0;
	if (location) {
		mc_copy(b->info.location, location);
	} else if (gpu >= 0) {
		snprintf(b->info.location, sizeof(b->info.location), "cuda:%d",
			 gpu);
	} else {
		node = mc_topology_memory_node((void *)b->node.addr);
		snprintf(b->info.location, sizeof(b->info.location), "cpu:%d",
			 mc_max(node, 0));
	}
	b->near = node < 0 ? UINT32_MAX : buffer_near(e, b->info.location);
}

static int buffer_add(struct mc_engine *e, void *addr, uint64_t len,
		      const char *location, unsigned access, int fd,
		      uint64_t mapped)
{
	struct buffer *b;
	int r;

	if (!addr || !len || (uint64_t)addr + len < len)
		return mc_err(-EINVAL, "a buffer has an address and a length, "
			      "not %p+%llu", addr, (long long)len);
	if (access > MC_REMOTE_RW)
		return mc_err(-EINVAL, "unknown access flags %#x", access);
	b = calloc(1, sizeof(*b));
	if (!b)
		return mc_err(-ENOMEM, "out of memory");
	b->node = (struct mc_node){ (uint64_t)addr, len };
	b->info.addr = (uint64_t)addr;
	b->info.len = len;
	b->info.access = access;
	b->fd = fd;
	b->mapped = mapped;
	buffer_locate(e, b, location);
	r = buffer_insert(e, b);
	if (r < 0) {
		free(b);
		return r;
	}
	r = buffer_reg_all(e, b);
	if (r < 0) {
		pthread_rwlock_wrlock(&e->buffers.lock);
		buffer_remove(e, b);
		pthread_rwlock_unlock(&e->buffers.lock);
		free(b);
		return r;
	}
	buffer_show(e, b);
	count(&e->stats.buffers, 1);
	publish_changed(e);
	return 0;
}

int mc_buffer_reg(struct mc_engine *e, void *addr, uint64_t len,
		  const char *location, unsigned access)
{
	int r = engine_check(e);

	return r < 0 ? r : buffer_add(e, addr, len, location, access, -1, 0);
}

int mc_buffer_alloc(struct mc_engine *e, uint64_t len, unsigned access,
		    unsigned flags, int node, void **out)
{
	uint64_t mapped;
	void *addr;
	char location[16];
	int fd, r = engine_check(e);

	if (r < 0)
		return r;
	if (!len)
		return mc_err(-EINVAL, "a buffer has a length");
	r = mc_memfd_alloc(len, flags, node, &addr, &mapped, &fd);
	if (r < 0)
		return r;
	snprintf(location, sizeof(location), "cpu:%d", node);
	r = buffer_add(e, addr, len, node < 0 ? NULL : location, access, fd,
		       mapped);
	if (r < 0)
		mc_memfd_free(addr, mapped, fd);
	else
		*out = addr;
	return r;
}

/* Out of the table, if no own request holds it: then no peer finds it. */
static int buffer_take(struct mc_engine *e, void *addr, bool ours,
		       struct buffer **out)
{
	struct buffer *b;
	int uses, r = 0;

	pthread_rwlock_wrlock(&e->buffers.lock);
	b = (void *)mc_ranges_find(&e->buffers.by_addr, (uint64_t)addr);
	uses = b ? __atomic_load_n(&b->uses, __ATOMIC_ACQUIRE) : 0;
	if (!b || b->node.addr != (uint64_t)addr)
		r = mc_err(-ENOENT, "no buffer begins at %p", addr);
	else if (!ours != !b->mapped)
		r = mc_err(-EINVAL, "%p was %s: use mc_buffer_%s()", addr,
			   ours ? "registered" : "allocated",
			   ours ? "unreg" : "free");
	else if (uses)
		r = mc_err(-EBUSY, "%p is in use by %d requests of this "
			   "engine: wait for them or cancel them", addr, uses);
	else
		buffer_remove(e, b);
	pthread_rwlock_unlock(&e->buffers.lock);
	*out = b;
	return r;
}

/* No peer may touch it from here on. -EBUSY: one may, and all is as it was. */
static int buffer_quiesce(struct mc_engine *e, struct buffer *b)
{
	struct mc_node *clash;
	int i, r = 0;

	if (e->server)
		mc_server_revoke(e->server, b->node.addr, b->node.len);
	if (e->v1)
		mc_v1_server_revoke(e->v1, b->node.addr, b->node.len);
	for (i = 0; i < e->n_tr && !r; i++)
		r = buffer_unreg(e, b, i);
	if (!r)
		return 0;
	/* The one that refused has it still; those before it get it back. */
	for (i -= 2; i >= 0; i--)
		buffer_reg(e, b, i);
	pthread_rwlock_wrlock(&e->buffers.lock);
	if (!mc_ranges_add(&e->buffers.by_addr, &b->node, &clash))
		b->version = ++e->buffers.version;
	pthread_rwlock_unlock(&e->buffers.lock);
	return r;
}

static int buffer_del(struct mc_engine *e, void *addr, bool ours)
{
	struct buffer *b = NULL;
	int r = engine_check(e);

	if (!r)
		r = buffer_take(e, addr, ours, &b);
	if (!r)
		r = buffer_quiesce(e, b);
	if (r < 0)
		return r;
	if (ours) {
		/* Peers may still map it, and would keep its pages. */
		mc_memfd_discard(b->fd, b->mapped);
		mc_memfd_free(addr, b->mapped, b->fd);
	}
	free(b);
	count(&e->stats.buffers, -1);
	publish_changed(e);
	return 0;
}

int mc_buffer_unreg(struct mc_engine *e, void *addr)
{
	return buffer_del(e, addr, false);
}

int mc_buffer_free(struct mc_engine *e, void *addr)
{
	return buffer_del(e, addr, true);
}

int mc_buffer_list(struct mc_engine *e, uint64_t skip,
		   struct mc_buffer_info *out, int max)
{
	int n = 0, r = engine_check(e);

	if (r < 0)
		return r;
	pthread_rwlock_rdlock(&e->buffers.lock);
	for (; n < max; n++) {
		struct buffer *b;

		b = (void *)mc_ranges_at(&e->buffers.by_addr, skip + n);
		if (!b)
			break;
		out[n] = b->info;
	}
	pthread_rwlock_unlock(&e->buffers.lock);
	return n;
}

/* In a child made by fork() the memory is shared with the parent, and only
 * our mapping of it goes. */
void buffers_fini(struct mc_engine *e, bool in_child)
{
	struct buffer *b;

	while ((b = (void *)mc_ranges_at(&e->buffers.by_addr, 0))) {
		mc_ranges_del(&e->buffers.by_addr, &b->node);
		if (b->mapped)
			mc_memfd_free((void *)b->node.addr, b->mapped, b->fd);
		free(b);
	}
	mc_ranges_fini(&e->buffers.by_addr);
	if (!in_child)
		pthread_rwlock_destroy(&e->buffers.lock);
}

/* ---- as peers see them ---------------------------------------------- */

int mc_host_admit(struct mc_host *h, enum mc_op op, struct mc_piece *p,
		  uint32_t n)
{
	unsigned need = op == MC_READ ? MC_REMOTE_READ : MC_REMOTE_WRITE;
	struct mc_engine *e = (void *)h;
	struct buffer *b = NULL;
	int r = 0;

	pthread_rwlock_rdlock(&e->buffers.lock);
	for (uint32_t i = 0; i < n && !r; i++) {
		if (!b || p[i].remote - b->node.addr >= b->node.len)
			b = (void *)mc_ranges_find(&e->buffers.by_addr,
						   p[i].remote);
		if (!b)
			r = -ESTALE;
		else if (b->info.id != p[i].id)
			r = -ESTALE;
		else if (p[i].len > b->node.len - (p[i].remote - b->node.addr))
			r = -EFAULT;
		else if (!(b->info.access & need))
			r = -EACCES;
		else if (b->info.gpu)
			r = -EOPNOTSUPP;
		p[i].local = (void *)p[i].remote;
	}
	pthread_rwlock_unlock(&e->buffers.lock);
	if (r < 0)
		count(&e->stats.refused, 1);
	return r;
}

int mc_host_admit_range(struct mc_host *h, enum mc_op op, uint64_t addr,
			uint64_t len)
{
	unsigned need = op == MC_READ ? MC_REMOTE_READ : MC_REMOTE_WRITE;
	struct mc_engine *e = (void *)h;
	struct buffer *b;
	int r = 0;

	pthread_rwlock_rdlock(&e->buffers.lock);
	b = (void *)mc_ranges_find(&e->buffers.by_addr, addr);
	if (!b || !len || len > b->node.len - (addr - b->node.addr))
		r = -EFAULT;
	else if (!(b->info.access & need))
		r = -EACCES;
	else if (b->info.gpu)
		r = -EOPNOTSUPP;
	pthread_rwlock_unlock(&e->buffers.lock);
	if (r < 0)
		count(&e->stats.refused, 1);
	return r;
}

int buffers_shared(struct mc_engine *e, struct mc_buffer_info **out,
		   uint64_t *n)
{
	struct mc_ranges *t = &e->buffers.by_addr;
	struct buffer *b;

	*n = 0;
	pthread_rwlock_rdlock(&e->buffers.lock);
	*out = malloc((t->count + 1) * sizeof(**out));
	for (uint32_t k = 0; *out && k < t->n; k++)
		for (uint32_t i = 0; (b = (void *)mc_ranges_in(t, k, i)); i++)
			if (b->version && b->info.access)
				(*out)[(*n)++] = b->info;
	pthread_rwlock_unlock(&e->buffers.lock);
	return *out ? 0 : mc_err(-ENOMEM, "out of memory");
}

/* All of it under the lock: the answer is one version. */
int buffers_describe(struct mc_engine *e, uint64_t since, void **out,
		     uint32_t *len)
{
	struct buffers *t = &e->buffers;
	char *matrix = e->matrix ? mc_matrix_json(e->matrix) : NULL;
	struct describe_head *head;
	struct mc_buffer_info *add;
	uint64_t first;
	uint32_t *del, matrix_len = matrix ? strlen(matrix) : 0;

	if (e->matrix && !matrix)
		return -ENOMEM;
	pthread_rwlock_rdlock(&t->lock);
	first = t->n_gone > ENGINE_GONE ? t->n_gone - ENGINE_GONE : 0;
	/* Removals too old to be remembered: tell all. */
	if (since > t->version ||
	    (first && since < t->gone[first % ENGINE_GONE].version))
		since = 0;
	head = malloc(sizeof(*head) + t->by_addr.count * sizeof(*add) +
		      ENGINE_GONE * sizeof(*del) + e->addrs_len + matrix_len);
	if (!head) {
		pthread_rwlock_unlock(&t->lock);
		free(matrix);
		return mc_err(-ENOMEM, "out of memory");
	}
	*head = (struct describe_head){ .version = t->version,
					.since = since,
					.addrs_len = e->addrs_len };
	add = (void *)(head + 1);
	for (uint32_t k = 0; k < t->by_addr.n; k++)
		for (uint32_t i = 0; ; i++) {
			struct buffer *b = (void *)mc_ranges_in(&t->by_addr,
								k, i);
			if (!b)
				break;
			if (b->version > since && b->info.access)
				add[head->n_add++] = b->info;
		}
	del = (void *)(add + head->n_add);
	for (uint64_t i = first; since && i < t->n_gone; i++)
		if (t->gone[i % ENGINE_GONE].version > since)
			del[head->n_del++] = t->gone[i % ENGINE_GONE].id;
	pthread_rwlock_unlock(&t->lock);
	memcpy(del + head->n_del, e->addrs, e->addrs_len);
	*out = head;
	*len = sizeof(*head) + head->n_add * sizeof(*add) +
	       head->n_del * sizeof(*del) + e->addrs_len;
	if (!since && matrix) {
		head->matrix_len = matrix_len;
		memcpy((char *)head + *len, matrix, matrix_len);
		*len += matrix_len;
	}
	free(matrix);
	return 0;
}
