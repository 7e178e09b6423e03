/*
 * engine_test.c - engines, their buffers and options; what a fork inherits; and
 * the promises of mooncake.h, each by its number.
 */
#include "peer.h"

#include "../../src/base/clock.h"
#include "../../src/base/net.h"
#include "../../src/transport/wire.h"

#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

enum { KiB = 1024, MiB = 1 << 20, MANY = 100000 };

static void open_named(struct pair *p, const char *name)
{
	pair_open(p, setup_named(name), MiB);
}

/* ---- engines ---------------------------------------------------- */

static void engines_are_independent(void **state)
{
	struct mc_options o = { .name = "first" }, named = { .name = "x" };
	struct mc_engine *a, *b, *c;
	static char mem[4096];

	(void)state;
	ok(mc_open(&a, &o));
	ok(mc_open(&b, NULL));
	assert_string_equal(mc_engine_name(a), "first");
	assert_string_equal(mc_engine_name(b), mc_engine_addr(b));
	assert_string_not_equal(mc_engine_addr(a), mc_engine_addr(b));
	assert_true(mc_engine_epoch(a) != mc_engine_epoch(b));
	assert_true(mc_engine_epoch(a) && mc_engine_epoch(b));
	/* One piece of memory may be a buffer of both. */
	ok(mc_buffer_reg(a, mem, sizeof(mem), NULL, MC_REMOTE_RW));
	ok(mc_buffer_reg(b, mem, sizeof(mem), NULL, MC_LOCAL));
	named.listen = mc_engine_addr(a);
	assert_true(mc_open(&c, &named) < 0);
	assert_non_null(strstr(mc_errmsg(), mc_engine_addr(a)));
	mc_close(a);
	mc_close(b);
	mc_close(NULL);
}

static void options_are_checked(void **state)
{
	char name[200];
	struct mc_options long_name = { .name = name };
	struct mc_options rmda = { .transports = "tcp,rmda" };
	struct mc_options listen = { .listen = "no such host!:x" };
	struct mc_options key = { .key_file = "/nonexistent/key" };
	struct mc_options cert = { .tls_cert = "/nonexistent/cert" };
	struct mc_options none = { .listen = "none" };
	struct mc_engine *e = NULL;

	(void)state;
	memset(name, 'n', sizeof(name));
	name[199] = 0;
	refused(mc_open(&e, &long_name), -EINVAL, "name");
	refused(mc_open(&e, &rmda), -EINVAL, "rmda");
	assert_true(mc_open(&e, &listen) < 0);
	refused(mc_open(&e, &key), -ENOENT, "/nonexistent/key");
	assert_true(mc_open(&e, &cert) < 0);
	assert_non_null(strstr(mc_errmsg(), "/nonexistent/cert"));
	assert_null(e);
	ok(mc_open(&e, &none));
	assert_string_equal(mc_engine_addr(e), "");
	assert_true(mc_engine_name(e)[0]);
	mc_close(e);
}

static void who_only_initiates_can_move_bytes(void **state)
{
	const struct setup *s = setup_named("tcp");
	struct mc_options o = { .listen = "none" };
	static char mem[5000];
	struct far far = { 0 };
	struct mc_engine *e;
	struct mc_req q;
	uint64_t at;

	(void)state;
	far_open(&far, s, NULL);
	at = far_alloc(&far, sizeof(mem), MC_REMOTE_RW);
	ok(mc_open(&e, &o));
	ok(mc_buffer_reg(e, mem, sizeof(mem), NULL, MC_LOCAL));
	mc_fill(mem, sizeof(mem), 3);
	q = (struct mc_req){ .op = MC_WRITE, .buf = mem, .remote = at,
			     .len = sizeof(mem) };
	q.segment = ok(mc_segment_open(e, far.name, 0));
	ok(mc_transfer(e, &q, 1, NULL, NULL));
	assert_int_equal(far_hash(&far, at, sizeof(mem)),
			 mc_hash(mem, sizeof(mem), 0));
	mc_close(e);
	far_end(&far);
}

