/*
 * hostile_test.c - clients that do not keep to the protocol, or have no right
 * to be there: half-open connections, storms, slow readers, wrong keys, a
 * replayed handshake, and frames that point outside of what is offered. Others
 * are served meanwhile, and no byte changes that should not.
 */
#include "peer.h"

#include "../../src/base/net.h"
#include "../../src/transport/wire.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { SLOW = 3 };
#else
enum { SLOW = 1 };
#endif

enum { CROWD = 500, LEN = 1 << 20, MS = 1000000 };

static uint64_t in_ms(int ms)
{
	return mc_now_ns() + (uint64_t)ms * MS;
}

static int dial(const char *addr)
{
	int fd;

	ok(mc_net_connect(addr, NULL, in_ms(5000), &fd));
	return fd;
}

/* A client of our own making, past its handshake. */
static void greet(const char *addr, struct mc_stream *s,
		  struct wire_welcome *w)
{
	struct wire_dial d = { .addr = addr, .epoch = 77, .name = "hostile",
			       .deadline_ns = in_ms(5000) };

	ok(wire_connect(&d, s, w));
}

static void served(struct pair *p)
{
	struct mc_req q = req_of(p, MC_WRITE, 0, 0, 4096);
	double start = seconds();

	ok(mc_transfer(p->e, &q, 1, NULL, NULL));
	assert_true(seconds() - start < 1 * SLOW);
}

/* ---- crowds --------------------------------------------------------- */

/* Both ends of a crowd, and what else is open. */
enum { ROOM = 2 * CROWD + 100 };

/* Children take over what is allowed here. */
static void make_room(void)
{
	struct rlimit r;

	getrlimit(RLIMIT_NOFILE, &r);
	r.rlim_cur = r.rlim_max;
	setrlimit(RLIMIT_NOFILE, &r);
}

static void need_room(void)
{
	struct rlimit r;

	getrlimit(RLIMIT_NOFILE, &r);
	if (r.rlim_cur >= ROOM)
		return;
	print_message("skipped: a crowd of %d needs %d descriptors, and %d "
		      "are allowed (ulimit -Hn)\n", CROWD, ROOM,
		      (int)r.rlim_cur);
	skip();
}

static void test_half_open(void **state)
{
	struct mc_stats before, after;
	struct pollfd fds[CROWD];
	double start;
	struct pair p;
	int open = CROWD;

	(void)state;
	need_room();
	pair_open(&p, setup_named("tcp-child"), LEN);
	before = far_stats(&p.far);
	start = seconds();
	for (int i = 0; i < CROWD; i++)
		fds[i] = (struct pollfd){ dial(p.far.name), POLLIN, 0 };
	for (int i = 0; i < 20; i++)
		served(&p);
	while (open && seconds() - start < 6) {
		poll(fds, CROWD, 200);
		served(&p);
		for (int i = 0; i < CROWD; i++) {
			char byte;

			if (fds[i].fd < 0 || !fds[i].revents)
				continue;
			assert_true(read(fds[i].fd, &byte, 1) <= 0);
			if (seconds() - start < 1.9)
				fail_msg("hung up on after %.2f s",
					 seconds() - start);
			close(fds[i].fd);
			fds[i].fd = -1;
			open--;
		}
	}
	assert_int_equal(open, 0);
	print_message("the last of %d was hung up on after %.1f s\n", CROWD,
		      seconds() - start);
	assert_true(seconds() - start < 3 * SLOW);
	after = far_stats(&p.far);
	assert_int_equal(after.rejected - before.rejected, CROWD);
	pair_close(&p);
}

/* All at once, from several threads, with handshakes. */
static const char *storm_addr;

static void *storm(void *arg)
{
	struct mc_stream *s = arg;
	struct wire_welcome w;

	for (int i = 0; i < CROWD / 4; i++)
		greet(storm_addr, &s[i], &w);
	return NULL;
}

static void test_storm(void **state)
{
	static struct mc_stream s[4][CROWD / 4];
	struct mc_stats before, after;
	double start = seconds();
	pthread_t t[4];
	struct pair p;

	(void)state;
	need_room();
	pair_open(&p, setup_named("tcp-child"), LEN);
	before = far_stats(&p.far);
	storm_addr = p.far.name;
	for (int i = 0; i < 4; i++)
		pthread_create(&t[i], NULL, storm, s[i]);
	for (int i = 0; i < 20; i++)
		served(&p);
	for (int i = 0; i < 4; i++)
		pthread_join(t[i], NULL);
	print_message("%d handshakes in %.2f s\n", CROWD, seconds() - start);
	served(&p);
	after = far_stats(&p.far);
	assert_true(after.connections >= before.connections + CROWD);
	for (int i = 0; i < 4; i++)
		for (int k = 0; k < CROWD / 4; k++)
			mc_stream_fini(&s[i][k]);
	start = seconds();
	do
		after = far_stats(&p.far);
	while (after.connections != before.connections &&
	       seconds() - start < 5);
	assert_int_equal(after.connections, before.connections);
	served(&p);
	pair_close(&p);
}

