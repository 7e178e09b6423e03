/* engine.c - an engine comes and goes; its options. */
#include "engine.h"

#include "../base/memfd.h"
#include "../base/net.h"
#include "../topology/topology.h"
#include "../transport/fault.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <unistd.h>

enum { ENGINE_TASKS = 16 };

const char *mc_version(void)
{
	return "0.1.0";
}

uint64_t mc_now_ns(void)
{
	return mc_clock_ns();
}

/* ---- options -------------------------------------------------------- */

static char *engine_dup(const char *s)
{
	return s ? strdup(s) : NULL;
}

/* What the options leave open, the environment may say. */
static char *engine_dup_or(const char *s, const char *variable)
{
	return engine_dup(s ? s : getenv(variable));
}

static void engine_copy_options(struct mc_options *o,
				const struct mc_options *from)
{
	static const struct mc_options none;
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);

	*o = from ? *from : none;
	o->name = engine_dup(o->name);
	o->listen = engine_dup(o->listen);
	o->advertise = engine_dup(o->advertise);
	o->registry = engine_dup(o->registry);
	o->transports = engine_dup(o->transports);
	o->devices = engine_dup(o->devices);
	o->topology = engine_dup_or(o->topology, "MC_CUSTOM_TOPO_JSON");
	o->key_file = engine_dup(o->key_file);
	o->tls_cert = engine_dup_or(o->tls_cert, "MOONCAKE_TLS_CERT");
	o->tls_key = engine_dup_or(o->tls_key, "MOONCAKE_TLS_KEY");
	o->tls_ca = engine_dup_or(o->tls_ca, "MOONCAKE_TLS_CA");
	o->fault = engine_dup(o->fault);
	o->profile = engine_dup_or(o->profile, "MOONCAKE_PROFILE");
	/* One connection saturates one CPU at each end; on two CPUs a second
	 * one only gets in its way. */
	if (o->streams < 1)
		o->streams = cpus < 4 ? 1 : cpus < 16 ? 2 : 4;
	o->streams = mc_min(o->streams, ENGINE_PATHS);
	if (o->workers < 1)
		o->workers = cpus < 4 ? 1 : cpus < 16 ? 2 : 4;
	o->workers = mc_min(o->workers, 16);
}

static void engine_free_options(struct mc_options *o)
{
	free((void *)o->name);
	free((void *)o->listen);
	free((void *)o->advertise);
	free((void *)o->registry);
	free((void *)o->transports);
	free((void *)o->devices);
	free((void *)o->topology);
	free((void *)o->key_file);
	free((void *)o->tls_cert);
	free((void *)o->tls_key);
	free((void *)o->tls_ca);
	free((void *)o->fault);
	free((void *)o->profile);
}

/* ---- what transports ask -------------------------------------------- */

uint64_t mc_host_epoch(const struct mc_host *h)
{
	return ((const struct mc_engine *)(const void *)h)->epoch;
}

const char *mc_host_name(const struct mc_host *h)
{
	return ((const struct mc_engine *)(const void *)h)->name;
}

const struct mc_key *mc_host_key(const struct mc_host *h)
{
	return &((const struct mc_engine *)(const void *)h)->key;
}

struct mc_tls *mc_host_tls(const struct mc_host *h)
{
	return ((const struct mc_engine *)(const void *)h)->tls;
}

uint64_t mc_host_id(const struct mc_host *h)
{
	return ((const struct mc_engine *)(const void *)h)->host_id;
}

void mc_host_served(struct mc_host *h, enum mc_op op, uint64_t bytes)
{
	struct mc_engine *e = (void *)h;

	count(op == MC_READ ? &e->stats.served_read : &e->stats.served_written,
	      bytes);
}

void mc_host_rejected(struct mc_host *h)
{
	count(&((struct mc_engine *)(void *)h)->stats.rejected, 1);
}

/* ---- opening -------------------------------------------------------- */

bool engine_listed(const char *list, const char *name)
{
	size_t n = strlen(name);

	for (const char *at = list; (at = strstr(at, name)); at += n) {
		bool begins = at == list || strchr(", ", at[-1]);

		if (begins && (!at[n] || strchr(", ", at[n])))
			return true;
	}
	return false;
}

