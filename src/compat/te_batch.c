/*
 * te_batch.c - batches of the public interface: room for a number of requests,
 * filled by any number of submissions, asked about request by request.
 *
 * Each submission is a batch of mooncake.h, here a group; when it has ended,
 * the outcomes of its requests are kept and it is freed. A batch's id is an
 * index and a generation, as the public one never 0 nor UINT64_MAX; its memory
 * stays until the engine goes, so that looking one up needs no lock but its
 * own.
 */
#include "te.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { TE_BATCHES = 65536 };

struct te_task {
	uint64_t len;
	uint32_t group;
	int status;
};

struct te_group {
	uint64_t id;
	uint32_t first, n;
	bool ended;
	bool notifies;
};

struct te_batch {
	pthread_mutex_t lock;
	uint32_t index, gen;
	bool used;
	bool failed;			/* a group has; why says why */
	uint64_t size;
	uint32_t n_tasks, cap_tasks, n_groups, cap_groups;
	struct te_task *tasks;
	struct te_group *groups;
	struct te_batch *next;		/* of the free ones */
	char why[TE_WHY_MAX];
};

/* ---- the table ------------------------------------------------------ */

static struct te_batch *tb_take(struct te_engine *te)
{
	struct te_batch *b = te->free_batches;

	if (b) {
		te->free_batches = b->next;
		return b;
	}
	if (!te->batches)
		te->batches = calloc(TE_BATCHES, sizeof(*te->batches));
	if (!te->batches || te->n_batches == TE_BATCHES)
		return NULL;
	b = calloc(1, sizeof(*b));
	if (!b)
		return NULL;
	pthread_mutex_init(&b->lock, NULL);
	b->index = te->n_batches;
	/* Pairs with the acquire in tb_lock(). */
	__atomic_store_n(&te->batches[b->index], b, __ATOMIC_RELEASE);
	__atomic_store_n(&te->n_batches, b->index + 1, __ATOMIC_RELEASE);
	return b;
}

uint64_t te_batch_alloc(struct te_engine *te, uint64_t size)
{
	struct te_batch *b;
	uint64_t id;

	pthread_mutex_lock(&te->lock);
	b = tb_take(te);
	pthread_mutex_unlock(&te->lock);
	if (!b) {
		te_err(-ENOBUFS, "%d batches are in use: free those that have "
		       "ended", TE_BATCHES);
		return INVALID_BATCH;
	}
	pthread_mutex_lock(&b->lock);
	b->gen = (b->gen + 1) & INT32_MAX;
	b->gen += !b->gen;
	b->size = size;
	b->failed = false;
	b->n_tasks = b->n_groups = 0;
	b->used = true;
	id = (uint64_t)b->gen << 32 | b->index;
	pthread_mutex_unlock(&b->lock);
	return id;
}

/* Find and lock. */
static int tb_lock(struct te_engine *te, uint64_t id, struct te_batch **out)
{
	uint32_t i = id & UINT32_MAX;
	struct te_batch *b;

	if (i < __atomic_load_n(&te->n_batches, __ATOMIC_ACQUIRE)) {
		b = __atomic_load_n(&te->batches[i], __ATOMIC_ACQUIRE);
		pthread_mutex_lock(&b->lock);
		if (b->used && b->gen == id >> 32) {
			*out = b;
			return 0;
		}
		pthread_mutex_unlock(&b->lock);
	}
	return te_err(-EINVAL, "batch %#llx does not exist: was it freed?",
		      (unsigned long long)id);
}

/* ---- outcomes ------------------------------------------------------- */

static void tb_fail(struct te_batch *b, const char *why)
{
	if (b->failed)
		return;
	b->failed = true;
	strncpy(b->why, why, sizeof(b->why) - 1);
}

static void group_settle(struct te_engine *te, struct te_batch *b,
			 struct te_group *g, const struct mc_result *whole)
{
	struct mc_result one;
	uint32_t good = 0;

