/*
 * rdma_endpoint.c - connections with engines that speak only the public
 * protocol. There one device is connected with one of the other side by several
 * queue pairs, on which both sides send, whichever has asked for it; that is
 * called an endpoint. A path of ours sends on one of its queue pairs.
 *
 * Who asks tells its queue pairs, the other joins its own with them and tells
 * them in turn. When both ask at once, each hears of the other while it waits
 * for an answer, and joins the queue pairs that it has offered: so the answer
 * has nothing new to say. One who comes with other queue pairs than before has
 * lost the old ones, and gets new ones.
 *
 * Nobody can be asked whether it has ended its part: see ../../src/README.md.
 */
#include "rdma.h"

#include "../base/clock.h"
#include "../base/err.h"
#include "../base/util.h"

#include <errno.h>
#include <stdlib.h>

enum {
	ENDPOINT_QPS = 2,		/* as the public one has */
	ENDPOINT_RD_ATOMIC = 16,
	ENDPOINTS = 4096,
	/* The public one takes one question at a time; and one that hears no
	 * answer to its own, and is asked again, starts from nothing. */
	ENDPOINT_ASK_MS = 3000,
};

struct rdma_endpoint {
	struct rdma_endpoint *next;
	struct rdma_dev *dev;
	char far[MC_V1_NIC_MAX];	/* the peer's "name@device" */
	int n;
	struct rdma_end end[MC_V1_QPS];
	uint32_t far_qps[MC_V1_QPS];
	bool joined, ready;		/* ready: both sides know */
	bool lost;			/* no longer in the list */
	uint32_t used;			/* ends that paths send on: bits */
};

/* ---- their queue pairs ----------------------------------------------- */

static void endpoint_free(struct rdma_endpoint *ep)
{
	for (int i = 0; i < ep->n; i++)
		mc_rdma_end_close(&ep->end[i]);
	free(ep);
}

static struct rdma_endpoint *endpoint_new(struct rdma_dev *d, const char *far)
{
	struct rdma_endpoint *ep = calloc(1, sizeof(*ep));
	int n = mc_env_number("MC_NUM_QP_PER_EP", 1, MC_V1_QPS, ENDPOINT_QPS);

	if (!ep) {
		mc_err(-ENOMEM, "out of memory");
		return NULL;
	}
	ep->dev = d;
	mc_copy(ep->far, far);
	while (ep->n < n && !mc_rdma_end_open(d, true, &ep->end[ep->n]))
		ep->end[ep->n++].psn = 0;
	if (ep->n == n)
		return ep;
	endpoint_free(ep);
	return NULL;
}

/* The GID of ours from which that of theirs is best reached. */
static const struct verbs_gid *endpoint_gid(const struct verbs_port *port,
					    const uint8_t far[16])
{
	int i = mc_verbs_port_gid(port, far, true);

	if (i < 0)
		i = mc_verbs_port_gid(port, far, false);
	return &port->gids[mc_max(i, 0)];
}

static int endpoint_port(struct rdma_dev *d, struct verbs_port *port)
{
	int r = mc_verbs_port(&d->v, port);

	if (!r && (!port->up || !port->n_gids))
		r = mc_err(-ENETDOWN, "local device %s: port %d is down",
			   d->v.name, port->num);
	return r;
}

static int endpoint_join(struct rdma_endpoint *ep, const struct mc_meeting *m)
{
	struct verbs_port port;
	struct rdma_far far = {
		.lid = m->lid,
		.rd_atomic = mc_min(ENDPOINT_RD_ATOMIC, mc_min(
			ep->dev->v.attr.max_qp_rd_atom,
			ep->dev->v.attr.max_qp_init_rd_atom)),
	};
	int r = endpoint_port(ep->dev, &port);

	if (m->n_qps != ep->n)
		return mc_err(-EPROTO, "%s has %d queue pairs, %d here: "
			      "MC_NUM_QP_PER_EP has to be the same", ep->far,
			      m->n_qps, ep->n);
	far.mtu = port.mtu;
	memcpy(far.gid, m->gid, sizeof(far.gid));
	far.sgid_index = endpoint_gid(&port, m->gid)->index;
	for (int i = 0; !r && i < ep->n; i++) {
		far.qpn = ep->far_qps[i] = m->qps[i];
		r = mc_rdma_end_join(ep->dev, &ep->end[i], &far);
	}
	ep->joined = !r;
	return r;
}