/* A name that is no transport is an error: "rmda" must not mean "nothing". */
static int engine_check_list(const char *list)
{
	char copy[256], *save = NULL;

	mc_copy(copy, list);
	for (char *w = strtok_r(copy, ", ", &save); w;
	     w = strtok_r(NULL, ", ", &save)) {
		int i = 0;

		while (mc_transports[i] && strcmp(mc_transports[i]->name, w))
			i++;
		if (!mc_transports[i])
			return mc_err(-EINVAL, "no transport is called '%s': "
				      "there are local, shm, rdma, tcp and "
				      "v1", w);
	}
	return 0;
}

/* Faults that were asked for stand between the engine and the transport. */
static int engine_wrap(struct mc_engine *e, const struct mc_fault *f,
		       struct engine_transport *tr)
{
	const struct mc_transport *inner = tr->t;
	int r;

	if (!e->opts.fault)
		return 0;
	r = mc_fault_wrap(inner, f, &tr->t);
	if (!r)
		tr->ctx = (void *)tr->t;
	return r;
}

static void engine_list_devices(struct engine_transport *tr)
{
	tr->n_devs = 1;
	mc_copy(tr->devs[0], tr->t->name);
	if (tr->t->devices)
		tr->n_devs = mc_max(0, tr->t->devices(tr->ctx, tr->devs,
						      ENGINE_DEVS));
}

/* One that is called after the transport is none. */
static bool engine_has_devices(const struct engine_transport *tr)
{
	return tr->n_devs > 1 ||
	       (tr->n_devs == 1 && strcmp(tr->devs[0], tr->t->name));
}

/* Which devices memory uses first: as the options say, or as the machine is
 * built, which costs a look at /sys if there are devices to choose from. */
static int engine_matrix(struct mc_engine *e)
{
	struct mc_topology *t = NULL;
	bool any = false;
	int r = 0;

	if (e->opts.topology && e->opts.topology[0])
		return mc_matrix_read(&e->matrix, e->opts.topology);
	for (int i = 0; i < e->n_tr; i++)
		any |= engine_has_devices(&e->tr[i]);
	if (!any || mc_topology_open(&t, NULL) < 0)
		return 0;
	e->matrix = mc_matrix_new();
	if (!e->matrix)
		r = mc_err(-ENOMEM, "out of memory");
	for (int i = 0; i < e->n_tr && !r; i++)
		if (engine_has_devices(&e->tr[i]))
			r = mc_matrix_add(e->matrix, t, e->tr[i].devs,
					  e->tr[i].n_devs);
	mc_topology_close(t);
	return r;
}

int64_t mc_engine_topology(struct mc_engine *e, char *out, uint64_t size)
{
	int r = engine_check(e);

	return r < 0 ? r : mc_matrix_give(e->matrix, out, size);
}

static int engine_transports(struct mc_engine *e)
{
	const char *list = e->opts.transports;
	struct mc_fault fault;
	int r = list ? engine_check_list(list) : 0;

	if (!r && e->opts.fault)
		r = mc_fault_parse(e->opts.fault, &fault);

	for (int i = 0; !r && mc_transports[i]; i++) {
		const struct mc_transport *t = mc_transports[i];
		struct engine_transport *tr = &e->tr[e->n_tr];

		if (list && !engine_listed(list, t->name) &&
		    !(t->strangers == MC_STRANGERS_ONLY &&
		      engine_listed(list, "tcp")))
			continue;
		tr->t = t;
		tr->id = i;
		r = engine_wrap(e, &fault, tr);
		if (!r && tr->t->open)
			r = tr->t->open(&tr->ctx, (void *)e, &e->opts);
		if (r == -EOPNOTSUPP) {
			mc_log(MC_INFO, t->name, "%s", mc_errmsg());
			r = 0;
			continue;
		}
		if (r)
			break;
		engine_list_devices(tr);
		e->n_tr++;
	}
	return r;
}

