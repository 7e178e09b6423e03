/*
 * batch_test.c - batches over every transport: submitted, polled, waited for,
 * cancelled, past their deadline; their ids; notifications after the data; and
 * memory or peers that go away while something is in flight.
 */
#include "peer.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <unistd.h>

/* What takes a while: LONG pieces, each of its own memory. */
#if defined(__SANITIZE_THREAD__)
enum { MiB = 1 << 20, LONG = 16, PIECE = MiB, GOING = 8 };
#else
enum { MiB = 1 << 20, LONG = 16, PIECE = 2 * MiB, GOING = 16 };
#endif

static bool readable(struct mc_engine *e, int ms)
{
	struct pollfd f = { mc_engine_fd(e), POLLIN, 0 };

	return poll(&f, 1, ms) == 1;
}

static struct mc_result wait_end(struct pair *p, uint64_t id)
{
	struct mc_result res;

	ok(mc_wait(p->e, id, 20000, &res));
	assert_int_not_equal(res.state, MC_PENDING);
	return res;
}

/* ---- ids and waiting -------------------------------------------- */

static void a_batch_can_be_polled(struct pair *p)
{
	struct mc_req q = req_of(p, MC_WRITE, 0, 0, 100000);
	double until = seconds() + 10;
	struct mc_result res;
	uint64_t id;

	ok(mc_submit(p->e, &q, 1, NULL, &id));
	do {
		ok(mc_poll(p->e, id, &res));
	} while (res.state == MC_PENDING && seconds() < until);
	assert_int_equal(res.state, MC_COMPLETED);
	assert_int_equal(res.bytes, 100000);
	assert_int_equal(res.done, 1);
	assert_string_equal(res.why, "");
	ok(mc_batch_req(p->e, id, 0, &res));
	assert_int_equal(res.state, MC_COMPLETED);
	assert_int_equal(res.bytes, 100000);
	refused(mc_batch_req(p->e, id, 1, &res), -EINVAL, "request 1");
	refused(mc_batch_req(p->e, id, -1, &res), -EINVAL, "request -1");
	ok(mc_batch_free(p->e, id));
}

static void the_descriptor_says_what_has_ended(struct pair *p)
{
	enum { N = 50 };
	uint64_t ids[N], got[N + 1];
	bool seen[N] = { false };
	int n = 0;

	for (int i = 0; i < N; i++) {
		struct mc_req q = req_of(p, MC_READ, i * 4096, i * 4096, 4096);

		ok(mc_submit(p->e, &q, 1, NULL, &ids[i]));
	}
	while (n < N) {
		int k;

		assert_true(readable(p->e, 10000));
		k = mc_completed(p->e, got, N + 1);
		for (int i = 0; i < k; i++) {
			int at = 0;

			while (at < N && ids[at] != got[i])
				at++;
			assert_true(at < N && !seen[at]);
			seen[at] = true;
			ok(mc_batch_free(p->e, got[i]));
		}
		n += k;
	}
	assert_int_equal(mc_completed(p->e, got, N), 0);
	assert_false(readable(p->e, 0));
}

static void a_stale_id_is_refused(struct pair *p)
{
	struct mc_req q = req_of(p, MC_WRITE, 0, 0, 10);
	struct mc_result res;
	uint64_t old, id;

	ok(mc_submit(p->e, &q, 1, NULL, &old));
	wait_end(p, old);
	ok(mc_batch_free(p->e, old));
	/* The next one has its place, and another generation. */
	ok(mc_submit(p->e, &q, 1, NULL, &id));
	assert_true(id != old);
	refused(mc_poll(p->e, old, &res), -ESTALE, "freed");
	refused(mc_wait(p->e, old, 0, &res), -ESTALE, "freed");
	refused(mc_cancel(p->e, old), -ESTALE, "freed");
	refused(mc_batch_req(p->e, old, 0, &res), -ESTALE, "freed");
	refused(mc_batch_free(p->e, old), -ESTALE, "freed");
	refused(mc_poll(p->e, 0, &res), -ESTALE, "batch");
	refused(mc_poll(p->e, UINT64_MAX, &res), -ESTALE, "batch");
	wait_end(p, id);
	ok(mc_batch_free(p->e, id));
}

static void many_batches_are_in_flight_at_once(struct pair *p)
{
	enum { N = 2000 };
	uint64_t *ids = calloc(N, sizeof(*ids));

	mc_fill(p->near, p->len, 5);
	for (int i = 0; i < N; i++) {
		struct mc_req q = req_of(p, MC_WRITE, i * 500, i * 500, 500);

		ok(mc_submit(p->e, &q, 1, NULL, &ids[i]));
	}
	for (int i = 0; i < N; i++) {
		assert_int_equal(wait_end(p, ids[i]).state, MC_COMPLETED);
		ok(mc_batch_free(p->e, ids[i]));
	}
	free(ids);
	assert_int_equal(far_hash(&p->far, p->remote, N * 500),
			 mc_hash(p->near, N * 500, 0));
}

