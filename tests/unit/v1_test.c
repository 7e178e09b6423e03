/*
 * v1_test.c - the public Mooncake's protocol byte by byte: frames, descriptors,
 * the data plane with both framings, an old server at the other end, and
 * clients that keep to nothing. The public engine itself is at the other end in
 * ../public_test.lua.
 */
#include "peer.h"

#include "../../src/base/net.h"
#include "../../src/v1/frame.h"
#include "../../src/v1/segment.h"

#include <arpa/inet.h>
#include <endian.h>
#include <poll.h>
#include <pthread.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { SLOW = 4 };
#else
enum { SLOW = 1 };
#endif

enum { LEN = 1 << 20, MS = 1000000, READ = 0, WRITE = 1, ACKED = 0x80 };

static const uint64_t status_ok = 0x4d43545600000000u;

static uint64_t in_ms(int ms)
{
	return mc_now_ns() + (uint64_t)ms * MS;
}

/* ---- one of ours, and clients of our own making ---------------------- */

static struct mc_engine *engine;
static uint8_t *memory;			/* LEN bytes, may be read and written */
static char data_addr[MC_ADDR_MAX];	/* its port for data */

static struct mc_v1_segment ask_segment(void)
{
	struct mc_v1_call c = { .addr = mc_engine_addr(engine), .json = "{}",
				.type = MC_V1_METADATA };
	struct mc_v1_segment s;

	ok(mc_v1_ask(&c, in_ms(3000)));
	ok(mc_v1_segment_decode(c.reply, c.reply_len, &s));
	free(c.reply);
	return s;
}

static int setup(void **state)
{
	struct mc_options o = { .profile = "v1", .transports = "tcp" };
	struct mc_v1_segment s;
	void *addr;

	(void)state;
	ok(mc_open(&engine, &o));
	ok(mc_buffer_alloc(engine, LEN, MC_REMOTE_RW, 0, -1, &addr));
	memory = addr;
	s = ask_segment();
	ok(mc_net_join(s.data_host, s.data_port, data_addr));
	mc_v1_segment_free(&s);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	mc_close(engine);
	return 0;
}

static int dial(const char *addr)
{
	int fd;

	ok(mc_net_connect(addr, NULL, in_ms(3000), &fd));
	return fd;
}

/* All of it, or as much as the other end takes before it hangs up. */
static void say(int fd, const void *data, uint64_t len)
{
	for (uint64_t n = 0; n < len; ) {
		ssize_t r = send(fd, (const char *)data + n, len - n,
				 MSG_NOSIGNAL);

		if (r > 0)
			n += r;
		else if (errno != EAGAIN || mc_net_wait(fd, POLLOUT,
							in_ms(5000)) < 0)
			return;
	}
}

/* Up to @len bytes; fewer if the other end hangs up, or in @ms. */
static uint64_t hear(int fd, void *out, uint64_t len, int ms)
{
	uint64_t n = 0, until = in_ms(ms * SLOW);

	while (n < len) {
		ssize_t r = recv(fd, (char *)out + n, len - n, 0);

		if (r > 0)
			n += r;
		else if (!r || errno != EAGAIN ||
			 mc_net_wait(fd, POLLIN, until) < 0)
			break;
	}
	return n;
}

/* It hangs up in @ms, whatever it says before. */
static void hangs_up(int fd, int ms)
{
	char rest[4096];
	double start = seconds();

	while (hear(fd, rest, sizeof(rest), ms) == sizeof(rest))
		;
	assert_true(seconds() - start < ms * SLOW / 1000.0);
	close(fd);
}

static void say_head(int fd, uint64_t addr, uint64_t size, uint8_t op)
{
	uint8_t head[24];
	uint64_t n[2] = { htole64(size), htole64(addr) };

	/* What the padding holds is nobody's business. */
	memset(head, 0xa5, sizeof(head));
	memcpy(head, n, sizeof(n));
	head[16] = op;
	say(fd, head, sizeof(head));
}

