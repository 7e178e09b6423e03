/*
 * te_engine.c - an engine comes and goes, and the segments it opens.
 *
 * Threads may be inside a call when an engine closes: Python's daemon threads
 * at exit, or the program's when a signal closes it. Each call is counted; to
 * close is to refuse new ones, cancel what is in flight, and wait for those
 * inside.
 */
#include "te.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum {
	TE_PORT_TRIES = 64,
	TE_OPEN_MS = 1000,		/* to open a segment */
};

/* ---- opening -------------------------------------------------------- */

static int te_port(const struct te_options *o)
{
	uint32_t x = 0;

	if (getrandom(&x, sizeof(x), 0) < 0)
		x = mc_now_ns() ^ getpid();
	return o->port_min + x % (uint32_t)(o->port_max - o->port_min + 1);
}

/* An address that is not this host's stands for one that is mapped to it:
 * listen everywhere. */
static int te_listen(struct te_engine *te, struct te_options *o)
{
	int r = -EADDRINUSE;

	for (int i = 0; r == -EADDRINUSE && i < TE_PORT_TRIES; i++) {
		r = te_options_listen(o, o->port ? o->port : te_port(o));
		if (r < 0)
			return r;
		r = te_mc(mc_open(&te->mc, &o->mc));
		if (r == -EADDRNOTAVAIL && o->listen_host[0]) {
			o->listen_host[0] = 0;
			r = -EADDRINUSE;
		} else if (o->port) {
			break;
		}
	}
	return r;
}

int te_open(struct te_engine **out, const struct te_config *c)
{
	struct te_options o = { 0 };
	struct te_engine *te;
	int r;

	if (!c->name)
		return te_err(-EINVAL, "no local server name");
	te = calloc(1, sizeof(*te));
	if (!te)
		return te_err(-ENOMEM, "out of memory");
	te->pid = getpid();
	te->own = -1;
	pthread_mutex_init(&te->lock, NULL);
	r = te_options(&o, c, te->note);
	if (!r)
		r = te_listen(te, &o);
	if (r < 0) {
		pthread_mutex_destroy(&te->lock);
		free(te);
		return r;
	}
	te->p2p = o.p2p;
	te->timeout_ms = o.mc.timeout_ms;
	te->open_ms = 1000 * te_env_number("MC_HANDSHAKE_CONNECT_TIMEOUT", 1,
					   60, 0);
	if (!te->open_ms)
		te->open_ms = TE_OPEN_MS;
	*out = te;
	return 0;
}

/* ---- closing -------------------------------------------------------- */

int te_enter(struct te_engine *te)
{
	if (!te)
		return te_err(-EINVAL, "no engine: was it created?");
	/* Sequential, so that either we see closing or te_close() sees us. */
	__atomic_add_fetch(&te->users, 1, __ATOMIC_SEQ_CST);
	if (!__atomic_load_n(&te->closing, __ATOMIC_SEQ_CST))
		return 0;
	te_leave(te);
	return te_err(-ESHUTDOWN, "the engine is closed");
}

void te_leave(struct te_engine *te)
{
	__atomic_sub_fetch(&te->users, 1, __ATOMIC_SEQ_CST);
}

static void te_sleep(void)
{
	struct timespec t = { 0, 1000000 };

	nanosleep(&t, NULL);
}

bool te_close(struct te_engine *te, int wait_ms)
{
	uint64_t until = mc_now_ns() + wait_ms * 1000000ull;
	bool others = te->pid == getpid();

	if (__atomic_exchange_n(&te->closing, true, __ATOMIC_SEQ_CST))
		others = others && !te->closed;
	while (others && __atomic_load_n(&te->users, __ATOMIC_SEQ_CST)) {
		if (mc_now_ns() > until)
			return false;
		te_batches_cancel(te);
		te_sleep();
	}
	if (__atomic_exchange_n(&te->closed, true, __ATOMIC_SEQ_CST))
		return true;
	te_batches_fini(te);
	mc_close(te->mc);
	return true;
}

void te_destroy(struct te_engine *te)
{
	if (!te)
		return;
	te_graceful_forget(te);
	/* A request without a deadline of its own ends soon after its peer;
	 * one of a thread that does not come back keeps the engine. */
	if (!te_close(te, 10000 + te->timeout_ms)) {
		te_log("destroyTransferEngine", "a thread is still inside a "
		       "call: the engine stays");
		return;
	}
	pthread_mutex_destroy(&te->lock);
	free(te);
}

/* ---- segments ------------------------------------------------------- */

static void te_opened(struct te_engine *te, int id)
{
	pthread_mutex_lock(&te->lock);
	if (id >= te->n_segments)
		__atomic_store_n(&te->n_segments, id + 1, __ATOMIC_RELEASE);
	pthread_mutex_unlock(&te->lock);
}

int te_segment_open(struct te_engine *te, const char *name)
{
	int id;

	while (name && *name == '/')
		name++;
	if (!name || !*name)
		return te_err(-EINVAL, "a segment has a name");
	if (!strcmp(name, mc_engine_name(te->mc)))
		return LOCAL_SEGMENT;
	id = te_mc(mc_segment_open(te->mc, name, te->open_ms));
	if (id < 0)
		return id;
	te_opened(te, id);
	return id + 1;
}

/* Our own is opened as any other, when it is first used. */
static int te_own(struct te_engine *te)
{
	int id = __atomic_load_n(&te->own, __ATOMIC_ACQUIRE);

	if (id >= 0)
		return id;
	id = te_mc(mc_segment_open(te->mc, mc_engine_name(te->mc),
				   te->open_ms));
	if (id >= 0)
		__atomic_store_n(&te->own, id, __ATOMIC_RELEASE);
	return id;
}

int te_segment(struct te_engine *te, int64_t id)
{
	if (id == LOCAL_SEGMENT)
		return te_own(te);
	if (id < 0 || id > __atomic_load_n(&te->n_segments, __ATOMIC_ACQUIRE))
		return te_err(-EINVAL, "no segment %lld is open",
			      (long long)id);
	return id - 1;
}

/* ---- memory --------------------------------------------------------- */

/* Memory of a GPU has addresses, but no bytes for a CPU: who registers it is
 * told now, and not by a crash when a transfer touches it. */
static bool te_is_memory(const char *addr, uint64_t len)
{
	char bytes[2];
	struct iovec to = { bytes, 2 };
	struct iovec from[] = {
		{ (void *)addr, 1 }, { (void *)(addr + len - 1), 1 },
	};
	ssize_t n = process_vm_readv(getpid(), &to, 1, from, 2, 0);

	return n == 2 || (n < 0 && errno != EFAULT);
}

int te_register(struct te_engine *te, void *addr, uint64_t len,
		const char *location, bool remote)
{
	if (!addr || !len)
		return te_err(-EINVAL, "memory to register has an address and "
			      "a length");
	if ((uintptr_t)addr + len < len || !te_is_memory(addr, len))
		return te_err(-EINVAL, "%p+%llu is no memory of this process: "
			      "that of a GPU cannot be registered yet", addr,
			      (unsigned long long)len);
	if (location && (!*location || !strcmp(location, "*")))
		location = NULL;
	return te_mc(mc_buffer_reg(te->mc, addr, len, location,
				   remote ? MC_REMOTE_RW : MC_LOCAL));
}