/* ---- ending early ----------------------------------------------- */

static uint64_t submit_long(struct pair *p, int n, enum mc_op op,
			    const struct mc_batch_opts *o)
{
	struct mc_req q[LONG];
	uint64_t id;

	for (int i = 0; i < n; i++)
		q[i] = req_of(p, op, (uint64_t)i * PIECE, (uint64_t)i * PIECE,
			      PIECE);
	ok(mc_submit(p->e, q, n, o, &id));
	return id;
}

static void a_cancelled_batch_leaves_the_memory_alone(struct pair *p)
{
	double start;

	for (int op = MC_READ; op <= MC_WRITE; op++) {
		uint64_t id = submit_long(p, LONG, op, NULL), h;
		struct mc_result res, one;
		uint32_t completed = 0;

		start = seconds();
		ok(mc_cancel(p->e, id));
		res = wait_end(p, id);
		assert_true(seconds() - start < 3);
		assert_true(res.state == MC_CANCELED ||
			    res.state == MC_COMPLETED);
		assert_int_equal(res.done, LONG);
		for (int i = 0; i < LONG; i++) {
			ok(mc_batch_req(p->e, id, i, &one));
			assert_int_equal(one.done, 1);
			assert_true(one.state == MC_COMPLETED ||
				    one.state == MC_CANCELED);
			completed += one.state == MC_COMPLETED;
		}
		assert_int_equal(res.failed, LONG - completed);
		assert_int_equal(res.bytes, completed * (uint64_t)PIECE);
		ok(mc_batch_free(p->e, id));
		/* Nothing is written to either memory any more. */
		h = far_hash(&p->far, p->remote, p->len) ^
		    mc_hash(p->near, p->len, 0);
		sleep_ms(30);
		assert_int_equal(h, far_hash(&p->far, p->remote, p->len) ^
				 mc_hash(p->near, p->len, 0));
	}
	/* And the engine goes on. */
	ok(mc_transfer(p->e, &(struct mc_req){ MC_WRITE, p->seg, p->near,
		       p->remote, 5000, NULL, NULL, 0, 0 }, 1, NULL, NULL));
}

static void a_deadline_holds(struct pair *p)
{
	struct mc_batch_opts o = { .timeout_ms = 1 };
	uint64_t id = submit_long(p, LONG, MC_WRITE, &o), h;
	double start = seconds();
	struct mc_result res = wait_end(p, id);

	assert_true(seconds() - start < 3);
	if (res.state != MC_COMPLETED) {
		assert_int_equal(res.state, MC_FAILED);
		assert_int_equal(res.err, -ETIMEDOUT);
		assert_non_null(strstr(res.why, "deadline"));
		assert_non_null(strstr(res.why, p->far.name));
	}
	ok(mc_batch_free(p->e, id));
	h = far_hash(&p->far, p->remote, p->len);
	sleep_ms(30);
	assert_int_equal(h, far_hash(&p->far, p->remote, p->len));
	/* Without a deadline, and with a long one, it is moved. */
	o.timeout_ms = -1;
	id = submit_long(p, 4, MC_WRITE, &o);
	assert_int_equal(wait_end(p, id).state, MC_COMPLETED);
	ok(mc_batch_free(p->e, id));
	o.timeout_ms = 20000;
	id = submit_long(p, 4, MC_READ, &o);
	assert_int_equal(wait_end(p, id).state, MC_COMPLETED);
	ok(mc_batch_free(p->e, id));
}

static void what_is_in_flight_is_held(struct pair *p)
{
	uint64_t id = submit_long(p, LONG, MC_WRITE, NULL);
	struct mc_result res;
	int r[3];

	r[0] = p->s->foreign ? mc_buffer_unreg(p->e, p->near) :
	       mc_buffer_free(p->e, p->near);
	r[1] = mc_segment_close(p->e, p->seg);
	r[2] = mc_batch_free(p->e, id);
	if (!r[0] && p->s->foreign)
		ok(mc_buffer_reg(p->e, p->near, p->len, NULL, MC_LOCAL));
	if (!r[2])
		return;
	/* All may have been moved before we came to ask; what a batch holds it
	 * lets go just before it says that it has ended. */
	assert_int_equal(r[2], -EBUSY);
	ok(mc_poll(p->e, id, &res));
	if (res.state == MC_PENDING && (r[0] != -EBUSY || r[1] != -EBUSY))
		ok(mc_wait(p->e, id, 500, NULL));
	wait_end(p, id);
	ok(mc_batch_free(p->e, id));
}

/* ---- notifications ---------------------------------------------- */

