/*
 * shm_path.c - copying to and from another engine of this host, by the thread
 * that asks: memory that the peer allocated is mapped here, other memory is
 * reached by cma.h.
 *
 * What decides if a byte may be moved is read from the peer's control region
 * inside a window (shm_slots.h): the attachment when a window begins, the
 * buffer before each copy. The peer, having made either invalid, waits for the
 * windows that were open.
 */
#include "shm_bytes.h"
#include "shm_path.h"

#include "../base/clock.h"
#include "../base/memfd.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum {
	SHM_FAR_BYTES = 4 << 20,	/* in one system call and window */
	SHM_LOOK_AHEAD = 256,		/* pieces, for buffers to ask for */
};

/* One call of copy(). */
struct shm_copying {
	struct shm_path *p;
	enum mc_op op;
	int slot;
	uint32_t stream;		/* pieces that are so long */
	uint64_t room;			/* left of the window, */
	uint64_t window;		/* the so many-th of this call */
	bool streamed;
};

/* ---- windows -------------------------------------------------------- */

/* At most once per tick of the kernel: a peer that was killed says nothing in
 * its control region. */
static bool shm_alive(struct shm_path *p)
{
	uint64_t now = mc_clock_tick_ns();

	if (__atomic_load_n(&p->looked_ns, __ATOMIC_RELAXED) != now) {
		__atomic_store_n(&p->looked_ns, now, __ATOMIC_RELAXED);
		if (!mc_cma_alive(p->pidfd))
			__atomic_store_n(&p->dead, 1, __ATOMIC_RELAXED);
	}
	return !__atomic_load_n(&p->dead, __ATOMIC_RELAXED);
}

/* Why nothing may be copied. */
static int shm_down(struct shm_path *p)
{
	const char *name = p->peer.name;

	if (__atomic_load_n(&p->stopped, __ATOMIC_RELAXED))
		return mc_err(-ESHUTDOWN, "shm: %s: the path was closed", name);
	if (__atomic_load_n(&p->dead, __ATOMIC_RELAXED))
		return mc_err(-EHOSTDOWN, "shm: %s: its process has ended",
			      name);
	if (!__atomic_load_n(&p->control->epoch, __ATOMIC_RELAXED))
		return mc_err(-EHOSTDOWN, "shm: %s: its engine was closed",
			      name);
	return mc_err(-EHOSTDOWN, "shm: %s: it no longer knows us: the "
		      "connection broke", name);
}

static bool shm_admitted(struct shm_path *p)
{
	/* Pairs with the stores in shm_close() and mc_shm_gone(). */
	return __atomic_load_n(&p->control->tokens[p->index],
			       __ATOMIC_SEQ_CST) == p->token &&
	       !__atomic_load_n(&p->stopped, __ATOMIC_SEQ_CST) && shm_alive(p);
}

static void shm_leave(struct shm_copying *c)
{
	struct mc_slot *own = &c->p->slots.slot[c->slot];
	uint64_t seq = __atomic_load_n(&own->seq, __ATOMIC_RELAXED);

	if (c->streamed)
		bytes_fence();
	__atomic_store_n(&c->p->shared->slot[c->slot].seq, seq + 1,
			 __ATOMIC_RELEASE);
	mc_slot_leave(own);
}

static int shm_enter(struct shm_copying *c)
{
	struct shm_path *p = c->p;

	c->slot = mc_slots_enter(&p->slots);
	c->room = MC_SLOT_BYTES;
	c->window++;
	/* Pairs with the loads of the peer that waits for us. */
	__atomic_store_n(&p->shared->slot[c->slot].seq,
			 __atomic_load_n(&p->slots.slot[c->slot].seq,
					 __ATOMIC_RELAXED), __ATOMIC_SEQ_CST);
	if (shm_admitted(p))
		return 0;
	shm_leave(c);
	return shm_down(p);
}

/* Leave and enter; on error it is still inside. */
static int shm_step(struct shm_copying *c)
{
	struct mc_slot *own = &c->p->slots.slot[c->slot];

	if (c->streamed)
		bytes_fence();
	mc_slot_step(own);
	__atomic_store_n(&c->p->shared->slot[c->slot].seq,
			 __atomic_load_n(&own->seq, __ATOMIC_RELAXED),
			 __ATOMIC_SEQ_CST);
	c->room = MC_SLOT_BYTES;
	c->window++;
	return shm_admitted(c->p) ? 0 : shm_down(c->p);
}

/* ---- pieces --------------------------------------------------------- */

static int shm_stale(const struct shm_path *p, uint32_t id)
{
	return mc_err(-ESTALE, "shm: %s: buffer %u has gone", p->peer.name, id);
}