static uint64_t hear_status(int fd)
{
	uint64_t status = 0;

	assert_int_equal(hear(fd, &status, sizeof(status), 3000),
			 sizeof(status));
	return le64toh(status);
}

/* Not instrumented: what another thread has stored by now, a sanitizer of
 * threads cannot know, for the word of it goes over sockets. */
__attribute__((no_sanitize("thread")))
static bool same(const volatile uint8_t *a, const volatile uint8_t *b,
		 uint64_t len)
{
	for (uint64_t i = 0; i < len; i++)
		if (a[i] != b[i])
			return false;
	return true;
}

/* ---- frames (W1 to W4) ------------------------------------------------ */

static void a_frame_opens_as_it_was_laid_out(void **state)
{
	static const enum mc_v1_type types[] = {
		MC_V1_CONNECTION, MC_V1_METADATA, MC_V1_NOTIFY, MC_V1_PROBE,
		MC_V1_OLD,
	};

	(void)state;
	for (int i = 0; i < 5; i++) {
		uint8_t frame[64];
		uint32_t n = mc_v1_frame_head(frame, types[i], 2);
		const char *json;
		uint64_t len;

		memcpy(frame + n, "{}", 2);
		assert_int_equal(mc_v1_frame_length(frame), n + 2 - 8);
		assert_int_equal(mc_v1_frame_open(frame + 8, n + 2 - 8, &json,
						  &len), types[i]);
		assert_int_equal(len, 2);
		assert_memory_equal(json, "{}", 2);
	}
}

static void absurd_lengths_are_refused(void **state)
{
	static const struct {
		uint8_t first[8];
		const char *what;
	} bad[] = {
		{ "GET / HT", "http" },
		{ { 0x16, 3, 1, 2, 0, 1, 0, 1 }, "tls" },
		{ { 0 }, "nothing" },
		{ { 1, 0, 0x10 }, "one more than a MiB" },
		{ { 255, 255, 255, 255, 255, 255, 255, 255 }, "all ones" },
	};
	uint8_t most[8] = { 0, 0, 0x10 };

	(void)state;
	assert_int_equal(mc_v1_frame_length(most), 1 << 20);
	for (int i = 0; i < 5; i++)
		assert_int_equal(mc_v1_frame_length(bad[i].first), -EPROTO);
	setenv("MC_HANDSHAKE_MAX_LENGTH", "2097152", 1);
	assert_int_equal(mc_v1_frame_length(bad[3].first), (1 << 20) + 1);
	unsetenv("MC_HANDSHAKE_MAX_LENGTH");
}

/* A legal length whose bytes look like a TLS record's head: 16 03 01. */
static void a_length_may_look_like_tls(void **state)
{
	uint32_t len = 0x010316;
	uint8_t *frame = malloc(8 + len), reply[64];
	int fd = dial(mc_engine_addr(engine));

	(void)state;
	assert_int_equal(mc_v1_frame_head(frame, MC_V1_PROBE, len - 1), 9);
	memset(frame + 9, ' ', len - 1);
	memcpy(frame + 9, "{}", 2);
	assert_memory_equal(frame, "\x16\x03\x01", 3);
	say(fd, frame, 8 + len);
	assert_true(hear(fd, reply, sizeof(reply), 1000) > 9);
	assert_int_equal(reply[8], MC_V1_PROBE);
	close(fd);
	free(frame);
}

static void an_old_frame_is_a_connection(void **state)
{
	struct mc_v1_call c = { .addr = mc_engine_addr(engine),
				.type = MC_V1_OLD,
				.json = "{\"local_nic_path\":\"a@mlx5_0\"}" };

	(void)state;
	ok(mc_v1_ask(&c, in_ms(3000)));
	assert_non_null(strstr(c.reply, "serves no devices"));
	free(c.reply);
	c.type = MC_V1_CONNECTION;
	ok(mc_v1_ask(&c, in_ms(3000)));
	assert_non_null(strstr(c.reply, "\"reply_msg\":\"this engine"));
	free(c.reply);
}