static void a_notification_comes_after_the_data(struct pair *p)
{
	for (int i = 0; i < 20; i++) {
		uint64_t len = i % 2 ? 700001 : 900, id, want, hash;
		struct mc_req q[2] = { req_of(p, MC_WRITE, 0, 0, len / 2),
				       req_of(p, MC_WRITE, len / 2, len / 2,
					      len - len / 2) };
		char msg[32], got_name[256], got_msg[256];
		struct mc_batch_opts o = {
			.notify_segment = p->seg, .notify_name = "block",
			.notify_msg = msg,
		};

		o.notify_len = snprintf(msg, sizeof(msg), "number %d", i);
		mc_fill(p->near, len, i);
		want = mc_hash(p->near, len, 0);
		if (i % 3) {
			ok(mc_submit(p->e, q, 2, &o, &id));
		} else {
			ok(mc_transfer(p->e, q, 2, &o, NULL));
		}
		assert_int_equal(far_notified(&p->far, 5000, p->remote, len,
					      got_name, got_msg, &hash), 1);
		assert_string_equal(got_name, "block");
		assert_string_equal(got_msg, msg);
		assert_int_equal(hash, want);
		if (!(i % 3))
			continue;
		assert_int_equal(wait_end(p, id).state, MC_COMPLETED);
		ok(mc_batch_free(p->e, id));
	}
	ok(mc_notify_send(p->e, p->seg, "alone", NULL, 0, 0));
}

static void a_failed_batch_notifies_no_one(struct pair *p)
{
	uint64_t at = far_alloc(&p->far, 4096, MC_REMOTE_RW), hash;
	struct mc_req q[2] = { req_of(p, MC_WRITE, 0, 0, 10),
			       req_of(p, MC_WRITE, 0, at - p->remote, 10) };
	struct mc_batch_opts o = { .notify_segment = p->seg,
				   .notify_name = "no" };
	char name[256], msg[256];
	struct mc_result res;

	ok(mc_transfer(p->e, q, 2, NULL, NULL));
	ok(far_drop(&p->far, at));
	assert_true(mc_transfer(p->e, q, 2, &o, &res) < 0);
	assert_int_equal(far_notified(&p->far, 50, 0, 0, name, msg, &hash), 0);
	o.notify_segment = 77;
	refused(mc_transfer(p->e, q, 1, &o, NULL), -EINVAL, "notification");
	o.notify_segment = p->seg;
	o.notify_len = MC_NOTIFY_MAX + 1;
	refused(mc_transfer(p->e, q, 1, &o, NULL), -EMSGSIZE, "bytes");
}

/* ---- what goes away --------------------------------------------- */

static void a_buffer_that_went_is_refused(struct pair *p)
{
	uint64_t at = far_alloc(&p->far, 65536, MC_REMOTE_RW), h;
	struct mc_req q = req_of(p, MC_WRITE, 0, at - p->remote, 60000);
	struct mc_result res;

	ok(mc_transfer(p->e, &q, 1, NULL, NULL));
	ok(far_drop(&p->far, at));
	if (p->s->foreign)
		h = far_hash(&p->far, at, 65536);
	mc_fill(p->near, 60000, 99);
	refused(mc_transfer(p->e, &q, 1, NULL, &res), -ESTALE, "");
	assert_int_equal(res.err, -ESTALE);
	assert_true(strlen(res.why) > 5);
	if (!p->s->foreign)
		return;
	assert_int_equal(far_hash(&p->far, at, 65536), h);
	/* Registered again it has another id, which is found out by itself. */
	ok(far_reg(&p->far, at, 65536, MC_REMOTE_RW));
	ok(mc_transfer(p->e, &q, 1, NULL, NULL));
	ok(far_drop(&p->far, at));
	ok(far_reg(&p->far, at, 65536, MC_REMOTE_RW));
	ok(mc_transfer(p->e, &q, 1, NULL, NULL));
	assert_int_equal(far_hash(&p->far, at, 60000),
			 mc_hash(p->near, 60000, 0));
}

static void a_buffer_may_go_while_it_is_written(struct pair *p)
{
	for (int i = 0; i < 4; i++) {
		uint64_t at = far_alloc(&p->far, GOING * MiB, MC_REMOTE_RW), id;
		struct mc_req q[GOING];
		struct mc_result res;
		uint64_t h;

		for (int k = 0; k < GOING; k++)
			q[k] = req_of(p, MC_WRITE, k * MiB, at - p->remote +
				      k * MiB, MiB);
		mc_fill(p->near, GOING * MiB, i);
		ok(mc_submit(p->e, q, GOING, NULL, &id));
		usleep(i * 500);
		ok(far_drop(&p->far, at));
		h = p->s->foreign ? far_hash(&p->far, at, GOING * MiB) : 0;
		res = wait_end(p, id);
		if (res.state != MC_COMPLETED) {
			assert_int_equal(res.state, MC_FAILED);
			assert_int_equal(res.err, -ESTALE);
		}
		ok(mc_batch_free(p->e, id));
		/* Once it was taken back, not one byte of it changed. */
		if (p->s->foreign)
			assert_int_equal(far_hash(&p->far, at, GOING * MiB), h);
	}
}

