/*
 * transport_test.c - what every transport has to do, case by case and setup by
 * setup: bytes arrive, those around them stay, and what is not allowed does not
 * happen.
 */
#include "peer.h"

#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

/* A sanitizer of threads looks at every byte that moves: it gets less. */
#if defined(__SANITIZE_THREAD__)
enum { CANARY = 300, MiB = 1 << 20, LARGE = 9 * MiB, WINDOWS = 20 * MiB };
#else
enum { CANARY = 300, MiB = 1 << 20, LARGE = 64 * MiB, WINDOWS = 40 * MiB };
#endif

/* ---- bytes and canaries ----------------------------------------- */

static void same_bytes(const void *a, const void *b, uint64_t len,
		       const char *what)
{
	const uint8_t *x = a, *y = b;

	if (!memcmp(a, b, len))
		return;
	for (uint64_t i = 0; i < len; i++)
		if (x[i] != y[i])
			fail_msg("%s differs at %llu of %llu", what,
				 (long long)i, (long long)len);
}

/* One request of @len bytes, with all of both windows compared. */
static void check_move(struct pair *p, enum mc_op op, uint64_t no, uint64_t fo,
		       uint64_t len)
{
	uint64_t size = len + 2 * CANARY;
	uint8_t *near = malloc(size), *far = malloc(size), *now = malloc(size);
	struct mc_req q = req_of(p, op, no + CANARY, fo + CANARY, len);
	struct mc_result res;

	mc_fill(near, size, len + 1);
	mc_fill(far, size, len + 2);
	memcpy(p->near + no, near, size);
	far_write(&p->far, p->remote + fo, far, size);
	ok(mc_transfer(p->e, &q, 1, NULL, &res));
	assert_int_equal(res.state, MC_COMPLETED);
	assert_int_equal(res.bytes, len);
	if (op == MC_READ)
		memcpy(near + CANARY, far + CANARY, len);
	else
		memcpy(far + CANARY, near + CANARY, len);
	same_bytes(p->near + no, near, size, "near memory");
	far_read(&p->far, p->remote + fo, now, size);
	same_bytes(now, far, size, "far memory");
	free(near);
	free(far);
	free(now);
}

static void sizes_are_moved(struct pair *p)
{
	static const uint64_t sizes[] = {
		0, 1, 2, 63, 64, 4095, 4096, 4097, 32768, 65535, 65536, 65537,
		262143, 262145, 524288,
	};

	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		check_move(p, MC_WRITE, 0, 0, sizes[i]);
		check_move(p, MC_READ, 0, 0, sizes[i]);
	}
}

static void unaligned_ends_are_moved(struct pair *p)
{
	static const uint64_t offs[] = { 1, 3, 7, 8, 4095 - CANARY, 4097 };

	for (size_t i = 0; i < 6; i++)
		for (size_t k = 0; k < 6; k++) {
			check_move(p, MC_WRITE, offs[i], offs[k], 5001);
			check_move(p, MC_READ, offs[k], offs[i], 4099);
		}
}

static void a_large_request_is_moved(struct pair *p)
{
	check_move(p, MC_WRITE, 1, 3, LARGE);
	check_move(p, MC_READ, 5, 2, LARGE);
}

/* ---- scatter and gather ----------------------------------------- */

/* @n ranges that share [0, total) out, each a gap apart, in a random order. */
static void cut(struct mc_range *r, int n, uint64_t base, uint64_t total,
		uint64_t room, uint64_t *seed)
{
	uint64_t left = total, gap = (room - total) / n, at = base;

	for (int i = 0; i < n; i++) {
		uint64_t len = i == n - 1 ? left : rnd(seed) %
			       (2 * left / (n - i) + 1);

		r[i] = (struct mc_range){ at, len };
		at += len + gap;
		left -= len;
	}
	for (int i = n - 1; i > 0; i--) {
		int k = rnd(seed) % (i + 1);
		struct mc_range t = r[i];

		r[i] = r[k];
		r[k] = t;
	}
}

