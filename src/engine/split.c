/*
 * split.c - requests to pieces. A piece is as long as it can be: it ends where
 * a local or a remote range ends. Each lies in one buffer at both ends, or the
 * request is refused with the reason.
 */
#include "engine.h"

void split_init(struct split *s, struct mc_engine *e, const struct mc_req *q,
		int n, uint64_t max_len)
{
	*s = (struct split){ .e = e, .reqs = q, .n = n, .i = -1,
			     .max_len = max_len };
}

void split_fini(struct split *s)
{
	buffer_drop(s->local);
	desc_put(s->desc);
	peer_drop(s->peer);
	s->peer = NULL;
	s->local = NULL;
	s->desc = NULL;
}

/* UINT64_MAX for what wraps around: no memory is that large. */
static uint64_t split_sum(const struct mc_range *r, uint32_t n)
{
	uint64_t sum = 0;

	for (uint32_t i = 0; i < n; i++)
		if (__builtin_add_overflow(sum, r[i].len, &sum))
			return UINT64_MAX;
	return sum;
}

static int split_lists(struct split *s, const struct mc_req *q)
{
	if (!q->locals && !q->remotes) {
		s->lone[0] = (struct mc_range){ (uint64_t)q->buf, q->len };
		s->lone[1] = (struct mc_range){ q->remote, q->len };
		s->l = &s->lone[0];
		s->r = &s->lone[1];
		s->nl = s->nr = 1;
		return 0;
	}
	if (!q->locals || !q->remotes ||
	    split_sum(q->locals, q->n_locals) == UINT64_MAX ||
	    split_sum(q->locals, q->n_locals) !=
	    split_sum(q->remotes, q->n_remotes))
		return mc_err(-EINVAL, "request %d: its local and remote "
			      "ranges differ in length", s->i);
	s->l = q->locals;
	s->nl = q->n_locals;
	s->r = q->remotes;
	s->nr = q->n_remotes;
	return 0;
}

/* What the descriptor at hand does not know, a newer one may. */
static int split_refresh(struct split *s)
{
	uint64_t deadline = mc_clock_ns() + 500 * (uint64_t)MC_MS;
	int r = peer_refresh(s->peer, deadline);

	if (r < 0)
		return r;
	desc_put(s->desc);
	s->desc = desc_get(s->peer);
	s->hint = 0;
	return 0;
}

/* One of a peer's past life is asked anew: what it says may look right. */
static void split_describe(struct split *s)
{
	bool current;

	desc_put(s->desc);
	s->desc = desc_get_at(s->peer, &current);
	s->hint = 0;
	if (s->desc && !current)
		split_refresh(s);
}

static int split_request(struct split *s)
{
	const struct mc_req *q = &s->reqs[s->i];
	struct peer *p;

	if (q->op != MC_READ && q->op != MC_WRITE)
		return mc_err(-EINVAL, "request %d: no such operation", s->i);
	if (!s->peer || s->peer->id != q->segment) {
		p = peer_use(s->e, q->segment);
		if (!p)
			return mc_err(-EINVAL, "request %d: no segment %d is "
				      "open", s->i, q->segment);
		peer_drop(s->peer);
		s->peer = p;
		split_describe(s);
	}
	s->il = s->ir = 0;
	s->ol = s->or = 0;
	return split_lists(s, q);
}

/* Past ranges that are used up; false at the request's end. */
static bool split_skip(struct split *s)
{
	while (s->il < s->nl && s->ol == s->l[s->il].len) {
		s->il++;
		s->ol = 0;
	}
	while (s->ir < s->nr && s->or == s->r[s->ir].len) {
		s->ir++;
		s->or = 0;
	}
	return s->il < s->nl && s->ir < s->nr;
}

static int split_local(struct split *s, uint64_t addr, uint64_t len)
{
	struct buffer *b = s->local;

	if (b && addr - b->node.addr < b->node.len &&
	    len <= b->node.len - (addr - b->node.addr))
		return 0;
	b = buffer_use(s->e, addr, len);
	if (!b)
		return mc_err(-EFAULT, "request %d: local %#llx+%llu is in no "
			      "registered buffer", s->i, (long long)addr,
			      (long long)len);
	buffer_drop(s->local);
	s->local = b;
	return 0;
}

static const struct mc_buffer_info *split_find(struct split *s, uint64_t addr,
					       uint64_t len)
{
	return s->desc ? desc_find(s->desc, addr, len, &s->hint) : NULL;
}

static int split_remote(struct split *s, uint64_t addr, uint64_t len,
			uint32_t *id)
{
	bool read = s->reqs[s->i].op == MC_READ;
	unsigned need = read ? MC_REMOTE_READ : MC_REMOTE_WRITE;
	const struct mc_buffer_info *b = split_find(s, addr, len);
	int r;

	if (!b || !(b->access & need)) {
		r = split_refresh(s);
		if (r < 0 && !b)
			return r;
		if (!r)
			b = split_find(s, addr, len);
	}
	if (!b)
		return mc_err(-EFAULT, "request %d: remote %#llx+%llu is in no "
			      "buffer of %s", s->i, (long long)addr,
			      (long long)len, s->peer->at.name);
	if (!(b->access & need))
		return mc_err(-EACCES, "request %d: the buffer at %#llx of %s "
			      "may not be %s", s->i, (long long)b->addr,
			      s->peer->at.name, read ? "read" : "written");
	*id = b->id;
	s->far_gpu = b->gpu;
	return 0;
}

int split_place(const struct split *s)
{
	return s->hint < s->desc->n ?
	       mc_matrix_place(s->desc->matrix,
			       s->desc->buf[s->hint].location) : -1;
}

int split_next(struct split *s, struct mc_piece *out)
{
	uint64_t local, remote, len;
	int r;

	while (s->i < 0 || !split_skip(s)) {
		if (++s->i >= s->n)
			return 0;
		r = split_request(s);
		if (r < 0)
			return r;
	}
	len = mc_min(s->l[s->il].len - s->ol, s->r[s->ir].len - s->or);
	len = mc_min(len, s->max_len);
	local = s->l[s->il].addr + s->ol;
	remote = s->r[s->ir].addr + s->or;
	r = split_local(s, local, len);
	if (!r)
		r = split_remote(s, remote, len, &out->id);
	if (r < 0)
		return r;
	out->local = (void *)local;
	out->remote = remote;
	out->len = len;
	s->ol += len;
	s->or += len;
	return 1;
}