static bool shm_fits(const struct shm_map *m, enum mc_op op,
		     const struct mc_piece *pc)
{
	uint64_t at = pc->remote - m->addr;

	return at <= m->len && pc->len <= m->len - at &&
	       m->access & (op == MC_READ ? MC_REMOTE_READ : MC_REMOTE_WRITE);
}

static int shm_misfit(const struct shm_path *p, enum mc_op op,
		      const struct mc_piece *pc, const struct shm_map *m)
{
	uint64_t at = pc->remote - m->addr;

	if (at > m->len || pc->len > m->len - at)
		return mc_err(-EFAULT, "shm: %s: %u bytes at 0x%llx are not "
			      "inside buffer %u", p->peer.name, pc->len,
			      (unsigned long long)pc->remote, m->id);
	return mc_err(-EACCES, "shm: %s: buffer %u does not admit a %s",
		      p->peer.name, m->id, op == MC_READ ? "read" : "write");
}

/* Before the first write to a part of a mapping, read of it: then the kernel
 * maps the pages around as well, those that are there, where a write would
 * bring in its own page only. */
static void shm_touch(struct shm_map *m, const uint8_t *at, uint64_t len)
{
	uintptr_t first = (uintptr_t)m->mem / SHM_AROUND;
	uintptr_t k = (uintptr_t)at / SHM_AROUND;
	uintptr_t end = ((uintptr_t)at + len - 1) / SHM_AROUND;

	for (; k <= end; k++) {
		uint8_t *seen = &m->seen[k - first];

		if (__atomic_load_n(seen, __ATOMIC_RELAXED))
			continue;
		(void)*(const volatile uint8_t *)
			mc_max(at, (const uint8_t *)(k * SHM_AROUND));
		__atomic_store_n(seen, 1, __ATOMIC_RELAXED);
	}
}

/* What fits into the window of a piece from @off on; returns its length. */
static int64_t shm_move(struct shm_copying *c, struct shm_map *m,
			const struct mc_piece *pc, uint32_t off)
{
	uint8_t *far = m->mem + (pc->remote - m->addr) + off;
	uint8_t *near = (uint8_t *)pc->local + off;
	uint64_t len = mc_min(pc->len - off, c->room);
	void *dst = c->op == MC_WRITE ? far : near;
	const void *src = c->op == MC_WRITE ? near : far;

	if (!shm_valid(c->p, m))
		return shm_stale(c->p, m->id);
	if (c->op == MC_WRITE)
		shm_touch(m, far, len);
	if (pc->len >= c->stream) {
		bytes_stream(dst, src, len);
		c->streamed = true;
	} else {
		memcpy(dst, src, len);
	}
	c->room -= len;
	return len;
}

/* ---- pieces in memory that is not shared ---------------------------- */

/* The lists of one system call. */
struct shm_lists {
	struct iovec near[MC_CMA_IOV], far[MC_CMA_IOV];
	int n;
};

/* As many pieces as belong into one call, the first from @off on. None when
 * its buffer has gone. */
static void shm_gather(struct shm_copying *c, const struct mc_piece *pc,
		       uint32_t n, uint32_t off, struct shm_lists *l)
{
	uint64_t room = SHM_FAR_BYTES;

	l->n = 0;
	for (; n && room && l->n < MC_CMA_IOV; n--, pc++, off = 0) {
		const struct shm_map *m = mc_ids_find(&c->p->maps, pc->id);
		uint64_t len = mc_min(pc->len - off, room);

		if (!m || m->mem || !shm_fits(m, c->op, pc) ||
		    !shm_valid(c->p, m))
			return;
		l->near[l->n] = (struct iovec){ (char *)pc->local + off, len };
		l->far[l->n].iov_base = (void *)(uintptr_t)(pc->remote + off);
		l->far[l->n++].iov_len = len;
		room -= len;
	}
}

static int shm_far_failed(struct shm_path *p, enum mc_op op, int err,
			  const struct mc_piece *pc, uint32_t off)
{
	const char *name = p->peer.name;

	if (err == -ESRCH) {
		__atomic_store_n(&p->dead, 1, __ATOMIC_RELAXED);
		return shm_down(p);
	}
	if (err == -EFAULT)
		return mc_err(err, "shm: %s: no memory at 0x%llx of its "
			      "process, or none at %p of ours", name,
			      (unsigned long long)pc->remote + off,
			      (char *)pc->local + off);
	if (err == -EPERM || err == -ENOSYS)
		err = -EOPNOTSUPP;
	return mc_syserr(err, "shm: %s: process_vm_%s", name,
			 op == MC_READ ? "readv" : "writev");
}