/* What a request does, done to two images of memory. */
static void model_req(uint8_t *near, uint64_t near_at, uint8_t *far,
		      uint64_t far_at, const struct mc_req *q)
{
	uint32_t i = 0, k = 0;
	uint64_t oi = 0, ok_ = 0;

	while (i < q->n_locals && k < q->n_remotes) {
		uint64_t a = q->locals[i].len - oi, b = q->remotes[k].len - ok_;
		uint64_t n = a < b ? a : b;
		uint8_t *l = near + (q->locals[i].addr + oi - near_at);
		uint8_t *r = far + (q->remotes[k].addr + ok_ - far_at);

		if (q->op == MC_READ)
			memcpy(l, r, n);
		else
			memcpy(r, l, n);
		oi += n;
		ok_ += n;
		if (oi == q->locals[i].len) {
			i++;
			oi = 0;
		}
		if (ok_ == q->remotes[k].len) {
			k++;
			ok_ = 0;
		}
	}
}

static void check_lists(struct pair *p, enum mc_op op, int nl, int nr,
			uint64_t total, uint64_t seed)
{
	struct mc_range *l = calloc(nl, sizeof(*l));
	struct mc_range *r = calloc(nr, sizeof(*r));
	uint8_t *near = malloc(p->len), *far = malloc(p->len);
	uint8_t *now = malloc(p->len);
	struct mc_req q = { .op = op, .segment = p->seg, .locals = l,
			    .remotes = r, .n_locals = nl, .n_remotes = nr };
	struct mc_result res;

	cut(l, nl, (uint64_t)p->near, total, p->len, &seed);
	cut(r, nr, p->remote, total, p->len, &seed);
	mc_fill(near, p->len, seed);
	mc_fill(far, p->len, seed + 1);
	memcpy(p->near, near, p->len);
	far_write(&p->far, p->remote, far, p->len);
	ok(mc_transfer(p->e, &q, 1, NULL, &res));
	assert_int_equal(res.bytes, total);
	model_req(near, (uint64_t)p->near, far, p->remote, &q);
	same_bytes(p->near, near, p->len, "near memory");
	far_read(&p->far, p->remote, now, p->len);
	same_bytes(now, far, p->len, "far memory");
	free(l);
	free(r);
	free(near);
	free(far);
	free(now);
}

static void lists_are_cut_differently_at_both_ends(struct pair *p)
{
	static const int n[] = { 1, 2, 7, 100, 1024, 1025, 3000 };
	uint64_t seed = 1;

	for (int i = 0; i < 7; i++) {
		int k = 6 - i;

		check_lists(p, MC_WRITE, n[i], n[k], 200000, seed++);
		check_lists(p, MC_READ, n[i], n[k], 200000, seed++);
	}
	check_lists(p, MC_WRITE, 3000, 3000, 1000, seed);
	check_lists(p, MC_READ, 5, 9, 0, seed);
}

static void lists_of_unequal_length_are_refused(struct pair *p)
{
	struct mc_range l = { (uint64_t)p->near, 100 };
	struct mc_range r[2] = { { p->remote, 60 }, { p->remote + 100, 41 } };
	struct mc_range huge[2] = { { p->remote, 60 },
				    { p->remote + 60, UINT64_MAX - 19 } };
	struct mc_range two[2] = { { (uint64_t)p->near, 20 },
				   { (uint64_t)p->near + 20, 20 } };
	struct mc_req q = { .segment = p->seg, .locals = &l, .remotes = r,
			    .n_locals = 1, .n_remotes = 2 };
	uint64_t id;

	refused(mc_transfer(p->e, &q, 1, NULL, NULL), -EINVAL, "length");
	refused(mc_submit(p->e, &q, 1, NULL, &id), -EINVAL, "request 0");
	q.remotes = NULL;
	refused(mc_transfer(p->e, &q, 1, NULL, NULL), -EINVAL, "length");
	/* Equal only because the sum wraps around. */
	q = (struct mc_req){ .segment = p->seg, .locals = two, .remotes = huge,
			     .n_locals = 2, .n_remotes = 2 };
	refused(mc_transfer(p->e, &q, 1, NULL, NULL), -EINVAL, "length");
}