static bool endpoint_knows(const struct rdma_endpoint *ep,
			   const struct mc_meeting *m)
{
	return ep->joined && ep->n == m->n_qps &&
	       !memcmp(ep->far_qps, m->qps, ep->n * sizeof(*m->qps));
}

/* ---- the list: under the context's endpoint_lock ---------------------- */

static struct rdma_endpoint *endpoint_find(struct rdma_ctx *c,
					   const struct rdma_dev *d,
					   const char *far)
{
	struct rdma_endpoint *ep = c->endpoints;

	while (ep && (ep->dev != d || strcmp(ep->far, far)))
		ep = ep->next;
	return ep;
}

static int endpoint_add(struct rdma_ctx *c, struct rdma_dev *d,
			const char *far, struct rdma_endpoint **out)
{
	int max = mc_env_number("MC_MAX_EP_PER_CTX", 1, 65535, ENDPOINTS);

	if (c->n_endpoints >= max)
		return mc_err(-ENOSPC, "%s: %d endpoints are open already",
			      d->v.name, max);
	*out = endpoint_new(d, far);
	if (!*out)
		return -ENOMEM;
	(*out)->next = c->endpoints;
	c->endpoints = *out;
	c->n_endpoints++;
	return 0;
}

/* Its queue pairs stop; the last path that uses them frees it. */
static void endpoint_lose(struct rdma_ctx *c, struct rdma_endpoint *ep)
{
	struct rdma_endpoint **at = &c->endpoints;

	while (*at && *at != ep)
		at = &(*at)->next;
	if (*at) {
		*at = ep->next;
		c->n_endpoints--;
	}
	ep->lost = true;
	for (int i = 0; i < ep->n; i++)
		mc_rdma_end_stop(&ep->end[i], 0, 0);
	if (!ep->used)
		endpoint_free(ep);
}

void mc_rdma_endpoints_fini(struct rdma_ctx *c)
{
	while (c->endpoints)
		endpoint_lose(c, c->endpoints);
	pthread_mutex_destroy(&c->endpoint_lock);
}

/* ---- being asked ------------------------------------------------------ */

static struct rdma_dev *endpoint_device(struct rdma_ctx *c, const char *nic)
{
	const char *at = strrchr(nic, '@'), *name = mc_host_name(c->host);

	if (!at || strncmp(nic, name, at - nic) || name[at - nic]) {
		mc_err(-ENOENT, "'%s' is not here: this is %s", nic, name);
		return NULL;
	}
	for (int i = 0; i < c->n_devs; i++)
		if (!strcmp(c->devs[i].v.name, at + 1))
			return &c->devs[i];
	mc_err(-ENODEV, "%s has no device %s", name, at + 1);
	return NULL;
}

/* What we are, for the other end. */
static int endpoint_tell(const struct rdma_ctx *c, const struct rdma_dev *d,
			 const struct rdma_endpoint *ep, const uint8_t gid[16],
			 struct mc_meeting *m)
{
	struct verbs_port port;
	int r = endpoint_port((struct rdma_dev *)d, &port);

	if (r < 0)
		return r;
	*m = (struct mc_meeting){ .lid = port.lid, .n_qps = ep->n,
				  .can_ack = true };
	snprintf(m->from, sizeof(m->from), "%s@%s", mc_host_name(c->host),
		 d->v.name);
	mc_copy(m->to, ep->far);
	memcpy(m->gid, endpoint_gid(&port, gid)->gid.raw, 16);
	for (int i = 0; i < ep->n; i++)
		m->qps[i] = ep->end[i].qp->qp_num;
	return 0;
}

