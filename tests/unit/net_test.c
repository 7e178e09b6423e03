/* net_test.c - addresses, connecting by a deadline, descriptors; see net.h. */
#include "../../src/base/net.h"

#include "../../src/base/clock.h"
#include "../../src/base/util.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

static uint64_t in_ms(int ms)
{
	return mc_clock_ns() + (uint64_t)ms * MC_MS;
}

static void assert_says(const char *text)
{
	if (!strstr(mc_errmsg(), text))
		fail_msg("message '%s' lacks '%s'", mc_errmsg(), text);
}

static int count_fds(void)
{
	DIR *d = opendir("/proc/self/fd");
	int n = 0;

	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

/* ---- addresses ------------------------------------------------------- */

static void addresses_are_taken_apart(void **state)
{
	static const struct {
		const char *text;
		int default_port;
		const char *host;
		int port;
	} t[] = {
		{ "10.0.0.2:7000", -1, "10.0.0.2", 7000 },
		{ "node-7.pod_a.svc:1", -1, "node-7.pod_a.svc", 1 },
		{ ":7000", -1, "", 7000 },
		{ ":0", -1, "", 0 },
		{ "[::1]:7000", -1, "::1", 7000 },
		{ "[fe80::1%eth0]:65535", -1, "fe80::1%eth0", 65535 },
		{ "fe80::1%eth0:7000", -1, "fe80::1%eth0", 7000 },
		{ "[::ffff:10.0.0.2]:80", -1, "::ffff:10.0.0.2", 80 },
		{ "node", 12345, "node", 12345 },
		{ "node:7", 12345, "node", 7 },
		{ "::1", 12345, "::1", 12345 },
		{ "[::1]", 12345, "::1", 12345 },
		{ "fe80::1%br-0.7", 12345, "fe80::1%br-0.7", 12345 },
		{ "::1:7000", 12345, "::1:7000", 12345 },
	};
	struct mc_net_name name;

	(void)state;
	for (size_t i = 0; i < mc_array_len(t); i++) {
		if (mc_net_parse(t[i].text, t[i].default_port, &name))
			fail_msg("%s: %s", t[i].text, mc_errmsg());
		assert_string_equal(name.host, t[i].host);
		assert_int_equal(name.port, t[i].port);
	}
}

static void bad_addresses_are_explained(void **state)
{
	static const struct { const char *text, *why; } t[] = {
		{ NULL, "empty address" },
		{ "", "expected host:port, [v6]:port or :port" },
		{ "node", "no port" },
		{ "node:", "port ''" },
		{ "node:x", "port 'x' is not a number" },
		{ "node:65536", "from 0 to 65535" },
		{ "node:000001", "port '000001'" },
		{ "node:-1", "port '-1'" },
		{ "node: 1", "port ' 1'" },
		{ "no de:1", "'no de' is not a host" },
		{ "http://node:1", "expected host:port" },
		{ "node/x:1", "'node/x' is not a host" },
		{ "::1", "IPv6 is written [host]:port" },
		{ "::1:7000", "IPv6 is written [host]:port" },
		{ "[::1]", "IPv6 is written [host]:port" },
		{ "[::1", "expected" },
		{ "[::1]7000", "expected" },
		{ "[node]:1", "not an IPv6 address" },
		{ "[]:1", "not an IPv6 address" },
		{ "[fe80::1%]:1", "not an IPv6 address" },
		{ "1:2:3", "expected" },
		{ "fe80::1%a:b:7", "port 'b:7'" },
	};
	struct mc_net_name name;
	char text[MC_HOST_MAX + 8];

	(void)state;
	for (size_t i = 0; i < mc_array_len(t); i++) {
		if (mc_net_parse(t[i].text, -1, &name) != -EINVAL)
			fail_msg("'%s' was taken", t[i].text);
		assert_says(t[i].why);
	}
	memset(text, 'a', sizeof(text));
	strcpy(text + MC_HOST_MAX, ":1");
	assert_int_equal(mc_net_parse(text, -1, &name), -EINVAL);
	strcpy(text + MC_HOST_MAX - 1, ":1");
	assert_int_equal(mc_net_parse(text, -1, &name), 0);
}

static void addresses_are_put_together(void **state)
{
	char text[MC_ADDR_MAX], longest[MC_ADDR_MAX];

	(void)state;
	assert_int_equal(mc_net_join("node", 1, text), 0);
	assert_string_equal(text, "node:1");
	assert_int_equal(mc_net_join("fe80::1%eth0", 65535, text), 0);
	assert_string_equal(text, "[fe80::1%eth0]:65535");
	memset(longest, 'a', sizeof(longest));
	longest[MC_ADDR_MAX - 1] = 0;
	assert_int_equal(mc_net_join(longest, 1, text), -EINVAL);
	longest[MC_ADDR_MAX - 3] = 0;
	assert_int_equal(mc_net_join(longest, 1, text), 0);
}

static void socket_addresses_become_text(void **state)
{
	struct sockaddr_in v4 = { .sin_family = AF_INET,
				  .sin_port = htons(7000) };
	struct sockaddr_in6 v6 = { .sin6_family = AF_INET6,
				   .sin6_port = htons(7000) };
	struct sockaddr_un un = { .sun_family = AF_UNIX,
				  .sun_path = "\0name" };
	char text[MC_ADDR_MAX];

	(void)state;
	inet_pton(AF_INET, "10.0.0.2", &v4.sin_addr);
	mc_net_format((struct sockaddr *)&v4, sizeof(v4), text);
	assert_string_equal(text, "10.0.0.2:7000");
	inet_pton(AF_INET6, "::ffff:10.0.0.2", &v6.sin6_addr);
	mc_net_format((struct sockaddr *)&v6, sizeof(v6), text);
	assert_string_equal(text, "10.0.0.2:7000");
	inet_pton(AF_INET6, "fe80::1", &v6.sin6_addr);
	v6.sin6_scope_id = 1;		/* lo, everywhere */
	mc_net_format((struct sockaddr *)&v6, sizeof(v6), text);
	assert_string_equal(text, "[fe80::1%lo]:7000");
	v6.sin6_scope_id = 4000000000u;
	mc_net_format((struct sockaddr *)&v6, sizeof(v6), text);
	assert_string_equal(text, "[fe80::1%4000000000]:7000");
	mc_net_format((struct sockaddr *)&un,
		      offsetof(struct sockaddr_un, sun_path) + 5, text);
	assert_string_equal(text, "unix:@name");
}

/* ---- listening and connecting ---------------------------------------- */

static int accept_one(int fd)
{
	assert_int_equal(mc_net_wait(fd, POLLIN, in_ms(1000)), 0);
	return accept(fd, NULL, NULL);
}

/* Listen at @addr, connect to @to with the port found, and talk. */
static void meet(const char *addr, const char *to, const char *dev)
{
	char actual[MC_ADDR_MAX], target[MC_ADDR_MAX], byte = 'x';
	char mine[MC_ADDR_MAX], theirs[MC_ADDR_MAX];
	int l, c, a, r = mc_net_listen(addr, &l, actual);

	if (r)
		fail_msg("%s", mc_errmsg());
	snprintf(target, sizeof(target), "%s%s", to, strrchr(actual, ':'));
	if (mc_net_connect(target, dev, in_ms(1000), &c))
		fail_msg("%s", mc_errmsg());
	a = accept_one(l);
	assert_int_equal(write(c, &byte, 1), 1);
	assert_int_equal(mc_net_wait(a, POLLIN, in_ms(1000)), 0);
	assert_int_equal(read(a, &byte, 1), 1);
	mc_net_local_name(c, mine);
	mc_net_peer_name(a, theirs);
	assert_string_equal(mine, theirs);
	close(a);
	close(c);
	close(l);
}

static bool has_ipv6(void)
{
	char actual[MC_ADDR_MAX];
	int fd;

	if (mc_net_listen("[::1]:0", &fd, actual))
		return false;
	close(fd);
	return true;
}

static void peers_meet(void **state)
{
	(void)state;
	meet("127.0.0.1:0", "127.0.0.1", NULL);
	meet("127.0.0.1:0", "127.0.0.1", "lo");
	meet("localhost:0", "localhost", NULL);
	meet(":0", "127.0.0.1", NULL);
	meet(":0", "", NULL);
	if (!has_ipv6())
		return;
	meet("[::1]:0", "[::1]", NULL);
	meet("[::1]:0", "[::1]", "lo");
	meet(":0", "[::1]", NULL);
}

static void a_taken_port_is_named(void **state)
{
	char actual[MC_ADDR_MAX], again[MC_ADDR_MAX];
	int fd, other;

	(void)state;
	assert_int_equal(mc_net_listen("127.0.0.1:0", &fd, actual), 0);
	assert_int_equal(mc_net_listen(actual, &other, again), -EADDRINUSE);
	assert_says(actual);
	assert_says("already in use");
	close(fd);
	assert_int_equal(mc_net_listen("192.0.2.1:0", &fd, actual),
			 -EADDRNOTAVAIL);
	assert_says("no such address");
}

static void failures_name_peer_and_cause(void **state)
{
	char actual[MC_ADDR_MAX];
	int fd;

	(void)state;
	assert_int_equal(mc_net_listen("127.0.0.1:0", &fd, actual), 0);
	close(fd);
	assert_int_equal(mc_net_connect(actual, NULL, in_ms(1000), &fd),
			 -ECONNREFUSED);
	assert_says(actual);
	assert_says("connection refused");
	assert_int_equal(mc_net_connect(actual, "none0", in_ms(1000), &fd),
			 -ENODEV);
	assert_says("no interface 'none0'");
	assert_int_equal(mc_net_connect("[fe80::1%none0]:1", NULL,
					in_ms(1000), &fd), -ENODEV);
	assert_int_equal(mc_net_connect("127.0.0.1:0", NULL, in_ms(1000),
					&fd), -EINVAL);
	assert_int_equal(mc_net_connect("127.0.0.1", NULL, in_ms(1000), &fd),
			 -EINVAL);
}

static void looking_up_keeps_to_the_deadline(void **state)
{
	uint64_t began = mc_clock_ns();
	int fd, r = mc_net_connect("no-such-host.invalid:1", NULL, in_ms(200),
				   &fd);

	(void)state;
	assert_true(r == -EHOSTUNREACH || r == -ETIMEDOUT);
	assert_says("look up 'no-such-host.invalid'");
	assert_true(mc_clock_ns() - began < 2000 * (uint64_t)MC_MS);
}

/* With its queue full, a listener drops what else arrives. */
static void silence_ends_at_the_deadline(void **state)
{
	struct sockaddr_in sa = { .sin_family = AF_INET };
	socklen_t len = sizeof(sa);
	int l = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int fd[8], n = 0, r = 0;
	char addr[MC_ADDR_MAX];
	uint64_t began = 0;

	(void)state;
	sa.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	assert_int_equal(bind(l, (struct sockaddr *)&sa, len), 0);
	assert_int_equal(listen(l, 0), 0);
	getsockname(l, (struct sockaddr *)&sa, &len);
	mc_net_format((struct sockaddr *)&sa, len, addr);
	while (!r && n < 8) {
		began = mc_clock_ns();
		r = mc_net_connect(addr, NULL, in_ms(100), &fd[n]);
		n += !r;
	}
	assert_int_equal(r, -ETIMEDOUT);
	assert_says("no answer within ");
	/* Never early; late only by what the scheduler may take. */
	assert_in_range(mc_clock_ns() - began, 100ull * MC_MS,
			1000ull * MC_MS);
	while (n)
		close(fd[--n]);
	close(l);
}

static void waiting_has_an_end(void **state)
{
	int p[2];

	(void)state;
	assert_int_equal(pipe(p), 0);
	assert_int_equal(mc_net_wait(p[0], POLLIN, in_ms(20)), -ETIMEDOUT);
	assert_int_equal(mc_net_wait(p[0], POLLIN, 0), -ETIMEDOUT);
	assert_int_equal(mc_net_wait(p[1], POLLOUT, 0), 0);
	assert_int_equal(write(p[1], "x", 1), 1);
	assert_int_equal(mc_net_wait(p[0], POLLIN, UINT64_MAX), 0);
	close(p[1]);
	assert_int_equal(mc_net_wait(p[0], POLLIN, 0), 0);
	close(p[0]);
}

/* ---- unix sockets ---------------------------------------------------- */

static void unix_pair(int *l, int *a, int *c)
{
	char name[64];

	snprintf(name, sizeof(name), "mooncake-net-test-%d", getpid());
	assert_int_equal(mc_net_listen_unix(name, l), 0);
	assert_int_equal(mc_net_connect_unix(name, in_ms(1000), c), 0);
	*a = accept_one(*l);
}

static void unix_peers_know_each_other(void **state)
{
	char name[MC_ADDR_MAX], expected[32], longest[160] = "";
	int l, a, c;

	(void)state;
	unix_pair(&l, &a, &c);
	assert_int_equal(mc_net_peer_pid(a), getpid());
	assert_int_equal(mc_net_peer_pid(c), getpid());
	snprintf(expected, sizeof(expected), "process %d", getpid());
	mc_net_peer_name(a, name);
	assert_string_equal(name, expected);
	close(a);
	close(c);
	close(l);
	assert_int_equal(mc_net_connect_unix("mooncake-none", in_ms(1000), &c),
			 -ECONNREFUSED);
	assert_says("unix:@mooncake-none: no such socket");
	assert_int_equal(mc_net_listen_unix("", &l), -EINVAL);
	memset(longest, 'a', sizeof(longest) - 1);
	assert_int_equal(mc_net_listen_unix(longest, &l), -EINVAL);
}

static void a_full_unix_queue_times_out(void **state)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	int l = socket(AF_UNIX, SOCK_STREAM, 0), fd[8], n = 0, r = 0;

	(void)state;
	snprintf(sa.sun_path + 1, 60, "mooncake-net-full-%d", getpid());
	assert_int_equal(bind(l, (struct sockaddr *)&sa, sizeof(sa_family_t) +
			 1 + strlen(sa.sun_path + 1)), 0);
	assert_int_equal(listen(l, 0), 0);
	while (!r && n < 8) {
		r = mc_net_connect_unix(sa.sun_path + 1, in_ms(50), &fd[n]);
		n += !r;
	}
	assert_int_equal(r, -ETIMEDOUT);
	assert_says("does not accept");
	while (n)
		close(fd[--n]);
	close(l);
}

