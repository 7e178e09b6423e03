/*
 * rdma_end.c - one end of a connection. The end that sends has a completion
 * queue and a channel of its own, so that whoever waits for its slices looks at
 * nothing else; those that only answer share one, in which notifications
 * arrive.
 */
#include "rdma.h"

#include "../base/clock.h"
#include "../base/err.h"
#include "../base/util.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/random.h>
#include <unistd.h>

enum {
	END_DEPTH = 512,		/* requests in flight */
	END_INLINE = 128,
	/* A peer is out of reach after (retries + 1) times 4.096 us times
	 * 2^timeout: about half a second. */
	END_TIMEOUT = 14,
	END_RETRIES = 6,
	END_HOPS = 64,
	END_RNR = 12,
	END_ANSWERS = 16,		/* to notifications, in flight */
	END_LOOK_US = 50,
};

int mc_rdma_channel(struct rdma_dev *d, int n, struct ibv_comp_channel **ch,
		    struct ibv_cq **cq)
{
	*ch = mc_verbs.create_comp_channel(d->v.ctx);
	if (!*ch)
		return mc_syserr(-errno, "rdma: %s: completion channel",
				 d->v.name);
	fcntl((*ch)->fd, F_SETFL, fcntl((*ch)->fd, F_GETFL) | O_NONBLOCK);
	*cq = mc_verbs.create_cq(d->v.ctx, n, NULL, *ch, 0);
	return *cq ? 0 : mc_syserr(-errno, "rdma: %s: completion queue of %d",
				   d->v.name, n);
}

static int end_queue_pair(struct rdma_dev *d, struct rdma_end *e)
{
	bool sends = e->channel;
	struct ibv_qp_init_attr a = {
		.send_cq = sends ? e->cq : d->cq,
		.recv_cq = sends ? e->cq : d->cq,
		.qp_type = IBV_QPT_RC,
		.cap = { .max_send_wr = e->depth, .max_recv_wr = 1,
			 .max_send_sge = e->sges, .max_recv_sge = 1,
			 .max_inline_data = e->inline_max },
	};

	e->qp = mc_verbs.create_qp(d->pd, &a);
	/* Some devices take no data inline. */
	if (!e->qp && e->inline_max) {
		e->inline_max = a.cap.max_inline_data = 0;
		e->qp = mc_verbs.create_qp(d->pd, &a);
	}
	return e->qp ? 0 : mc_syserr(-errno, "rdma: %s: queue pair of %u "
				     "requests", d->v.name, e->depth);
}

static int end_modify(struct rdma_dev *d, struct rdma_end *e,
		      struct ibv_qp_attr *a, int mask, const char *what)
{
	int r = mc_verbs.modify_qp(e->qp, a, mask);

	return r ? mc_syserr(-r, "rdma: %s: %s", d->v.name, what) : 0;
}

static int end_begin(struct rdma_dev *d, struct rdma_end *e)
{
	struct ibv_qp_attr a = {
		.qp_state = IBV_QPS_INIT, .port_num = d->v.port,
		.pkey_index = mc_env_number("MC_PKEY_INDEX", 0, 65535, 0),
		.qp_access_flags = IBV_ACCESS_LOCAL_WRITE |
			IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_WRITE,
	};

	return end_modify(d, e, &a, IBV_QP_STATE | IBV_QP_PKEY_INDEX |
			  IBV_QP_PORT | IBV_QP_ACCESS_FLAGS, "queue pair to "
			  "INIT");
}

int mc_rdma_end_open(struct rdma_dev *d, bool sends, struct rdma_end *out)
{
	const struct ibv_device_attr *max = &d->v.attr;
	struct rdma_end e = { .depth = END_ANSWERS, .sges = 1 };
	int r = 0;

	if (sends) {
		e.depth = mc_env_number("MC_MAX_WR", 16, 16384, END_DEPTH);
		e.depth = mc_min((int)e.depth, mc_min(max->max_qp_wr,
						      max->max_cqe));
		e.sges = mc_min(RDMA_SGES, max->max_sge);
		e.inline_max = mc_env_number("MC_MAX_INLINE", 0, 1024,
					    END_INLINE);
		r = mc_rdma_channel(d, e.depth, &e.channel, &e.cq);
	}
	if (!r)
		r = end_queue_pair(d, &e);
	if (!r)
		r = end_begin(d, &e);
	if (r < 0) {
		mc_rdma_end_close(&e);
		return r;
	}
	if (getrandom(&e.psn, sizeof(e.psn), 0) < 0)
		e.psn = mc_clock_ns();
	e.psn &= 0xffffff;
	*out = e;
	return 0;
}

