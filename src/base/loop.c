/* loop.c - one thread that sleeps in epoll; see loop.h. */
#include "loop.h"

#include "clock.h"
#include "err.h"
#include "util.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

enum { LOOP_EVENTS = 64 };

static void loop_drain(int fd)
{
	uint64_t n;

	if (read(fd, &n, sizeof(n)) < 0)
		return;
}

static void loop_on_timer(struct mc_event *ev, uint32_t events)
{
	struct mc_loop *l = mc_container_of(ev, struct mc_loop, timer);

	(void)events;
	loop_drain(ev->fd);
	if (l->on_timer)
		l->on_timer(l->arg);
}

static void loop_on_stop(struct mc_event *ev, uint32_t events)
{
	(void)events;
	loop_drain(ev->fd);
}

static void loop_end_round(struct mc_loop *l)
{
	pthread_mutex_lock(&l->lock);
	l->round++;
	pthread_cond_broadcast(&l->passed);
	pthread_mutex_unlock(&l->lock);
}

/* Sleep for events, after looking for some without sleeping for a while. */
static int loop_wait(struct mc_loop *l, struct epoll_event *evs)
{
	uint64_t start = mc_clock_ns(), spin = mc_spin_ns(&l->spin, start);
	int n = 0;

	l->asked_ns = start;
	while (!n && spin && mc_clock_ns() - start < spin)
		n = epoll_wait(l->epfd, evs, LOOP_EVENTS, 0);
	if (!n)
		n = epoll_wait(l->epfd, evs, LOOP_EVENTS, -1);
	mc_spin_took(&l->spin, mc_clock_ns() - start, spin);
	return n;
}

static void *loop_main(void *arg)
{
	struct epoll_event evs[LOOP_EVENTS];
	struct mc_loop *l = arg;

	pthread_setname_np(pthread_self(), "mc-worker");
	while (!__atomic_load_n(&l->stopping, __ATOMIC_ACQUIRE)) {
		int n = loop_wait(l, evs);

		for (int i = 0; i < n; i++) {
			struct mc_event *ev = evs[i].data.ptr;

			ev->fn(ev, evs[i].events);
		}
		loop_end_round(l);
	}
	return NULL;
}

/* Signals are the program's business, not a worker's. */
static int loop_start(struct mc_loop *l)
{
	sigset_t all, old;
	int r;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	r = pthread_create(&l->thread, NULL, loop_main, l);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return -r;
}

int mc_loop_open(struct mc_loop *l, void (*on_timer)(void *arg), void *arg,
		 int spin_us)
{
	int r;

	*l = (struct mc_loop){ .on_timer = on_timer, .arg = arg };
	mc_spin_init(&l->spin, spin_us);
	pthread_mutex_init(&l->lock, NULL);
	pthread_cond_init(&l->passed, NULL);
	l->epfd = epoll_create1(EPOLL_CLOEXEC);
	l->timer_fd = timerfd_create(CLOCK_MONOTONIC,
				     TFD_CLOEXEC | TFD_NONBLOCK);
	l->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (l->epfd < 0 || l->timer_fd < 0 || l->stop_fd < 0) {
		r = mc_syserr(-errno, "cannot start a worker");
		goto close_fds;
	}
	l->timer = (struct mc_event){ loop_on_timer, l->timer_fd };
	l->stop = (struct mc_event){ loop_on_stop, l->stop_fd };
	r = mc_loop_add(l, &l->timer, EPOLLIN);
	if (!r)
		r = mc_loop_add(l, &l->stop, EPOLLIN);
	if (!r)
		r = loop_start(l);
	if (!r)
		return 0;
	mc_syserr(r, "cannot start a worker");
close_fds:
	close(l->epfd);
	close(l->timer_fd);
	close(l->stop_fd);
	return r;
}

static void loop_kick(struct mc_loop *l)
{
	uint64_t one = 1;

	if (write(l->stop_fd, &one, sizeof(one)) < 0)
		return;
}

void mc_loop_close(struct mc_loop *l)
{
	__atomic_store_n(&l->stopping, true, __ATOMIC_RELEASE);
	loop_kick(l);
	pthread_join(l->thread, NULL);
	close(l->epfd);
	close(l->timer_fd);
	close(l->stop_fd);
	pthread_mutex_destroy(&l->lock);
	pthread_cond_destroy(&l->passed);
}

static int loop_ctl(struct mc_loop *l, int op, struct mc_event *ev,
		    uint32_t events)
{
	struct epoll_event e = { .events = events, .data.ptr = ev };

	return epoll_ctl(l->epfd, op, ev->fd, &e) < 0 ? -errno : 0;
}

int mc_loop_add(struct mc_loop *l, struct mc_event *ev, uint32_t events)
{
	return loop_ctl(l, EPOLL_CTL_ADD, ev, events);
}

int mc_loop_arm(struct mc_loop *l, struct mc_event *ev, uint32_t events)
{
	return loop_ctl(l, EPOLL_CTL_MOD, ev, events);
}

void mc_loop_del(struct mc_loop *l, struct mc_event *ev)
{
	loop_ctl(l, EPOLL_CTL_DEL, ev, 0);
}

bool mc_loop_inside(const struct mc_loop *l)
{
	return pthread_equal(l->thread, pthread_self());
}

void mc_loop_pass(struct mc_loop *l)
{
	uint64_t round;

	if (mc_loop_inside(l))
		return;
	pthread_mutex_lock(&l->lock);
	round = l->round;
	loop_kick(l);
	/* The round that runs now may have fetched the event already; the one
	 * after it has not. */
	while (l->round < round + 2 && !l->stopping) {
		pthread_cond_wait(&l->passed, &l->lock);
		loop_kick(l);
	}
	pthread_mutex_unlock(&l->lock);
}

void mc_loop_timer(struct mc_loop *l, uint64_t ns)
{
	struct itimerspec t = {
		.it_value = { ns / 1000000000u, ns % 1000000000u },
	};

	timerfd_settime(l->timer_fd, 0, &t, NULL);
}
