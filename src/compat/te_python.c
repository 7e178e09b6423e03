/* te_python.c - see te_python.h. */
#include "te_python.h"
#include "te.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
	PYTHON_REQS = 256,		/* on the stack */
	PYTHON_LIST = 64,		/* buffers read at once */
};

const char *mc_te_why(void)
{
	return te_why();
}

/* ---- engines -------------------------------------------------------- */

void *mc_te_open(const char *metadata, const char *name, const char *protocol,
		 const char *devices)
{
	struct te_config c = { .metadata = metadata, .name = name,
			       .protocol = protocol, .devices = devices };
	struct te_engine *te;

	return te_open(&te, &c) < 0 ? NULL : te;
}

const char *mc_te_note(void *engine)
{
	return ((struct te_engine *)engine)->note;
}

bool mc_te_shutdown(void *engine, int wait_ms)
{
	return te_close(engine, wait_ms);
}

void mc_te_free(void *engine)
{
	te_destroy(engine);
}

int mc_te_port(void *engine)
{
	struct te_engine *te = engine;
	const char *colon;
	int r = te_enter(te);

	if (r < 0)
		return r;
	colon = strrchr(mc_engine_addr(te->mc), ':');
	r = colon ? atoi(colon + 1) : 0;
	te_leave(te);
	return r;
}

/* ---- segments ------------------------------------------------------- */

int mc_te_segment(void *engine, const char *name)
{
	int r = te_enter(engine);

	if (!r) {
		r = te_segment_open(engine, name);
		te_leave(engine);
	}
	return r;
}

int mc_te_probe(void *engine, const char *name)
{
	struct te_engine *te = engine;
	double rtt;
	int r = te_enter(te);

	if (r < 0)
		return r;
	r = te_segment_open(te, name);
	if (r >= 0)
		r = te_segment(te, r);
	if (r >= 0)
		r = te_mc(mc_probe(te->mc, r, te->open_ms, &rtt));
	te_leave(te);
	return r;
}

/* The one registered first: ids are given in order. */
static uint64_t python_first(struct te_engine *te, int id)
{
	struct mc_buffer_info list[PYTHON_LIST];
	uint64_t addr = 0, skip = 0;
	uint32_t least = UINT32_MAX;
	int n;

	do {
		n = te_mc(mc_segment_list(te->mc, id, skip, list,
					  PYTHON_LIST));
		for (int i = 0; i < n; i++)
			if (list[i].access && list[i].id < least) {
				least = list[i].id;
				addr = list[i].addr;
			}
		skip += n;
	} while (n == PYTHON_LIST);
	return addr;
}

uint64_t mc_te_first_buffer(void *engine, int segment)
{
	struct te_engine *te = engine;
	uint64_t addr = 0;
	int id;

	if (te_enter(te) < 0)
		return 0;
	id = te_segment(te, segment);
	if (id >= 0)
		addr = python_first(te, id);
	te_leave(te);
	return addr;
}

/* ---- memory --------------------------------------------------------- */

int mc_te_register(void *engine, const uint64_t *addrs, const uint64_t *lens,
		   uint64_t n, const char *location)
{
	struct te_engine *te = engine;
	uint64_t i = 0;
	int r = te_enter(te);

	if (r < 0)
		return te_code(r);
	while (!r && i < n) {
		r = te_register(te, (void *)(uintptr_t)addrs[i], lens[i],
				location, true);
		i += !r;
	}
	while (r < 0 && i)
		mc_buffer_unreg(te->mc, (void *)(uintptr_t)addrs[--i]);
	te_leave(te);
	return te_code(r);
}

int mc_te_unregister(void *engine, const uint64_t *addrs, uint64_t n)
{
	struct te_engine *te = engine;
	int r = te_enter(te);

	if (r < 0)
		return te_code(r);
	for (uint64_t i = 0; i < n; i++) {
		int one = mc_buffer_unreg(te->mc, (void *)(uintptr_t)addrs[i]);

		if (one < 0 && !r)
			r = te_mc(one);
	}
	te_leave(te);
	return te_code(r);
}

uint64_t mc_te_alloc(void *engine, uint64_t len)
{
	struct te_engine *te = engine;
	void *p = NULL;

	if (te_enter(te) < 0)
		return 0;
	if (te_mc(mc_buffer_alloc(te->mc, len, MC_REMOTE_RW, 0, -1, &p)) < 0)
		p = NULL;
	te_leave(te);
	return (uintptr_t)p;
}

int mc_te_alloc_free(void *engine, uint64_t addr)
{
	struct te_engine *te = engine;
	int r = te_enter(te);

	if (r < 0)
		return te_code(r);
	r = te_mc(mc_buffer_free(te->mc, (void *)(uintptr_t)addr));
	te_leave(te);
	return te_code(r);
}

