/*
 * loop.h - one thread that sleeps in epoll and serves descriptors, and a timer
 * that other threads can set without waking it.
 */
#ifndef MC_BASE_LOOP_H
#define MC_BASE_LOOP_H

#include "spin.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

/* Embedded in what waits; fn runs on the loop's thread. */
struct mc_event {
	void (*fn)(struct mc_event *ev, uint32_t epoll_events);
	int fd;
};

struct mc_loop {
	int epfd, timer_fd, stop_fd;
	pthread_t thread;
	struct mc_event timer, stop;
	void (*on_timer)(void *arg);
	void *arg;
	bool stopping;
	struct mc_spin spin;
	uint64_t asked_ns;		/* when this round's events were asked
					 * for: they may be that old */
	uint64_t round;			/* of epoll_wait(): mc_loop_pass() */
	pthread_mutex_t lock;
	pthread_cond_t passed;
};

/* @spin_us: look for events so long before sleeping; 0: adapts, < 0: never. */
int mc_loop_open(struct mc_loop *l, void (*on_timer)(void *arg), void *arg,
		 int spin_us);
void mc_loop_close(struct mc_loop *l);

/* Watch ev->fd for EPOLL* @events; EPOLLONESHOT ones want mc_loop_arm() after
 * each event. -errno. */
int mc_loop_add(struct mc_loop *l, struct mc_event *ev, uint32_t events);
int mc_loop_arm(struct mc_loop *l, struct mc_event *ev, uint32_t events);

/* Stop watching. From another thread the event may still be running: after
 * mc_loop_pass() it is not, and never will be again. */
void mc_loop_del(struct mc_loop *l, struct mc_event *ev);
void mc_loop_pass(struct mc_loop *l);

/* Run on_timer once, @ns from now; replaces what was set. 0: not at all. */
void mc_loop_timer(struct mc_loop *l, uint64_t ns);

/* Is this the loop's own thread? */
bool mc_loop_inside(const struct mc_loop *l);

#endif
