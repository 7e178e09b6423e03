/*
 * stream_test.c - plain and TLS streams over real sockets, with certificates
 * made here; see stream.h.
 */
#include "../../src/transport/stream.h"

#include "../../src/base/clock.h"
#include "../../src/base/net.h"
#include "../../src/base/util.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

static char dir[] = "/tmp/mooncake-stream-XXXXXX";

/* Under dir: ca signed a and b, other vouches for itself. */
static const char *const names[] = { "ca", "a", "b", "other", "old" };

static uint64_t in_ms(int ms)
{
	return mc_clock_ns() + (uint64_t)ms * MC_MS;
}

static void assert_says(const char *text)
{
	if (!strstr(mc_errmsg(), text))
		fail_msg("message '%s' lacks '%s'", mc_errmsg(), text);
}

/* ---- certificates ---------------------------------------------------- */

static const char *file_of(const char *name, const char *ext)
{
	static char path[8][128];
	static int i;

	i = (i + 1) % 8;
	snprintf(path[i], sizeof(path[i]), "%s/%s.%s", dir, name, ext);
	return path[i];
}

static X509 *cert_of(const char *name, EVP_PKEY *key, long valid_s,
		     X509 *issuer, EVP_PKEY *issuer_key)
{
	X509 *c = X509_new();
	X509_NAME *subject = X509_get_subject_name(c);
	X509_EXTENSION *ext;

	X509_set_version(c, 2);
	ASN1_INTEGER_set(X509_get_serialNumber(c), 1);
	X509_gmtime_adj(X509_getm_notBefore(c), -7200);
	X509_gmtime_adj(X509_getm_notAfter(c), valid_s);
	X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC,
				   (const uint8_t *)name, -1, -1, 0);
	X509_set_issuer_name(c, issuer ? X509_get_subject_name(issuer) :
			     subject);
	ext = X509V3_EXT_conf_nid(NULL, NULL, NID_basic_constraints,
				  issuer ? "CA:FALSE" : "CA:TRUE");
	X509_add_ext(c, ext, -1);
	X509_EXTENSION_free(ext);
	X509_set_pubkey(c, key);
	assert_true(X509_sign(c, issuer_key, EVP_sha256()) > 0);
	return c;
}

static void save(const char *name, X509 *cert, EVP_PKEY *key)
{
	FILE *f = fopen(file_of(name, "crt"), "w");

	PEM_write_X509(f, cert);
	fclose(f);
	f = fopen(file_of(name, "key"), "w");
	PEM_write_PrivateKey(f, key, NULL, NULL, 0, NULL, NULL);
	fclose(f);
	/* Both in one file, and a key that needs a password. */
	f = fopen(file_of(name, "pem"), "w");
	PEM_write_X509(f, cert);
	PEM_write_PrivateKey(f, key, NULL, NULL, 0, NULL, NULL);
	fclose(f);
	f = fopen(file_of(name, "locked"), "w");
	PEM_write_PrivateKey(f, key, EVP_aes_128_cbc(), NULL, 0, NULL,
			     (void *)"secret");
	fclose(f);
}

static int make_certificates(void **state)
{
	EVP_PKEY *ca_key = EVP_EC_gen("P-256");
	X509 *ca = cert_of("ca", ca_key, 3600, NULL, ca_key);

	(void)state;
	if (!mkdtemp(dir))
		return -1;
	save("ca", ca, ca_key);
	for (size_t i = 1; i < mc_array_len(names); i++) {
		EVP_PKEY *key = EVP_EC_gen("P-256");
		bool own = !strcmp(names[i], "other");
		bool old = !strcmp(names[i], "old");
		X509 *c = cert_of(names[i], key, old ? -3600 : 3600,
				  own ? NULL : ca, own ? key : ca_key);

		save(names[i], c, key);
		X509_free(c);
		EVP_PKEY_free(key);
	}
	X509_free(ca);
	EVP_PKEY_free(ca_key);
	return 0;
}

