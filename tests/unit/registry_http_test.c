/*
 * registry_http_test.c - what only the http client has: the form of its URLs,
 * and servers that are mute, or not ours.
 */
#include "registries.h"

#include "../../src/base/clock.h"
#include "../../src/base/net.h"
#include "../../src/base/util.h"

#include <poll.h>
#include <pthread.h>
#include <sys/resource.h>
#include <unistd.h>

static struct mc_registryd *server;

static struct mc_registry *client_of(const char *addr)
{
	char url[160];

	snprintf(url, sizeof(url), "http://%s/metadata", addr);
	return registry_open(url);
}

static struct mc_registry *client(void)
{
	return client_of(mc_registryd_addr(server));
}

static int setup(void **state)
{
	(void)state;
	return mc_registryd_open(&server, "127.0.0.1:0", NULL);
}

static int teardown(void **state)
{
	(void)state;
	mc_registryd_close(server);
	return 0;
}

static void urls_have_defaults(void **state)
{
	static const char *const forms[] = {
		"http://%s", "HTTP://%s/", "http://%s/metadata",
		"http://%s/some/path?cluster=7", "http://%s?x=1#frag",
	};
	struct mc_registry *r;
	char url[200], out[8];

	(void)state;
	for (size_t i = 0; i < mc_array_len(forms); i++) {
		snprintf(url, sizeof(url), forms[i], mc_registryd_addr(server));
		assert_ok(mc_registry_open(&r, url));
		assert_ok(mc_registry_put(r, "url", "v", 1, 0));
		assert_int_equal(registry_get(r, "url", out, sizeof(out)), 1);
		mc_registry_close(r);
	}
}

static void passwords_stay_out_of_messages(void **state)
{
	struct mc_registry *r;
	char url[200];

	(void)state;
	snprintf(url, sizeof(url), "http://user:secret@%s/m?token=secret",
		 mc_registryd_addr(server));
	assert_ok(mc_registry_open(&r, url));
	assert_fails(mc_registry_get(r, "none", NULL, 0, NULL), -ENOENT, "/m:");
	assert_null(strstr(mc_errmsg(), "secret"));
	mc_registry_close(r);
}

static void proxies_are_not_asked(void **state)
{
	struct mc_registry *r;

	(void)state;
	setenv("http_proxy", "http://127.0.0.1:1", 1);
	setenv("ALL_PROXY", "http://127.0.0.1:1", 1);
	r = client();
	assert_ok(mc_registry_put(r, "proxy", "v", 1, 0));
	mc_registry_close(r);
	unsetenv("http_proxy");
	unsetenv("ALL_PROXY");
}