/* ---- batches ---------------------------------------------------- */

/* @n requests of @len bytes, op by op as @mixed, scattered over two segments
 * if there is a second one. */
static void check_batch(struct pair *p, struct pair *other, int n,
			uint64_t len, bool mixed, bool async)
{
	struct mc_req *q = calloc(n, sizeof(*q));
	uint8_t *near = malloc(p->len), *far[2], *now = malloc(p->len);
	struct pair *at[2] = { p, other ? other : p };
	struct mc_result res;
	uint64_t id;

	mc_fill(near, p->len, n);
	memcpy(p->near, near, p->len);
	for (int i = 0; i < 2; i++) {
		far[i] = malloc(p->len);
		mc_fill(far[i], p->len, n + 1 + i);
		if (!i || other)
			far_write(&at[i]->far, at[i]->remote, far[i], p->len);
	}
	for (int i = 0; i < n; i++) {
		int w = other ? i & 1 : 0;
		uint64_t no = i * len, fo = (uint64_t)(n - 1 - i) * len;

		q[i] = req_of(p, mixed && i % 3 == 0 ? MC_READ : MC_WRITE,
			      no, 0, len);
		q[i].segment = at[w]->seg;
		q[i].remote = at[w]->remote + fo;
		if (q[i].op == MC_READ)
			memcpy(near + no, far[w] + fo, len);
		else
			memcpy(far[w] + fo, near + no, len);
	}
	if (async) {
		ok(mc_submit(p->e, q, n, NULL, &id));
		ok(mc_wait(p->e, id, -1, &res));
		ok(mc_batch_free(p->e, id));
	} else {
		ok(mc_transfer(p->e, q, n, NULL, &res));
	}
	assert_int_equal(res.state, MC_COMPLETED);
	assert_int_equal(res.done, n);
	assert_int_equal(res.failed, 0);
	assert_int_equal(res.bytes, n * len);
	same_bytes(p->near, near, p->len, "near memory");
	for (int i = 0; i < 2; i++) {
		if (!i || other) {
			far_read(&at[i]->far, at[i]->remote, now, p->len);
			same_bytes(now, far[i], p->len, "far memory");
		}
		free(far[i]);
	}
	free(q);
	free(near);
	free(now);
}

static void batches_of_all_sizes_are_moved(struct pair *p)
{
	static const int n[] = { 1, 2, 3, 16, 100, 1000, 4096 };

	for (int i = 0; i < 7; i++) {
		check_batch(p, NULL, n[i], 128, false, false);
		check_batch(p, NULL, n[i], 200, true, true);
	}
	check_batch(p, NULL, 0, 1, false, false);
	check_batch(p, NULL, 0, 1, false, true);
}

static void a_batch_may_go_to_two_segments(struct pair *p)
{
	struct pair other = *p;

	memset(&other.far, 0, sizeof(other.far));
	if (p->s->same) {
		other.far = p->far;
		other.remote = far_alloc(&p->far, p->len, MC_REMOTE_RW);
	} else {
		far_open(&other.far, p->s, NULL);
		other.remote = far_alloc(&other.far, p->len, MC_REMOTE_RW);
		other.seg = ok(mc_segment_open(p->e, other.far.name, 5000));
		assert_int_not_equal(other.seg, p->seg);
	}
	check_batch(p, &other, 64, 3000, true, false);
	check_batch(p, &other, 65, 3000, true, true);
	check_batch(p, &other, 4096, 100, true, true);
	if (!p->s->same)
		far_end(&other.far);
}

/* More in flight than all paths take at a time. */
static void full_windows_are_waited_for(struct pair *p)
{
	enum { N = 20, PART = WINDOWS / N };
	uint64_t ids[N];
	struct mc_result res;

	mc_fill(p->near, p->len, 77);
	for (int i = 0; i < N; i++) {
		struct mc_req q = req_of(p, MC_WRITE, i * PART, i * PART,
					 PART);

		ok(mc_submit(p->e, &q, 1, NULL, &ids[i]));
	}
	for (int i = N - 1; i >= 0; i--) {
		ok(mc_wait(p->e, ids[i], -1, &res));
		assert_int_equal(res.state, MC_COMPLETED);
		ok(mc_batch_free(p->e, ids[i]));
	}
	assert_int_equal(far_hash(&p->far, p->remote, N * PART),
			 mc_hash(p->near, N * PART, 0));
}

