/*
 * ibverbs.c - a libibverbs.so.1 whose one device does at once what it is asked,
 * in the memory of this process: for counting our own instructions, and for
 * nothing else (tests/bench/instructions.c).
 */
#include <errno.h>
#include <infiniband/verbs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { RING = 4096 };

struct stub_cq {
	struct ibv_cq cq;
	uint64_t ids[RING];		/* of requests done and not heard of */
	unsigned in, out;
};

static struct ibv_device device = {
	.node_type = IBV_NODE_CA, .transport_type = IBV_TRANSPORT_IB,
	.name = "stub0", .dev_name = "uverbs0",
};

static int post_send(struct ibv_qp *qp, struct ibv_send_wr *wr,
		     struct ibv_send_wr **bad)
{
	struct stub_cq *c = (struct stub_cq *)qp->send_cq;

	(void)bad;
	for (; wr; wr = wr->next) {
		char *far = (char *)(uintptr_t)wr->wr.rdma.remote_addr;

		for (int i = 0; i < wr->num_sge; i++) {
			void *near = (void *)(uintptr_t)wr->sg_list[i].addr;
			uint32_t n = wr->sg_list[i].length;

			if (wr->opcode == IBV_WR_RDMA_READ)
				memcpy(near, far, n);
			else
				memcpy(far, near, n);
			far += n;
		}
		if (wr->send_flags & IBV_SEND_SIGNALED)
			c->ids[c->in++ % RING] = wr->wr_id;
	}
	return 0;
}

static int poll_cq(struct ibv_cq *cq, int max, struct ibv_wc *wc)
{
	struct stub_cq *c = (struct stub_cq *)cq;
	int n = 0;

	for (; n < max && c->out != c->in; n++)
		wc[n] = (struct ibv_wc){ .wr_id = c->ids[c->out++ % RING] };
	return n;
}

/* Nothing is sent to it. */
static int post_recv(struct ibv_qp *qp, struct ibv_recv_wr *wr,
		     struct ibv_recv_wr **bad)
{
	(void)qp;
	(void)wr;
	(void)bad;
	return 0;
}

static int req_notify_cq(struct ibv_cq *cq, int solicited)
{
	(void)cq;
	(void)solicited;
	return 0;
}

static int query_port(struct ibv_context *ctx, uint8_t num,
		      struct ibv_port_attr *a, size_t len)
{
	(void)ctx;
	(void)num;
	memset(a, 0, len);
	a->state = IBV_PORT_ACTIVE;
	a->active_mtu = IBV_MTU_4096;
	a->active_width = 2;
	a->active_speed = 32;
	a->gid_tbl_len = 1;
	a->link_layer = IBV_LINK_LAYER_ETHERNET;
	return 0;
}

/* ---- what is exported ------------------------------------------------ */

struct ibv_device **ibv_get_device_list(int *n)
{
	struct ibv_device **list = calloc(2, sizeof(*list));

	list[0] = &device;
	*n = 1;
	return list;
}

void ibv_free_device_list(struct ibv_device **list)
{
	free(list);
}

const char *ibv_get_device_name(struct ibv_device *d)
{
	return d->name;
}

struct ibv_context *ibv_open_device(struct ibv_device *d)
{
	struct verbs_context *v = calloc(1, sizeof(*v));

	v->sz = sizeof(*v);
	v->query_port = query_port;
	v->context = (struct ibv_context){
		.device = d, .async_fd = eventfd(0, EFD_NONBLOCK),
		.abi_compat = __VERBS_ABI_IS_EXTENDED,
		.ops = { .poll_cq = poll_cq, .req_notify_cq = req_notify_cq,
			 .post_send = post_send, .post_recv = post_recv },
	};
	return &v->context;
}

int ibv_close_device(struct ibv_context *ctx)
{
	close(ctx->async_fd);
	free(verbs_get_ctx(ctx));
	return 0;
}

int ibv_query_device(struct ibv_context *ctx, struct ibv_device_attr *a)
{
	(void)ctx;
	*a = (struct ibv_device_attr){
		.max_qp_wr = 16384, .max_cqe = RING, .max_sge = 30,
		.max_mr_size = UINT64_MAX, .max_qp_rd_atom = 16,
		.max_qp_init_rd_atom = 16, .phys_port_cnt = 1,
		.max_qp = 1024, .max_mr = 65536,
	};
	return 0;
}