/* Whoever looks what listens there is gone at once. */
static void scanners_are_hung_up_on(void **state)
{
	static const char http[] = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
	static const uint8_t tls[] = { 0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3,
				       1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2, 3, 4 };
	static const uint8_t huge[] = { 0, 0, 0, 0, 0, 0, 0, 1, 1, '{' };
	const char *addrs[] = { mc_engine_addr(engine), data_addr };

	(void)state;
	for (int i = 0; i < 2; i++) {
		int fds[3] = { dial(addrs[i]), dial(addrs[i]),
			       dial(addrs[i]) };

		say(fds[0], http, strlen(http));
		say(fds[1], tls, sizeof(tls));
		hangs_up(fds[0], 500);
		hangs_up(fds[1], 500);
		say(fds[2], huge, sizeof(huge));
		if (!i)
			hangs_up(fds[2], 500);
		else
			close(fds[2]);
	}
}

/* A hundred that do not finish what they say delay nobody. */
static void slow_clients_delay_no_one(void **state)
{
	uint8_t first[12] = { 100, 0, 0, 0, 0, 0, 0, 0, 1, '{' };
	double start;
	int fds[100];

	(void)state;
	for (int i = 0; i < 100; i++) {
		fds[i] = dial(mc_engine_addr(engine));
		say(fds[i], first, i % 12 + 1);
	}
	start = seconds();
	for (int i = 0; i < 20; i++) {
		struct mc_v1_segment s = ask_segment();

		mc_v1_segment_free(&s);
	}
	assert_true(seconds() - start < 1 * SLOW);
	for (int i = 0; i < 100; i++)
		close(fds[i]);
}

/* One that has asked and does not hang up is hung up on. */
static void who_lingers_is_hung_up_on(void **state)
{
	uint8_t frame[16], reply[64];
	uint32_t n = mc_v1_frame_head(frame, MC_V1_PROBE, 2);
	int fd = dial(mc_engine_addr(engine)), half;

	(void)state;
	half = dial(mc_engine_addr(engine));
	memcpy(frame + n, "{}", 2);
	say(half, frame, 9);
	say(fd, frame, n + 2);
	assert_true(hear(fd, reply, sizeof(reply), 1000) > 9);
	/* The end of what it says has come; the end of the connection, when
	 * writing to it is of no use. */
	hangs_up(half, 6500);
	for (int i = 0; i < 80 && send(fd, "x", 1, MSG_NOSIGNAL) == 1; i++)
		sleep_ms(100);
	assert_int_equal(send(fd, "x", 1, MSG_NOSIGNAL), -1);
	close(fd);
}

/* ---- our own descriptor ------------------------------------------------ */

static void our_own_descriptor_says_what_we_offer(void **state)
{
	struct mc_v1_segment s;
	void *kept, *shown;

	(void)state;
	ok(mc_buffer_alloc(engine, 4096, MC_LOCAL, 0, -1, &kept));
	ok(mc_buffer_alloc(engine, 4096, MC_REMOTE_READ, 0, -1, &shown));
	s = ask_segment();
	assert_true(s.tcp && s.native);
	assert_int_equal(s.version, 2);
	assert_string_equal(s.name, mc_engine_name(engine));
	assert_int_equal(s.n, 2);
	for (int i = 0; i < 2; i++)
		assert_int_equal(s.buf[i].access, s.buf[i].len == LEN ?
				 MC_REMOTE_RW : MC_REMOTE_READ);
	mc_v1_segment_free(&s);
	ok(mc_buffer_free(engine, kept));
	ok(mc_buffer_free(engine, shown));
}

/* ---- the data plane, served (T2 to T6) --------------------------------- */