/* Move the run of pieces that begins here and is in such memory; returns how
 * many pieces it was. */
static int shm_move_far(struct shm_copying *c, const struct mc_piece *pc,
			uint32_t n)
{
	struct shm_path *p = c->p;
	struct shm_lists l;
	uint32_t i = 0, off = 0;

	if (!p->cma.pid)
		return mc_err(-EOPNOTSUPP, "shm: %s: its memory is not shared "
			      "and cannot be reached: %s", p->peer.name,
			      p->cma.why);
	for (;;) {
		int64_t moved;
		int r;

		shm_gather(c, pc + i, n - i, off, &l);
		if (!l.n && !off)
			return i;
		moved = l.n ? mc_cma_copy(&p->cma, c->op, l.near, l.far, l.n) :
			      -ESTALE;
		if (moved == -ESTALE)
			return shm_stale(p, pc[i].id);
		if (moved < 0)
			return shm_far_failed(p, c->op, moved, pc + i, off);
		while (i < n && moved >= pc[i].len - off) {
			moved -= pc[i++].len - off;
			off = 0;
		}
		off += moved;
		r = shm_step(c);
		if (r < 0)
			return r;
	}
}

/* ---- copy ----------------------------------------------------------- */

/* Buffers that the next pieces need and that are not known yet, the first
 * one's first. Read inside a window. */
static uint32_t shm_unknown(const struct shm_path *p,
			    const struct mc_piece *pc, uint32_t n,
			    uint32_t *ids)
{
	uint32_t n_ids = 0;

	for (uint32_t i = 0; i < mc_min(n, (uint32_t)SHM_LOOK_AHEAD) &&
			     n_ids < SHM_IDS; i++) {
		uint32_t k = 0;

		while (k < n_ids && ids[k] != pc[i].id)
			k++;
		if (k == n_ids && !mc_ids_find(&p->maps, pc[i].id))
			ids[n_ids++] = pc[i].id;
	}
	return n_ids;
}

/* The first of @n pieces is in a buffer that is not known: ask, outside the
 * window. On error it stays outside. */
static int shm_ask(struct shm_copying *c, const struct mc_piece *pc,
		   uint32_t n)
{
	uint32_t ids[SHM_IDS];
	uint32_t n_ids = shm_unknown(c->p, pc, n, ids);
	int r = 0;

	shm_leave(c);
	if (n_ids)
		r = mc_shm_learn(c->p, ids, n_ids);
	return r < 0 ? r : shm_enter(c);
}

/* Part of a piece, or a run of pieces in memory that is not shared: moves on
 * @i and @off, or -errno. */
static int shm_some(struct shm_copying *c, struct shm_map *m,
		    const struct mc_piece *pc, uint32_t n, uint32_t *i,
		    uint32_t *off)
{
	int64_t r;

	if (!shm_fits(m, c->op, pc))
		return shm_misfit(c->p, c->op, pc, m);
	if (m->mem) {
		r = shm_move(c, m, pc, *off);
		if (r < 0)
			return r;
		*off += r;
		if (*off == pc->len) {
			*off = 0;
			(*i)++;
		}
		return 0;
	}
	r = shm_move_far(c, pc, n);
	if (r > 0)
		*i += r;
	return r ? mc_min(r, 0) : shm_stale(c->p, pc->id);
}

int mc_shm_copy(struct mc_path *path, enum mc_op op,
		const struct mc_piece *pieces, uint32_t n)
{
	struct shm_path *p = mc_container_of(path, struct shm_path, base);
	struct shm_copying c = { .p = p, .op = op };
	struct shm_map *m = NULL;
	uint32_t i = 0, off = 0;
	uint64_t window = 0;
	int r;

	c.stream = bytes_from(pieces, n, p->kept);
	r = shm_enter(&c);
	if (r < 0)
		return r;
	while (i < n && !r) {
		const struct mc_piece *pc = &pieces[i];

		if (!c.room)
			r = shm_step(&c);
		if (r < 0)
			break;
		if (!pc->len) {
			i++;
			continue;
		}
		/* What was found in an earlier window may be unmapped. */
		if (window != c.window || !m || m->id != pc->id)
			m = mc_ids_find(&p->maps, pc->id);
		window = c.window;
		if (m) {
			r = shm_some(&c, m, pc, n - i, &i, &off);
			continue;
		}
		r = shm_ask(&c, pc, n - i);
		if (r < 0)
			return r;
	}
	shm_leave(&c);
	if (r == -ESTALE)
		mc_shm_forget(p, pieces[i].id);
	return r;
}
