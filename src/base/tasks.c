/* tasks.c - work that may block, off the workers; see tasks.h. */
#include "tasks.h"

#include "err.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <time.h>

struct tasks_item {
	void (*fn)(void *arg);
	void *arg;
	struct tasks_item *next;
};

enum { TASKS_IDLE_S = 2 };

int mc_tasks_open(struct mc_tasks *t, int max_threads)
{
	pthread_condattr_t a;

	*t = (struct mc_tasks){ .max = max_threads };
	t->tail = &t->head;
	pthread_mutex_init(&t->lock, NULL);
	pthread_condattr_init(&a);
	pthread_condattr_setclock(&a, CLOCK_MONOTONIC);
	pthread_cond_init(&t->more, &a);
	pthread_cond_init(&t->less, &a);
	pthread_condattr_destroy(&a);
	return 0;
}

/* The next item, waiting a while for one; NULL: time to go. Locked. */
static struct tasks_item *tasks_next(struct mc_tasks *t)
{
	struct tasks_item *item;
	struct timespec until;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += TASKS_IDLE_S;
	t->idle++;
	while (!t->head && !t->stopping)
		if (pthread_cond_timedwait(&t->more, &t->lock, &until))
			break;
	t->idle--;
	item = t->head;
	if (!item)
		return NULL;
	t->head = item->next;
	t->queued--;
	if (!t->head)
		t->tail = &t->head;
	return item;
}

static void *tasks_main(void *arg)
{
	struct mc_tasks *t = arg;
	struct tasks_item *item;

	pthread_setname_np(pthread_self(), "mc-task");
	pthread_mutex_lock(&t->lock);
	while ((item = tasks_next(t))) {
		pthread_mutex_unlock(&t->lock);
		item->fn(item->arg);
		free(item);
		pthread_mutex_lock(&t->lock);
	}
	t->threads--;
	pthread_cond_broadcast(&t->less);
	pthread_mutex_unlock(&t->lock);
	return NULL;
}

static void tasks_spawn(struct mc_tasks *t)
{
	sigset_t all, old;
	pthread_attr_t a;
	pthread_t id;

	sigfillset(&all);
	pthread_attr_init(&a);
	pthread_attr_setdetachstate(&a, PTHREAD_CREATE_DETACHED);
	pthread_attr_setstacksize(&a, 256 << 10);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	if (!pthread_create(&id, &a, tasks_main, t))
		t->threads++;
	else
		mc_log(MC_WARN, "tasks", "cannot start a thread");
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	pthread_attr_destroy(&a);
}

/* No thread runs and none could be made: nobody would ever do it. */
static int tasks_take_back(struct mc_tasks *t, struct tasks_item *item)
{
	struct tasks_item **at = &t->head;

	while (*at != item)
		at = &(*at)->next;
	*at = NULL;
	t->tail = at;
	t->queued--;
	free(item);
	return mc_err(-EAGAIN, "no thread can be started");
}

int mc_tasks_run(struct mc_tasks *t, void (*fn)(void *arg), void *arg)
{
	struct tasks_item *item = malloc(sizeof(*item));
	int r = 0;

	if (!item)
		return mc_err(-ENOMEM, "out of memory");
	*item = (struct tasks_item){ fn, arg, NULL };
	pthread_mutex_lock(&t->lock);
	if (t->stopping) {
		r = -ESHUTDOWN;
		free(item);
	} else {
		*t->tail = item;
		t->tail = &item->next;
		if (++t->queued > t->idle && t->threads < t->max)
			tasks_spawn(t);
		pthread_cond_signal(&t->more);
		if (!t->threads)
			r = tasks_take_back(t, item);
	}
	pthread_mutex_unlock(&t->lock);
	return r;
}

void mc_tasks_close(struct mc_tasks *t)
{
	pthread_mutex_lock(&t->lock);
	t->stopping = true;
	pthread_cond_broadcast(&t->more);
	while (t->threads)
		pthread_cond_wait(&t->less, &t->lock);
	pthread_mutex_unlock(&t->lock);
	pthread_mutex_destroy(&t->lock);
	pthread_cond_destroy(&t->more);
	pthread_cond_destroy(&t->less);
}