static void descriptors_travel(void **state)
{
	int l, a, c, p[2], got[3] = { -1, -1, -1 }, n = 3, before;
	int many[MC_NET_FDS + 1];
	char buf[8] = "";

	(void)state;
	unix_pair(&l, &a, &c);
	assert_int_equal(pipe(p), 0);
	assert_int_equal(mc_net_recvmsg_fds(a, buf, sizeof(buf), got, &n),
			 -EAGAIN);
	assert_int_equal(n, 0);
	assert_int_equal(mc_net_sendmsg_fds(c, "hello", 5, p, 2), 5);
	before = count_fds();
	n = 3;
	assert_int_equal(mc_net_recvmsg_fds(a, buf, sizeof(buf), got, &n), 5);
	assert_int_equal(n, 2);
	assert_memory_equal(buf, "hello", 5);
	assert_int_equal(write(got[1], "x", 1), 1);
	assert_int_equal(read(p[0], buf, 1), 1);
	close(got[0]);
	close(got[1]);
	/* More of them than there is room for: none is left open. */
	for (int i = 0; i <= MC_NET_FDS; i++)
		many[i] = p[0];
	assert_int_equal(mc_net_sendmsg_fds(c, "x", 1, many, MC_NET_FDS), 1);
	n = 1;
	assert_int_equal(mc_net_recvmsg_fds(a, buf, sizeof(buf), got, &n), 1);
	assert_int_equal(n, 1);
	close(got[0]);
	assert_int_equal(count_fds(), before);
	assert_int_equal(mc_net_sendmsg_fds(c, "x", 1, many, MC_NET_FDS + 1),
			 -EINVAL);
	close(c);
	assert_int_equal(mc_net_recvmsg_fds(a, buf, sizeof(buf), got, &n), 0);
	assert_int_equal(mc_net_sendmsg_fds(a, "x", 1, p, 1), -EPIPE);
	close(a);
	close(l);
	close(p[0]);
	close(p[1]);
}

static void nothing_is_left_open(void **state)
{
	int before = count_fds();

	failures_name_peer_and_cause(state);
	peers_meet(state);
	descriptors_travel(state);
	assert_int_equal(count_fds(), before);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(addresses_are_taken_apart),
		cmocka_unit_test(bad_addresses_are_explained),
		cmocka_unit_test(addresses_are_put_together),
		cmocka_unit_test(socket_addresses_become_text),
		cmocka_unit_test(peers_meet),
		cmocka_unit_test(a_taken_port_is_named),
		cmocka_unit_test(failures_name_peer_and_cause),
		cmocka_unit_test(looking_up_keeps_to_the_deadline),
		cmocka_unit_test(silence_ends_at_the_deadline),
		cmocka_unit_test(waiting_has_an_end),
		cmocka_unit_test(unix_peers_know_each_other),
		cmocka_unit_test(a_full_unix_queue_times_out),
		cmocka_unit_test(descriptors_travel),
		cmocka_unit_test(nothing_is_left_open),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
