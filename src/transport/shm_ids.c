/* shm_ids.c - from buffer id to pointer; see shm_ids.h. */
#include "shm_ids.h"

#include "../base/err.h"

#include <errno.h>
#include <stdlib.h>

enum { IDS_MIN = 64 };

static struct ids_entry *ids_place(struct ids_table *a, uint32_t id)
{
	uint32_t i = id * 2654435769u;

	while (a->e[i & a->mask].id && a->e[i & a->mask].id != id)
		i++;
	return &a->e[i & a->mask];
}

static void ids_put(struct ids_table *a, uint32_t id, void *ptr)
{
	struct ids_entry *e = ids_place(a, id);

	a->used += !e->id;
	__atomic_store_n(&e->ptr, ptr, __ATOMIC_SEQ_CST);
	/* Pairs with the load in mc_ids_find(): with the id, the pointer. */
	__atomic_store_n(&e->id, id, __ATOMIC_RELEASE);
}

/* Half full at most after it, counting none that were taken out. */
static int ids_publish(struct mc_ids *t, void **retired)
{
	uint64_t size = IDS_MIN;
	struct ids_table *a, *old = t->table;

	while (size < 4 * ((uint64_t)t->n + 1))
		size *= 2;
	a = calloc(1, sizeof(*a) + size * sizeof(a->e[0]));
	if (!a || size > UINT32_MAX) {
		free(a);
		return mc_err(-ENOMEM, "no memory for a table of buffers");
	}
	a->mask = size - 1;
	for (uint32_t i = 0; old && i <= old->mask; i++)
		if (old->e[i].ptr)
			ids_put(a, old->e[i].id, old->e[i].ptr);
	__atomic_store_n(&t->table, a, __ATOMIC_SEQ_CST);
	*retired = old;
	return 0;
}

int mc_ids_add(struct mc_ids *t, uint32_t id, void *ptr, void **retired)
{
	int r;

	*retired = NULL;
	/* What was just taken out goes back without fail. */
	if (!t->table || (2 * (uint64_t)t->table->used > t->table->mask &&
			  !ids_place(t->table, id)->id)) {
		r = ids_publish(t, retired);
		if (r < 0)
			return r;
	}
	ids_put(t->table, id, ptr);
	t->n++;
	return 0;
}

void *mc_ids_del(struct mc_ids *t, uint32_t id)
{
	struct ids_entry *e;
	void *ptr;

	if (!t->table || !id)
		return NULL;
	e = ids_place(t->table, id);
	ptr = e->ptr;
	if (!ptr)
		return NULL;
	__atomic_store_n(&e->ptr, NULL, __ATOMIC_SEQ_CST);
	t->n--;
	return ptr;
}

void *mc_ids_next(const struct mc_ids *t, uint32_t *at)
{
	while (t->table && *at <= t->table->mask) {
		void *ptr = t->table->e[(*at)++].ptr;

		if (ptr)
			return ptr;
	}
	return NULL;
}

void mc_ids_fini(struct mc_ids *t)
{
	free(t->table);
	t->table = NULL;
	t->n = 0;
}
