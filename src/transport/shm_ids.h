/*
 * shm_ids.h - a table from buffer id to pointer. One thread at a time changes
 * it; any number may look something up meanwhile, inside a window of
 * shm_slots.h.
 */
#ifndef MC_SHM_IDS_H
#define MC_SHM_IDS_H

#include <stddef.h>
#include <stdint.h>

/* An id stays in its place when its pointer is taken out, until the table is
 * made anew: so those who look up never see a hole where there was an entry. */
struct ids_entry {
	uint32_t id;			/* 0: free */
	void *ptr;			/* NULL: taken out */
};

struct ids_table {
	uint32_t mask, used;		/* used: with those taken out */
	struct ids_entry e[];
};

struct mc_ids {
	struct ids_table *table;
	uint32_t n;			/* with a pointer */
};

/* Add @id (not 0, not in it) for @ptr. Where the table had to be made anew,
 * the old one goes to @retired: to be freed once no one can be reading it. */
int mc_ids_add(struct mc_ids *t, uint32_t id, void *ptr, void **retired);

/* Take it out and return its pointer, or NULL. */
void *mc_ids_del(struct mc_ids *t, uint32_t id);

/* The next pointer at or after position *@at, which moves on; or NULL. */
void *mc_ids_next(const struct mc_ids *t, uint32_t *at);
void mc_ids_fini(struct mc_ids *t);

static inline void *mc_ids_find(const struct mc_ids *t, uint32_t id)
{
	/* Pairs with the store in ids_publish(). */
	const struct ids_table *a = __atomic_load_n(&t->table,
						    __ATOMIC_SEQ_CST);

	if (!a || !id)
		return NULL;
	for (uint32_t i = id * 2654435769u; ; i++) {
		const struct ids_entry *e = &a->e[i & a->mask];
		/* Pairs with the store in ids_put(). */
		uint32_t found = __atomic_load_n(&e->id, __ATOMIC_ACQUIRE);

		if (found == id)
			return __atomic_load_n(&e->ptr, __ATOMIC_SEQ_CST);
		if (!found)
			return NULL;
	}
}

#endif