static int remove_certificates(void **state)
{
	static const char *const ext[] = { "crt", "key", "pem", "locked" };

	(void)state;
	for (size_t i = 0; i < mc_array_len(names); i++)
		for (size_t j = 0; j < mc_array_len(ext); j++)
			unlink(file_of(names[i], ext[j]));
	return rmdir(dir);
}

static struct mc_tls *tls_of(const char *name, const char *ca)
{
	struct mc_tls *tls;

	if (mc_tls_open(&tls, file_of(name, "crt"), file_of(name, "key"),
			file_of(ca, "crt")))
		fail_msg("%s", mc_errmsg());
	return tls;
}

/* ---- pairs of streams ------------------------------------------------ */

struct pair {
	struct mc_tls *tls_a, *tls_b;
	struct mc_stream a, b;		/* client, server */
};

/* A connection over loopback, with small send buffers if asked. */
static void connect_fds(int *client, int *server, int sndbuf)
{
	char actual[MC_ADDR_MAX];
	int l;

	assert_int_equal(mc_net_listen("127.0.0.1:0", &l, actual), 0);
	assert_int_equal(mc_net_connect(actual, NULL, in_ms(1000), client), 0);
	assert_int_equal(mc_net_wait(l, POLLIN, in_ms(1000)), 0);
	*server = accept4(l, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	if (sndbuf) {
		setsockopt(*client, SOL_SOCKET, SO_SNDBUF, &sndbuf,
			   sizeof(sndbuf));
		setsockopt(*server, SOL_SOCKET, SO_SNDBUF, &sndbuf,
			   sizeof(sndbuf));
	}
	mc_net_tune(*server);
	close(l);
}

static void connect_pair(struct pair *p, const char *a, const char *ca_a,
			 const char *b, const char *ca_b, int sndbuf)
{
	int client, server;

	memset(p, 0, sizeof(*p));
	connect_fds(&client, &server, sndbuf);
	if (a)
		p->tls_a = tls_of(a, ca_a);
	if (b)
		p->tls_b = tls_of(b, ca_b);
	assert_int_equal(mc_stream_init(&p->a, client, p->tls_a, false), 0);
	assert_int_equal(mc_stream_init(&p->b, server, p->tls_b, true), 0);
}

/* Both ends by turns, until both have said yes or no. */
static void shake(struct pair *p, int *a, int *b)
{
	uint64_t end = in_ms(2000);

	*a = *b = 0;
	while ((!*a || !*b) && mc_clock_ns() < end) {
		if (!*a)
			*a = mc_stream_handshake(&p->a);
		if (!*b)
			*b = mc_stream_handshake(&p->b);
		/* Who waits for one that failed hears of it by its end. */
		if (*a < 0 && !*b)
			mc_stream_fini(&p->a);
		if (*b < 0 && !*a)
			mc_stream_fini(&p->b);
	}
}

static void open_pair(struct pair *p, bool tls, int sndbuf)
{
	int a, b;

	connect_pair(p, tls ? "a" : NULL, "ca", tls ? "b" : NULL, "ca",
		     sndbuf);
	shake(p, &a, &b);
	if (a != 1 || b != 1)
		fail_msg("no handshake: %d %d: %s", a, b, mc_errmsg());
}

static void close_pair(struct pair *p)
{
	mc_stream_fini(&p->a);
	mc_stream_fini(&p->b);
	mc_tls_close(p->tls_a);
	mc_tls_close(p->tls_b);
}

/* ---- moving bytes ---------------------------------------------------- */

static uint64_t seed = 1;

static uint32_t random_below(uint32_t n)
{
	seed = seed * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)(seed >> 33) % n;
}

/* Cut the next of @len bytes at @buf into up to @max ranges. */
static int cut(uint8_t *buf, size_t len, struct iovec *iov, int max)
{
	int n = 0;

	while (len && n < max) {
		uint32_t kind = random_below(4), top = kind == 0 ? 40000 :
				kind == 1 ? 4096 : 100;
		size_t some = random_below(top);

		iov[n].iov_base = buf;
		iov[n].iov_len = mc_min(some, len);
		buf += iov[n].iov_len;
		len -= iov[n++].iov_len;
	}
	return n;
}

