/*
 * rdma.c - the RDMA transport: reliable connections over InfiniBand or RoCE,
 * one rail for each device; see rdma.h for its parts.
 *
 * It has no thread; notifications are taken by one of the engine's workers.
 * What a device has to say (a port went down) is read when a path finds nothing
 * to do, and that is every 20 ms at least while something is in flight; an idle
 * path says nothing and costs nothing.
 */
#include "rdma.h"

#include "../base/clock.h"
#include "../base/err.h"
#include "../base/util.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

/* ---- devices -------------------------------------------------------- */

static void rdma_dev_fini(struct rdma_dev *d)
{
	if (d->cq)
		mc_verbs.destroy_cq(d->cq);
	if (d->channel)
		mc_verbs.destroy_comp_channel(d->channel);
	mc_rdma_keys_fini(&d->keys);
	if (d->pd)
		mc_verbs.dealloc_pd(d->pd);
	mc_verbs_close(&d->v);
	pthread_mutex_destroy(&d->event_lock);
}

static int rdma_dev_init(struct rdma_ctx *c, struct rdma_dev *d)
{
	int r;

	pthread_mutex_init(&d->event_lock, NULL);
	d->pd = mc_verbs.alloc_pd(d->v.ctx);
	if (!d->pd)
		return mc_syserr(-errno, "rdma: %s: protection domain",
				 d->v.name);
	r = mc_rdma_keys_init(&d->keys, d->pd);
	return r ? r : mc_rdma_notes_serve(c, d);
}

/* What is wrong with our end, if the event is of that kind. */
static bool rdma_dev_is_fault(enum ibv_event_type type)
{
	return type == IBV_EVENT_PORT_ERR || type == IBV_EVENT_DEVICE_FATAL ||
	       type == IBV_EVENT_GID_CHANGE || type == IBV_EVENT_LID_CHANGE;
}

void mc_rdma_dev_look(struct rdma_dev *d)
{
	struct ibv_async_event ev;

	if (pthread_mutex_trylock(&d->event_lock))
		return;
	while (!mc_verbs.get_async_event(d->v.ctx, &ev)) {
		enum ibv_event_type type = ev.event_type;
		bool ours = type != IBV_EVENT_PORT_ERR ||
			    ev.element.port_num == d->v.port;

		mc_verbs.ack_async_event(&ev);
		mc_log(MC_DEBUG, "rdma", "%s: %s", d->v.name,
		       mc_verbs.event_type_str(type));
		if (!ours || !rdma_dev_is_fault(type))
			continue;
		mc_copy(d->fault, mc_verbs.event_type_str(type));
		__atomic_add_fetch(&d->faults, 1, __ATOMIC_RELEASE);
	}
	pthread_mutex_unlock(&d->event_lock);
}

/* ---- opening -------------------------------------------------------- */

static void rdma_close(void *ctx)
{
	struct rdma_ctx *c = ctx;

	mc_rdma_pool_fini(&c->pool);
	mc_rdma_served_fini(c);
	mc_rdma_endpoints_fini(c);
	mc_rdma_memory_fini(c);
	mc_tasks_close(&c->tasks);
	for (int i = 0; i < c->n_devs; i++)
		rdma_dev_fini(&c->devs[i]);
	munmap((void *)c->alive, 4096);
	free(c);
}

static struct rdma_ctx *rdma_new(struct mc_host *host,
				 const struct mc_options *opts)
{
	struct rdma_ctx *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	c->alive = mmap(NULL, 4096, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (c->alive == MAP_FAILED) {
		free(c);
		return NULL;
	}
	(void)madvise((void *)c->alive, 4096, MADV_WIPEONFORK);
	*c->alive = 1;
	c->host = host;
	c->asked = opts->transports;
	pthread_rwlock_init(&c->memory_lock, NULL);
	pthread_mutex_init(&c->served_lock, NULL);
	pthread_mutex_init(&c->endpoint_lock, NULL);
	mc_rdma_pool_init(&c->pool);
	mc_tasks_open(&c->tasks, VERBS_DEVS);
	return c;
}

/* What is the same for all devices, for buffers are registered with all. */
static void rdma_settle(struct rdma_ctx *c)
{
	c->chunk_bits = mc_rdma_chunk_bits(c);
	c->on_demand = mc_env_number("MC_IB_ON_DEMAND", 0, 1, 0);
	for (int i = 0; i < c->n_devs && c->on_demand; i++) {
		c->on_demand = mc_verbs_on_demand(&c->devs[i].v);
		if (!c->on_demand)
			mc_log(MC_WARN, "rdma", "%s has no on-demand paging, "
			       "which MC_IB_ON_DEMAND asks for: memory is "
			       "pinned", c->devs[i].v.name);
	}
}

static int rdma_open(void **ctx, struct mc_host *host,
		     const struct mc_options *opts)
{
	struct verbs_dev devs[VERBS_DEVS];
	int n = mc_verbs_open(devs, VERBS_DEVS, opts->devices), r = 0;
	struct rdma_ctx *c;

	if (n < 0)
		return n;
	c = rdma_new(host, opts);
	for (int i = 0; i < n; i++) {
		struct verbs_port port;

		if (!c) {
			mc_verbs_close(&devs[i]);
			continue;
		}
		c->devs[i].v = devs[i];
		c->n_devs++;
		if (!r)
			r = rdma_dev_init(c, &c->devs[i]);
		/* A GID asked for that is not there is a mistake to be told
		 * now; a port without address may get one. */
		if (!r && mc_verbs_port(&devs[i], &port) == -ENODEV)
			r = mc_err(-ENODEV, "rdma: %s", mc_errmsg());
	}
	if (!c)
		return mc_err(-ENOMEM, "out of memory");
	if (r < 0) {
		rdma_close(c);
		return r;
	}
	rdma_settle(c);
	*ctx = c;
	return 0;
}

static int rdma_devices(void *ctx, char names[][32], int max)
{
	struct rdma_ctx *c = ctx;
	int n = mc_min(c->n_devs, max);

	for (int i = 0; i < n; i++)
		mc_copy_to(names[i], 32, c->devs[i].v.name);
	return n;
}

const struct mc_transport mc_rdma_transport = {
	.name = "rdma",
	.strangers = MC_STRANGERS_TOO,
	.gpu = true,
	.open = rdma_open,
	.close = rdma_close,
	.devices = rdma_devices,
	.reg = mc_rdma_reg,
	.unreg = mc_rdma_unreg,
	.connect = mc_rdma_connect,
	.accept = mc_rdma_accept,
	.gone = mc_rdma_gone,
	.v1_devices = mc_rdma_v1_devices,
	.v1_key = mc_rdma_v1_key,
	.v1_accept = mc_rdma_v1_accept,
	.abort = mc_rdma_abort,
	.disconnect = mc_rdma_disconnect,
	.post = mc_rdma_post,
	.poll = mc_rdma_poll,
};