/* ---- transfers ------------------------------------------------------ */

struct python_list {
	struct mc_req few[PYTHON_REQS];
	struct mc_req *reqs;
};

static int python_reqs(struct te_engine *te, struct python_list *l,
		       int segment, int opcode, uint64_t n,
		       const uint64_t *bufs, const uint64_t *remotes,
		       const uint64_t *lens)
{
	int id = te_segment(te, segment);

	l->reqs = l->few;
	if (id < 0)
		return id;
	if (n > INT32_MAX)
		return te_err(-EINVAL, "%llu requests are too many",
			      (unsigned long long)n);
	if (n > PYTHON_REQS)
		l->reqs = malloc(n * sizeof(*l->reqs));
	if (!l->reqs)
		return te_err(-ENOMEM, "out of memory");
	for (uint64_t i = 0; i < n; i++)
		l->reqs[i] = (struct mc_req){
			.op = opcode == OPCODE_READ ? MC_READ : MC_WRITE,
			.segment = id, .buf = (void *)(uintptr_t)bufs[i],
			.remote = remotes[i], .len = lens[i],
		};
	return 0;
}

static void python_drop(struct python_list *l)
{
	if (l->reqs != l->few)
		free(l->reqs);
}

int mc_te_transfer(void *engine, int segment, int opcode, uint64_t n,
		   const uint64_t *bufs, const uint64_t *remotes,
		   const uint64_t *lens, const char *notify_name,
		   const char *notify_msg, uint32_t notify_len)
{
	struct te_engine *te = engine;
	struct mc_batch_opts o = { .notify_name = notify_name,
		.notify_msg = notify_msg, .notify_len = notify_len };
	struct python_list l;
	int r = te_enter(te);

	if (r < 0)
		return r;
	r = python_reqs(te, &l, segment, opcode, n, bufs, remotes, lens);
	if (!r) {
		o.notify_segment = te_segment(te, segment);
		r = te_mc(mc_transfer(te->mc, l.reqs, n,
				      notify_name ? &o : NULL, NULL));
	}
	python_drop(&l);
	te_leave(te);
	return r;
}

int mc_te_transfer_one(const struct mc_te_piece *p)
{
	struct te_engine *te = p->engine;
	struct mc_req q = {
		.op = p->opcode == OPCODE_READ ? MC_READ : MC_WRITE,
		.buf = (void *)(uintptr_t)p->buf, .remote = p->remote,
		.len = p->len,
	};
	int r = te_enter(te);

	if (r < 0)
		return r;
	q.segment = te_segment(te, p->segment);
	r = q.segment < 0 ? q.segment :
	    te_mc(mc_transfer(te->mc, &q, 1, NULL, NULL));
	te_leave(te);
	return r;
}

uint64_t mc_te_submit(void *engine, int segment, int opcode, uint64_t n,
		      const uint64_t *bufs, const uint64_t *remotes,
		      const uint64_t *lens)
{
	struct te_engine *te = engine;
	uint64_t id = INVALID_BATCH;
	struct python_list l;
	int r;

	if (te_enter(te) < 0)
		return 0;
	r = python_reqs(te, &l, segment, opcode, n, bufs, remotes, lens);
	if (!r)
		id = te_batch_alloc(te, n);
	if (id != INVALID_BATCH &&
	    te_batch_submit(te, id, l.reqs, n, NULL) < 0) {
		te_batch_free(te, id);
		id = INVALID_BATCH;
	}
	python_drop(&l);
	te_leave(te);
	return id == INVALID_BATCH ? 0 : id;
}

int mc_te_check(void *engine, uint64_t batch, bool wait)
{
	struct te_engine *te = engine;
	int s, r = te_enter(te);

	if (r < 0)
		return -1;
	s = te_batch_outcome(te, batch, wait);
	r = s == STATUS_COMPLETED ? 1 : s == STATUS_PENDING ? 0 : -1;
	if (r)
		te_batch_free(te, batch);
	te_leave(te);
	return r;
}

/* ---- notifications, texts ------------------------------------------- */

int mc_te_notify_next(void *engine, struct mc_te_message *out)
{
	struct te_engine *te = engine;
	struct mc_notify n;
	int r = te_enter(te);

	if (r < 0)
		return r;
	r = mc_notify_next(te->mc, &n);
	te_leave(te);
	if (r <= 0)
		return r;
	memcpy(out->name, n.name, sizeof(out->name));
	out->msg = n.msg;
	out->len = n.len;
	return 1;
}

void mc_te_notify_free(struct mc_te_message *m)
{
	struct mc_notify n = { .msg = m->msg };

	mc_notify_free(&n);
}

char *mc_te_topology(const char *devices)
{
	return te_topology(devices);
}

void mc_te_text_free(char *text)
{
	free(text);
}