static void ranges_are_checked(void **state)
{
	uint64_t at = (uint64_t)memory, other;
	void *next;
	uint8_t byte;

	(void)state;
	/* Adjacent buffers are two. */
	ok(mc_buffer_reg(engine, (next = aligned_alloc(4096, 8192)), 4096,
			 NULL, MC_REMOTE_RW));
	other = (uint64_t)next;
	ok(mc_buffer_reg(engine, (char *)next + 4096, 4096, NULL,
			 MC_REMOTE_RW));
	const struct { uint64_t addr, size; uint64_t code; } t[] = {
		{ at, 1, 0 }, { at + LEN - 1, 1, 0 }, { at, LEN, 0 },
		{ at + 5, 100, 0 }, { at - 1, 1, 1 }, { at + LEN, 1, 1 },
		{ at, LEN + 1, 1 }, { at + LEN - 1, 2, 1 }, { at, 0, 1 },
		{ UINT64_MAX, 2, 1 }, { at + 1, UINT64_MAX, 1 },
		{ 0, 1, 1 }, { other, 4096, 0 }, { other, 4097, 1 },
		{ other + 4000, 200, 1 }, { other + 4096, 4096, 0 },
	};

	for (size_t i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
		int fd = dial(data_addr);

		say_head(fd, t[i].addr, t[i].size, READ | ACKED);
		if (hear_status(fd) != (status_ok | t[i].code))
			fail_msg("%#llx+%llu", (long long)t[i].addr,
				 (long long)t[i].size);
		/* Refused, that was all. */
		if (t[i].code)
			assert_int_equal(hear(fd, &byte, 1, 1000), 0);
		close(fd);
	}
	ok(mc_buffer_unreg(engine, next));
	ok(mc_buffer_unreg(engine, (char *)next + 4096));
	free(next);
}

static void a_write_that_is_acknowledged_is_there(void **state)
{
	uint8_t in[5000], out[5000];
	int a = dial(data_addr), b = dial(data_addr);

	(void)state;
	for (int i = 0; i < 50; i++) {
		mc_fill(in, sizeof(in), i);
		say_head(a, (uint64_t)memory + i, sizeof(in), WRITE | ACKED);
		say(a, in, sizeof(in));
		assert_int_equal(hear_status(a), status_ok);
		say_head(b, (uint64_t)memory + i, sizeof(in), READ | ACKED);
		assert_int_equal(hear_status(b), status_ok);
		assert_int_equal(hear(b, out, sizeof(out), 3000), sizeof(out));
		assert_memory_equal(in, out, sizeof(in));
	}
	close(a);
	close(b);
}

/* An old client: nothing acknowledges its writes, but what it reads comes
 * after them, on the same connection. */
static void both_framings_are_served(void **state)
{
	uint8_t in[3000], out[3000];
	int fd = dial(data_addr);

	(void)state;
	for (int i = 0; i < 20; i++) {
		int acked = i % 3 ? 0 : ACKED;

		mc_fill(in, sizeof(in), 100 + i);
		say_head(fd, (uint64_t)memory, sizeof(in), WRITE | acked);
		say(fd, in, sizeof(in));
		if (acked)
			assert_int_equal(hear_status(fd), status_ok);
		say_head(fd, (uint64_t)memory, sizeof(in), READ);
		assert_int_equal(hear(fd, out, sizeof(out), 3000),
				 sizeof(out));
		assert_memory_equal(in, out, sizeof(in));
	}
	say_head(fd, 1, 1, READ);
	hangs_up(fd, 500);
}

