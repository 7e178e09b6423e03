/*
 * rdma_note.c - notifications, as messages on the connection that writes go by.
 *
 * A path has one on its way at a time. The end at the peer has one receive
 * posted for it; a worker there takes the notification, posts the receive
 * again, and answers with an empty message whose immediate is the outcome. So
 * there is always a receive for what comes.
 *
 * Whoever waits for an answer reads a word of the peer's memory from time to
 * time: its device answers for a process that is frozen, and not for a dead
 * one. If the connection fails before the answer, the peer, which is asked to
 * end its end of the path (rdma_connect.c), also says how many notifications it
 * has taken there. What it has not taken then it never will, so each is taken
 * once.
 */
#include "rdma.h"

#include "../base/clock.h"
#include "../base/err.h"
#include "../base/util.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>

enum {
	NOTE_REAP = 16,			/* completions taken at a time */
	NOTE_ERRNOS = 4096,
	NOTE_PATIENCE_MS = 200,
};

static int note_mem_open(struct rdma_dev *d, struct rdma_note_mem *l)
{
	l->bytes = aligned_alloc(4096, MC_NOTE_MAX);
	if (!l->bytes)
		return mc_err(-ENOMEM, "out of memory");
	l->mr = mc_verbs.reg_mr_iova2(d->pd, l->bytes, MC_NOTE_MAX,
				      (uintptr_t)l->bytes,
				      IBV_ACCESS_LOCAL_WRITE);
	return l->mr ? 0 : mc_syserr(-errno, "rdma: %s: memory for "
				     "notifications", d->v.name);
}

void mc_rdma_note_mem_close(struct rdma_note_mem *l)
{
	if (l->mr)
		mc_verbs.dereg_mr(l->mr);
	free(l->bytes);
	*l = (struct rdma_note_mem){ 0 };
}

/* ---- the end that is told ------------------------------------------- */

static int note_receive(struct rdma_served *s)
{
	struct ibv_sge sge = { (uintptr_t)s->note_mem.bytes, MC_NOTE_MAX,
			       s->note_mem.mr->lkey };
	struct ibv_recv_wr *bad, wr = { .wr_id = s->token, .sg_list = &sge,
					.num_sge = 1 };

	return ibv_post_recv(s->end.qp, &wr, &bad);
}

int mc_rdma_notes_receive(struct rdma_dev *d, struct rdma_served *s)
{
	int r = note_mem_open(d, &s->note_mem);

	if (r < 0)
		return r;
	r = note_receive(s);
	return r ? mc_syserr(-r, "rdma: %s: receiving", d->v.name) : 0;
}

/* What cannot be answered stays unanswered: the peer gives the path up. */
static void note_answer(struct rdma_served *s, int status)
{
	struct ibv_send_wr *bad, wr = {
		.opcode = IBV_WR_SEND_WITH_IMM,
		.send_flags = IBV_SEND_SIGNALED,
		.imm_data = htonl(-status),
	};

	if (note_receive(s) || ibv_post_send(s->end.qp, &wr, &bad))
		mc_log(MC_WARN, "rdma", "%s: a notification of it cannot be "
		       "answered", s->peer);
}

static void note_take(struct rdma_ctx *c, struct rdma_served *s, uint32_t len)
{
	const char *name = s->note_mem.bytes;
	uint32_t n = strnlen(name, len) + 1;
	int r = n > len ? -EPROTO :
		mc_host_notified(c->host, s->peer, name, name + n, len - n);

	s->notes += !r;
	note_answer(s, r);
}

/* One whose end is gone is not taken. */
static void note_arrived(struct rdma_ctx *c, const struct ibv_wc *wc)
{
	struct rdma_served *s;

	if (wc->status != IBV_WC_SUCCESS || wc->opcode != IBV_WC_RECV)
		return;
	pthread_mutex_lock(&c->served_lock);
	for (s = c->served; s && s->token != wc->wr_id; s = s->next)
		;
	if (s)
		note_take(c, s, wc->byte_len);
	pthread_mutex_unlock(&c->served_lock);
}

static void notes_on_event(struct mc_event *ev, uint32_t events)
{
	struct rdma_dev *d = mc_container_of(ev, struct rdma_dev, notes);
	struct ibv_wc wc[NOTE_REAP];
	struct ibv_cq *cq;
	unsigned told = 0;
	void *arg;
	int n;

	(void)events;
	while (!mc_verbs.get_cq_event(d->channel, &cq, &arg))
		told++;
	if (told)
		mc_verbs.ack_cq_events(d->cq, told);
	/* Asked for before looking, or what comes in between is not told. */
	ibv_req_notify_cq(d->cq, 0);
	while ((n = ibv_poll_cq(d->cq, NOTE_REAP, wc)) > 0)
		for (int i = 0; i < n; i++)
			note_arrived(d->rdma, &wc[i]);
}