/* ---- threads ---------------------------------------------------- */

struct mover {
	pthread_t thread;
	struct pair *p;
	int i, rounds;
	bool async;
	atomic_int failed;
};

enum { MOVER_LEN = 24 * 1024 };

/* Each has its own part of both memories: written, wiped, read back. */
static void *mover_main(void *arg)
{
	struct mover *m = arg;
	uint64_t at = (uint64_t)m->i * 2 * MOVER_LEN;
	uint64_t want, id;
	struct mc_result res;

	for (int k = 0; k < m->rounds; k++) {
		for (int op = MC_WRITE; op >= MC_READ; op--) {
			struct mc_req q = req_of(m->p, op, at, at, MOVER_LEN);

			if (op == MC_WRITE) {
				mc_fill(q.buf, MOVER_LEN, k * 8 + m->i);
				want = mc_hash(q.buf, MOVER_LEN, 0);
			} else {
				memset(q.buf, 0, MOVER_LEN);
			}
			if (m->async) {
				m->failed += mc_submit(m->p->e, &q, 1, NULL,
						       &id) < 0;
				m->failed += mc_wait(m->p->e, id, -1,
						     &res) < 0;
				m->failed += mc_batch_free(m->p->e, id) < 0;
				m->failed += res.state != MC_COMPLETED;
			} else {
				m->failed += mc_transfer(m->p->e, &q, 1, NULL,
							 NULL) < 0;
			}
		}
		m->failed += mc_hash(m->p->near + at, MOVER_LEN, 0) != want;
	}
	return NULL;
}

static void threads_share_an_engine(struct pair *p)
{
	for (int n = 1; n <= 8; n *= 2) {
		struct mover m[8] = { 0 };

		for (int i = 0; i < n; i++) {
			m[i].p = p;
			m[i].i = i;
			m[i].rounds = 40;
			m[i].async = i & 1;
			pthread_create(&m[i].thread, NULL, mover_main, &m[i]);
		}
		for (int i = 0; i < n; i++) {
			pthread_join(m[i].thread, NULL);
			assert_int_equal(m[i].failed, 0);
		}
	}
}

/* ---- what is not allowed ---------------------------------------- */

static void out_of_range_is_refused(struct pair *p)
{
	uint64_t far_before = far_hash(&p->far, p->remote, p->len);
	uint64_t near_before = mc_hash(p->near, p->len, 0), id;
	struct mc_result res;
	const struct {
		uint64_t near, far, len;
		int err;
		const char *word;
	} bad[] = {
		{ 0, p->len, 1, -EFAULT, "remote" },
		{ 0, p->len - 1, 2, -EFAULT, "remote" },
		{ 0, -1, 2, -EFAULT, "remote" },
		{ 0, -p->remote, 16, -EFAULT, "remote" },
		{ 0, 0, p->len + 1, -EFAULT, "local" },
		{ p->len, 0, 1, -EFAULT, "local" },
		{ p->len - 1, 0, 2, -EFAULT, "local" },
		{ -1, 0, 2, -EFAULT, "local" },
		{ 0, 16, UINT64_MAX, -EFAULT, "in no" },
		{ 0, 5ull << 32, 16, -EFAULT, "remote" },
	};

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		for (int op = MC_READ; op <= MC_WRITE; op++) {
			struct mc_req q = req_of(p, op, bad[i].near,
						 bad[i].far, bad[i].len);

			refused(mc_transfer(p->e, &q, 1, NULL, &res),
				bad[i].err, bad[i].word);
			assert_int_equal(res.state, MC_FAILED);
			assert_int_equal(res.err, bad[i].err);
			assert_non_null(strstr(res.why, bad[i].word));
			refused(mc_submit(p->e, &q, 1, NULL, &id),
				bad[i].err, bad[i].word);
		}
	}
	assert_int_equal(far_hash(&p->far, p->remote, p->len), far_before);
	assert_int_equal(mc_hash(p->near, p->len, 0), near_before);
}