/* ---- slow readers --------------------------------------------------- */

/* Send as much as it takes, for a while; how many frames went. */
static int flood(struct mc_stream *s, const void *frame, size_t len)
{
	double start = seconds();
	size_t off = 0;
	int n = 0;

	while (seconds() - start < 1) {
		ssize_t r = send(s->fd, (const char *)frame + off, len - off,
				 MSG_DONTWAIT | MSG_NOSIGNAL);

		if (r <= 0) {
			struct pollfd f = { s->fd, POLLOUT, 0 };

			poll(&f, 1, 20);
			continue;
		}
		off += r;
		if (off == len) {
			off = 0;
			n++;
		}
	}
	return n;
}

static void slow_reader(struct pair *p, const void *frame, size_t len,
			bool half_closed, const char *what)
{
	int64_t rss = mc_measure_rss(p->far.pid), cpu, grown;
	struct wire_welcome w;
	struct mc_stream s;
	int n;

	greet(p->far.name, &s, &w);
	n = flood(&s, frame, len);
	if (half_closed)
		shutdown(s.fd, SHUT_WR);
	for (int i = 0; i < 10; i++)
		served(p);
	grown = mc_measure_rss(p->far.pid) - rss;
	cpu = mc_measure_cpu_ns(p->far.pid);
	sleep_ms(300);
	cpu = mc_measure_cpu_ns(p->far.pid) - cpu;
	print_message("%s: %d frames, memory %+d KiB, %d ms of CPU while "
		      "nothing is read\n", what, n, (int)(grown >> 10),
		      (int)(cpu / MS));
	assert_true(grown < 32 << 20);
	assert_true(cpu < 100 * MS);
	mc_stream_fini(&s);
}

static void test_slow_reader(void **state)
{
	struct { struct wire_frame f; struct wire_piece p, none; } read;
	struct { struct wire_frame f; uint64_t since; } describe;
	struct mc_buffer_info b;
	struct pair p;

	(void)state;
	pair_open(&p, setup_named("tcp-child"), LEN);
	for (int i = 0; i < 500; i++)
		far_alloc(&p.far, 4096, MC_REMOTE_READ);
	assert_int_equal(mc_segment_list(p.e, p.seg, 0, &b, 1), 1);
	for (uint64_t i = 1; b.addr != p.remote; i++)
		assert_int_equal(mc_segment_list(p.e, p.seg, i, &b, 1), 1);
	memset(&read, 0, sizeof(read));
	memset(&describe, 0, sizeof(describe));
	read.f = (struct wire_frame){ .type = WIRE_READ, .n = 1, .len = LEN };
	read.p = (struct wire_piece){ p.remote, LEN, b.id };
	describe.f = (struct wire_frame){ .type = WIRE_CONTROL, .len = 8,
					  .kind = WIRE_DESCRIBE };
	slow_reader(&p, &read, sizeof(read), false, "reads");
	slow_reader(&p, &read, sizeof(read), true, "reads, half closed");
	slow_reader(&p, &describe, sizeof(describe), false, "questions");
	slow_reader(&p, &describe, sizeof(describe), true,
		    "questions, half closed");
	pair_close(&p);
}

/* ---- keys ----------------------------------------------------------- */

static const char *key_file(const char *name, const char *text)
{
	const char *path = peer_file(name);
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	close(fd);
	return path;
}

static void keys(const char *far_key, const char *near_key, const char *word)
{
	struct mc_options f = { .key_file = far_key, .transports = "tcp" };
	struct mc_options n = { .key_file = near_key, .transports = "tcp" };
	struct mc_engine *far, *near;
	struct mc_stats st;
	double start;
	int r;

	ok(mc_open(&far, &f));
	ok(mc_open(&near, &n));
	start = seconds();
	r = mc_segment_open(near, mc_engine_name(far), 0);
	if (!word) {
		ok(r);
	} else {
		refused(r, -EACCES, word);
		refused(r, -EACCES, mc_engine_name(far));
		print_message("%s\n", mc_errmsg());
		assert_true(seconds() - start < 1 * SLOW);
	}
	/* It is counted by a worker, which may come to it a little later. */
	do {
		ok(mc_stats(far, &st));
	} while (word && far_key && !st.rejected && seconds() - start < 5);
	if (word && far_key)
		assert_true(st.rejected);
	mc_close(near);
	mc_close(far);
}