/* A repeated write offers as much as the one before: a record at least. */
static void stretch(struct iovec *iov, const uint8_t *end)
{
	uint8_t *base = iov->iov_base;

	if (base + iov->iov_len < end)
		iov->iov_len = end - base;
}

/* Move bytes from one stream to the other, in one thread: both sides stop
 * somewhere in the middle all the time. */
static void pump(struct mc_stream *from, struct mc_stream *to, size_t len)
{
	uint8_t *out = malloc(len), *in = calloc(1, len);
	size_t sent = 0, got = 0;
	struct iovec tx[32], rx[32];

	for (size_t i = 0; i < len; i++)
		out[i] = random_below(256);
	while (got < len) {
		ssize_t r = 0;
		int n;

		/* What was not taken is offered again, from a new list. */
		if (sent < len) {
			n = cut(out + sent, len - sent, tx, 32);
			stretch(&tx[n - 1], out + mc_min(len, sent + 20000));
			r = mc_stream_writev(from, tx, n);
			if (r < 0)
				fail_msg("%s", mc_errmsg());
			sent += r;
		}
		n = cut(in + got, sent - got, rx, 32);
		r = n ? mc_stream_readv(to, rx, n) : 0;
		if (r < 0)
			fail_msg("%s", mc_errmsg());
		got += r;
	}
	assert_memory_equal(in, out, len);
	free(in);
	free(out);
}

static void every_byte_arrives(void **state)
{
	static const struct { bool tls; int sndbuf; } t[] = {
		{ false, 0 }, { false, 4096 }, { true, 0 }, { true, 4096 },
	};
	struct pair p;

	(void)state;
	for (size_t i = 0; i < mc_array_len(t); i++) {
		open_pair(&p, t[i].tls, t[i].sndbuf);
		pump(&p.a, &p.b, 1000000);
		pump(&p.b, &p.a, 1000000);
		close_pair(&p);
	}
}

/* A write that stopped in the middle is in nobody's way: reading goes on, and
 * the stream may be elsewhere in memory meanwhile. */
static void reading_goes_on_while_a_write_waits(void **state)
{
	static uint8_t big[1 << 20], back[1 << 20];
	struct pair p;

	(void)state;
	for (int tls = 0; tls < 2; tls++) {
		struct iovec iov = { big, sizeof(big) };
		size_t sent = 0;
		struct mc_stream moved;
		char text[6] = "";
		ssize_t r;

		open_pair(&p, tls, 4096);
		for (size_t i = 0; i < sizeof(big); i++)
			big[i] = i * 7 + i / 251;
		while ((r = mc_stream_writev(&p.a, &iov, 1)) > 0) {
			sent += r;
			iov.iov_base = big + sent;
			iov.iov_len = sizeof(big) - sent;
		}
		assert_int_equal(r, 0);
		assert_int_equal(p.a.want, POLLOUT);
		assert_int_equal(mc_stream_write_full(&p.b, "hello", 5,
						      in_ms(1000)), 0);
		moved = p.a;
		memset(&p.a, 0xee, sizeof(p.a));
		assert_int_equal(mc_stream_read_full(&moved, text, 5,
						     in_ms(1000)), 0);
		assert_string_equal(text, "hello");
		for (size_t got = 0; got < sizeof(back);) {
			struct iovec in = { back + got, sizeof(back) - got };

			iov.iov_base = big + sent;
			iov.iov_len = sizeof(big) - sent;
			if (iov.iov_len)
				sent += mc_stream_writev(&moved, &iov, 1);
			r = mc_stream_readv(&p.b, &in, 1);
			assert_true(r >= 0);
			got += r;
		}
		assert_memory_equal(big, back, sizeof(big));
		p.a = moved;
		close_pair(&p);
	}
}