static void a_closed_peer_is_noticed(struct pair *p)
{
	struct mc_req q = req_of(p, MC_WRITE, 0, 0, 5000);
	/* How long it takes by default is measured once for each transport;
	 * the others wait less. */
	struct mc_batch_opts o = { .timeout_ms = p->s->child ? 0 : 300 };
	struct mc_result res;
	double start;

	if (p->far.borrowed)
		return;
	ok(mc_transfer(p->e, &q, 1, NULL, NULL));
	far_close(&p->far);
	start = seconds();
	assert_true(mc_transfer(p->e, &q, 1, &o, &res) < 0);
	assert_true(seconds() - start < 1.5);
	assert_int_equal(res.state, MC_FAILED);
	assert_non_null(strstr(mc_errmsg(), p->far.name));
	/* At the same address another engine: the old one's addresses are
	 * refused, its own are found. */
	far_open(&p->far, p->s, p->far.name);
	p->remote = far_alloc(&p->far, p->len, MC_REMOTE_RW);
	assert_true(mc_transfer(p->e, &q, 1, NULL, NULL) < 0);
	start = seconds();
	q = req_of(p, MC_WRITE, 0, 0, 5000);
	mc_fill(p->near, 5000, 8);
	while (mc_transfer(p->e, &q, 1, NULL, NULL) < 0) {
		if (seconds() - start > 5)
			fail_msg("%s", mc_errmsg());
		sleep_ms(20);
	}
	assert_int_equal(far_hash(&p->far, p->remote, 5000),
			 mc_hash(p->near, 5000, 0));
}

static void a_segment_can_be_opened_again(struct pair *p)
{
	struct mc_req q = req_of(p, MC_WRITE, 0, 0, 5000);
	struct mc_segment_info info;
	struct mc_buffer_info b[3];

	assert_int_equal(ok(mc_segment_open(p->e, p->far.name, 0)), p->seg);
	for (int i = 0; i < 10; i++) {
		ok(mc_transfer(p->e, &q, 1, NULL, NULL));
		ok(mc_segment_close(p->e, p->seg));
		refused(mc_segment_close(p->e, p->seg), -EINVAL, "segment");
		refused(mc_transfer(p->e, &q, 1, NULL, NULL), -EINVAL,
			"segment");
		p->seg = ok(mc_segment_open(p->e, p->far.name, 0));
		q.segment = p->seg;
	}
	ok(mc_segment_stat(p->e, p->seg, &info));
	assert_string_equal(info.name, p->far.name);
	assert_int_equal(info.epoch, p->far.epoch);
	assert_int_equal(info.buffers, 1);
	assert_int_equal(info.bytes, p->len);
	assert_int_equal(ok(mc_segment_list(p->e, p->seg, 0, b, 3)), 1);
	assert_int_equal(b[0].addr, p->remote);
	assert_int_equal(b[0].len, p->len);
	assert_int_equal(b[0].access, MC_REMOTE_RW);
}

static const struct unit_case cases[] = {
	{ "a_batch_can_be_polled", a_batch_can_be_polled, 0 },
	{ "the_descriptor_says_what_has_ended",
	  the_descriptor_says_what_has_ended, 0 },
	{ "a_stale_id_is_refused", a_stale_id_is_refused, 0 },
	{ "many_batches_are_in_flight_at_once",
	  many_batches_are_in_flight_at_once, 0 },
	{ "a_cancelled_batch_leaves_the_memory_alone",
	  a_cancelled_batch_leaves_the_memory_alone, LONG * PIECE },
	{ "a_deadline_holds", a_deadline_holds, LONG * PIECE },
	{ "what_is_in_flight_is_held", what_is_in_flight_is_held,
	  LONG * PIECE },
	{ "a_notification_comes_after_the_data",
	  a_notification_comes_after_the_data, 0 },
	{ "a_failed_batch_notifies_no_one", a_failed_batch_notifies_no_one,
	  0 },
	{ "a_buffer_that_went_is_refused", a_buffer_that_went_is_refused, 0 },
	{ "a_buffer_may_go_while_it_is_written",
	  a_buffer_may_go_while_it_is_written, GOING * MiB },
	{ "a_closed_peer_is_noticed", a_closed_peer_is_noticed, 0 },
	{ "a_segment_can_be_opened_again", a_segment_can_be_opened_again, 0 },
};

int main(void)
{
	peer_start();
	return peer_stop(run_cases("batch", cases,
				   sizeof(cases) / sizeof(cases[0]), NULL, 0));
}