static int engine_serve(struct mc_engine *e)
{
	const char *listen = e->opts.listen ? e->opts.listen : "127.0.0.1:0";
	char local_name[64] = "";
	int r;

	if (!strcmp(listen, "none"))
		return 0;
	/* Certificates do not work over the unix socket: where they are all
	 * that keeps strangers out, there is none. */
	if (!e->tls || e->key.len)
		snprintf(local_name, sizeof(local_name), "mooncake-%016llx",
			 (long long)e->epoch);
	r = public_serve(e, listen, local_name);
	if (!r)
		r = engine_address(e);
	if (!r)
		engine_devices(e);
	return r;
}

static void engine_name(struct mc_engine *e)
{
	if (e->opts.name)
		mc_copy(e->name, e->opts.name);
	else if (e->addr[0])
		mc_copy(e->name, e->addr);
	else
		snprintf(e->name, sizeof(e->name), "process-%d", getpid());
}

static int engine_workers(struct mc_engine *e)
{
	int r = mc_tasks_open(&e->tasks, ENGINE_TASKS);

	if (!r)
		r = mc_tasks_open(&e->slow, ENGINE_TASKS);
	while (!r && e->n_loops < e->opts.workers) {
		r = mc_loop_open(&e->loops[e->n_loops],
				 e->n_loops ? NULL : drive_tick, e,
				 e->opts.spin_us);
		if (!r)
			e->n_loops++;
	}
	return r;
}

static int engine_start(struct mc_engine *e)
{
	int r = mc_key_load(e->opts.key_file, &e->key);

	if (!r)
		r = mc_tls_open(&e->tls, e->opts.tls_cert, e->opts.tls_key,
				e->opts.tls_ca);
	if (!r)
		r = public_profile(e);
	if (!r)
		r = engine_workers(e);
	if (!r)
		r = engine_transports(e);
	if (!r)
		r = engine_matrix(e);
	if (!r)
		r = engine_serve(e);
	engine_name(e);
	/* Now peers may come: all else is ready. */
	if (!r && e->server)
		r = mc_server_start(e->server);
	if (!r && e->v1)
		r = mc_v1_server_start(e->v1);
	if (!r)
		r = publish_open(e);
	return r;
}

static struct mc_engine *engine_new(const struct mc_options *opts)
{
	struct mc_engine *e = calloc(1, sizeof(*e));