static int endpoint_answer(struct rdma_ctx *c, const struct mc_meeting *asked,
			   struct mc_meeting *reply)
{
	struct rdma_dev *d = endpoint_device(c, asked->to);
	struct rdma_endpoint *ep;
	int r = 0;

	if (!d)
		return -ENOENT;
	ep = endpoint_find(c, d, asked->from);
	if (ep && endpoint_knows(ep, asked)) {
		ep->ready |= asked->ack;
		return asked->ack ? 0 : endpoint_tell(c, d, ep, asked->gid,
						      reply);
	}
	if (asked->ack)
		return mc_err(-ESTALE, "no such connection waits for word");
	if (ep && ep->joined) {
		endpoint_lose(c, ep);
		ep = NULL;
	}
	if (!ep)
		r = endpoint_add(c, d, asked->from, &ep);
	if (r < 0)
		return r;
	r = endpoint_join(ep, asked);
	ep->ready = !asked->can_ack;
	if (!r)
		r = endpoint_tell(c, d, ep, asked->gid, reply);
	if (r < 0) {
		char why[MC_WHY_MAX];

		mc_copy(why, mc_errmsg());
		endpoint_lose(c, ep);
		mc_err(r, "%s", why);
	}
	return r;
}

void mc_rdma_v1_accept(void *ctx, const struct mc_meeting *asked,
		       struct mc_meeting *reply)
{
	struct rdma_ctx *c = ctx;

	pthread_mutex_lock(&c->endpoint_lock);
	if (endpoint_answer(c, asked, reply) < 0)
		mc_copy(reply->why, mc_errmsg());
	pthread_mutex_unlock(&c->endpoint_lock);
	reply->can_ack &= asked->can_ack;
}

/* ---- asking ----------------------------------------------------------- */

/* What they say joins the two, unless they have asked as well meanwhile. */
static int endpoint_hear(struct rdma_ctx *c, struct rdma_endpoint *ep,
			 const struct mc_meeting *reply)
{
	int r = 0;

	if (reply->why[0])
		return mc_err(-ECONNREFUSED, "%s: %s", ep->far, reply->why);
	pthread_mutex_lock(&c->endpoint_lock);
	if (ep->lost)
		r = mc_err(-ECONNRESET, "%s has asked anew", ep->far);
	else if (!ep->joined)
		r = endpoint_join(ep, reply);
	else if (!endpoint_knows(ep, reply))
		r = mc_err(-EPROTO, "%s answers with queue pairs other than "
			   "those that it asked with", ep->far);
	pthread_mutex_unlock(&c->endpoint_lock);
	return r;
}

static int endpoint_ask(struct rdma_path *p, struct rdma_endpoint *ep,
			const struct mc_v1_device *far, uint64_t deadline_ns)
{
	uint64_t late = mc_clock_ns() + ENDPOINT_ASK_MS * (uint64_t)MC_MS;
	struct mc_host *h = p->rdma->host;
	struct mc_meeting asked, reply;
	int r = endpoint_tell(p->rdma, p->dev, ep, far->gid, &asked);

	deadline_ns = mc_max(deadline_ns, late);
	if (!r)
		r = mc_host_v1_ask(h, &p->peer, &asked, &reply, deadline_ns);
	if (!r)
		r = endpoint_hear(p->rdma, ep, &reply);
	if (r || !reply.can_ack)
		return r;
	asked.ack = true;
	r = mc_host_v1_ask(h, &p->peer, &asked, &reply, deadline_ns);
	if (!r && reply.why[0])
		r = mc_err(-ECONNREFUSED, "%s: %s", ep->far, reply.why);
	return r;
}

