/*
 * tasks.h - work that may block, off the workers: threads made when there is
 * work and gone two seconds after the last.
 */
#ifndef MC_BASE_TASKS_H
#define MC_BASE_TASKS_H

#include <pthread.h>
#include <stdbool.h>

struct mc_tasks {
	pthread_mutex_t lock;
	pthread_cond_t more, less;
	struct tasks_item *head, **tail;
	int threads, idle, queued, max;
	bool stopping;
};

int mc_tasks_open(struct mc_tasks *t, int max_threads);

/* Runs what is queued, then ends the threads. */
void mc_tasks_close(struct mc_tasks *t);

/* Run fn(arg) soon. -ENOMEM; -EAGAIN: no thread can be had; -ESHUTDOWN once
 * closing. */
int mc_tasks_run(struct mc_tasks *t, void (*fn)(void *arg), void *arg);

#endif