static void a_segment_that_is_not_there_is_said_soon(void **state)
{
	struct mc_engine *e;
	double start;

	(void)state;
	ok(mc_open(&e, NULL));
	start = seconds();
	refused(mc_segment_open(e, "127.0.0.1:1", 0), -ECONNREFUSED,
		"127.0.0.1:1");
	refused(mc_segment_open(e, "", 0), -EINVAL, "name");
	refused(mc_segment_open(e, NULL, 0), -EINVAL, "name");
	assert_true(mc_segment_open(e, "nobody.invalid:70", 0) < 0);
	assert_true(seconds() - start < 3);
	refused(mc_segment_close(e, 0), -EINVAL, "segment");
	mc_close(e);
}

/* ---- buffers ---------------------------------------------------- */

static void buffers_do_not_overlap(void **state)
{
	struct mc_buffer_info b[4];
	static char mem[8192];
	struct mc_engine *e;
	void *out = NULL;

	(void)state;
	ok(mc_open(&e, NULL));
	ok(mc_buffer_reg(e, mem + 4096, 1000, "cpu:0", MC_REMOTE_READ));
	refused(mc_buffer_reg(e, mem, 4097, NULL, 0), -EEXIST, "overlaps");
	refused(mc_buffer_reg(e, mem + 5095, 1, NULL, 0), -EEXIST, "");
	ok(mc_buffer_reg(e, mem, 4096, NULL, MC_REMOTE_RW));
	ok(mc_buffer_reg(e, mem + 5096, 1, NULL, 0));
	refused(mc_buffer_reg(e, NULL, 5, NULL, 0), -EINVAL, "buffer");
	refused(mc_buffer_reg(e, mem + 6000, 0, NULL, 0), -EINVAL, "buffer");
	refused(mc_buffer_reg(e, mem + 6000, UINT64_MAX, NULL, 0), -EINVAL,
		"buffer");
	refused(mc_buffer_reg(e, mem + 6000, 5, NULL, 4), -EINVAL, "access");
	refused(mc_buffer_alloc(e, 0, 0, 0, -1, &out), -EINVAL, "length");
	assert_int_equal(mc_buffer_list(e, 0, b, 4), 3);
	assert_int_equal(b[0].addr, (uint64_t)mem);
	assert_int_equal(b[1].len, 1000);
	assert_string_equal(b[1].location, "cpu:0");
	assert_int_equal(b[1].access, MC_REMOTE_READ);
	assert_true(b[0].id && b[0].id != b[1].id && b[1].id != b[2].id);
	assert_int_equal(mc_buffer_list(e, 2, b, 4), 1);
	assert_int_equal(mc_buffer_list(e, 3, b, 4), 0);
	refused(mc_buffer_unreg(e, mem + 1), -ENOENT, "begins");
	refused(mc_buffer_free(e, mem), -EINVAL, "mc_buffer_unreg");
	ok(mc_buffer_unreg(e, mem));
	refused(mc_buffer_unreg(e, mem), -ENOENT, "begins");
	ok(mc_buffer_alloc(e, 100, MC_REMOTE_RW, MC_ALLOC_POPULATE, -1, &out));
	refused(mc_buffer_unreg(e, out), -EINVAL, "mc_buffer_free");
	ok(mc_buffer_free(e, out));
	mc_close(e);
}