static void end_address(struct rdma_dev *d, const struct rdma_far *far,
			struct ibv_ah_attr *ah)
{
	ah->is_global = 1;
	ah->port_num = d->v.port;
	ah->dlid = far->lid;
	ah->sl = mc_env_number("MC_IB_SL", 0, 15, 0);
	ah->grh.sgid_index = far->sgid_index;
	ah->grh.hop_limit = END_HOPS;
	ah->grh.traffic_class = mc_env_number("MC_IB_TC", 0, 255, 0);
	memcpy(ah->grh.dgid.raw, far->gid, 16);
}

static enum ibv_mtu end_mtu(int bytes)
{
	enum ibv_mtu m = IBV_MTU_256;

	while (m < IBV_MTU_4096 && (256 << m) <= bytes)
		m++;
	return m;
}

/* Ready to receive: this is where the kernel looks for a way to the peer. */
static int end_reach(struct rdma_dev *d, struct rdma_end *e,
		     const struct rdma_far *far)
{
	char gid[VERBS_GID_TEXT], what[128];
	struct ibv_qp_attr a = {
		.qp_state = IBV_QPS_RTR, .path_mtu = end_mtu(far->mtu),
		.dest_qp_num = far->qpn, .rq_psn = far->psn,
		.max_dest_rd_atomic = far->rd_atomic, .min_rnr_timer = END_RNR,
	};

	end_address(d, far, &a.ah_attr);
	mc_verbs_gid_text(far->gid, gid);
	snprintf(what, sizeof(what), "no way to %s from GID %d with an MTU of "
		 "%d", gid, far->sgid_index, far->mtu);
	return end_modify(d, e, &a, IBV_QP_STATE | IBV_QP_AV |
			  IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
			  IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER,
			  what);
}

static int end_ready(struct rdma_dev *d, struct rdma_end *e,
		     const struct rdma_far *far)
{
	struct ibv_qp_attr a = {
		.qp_state = IBV_QPS_RTS, .sq_psn = e->psn, .rnr_retry = 7,
		.timeout = mc_env_number("MC_IB_TIMEOUT", 1, 31, END_TIMEOUT),
		.retry_cnt = mc_env_number("MC_IB_RETRIES", 0, 6, END_RETRIES),
		.max_rd_atomic = mc_min((int)far->rd_atomic,
					d->v.attr.max_qp_init_rd_atom),
	};

	return end_modify(d, e, &a, IBV_QP_STATE | IBV_QP_TIMEOUT |
			  IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_SQ_PSN |
			  IBV_QP_MAX_QP_RD_ATOMIC, "queue pair to RTS");
}

int mc_rdma_end_join(struct rdma_dev *d, struct rdma_end *e,
		     const struct rdma_far *far)
{
	int r = end_reach(d, e, far);

	return r < 0 ? r : end_ready(d, e, far);
}

void mc_rdma_end_stop(struct rdma_end *e, uint64_t last, uint64_t deadline_ns)
{
	struct ibv_qp_attr a = { .qp_state = IBV_QPS_ERR };
	struct ibv_wc wc;
	bool seen = !last;

	if (!e->qp || mc_verbs.modify_qp(e->qp, &a, IBV_QP_STATE))
		return;
	/* What was posted comes back, the last one at the end. */
	while (!seen) {
		int n = ibv_poll_cq(e->cq, 1, &wc);

		if (n > 0)
			seen = wc.wr_id == last;
		else if (n < 0 || mc_clock_ns() > deadline_ns)
			break;
		else
			usleep(END_LOOK_US);
	}
}

void mc_rdma_end_close(struct rdma_end *e)
{
	if (e->qp)
		mc_verbs.destroy_qp(e->qp);
	if (e->cq)
		mc_verbs.destroy_cq(e->cq);
	if (e->channel)
		mc_verbs.destroy_comp_channel(e->channel);
	e->qp = NULL;
	e->cq = NULL;
	e->channel = NULL;
}
