/*
 * links.h - links with a bandwidth, and flows that share them fairly.
 *
 * A flow passes one to three links and is as fast as the slowest of its shares
 * there. The share at a link is max-min fair among the flows on it, given what
 * each can take at most (its cap); what a flow leaves because of another link
 * is not given to others: that keeps a change local, at the price of being a
 * little too slow under congestion on both sides.
 */
#ifndef MC_SIM_LINKS_H
#define MC_SIM_LINKS_H

#include "timers.h"

struct sim_flow;

struct sim_link {
	double Bps;			/* INFINITY: not a limit */
	double share;			/* of a flow without a cap */
	double *next_share;		/* if there were one more: a fact */
	double bytes, busy_s, since_s;	/* since_s: of being busy */
	struct sim_flow **flows;
	uint32_t n, cap;
};

enum { FLOW_LINKS = 3 };

struct sim_flow {
	struct sim_timer timer;		/* its end */
	struct sim_link *links[FLOW_LINKS];
	uint32_t at[FLOW_LINKS];	/* in links[i]->flows */
	double bytes, left, rate, max_Bps;
	double updated_s;
	void *owner;
	struct sim_flow *next;		/* on the list of free ones */
};

/* @next_share is kept up to date. */
void link_init(struct sim_link *l, double Bps, double *next_share);
void link_fini(struct sim_link *l);

/* Put a flow of @f->bytes on its links; the timer is its end. */
int flow_start(struct sim_timers *h, struct sim_flow *f, double now);

/* Take it off, its timer having fired: all bytes have passed. */
int flow_end(struct sim_timers *h, struct sim_flow *f, double now);

#endif