static void small_ranges_share_a_record(void **state)
{
	uint8_t buf[128][64] = { 0 };
	struct iovec iov[128];
	struct pair p;
	int waiting = 0;

	(void)state;
	open_pair(&p, true, 0);
	for (int i = 0; i < 128; i++)
		iov[i] = (struct iovec){ buf[i], 64 };
	assert_int_equal(mc_stream_writev(&p.a, iov, 128), sizeof(buf));
	assert_int_equal(mc_net_wait(p.b.fd, POLLIN, in_ms(1000)), 0);
	assert_int_equal(ioctl(p.b.fd, FIONREAD, &waiting), 0);
	assert_true(waiting > (int)sizeof(buf));
	assert_true(waiting < (int)sizeof(buf) + 64);
	close_pair(&p);
}

static void buffered_bytes_are_reported(void **state)
{
	struct pair p;
	uint8_t buf[200] = { 0 };
	struct iovec iov = { buf, 10 };
	struct pollfd pfd = { .events = POLLIN };

	(void)state;
	open_pair(&p, true, 0);
	assert_int_equal(mc_stream_write_full(&p.a, buf, 100, in_ms(100)), 0);
	assert_int_equal(mc_stream_write_full(&p.a, buf, 100, in_ms(100)), 0);
	assert_int_equal(mc_net_wait(p.b.fd, POLLIN, in_ms(1000)), 0);
	assert_int_equal(mc_stream_readv(&p.b, &iov, 1), 10);
	pfd.fd = p.b.fd;
	assert_int_equal(poll(&pfd, 1, 0), 0);
	assert_true(mc_stream_pending(&p.b));
	iov.iov_len = sizeof(buf);
	assert_int_equal(mc_stream_readv(&p.b, &iov, 1), 190);
	assert_false(mc_stream_pending(&p.b));
	assert_int_equal(mc_stream_readv(&p.b, &iov, 1), 0);
	assert_int_equal(p.b.want, POLLIN);
	assert_false(mc_stream_pending(&p.b));
	assert_false(mc_stream_pending(&p.a));
	close_pair(&p);
}

static void nothing_to_move_is_no_error(void **state)
{
	struct pair p;
	char byte = 0;
	struct iovec iov[2] = { { &byte, 0 }, { NULL, 0 } };

	(void)state;
	for (int tls = 0; tls < 2; tls++) {
		open_pair(&p, tls, 0);
		assert_int_equal(mc_stream_readv(&p.a, iov, 2), 0);
		assert_int_equal(mc_stream_writev(&p.a, iov, 2), 0);
		assert_int_equal(mc_stream_read_full(&p.a, NULL, 0, 0), 0);
		assert_int_equal(mc_stream_write_full(&p.a, NULL, 0, 0), 0);
		close_pair(&p);
	}
}

/* ---- ends ------------------------------------------------------------ */

static void an_end_in_the_middle_is_named(void **state)
{
	struct pair p;
	char buf[32] = "", peer[MC_ADDR_MAX];
	struct iovec iov = { buf, sizeof(buf) };

	(void)state;
	for (int tls = 0; tls < 2; tls++) {
		open_pair(&p, tls, 0);
		mc_net_peer_name(p.b.fd, peer);
		assert_int_equal(mc_stream_write_full(&p.a, "half", 4,
						      in_ms(1000)), 0);
		mc_stream_fini(&p.a);
		/* First the bytes, then the end, as often as asked. */
		assert_int_equal(mc_net_wait(p.b.fd, POLLIN, in_ms(1000)), 0);
		assert_int_equal(mc_stream_readv(&p.b, &iov, 1), 4);
		assert_memory_equal(buf, "half", 4);
		for (int i = 0; i < 2; i++) {
			assert_int_equal(mc_stream_read_full(&p.b, buf, 8,
							     in_ms(1000)),
					 -ECONNRESET);
			assert_says("closed by peer");
			assert_says(peer);
		}
		mc_stream_fini(&p.b);
		assert_int_equal(p.b.fd, -1);
		close_pair(&p);
	}
}