/* Any number may be on the way; the answers come in their order. */
static void requests_may_be_sent_ahead(void **state)
{
	enum { N = 500 };
	static uint8_t in[N][64], out[64];
	int fd = dial(data_addr);

	(void)state;
	for (int i = 0; i < N; i++) {
		mc_fill(in[i], 64, i);
		say_head(fd, (uint64_t)memory + i % 7 * 64, 64,
			 WRITE | ACKED);
		say(fd, in[i], 64);
		say_head(fd, (uint64_t)memory + i % 7 * 64, 64, READ | ACKED);
	}
	shutdown(fd, SHUT_WR);
	for (int i = 0; i < N; i++) {
		assert_int_equal(hear_status(fd), status_ok);
		assert_int_equal(hear_status(fd), status_ok);
		assert_int_equal(hear(fd, out, 64, 3000), 64);
		assert_memory_equal(out, in[i], 64);
	}
	hangs_up(fd, 500);
}

/* Small or large, nothing of it is stored, and who reads hears of it. */
static void a_write_that_is_refused_says_so(void **state)
{
	static const uint64_t sizes[] = { 1, 4096, 64 << 20 };
	uint64_t hash = mc_hash(memory, LEN, 0);
	uint8_t *body = calloc(1, 64 << 20);

	(void)state;
	for (int i = 0; i < 3; i++) {
		int fd = dial(data_addr);

		say_head(fd, (uint64_t)memory + LEN - 1, sizes[i] + 1,
			 WRITE | ACKED);
		say(fd, body, sizes[i] + 1 < 64 << 20 ? sizes[i] + 1 :
		    64 << 20);
		assert_int_equal(hear_status(fd), status_ok | 1);
		hangs_up(fd, 500);
		fd = dial(data_addr);
		say_head(fd, (uint64_t)memory + LEN - 1, sizes[i] + 1, WRITE);
		hangs_up(fd, 500);
	}
	free(body);
	assert_int_equal(mc_hash(memory, LEN, 0), hash);
}

static void access_flags_hold(void **state)
{
	uint8_t byte = 7;
	void *shown;
	int fd;

	(void)state;
	ok(mc_buffer_alloc(engine, 4096, MC_REMOTE_READ, 0, -1, &shown));
	fd = dial(data_addr);
	say_head(fd, (uint64_t)shown, 1, READ | ACKED);
	assert_int_equal(hear_status(fd), status_ok);
	assert_int_equal(hear(fd, &byte, 1, 1000), 1);
	byte = 7;
	say_head(fd, (uint64_t)shown, 1, WRITE | ACKED);
	say(fd, &byte, 1);
	assert_int_equal(hear_status(fd), status_ok | 1);
	assert_int_equal(*(uint8_t *)shown, 0);
	close(fd);
	ok(mc_buffer_free(engine, shown));
}

/* Taken back in the middle of a write: not a byte comes after that. */
static void what_is_taken_back_is_left_alone(void **state)
{
	uint8_t *own = aligned_alloc(4096, LEN), *body = malloc(LEN);
	uint8_t byte;
	int w = dial(data_addr), r = dial(data_addr);

	(void)state;
	memset(own, 1, LEN);
	memset(body, 2, LEN);
	ok(mc_buffer_reg(engine, own, LEN, NULL, MC_REMOTE_RW));
	say_head(w, (uint64_t)own, LEN, WRITE | ACKED);
	say(w, body, LEN / 2);
	/* Half of it is there, or on the way; the reader does not read. */
	while (!same(own, body, 1))
		sleep_ms(1);
	for (int i = 0; i < 20; i++)
		say_head(r, (uint64_t)own, LEN, READ | ACKED);
	sleep_ms(20);
	ok(mc_buffer_unreg(engine, own));
	memset(own, 3, LEN);
	say(w, body, LEN / 2);
	assert_int_equal(hear_status(w), status_ok | 1);
	assert_int_equal(hear(w, &byte, 1, 300), 0);
	for (int i = 0; i < LEN; i++)
		assert_int_equal(own[i], 3);
	/* What it read before is the memory as it was then. */
	while (hear(r, &byte, 1, 300) == 1)
		assert_int_not_equal(byte, 3);
	close(w);
	close(r);
	free(own);
	free(body);
}

/* ---- an old server at the other end (T6) ------------------------------- */

/* One that knows only version 1 of the data plane, as released programs do:
 * any operation but a write is a read, whatever its upper bits. */