	for (uint32_t i = 0; i < g->n; i++) {
		struct te_task *t = &b->tasks[g->first + i];
		bool ok = whole->state == MC_COMPLETED ||
			  (!mc_batch_req(te->mc, g->id, i, &one) &&
			   one.state == MC_COMPLETED);

		t->status = ok ? STATUS_COMPLETED : STATUS_FAILED;
		good += ok;
	}
	/* Who waits for the message has to know that it will not come. */
	if (whole->state != MC_COMPLETED && good == g->n)
		b->tasks[g->first + g->n - 1].status = STATUS_FAILED;
	if (whole->state != MC_COMPLETED)
		tb_fail(b, whole->why);
	mc_batch_free(te->mc, g->id);
	g->ended = true;
}

/* Under the batch's lock: has the group ended? */
static bool group_poll(struct te_engine *te, struct te_batch *b,
		       struct te_group *g)
{
	struct mc_result r;

	if (g->ended)
		return true;
	if (mc_poll(te->mc, g->id, &r) < 0 || r.state == MC_PENDING)
		return false;
	group_settle(te, b, g, &r);
	return true;
}

static bool tb_poll(struct te_engine *te, struct te_batch *b)
{
	bool ended = true;

	for (uint32_t i = 0; i < b->n_groups; i++)
		ended &= group_poll(te, b, &b->groups[i]);
	return ended;
}

/* Wait for the groups that there are; the lock is let go meanwhile, and the
 * batch may be freed by another thread: it is found anew each time. */
static int tb_wait(struct te_engine *te, uint64_t id, struct te_batch **b)
{
	struct mc_result r;

	for (;;) {
		uint64_t group = 0;

		for (uint32_t i = 0; i < (*b)->n_groups; i++)
			if (!group_poll(te, *b, &(*b)->groups[i]))
				group = (*b)->groups[i].id;
		if (!group)
			return 0;
		pthread_mutex_unlock(&(*b)->lock);
		mc_wait(te->mc, group, -1, &r);
		if (tb_lock(te, id, b) < 0)
			return -EINVAL;
	}
}

/* ---- submitting ----------------------------------------------------- */

static int tb_grow(void *array, uint32_t *cap, uint32_t need, size_t size)
{
	void **p = array;
	uint32_t n = *cap ? *cap : 16;
	void *q;

	if (need <= *cap)
		return 0;
	while (n < need)
		n *= 2;
	q = realloc(*p, n * size);
	if (!q)
		return te_err(-ENOMEM, "out of memory");
	*p = q;
	*cap = n;
	return 0;
}

static int tb_room(struct te_batch *b, uint32_t n)
{
	int r;

	if (n > b->size || b->n_tasks > b->size - n)
		return te_err(-ENOBUFS, "the batch was allocated for %llu "
			      "requests, and would have %u",
			      (unsigned long long)b->size, b->n_tasks + n);
	r = tb_grow(&b->tasks, &b->cap_tasks, b->n_tasks + n,
		    sizeof(*b->tasks));
	if (r < 0)
		return r;
	return tb_grow(&b->groups, &b->cap_groups, b->n_groups + n,
		       sizeof(*b->groups));
}

static void tb_add(struct te_batch *b, const struct mc_req *reqs,
		   uint32_t n, int status, const struct te_group *g)
{
	for (uint32_t i = 0; i < n; i++)
		b->tasks[b->n_tasks + i] = (struct te_task){
			.len = reqs[i].len, .group = b->n_groups,
			.status = status,
		};
	b->n_tasks += n;
	if (g)
		b->groups[b->n_groups++] = *g;
}

/* The error is of one request's memory, and others may be good. */
static bool tb_may_split(int err)
{
	return err == -EFAULT || err == -EACCES || err == -EINVAL;
}

static void tb_submit(struct te_engine *te, struct te_batch *b,
		      const struct mc_req *reqs, uint32_t n,
		      const struct mc_batch_opts *notify)
{
	struct te_group g = { .first = b->n_tasks, .n = n,
			      .notifies = notify };
	int r = mc_submit(te->mc, reqs, n, notify, &g.id);

	if (!r) {
		tb_add(b, reqs, n, STATUS_PENDING, &g);
		return;
	}
	if (n > 1 && tb_may_split(r)) {
		for (uint32_t i = 0; i < n; i++)
			tb_submit(te, b, &reqs[i], 1, NULL);
		return;
	}
	tb_fail(b, mc_errmsg());
	tb_add(b, reqs, n, STATUS_FAILED, NULL);
}