int mc_rdma_notes_serve(struct rdma_ctx *c, struct rdma_dev *d)
{
	/* Of each end a receive, and an answer that has been sent. */
	int n = mc_min(2 * RDMA_SERVED, d->v.attr.max_cqe);
	int r = mc_rdma_channel(d, n, &d->channel, &d->cq);

	if (r < 0)
		return r;
	d->rdma = c;
	ibv_req_notify_cq(d->cq, 0);
	d->notes = (struct mc_event){ notes_on_event, d->channel->fd };
	return mc_host_watch(c->host, &d->notes);
}

/* ---- the end that tells --------------------------------------------- */

/* An answer has no bytes, only its immediate. */
static int note_expect(struct rdma_path *p)
{
	struct ibv_recv_wr *bad, wr = { .wr_id = RDMA_ANSWER };

	return ibv_post_recv(p->end.qp, &wr, &bad);
}

int mc_rdma_notes_open(struct rdma_path *p)
{
	int r = note_mem_open(p->dev, &p->note_mem);

	if (r < 0)
		return r;
	r = note_expect(p);
	if (r)
		return mc_syserr(-r, "%s: receiving", p->dev->v.name);
	p->base.notes = true;
	return 0;
}

static struct mc_slice *note_next(struct rdma_path *p)
{
	struct mc_slice *s = p->notes;

	p->notes = s->next;
	if (!p->notes)
		p->notes_tail = &p->notes;
	return s;
}

void mc_rdma_notes_push(struct rdma_path *p)
{
	struct ibv_sge sge = { (uintptr_t)p->note_mem.bytes, 0, 0 };
	struct ibv_send_wr wr = {
		.sg_list = &sge, .num_sge = 1, .opcode = IBV_WR_SEND,
	};

	if (!p->notes || p->note_sent || p->note_answered || p->base.err ||
	    p->posted - p->done >= p->end.depth)
		return;
	p->note_sent = note_next(p);
	sge.length = p->note_sent->len;
	sge.lkey = p->note_mem.mr->lkey;
	memcpy(p->note_mem.bytes, p->note_sent->note, sge.length);
	if (sge.length <= p->end.inline_max)
		wr.send_flags = IBV_SEND_INLINE;
	p->note_request = mc_rdma_path_request(p, &wr);
}

void mc_rdma_notes_look(struct rdma_path *p, uint64_t now)
{
	struct mc_slice *s = p->note_sent;
	struct ibv_sge sge = { (uintptr_t)p->note_mem.bytes, 8, 0 };
	struct ibv_send_wr wr = {
		.sg_list = &sge, .num_sge = 1, .opcode = IBV_WR_RDMA_READ,
		.wr.rdma = { p->keys.addr, p->keys.rkey },
	};

	if (!s || !s->there || p->posted - p->done >= p->end.depth ||
	    now < s->posted_ns + NOTE_PATIENCE_MS * (uint64_t)MC_MS)
		return;
	sge.lkey = p->note_mem.mr->lkey;
	s->there = false;
	s->posted_ns = now;
	p->note_look = p->note_request = mc_rdma_path_request(p, &wr);
}

static void note_explain(const struct rdma_path *p, struct mc_slice *s)
{
	if (s->err == -ENOBUFS)
		snprintf(s->why, MC_WHY_MAX, "too many notifications wait "
			 "there for someone to take them");
	else
		snprintf(s->why, MC_WHY_MAX, "%s refused it: %s",
			 p->peer.name, strerror(-s->err));
}

/* Used with care: the peer may say anything. */
static int note_status(const struct ibv_wc *wc)
{
	uint32_t status = ntohl(wc->imm_data);

	return wc->wc_flags & IBV_WC_WITH_IMM && status < NOTE_ERRNOS ?
	       -(int)status : -EPROTO;
}

void mc_rdma_note_answered(struct rdma_path *p, const struct ibv_wc *wc)
{
	struct mc_slice *s = p->note_sent;

	/* What broke the connection is told by the request that it broke. */
	if (p->base.err || wc->status == IBV_WC_WR_FLUSH_ERR)
		return;
	if (wc->status != IBV_WC_SUCCESS || !s || note_expect(p)) {
		mc_rdma_path_broken(p, wc);
		return;
	}
	s->err = note_status(wc);
	if (s->err)
		note_explain(p, s);
	else
		p->notes_taken++;
	p->note_sent = NULL;
	p->note_answered = s;
}

void mc_rdma_notes_settle(struct rdma_path *p, int64_t taken)
{
	struct mc_slice *s = p->note_sent;

	if (s && taken < 0)
		s->err = -ECONNRESET;
	else if (s && taken == p->notes_taken + 1ll)
		s->err = 0;
	p->note_sent = p->note_answered = p->notes = NULL;
	p->notes_tail = &p->notes;
}
