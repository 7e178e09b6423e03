/*
 * batch_build.c - a batch from requests: their pieces (split.c), gathered into
 * slices, and what the options say.
 */
#include "engine.h"

enum {
	BATCH_SLICE = 4 << 20,
	BATCH_SLICE_MIN = 128 << 10,
};

static int batch_grow(void *array, uint32_t *cap, uint32_t need, size_t size)
{
	void **p = array;
	uint32_t n = *cap ? *cap : 16;
	void *q;

	if (need <= *cap)
		return 0;
	while (n < need)
		n *= 2;
	q = realloc(*p, n * size);
	if (!q)
		return mc_err(-ENOMEM, "out of memory");
	*p = q;
	*cap = n;
	return 0;
}

static int batch_add_piece(struct batch *b, const struct mc_piece *piece,
			   uint32_t req)
{
	uint32_t cap = b->cap_pieces;
	int r = batch_grow(&b->piece_req, &cap, b->n_pieces + 1,
			   sizeof(*b->piece_req));

	/* What says how large both are comes last. */
	if (!r)
		r = batch_grow(&b->pieces, &b->cap_pieces, b->n_pieces + 1,
			       sizeof(*b->pieces));
	if (r < 0)
		return r;
	b->pieces[b->n_pieces] = *piece;
	b->piece_req[b->n_pieces++] = req;
	b->reqs[req].left++;
	b->reqs[req].len += piece->len;
	return 0;
}

static int batch_hold(struct batch *b, struct buffer *buf)
{
	int r;

	if (b->n_held && b->held[b->n_held - 1] == buf)
		return 0;
	r = batch_grow(&b->held, &b->cap_held, b->n_held + 1,
		       sizeof(*b->held));
	if (r < 0)
		return r;
	__atomic_add_fetch(&buf->uses, 1, __ATOMIC_ACQ_REL);
	b->held[b->n_held++] = buf;
	return 0;
}

/* A slice for the piece just added, or the last one if it takes it. Pieces may
 * still move as the array grows: slices count them, and find them later. */
static int batch_slice(struct batch *b, struct split *s, uint64_t max_len,
		       uint32_t len)
{
	int op = s->reqs[s->i].op;
	struct slice *last = b->n_slices ? &b->slices[b->n_slices - 1] : NULL;
	int r;

	if (last && last->peer == s->peer && last->s.op == op &&
	    last->gpu == split_gpu(s) && last->s.n < WIRE_PIECES &&
	    last->s.len + len <= max_len) {
		last->s.n++;
		last->s.len += len;
		return 0;
	}
	r = batch_grow(&b->slices, &b->cap_slices, b->n_slices + 1,
		       sizeof(*b->slices));
	if (r < 0)
		return r;
	/* The batch keeps its peers; see batch_peers(). */
	if (!b->n_slices || b->slices[b->n_slices - 1].peer != s->peer)
		__atomic_add_fetch(&s->peer->batches, 1, __ATOMIC_ACQ_REL);
	last = &b->slices[b->n_slices++];
	*last = (struct slice){
		.s = { .op = op, .n = 1, .len = len },
		.batch = b, .peer = s->peer, .epoch = s->desc->epoch,
		.near = s->local->near, .place = split_place(s),
		.gpu = split_gpu(s),
	};
	return 0;
}

static void batch_point(struct batch *b)
{
	struct mc_piece *p = b->pieces;

	for (uint32_t i = 0; i < b->n_slices; i++) {
		struct slice *s = &b->slices[i];

		s->s.pieces = p;
		s->s.why = s->why;
		p += s->s.n;
	}
}

/* Paths that the slices may spread over. */
static uint64_t batch_lanes(struct mc_engine *e, int segment)
{
	struct peer *p = peer_use(e, segment);
	uint64_t lanes = 0;

	if (!p)
		return 0;
	pthread_mutex_lock(&p->lock);
	for (int i = 0; i < p->n_rails; i++)
		if (!rail_copies(p->rails[i]) &&
		    p->rails[i]->state != MC_RAIL_ABSENT)
			lanes += p->e->opts.streams;
	pthread_mutex_unlock(&p->lock);
	peer_drop(p);
	return lanes;
}

/* Small enough to give every lane its share, large enough to be worth a
 * frame. */