static void nonsense_is_refused(struct pair *p)
{
	struct mc_req q[2] = { req_of(p, MC_WRITE, 0, 0, 16),
			       req_of(p, MC_WRITE, 0, 0, 16) };
	uint64_t id;

	q[1].segment = 99;
	refused(mc_submit(p->e, q, 2, NULL, &id), -EINVAL, "request 1");
	q[1].segment = -1;
	refused(mc_transfer(p->e, q, 2, NULL, NULL), -EINVAL, "segment");
	q[1] = q[0];
	q[1].op = 7;
	refused(mc_submit(p->e, q, 2, NULL, &id), -EINVAL, "operation");
	refused(mc_submit(p->e, q, -1, NULL, &id), -EINVAL, "-1");
	/* Of zero bytes, nothing can be out of range. */
	q[0] = req_of(p, MC_READ, p->len, p->len, 0);
	ok(mc_transfer(p->e, q, 1, NULL, NULL));
}

static void access_flags_hold(struct pair *p)
{
	static const struct {
		unsigned access;
		int read, write;
	} t[] = {
		{ MC_LOCAL, -EFAULT, -EFAULT },
		{ MC_REMOTE_READ, 0, -EACCES },
		{ MC_REMOTE_WRITE, -EACCES, 0 },
		{ MC_REMOTE_RW, 0, 0 },
	};

	for (int i = 0; i < 4; i++) {
		uint64_t at = far_alloc(&p->far, 8192, t[i].access);
		struct mc_req q = req_of(p, MC_READ, 0, at - p->remote, 4096);

		far_fill(&p->far, at, 8192, 3);
		memset(p->near, 1, 4096);
		assert_int_equal(mc_transfer(p->e, &q, 1, NULL, NULL),
				 t[i].read);
		mc_fill(p->near + 4096, 4096, 3);
		if (!t[i].read)
			same_bytes(p->near, p->near + 4096, 4096, "read");
		else
			assert_int_equal(p->near[17], 1);
		far_fill(&p->far, at, 8192, 4);
		memset(p->near, 2, 4096);
		q.op = MC_WRITE;
		assert_int_equal(mc_transfer(p->e, &q, 1, NULL, NULL),
				 t[i].write);
		assert_int_equal(far_hash(&p->far, at, 4096) ==
				 mc_hash(p->near, 4096, 0), !t[i].write);
		ok(far_drop(&p->far, at));
	}
}

static const struct unit_case cases[] = {
	{ "sizes_are_moved", sizes_are_moved, 0 },
	{ "unaligned_ends_are_moved", unaligned_ends_are_moved, 0 },
	{ "a_large_request_is_moved", a_large_request_is_moved, LARGE + MiB },
	{ "lists_are_cut_differently_at_both_ends",
	  lists_are_cut_differently_at_both_ends, 0 },
	{ "lists_of_unequal_length_are_refused",
	  lists_of_unequal_length_are_refused, 0 },
	{ "batches_of_all_sizes_are_moved", batches_of_all_sizes_are_moved,
	  0 },
	{ "a_batch_may_go_to_two_segments", a_batch_may_go_to_two_segments,
	  0 },
	{ "full_windows_are_waited_for", full_windows_are_waited_for,
	  WINDOWS },
	{ "threads_share_an_engine", threads_share_an_engine, 0 },
	{ "out_of_range_is_refused", out_of_range_is_refused, 0 },
	{ "nonsense_is_refused", nonsense_is_refused, 0 },
	{ "access_flags_hold", access_flags_hold, 0 },
};

int main(void)
{
	peer_start();
	return peer_stop(run_cases("transport", cases,
				   sizeof(cases) / sizeof(cases[0]), NULL, 0));
}
