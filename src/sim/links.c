/* links.c - flows that share links: see links.h for the model. */
#include "links.h"
#include "../base/err.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

void link_init(struct sim_link *l, double Bps, double *next_share)
{
	l->Bps = Bps > 0 ? Bps : INFINITY;
	l->next_share = next_share;
	l->share = *next_share = l->Bps;
}

void link_fini(struct sim_link *l)
{
	free(l->flows);
}

/* The max-min share of @l with @more flows without a cap added: those that
 * cannot take an equal share leave the rest to the others. */
static double link_share(const struct sim_link *l, uint32_t more)
{
	double left = l->Bps, share = INFINITY, last = -1;
	uint32_t n = l->n + more, i;

	while (n && share != last) {
		last = share;
		left = l->Bps;
		n = l->n + more;
		for (i = 0; i < l->n; i++) {
			if (l->flows[i]->max_Bps < last && last < INFINITY) {
				left -= l->flows[i]->max_Bps;
				n--;
			}
		}
		share = n ? left / n : l->Bps;
	}
	return share;
}

static void flow_advance(struct sim_flow *f, double now)
{
	double passed = f->rate * (now - f->updated_s);

	if (now > f->updated_s)
		f->left = passed < f->left ? f->left - passed : 0;
	f->updated_s = now;
}

static int flow_rate(struct sim_timers *h, struct sim_flow *f, double now)
{
	double rate = f->max_Bps;
	int i;

	for (i = 0; i < FLOW_LINKS; i++)
		if (f->links[i] && f->links[i]->share < rate)
			rate = f->links[i]->share;
	if (rate == f->rate && f->timer.pos)
		return 0;
	flow_advance(f, now);
	f->rate = rate;
	return timers_set(h, &f->timer,
			  now + (rate < INFINITY ? f->left / rate : 0));
}

static int link_changed(struct sim_timers *h, struct sim_link *l, double now)
{
	double share = link_share(l, 0);
	uint32_t i;
	int r;

	*l->next_share = link_share(l, 1);
	if (share == l->share)
		return 0;
	l->share = share;
	for (i = 0; i < l->n; i++) {
		r = flow_rate(h, l->flows[i], now);
		if (r < 0)
			return r;
	}
	return 0;
}

static int link_add(struct sim_link *l, struct sim_flow *f, int slot,
		    double now)
{
	if (l->n == l->cap) {
		uint32_t cap = l->cap ? l->cap * 2 : 8;
		struct sim_flow **flows = realloc(l->flows,
						  cap * sizeof(*flows));

		if (!flows)
			return mc_err(-ENOMEM, "no memory for %u flows", cap);
		l->flows = flows;
		l->cap = cap;
	}
	if (!l->n)
		l->since_s = now;
	f->at[slot] = l->n;
	l->flows[l->n++] = f;
	return 0;
}

static void link_del(struct sim_link *l, struct sim_flow *f, int slot,
		     double now)
{
	struct sim_flow *last = l->flows[--l->n];
	int i;

	l->flows[f->at[slot]] = last;
	for (i = 0; i < FLOW_LINKS; i++)
		if (last->links[i] == l)
			last->at[i] = f->at[slot];
	l->bytes += f->bytes;
	if (!l->n)
		l->busy_s += now - l->since_s;
}

int flow_start(struct sim_timers *h, struct sim_flow *f, double now)
{
	int i, r;

	f->left = f->bytes;
	f->rate = 0;
	f->updated_s = now;
	for (i = 0; i < FLOW_LINKS; i++) {
		r = f->links[i] ? link_add(f->links[i], f, i, now) : 0;
		if (r < 0)
			return r;
	}
	for (i = 0; i < FLOW_LINKS; i++) {
		r = f->links[i] ? link_changed(h, f->links[i], now) : 0;
		if (r < 0)
			return r;
	}
	return f->timer.pos ? 0 : flow_rate(h, f, now);
}

int flow_end(struct sim_timers *h, struct sim_flow *f, double now)
{
	int i, r;

	timers_clear(h, &f->timer);
	for (i = 0; i < FLOW_LINKS; i++)
		if (f->links[i])
			link_del(f->links[i], f, i, now);
	for (i = 0; i < FLOW_LINKS; i++) {
		r = f->links[i] ? link_changed(h, f->links[i], now) : 0;
		if (r < 0)
			return r;
	}
	return 0;
}