static void test_keys(void **state)
{
	const char *a = key_file("one", "the key of this cluster, no other");
	const char *b = key_file("two", "the key of another cluster, alas");

	(void)state;
	keys(a, a, NULL);
	keys(a, b, "another cluster key");
	keys(a, NULL, "wants a cluster key");
	keys(NULL, a, "has no cluster key");
}

/* Between a good client and the server: passes all on and keeps what the client
 * said. */
struct tap {
	int listen_fd;
	char addr[MC_ADDR_MAX];
	const char *to;
	uint8_t said[4096];
	size_t n;
};

static void *tap_main(void *arg)
{
	struct tap *t = arg;
	int c = accept(t->listen_fd, NULL, NULL), s = dial(t->to);
	struct pollfd f[2] = { { c, POLLIN, 0 }, { s, POLLIN, 0 } };
	uint8_t buf[1024];

	for (ssize_t n = 1; n > 0; ) {
		poll(f, 2, -1);
		for (int i = 0; i < 2; i++) {
			if (!f[i].revents)
				continue;
			n = read(f[i].fd, buf, sizeof(buf));
			if (n <= 0 || write(f[!i].fd, buf, n) != n)
				break;
			if (!i && t->n + n <= sizeof(t->said)) {
				memcpy(t->said + t->n, buf, n);
				t->n += n;
			}
		}
	}
	close(c);
	close(s);
	return NULL;
}

static void test_replayed_handshake(void **state)
{
	const char *file = key_file("one",
				    "the key of this cluster, no other");
	struct mc_options o = { .key_file = file, .transports = "tcp" };
	struct tap t = { .n = 0 };
	struct wire_call c = { .kind = WIRE_PING };
	struct wire_welcome w;
	struct wire_ready ready = { 1, 0 };
	struct wire_dial d = { .addr = t.addr, .epoch = 77, .name = "good" };
	struct mc_stream s;
	struct mc_engine *e;
	struct mc_key key;
	pthread_t thread;
	char byte;
	int fd;

	(void)state;
	ok(mc_open(&e, &o));
	ok(mc_key_load(file, &key));
	ok(mc_net_listen("127.0.0.1:0", &t.listen_fd, t.addr));
	t.to = mc_engine_addr(e);
	fcntl(t.listen_fd, F_SETFL, 0);
	pthread_create(&thread, NULL, tap_main, &t);
	d.key = &key;
	d.deadline_ns = in_ms(5000);
	ok(wire_connect(&d, &s, &w));
	ok(wire_call(&s, &c, in_ms(5000)));
	wire_call_free(&c);
	mc_stream_fini(&s);
	pthread_join(thread, NULL);
	close(t.listen_fd);
	assert_int_equal(t.n, sizeof(struct wire_hello) + 32 +
			 sizeof(struct wire_frame));
	/* The same once more: the server's nonce is another. */
	fd = dial(mc_engine_addr(e));
	ok(mc_stream_init(&s, fd, NULL, false));
	ok(mc_stream_write_full(&s, t.said, t.n, in_ms(2000)));
	ok(mc_stream_read_full(&s, &w, sizeof(w), in_ms(2000)));
	ok(mc_stream_read_full(&s, &ready, sizeof(ready), in_ms(2000)));
	assert_int_equal(ready.status, -EACCES);
	assert_true(mc_stream_read_full(&s, &byte, 1, in_ms(2000)) ==
		    -ECONNRESET);
	mc_stream_fini(&s);
	mc_close(e);
}

/* ---- frames that point outside -------------------------------------- */

struct bad {
	const char *what;
	struct wire_frame f;
	struct wire_piece p;
	int status;			/* of the reply; 1: it hangs up */
};

static void try_bad(const struct bad *b, const char *addr)
{
	static uint8_t junk[70000];
	struct wire_piece pieces[2] = { b->p };
	struct wire_frame reply = { 0 };
	struct wire_welcome w;
	struct mc_stream s;
	int r;

	memset(junk, 0xee, sizeof(junk));
	greet(addr, &s, &w);
	r = mc_stream_write_full(&s, &b->f, sizeof(b->f), in_ms(2000));
	if (!r)
		r = mc_stream_write_full(&s, pieces, sizeof(pieces),
					 in_ms(2000));
	/* It may have hung up already. */
	if (!r)
		r = mc_stream_write_full(&s, junk, sizeof(junk), in_ms(2000));
	r = mc_stream_read_full(&s, &reply, sizeof(reply), in_ms(2000));
	if (b->status == 1 ? r != -ECONNRESET :
	    r || reply.status != b->status || reply.len)
		fail_msg("%s: %d, status %d, %d bytes", b->what, r,
			 reply.status, (int)reply.len);
	mc_stream_fini(&s);
}

/* Addresses of the far side, and ids of two of its buffers. */
struct aim {
	uint64_t far, secret, readable;
	uint32_t id, ro;
};

