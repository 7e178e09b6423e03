/*
 * fault_test.c - rounds of faults by a seed. Each round opens two engines with
 * random faults between them, makes random batches with random deadlines and
 * cancels, and checks what every caller is promised:
 *
 * - each request has one outcome, within its deadline and a second;
 * - COMPLETED: the bytes are there. FAILED, CANCELED: none is written once the
 *   outcome was seen. Either way none outside the request changes;
 * - ids of batches are told once, and gone when freed;
 * - mc_close() takes less than two seconds, whatever is in flight.
 *
 * MC_FAULT_ROUNDS says how many (500; fewer with a sanitizer), MC_FAULT_SEED
 * where the seeds begin. A seed that fails is printed with the command that
 * runs it alone.
 */
#include "peer.h"

#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { ROUNDS_MAX = 60, SLACK_MS = 2500, AT_ONCE = 6, KILLS = 3 };
#else
enum { ROUNDS_MAX = 1 << 30, SLACK_MS = 1000, AT_ONCE = 16, KILLS = 12 };
#endif

enum {
	SLOT = 64 << 10,		/* of memory, for one request */
	REQS = 4,			/* per batch, at most */
	BATCHES = 4,			/* per thread */
	THREADS = 3,
	RANGES = 6,
	SLOTS = REQS * BATCHES * THREADS,
	QUIET_MS = 900,			/* deadline where none was asked for */
	CLOSE_MS = 2000,
};

struct ask {
	enum mc_op op;
	int slot;
	struct mc_range l[RANGES], r[RANGES];
	uint32_t n_l, n_r;
	uint64_t len;
	enum mc_state state;
	uint8_t *seen;			/* its slot's destination, then */
};

struct job {
	struct round *round;
	struct ask ask[REQS];
	int n;
	uint64_t id;			/* 0: mc_transfer() */
	int timeout_ms;
	bool cancel;
	bool whole;			/* the outcome is known of all only */
};

struct round {
	uint64_t seed, rnd;
	bool bad;
	char fault[128], transports[16];
	bool local, foreign, close_near, close_far;
	bool killed;			/* the far side is a process that is */
	struct mc_engine *near, *far;
	int segment;
	uint8_t *mem[2];		/* near, far */
	uint8_t *was[2];		/* what was in it */
	struct job jobs[THREADS][BATCHES];
	int n_threads, n_jobs;
	uint64_t completed, failed, canceled;
};

static const char *profile_of(const struct round *r)
{
	return strcmp(r->transports, "v1") ? NULL : "v1";
}

static pthread_mutex_t totals = PTHREAD_MUTEX_INITIALIZER;
static uint64_t n_completed, n_failed, n_canceled, n_unreached, n_bad;

