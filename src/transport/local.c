/*
 * local.c - the peer is this engine itself: memory to memory, by the thread
 * that asks. A buffer is valid as long as its id is in the table; unreg() takes
 * it out and waits for those who are copying.
 */
#include "host.h"
#include "shm_bytes.h"
#include "shm_ids.h"
#include "shm_slots.h"

#include "../base/clock.h"
#include "../base/err.h"
#include "../base/util.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { LOCAL_WAIT_MS = 1000 };

struct local_ctx {
	struct mc_host *host;
	pthread_mutex_t lock;		/* of changes to the table */
	struct mc_ids ids;
	struct mc_slots slots;
};

struct local_path {
	struct mc_path base;
	struct local_ctx *local;
	uint64_t kept;			/* as bytes_kept() */
	uint32_t stopped;		/* atomic */
};

static int local_open(void **ctx, struct mc_host *host,
		      const struct mc_options *opts)
{
	struct local_ctx *l = aligned_alloc(64, sizeof(*l));

	(void)opts;
	if (!l)
		return mc_err(-ENOMEM, "local: no memory");
	memset(l, 0, sizeof(*l));
	l->host = host;
	pthread_mutex_init(&l->lock, NULL);
	*ctx = l;
	return 0;
}

static void local_close(void *ctx)
{
	struct local_ctx *l = ctx;
	uint32_t at = 0;
	void *b;

	while ((b = mc_ids_next(&l->ids, &at)))
		free(b);
	mc_ids_fini(&l->ids);
	pthread_mutex_destroy(&l->lock);
	free(l);
}

static int local_reg(void *ctx, const struct mc_buffer_info *info, int fd,
		     uint64_t offset)
{
	struct local_ctx *l = ctx;
	struct mc_buffer_info *b = malloc(sizeof(*b));
	void *retired = NULL;
	int r;

	(void)fd;
	(void)offset;
	if (!b)
		return mc_err(-ENOMEM, "local: no memory for a buffer");
	*b = *info;
	pthread_mutex_lock(&l->lock);
	r = mc_ids_add(&l->ids, b->id, b, &retired);
	if (retired)
		mc_slots_drain(&l->slots, UINT64_MAX);
	free(retired);
	pthread_mutex_unlock(&l->lock);
	if (r < 0)
		free(b);
	return r;
}

static int local_unreg(void *ctx, const struct mc_buffer_info *info)
{
	struct local_ctx *l = ctx;
	uint64_t until = mc_clock_ns() + LOCAL_WAIT_MS * (uint64_t)MC_MS;
	void *b, *retired = NULL;
	int r = 0;

	pthread_mutex_lock(&l->lock);
	b = mc_ids_del(&l->ids, info->id);
	if (b && !mc_slots_drain(&l->slots, until)) {
		r = mc_err(-EBUSY, "local: a thread of this process is "
			   "stopped in the middle of a copy");
		/* Its place is still there: no new table, no failure. */
		mc_ids_add(&l->ids, info->id, b, &retired);
		b = NULL;
	}
	pthread_mutex_unlock(&l->lock);
	free(b);
	return r;
}

static int local_connect(void *ctx, const struct mc_peer *peer, int dev,
			 uint64_t deadline_ns, struct mc_path **out)
{
	struct local_ctx *l = ctx;
	struct local_path *p;

	(void)dev;
	(void)deadline_ns;
	if (peer->epoch != mc_host_epoch(l->host))
		return mc_err(-EOPNOTSUPP, "local: %s is another engine",
			      peer->name);
	p = calloc(1, sizeof(*p));
	if (!p)
		return mc_err(-ENOMEM, "local: no memory for a path");
	p->local = l;
	p->kept = bytes_kept();
	p->base.fd = -1;
	pthread_mutex_init(&p->base.lock, NULL);
	mc_copy(p->base.remote_dev, "memory");
	*out = &p->base;
	return 0;
}

static void local_abort(struct mc_path *path, uint64_t deadline_ns)
{
	struct local_path *p = mc_container_of(path, struct local_path, base);

	__atomic_store_n(&p->stopped, 1, __ATOMIC_SEQ_CST);
	mc_slots_drain(&p->local->slots, deadline_ns);
}

static void local_disconnect(struct mc_path *path)
{
	struct local_path *p = mc_container_of(path, struct local_path, base);

	local_abort(path, UINT64_MAX);
	pthread_mutex_destroy(&path->lock);
	free(p);
}

static int local_check(const struct mc_buffer_info *b, enum mc_op op,
		       const struct mc_piece *pc)
{
	uint64_t at;

	if (!b)
		return mc_err(-ESTALE, "local: buffer %u has gone", pc->id);
	at = pc->remote - b->addr;
	if (at > b->len || pc->len > b->len - at)
		return mc_err(-EFAULT, "local: %u bytes at 0x%llx are not "
			      "inside buffer %u", pc->len,
			      (unsigned long long)pc->remote, pc->id);
	if (!(b->access & (op == MC_READ ? MC_REMOTE_READ : MC_REMOTE_WRITE)))
		return mc_err(-EACCES, "local: buffer %u does not admit a %s",
			      pc->id, op == MC_READ ? "read" : "write");
	return 0;
}

/* At most a window of bytes. It is one address space: the ends may overlap. */
static void local_move(enum mc_op op, const struct mc_piece *pc, uint64_t off,
		       uint64_t len, bool stream)
{
	uint8_t *near = (uint8_t *)pc->local + off;
	uint8_t *far = (uint8_t *)(uintptr_t)pc->remote + off;
	uint8_t *dst = op == MC_WRITE ? far : near;
	uint8_t *src = op == MC_WRITE ? near : far;

	if (stream && (dst + len <= src || src + len <= dst)) {
		bytes_stream(dst, src, len);
		bytes_fence();
	} else {
		memmove(dst, src, len);
	}
}

static int local_stopped(const struct local_path *p)
{
	if (!__atomic_load_n(&p->stopped, __ATOMIC_SEQ_CST))
		return 0;
	return mc_err(-ESHUTDOWN, "local: the path was closed");
}

static int local_copy(struct mc_path *path, enum mc_op op,
		      const struct mc_piece *pieces, uint32_t n)
{
	struct local_path *p = mc_container_of(path, struct local_path, base);
	struct local_ctx *l = p->local;
	struct mc_slot *slot = &l->slots.slot[mc_slots_enter(&l->slots)];
	uint64_t room = MC_SLOT_BYTES, off = 0;
	uint32_t stream = bytes_from(pieces, n, p->kept);
	int r = local_stopped(p);

	for (uint32_t i = 0; i < n && !r; ) {
		const struct mc_piece *pc = &pieces[i];
		uint64_t len = mc_min(pc->len - off, room);

		r = local_check(mc_ids_find(&l->ids, pc->id), op, pc);
		if (r < 0)
			break;
		local_move(op, pc, off, len, pc->len >= stream);
		off += len;
		room -= len;
		if (off == pc->len) {
			off = 0;
			i++;
		}
		if (!room) {
			mc_slot_step(slot);
			room = MC_SLOT_BYTES;
			r = local_stopped(p);
		}
	}
	mc_slot_leave(slot);
	return r;
}

const struct mc_transport mc_local_transport = {
	.name = "local",
	.open = local_open,
	.close = local_close,
	.reg = local_reg,
	.unreg = local_unreg,
	.connect = local_connect,
	.abort = local_abort,
	.disconnect = local_disconnect,
	.copy = local_copy,
};