struct old {
	uint8_t bytes[65536];
	char addr[MC_ADDR_MAX];
	int handshake, data, version;	/* that its descriptor tells */
	bool mute;			/* answers nothing */
	bool stop;
	pthread_t threads[2];
};

static bool old_full(struct old *o, int fd, void *out, uint64_t len)
{
	uint64_t n = 0;

	while (n < len && !__atomic_load_n(&o->stop, __ATOMIC_ACQUIRE)) {
		struct pollfd p = { fd, POLLIN, 0 };
		ssize_t r = poll(&p, 1, 20) > 0 ?
			    recv(fd, (char *)out + n, len - n, 0) : -2;

		if (r == 0 || r == -1)
			return false;
		n += r > 0 ? r : 0;
	}
	return n == len;
}

static void old_serve_data(struct old *o, int fd)
{
	uint8_t head[24];
	uint64_t size, addr, base = (uint64_t)o->bytes;

	while (old_full(o, fd, head, sizeof(head))) {
		memcpy(&size, head, 8);
		memcpy(&addr, head + 8, 8);
		if (o->mute)
			continue;
		if (addr < base || size > sizeof(o->bytes) ||
		    addr - base > sizeof(o->bytes) - size)
			return;
		if (head[16] != WRITE)
			say(fd, (void *)addr, size);
		else if (!old_full(o, fd, (void *)addr, size))
			return;
	}
}

static void old_serve_handshake(struct old *o, int fd)
{
	char json[400], frame[420], in[2000];
	struct sockaddr_in sin;
	socklen_t len = sizeof(sin);
	uint32_t n;

	recv(fd, in, sizeof(in), 0);
	getsockname(o->data, (void *)&sin, &len);
	n = snprintf(json, sizeof(json), "{\"name\":\"%s\",\"protocol\":"
		     "\"tcp\",\"tcp_data_port\":%d,%s\"buffers\":[{\"name\":"
		     "\"%s\",\"addr\":%llu,\"length\":%zu}]}\n", o->addr,
		     ntohs(sin.sin_port), o->version == 2 ?
		     "\"tcp_proto_version\":2," : "", o->addr,
		     (long long)(uintptr_t)o->bytes, sizeof(o->bytes));
	memcpy(frame + mc_v1_frame_head((void *)frame, MC_V1_METADATA, n),
	       json, n);
	say(fd, frame, n + 9);
}

static void *old_run(struct old *o, bool data)
{
	while (!__atomic_load_n(&o->stop, __ATOMIC_ACQUIRE)) {
		struct pollfd p = { data ? o->data : o->handshake, POLLIN, 0 };
		int fd = poll(&p, 1, 20) > 0 ? accept(p.fd, NULL, NULL) : -1;

		if (fd < 0)
			continue;
		if (data)
			old_serve_data(o, fd);
		else
			old_serve_handshake(o, fd);
		close(fd);
	}
	return NULL;
}

static void *old_main_handshake(void *o)
{
	return old_run(o, false);
}

static void *old_main_data(void *o)
{
	return old_run(o, true);
}

static struct old *old_start(int version, bool mute)
{
	struct old *o = calloc(1, sizeof(*o));
	char at[MC_ADDR_MAX];

	o->version = version;
	o->mute = mute;
	ok(mc_net_listen("127.0.0.1:0", &o->handshake, o->addr));
	ok(mc_net_listen("127.0.0.1:0", &o->data, at));
	pthread_create(&o->threads[0], NULL, old_main_handshake, o);
	pthread_create(&o->threads[1], NULL, old_main_data, o);
	return o;
}

static void old_end(struct old *o)
{
	__atomic_store_n(&o->stop, true, __ATOMIC_RELEASE);
	pthread_join(o->threads[0], NULL);
	pthread_join(o->threads[1], NULL);
	close(o->handshake);
	close(o->data);
	free(o);
}