static void writing_to_nobody_raises_no_signal(void **state)
{
	static char buf[1 << 20];
	struct pair p;

	(void)state;
	for (int tls = 0; tls < 2; tls++) {
		open_pair(&p, tls, 0);
		mc_stream_reset(&p.b);
		assert_int_equal(p.b.fd, -1);
		assert_int_equal(mc_stream_write_full(&p.a, buf, sizeof(buf),
						      in_ms(1000)),
				 -ECONNRESET);
		assert_int_equal(mc_stream_write_full(&p.a, buf, sizeof(buf),
						      in_ms(1000)),
				 -ECONNRESET);
		assert_says("closed by peer");
		mc_stream_reset(&p.a);
		close_pair(&p);
	}
}

static void a_reset_drops_what_is_not_sent(void **state)
{
	static char buf[1 << 20];
	struct iovec iov = { buf, sizeof(buf) };
	struct pair p;
	size_t sent = 0, got = 0;
	ssize_t r;

	(void)state;
	open_pair(&p, false, 0);
	while ((r = mc_stream_writev(&p.a, &iov, 1)) > 0)
		sent += r;
	mc_stream_reset(&p.a);
	assert_int_equal(mc_net_wait(p.b.fd, POLLIN, in_ms(1000)), 0);
	while ((r = mc_stream_readv(&p.b, &iov, 1)) > 0)
		got += r;
	assert_int_equal(r, -ECONNRESET);
	assert_true(got < sent);
	close_pair(&p);
}

static void silence_ends_at_the_deadline(void **state)
{
	static char buf[16 << 20];
	struct pair p;
	uint64_t began;

	(void)state;
	for (int tls = 0; tls < 2; tls++) {
		open_pair(&p, tls, 0);
		began = mc_clock_ns();
		assert_int_equal(mc_stream_read_full(&p.a, buf, 1, in_ms(50)),
				 -ETIMEDOUT);
		assert_says("no answer in time");
		assert_int_equal(mc_stream_write_full(&p.a, buf, sizeof(buf),
						      in_ms(50)), -ETIMEDOUT);
		assert_says("does not read");
		assert_true(mc_clock_ns() - began < 900 * (uint64_t)MC_MS);
		close_pair(&p);
	}
}

/* ---- certificates, again --------------------------------------------- */

static void a_wrong_authority_is_refused(void **state)
{
	struct pair p;
	int a, b;

	(void)state;
	/* The client does not know who signed the server's. */
	connect_pair(&p, "a", "other", "b", "ca", 0);
	assert_int_equal(mc_stream_handshake(&p.a), 0);
	assert_int_equal(p.a.want, POLLIN);
	shake(&p, &a, &b);
	assert_int_equal(a, -EACCES);
	assert_int_equal(b, -EACCES);
	assert_says("does not accept our certificate");
	close_pair(&p);
}

static int read_one(struct pair *p)
{
	char byte;

	return mc_stream_read_full(&p->a, &byte, 1, in_ms(1000));
}

/* A client hears from its first read that the server refused it: even if it
 * has sent something already, and whatever is wrong. */
static void a_refused_client_hears_why(void **state)
{
	static const struct { const char *name, *ca, *why; } t[] = {
		{ "other", "ca", "unknown ca" },
		{ "old", "ca", "expired" },
	};
	struct pair p;
	int a, b;

	(void)state;
	for (size_t i = 0; i < mc_array_len(t); i++) {
		connect_pair(&p, t[i].name, t[i].ca, "b", "ca", 0);
		while (!(a = mc_stream_handshake(&p.a)))
			assert_true(mc_stream_handshake(&p.b) >= 0);
		assert_int_equal(a, 1);
		assert_int_equal(mc_stream_write_full(&p.a, "hello", 5,
						      in_ms(100)), 0);
		assert_int_equal(mc_net_wait(p.b.fd, POLLIN, in_ms(100)), 0);
		b = mc_stream_handshake(&p.b);
		assert_int_equal(b, -EACCES);
		assert_says("its certificate /CN=");
		mc_stream_fini(&p.b);
		assert_int_equal(read_one(&p), -EACCES);
		assert_says("does not accept our certificate");
		assert_says(t[i].why);
		close_pair(&p);
	}
}