static double cpu_of_process(void)
{
	struct rusage u;

	getrusage(RUSAGE_SELF, &u);
	return u.ru_utime.tv_sec + u.ru_stime.tv_sec +
	       (u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static void idle_costs_nothing(void **state)
{
	struct mc_registry *r = client();
	double before;

	(void)state;
	assert_ok(mc_registry_put(r, "idle", "1", 1, 60000));
	before = cpu_of_process();
	sleep(1);
	assert_true(cpu_of_process() - before < 0.005);
	mc_registry_close(r);
}

static void old_changes_are_forgotten(void **state)
{
	struct mc_registry *r = client();
	uint64_t version = 0, old;
	char key[32];
	int n;

	(void)state;
	assert_int_equal(mc_registry_watch(r, "f/", &version, 0), 0);
	old = version;
	for (int i = 0; i < 4096; i++) {
		snprintf(key, sizeof(key), "f/%d", i % 50);
		n = snprintf(key + 16, 16, "%d", i);
		assert_ok(mc_registry_put(r, key, key + 16, n, 0));
	}
	assert_int_equal(mc_registry_watch(r, "f/", &version, 0), 4096);
	version = old;
	assert_ok(mc_registry_put(r, "f/0", "last", 4, 0));
	assert_fails(mc_registry_watch(r, "f/", &version, 0), -ESTALE,
		     "forgotten|watch 'f/'");
	version = ~0ull / 2;
	assert_fails(mc_registry_watch(r, "f/", &version, 0), -ESTALE, "");
	mc_registry_close(r);
}

/* ---- servers that do not answer as they should ----------------------- */

/* Answers every request with @reply and closes. */
struct canned {
	pthread_t thread;
	int fd;
	char addr[MC_ADDR_MAX];
	const char *reply;
	char last[512];			/* the first line of the last request */
	int served;
};

static void *canned_main(void *arg)
{
	struct canned *c = arg;
	char buf[4096];
	ssize_t n;
	int fd;

	for (;;) {
		if (mc_net_wait(c->fd, POLLIN, UINT64_MAX) < 0)
			return NULL;
		fd = accept(c->fd, NULL, NULL);
		if (fd < 0)
			return NULL;
		n = read(fd, buf, sizeof(buf) - 1);
		buf[n > 0 ? n : 0] = 0;
		buf[strcspn(buf, "\r\n")] = 0;
		mc_copy(c->last, buf);
		c->served++;
		if (write(fd, c->reply, strlen(c->reply)) < 0)
			perror("write");
		close(fd);
	}
}

static void canned_start(struct canned *c, const char *reply)
{
	memset(c, 0, sizeof(*c));
	c->reply = reply;
	assert_ok(mc_net_listen("127.0.0.1:0", &c->fd, c->addr));
	pthread_create(&c->thread, NULL, canned_main, c);
}

static void canned_stop(struct canned *c)
{
	shutdown(c->fd, SHUT_RDWR);
	pthread_join(c->thread, NULL);
	close(c->fd);
}

/* What the public servers answer, which have none of our headers. */
static void a_server_that_is_not_ours(void **state)
{
	struct mc_registry *r;
	struct canned c;
	uint64_t version = 9;
	char out[32];

	(void)state;
	canned_start(&c, "HTTP/1.1 200 OK\r\nContent-Length: 16\r\n"
		     "Connection: close\r\n\r\nmetadata updated");
	r = client_of(c.addr);
	assert_ok(mc_registry_put(r, "mooncake/ram/a b", "1", 1, 1000));
	assert_string_equal(c.last, "PUT /metadata?key=mooncake%2Fram%2Fa%20b "
			    "HTTP/1.1");
	assert_int_equal(mc_registry_get(r, "a", out, sizeof(out), &version),
			 16);
	assert_int_equal(version, 0);
	assert_ok(mc_registry_del(r, "a"));
	assert_fails(mc_registry_cas(r, "a", "1", 1, 0, 0), -EOPNOTSUPP,
		     "only get, put and delete");
	assert_string_equal(c.last, "GET /metadata?key=a HTTP/1.1");
	assert_fails(mc_registry_list(r, "a", out, sizeof(out)), -EOPNOTSUPP,
		     "list 'a'");
	assert_fails(mc_registry_watch(r, "a", &version, 5000), -EOPNOTSUPP,
		     "watch 'a'");
	mc_registry_close(r);
	canned_stop(&c);
}

static void a_server_that_refuses(void **state)
{
	static const struct {
		const char *reply;
		int err;
		const char *says;
	} t[] = {
		{ "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
		  -ENOENT, "HTTP 404" },
		{ "HTTP/1.1 400 Bad Request\r\nContent-Length: 9\r\n\r\n"
		  "Duplicate", -EINVAL, "Duplicate (HTTP 400)" },
		{ "HTTP/1.1 403 Forbidden\r\nContent-Length: 6\r\n\r\n<html>",
		  -EACCES, "HTTP 403" },
		{ "HTTP/1.1 204 No Content\r\n\r\n", -EREMOTEIO, "HTTP 204" },
		{ "HTTP/1.1 302 Found\r\nLocation: http://h/\r\n"
		  "Content-Length: 0\r\n\r\n", -EREMOTEIO, "HTTP 302" },
		{ "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", -EBUSY,
		  "HTTP 503" },
		{ "HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nshort",
		  -ECONNRESET, "get 'a'" },
		{ "no http at all\r\n\r\n", -EPROTO, "get 'a'" },
		{ "", -ECONNRESET, "get 'a'" },
	};
	struct mc_registry *r;
	struct canned c;

	(void)state;
	for (size_t i = 0; i < mc_array_len(t); i++) {
		canned_start(&c, t[i].reply);
		r = client_of(c.addr);
		assert_fails(registry_get(r, "a", NULL, 0), t[i].err,
			     t[i].says);
		mc_registry_close(r);
		canned_stop(&c);
	}
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(urls_have_defaults),
		cmocka_unit_test(passwords_stay_out_of_messages),
		cmocka_unit_test(proxies_are_not_asked),
		cmocka_unit_test(idle_costs_nothing),
		cmocka_unit_test(old_changes_are_forgotten),
		cmocka_unit_test(a_server_that_is_not_ours),
		cmocka_unit_test(a_server_that_refuses),
	};

	registries_main(argc, argv);
	alarm(120);
	return cmocka_run_group_tests(tests, setup, teardown);
}