static struct mc_req request(enum mc_op op, int seg, uint64_t remote,
			     uint64_t len)
{
	return (struct mc_req){ .op = op, .segment = seg, .buf = memory,
				.remote = remote, .len = len };
}

static void an_old_server_is_written_and_read(void **state)
{
	struct old *o = old_start(1, false);
	uint64_t at = (uint64_t)o->bytes;
	int seg = ok(mc_segment_open(engine, o->addr, 3000));
	struct mc_req many[100], q = request(MC_WRITE, seg, at, 65536);

	(void)state;
	for (int i = 0; i < 10; i++) {
		mc_fill(memory, 65536, i);
		q.op = MC_WRITE;
		ok(mc_transfer(engine, &q, 1, NULL, NULL));
		/* It is done: so it is there, not only sent. */
		assert_true(same(memory, o->bytes, 65536));
		memset(memory, 0, 65536);
		q.op = MC_READ;
		ok(mc_transfer(engine, &q, 1, NULL, NULL));
		assert_true(same(memory, o->bytes, 65536));
	}
	for (int i = 0; i < 100; i++) {
		many[i] = request(i % 3 ? MC_WRITE : MC_READ, seg,
				  at + i * 600, 500);
		many[i].buf = memory + i * 600;
	}
	ok(mc_transfer(engine, many, 100, NULL, NULL));
	for (int i = 0; i < 100; i++)
		assert_true(same(memory + i * 600, o->bytes + i * 600, 500));
	ok(mc_segment_close(engine, seg));
	old_end(o);
}

/* Its descriptor promises statuses that it does not send: what comes in their
 * place is taken for no success, and nothing is stored here. */
static void a_stale_descriptor_makes_no_success(void **state)
{
	struct old *o = old_start(2, false);
	int seg = ok(mc_segment_open(engine, o->addr, 3000));
	struct mc_batch_opts opts = { .timeout_ms = 1500 };
	struct mc_req q = request(MC_WRITE, seg, (uint64_t)o->bytes, 4096);
	uint64_t hash;
	double start = seconds();

	(void)state;
	mc_fill(memory, LEN, 5);
	hash = mc_hash(memory, LEN, 0);
	assert_true(mc_transfer(engine, &q, 1, &opts, NULL) < 0);
	q.op = MC_READ;
	assert_true(mc_transfer(engine, &q, 1, &opts, NULL) < 0);
	assert_true(seconds() - start < 5 * SLOW);
	assert_int_equal(mc_hash(memory, LEN, 0), hash);
	ok(mc_segment_close(engine, seg));
	old_end(o);
}

static void who_does_not_answer_fails_in_time(void **state)
{
	struct old *o = old_start(2, true);
	int seg = ok(mc_segment_open(engine, o->addr, 3000));
	struct mc_req q = request(MC_READ, seg, (uint64_t)o->bytes, 16);
	double start = seconds();

	(void)state;
	refused(mc_transfer(engine, &q, 1, NULL, NULL), -ETIMEDOUT,
		"deadline");
	assert_true(seconds() - start < 2 * SLOW);
	ok(mc_segment_close(engine, seg));
	old_end(o);
}

/* ---- between ours ------------------------------------------------------ */

/* Both were told v1, and yet they speak as they do among themselves. */
static void ours_find_each_other(void **state)
{
	struct mc_options o = { .profile = "v1" }, native = { 0 };
	struct mc_engine *a, *b, *c;
	struct mc_rail_info rail;
	void *far, *near;
	struct mc_req q;

	(void)state;
	ok(mc_open(&a, &o));
	ok(mc_open(&b, &o));
	ok(mc_open(&c, &native));
	ok(mc_buffer_alloc(a, LEN, MC_REMOTE_RW, 0, -1, &near));
	ok(mc_buffer_alloc(b, LEN, MC_REMOTE_RW, 0, -1, &far));
	q = (struct mc_req){ .op = MC_WRITE, .buf = near, .len = LEN,
			     .remote = (uint64_t)far };
	q.segment = ok(mc_segment_open(a, mc_engine_name(b), 3000));
	ok(mc_transfer(a, &q, 1, NULL, NULL));
	ok(mc_rail_list(a, 0, &rail, 1));
	assert_string_equal(rail.transport, "shm");
	/* One that was not told, in both directions. */
	ok(mc_segment_open(a, mc_engine_name(c), 3000));
	ok(mc_segment_open(c, mc_engine_name(a), 3000));
	mc_close(a);
	mc_close(b);
	mc_close(c);
}