/* An end on which no path sends. */
static int endpoint_take(struct rdma_path *p, struct rdma_endpoint *ep)
{
	for (int i = 0; i < ep->n; i++) {
		if (ep->used & 1u << i)
			continue;
		ep->used |= 1u << i;
		p->end = ep->end[i];
		p->end_index = i;
		p->endpoint = ep;
		return 0;
	}
	return mc_err(-EBUSY, "%s: all of its %d queue pairs are in use",
		      ep->far, ep->n);
}

/* @fresh: it is ours to be asked for. */
static int endpoint_get(struct rdma_path *p, const char *far, bool *fresh)
{
	struct rdma_ctx *c = p->rdma;
	struct rdma_endpoint *ep;
	int r = 0;

	*fresh = false;
	pthread_mutex_lock(&c->endpoint_lock);
	ep = endpoint_find(c, p->dev, far);
	if (!ep) {
		r = endpoint_add(c, p->dev, far, &ep);
		*fresh = !r;
	} else if (!ep->ready) {
		r = mc_err(-EALREADY, "%s is being connected already", far);
	}
	if (!r)
		r = endpoint_take(p, ep);
	pthread_mutex_unlock(&c->endpoint_lock);
	return r;
}

void mc_rdma_endpoint_release(struct rdma_path *p, bool broken)
{
	struct rdma_ctx *c = p->rdma;
	struct rdma_endpoint *ep = p->endpoint;

	pthread_mutex_lock(&c->endpoint_lock);
	ep->used &= ~(1u << p->end_index);
	p->endpoint = NULL;
	p->end = (struct rdma_end){ 0 };
	if (!ep->lost && (broken || !ep->joined))
		endpoint_lose(c, ep);
	else if (ep->lost && !ep->used)
		endpoint_free(ep);
	pthread_mutex_unlock(&c->endpoint_lock);
}

/* The one that is wished for; else theirs take turns with ours. */
static int endpoint_choose(struct rdma_path *p, int dev,
			   struct mc_v1_device *out)
{
	struct mc_v1_device devs[MC_V1_DEVICES];
	int n = mc_host_v1_devices(p->rdma->host, &p->peer, devs);

	if (!n)
		return mc_err(-EOPNOTSUPP, "%s is not served by rdma",
			      p->peer.name);
	*out = devs[(dev + __atomic_load_n(&p->dev->turn, __ATOMIC_RELAXED)) %
		    n];
	for (int i = 0; i < n; i++)
		if (!strcmp(devs[i].name, p->peer.wish))
			*out = devs[i];
	return 0;
}

int mc_rdma_endpoint_connect(struct rdma_path *p, int dev,
			     uint64_t deadline_ns)
{
	char far[MC_V1_NIC_MAX];
	struct mc_v1_device d;
	bool fresh;
	int r = endpoint_choose(p, dev, &d);

	if (r < 0)
		return r;
	snprintf(far, sizeof(far), "%s@%s", p->peer.name, d.name);
	snprintf(p->base.remote_dev, sizeof(p->base.remote_dev), "%.44s/%s",
		 p->peer.name, d.name);
	p->far_dev = d.dev;
	r = endpoint_get(p, far, &fresh);
	if (!r && fresh)
		r = endpoint_ask(p, p->endpoint, &d, deadline_ns);
	if (r < 0)
		return r;
	pthread_mutex_lock(&p->rdma->endpoint_lock);
	p->endpoint->ready = true;
	pthread_mutex_unlock(&p->rdma->endpoint_lock);
	return 0;
}

/* ---- what they are told of -------------------------------------------- */

int mc_rdma_v1_devices(void *ctx, struct mc_v1_device *out, int max)
{
	struct rdma_ctx *c = ctx;
	int n = 0;

	for (int i = 0; i < c->n_devs && n < max; i++) {
		struct verbs_port port;

		if (endpoint_port(&c->devs[i], &port) < 0)
			continue;
		out[n] = (struct mc_v1_device){ .lid = port.lid, .dev = i };
		mc_copy(out[n].name, c->devs[i].v.name);
		memcpy(out[n].gid, port.gids[0].gid.raw, 16);
		n++;
	}
	return n;
}