/* One certificate for all, no authority: both sides know it. */
static void one_certificate_can_serve_all(void **state)
{
	static const char *const who[] = { "other", "a" };
	struct pair p = { 0 };
	int client, server, a, b;

	(void)state;
	for (size_t i = 0; i < mc_array_len(who); i++) {
		const char *pem = file_of(who[i], "pem");

		connect_fds(&client, &server, 0);
		if (mc_tls_open(&p.tls_a, pem, NULL, NULL))
			fail_msg("%s", mc_errmsg());
		p.tls_b = NULL;
		mc_stream_init(&p.a, client, p.tls_a, false);
		mc_stream_init(&p.b, server, p.tls_a, true);
		shake(&p, &a, &b);
		assert_int_equal(a, 1);
		assert_int_equal(b, 1);
		pump(&p.a, &p.b, 100000);
		close_pair(&p);
	}
}

static void plain_and_tls_do_not_meet(void **state)
{
	struct pair p;
	char buf[64];
	int r;

	(void)state;
	/* A plain client. */
	connect_pair(&p, NULL, NULL, "b", "ca", 0);
	assert_int_equal(mc_stream_write_full(&p.a, "MCN1\1\0\0\0hello there",
					      19, in_ms(100)), 0);
	assert_int_equal(mc_net_wait(p.b.fd, POLLIN, in_ms(1000)), 0);
	assert_int_equal(mc_stream_handshake(&p.b), -EPROTO);
	assert_says("does not speak TLS 1.3");
	mc_stream_fini(&p.b);
	assert_int_equal(mc_stream_read_full(&p.a, buf, sizeof(buf),
					     in_ms(1000)), -ECONNRESET);
	close_pair(&p);
	/* A plain server, that answers or hangs up. */
	for (int answers = 0; answers < 2; answers++) {
		connect_pair(&p, "a", "ca", NULL, NULL, 0);
		assert_int_equal(mc_stream_handshake(&p.a), 0);
		if (answers)
			mc_stream_write_full(&p.b, "MCN1\1\0\0\0\0\0\0\0", 12,
					     in_ms(100));
		mc_net_wait(p.b.fd, POLLIN, in_ms(100));
		mc_stream_read_full(&p.b, buf, sizeof(buf), in_ms(100));
		mc_stream_fini(&p.b);
		mc_net_wait(p.a.fd, POLLIN, in_ms(1000));
		while (!(r = mc_stream_handshake(&p.a)))
			mc_net_wait(p.a.fd, POLLIN, in_ms(100));
		if (answers)
			assert_int_equal(r, -EPROTO);
		else
			assert_true(r == -ECONNRESET);
		close_pair(&p);
	}
}

static void bad_files_are_named(void **state)
{
	struct mc_tls *tls = (void *)1;
	const char *crt = file_of("a", "crt"), *key = file_of("a", "key");

	(void)state;
	assert_int_equal(mc_tls_open(&tls, NULL, NULL, NULL), 0);
	assert_null(tls);
	assert_int_equal(mc_tls_open(&tls, NULL, key, NULL), -EINVAL);
	assert_int_equal(mc_tls_open(&tls, "/nowhere/x", key, NULL), -ENOENT);
	assert_says("TLS certificate /nowhere/x: No such file");
	assert_int_equal(mc_tls_open(&tls, crt, "/nowhere/x", NULL), -ENOENT);
	assert_says("TLS key /nowhere/x");
	assert_int_equal(mc_tls_open(&tls, crt, key, "/nowhere/x"), -ENOENT);
	assert_says("TLS authority /nowhere/x");
	assert_int_equal(mc_tls_open(&tls, key, key, NULL), -EINVAL);
	assert_says("TLS certificate");
	assert_int_equal(mc_tls_open(&tls, crt, crt, NULL), -EINVAL);
	assert_says("TLS key");
	assert_int_equal(mc_tls_open(&tls, crt, file_of("b", "key"), NULL),
			 -EINVAL);
	assert_says("is not that of certificate");
	assert_int_equal(mc_tls_open(&tls, crt, file_of("a", "locked"), NULL),
			 -EINVAL);
	assert_says("expected an unencrypted PEM file");
	assert_int_equal(mc_tls_open(&tls, crt, key, key), -EINVAL);
	assert_null(tls);
	mc_tls_close(NULL);
}