/* More buffers than a descriptor of the public one holds: ours do not need
 * it. */
static void ours_have_any_number_of_buffers(void **state)
{
	enum { N = 20480 };
	struct mc_options o = { .profile = "v1" };
	struct mc_engine *a, *b;
	struct mc_segment_info info;
	uint8_t *far = aligned_alloc(4096, N * 64);

	(void)state;
	ok(mc_open(&a, &o));
	ok(mc_open(&b, &o));
	for (int i = 0; i < N; i++)
		ok(mc_buffer_reg(b, far + i * 64, 64, "cpu:0", MC_REMOTE_RW));
	ok(mc_segment_stat(a, ok(mc_segment_open(a, mc_engine_name(b), 3000)),
			   &info));
	assert_int_equal(info.buffers, N);
	mc_close(a);
	mc_close(b);
	free(far);
}

static void the_profile_is_not_for_strangers(void **state)
{
	struct mc_options o = { .profile = "v1", .key_file =
				peer_file("key") };
	struct mc_engine *e;

	(void)state;
	refused(mc_open(&e, &o), -EACCES, "v1,unauthenticated");
	o.profile = "v1,unauthenticated";
	ok(mc_open(&e, &o));
	mc_close(e);
	o = (struct mc_options){ .transports = "tcp,v1" };
	refused(mc_open(&e, &o), -EINVAL, "profile v1");
	o = (struct mc_options){ .profile = "v2" };
	refused(mc_open(&e, &o), -EINVAL, "v2");
	o = (struct mc_options){ .profile = "v1", .tls_key =
				 peer_file("key.pem"),
				 .tls_cert = peer_file("cert.pem") };
	refused(mc_open(&e, &o), -EINVAL, "TLS");
	setenv("MOONCAKE_PROFILE", "v1", 1);
	o = (struct mc_options){ 0 };
	ok(mc_open(&e, &o));
	unsetenv("MOONCAKE_PROFILE");
	assert_true(atoi(strrchr(mc_engine_addr(e), ':') + 1) >= 15000);
	assert_true(atoi(strrchr(mc_engine_addr(e), ':') + 1) <= 17000);
	mc_close(e);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_frame_opens_as_it_was_laid_out),
		cmocka_unit_test(absurd_lengths_are_refused),
		T(a_length_may_look_like_tls),
		T(an_old_frame_is_a_connection),
		T(scanners_are_hung_up_on),
		T(slow_clients_delay_no_one),
		T(who_lingers_is_hung_up_on),
		T(our_own_descriptor_says_what_we_offer),
		T(ranges_are_checked),
		T(a_write_that_is_acknowledged_is_there),
		T(both_framings_are_served),
		T(requests_may_be_sent_ahead),
		T(a_write_that_is_refused_says_so),
		T(access_flags_hold),
		T(what_is_taken_back_is_left_alone),
		T(an_old_server_is_written_and_read),
		T(a_stale_descriptor_makes_no_success),
		T(who_does_not_answer_fails_in_time),
		cmocka_unit_test(ours_find_each_other),
		cmocka_unit_test(ours_have_any_number_of_buffers),
		cmocka_unit_test(the_profile_is_not_for_strangers),
	};

	peer_start();
	return peer_stop(cmocka_run_group_tests_name("v1", tests, NULL, NULL));
}