static double cpu_seconds(void)
{
	struct rusage u;

	getrusage(RUSAGE_SELF, &u);
	return u.ru_utime.tv_sec + u.ru_stime.tv_sec +
	       (u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static double register_many(struct mc_engine *e, char *mem, int from, int to)
{
	double start = cpu_seconds();

	for (int i = from; i < to; i++)
		ok(mc_buffer_reg(e, mem + i * 64ul, 48, "cpu:0",
				 MC_REMOTE_RW));
	return cpu_seconds() - start;
}

static void many_buffers_are_registered_one_by_one(void **state)
{
	char *mem = mmap(NULL, MANY * 64ul, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct mc_engine *near, *far;
	struct mc_req q[64];
	struct mc_segment_info info;
	uint64_t seed = 5;
	double half, all;
	static char mine[4096];
	int seg;

	(void)state;
	ok(mc_open(&near, &(struct mc_options){ .transports = "tcp" }));
	ok(mc_open(&far, NULL));
	half = register_many(far, mem, 0, MANY / 2);
	all = half + register_many(far, mem, MANY / 2, MANY);
	print_message("%d buffers: %.3f s, %d: %.3f s\n", MANY / 2, half,
		      MANY, all);
	assert_true(all < 3 * half + 0.05);
	ok(mc_buffer_reg(near, mine, sizeof(mine), NULL, MC_LOCAL));
	seg = ok(mc_segment_open(near, mc_engine_name(far), 5000));
	ok(mc_segment_stat(near, seg, &info));
	assert_int_equal(info.buffers, MANY);
	assert_int_equal(info.bytes, MANY * 48ul);
	for (int round = 0; round < 50; round++) {
		for (int i = 0; i < 64; i++)
			q[i] = (struct mc_req){
				.op = MC_WRITE, .segment = seg,
				.buf = mine + i * 48, .len = 48,
				.remote = (uint64_t)mem +
					  rnd(&seed) % MANY * 64,
			};
		ok(mc_transfer(near, q, 64, NULL, NULL));
	}
	/* Between two of them is nothing. */
	q[0].remote = (uint64_t)mem + 48;
	q[0].len = 1;
	refused(mc_transfer(near, q, 1, NULL, NULL), -EFAULT, "remote");
	/* One more is told as one more. */
	half = seconds();
	ok(mc_buffer_reg(far, mem + 48, 8, "cpu:0", MC_REMOTE_RW));
	ok(mc_transfer(near, q, 1, NULL, NULL));
	ok(mc_buffer_unreg(far, mem + 48));
	refused(mc_transfer(near, q, 1, NULL, NULL), -ESTALE, "");
	ok(mc_segment_list(near, seg, 0, NULL, 0));
	ok(mc_segment_stat(near, seg, &info));
	assert_int_equal(info.buffers, MANY);
	half = seconds();
	for (int i = 0; i < MANY; i++)
		ok(mc_buffer_unreg(far, mem + i * 64ul));
	print_message("unregistered: %.3f s\n", seconds() - half);
	ok(mc_segment_list(near, seg, 0, NULL, 0));
	ok(mc_segment_stat(near, seg, &info));
	assert_int_equal(info.buffers, 0);
	mc_close(near);
	mc_close(far);
	munmap(mem, MANY * 64ul);
}

/* ---- fork ------------------------------------------------------- */

static int fork_child(struct pair *p, uint64_t batch)
{
	struct mc_req q = req_of(p, MC_WRITE, 0, 0, 100);
	struct mc_buffer_info b;
	struct mc_segment_info s;
	struct mc_connection_info conn;
	struct mc_rail_info rail;
	struct mc_result res;
	struct mc_notify n;
	struct mc_stats st;
	uint64_t id;
	double rtt;
	void *out;
	const int r[] = {
		mc_transfer(p->e, &q, 1, NULL, NULL),
		mc_submit(p->e, &q, 1, NULL, &id),
		mc_poll(p->e, batch, &res),
		mc_wait(p->e, batch, 0, &res),
		mc_cancel(p->e, batch),
		mc_batch_req(p->e, batch, 0, &res),
		mc_batch_free(p->e, batch),
		mc_completed(p->e, &id, 1),
		mc_segment_open(p->e, p->far.name, 0),
		mc_segment_close(p->e, p->seg),
		mc_segment_stat(p->e, p->seg, &s),
		mc_segment_list(p->e, p->seg, 0, &b, 1),
		mc_buffer_reg(p->e, &q, 8, NULL, 0),
		mc_buffer_unreg(p->e, p->near),
		mc_buffer_alloc(p->e, 8, 0, 0, -1, &out),
		mc_buffer_free(p->e, p->near),
		mc_buffer_list(p->e, 0, &b, 1),
		mc_notify_send(p->e, p->seg, "x", NULL, 0, 0),
		mc_notify_next(p->e, &n),
		mc_probe(p->e, p->seg, 0, &rtt),
		mc_rail_list(p->e, 0, &rail, 1),
		mc_connection_list(p->e, 0, &conn, 1),
		mc_stats(p->e, &st),
	};

	for (size_t i = 0; i < sizeof(r) / sizeof(r[0]); i++)
		if (r[i] != -EPERM)
			return 10 + i;
	return strstr(mc_errmsg(), "fork") ? 0 : 1;
}

static int open_sockets(void)
{
	struct sockaddr_storage a;
	int n = 0;

	for (int fd = 3; fd < 1000; fd++) {
		socklen_t len = sizeof(a);

		n += !getsockname(fd, (void *)&a, &len) &&
		     a.ss_family != AF_UNIX;
	}
	return n;
}

static void a_fork_inherits_no_engine(void **state)
{
	static const char *const names[] = { "tcp", "shm", "local" };

	(void)state;
	for (int i = 0; i < 3; i++) {
		struct pair p;
		struct mc_req q;
		struct mc_result res;
		int status;
		uint64_t id;
		pid_t pid;

		open_named(&p, names[i]);
		q = req_of(&p, MC_WRITE, 0, 0, 70000);
		ok(mc_submit(p.e, &q, 1, NULL, &id));
		ok(mc_wait(p.e, id, -1, &res));
		pid = fork();
		if (!pid) {
			int r = fork_child(&p, id);

			mc_close(p.e);
			if (p.far.e && !p.far.borrowed)
				mc_close(p.far.e);
			/* Nothing of the parent's is kept open. */
			_exit(r ? r : open_sockets() ? 2 : 0);
		}
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_true(WIFEXITED(status));
		assert_int_equal(WEXITSTATUS(status), 0);
		/* The parent goes on, and its peer too. */
		mc_fill(p.near, 70000, 9);
		ok(mc_transfer(p.e, &q, 1, NULL, NULL));
		assert_int_equal(far_hash(&p.far, p.remote, 70000),
				 mc_hash(p.near, 70000, 0));
		ok(mc_batch_free(p.e, id));
		pair_close(&p);
	}
}

/* ---- rails ------------------------------------------------------ */

static uint64_t rail_bytes(struct mc_engine *e, const char *transport)
{
	struct mc_rail_info r[16];
	int n = ok(mc_rail_list(e, 0, r, 16));
	uint64_t sum = 0;

	for (int i = 0; i < n; i++)
		if (!strcmp(r[i].transport, transport))
			sum += r[i].bytes_written + r[i].bytes_read;
	return sum;
}

static void weights_choose_among_transports(void **state)
{
	static const struct setup both = { .transports = "shm,tcp",
					   .name = "shm,tcp" };
	struct mc_batch_opts o = { 0 };
	double weights[16];
	struct mc_req q;
	struct pair p;

	(void)state;
	pair_open(&p, &both, MiB);
	q = req_of(&p, MC_WRITE, 0, 0, 100000);
	ok(mc_transfer(p.e, &q, 1, NULL, NULL));
	assert_int_equal(rail_bytes(p.e, "shm"), 100000);
	assert_int_equal(rail_bytes(p.e, "tcp"), 0);
	/* Transports are numbered local, shm, rdma, tcp. */
	for (int i = 0; i < 16; i++)
		weights[i] = i == 3;
	o.weights = weights;
	ok(mc_transfer(p.e, &q, 1, &o, NULL));
	assert_int_equal(rail_bytes(p.e, "shm"), 100000);
	assert_int_equal(rail_bytes(p.e, "tcp"), 100000);
	weights[1] = 1;
	weights[3] = 0;
	ok(mc_transfer(p.e, &q, 1, &o, NULL));
	assert_int_equal(rail_bytes(p.e, "shm"), 200000);
	pair_close(&p);
}

static void statistics_count(void **state)
{
	struct mc_stats before, after, served;
	struct mc_rail_info r;
	struct mc_req q[2];
	uint64_t hist = 0;
	struct pair p;

	(void)state;
	open_named(&p, "tcp");
	ok(mc_stats(p.e, &before));
	q[0] = req_of(&p, MC_WRITE, 0, 0, 5000);
	q[1] = req_of(&p, MC_READ, 5000, 5000, 700);
	for (int i = 0; i < 10; i++)
		ok(mc_transfer(p.e, q, 2, NULL, NULL));
	ok(mc_stats(p.e, &after));
	served = far_stats(&p.far);
	assert_int_equal(after.bytes_written - before.bytes_written, 50000);
	assert_int_equal(after.bytes_read - before.bytes_read, 7000);
	assert_int_equal(after.requests - before.requests, 20);
	assert_int_equal(after.batches - before.batches, 10);
	assert_int_equal(after.failed, 0);
	assert_int_equal(after.buffers, 1);
	assert_int_equal(after.peers, 1);
	assert_int_equal(served.served_written, 50000);
	assert_int_equal(served.served_read, 7000);
	assert_int_equal(ok(mc_rail_list(p.e, 0, &r, 1)), 1);
	assert_int_equal(r.state, MC_RAIL_UP);
	assert_int_equal(r.bytes_written, 50000);
	assert_int_equal(r.inflight, 0);
	for (int i = 0; i < MC_HIST_BUCKETS; i++)
		hist += r.hist[i];
	assert_int_equal(hist, r.slices);
	assert_true(r.latency_us > 0);
	assert_int_equal(mc_rail_list(p.e, 1, &r, 1), 0);
	pair_close(&p);
}

/* Bytes that came and went on all connections that @from made to @e. */
static int connected(struct mc_engine *e, struct mc_engine *from, uint64_t *in,
		     uint64_t *out)
{
	struct mc_connection_info c;
	int n = 0;

	*in = *out = 0;
	for (int i = 0; ok(mc_connection_list(e, i, &c, 1)) == 1; i++) {
		if (c.epoch != mc_engine_epoch(from))
			continue;
		assert_string_equal(c.peer, mc_engine_name(from));
		assert_memory_equal(c.from, "127.0.0.1:", 10);
		assert_true(c.age_ns && c.age_ns < 60000000000ull);
		*in += c.bytes_in;
		*out += c.bytes_out;
		n++;
	}
	return n;
}

static void who_is_connected_is_listed(void **state)
{
	struct mc_options o = { .transports = "tcp" };
	struct mc_engine *far, *near[2];
	uint64_t in[2], out[2];
	void *there, *here;
	struct mc_req q = { .op = MC_WRITE, .len = 30000 };
	struct mc_connection_info c;

	(void)state;
	ok(mc_open(&far, &o));
	ok(mc_buffer_alloc(far, q.len, MC_REMOTE_RW, 0, -1, &there));
	assert_int_equal(ok(mc_connection_list(far, 0, NULL, 0)), 0);
	for (int i = 0; i < 2; i++) {
		ok(mc_open(&near[i], &o));
		ok(mc_buffer_alloc(near[i], q.len, 0, 0, -1, &here));
		q.op = i ? MC_READ : MC_WRITE;
		q.segment = ok(mc_segment_open(near[i], mc_engine_name(far),
					       2000));
		q.buf = here;
		q.remote = (uintptr_t)there;
		ok(mc_transfer(near[i], &q, 1, NULL, NULL));
	}
	for (int i = 0; i < 2; i++)
		assert_true(connected(far, near[i], &in[i], &out[i]) >= 2);
	assert_true(in[0] >= q.len && in[0] < q.len + 4096);
	assert_true(out[1] >= q.len && out[1] < q.len + 4096);
	assert_true(out[0] < 4096 && in[1] < 4096);
	/* Who has gone is no longer there. */
	mc_close(near[0]);
	for (int i = 0; i < 200 && mc_connection_list(far, 2, &c, 1); i++)
		sleep_ms(5);
	assert_int_equal(ok(mc_connection_list(far, 0, &c, 1)), 1);
	assert_true(c.epoch == mc_engine_epoch(near[1]));
	mc_close(near[1]);
	mc_close(far);
}

/* ---- the promises ----------------------------------------------- */

static void promise_1_completed_is_visible_and_failed_is_quiet(void **state)
{
	static const char *const names[] = { "tcp-child", "shm",
					     "shm-foreign" };

	(void)state;
	for (int i = 0; i < 3; i++) {
		struct mc_batch_opts o = { .timeout_ms = 1 };
		struct mc_result res;
		struct mc_req q;
		struct pair p;
		uint64_t h;

		pair_open(&p, setup_named(names[i]), 8 * MiB);
		for (int k = 1; k < 100; k++) {
			q = req_of(&p, MC_WRITE, k, 2 * k, k * 37);
			mc_fill(q.buf, q.len, k);
			ok(mc_transfer(p.e, &q, 1, NULL, NULL));
			assert_int_equal(far_hash(&p.far, q.remote, q.len),
					 mc_hash(q.buf, q.len, 0));
		}
		/* Ended early, what was not moved stays unmoved. */
		q = req_of(&p, MC_READ, 0, 0, 8 * MiB);
		for (int k = 0; k < 5; k++) {
			mc_transfer(p.e, &q, 1, &o, &res);
			assert_int_not_equal(res.state, MC_PENDING);
			h = mc_hash(p.near, p.len, 0);
			sleep_ms(5);
			assert_int_equal(mc_hash(p.near, p.len, 0), h);
		}
		pair_close(&p);
	}
}

static void promise_2_a_failure_names_its_peer_within_a_second(void **state)
{
	struct mc_result res;
	struct mc_req q;
	struct pair p;
	double took;

	(void)state;
	open_named(&p, "tcp-child");
	q = req_of(&p, MC_WRITE, 0, 0, 100000);
	ok(mc_transfer(p.e, &q, 1, NULL, NULL));
	kill(p.far.pid, SIGSTOP);
	sleep_ms(100);			/* for all its threads to stop */
	took = seconds();
	refused(mc_transfer(p.e, &q, 1, NULL, &res), -ETIMEDOUT, p.far.name);
	took = seconds() - took;
	kill(p.far.pid, SIGCONT);
	assert_non_null(strstr(res.why, "tcp"));
	assert_non_null(strstr(res.why, "frozen"));
	if (took > 1.3)
		fail_msg("it took %.3f s", took);
	pair_close(&p);
}

static void promise_3_what_fails_on_one_rail_is_tried_on_others(void **state)
{
	const struct setup *s = setup_named("tcp");
	struct mc_options o = { .transports = "shm,tcp",
				.fault = "seed=7,fail=300" };
	struct far far = { 0 };
	struct mc_stats st;
	struct mc_engine *e;
	static char mem[64 * KiB];
	uint64_t at;
	int seg;

	(void)state;
	/* It offers tcp only, so shm is absent; and of slices, every third is
	 * failed. */
	far_open(&far, s, NULL);
	at = far_alloc(&far, sizeof(mem), MC_REMOTE_RW);
	ok(mc_open(&e, &o));
	ok(mc_buffer_reg(e, mem, sizeof(mem), NULL, MC_LOCAL));
	seg = ok(mc_segment_open(e, far.name, 0));
	for (int i = 0; i < 60; i++) {
		struct mc_req q = { .op = MC_WRITE, .segment = seg,
				    .buf = mem, .remote = at,
				    .len = sizeof(mem) };

		mc_fill(mem, sizeof(mem), i);
		ok(mc_transfer(e, &q, 1, NULL, NULL));
		assert_int_equal(far_hash(&far, at, sizeof(mem)),
				 mc_hash(mem, sizeof(mem), 0));
	}
	ok(mc_stats(e, &st));
	assert_true(st.retries > 0);
	assert_int_equal(st.failed, 0);
	assert_true(rail_bytes(e, "tcp") > 0);
	mc_close(e);
	far_end(&far);
}

static void promise_4_stale_addresses_are_refused(void **state)
{
	struct mc_req q;
	struct pair p;
	uint64_t at, h, old;

	(void)state;
	open_named(&p, "tcp-child");
	q = req_of(&p, MC_WRITE, 0, 0, 5000);
	ok(mc_transfer(p.e, &q, 1, NULL, NULL));
	at = p.remote;
	/* Another engine in the same process, with a buffer at the same
	 * address that no one asked it about. */
	far_close(&p.far);
	old = p.far.epoch;
	far_open(&p.far, p.s, p.far.name);
	assert_true(p.far.epoch != old);
	ok(far_reg(&p.far, at, p.len, MC_REMOTE_RW));
	h = far_hash(&p.far, at, p.len);
	mc_fill(p.near, 5000, 77);
	refused(mc_transfer(p.e, &q, 1, NULL, NULL), -ESTALE, "restarted");
	assert_int_equal(far_hash(&p.far, at, p.len), h);
	/* That was asked for once; now it is known. */
	ok(mc_transfer(p.e, &q, 1, NULL, NULL));
	assert_int_equal(far_hash(&p.far, at, 5000),
			 mc_hash(p.near, 5000, 0));
	pair_close(&p);
}

/* A client of our own, that asks for what no engine would ask. */
static int raw_ask(struct mc_stream *s, enum wire_type type,
		   struct mc_piece *pieces, uint32_t n, uint64_t len)
{
	static uint8_t buf[WIRE_BUF], zeros[64 * KiB];
	uint64_t deadline = mc_clock_ns() + 2000 * (uint64_t)MC_MS;
	struct wire_frame f = { .type = type, .n = n, .id = 1, .len = len };
	uint32_t head = wire_pack(buf, &f, pieces);

	if (mc_stream_write_full(s, buf, head, deadline) < 0 ||
	    (type == WIRE_WRITE &&
	     mc_stream_write_full(s, zeros, len, deadline) < 0) ||
	    mc_stream_read_full(s, &f, sizeof(f), deadline) < 0)
		return -ECONNRESET;
	return f.status;
}

static void raw_refusals(struct pair *p, struct mc_stream *s)
{
	struct mc_buffer_info b[3];
	struct mc_piece pc;

	assert_int_equal(ok(mc_segment_list(p->e, p->seg, 0, b, 3)), 2);
	for (int type = WIRE_WRITE; type <= WIRE_READ; type++) {
		pc = (struct mc_piece){ NULL, p->remote + p->len - 1, 2,
					b[0].id };
		if (b[0].addr != p->remote)
			pc.id = b[1].id;
		assert_int_equal(raw_ask(s, type, &pc, 1, 2), -EFAULT);
		pc.len = 1;
		pc.id += 100;
		assert_int_equal(raw_ask(s, type, &pc, 1, 1), -ESTALE);
		pc.id -= 100;
		pc.remote = (uint64_t)s;
		assert_int_equal(raw_ask(s, type, &pc, 1, 1), -ESTALE);
	}
	for (int i = 0; i < 2; i++) {
		if (b[i].addr == p->remote)
			continue;
		pc = (struct mc_piece){ NULL, b[i].addr, 8, b[i].id };
		assert_int_equal(raw_ask(s, WIRE_WRITE, &pc, 1, 8), -EACCES);
	}
}

static void promise_5_nothing_else_is_reachable(void **state)
{
	struct mc_stream s;
	struct wire_welcome w;
	struct wire_dial d = { .name = "stranger", .epoch = 5 };
	struct mc_engine *e;
	struct pair p;
	uint64_t only_read;

	(void)state;
	open_named(&p, "tcp");
	only_read = far_alloc(&p.far, 4096, MC_REMOTE_READ);
	far_fill(&p.far, only_read, 4096, 6);
	d.addr = p.far.name;
	d.deadline_ns = mc_clock_ns() + 2000 * (uint64_t)MC_MS;
	ok(wire_connect(&d, &s, &w));
	raw_refusals(&p, &s);
	mc_stream_fini(&s);
	assert_true(far_stats(&p.far).refused >= 7);
	pair_close(&p);
	/* With a key, no one who has not got it. */
	open_named(&p, "tcp-key");
	ok(mc_open(&e, NULL));
	refused(mc_segment_open(e, p.far.name, 0), -EACCES, "key");
	d.addr = p.far.name;
	d.deadline_ns = mc_clock_ns() + 2000 * (uint64_t)MC_MS;
	refused(wire_connect(&d, &s, &w), -EACCES, "key");
	/* They are counted when the connection has been closed. */
	for (int i = 0; i < 200 && far_stats(&p.far).rejected < 2; i++)
		sleep_ms(10);
	assert_true(far_stats(&p.far).rejected >= 2);
	mc_close(e);
	pair_close(&p);
	open_named(&p, "tcp-tls");
	ok(mc_open(&e, NULL));
	assert_true(mc_segment_open(e, p.far.name, 0) < 0);
	assert_non_null(strstr(mc_errmsg(), "TLS"));
	mc_close(e);
	pair_close(&p);
}

static void promise_6_ids_are_an_index_and_a_generation(void **state)
{
	uint64_t seen[100];
	struct mc_result res;
	struct mc_req q;
	struct pair p;

	(void)state;
	open_named(&p, "local");
	q = req_of(&p, MC_WRITE, 0, 0, 64);
	for (int i = 0; i < 100; i++) {
		ok(mc_submit(p.e, &q, 1, NULL, &seen[i]));
		ok(mc_wait(p.e, seen[i], -1, &res));
		ok(mc_batch_free(p.e, seen[i]));
		/* The place is used again, no id ever is. */
		assert_int_equal(seen[i] & UINT32_MAX, seen[0] & UINT32_MAX);
		for (int k = 0; k < i; k++)
			assert_true(seen[k] != seen[i]);
		refused(mc_poll(p.e, seen[i / 2], &res), -ESTALE, "batch");
	}
	pair_close(&p);
}

static void promise_7_an_idle_engine_uses_no_cpu(void **state)
{
	struct pair p[3];
	struct rusage a, b;
	double cpu;

	(void)state;
	open_named(&p[0], "tcp");
	open_named(&p[1], "shm-here");
	open_named(&p[2], "local");
	for (int i = 0; i < 3; i++) {
		struct mc_req q = req_of(&p[i], MC_WRITE, 0, 0, 100000);
		struct mc_result res;
		uint64_t id;

		ok(mc_submit(p[i].e, &q, 1, NULL, &id));
		ok(mc_wait(p[i].e, id, -1, &res));
		ok(mc_batch_free(p[i].e, id));
	}
	sleep_ms(100);
	getrusage(RUSAGE_SELF, &a);
	cpu = cpu_seconds();
	sleep_ms(1000);
	cpu = cpu_seconds() - cpu;
	getrusage(RUSAGE_SELF, &b);
	if (cpu > 0.005 || b.ru_nvcsw - a.ru_nvcsw > 20)
		fail_msg("%.4f s, %ld wakeups", cpu, b.ru_nvcsw - a.ru_nvcsw);
	for (int i = 0; i < 3; i++)
		pair_close(&p[i]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(engines_are_independent),
		cmocka_unit_test(options_are_checked),
		cmocka_unit_test(who_only_initiates_can_move_bytes),
		cmocka_unit_test(a_segment_that_is_not_there_is_said_soon),
		cmocka_unit_test(buffers_do_not_overlap),
		cmocka_unit_test(many_buffers_are_registered_one_by_one),
		cmocka_unit_test(a_fork_inherits_no_engine),
		cmocka_unit_test(weights_choose_among_transports),
		cmocka_unit_test(statistics_count),
		cmocka_unit_test(who_is_connected_is_listed),
		cmocka_unit_test(
			promise_1_completed_is_visible_and_failed_is_quiet),
		cmocka_unit_test(
			promise_2_a_failure_names_its_peer_within_a_second),
		cmocka_unit_test(
			promise_3_what_fails_on_one_rail_is_tried_on_others),
		cmocka_unit_test(promise_4_stale_addresses_are_refused),
		cmocka_unit_test(promise_5_nothing_else_is_reachable),
		cmocka_unit_test(promise_6_ids_are_an_index_and_a_generation),
		cmocka_unit_test(promise_7_an_idle_engine_uses_no_cpu),
	};

	peer_start();
	return peer_stop(cmocka_run_group_tests_name("engine", tests, NULL,
						     NULL));
}