int te_batch_submit(struct te_engine *te, uint64_t id,
		    const struct mc_req *reqs, uint32_t n,
		    const struct mc_batch_opts *notify)
{
	struct te_batch *b;
	int r = tb_lock(te, id, &b);

	if (r < 0)
		return r;
	/* The message is about all that the batch has. */
	if (notify)
		r = tb_wait(te, id, &b);
	if (r < 0)
		return r;
	r = tb_room(b, n);
	if (!r && n)
		tb_submit(te, b, reqs, n, b->failed ? NULL : notify);
	pthread_mutex_unlock(&b->lock);
	return r;
}

/* ---- asking --------------------------------------------------------- */

/* Ended by itself, while its group has not? With a message to come, it has
 * only ended when that has gone. */
static void task_poll(struct te_engine *te, struct te_batch *b, uint64_t i)
{
	struct te_task *t = &b->tasks[i];
	struct te_group *g = &b->groups[t->group];
	struct mc_result r;

	if (group_poll(te, b, g) || g->n == 1 || g->notifies ||
	    mc_batch_req(te->mc, g->id, i - g->first, &r) < 0)
		return;
	if (r.state == MC_COMPLETED)
		t->status = STATUS_COMPLETED;
	else if (r.state != MC_PENDING)
		t->status = STATUS_FAILED;
}

int te_batch_status(struct te_engine *te, uint64_t id, uint64_t task,
		    struct transfer_status *out)
{
	struct te_batch *b;
	struct te_task *t;
	int r = tb_lock(te, id, &b);

	if (r < 0)
		return r;
	if (task < b->n_tasks) {
		t = &b->tasks[task];
		if (t->status == STATUS_PENDING)
			task_poll(te, b, task);
		out->status = t->status;
		out->transferred_bytes = t->status == STATUS_COMPLETED ?
					 t->len : 0;
		if (t->status == STATUS_FAILED)
			te_err(0, "%s", b->why);
	} else {
		r = te_err(-EINVAL, "the batch has %u requests, there is no "
			   "request %llu", b->n_tasks,
			   (unsigned long long)task);
	}
	pthread_mutex_unlock(&b->lock);
	return r;
}

int te_batch_outcome(struct te_engine *te, uint64_t id, bool wait)
{
	struct te_batch *b;
	int r = tb_lock(te, id, &b);

	if (r < 0)
		return r;
	if (wait && tb_wait(te, id, &b) < 0)
		return -EINVAL;
	r = !tb_poll(te, b) ? STATUS_PENDING : b->failed ? STATUS_FAILED :
	    STATUS_COMPLETED;
	if (r == STATUS_FAILED)
		te_err(0, "%s", b->why);
	pthread_mutex_unlock(&b->lock);
	return r;
}

int te_batch_free(struct te_engine *te, uint64_t id)
{
	struct te_batch *b;
	int r = tb_lock(te, id, &b);

	if (r < 0)
		return r;
	if (!tb_poll(te, b))
		r = te_err(-EBUSY, "the batch has requests in flight");
	else
		b->used = false;
	pthread_mutex_unlock(&b->lock);
	if (r < 0)
		return r;
	pthread_mutex_lock(&te->lock);
	b->next = te->free_batches;
	te->free_batches = b;
	pthread_mutex_unlock(&te->lock);
	return 0;
}

/* ---- the end -------------------------------------------------------- */

void te_batches_cancel(struct te_engine *te)
{
	uint32_t n = __atomic_load_n(&te->n_batches, __ATOMIC_ACQUIRE);

	for (uint32_t i = 0; i < n; i++) {
		struct te_batch *b = te->batches[i];

		pthread_mutex_lock(&b->lock);
		for (uint32_t k = 0; b->used && k < b->n_groups; k++)
			if (!b->groups[k].ended)
				mc_cancel(te->mc, b->groups[k].id);
		pthread_mutex_unlock(&b->lock);
	}
}

void te_batches_fini(struct te_engine *te)
{
	for (uint32_t i = 0; i < te->n_batches; i++) {
		struct te_batch *b = te->batches[i];

		pthread_mutex_destroy(&b->lock);
		free(b->tasks);
		free(b->groups);
		free(b);
	}
	free(te->batches);
	te->batches = NULL;
	te->n_batches = 0;
}
