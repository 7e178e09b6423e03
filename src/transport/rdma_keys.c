/* rdma_keys.c - the table of keys that peers read; see rdma_keys.h. */
#include "rdma_keys.h"

#include "../base/err.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
	KEYS_BITS = 8,			/* of the first table */
	KEYS_ALIGN = 4096,
	KEYS_READ = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_READ,
};

struct rdma_table {
	struct rdma_slot *slots;
	uint32_t bits;
	struct ibv_mr *mr;
	struct rdma_table *older;
};

static uint64_t keys_word(struct rdma_chunk c)
{
	return (uint64_t)c.id << 32 | c.number;
}

static uint64_t keys_home(uint32_t bits, struct rdma_chunk c)
{
	return keys_word(c) * 0x9e3779b97f4a7c15u >> (64 - bits);
}

static uint64_t keys_bytes(uint32_t bits)
{
	return ((1ull << bits) + RDMA_RUN) * sizeof(struct rdma_slot);
}

static uint32_t keys_slot_check(const struct rdma_slot *s)
{
	return ((keys_word(s->chunk) ^ (uint64_t)s->rkey << 16) *
		0x9e3779b97f4a7c15u) >> 32 ^ 0x6d6f6f6eu;
}

static uint64_t keys_check(const struct rdma_root *r)
{
	return (r->addr * 0x9e3779b97f4a7c15u) ^
	       ((uint64_t)r->rkey << 32 | r->bits) ^ 0x6d6f6f6eu;
}

static void *keys_memory(struct ibv_pd *pd, size_t len, struct ibv_mr **mr)
{
	void *mem = aligned_alloc(KEYS_ALIGN, (len + KEYS_ALIGN - 1) &
				  ~(size_t)(KEYS_ALIGN - 1));

	if (!mem)
		return NULL;
	memset(mem, 0, len);
	*mr = mc_verbs.reg_mr_iova2(pd, mem, len, (uintptr_t)mem, KEYS_READ);
	if (*mr)
		return mem;
	free(mem);
	return NULL;
}

static struct rdma_table *keys_table(struct ibv_pd *pd, uint32_t bits)
{
	struct rdma_table *t = calloc(1, sizeof(*t));

	if (!t)
		return NULL;
	t->bits = bits;
	t->slots = keys_memory(pd, keys_bytes(bits), &t->mr);
	if (t->slots)
		return t;
	free(t);
	return NULL;
}

static void keys_table_free(struct rdma_table *t)
{
	if (!t)
		return;
	mc_verbs.dereg_mr(t->mr);
	free(t->slots);
	free(t);
}

/* The slot of @want, or an empty one if that is 0, in the run of @c. */
static struct rdma_slot *keys_slot(struct rdma_table *t, struct rdma_chunk c,
				   uint64_t want)
{
	struct rdma_slot *run = t->slots + keys_home(t->bits, c);

	for (int i = 0; i < RDMA_RUN; i++)
		if (keys_word(run[i].chunk) == want)
			return &run[i];
	return NULL;
}

static bool keys_put(struct rdma_table *t, struct rdma_chunk c, uint32_t rkey)
{
	struct rdma_slot *slot = keys_slot(t, c, 0);

	if (!slot)
		return false;
	*slot = (struct rdma_slot){ c, rkey, 0 };
	__atomic_store_n(&slot->check, keys_slot_check(slot),
			 __ATOMIC_RELEASE);
	return true;
}

static bool keys_copy(struct rdma_table *to, const struct rdma_table *from)
{
	uint64_t n = from ? (1ull << from->bits) + RDMA_RUN : 0;

	for (uint64_t i = 0; i < n; i++)
		if (from->slots[i].chunk.id &&
		    !keys_put(to, from->slots[i].chunk, from->slots[i].rkey))
			return false;
	return true;
}

static void keys_publish(struct rdma_keys *k)
{
	struct rdma_root r = { (uintptr_t)k->table->slots, k->table->mr->rkey,
			       k->table->bits, 0 };

	r.check = keys_check(&r);
	__atomic_store_n(&k->root->check, 0, __ATOMIC_SEQ_CST);
	__atomic_store_n(&k->root->addr, r.addr, __ATOMIC_RELEASE);
	__atomic_store_n(&k->root->rkey, r.rkey, __ATOMIC_RELEASE);
	__atomic_store_n(&k->root->bits, r.bits, __ATOMIC_RELEASE);
	__atomic_store_n(&k->root->check, r.check, __ATOMIC_RELEASE);
}

/* The old one stays, empty: who reads it once more finds nothing, asks for the
 * root again, and knows. */
static int keys_grow(struct rdma_keys *k)
{
	struct rdma_table *old = k->table, *t = NULL;

	for (uint32_t bits = old ? old->bits + 1 : KEYS_BITS; !t; bits++) {
		t = keys_table(k->pd, bits);
		if (!t)
			return mc_syserr(-errno, "rdma: memory for keys");
		if (keys_copy(t, old))
			break;
		keys_table_free(t);
		t = NULL;
	}
	t->older = old;
	k->table = t;
	keys_publish(k);
	if (old)
		memset(old->slots, 0, keys_bytes(old->bits));
	return 0;
}

int mc_rdma_keys_init(struct rdma_keys *k, struct ibv_pd *pd)
{
	k->root = keys_memory(pd, sizeof(*k->root), &k->root_mr);
	if (!k->root)
		return mc_syserr(-errno, "rdma: memory for keys");
	k->pd = pd;
	pthread_mutex_init(&k->lock, NULL);
	return 0;
}

void mc_rdma_keys_fini(struct rdma_keys *k)
{
	if (!k->root)
		return;
	while (k->table) {
		struct rdma_table *t = k->table;

		k->table = t->older;
		keys_table_free(t);
	}
	mc_verbs.dereg_mr(k->root_mr);
	free(k->root);
	k->root = NULL;
	pthread_mutex_destroy(&k->lock);
}

int mc_rdma_keys_add(struct rdma_keys *k, struct rdma_chunk c, uint32_t rkey)
{
	int r = 0;

	pthread_mutex_lock(&k->lock);
	while (!r && (!k->table || !keys_put(k->table, c, rkey)))
		r = keys_grow(k);
	pthread_mutex_unlock(&k->lock);
	return r;
}

void mc_rdma_keys_del(struct rdma_keys *k, struct rdma_chunk c)
{
	struct rdma_slot *slot;

	pthread_mutex_lock(&k->lock);
	slot = k->table ? keys_slot(k->table, c, keys_word(c)) : NULL;
	if (slot)
		memset(slot, 0, sizeof(*slot));
	pthread_mutex_unlock(&k->lock);
}

bool mc_rdma_root_whole(const struct rdma_root *r)
{
	return r->check ? r->check == keys_check(r) && r->bits < 32 :
	       !r->addr;
}

uint64_t mc_rdma_run_addr(const struct rdma_root *r, struct rdma_chunk c)
{
	return r->addr + sizeof(struct rdma_slot) * keys_home(r->bits, c);
}

bool mc_rdma_run_find(const struct rdma_slot run[RDMA_RUN],
		      struct rdma_chunk c, uint32_t *rkey)
{
	for (int i = 0; i < RDMA_RUN; i++)
		if (keys_word(run[i].chunk) == keys_word(c) &&
		    run[i].check == keys_slot_check(&run[i])) {
			*rkey = run[i].rkey;
			return true;
		}
	return false;
}