ssize_t _ibv_query_gid_table(struct ibv_context *ctx, struct ibv_gid_entry *e,
			     size_t max, uint32_t flags, size_t size)
{
	(void)ctx;
	(void)max;
	(void)flags;
	memset(e, 0, size);
	e->port_num = 1;
	e->gid_type = IBV_GID_TYPE_ROCE_V2;
	memcpy(e->gid.raw, "\0\0\0\0\0\0\0\0\0\0\xff\xff\x0a\0\0\1", 16);
	return 1;
}

struct ibv_pd *ibv_alloc_pd(struct ibv_context *ctx)
{
	struct ibv_pd *pd = calloc(1, sizeof(*pd));

	pd->context = ctx;
	return pd;
}

int ibv_dealloc_pd(struct ibv_pd *pd)
{
	free(pd);
	return 0;
}

struct ibv_mr *ibv_reg_mr_iova2(struct ibv_pd *pd, void *addr, size_t len,
				uint64_t iova, unsigned access)
{
	static uint32_t keys;
	struct ibv_mr *mr = calloc(1, sizeof(*mr));

	(void)iova;
	(void)access;
	mr->context = pd->context;
	mr->pd = pd;
	mr->addr = addr;
	mr->length = len;
	mr->lkey = mr->rkey = __atomic_add_fetch(&keys, 1, __ATOMIC_RELAXED);
	return mr;
}

int ibv_dereg_mr(struct ibv_mr *mr)
{
	free(mr);
	return 0;
}

struct ibv_comp_channel *ibv_create_comp_channel(struct ibv_context *ctx)
{
	struct ibv_comp_channel *ch = calloc(1, sizeof(*ch));

	ch->context = ctx;
	ch->fd = eventfd(0, EFD_NONBLOCK);
	return ch;
}

int ibv_destroy_comp_channel(struct ibv_comp_channel *ch)
{
	close(ch->fd);
	free(ch);
	return 0;
}

struct ibv_cq *ibv_create_cq(struct ibv_context *ctx, int cqe, void *cq_context,
			     struct ibv_comp_channel *ch, int vector)
{
	struct stub_cq *c = calloc(1, sizeof(*c));

	(void)cqe;
	(void)vector;
	c->cq.context = ctx;
	c->cq.channel = ch;
	c->cq.cq_context = cq_context;
	return &c->cq;
}

int ibv_destroy_cq(struct ibv_cq *cq)
{
	free(cq);
	return 0;
}

/* No event ever comes: what is done is there at the first look. */
int ibv_get_cq_event(struct ibv_comp_channel *ch, struct ibv_cq **cq,
		     void **cq_context)
{
	(void)ch;
	(void)cq;
	(void)cq_context;
	errno = EAGAIN;
	return -1;
}

void ibv_ack_cq_events(struct ibv_cq *cq, unsigned n)
{
	(void)cq;
	(void)n;
}

struct ibv_qp *ibv_create_qp(struct ibv_pd *pd, struct ibv_qp_init_attr *a)
{
	static uint32_t numbers;
	struct ibv_qp *qp = calloc(1, sizeof(*qp));

	qp->context = pd->context;
	qp->pd = pd;
	qp->send_cq = a->send_cq;
	qp->recv_cq = a->recv_cq;
	qp->qp_num = __atomic_add_fetch(&numbers, 1, __ATOMIC_RELAXED);
	return qp;
}

int ibv_modify_qp(struct ibv_qp *qp, struct ibv_qp_attr *a, int mask)
{
	(void)mask;
	qp->state = a->qp_state;
	return 0;
}

int ibv_destroy_qp(struct ibv_qp *qp)
{
	free(qp);
	return 0;
}

int ibv_get_async_event(struct ibv_context *ctx, struct ibv_async_event *ev)
{
	(void)ctx;
	(void)ev;
	errno = EAGAIN;
	return -1;
}

void ibv_ack_async_event(struct ibv_async_event *ev)
{
	(void)ev;
}

const char *ibv_wc_status_str(enum ibv_wc_status status)
{
	return status ? "failed" : "success";
}

const char *ibv_event_type_str(enum ibv_event_type type)
{
	(void)type;
	return "event";
}

int ibv_fork_init(void)
{
	return 0;
}
