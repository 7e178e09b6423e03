/*
 * te_shutdown.c - engines that close when SIGTERM or SIGINT comes.
 *
 * The handler can do next to nothing, so it writes a byte; a thread that was
 * started for it closes the engines, puts back what the program had arranged
 * for the signal, and sends it again. In a child made by fork() there is
 * neither that thread nor an engine: the handler does the last part.
 */
#include "te.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

enum { SHUTDOWN_MS = 2000 };		/* for threads inside calls */

static const int shutdown_signals[] = { SIGTERM, SIGINT };

static struct {
	pthread_mutex_t lock;
	struct te_engine *engines;
	struct sigaction old[2];
	int pipe[2];
	pid_t pid;			/* whose thread it is; 0: none */
} shutdown_state = { .lock = PTHREAD_MUTEX_INITIALIZER };

static void shutdown_again(int sig)
{
	for (int i = 0; i < 2; i++)
		sigaction(shutdown_signals[i], &shutdown_state.old[i], NULL);
	kill(getpid(), sig);
}

static void shutdown_on_signal(int sig)
{
	unsigned char c = sig;
	int err = errno;

	if (shutdown_state.pid != getpid())
		shutdown_again(sig);
	else if (write(shutdown_state.pipe[1], &c, 1) < 0)
		shutdown_again(sig);
	errno = err;
}

static void *shutdown_main(void *arg)
{
	unsigned char sig;
	ssize_t n;

	do {
		n = read(shutdown_state.pipe[0], &sig, 1);
	} while (n < 0 && errno == EINTR);
	pthread_mutex_lock(&shutdown_state.lock);
	for (struct te_engine *te = shutdown_state.engines; te; te = te->next)
		te_close(te, SHUTDOWN_MS);
	shutdown_state.engines = NULL;
	pthread_mutex_unlock(&shutdown_state.lock);
	shutdown_again(sig);
	return arg;
}

/* Under the lock. */
static int shutdown_start(void)
{
	struct sigaction sa = { .sa_handler = shutdown_on_signal,
				.sa_flags = SA_RESTART };
	sigset_t all, before;
	pthread_t thread;
	int r;

	if (shutdown_state.pid == getpid())
		return 0;
	if (pipe2(shutdown_state.pipe, O_CLOEXEC) < 0)
		return te_err(-errno, "cannot make a pipe: %s",
			      strerror(errno));
	/* Signals are for the program's threads. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	r = -pthread_create(&thread, NULL, shutdown_main, NULL);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (r < 0)
		return te_err(r, "cannot start a thread: %s", strerror(-r));
	pthread_detach(thread);
	if (!shutdown_state.pid)
		for (int i = 0; i < 2; i++)
			sigaction(shutdown_signals[i], &sa,
				  &shutdown_state.old[i]);
	shutdown_state.engines = NULL;
	shutdown_state.pid = getpid();
	return 0;
}

int te_graceful(struct te_engine *te)
{
	int r;

	pthread_mutex_lock(&shutdown_state.lock);
	r = shutdown_start();
	if (!r && !te->graceful) {
		te->graceful = true;
		te->next = shutdown_state.engines;
		shutdown_state.engines = te;
	}
	pthread_mutex_unlock(&shutdown_state.lock);
	return r;
}

void te_graceful_forget(struct te_engine *te)
{
	struct te_engine **at = &shutdown_state.engines;

	if (!te->graceful || te->pid != getpid())
		return;
	pthread_mutex_lock(&shutdown_state.lock);
	while (*at && *at != te)
		at = &(*at)->next;
	if (*at)
		*at = te->next;
	pthread_mutex_unlock(&shutdown_state.lock);
}