static uint64_t batch_slice_len(struct mc_engine *e, const struct mc_req *reqs,
				int n)
{
	uint64_t total = 0, lanes;

	if (e->opts.slice_bytes)
		return mc_min(e->opts.slice_bytes, (uint64_t)BATCH_SLICE);
	lanes = batch_lanes(e, n ? reqs[0].segment : -1);
	if (lanes < 2)
		return BATCH_SLICE;
	for (int i = 0; i < n; i++)
		total += reqs[i].len;
	total = total / (2 * lanes);
	return mc_max(mc_min(total, (uint64_t)BATCH_SLICE),
		      (uint64_t)BATCH_SLICE_MIN);
}

int batch_build(struct batch *b, const struct mc_req *reqs, int n)
{
	uint64_t max_len = batch_slice_len(b->e, reqs, n);
	struct mc_piece piece;
	struct split s;
	int r = batch_grow(&b->reqs, &b->cap_reqs, n, sizeof(*b->reqs));

	if (r < 0)
		return r;
	if (n)
		memset(b->reqs, 0, n * sizeof(*b->reqs));
	b->n_reqs = n;
	split_init(&s, b->e, reqs, n, max_len);
	while ((r = split_next(&s, &piece)) > 0) {
		r = batch_add_piece(b, &piece, s.i);
		if (!r)
			r = batch_hold(b, s.local);
		if (!r)
			r = batch_slice(b, &s, max_len, piece.len);
		if (r < 0)
			break;
	}
	split_fini(&s);
	if (r < 0)
		return r;
	batch_point(b);
	for (int i = 0; i < n; i++)
		b->done += !b->reqs[i].left;
	return 0;
}

/* The slice that is the notification, which comes after all others. */
static int batch_note_slice(struct batch *b, struct peer *p, uint32_t len)
{
	struct slice *s;
	int r = batch_grow(&b->slices, &b->cap_slices, b->n_slices + 1,
			   sizeof(*b->slices));

	if (r < 0)
		return r;
	if (!b->n_slices || b->slices[b->n_slices - 1].peer != p)
		__atomic_add_fetch(&p->batches, 1, __ATOMIC_ACQ_REL);
	s = &b->slices[b->n_slices++];
	*s = (struct slice){
		.s = { .op = MC_NOTE, .len = len, .note = b->note },
		.batch = b, .peer = p, .place = -1,
	};
	batch_point(b);
	return 0;
}

static int batch_add_note(struct batch *b, const struct mc_batch_opts *o)
{
	struct peer *p = peer_use(b->e, o->notify_segment);
	uint32_t n = strlen(o->notify_name) + 1;
	int r = 0;

	if (!p)
		return mc_err(-EINVAL, "notification: no segment %d is open",
			      o->notify_segment);
	if (n > MC_NAME_MAX || o->notify_len > MC_NOTIFY_MAX)
		r = mc_err(-EMSGSIZE, "a notification has a name below %d "
			   "and a message of up to %d bytes", MC_NAME_MAX,
			   MC_NOTIFY_MAX);
	if (!r) {
		b->note = malloc(n + o->notify_len);
		r = b->note ? 0 : mc_err(-ENOMEM, "out of memory");
	}
	if (!r) {
		memcpy(b->note, o->notify_name, n);
		if (o->notify_len)
			memcpy(b->note + n, o->notify_msg, o->notify_len);
		r = batch_note_slice(b, p, n + o->notify_len);
	}
	peer_drop(p);
	return r;
}

int batch_options(struct batch *b, const struct mc_batch_opts *o)
{
	int timeout = o && o->timeout_ms ? o->timeout_ms :
		      b->e->opts.timeout_ms;
	struct mc_engine *e = b->e;

	b->progress_ns = mc_clock_ns();
	b->deadline_ns = timeout > 0 ? b->progress_ns +
			 (uint64_t)timeout * MC_MS :
			 timeout < 0 ? UINT64_MAX : 0;
	if (!o)
		return 0;
	b->workers_only = o->workers_only;
	b->weighted = o->weights;
	for (int i = 0; o->weights && i < e->n_tr; i++)
		b->weights[e->tr[i].id] = o->weights[e->tr[i].id];
	return o->notify_name ? batch_add_note(b, o) : 0;
}
