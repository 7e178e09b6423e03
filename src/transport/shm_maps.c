/*
 * shm_maps.c - what a path knows of its peer's buffers. They are asked for when
 * first needed, a few at a time, and mapped where their memory can be.
 *
 * A thread that copies reads the table inside a window (shm_slots.h), so what
 * is taken out of it is unmapped once all windows that were open have ended.
 */
#include "shm_path.h"

#include "../base/clock.h"
#include "../base/memfd.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum {
	SHM_ASK_MS = 800,
	SHM_SWEEP_MIN = 32,
};

static void shm_map_free(struct shm_map *m)
{
	if (m->base)
		munmap(m->base, m->base_len);
	free(m->seen);
	free(m);
}

/* Map the memory; what cannot be is left to cma.h. */
static void shm_map_memory(struct shm_map *m, const struct shm_found *f,
			   int fd)
{
	int prot = PROT_READ | (f->access & MC_REMOTE_WRITE ? PROT_WRITE : 0);
	uint64_t end = f->offset + f->len, first;
	int64_t page = end < f->len ? -1 : mc_memfd_check(fd, end);
	void *base;

	if (page < 0)
		return;
	first = f->offset & ~((uint64_t)page - 1);
	end = (end + page - 1) & ~((uint64_t)page - 1);
	m->seen = calloc(f->len / SHM_AROUND + 2, 1);
	if (!m->seen)
		return;
	base = mmap(NULL, end - first, prot, MAP_SHARED, fd, first);
	if (base == MAP_FAILED)
		return;
	m->base = base;
	m->base_len = end - first;
	m->mem = (uint8_t *)base + (f->offset - first);
}

/* Nothing the peer says is used before it was checked here. */
static int shm_map_new(const struct shm_found *f, const int *fds, int n_fds,
		       struct shm_map **out)
{
	struct shm_map *m;

	if (!f->id || !f->len || f->addr + f->len < f->addr ||
	    f->gen >= SHM_BUFFERS || f->fd >= n_fds)
		return mc_err(-EPROTO, "an answer that makes no sense");
	m = calloc(1, sizeof(*m));
	if (!m)
		return mc_err(-ENOMEM, "no memory");
	m->addr = f->addr;
	m->len = f->len;
	m->id = f->id;
	m->gen = f->gen;
	m->access = f->access;
	if (f->fd >= 0)
		shm_map_memory(m, f, fds[f->fd]);
	*out = m;
	return 0;
}

/* Unmap what the peer has taken back; it keeps memory of both. Under the
 * lock. */
static void shm_sweep(struct shm_path *p)
{
	struct shm_map *m, **stale = calloc(p->maps.n + 1, sizeof(*stale));
	uint32_t at = 0, n = 0;

	while (stale && (m = mc_ids_next(&p->maps, &at)))
		if (!shm_valid(p, m))
			stale[n++] = m;
	for (uint32_t i = 0; i < n; i++)
		mc_ids_del(&p->maps, stale[i]->id);
	if (n)
		mc_slots_drain(&p->slots, UINT64_MAX);
	while (n)
		shm_map_free(stale[--n]);
	free(stale);
	p->sweep_at = mc_max(2 * p->maps.n, (uint32_t)SHM_SWEEP_MIN);
}

static int shm_insert(struct shm_path *p, struct shm_map *m)
{
	void *retired = NULL;
	int r = 0;

	pthread_mutex_lock(&p->maps_lock);
	if (p->maps.n >= p->sweep_at)
		shm_sweep(p);
	if (mc_ids_find(&p->maps, m->id)) {
		/* Another thread was faster. */
		shm_map_free(m);
	} else {
		r = mc_ids_add(&p->maps, m->id, m, &retired);
		if (r < 0)
			shm_map_free(m);
	}
	if (retired)
		mc_slots_drain(&p->slots, UINT64_MAX);
	free(retired);
	pthread_mutex_unlock(&p->maps_lock);
	return r;
}

/* Why the peer does not let us at the buffer that is needed. */
static int shm_refused(const struct shm_path *p, const struct shm_found *f)
{
	if (f->err == -EOPNOTSUPP)
		return mc_err(f->err, "shm: %s: it has more buffers than the "
			      "%d that can be shared", p->peer.name,
			      SHM_BUFFERS);
	return mc_err(-ESTALE, "shm: %s: buffer %u has gone", p->peer.name,
		      f->id);
}

static int shm_keep(struct shm_path *p, const struct shm_answer *a,
		    const uint32_t *ids, const int *fds, int n_fds)
{
	for (uint32_t i = 0; i < a->n; i++) {
		const struct shm_found *f = &a->found[i];
		struct shm_map *m = NULL;
		int r;

		if (f->id != ids[i])
			return mc_err(-EPROTO, "shm: %s: an answer to another "
				      "question", p->peer.name);
		if (f->err && !i)
			return shm_refused(p, f);
		if (f->err)
			continue;
		r = shm_map_new(f, fds, n_fds, &m);
		if (r < 0)
			return mc_err(r, "shm: %s: %s", p->peer.name,
				      mc_errmsg());
		r = shm_insert(p, m);
		if (r < 0)
			return r;
	}
	return 0;
}

int mc_shm_learn(struct shm_path *p, const uint32_t *ids, uint32_t n)
{
	struct shm_hello q = { SHM_MAGIC, SHM_VERSION, SHM_FIND, n, 0, {{0}} };
	struct mc_blob blob = { .len = sizeof(q) };
	struct shm_answer a = { .n = 0 };
	int fds[MC_HOST_FDS], n_fds = MC_HOST_FDS;
	int r;

	memcpy(q.ids, ids, n * sizeof(*ids));
	memcpy(blob.data, &q, sizeof(q));
	r = mc_host_handshake(p->host, &p->peer, "shm", &blob, &blob, fds,
			      &n_fds, mc_clock_ns() +
			      SHM_ASK_MS * (uint64_t)MC_MS);
	if (r < 0)
		return r;
	if (blob.len == sizeof(a))
		memcpy(&a, blob.data, sizeof(a));
	if (a.magic != SHM_MAGIC || !a.n || a.n > n)
		r = mc_err(-EPROTO, "shm: %s: an answer that makes no sense",
			   p->peer.name);
	else
		r = shm_keep(p, &a, ids, fds, n_fds);
	while (n_fds > 0)
		close(fds[--n_fds]);
	return r;
}

void mc_shm_forget(struct shm_path *p, uint32_t id)
{
	struct shm_map *m;

	pthread_mutex_lock(&p->maps_lock);
	m = mc_ids_find(&p->maps, id);
	if (m && !shm_valid(p, m)) {
		mc_ids_del(&p->maps, id);
		mc_slots_drain(&p->slots, UINT64_MAX);
		shm_map_free(m);
	}
	pthread_mutex_unlock(&p->maps_lock);
}

void mc_shm_forget_all(struct shm_path *p)
{
	uint32_t at = 0;
	struct shm_map *m;

	while ((m = mc_ids_next(&p->maps, &at)))
		shm_map_free(m);
	mc_ids_fini(&p->maps);
}