static void complain(struct round *r, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

static void complain(struct round *r, const char *fmt, ...)
{
	char text[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (!__atomic_exchange_n(&r->bad, true, __ATOMIC_RELAXED))
		fprintf(stderr, "round of seed %llu (%s, %s%s%s%s) failed; "
			"again: MC_FAULT_SEED=%llu MC_FAULT_ROUNDS=1 "
			"fault_test\n", (long long)r->seed, r->transports,
			r->fault, r->foreign ? ", foreign" : "",
			r->close_near ? ", closes near" : "",
			r->close_far ? ", closes far" : "",
			(long long)r->seed);
	fprintf(stderr, "  %s\n", text);
}

/* Not instrumented: memory that another engine of this process wrote when it
 * was told so over a socket, which no sanitizer of threads can know. */
__attribute__((no_sanitize("thread")))
static void look(volatile uint8_t *to, const volatile uint8_t *from,
		 uint64_t len)
{
	for (uint64_t i = 0; i + 8 <= len; i += 8)
		*(volatile uint64_t *)(to + i) =
			*(const volatile uint64_t *)(from + i);
}

/* ---- a round's requests --------------------------------------------- */

/* Cut [off, off+len) of a slot into ranges that lie apart, in any order. */
static uint32_t cut(struct round *r, uint64_t base, uint64_t len, bool many,
		    struct mc_range *out)
{
	uint32_t n = many ? 1 + rnd(&r->rnd) % RANGES : 1;
	uint64_t room = SLOT / n, left = len;

	if (len < n || len / n > room - 64)
		n = 1;
	room = SLOT / n;
	for (uint32_t i = 0; i < n; i++) {
		uint64_t part = i + 1 < n ? len / n : left;
		uint64_t spare = room - part;

		out[i].addr = base + i * room +
			      (spare ? rnd(&r->rnd) % spare : 0);
		out[i].len = part;
		left -= part;
	}
	for (uint32_t i = n; i > 1; i--) {
		uint32_t k = rnd(&r->rnd) % i;
		struct mc_range t = out[i - 1];

		out[i - 1] = out[k];
		out[k] = t;
	}
	return n;
}

static void make_ask(struct round *r, struct ask *a, int slot)
{
	bool many = rnd(&r->rnd) % 3 == 0;
	uint64_t at = (uint64_t)slot * SLOT;

	a->op = rnd(&r->rnd) % 2 ? MC_READ : MC_WRITE;
	a->slot = slot;
	a->len = rnd(&r->rnd) % 4 ? rnd(&r->rnd) % (SLOT / 2) :
		 rnd(&r->rnd) % 64;
	a->n_l = cut(r, (uintptr_t)r->mem[0] + at, a->len, many, a->l);
	a->n_r = cut(r, (uintptr_t)r->mem[1] + at, a->len, many, a->r);
	a->seen = malloc(SLOT);
}

static void make_jobs(struct round *r)
{
	static const int waits[] = { 0, 50, 100, 200, 400, 800 };
	int slot = 0;

	r->n_threads = rnd(&r->rnd) % 3 ? 1 : 2 + rnd(&r->rnd) % 2;
	r->n_jobs = 1 + rnd(&r->rnd) % BATCHES;
	for (int t = 0; t < r->n_threads; t++)
		for (int i = 0; i < r->n_jobs; i++) {
			struct job *j = &r->jobs[t][i];

			j->round = r;
			j->n = 1 + rnd(&r->rnd) % REQS;
			j->timeout_ms = waits[rnd(&r->rnd) % 6];
			j->cancel = rnd(&r->rnd) % 5 == 0;
			for (int k = 0; k < j->n; k++)
				make_ask(r, &j->ask[k], slot++);
		}
}

static void make_fault(struct round *r)
{
	static const char *const names[] = {
		"delay", "fail", "lose", "stall", "reorder", "drop",
	};
	int n = snprintf(r->fault, sizeof(r->fault), "seed=%llu",
			 (long long)r->seed);

	for (int i = 0; i < 6; i++)
		if (rnd(&r->rnd) % 2)
			n += snprintf(r->fault + n, sizeof(r->fault) - n,
				      ",%s=%d", names[i],
				      (int)(rnd(&r->rnd) % 300));
}

/* ---- checks --------------------------------------------------------- */

static int dest(const struct ask *a)
{
	return a->op == MC_WRITE;	/* an index of mem[] */
}

/* Memory of another process is not looked at: it is gone. */
static bool visible(const struct round *r, int m)
{
	return !(m && r->killed);
}

/* Does the destination hold what it should, where the request may have
 * written, and what it held elsewhere? */
static bool dest_right(struct round *r, const struct ask *a,
		       const uint8_t *now, uint8_t *want, bool completed)
{
	const struct mc_range *to = a->op == MC_READ ? a->l : a->r;
	const struct mc_range *from = a->op == MC_READ ? a->r : a->l;
	uint64_t base = (uint64_t)a->slot * SLOT, fo = 0, to_o = 0;
	const uint8_t *src = r->was[!dest(a)];
	uint64_t src0 = (uintptr_t)r->mem[!dest(a)];
	uint64_t dst0 = (uintptr_t)r->mem[dest(a)] + base;

	memcpy(want, r->was[dest(a)] + base, SLOT);
	for (uint64_t left = a->len, n; left; left -= n) {
		uint8_t *at = want + (to->addr + to_o - dst0);

		n = to->len - to_o < from->len - fo ? to->len - to_o :
		    from->len - fo;
		memcpy(at, completed ? src + (from->addr + fo - src0) :
		       now + (at - want), n);
		to_o += n;
		fo += n;
		if (to_o == to->len) {
			to++;
			to_o = 0;
		}
		if (fo == from->len) {
			from++;
			fo = 0;
		}
	}
	return !memcmp(want, now, SLOT);
}

static const char *state_word(enum mc_state s)
{
	return s == MC_COMPLETED ? "completed" : s == MC_FAILED ? "failed" :
	       s == MC_CANCELED ? "canceled" : "pending";
}

/* The outcome has just been seen. */
static void see(struct round *r, struct ask *a, enum mc_state state)
{
	uint8_t *want = malloc(SLOT);

	a->state = state;
	__atomic_add_fetch(state == MC_COMPLETED ? &r->completed :
			   state == MC_FAILED ? &r->failed : &r->canceled, 1,
			   __ATOMIC_RELAXED);
	if (!visible(r, dest(a))) {
		free(want);
		return;
	}
	look(a->seen, r->mem[dest(a)] + (uint64_t)a->slot * SLOT, SLOT);
	if (!dest_right(r, a, a->seen, want, state == MC_COMPLETED))
		complain(r, "a %s of %llu bytes %s: %s",
			 a->op == MC_READ ? "read" : "write",
			 (long long)a->len, state_word(state),
			 state == MC_COMPLETED ? "wrong bytes" :
			 "bytes outside of it changed");
	free(want);
}

/* Later: is everything as it was when the outcome was seen? */
static void see_again(struct round *r, const char *when)
{
	uint8_t *now = malloc(SLOT);

	for (int t = 0; t < r->n_threads; t++)
		for (int i = 0; i < r->n_jobs; i++)
			for (int k = 0; k < r->jobs[t][i].n; k++) {
				struct ask *a = &r->jobs[t][i].ask[k];

				if (a->state == MC_PENDING ||
				    !visible(r, dest(a)))
					continue;
				look(now, r->mem[dest(a)] +
				     (uint64_t)a->slot * SLOT, SLOT);
				if (memcmp(now, a->seen, SLOT))
					complain(r, "written %s, after it had "
						 "%s", when,
						 state_word(a->state));
			}
	/* The sources were only read. */
	for (int s = 0; s < SLOTS; s++)
		for (int m = 0; m < 2; m++) {
			bool target = !visible(r, m);

			for (int t = 0; t < r->n_threads; t++)
				for (int i = 0; i < r->n_jobs; i++)
					for (int k = 0; k < r->jobs[t][i].n;
					     k++) {
						struct ask *a =
							&r->jobs[t][i].ask[k];

						target |= a->slot == s &&
							  dest(a) == m;
					}
			if (target)
				continue;
			look(now, r->mem[m] + (uint64_t)s * SLOT, SLOT);
			if (memcmp(now, r->was[m] + (uint64_t)s * SLOT, SLOT))
				complain(r, "memory of no request changed %s",
					 when);
		}
	free(now);
}

/* ---- a batch -------------------------------------------------------- */

static void fill_reqs(const struct job *j, struct mc_req *q)
{
	for (int i = 0; i < j->n; i++) {
		const struct ask *a = &j->ask[i];

		q[i] = (struct mc_req){
			.op = a->op, .segment = j->round->segment,
			.buf = (void *)a->l[0].addr, .remote = a->r[0].addr,
			.len = a->len,
		};
		if (a->n_l == 1 && a->n_r == 1)
			continue;
		q[i].locals = a->l;
		q[i].remotes = a->r;
		q[i].n_locals = a->n_l;
		q[i].n_remotes = a->n_r;
	}
}

static void check_late(const struct job *j, double start)
{
	int ms = (j->timeout_ms ? j->timeout_ms : QUIET_MS) + SLACK_MS;
	double took = (seconds() - start) * 1e3;

	/* Without a deadline it goes on for as long as anything moves. */
	if (!j->timeout_ms)
		ms += 4 * QUIET_MS;
	if (took > ms)
		complain(j->round, "an outcome after %.0f ms, asked for in %d",
			 took, j->timeout_ms);
}

static void run_sync(struct job *j)
{
	struct mc_batch_opts o = { .timeout_ms = j->timeout_ms };
	struct mc_req q[REQS];
	struct mc_result res = { 0 };
	double start = seconds();
	int r;

	fill_reqs(j, q);
	r = mc_transfer(j->round->near, q, j->n, &o, &res);
	check_late(j, start);
	if (r < 0 && !mc_errmsg()[0])
		complain(j->round, "error %d without a message", r);
	j->whole = true;
	for (int i = 0; i < j->n; i++)
		see(j->round, &j->ask[i], r ? MC_FAILED : MC_COMPLETED);
}

static void check_result(struct job *j, const struct mc_result *res)
{
	uint64_t bytes = 0;
	uint32_t failed = 0;

	for (int i = 0; i < j->n; i++) {
		struct mc_result one;

		if (mc_batch_req(j->round->near, j->id, i, &one) < 0 ||
		    one.state == MC_PENDING) {
			complain(j->round, "request %d of an ended batch is "
				 "pending", i);
			continue;
		}
		failed += one.state != MC_COMPLETED;
		bytes += one.bytes;
		if (one.state != MC_COMPLETED && (!one.err || !one.why[0]))
			complain(j->round, "request %d failed without a "
				 "reason", i);
		see(j->round, &j->ask[i], one.state);
	}
	if (res->done != (uint32_t)j->n || res->failed != failed ||
	    res->bytes != bytes)
		complain(j->round, "%d requests, %u done, %u of %u failed, "
			 "%llu of %llu bytes", j->n, res->done, res->failed,
			 failed, (long long)res->bytes, (long long)bytes);
}

/* Poll or wait, now and then with a cancel in between. */
static void run_async(struct job *j, uint64_t *rng)
{
	struct mc_batch_opts o = {
		.timeout_ms = j->timeout_ms,
		.workers_only = rnd(rng) % 4 == 0,
	};
	bool polls = rnd(rng) % 2, again = true;
	int patience = rnd(rng) % 60;
	struct mc_engine *e = j->round->near;
	struct mc_result res = { 0 };
	double start = seconds();
	struct mc_req q[REQS];

	fill_reqs(j, q);
	if (mc_submit(e, q, j->n, &o, &j->id) < 0) {
		j->id = 0;
		for (int i = 0; i < j->n; i++)
			see(j->round, &j->ask[i], MC_FAILED);
		return;
	}
	while (again) {
		if (j->cancel && seconds() - start > patience / 1e3) {
			ok(mc_cancel(e, j->id));
			j->cancel = false;
		}
		if (polls) {
			ok(mc_poll(e, j->id, &res));
			again = res.state == MC_PENDING;
			usleep(again ? 500 : 0);
		} else {
			again = mc_wait(e, j->id, j->cancel ? 5 : 200,
					&res) == -EAGAIN;
		}
		if (again && seconds() - start > 10) {
			complain(j->round, "no outcome after 10 s");
			return;
		}
	}
	check_late(j, start);
	check_result(j, &res);
}

static void *run_jobs(void *arg)
{
	struct job *j = arg;
	struct round *r = j->round;
	uint64_t rng = r->seed * 31 + (j - r->jobs[0]);

	for (int i = 0; i < r->n_jobs; i++)
		if (rnd(&rng) % 3)
			run_async(&j[i], &rng);
		else
			run_sync(&j[i]);
	return NULL;
}

/* All at once, for others to close engines under. */
static void run_unwaited(struct round *r)
{
	struct mc_req q[REQS];

	r->n_threads = 1;
	for (int i = 0; i < r->n_jobs; i++) {
		struct job *j = &r->jobs[0][i];
		struct mc_batch_opts o = { .timeout_ms = j->timeout_ms };

		fill_reqs(j, q);
		if (mc_submit(r->near, q, j->n, &o, &j->id) < 0)
			j->id = 0;
	}
	usleep(rnd(&r->rnd) % 20000);
}

/* ---- ids ------------------------------------------------------------ */

static void check_ids(struct round *r)
{
	uint64_t ids[THREADS * BATCHES + 4];
	int n = 0, want = 0, got;
	struct mc_result res;

	/* The last may be on its way onto the list still. */
	for (int t = 0; t < r->n_threads; t++)
		for (int i = 0; i < r->n_jobs; i++)
			want += !!r->jobs[t][i].id;
	for (int tries = 0; n < want && tries < 1000; tries++) {
		got = mc_completed(r->near, ids + n,
				   THREADS * BATCHES + 4 - n);
		n += got;
		if (n < want)
			usleep(1000);
	}
	if (n != want || mc_completed(r->near, ids, 1))
		complain(r, "%d ids told of %d batches", n, want);
	for (int t = 0; t < r->n_threads; t++)
		for (int i = 0; i < r->n_jobs; i++) {
			struct job *j = &r->jobs[t][i];
			int told = 0;

			if (!j->id)
				continue;
			for (int k = 0; k < n; k++)
				told += ids[k] == j->id;
			if (told != 1)
				complain(r, "a batch's id was told %d times",
					 told);
			if (mc_batch_free(r->near, j->id) < 0)
				complain(r, "%s", mc_errmsg());
			if (mc_poll(r->near, j->id, &res) != -ESTALE)
				complain(r, "a freed id is still known");
		}
}

/* ---- a round -------------------------------------------------------- */

static bool memory(struct round *r, struct mc_engine *e, int m)
{
	uint64_t len = (uint64_t)SLOTS * SLOT;
	void *at;

	r->was[m] = malloc(len);
	mc_fill(r->was[m], len, r->seed * 2 + m);
	at = mmap(NULL, len, PROT_READ | PROT_WRITE,
		  (r->foreign ? MAP_PRIVATE : MAP_SHARED) | MAP_ANONYMOUS, -1,
		  0);
	if (at == MAP_FAILED)
		return false;
	if (!r->foreign) {
		munmap(at, len);
		if (mc_buffer_alloc(e, len, MC_REMOTE_RW, 0, -1, &at) < 0)
			return false;
	} else if (mc_buffer_reg(e, at, len, NULL, MC_REMOTE_RW) < 0) {
		return false;
	}
	r->mem[m] = at;
	look(at, r->was[m], len);
	return true;
}

static void make_round(struct round *r)
{
	static const char *const sets[] = {
		"tcp", "tcp", "shm", "tcp,shm", "local", "v1",
	};

	r->rnd = r->seed;
	snprintf(r->transports, sizeof(r->transports), "%s",
		 sets[rnd(&r->rnd) % 6]);
	r->local = !strcmp(r->transports, "local");
	r->foreign = rnd(&r->rnd) % 2;
	/* Memory of mc_buffer_alloc() goes with its engine. */
	if (r->foreign && rnd(&r->rnd) % 5 == 0) {
		r->close_near = rnd(&r->rnd) % 2;
		r->close_far = !r->close_near && !r->local;
	}
	make_fault(r);
}

static bool open_round(struct round *r)
{
	static const uint64_t slices[] = { 0, 4096, 16384 };
	struct mc_options o = { .transports = r->transports,
				.profile = profile_of(r) };

	if (!r->local && mc_open(&r->far, &o) < 0) {
		complain(r, "%s", mc_errmsg());
		return false;
	}
	o.fault = r->fault;
	o.streams = 1 + rnd(&r->rnd) % 3;
	o.slice_bytes = slices[rnd(&r->rnd) % 3];
	if (mc_open(&r->near, &o) < 0 || !memory(r, r->near, 0) ||
	    !memory(r, r->local ? r->near : r->far, 1)) {
		complain(r, "%s", mc_errmsg());
		return false;
	}
	for (int i = 0; i < 8; i++) {
		r->segment = mc_segment_open(r->near, mc_engine_name(
				r->local ? r->near : r->far), 2000);
		if (r->segment >= 0)
			return true;
	}
	return false;
}

static void close_engine(struct round *r, struct mc_engine **e)
{
	double start = seconds();

	mc_close(*e);
	*e = NULL;
	if (seconds() - start > (CLOSE_MS + SLACK_MS - 1000) / 1e3)
		complain(r, "mc_close() took %.1f s", seconds() - start);
}

/* Engines that go while their batches are under way. */
static void run_closing(struct round *r)
{
	struct mc_result res;

	run_unwaited(r);
	if (r->close_near) {
		close_engine(r, &r->near);
		for (int i = 0; i < r->n_jobs; i++)
			for (int k = 0; k < r->jobs[0][i].n; k++)
				see(r, &r->jobs[0][i].ask[k], MC_CANCELED);
		return;
	}
	close_engine(r, &r->far);
	for (int i = 0; i < r->n_jobs; i++) {
		struct job *j = &r->jobs[0][i];

		if (!j->id)
			continue;
		if (mc_wait(r->near, j->id, 10000, &res) < 0)
			complain(r, "no outcome: %s", mc_errmsg());
		else
			check_result(j, &res);
	}
}

static void run_round(struct round *r)
{
	pthread_t t[THREADS];

	make_jobs(r);
	if (r->close_near || r->close_far) {
		run_closing(r);
	} else {
		for (int i = 1; i < r->n_threads; i++)
			pthread_create(&t[i], NULL, run_jobs, r->jobs[i]);
		run_jobs(r->jobs[0]);
		for (int i = 1; i < r->n_threads; i++)
			pthread_join(t[i], NULL);
		check_ids(r);
	}
	usleep(40000);
	see_again(r, "later");
}

static void end_round(struct round *r)
{
	uint64_t len = (uint64_t)SLOTS * SLOT;

	if (r->near && rnd(&r->rnd) % 2)
		close_engine(r, &r->near);
	if (r->far)
		close_engine(r, &r->far);
	if (r->near)
		close_engine(r, &r->near);
	if (r->foreign && r->mem[0] && r->mem[1])
		see_again(r, "when the engines were closed");
	for (int m = 0; m < 2; m++) {
		free(r->was[m]);
		if (r->foreign && r->mem[m])
			munmap(r->mem[m], len);
	}
	for (int t = 0; t < THREADS; t++)
		for (int i = 0; i < BATCHES; i++)
			for (int k = 0; k < REQS; k++)
				free(r->jobs[t][i].ask[k].seen);
}

static void one_round(uint64_t seed)
{
	struct round *r = calloc(1, sizeof(*r));
	bool reached;

	r->seed = seed;
	make_round(r);
	reached = open_round(r);
	if (reached)
		run_round(r);
	end_round(r);
	pthread_mutex_lock(&totals);
	n_completed += r->completed;
	n_failed += r->failed;
	n_canceled += r->canceled;
	n_unreached += !reached;
	n_bad += r->bad;
	pthread_mutex_unlock(&totals);
	free(r);
}

/* ---- all of them ---------------------------------------------------- */

static uint64_t first_seed, n_rounds, next_round;

static void *run_rounds(void *arg)
{
	uint64_t i;

	(void)arg;
	while ((i = __atomic_fetch_add(&next_round, 1, __ATOMIC_RELAXED)) <
	       n_rounds)
		one_round(first_seed + i);
	return NULL;
}

static void test_rounds(void **state)
{
	pthread_t t[AT_ONCE];
	double start = seconds();

	(void)state;
	for (int i = 0; i < AT_ONCE; i++)
		pthread_create(&t[i], NULL, run_rounds, NULL);
	for (int i = 0; i < AT_ONCE; i++)
		pthread_join(t[i], NULL);
	print_message("%llu rounds from seed %llu in %.1f s: requests "
		      "completed %llu, failed %llu, canceled %llu; peers not "
		      "reached %llu\n", (long long)n_rounds,
		      (long long)first_seed, seconds() - start,
		      (long long)n_completed, (long long)n_failed,
		      (long long)n_canceled, (long long)n_unreached);
	assert_int_equal(n_bad, 0);
	if (n_rounds > 20)
		assert_true(n_completed && n_failed && n_canceled);
}

/* ---- the far process is killed -------------------------------------- */

static void kill_round(uint64_t seed, const char *setup)
{
	uint64_t len = (uint64_t)SLOTS * SLOT;
	struct round *r = calloc(1, sizeof(*r));
	struct mc_options o = { .fault = r->fault };
	struct far far = { .fd = -1 };

	r->seed = r->rnd = seed;
	r->killed = r->foreign = true;
	far_open(&far, setup_named(setup), NULL);
	snprintf(r->transports, sizeof(r->transports), "%s",
		 far.s->transports);
	o.transports = r->transports;
	o.profile = profile_of(r);
	r->mem[1] = (void *)(uintptr_t)far_alloc(&far, len, MC_REMOTE_RW);
	r->was[1] = malloc(len);
	mc_fill(r->was[1], len, seed * 2 + 1);
	far_fill(&far, (uintptr_t)r->mem[1], len, seed * 2 + 1);
	snprintf(r->fault, sizeof(r->fault), "seed=%llu,kill=%d,delay=200,"
		 "pid=%d", (long long)seed, 50 + (int)(rnd(&r->rnd) % 300),
		 far.pid);
	o.slice_bytes = 4096;
	ok(mc_open(&r->near, &o));
	assert_true(memory(r, r->near, 0));
	r->segment = ok(mc_segment_open(r->near, far.name, 5000));
	run_round(r);
	kill(far.pid, SIGKILL);
	close(far.fd);
	r->mem[1] = NULL;
	close_engine(r, &r->near);
	munmap(r->mem[0], len);
	r->mem[0] = NULL;
	n_completed += r->completed;
	n_failed += r->failed;
	n_bad += r->bad;
	end_round(r);
	free(r);
}

static void test_kills(void **state)
{
	static const char *const setups_used[] = {
		"tcp-child", "shm", "shm-foreign", "v1-child",
	};
	int kills = n_rounds < 100 ? 4 : KILLS;

	(void)state;
	n_completed = n_failed = n_bad = 0;
	for (int i = 0; i < kills; i++)
		kill_round(first_seed + i, setups_used[i % 4]);
	print_message("%d processes killed: requests completed %llu, failed "
		      "%llu\n", kills, (long long)n_completed,
		      (long long)n_failed);
	assert_int_equal(n_bad, 0);
	assert_true(n_failed);
}

static uint64_t number(const char *name, uint64_t fallback)
{
	const char *s = getenv(name);

	return s && s[0] ? strtoull(s, NULL, 10) : fallback;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rounds),
		cmocka_unit_test(test_kills),
	};
	int r;

	first_seed = number("MC_FAULT_SEED", 1);
	n_rounds = number("MC_FAULT_ROUNDS", 500);
	if (n_rounds > ROUNDS_MAX)
		n_rounds = ROUNDS_MAX;
	peer_start();
	r = cmocka_run_group_tests(tests, NULL, NULL);
	return peer_stop(r);
}