/* ---- descriptors ----------------------------------------------------- */

static void unix_pair(struct mc_stream *a, struct mc_stream *b)
{
	int fd[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK |
				    SOCK_CLOEXEC, 0, fd), 0);
	mc_stream_init(a, fd[0], NULL, false);
	mc_stream_init(b, fd[1], NULL, true);
}

static void descriptors_come_with_their_bytes(void **state)
{
	static uint8_t out[1 << 20], in[1 << 20];
	struct mc_stream a, b;
	struct pollfd pfd = { .events = POLLOUT };
	int p[2], fds[4] = { -1, -1, -1, -1 }, n = 4;

	(void)state;
	unix_pair(&a, &b);
	assert_int_equal(pipe(p), 0);
	memset(out, 7, sizeof(out));
	assert_int_equal(mc_stream_write_fds(&a, "head", 4, p, 2,
					     in_ms(1000)), 0);
	assert_int_equal(mc_stream_write_full(&a, "tail", 4, in_ms(100)), 0);
	assert_int_equal(mc_stream_read_fds(&b, in, 8, fds, &n, in_ms(1000)),
			 0);
	assert_memory_equal(in, "headtail", 8);
	assert_int_equal(n, 2);
	assert_int_equal(write(fds[1], "x", 1), 1);
	assert_int_equal(read(p[0], in, 1), 1);
	close(fds[0]);
	close(fds[1]);
	/* Nobody reads: the deadline. */
	assert_int_equal(mc_stream_write_fds(&a, out, sizeof(out), p, 1,
					     in_ms(50)), -ETIMEDOUT);
	assert_says("does not read");
	/* An error leaves none open: nobody has the other end of the pipe. */
	mc_stream_fini(&a);
	n = 4;
	close(p[0]);
	assert_int_equal(mc_stream_read_fds(&b, in, sizeof(in), fds, &n,
					    in_ms(1000)), -ECONNRESET);
	assert_says("closed by peer");
	assert_int_equal(n, 0);
	pfd.fd = p[1];
	assert_int_equal(poll(&pfd, 1, 0), 1);
	assert_true(pfd.revents & POLLERR);
	close(p[1]);
	assert_int_equal(mc_stream_write_fds(&b, "x", 1, &b.fd, 1,
					     in_ms(100)), -ECONNRESET);
	mc_stream_fini(&b);
}

static void waiting_for_descriptors_has_an_end(void **state)
{
	struct mc_stream a, b;
	char buf[8];
	int fd, n = 1;

	(void)state;
	unix_pair(&a, &b);
	assert_int_equal(mc_stream_read_fds(&b, buf, 8, &fd, &n, in_ms(30)),
			 -ETIMEDOUT);
	assert_int_equal(n, 0);
	assert_says("process ");
	mc_stream_fini(&a);
	mc_stream_fini(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_byte_arrives),
		cmocka_unit_test(reading_goes_on_while_a_write_waits),
		cmocka_unit_test(small_ranges_share_a_record),
		cmocka_unit_test(buffered_bytes_are_reported),
		cmocka_unit_test(nothing_to_move_is_no_error),
		cmocka_unit_test(an_end_in_the_middle_is_named),
		cmocka_unit_test(writing_to_nobody_raises_no_signal),
		cmocka_unit_test(a_reset_drops_what_is_not_sent),
		cmocka_unit_test(silence_ends_at_the_deadline),
		cmocka_unit_test(a_wrong_authority_is_refused),
		cmocka_unit_test(a_refused_client_hears_why),
		cmocka_unit_test(one_certificate_can_serve_all),
		cmocka_unit_test(plain_and_tls_do_not_meet),
		cmocka_unit_test(bad_files_are_named),
		cmocka_unit_test(descriptors_come_with_their_bytes),
		cmocka_unit_test(waiting_for_descriptors_has_an_end),
	};

	return cmocka_run_group_tests(tests, make_certificates,
				      remove_certificates);
}
