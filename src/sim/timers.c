/* timers.c - the heap of timers.h. */
#include "timers.h"
#include "../base/err.h"

#include <errno.h>
#include <stdlib.h>

enum { TIMERS_WAYS = 4 };

struct timer_slot {
	double at;
	uint64_t order;
	struct sim_timer *t;
};

static bool timer_before(const struct timer_slot *a, const struct timer_slot *b)
{
	return a->at < b->at || (a->at == b->at && a->order < b->order);
}

static void timer_put(struct sim_timers *h, uint32_t i, struct timer_slot s)
{
	h->heap[i] = s;
	s.t->pos = i + 1;
}

static void timer_up(struct sim_timers *h, uint32_t i, struct timer_slot s)
{
	while (i) {
		uint32_t parent = (i - 1) / TIMERS_WAYS;

		if (!timer_before(&s, &h->heap[parent]))
			break;
		timer_put(h, i, h->heap[parent]);
		i = parent;
	}
	timer_put(h, i, s);
}

static void timer_down(struct sim_timers *h, uint32_t i, struct timer_slot s)
{
	for (;;) {
		uint32_t first = i * TIMERS_WAYS + 1, least = first, c;

		if (first >= h->n)
			break;
		for (c = first + 1; c < h->n && c < first + TIMERS_WAYS; c++)
			if (timer_before(&h->heap[c], &h->heap[least]))
				least = c;
		if (!timer_before(&h->heap[least], &s))
			break;
		timer_put(h, i, h->heap[least]);
		i = least;
	}
	timer_put(h, i, s);
}

static int timers_grow(struct sim_timers *h)
{
	uint32_t cap = h->cap ? h->cap * 2 : 256;
	struct timer_slot *heap = realloc(h->heap, cap * sizeof(*heap));

	if (!heap)
		return mc_err(-ENOMEM, "no memory for %u timers", cap);
	h->heap = heap;
	h->cap = cap;
	return 0;
}

/* The place of the timer that fired is kept for the next one to be set, which
 * is mostly the same one again: one way down in place of two. What lies there
 * is older than all others until then. */
static void timers_close_gap(struct sim_timers *h)
{
	if (!h->gap)
		return;
	h->gap = false;
	if (--h->n)
		timer_down(h, 0, h->heap[h->n]);
}

int timers_set(struct sim_timers *h, struct sim_timer *t, double at)
{
	struct timer_slot s = { at, h->order++, t };
	uint32_t i;
	int r;

	if (t->pos) {
		i = t->pos - 1;
		if (timer_before(&s, &h->heap[i]))
			timer_up(h, i, s);
		else
			timer_down(h, i, s);
		return 0;
	}
	if (h->gap) {
		h->gap = false;
		timer_down(h, 0, s);
		return 0;
	}
	if (h->n == h->cap) {
		r = timers_grow(h);
		if (r < 0)
			return r;
	}
	timer_up(h, h->n++, s);
	return 0;
}

void timers_clear(struct sim_timers *h, struct sim_timer *t)
{
	uint32_t i = t->pos - 1;
	struct timer_slot last;

	if (!t->pos)
		return;
	t->pos = 0;
	last = h->heap[--h->n];
	if (i == h->n)
		return;
	if (i && timer_before(&last, &h->heap[(i - 1) / TIMERS_WAYS]))
		timer_up(h, i, last);
	else
		timer_down(h, i, last);
}

struct sim_timer *timers_pop(struct sim_timers *h, double *at)
{
	struct sim_timer *t;

	timers_close_gap(h);
	if (!h->n)
		return NULL;
	*at = h->heap[0].at;
	t = h->heap[0].t;
	t->pos = 0;
	h->gap = true;
	return t;
}

void timers_fini(struct sim_timers *h)
{
	free(h->heap);
}