#define W(size) { .type = WIRE_WRITE, .n = 1, .len = (size) }
#define R(size) { .type = WIRE_READ, .n = 1, .len = (size) }

static void try_pieces(const struct aim *a, const char *addr)
{
	const struct bad bads[] = {
		{ "write, not registered", W(100), { a->secret, 100, a->id },
		  -ESTALE },
		{ "read, not registered", R(100), { a->secret, 100, a->id },
		  -ESTALE },
		{ "write, before it", W(100),
		  { a->far - 50, 100, a->id }, -ESTALE },
		{ "write, over its end", W(100),
		  { a->far + LEN - 99, 100, a->id },
		  -EFAULT },
		{ "read, over its end", R(~0u), { a->far + 1, ~0u, a->id },
		  -EFAULT },
		{ "write, wraps around", W(100), { -50ull, 100, a->id },
		  -ESTALE },
		{ "write, at zero", W(100), { 0, 100, a->id }, -ESTALE },
		{ "write, wrong id", W(100), { a->far, 100, a->id + 1000 },
		  -ESTALE },
		{ "write, a->id zero", W(100), { a->far, 100, 0 }, -ESTALE },
		{ "write, another's id", W(100),
		  { a->far, 100, a->ro }, -ESTALE },
		{ "write, read only", W(100),
		  { a->readable, 100, a->ro }, -EACCES },
	};

	for (size_t i = 0; i < sizeof(bads) / sizeof(bads[0]); i++)
		try_bad(&bads[i], addr);
}

static void try_headers(const struct aim *a, const char *addr)
{
	const struct bad bads[] = {
		{ "lengths differ", W(101), { a->far, 100, a->id }, 1 },
		{ "lengths differ, more", W(99), { a->far, 100, a->id }, 1 },
		{ "length of all", W(~0ull), { a->far, 100, a->id }, 1 },
		{ "no pieces", { .type = WIRE_WRITE, .len = 100 },
		  { a->far, 100, a->id }, 1 },
		{ "65535 pieces", { .type = WIRE_WRITE, .n = 65535,
				    .len = 100 }, { a->far, 100, a->id }, 1 },
		{ "1025 pieces", { .type = WIRE_READ, .n = 1025, .len = 100 },
		  { a->far, 100, a->id }, 1 },
		{ "type 0", { .type = 0, .n = 1, .len = 100 },
		  { a->far, 100, a->id }, 1 },
		{ "type 255", { .type = 255, .n = 1, .len = 100 },
		  { a->far, 100, a->id }, 1 },
		{ "a reply", { .type = WIRE_DONE, .len = 16 },
		  { a->far, 100, a->id }, 1 },
		{ "question with pieces", { .type = WIRE_CONTROL, .n = 1,
					    .len = 16 },
		  { a->far, 0, a->id }, 1 },
		{ "question of 1 TiB", { .type = WIRE_CONTROL,
					 .len = 1ull << 40 },
		  { a->far, 0, a->id }, 1 },
	};

	for (size_t i = 0; i < sizeof(bads) / sizeof(bads[0]); i++)
		try_bad(&bads[i], addr);
}
#undef W
#undef R

static void test_pointing_outside(void **state)
{
	struct mc_buffer_info b[8];
	uint64_t hash[3];
	struct pair p;
	struct aim a = { 0 };
	int n;

	(void)state;
	pair_open(&p, setup_named("tcp-child"), LEN);
	a.far = p.remote;
	a.secret = far_malloc(&p.far, LEN);
	a.readable = far_alloc(&p.far, LEN, MC_REMOTE_READ);
	n = ok(mc_segment_list(p.e, p.seg, 0, b, 8));
	for (int i = 0; i < n; i++) {
		a.id = b[i].addr == a.far ? b[i].id : a.id;
		a.ro = b[i].addr == a.readable ? b[i].id : a.ro;
	}
	assert_true(a.id && a.ro);
	hash[0] = far_hash(&p.far, a.far, LEN);
	hash[1] = far_hash(&p.far, a.secret, LEN);
	hash[2] = far_hash(&p.far, a.readable, LEN);
	try_pieces(&a, p.far.name);
	try_headers(&a, p.far.name);
	assert_int_equal(far_hash(&p.far, a.far, LEN), hash[0]);
	assert_int_equal(far_hash(&p.far, a.secret, LEN), hash[1]);
	assert_int_equal(far_hash(&p.far, a.readable, LEN), hash[2]);
	served(&p);
	pair_close(&p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_half_open),
		cmocka_unit_test(test_storm),
		cmocka_unit_test(test_slow_reader),
		cmocka_unit_test(test_keys),
		cmocka_unit_test(test_replayed_handshake),
		cmocka_unit_test(test_pointing_outside),
	};

	make_room();
	peer_start();
	return peer_stop(cmocka_run_group_tests(tests, NULL, NULL));
}