	if (!e)
		return NULL;
	e->batches = calloc(ENGINE_BATCHES, sizeof(*e->batches));
	e->alive = mmap(NULL, 4096, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (!e->batches || e->alive == MAP_FAILED) {
		free(e->batches);
		free(e);
		return NULL;
	}
	madvise((void *)e->alive, 4096, MADV_WIPEONFORK);
	*e->alive = 1;
	engine_copy_options(&e->opts, opts);
	mc_spin_init(&e->spin, e->opts.spin_us);
	while (!e->epoch)
		if (getrandom(&e->epoch, sizeof(e->epoch), 0) < 0)
			e->epoch = mc_clock_ns() ^ (uint64_t)getpid() << 48;
	e->host_id = mc_topology_host_id();
	e->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	pthread_rwlock_init(&e->buffers.lock, NULL);
	pthread_mutex_init(&e->peer_lock, NULL);
	pthread_mutex_init(&e->batch_lock, NULL);
	serving_init(e);
	return e;
}

int mc_open(struct mc_engine **out, const struct mc_options *opts)
{
	struct mc_engine *e;
	int r;

	if (opts && opts->name && strlen(opts->name) >= MC_NAME_MAX)
		return mc_err(-EINVAL, "a name has less than %d bytes",
			      MC_NAME_MAX);
	e = engine_new(opts);
	if (!e)
		return mc_err(-ENOMEM, "out of memory");
	r = engine_start(e);
	if (r < 0) {
		char why[MC_WHY_MAX];

		mc_copy(why, mc_errmsg());
		mc_close(e);
		return mc_err(r, "%s", why);
	}
	*out = e;
	return 0;
}

int mc_host_watch(struct mc_host *h, struct mc_event *ev)
{
	struct mc_engine *e = (void *)h;

	return mc_loop_add(&e->loops[ev->fd % e->n_loops], ev, EPOLLIN);
}

/* ---- closing -------------------------------------------------------- */

/* Cancel what is in flight and wait for it to end. */
static void engine_quiesce(struct mc_engine *e)
{
	for (;;) {
		struct batch *b;

		pthread_mutex_lock(&e->batch_lock);
		b = e->active;
		if (b)
			b->refs++;
		pthread_mutex_unlock(&e->batch_lock);
		if (!b)
			return;
		pthread_mutex_lock(&b->lock);
		b->canceled = true;
		pthread_mutex_unlock(&b->lock);
		batch_check(b, mc_clock_ns());
		batch_wait(b, mc_clock_ns() + 100ull * MC_MS);
		batch_put(b);
	}
}

static void engine_stop(struct mc_engine *e)
{
	publish_close(e);
	if (e->n_loops)
		engine_quiesce(e);
	for (int i = 0; i < e->n_peers; i++)
		if (e->peers[i])
			peer_close(e->peers[i]);
	/* Workers that saw it unset are done with the tasks after a round. */
	__atomic_store_n(&e->closing, true, __ATOMIC_RELEASE);
	for (int i = 0; i < e->n_loops; i++)
		mc_loop_pass(&e->loops[i]);
	if (e->slow.max)
		mc_tasks_close(&e->slow);
	if (e->tasks.max)
		mc_tasks_close(&e->tasks);
	for (int i = 0; i < e->n_loops; i++)
		mc_loop_close(&e->loops[i]);
	mc_server_close(e->server);
	e->server = NULL;
	mc_v1_server_close(e->v1);
	e->v1 = NULL;
	for (int i = 0; i < e->n_tr; i++)
		if (e->tr[i].t->close)
			e->tr[i].t->close(e->tr[i].ctx);
}

static void engine_free(struct mc_engine *e, bool in_child)
{
	buffers_fini(e, in_child);
	mc_matrix_put(e->matrix);
	engine_free_options(&e->opts);
	if (in_child) {
		engine_forget(e);
	} else {
		serving_fini(e);
		batches_fini(e);
		while (e->waiters) {
			struct waiter *w = e->waiters;

			e->waiters = w->next;
			close(w->fd);
			free(w);
		}
		mc_tls_close(e->tls);
		pthread_mutex_destroy(&e->peer_lock);
		pthread_mutex_destroy(&e->batch_lock);
	}
	close(e->fd);
	munmap((void *)e->alive, 4096);
	free(e);
}

void mc_close(struct mc_engine *e)
{
	bool in_child;

	if (!e)
		return;
	in_child = !*e->alive;
	if (!in_child)
		engine_stop(e);
	engine_free(e, in_child);
}

/* ---- small things --------------------------------------------------- */

int engine_check(const struct mc_engine *e)
{
	if (!e)
		return mc_err(-EINVAL, "no engine");
	if (!*e->alive)
		return mc_err(-EPERM, "this engine belongs to the process that "
			      "opened it: open one after fork()");
	return 0;
}

uint64_t engine_deadline(const struct mc_engine *e, int timeout_ms)
{
	int ms = timeout_ms ? timeout_ms : e->opts.timeout_ms;

	/* Forever is a day here: these wait for someone's answer. */
	if (ms < 0)
		ms = 24 * 3600 * 1000;
	return mc_clock_ns() +
	       (uint64_t)(ms ? ms : ENGINE_QUIET_MS) * MC_MS;
}

const char *mc_engine_name(const struct mc_engine *e)
{
	return e->name;
}

const char *mc_engine_addr(const struct mc_engine *e)
{
	return e->addr;
}

uint64_t mc_engine_epoch(const struct mc_engine *e)
{
	return e->epoch;
}

int mc_engine_fd(const struct mc_engine *e)
{
	return e->fd;
}

int mc_stats(struct mc_engine *e, struct mc_stats *out)
{
	uint64_t *to = (void *)out;
	int r = engine_check(e);

	if (r < 0)
		return r;
	for (size_t i = 0; i < sizeof(*out) / sizeof(*to); i++)
		to[i] = __atomic_load_n((uint64_t *)(void *)&e->stats + i,
					__ATOMIC_RELAXED);
	if (e->server)
		out->connections += mc_server_connections(e->server);
	if (e->v1)
		out->connections += mc_v1_server_connections(e->v1);
	return 0;
}
