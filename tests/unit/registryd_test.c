/*
 * registryd_test.c - our registry server as others see it: plain requests over
 * a socket, addresses, and the state file over restarts and accidents.
 */
#include "../../src/registry/registry.h"

#include "../../src/base/clock.h"
#include "../../src/base/net.h"
#include "../../src/base/util.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static const char text_value[] = "{\"\xc3\xa9\": \"\\\"/\n\"}";
static char dir[64];
static char file[128];

static void assert_fails(int64_t r, int err, const char *text)
{
	if (r != err)
		fail_msg("%" PRId64 " is not %d: %s", r, err, mc_errmsg());
	if (!strstr(mc_errmsg(), text))
		fail_msg("message '%s' lacks '%s'", mc_errmsg(), text);
}

static void assert_ok(int64_t r)
{
	if (r < 0)
		fail_msg("%" PRId64 ": %s", r, mc_errmsg());
}

static struct mc_registryd *serve(const char *state)
{
	struct mc_registryd *d;

	assert_ok(mc_registryd_open(&d, NULL, state));
	return d;
}

static struct mc_registry *client(const struct mc_registryd *d)
{
	struct mc_registry *r;
	char url[160];

	snprintf(url, sizeof(url), "http://%s", mc_registryd_addr(d));
	assert_ok(mc_registry_open(&r, url));
	return r;
}

static int setup(void **state)
{
	(void)state;
	strcpy(dir, "/tmp/registryd_test.XXXXXX");
	if (!mkdtemp(dir))
		return -1;
	snprintf(file, sizeof(file), "%s/state", dir);
	return 0;
}

static int teardown(void **state)
{
	char cmd[128];

	(void)state;
	snprintf(cmd, sizeof(cmd), "rm -rf '%s'", dir);
	return system(cmd);
}

/* ---- plain requests -------------------------------------------------- */

/* Send @text, read until the server closes or is quiet: what came. */
static const char *ask(const struct mc_registryd *d, const char *text)
{
	static char answer[65536];
	uint64_t deadline = mc_clock_ns() + 5000ull * MC_MS;
	size_t n = 0;
	ssize_t got;
	int fd;

	assert_ok(mc_net_connect(mc_registryd_addr(d), NULL, deadline, &fd));
	assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL),
			 strlen(text));
	while (n < sizeof(answer) - 1 && !mc_net_wait(fd, POLLIN, deadline)) {
		got = read(fd, answer + n, sizeof(answer) - 1 - n);
		if (got <= 0)
			break;
		n += got;
	}
	answer[n] = 0;
	close(fd);
	return answer;
}

static void assert_answers(const struct mc_registryd *d, const char *first,
			   const char *status, const char *body)
{
	char text[1024];
	const char *answer;

	snprintf(text, sizeof(text), "%s HTTP/1.1\r\nHost: h\r\n"
		 "Connection: close\r\nContent-Length: 1\r\n\r\nv", first);
	answer = ask(d, text);
	if (strncmp(answer, "HTTP/1.1 ", 9) ||
	    strncmp(answer + 9, status, 3) || !strstr(answer, body))
		fail_msg("%s: %s", first, answer);
}

static void answers_are_the_public_ones(void **state)
{
	struct mc_registryd *d = serve(NULL);

	(void)state;
	assert_answers(d, "GET /metadata?key=a", "404",
		       "\r\n\r\nmetadata not found");
	assert_answers(d, "PUT /metadata?key=a", "200",
		       "\r\n\r\nmetadata updated");
	assert_answers(d, "GET /metadata?key=a", "200", "\r\n\r\nv");
	assert_answers(d, "GET /any/path?x=1&key=a&y", "200", "\r\n\r\nv");
	assert_answers(d, "DELETE /metadata?key=a", "200",
		       "\r\n\r\nmetadata deleted");
	assert_answers(d, "DELETE /metadata?key=a", "404", "not found");
	assert_answers(d, "GET /health", "200", "\r\n\r\nOK");
	mc_registryd_close(d);
}

static void bad_requests_are_refused(void **state)
{
	struct mc_registryd *d = serve(NULL);

	(void)state;
	assert_answers(d, "GET /metadata", "400", "missing");
	assert_answers(d, "PUT /metadata?key=", "400", "missing or empty");
	assert_answers(d, "DELETE /metadata?kay=a", "400", "missing");
	assert_answers(d, "GET /metadata?key=%20%20", "400", "blank");
	assert_answers(d, "GET /metadata?key=%0a", "400", "control");
	assert_answers(d, "GET /metadata?key=%ff", "400", "UTF-8");
	assert_answers(d, "GET /metadata?key=%f", "400", "percent");
	assert_answers(d, "GET /metadata?key=%00", "400", "percent");
	assert_answers(d, "GET /?prefix=a&after=x", "400", "number");
	assert_answers(d, "GET /?prefix=a&after=1&wait_ms=-1", "400", "number");
	assert_answers(d, "POST /metadata?key=a", "501", "");
	assert_answers(d, "PUT /?key=a HTTP/1.1\r\nMooncake-TTL: soon\r\nA:",
		       "400", "number");
	assert_answers(d, "PUT /?key=a HTTP/1.1\r\nMooncake-TTL: 9999999999"
		       "\r\nA:", "400", "24 days");
	assert_answers(d, "PUT /?key=a HTTP/1.1\r\nIf-Match: *\r\nA:", "400",
		       "number");
	assert_answers(d, "GET /?key=a", "404", "");
	mc_registryd_close(d);
}

static void conditions_are_etags_too(void **state)
{
	struct mc_registryd *d = serve(NULL);

	(void)state;
	assert_answers(d, "PUT /?key=a HTTP/1.1\r\nif-match: \"0\"\r\nA:",
		       "200", "Mooncake-Version: ");
	assert_answers(d, "PUT /?key=a HTTP/1.1\r\nIf-Match: 0\r\nA:",
		       "412", "Mooncake-Version: ");
	assert_answers(d, "DELETE /?key=a HTTP/1.1\r\nIf-Match: 5\r\nA:",
		       "412", "another version");
	assert_answers(d, "GET /?key=a", "200", "Mooncake-Registry: 1");
	mc_registryd_close(d);
}

static void bodies_have_a_limit(void **state)
{
	struct mc_registryd *d = serve(NULL);
	char text[200];
	const char *answer;

	(void)state;
	snprintf(text, sizeof(text), "PUT /?key=a HTTP/1.1\r\nHost: h\r\n"
		 "Content-Length: %d\r\n\r\n", MC_VALUE_MAX + 1);
	answer = ask(d, text);
	if (strncmp(answer, "HTTP/1.1 413", 12))
		fail_msg("%s", answer);
	snprintf(text, sizeof(text), "PUT /?key=a HTTP/1.1\r\nHost: h\r\n"
		 "Expect: 100-continue\r\nContent-Length: %d\r\n\r\n",
		 MC_VALUE_MAX + 1);
	answer = ask(d, text);
	if (strncmp(answer, "HTTP/1.1 4", 10))
		fail_msg("%s", answer);
	assert_answers(d, "GET /?key=a", "404", "");
	mc_registryd_close(d);
}

static void nonsense_does_no_harm(void **state)
{
	static const char *const texts[] = {
		"\r\n\r\n", "GET\r\n\r\n", "GET / HTTP/9.9\r\n\r\n",
		"\x16\x03\x01\x02", "GET http://[ HTTP/1.1\r\n\r\n",
		"PUT /?key=a HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
		("PUT /?key=a HTTP/1.1\r\n"
		 "Transfer-Encoding: chunked\r\n\r\nzz\r\n"),
	};
	struct mc_registryd *d = serve(NULL);
	int fds[200];

	(void)state;
	for (size_t i = 0; i < mc_array_len(fds); i++) {
		const char *text = texts[i % mc_array_len(texts)];

		assert_ok(mc_net_connect(mc_registryd_addr(d), NULL,
					 UINT64_MAX, &fds[i]));
		assert_true(send(fds[i], text, strlen(text), MSG_NOSIGNAL) > 0);
	}
	assert_answers(d, "GET /?key=a", "404", "");
	for (size_t i = 0; i < mc_array_len(fds); i++)
		close(fds[i]);
	assert_answers(d, "GET /health", "200", "OK");
	mc_registryd_close(d);
}

static void watchers_may_leave(void **state)
{
	static const char text[] =
		"GET /?prefix=&after=%s&wait_ms=60000 HTTP/1.1\r\nHost: h\r\n"
		"\r\n";
	struct mc_registryd *d = serve(NULL);
	struct mc_registry *r = client(d);
	uint64_t version = 0;
	char request[200], number[24];
	int fds[100];

	(void)state;
	assert_ok(mc_registry_watch(r, "", &version, 0));
	snprintf(number, sizeof(number), "%" PRIu64, version);
	snprintf(request, sizeof(request), text, number);
	for (int i = 0; i < 100; i++) {
		assert_ok(mc_net_connect(mc_registryd_addr(d), NULL,
					 UINT64_MAX, &fds[i]));
		assert_true(send(fds[i], request, strlen(request), 0) > 0);
		if (i % 2)
			close(fds[i]);
	}
	usleep(100000);
	assert_ok(mc_registry_put(r, "a", "1", 1, 0));
	assert_ok(mc_registry_put(r, "b", "1", 1, 0));
	for (int i = 0; i < 100; i += 2) {
		char answer[512] = "";

		assert_ok(mc_net_wait(fds[i], POLLIN, mc_clock_ns() +
				      5000ull * MC_MS));
		assert_true(read(fds[i], answer, sizeof(answer) - 1) > 0);
		if (!strstr(answer, " put a\n"))
			fail_msg("%s", answer);
		if (i % 4)
			close(fds[i]);
	}
	for (int i = 0; i < 100; i += 4) {	/* left waiting at the end */
		assert_true(send(fds[i], request, strlen(request), 0) > 0);
	}
	mc_registryd_close(d);
	for (int i = 0; i < 100; i += 4)
		close(fds[i]);
	mc_registry_close(r);
}

static void addresses_of_all_kinds(void **state)
{
	static const char *const addrs[] = {
		"127.0.0.1:0", "[::1]:0", ":0", "localhost:0", "0.0.0.0:0",
	};
	struct mc_registryd *d, *again;

	(void)state;
	for (size_t i = 0; i < mc_array_len(addrs); i++) {
		if (mc_registryd_open(&d, addrs[i], NULL) < 0 &&
		    strchr(addrs[i], '['))
			continue;	/* no IPv6 here */
		assert_answers(d, "GET /health", "200", "OK");
		assert_fails(mc_registryd_open(&again, mc_registryd_addr(d),
					       NULL), -EADDRINUSE,
			     mc_registryd_addr(d));
		mc_registryd_close(d);
	}
	assert_fails(mc_registryd_open(&d, "nowhere", NULL), -EINVAL, "port");
	mc_registryd_close(NULL);
}

/* ---- the state file -------------------------------------------------- */

static char *slurp(const char *path, size_t *len)
{
	char *text = calloc(1, 1 << 20);
	int fd = open(path, O_RDONLY);
	ssize_t n = read(fd, text, (1 << 20) - 1);

	assert_true(fd >= 0 && n >= 0);
	close(fd);
	*len = n;
	return text;
}

static void spill(const char *path, const char *text, size_t len)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, len), len);
	close(fd);
}

static void records_survive_a_restart(void **state)
{
	struct mc_registryd *d;
	struct mc_registry *r;
	uint64_t v, first;
	char bytes[256], out[300];

	(void)state;
	unlink(file);
	for (int i = 0; i < 256; i++)
		bytes[i] = (char)i;
	d = serve(file);
	r = client(d);
	assert_ok(mc_registry_put(r, "a", "1", 1, 0));
	assert_ok(mc_registry_put(r, "a", text_value,
				  strlen(text_value), 0));
	assert_ok(mc_registry_put(r, "bytes \xe2\x82\xac", bytes, 256, 0));
	assert_ok(mc_registry_put(r, "gone", "1", 1, 0));
	assert_ok(mc_registry_put(r, "empty", "", 0, 0));
	assert_ok(mc_registry_del(r, "gone"));
	assert_ok(mc_registry_get(r, "a", out, sizeof(out), &v));
	for (int i = 0; i < 3; i++) {
		mc_registry_close(r);
		mc_registryd_close(d);
		d = serve(file);
		r = client(d);
		assert_int_equal(mc_registry_get(r, "a", out, sizeof(out),
						 &first),
				 strlen(text_value));
		assert_string_equal(out, text_value);
		assert_int_equal(first, v);
		assert_int_equal(mc_registry_get(r, "bytes \xe2\x82\xac", out,
						 sizeof(out), NULL), 256);
		assert_memory_equal(out, bytes, 256);
		assert_ok(mc_registry_list(r, "", out, sizeof(out)));
		assert_string_equal(out, "a\nbytes \xe2\x82\xac\nempty\n");
	}
	assert_ok(mc_registry_cas(r, "a", "2", 1, v, 0));
	assert_ok(mc_registry_get(r, "a", out, sizeof(out), &first));
	assert_true(first > v);
	mc_registry_close(r);
	mc_registryd_close(d);
}

static void a_lost_memory_gives_out_no_old_version(void **state)
{
	struct mc_registryd *d = serve(NULL);
	struct mc_registry *r = client(d);
	uint64_t version = 0, v;

	(void)state;
	assert_ok(mc_registry_watch(r, "", &version, 0));
	assert_ok(mc_registry_put(r, "a", "1", 1, 0));
	assert_ok(mc_registry_get(r, "a", NULL, 0, &v));
	mc_registry_close(r);
	mc_registryd_close(d);
	d = serve(NULL);
	r = client(d);
	assert_ok(mc_registry_put(r, "a", "other", 5, 0));
	assert_fails(mc_registry_cas(r, "a", "2", 1, v, 0), -EAGAIN, "");
	assert_fails(mc_registry_watch(r, "", &version, 0), -ESTALE, "");
	mc_registry_close(r);
	mc_registryd_close(d);
}

static void leases_run_out_without_a_server(void **state)
{
	struct mc_registryd *d;
	struct mc_registry *r;
	uint64_t start;

	(void)state;
	unlink(file);
	d = serve(file);
	r = client(d);
	assert_ok(mc_registry_put(r, "short", "1", 1, 300));
	assert_ok(mc_registry_put(r, "renewed", "1", 1, 300));
	assert_ok(mc_registry_put(r, "renewed", "1", 1, 900));
	assert_ok(mc_registry_put(r, "kept", "1", 1, 300));
	assert_ok(mc_registry_put(r, "kept", "1", 1, 0));
	start = mc_clock_ns();
	mc_registry_close(r);
	mc_registryd_close(d);
	usleep(400000);
	d = serve(file);
	r = client(d);
	assert_fails(mc_registry_get(r, "short", NULL, 0, NULL), -ENOENT, "");
	assert_ok(mc_registry_get(r, "renewed", NULL, 0, NULL));
	while (mc_registry_get(r, "renewed", NULL, 0, NULL) != -ENOENT) {
		assert_true(mc_clock_ns() - start < 3000ull * MC_MS);
		usleep(10000);
	}
	assert_in_range((mc_clock_ns() - start) / MC_MS, 850, 1500);
	assert_ok(mc_registry_get(r, "kept", NULL, 0, NULL));
	mc_registry_close(r);
	mc_registryd_close(d);
}

/* Three records, the state file in @text. */
static char *three_records(size_t *len)
{
	struct mc_registryd *d;
	struct mc_registry *r;
	char *text;

	unlink(file);
	d = serve(file);
	r = client(d);
	assert_ok(mc_registry_put(r, "a", "1", 1, 0));
	assert_ok(mc_registry_put(r, "b", "2", 1, 0));
	assert_ok(mc_registry_put(r, "c", "3", 1, 60000));
	text = slurp(file, len);
	mc_registry_close(r);
	mc_registryd_close(d);
	return text;
}

static void a_torn_last_line_is_dropped(void **state)
{
	size_t len, last;
	char *text = three_records(&len), out[64];

	(void)state;
	for (last = len - 1; text[last - 1] != '\n'; last--)
		;
	for (size_t n = last; n < len; n += 7) {
		struct mc_registryd *d;
		struct mc_registry *r;

		spill(file, text, n);
		d = serve(file);
		r = client(d);
		assert_ok(mc_registry_list(r, "", out, sizeof(out)));
		assert_string_equal(out, "a\nb\n");
		assert_ok(mc_registry_put(r, "d", "4", 1, 0));
		mc_registry_close(r);
		mc_registryd_close(d);
		d = serve(file);
		r = client(d);
		assert_ok(mc_registry_list(r, "", out, sizeof(out)));
		assert_string_equal(out, "a\nb\nd\n");
		mc_registry_close(r);
		mc_registryd_close(d);
	}
	free(text);
}

/* Opening a file of these bytes fails so, and leaves it alone. */
static void assert_left_alone(const char *text, size_t len, int err,
			      const char *says)
{
	struct mc_registryd *d;
	size_t after_len;
	char *after;

	spill(file, text, len);
	assert_fails(mc_registryd_open(&d, NULL, file), err, says);
	after = slurp(file, &after_len);
	assert_int_equal(after_len, len);
	assert_memory_equal(after, text, len);
	free(after);
}

static void a_damaged_file_stays_as_it_is(void **state)
{
	static const char *const bad[] = {
		"{\"key\":\"a\"}",
		"{\"key\":\"\",\"value\":\"1\",\"version\":9}",
		"{\"key\":\"a\",\"value\":1,\"version\":9}",
		"{\"key\":\"a\",\"value\":\"1\",\"version\":0}",
		"{\"key\":\"a\",\"value\":\"1\"}", "[]", "", "null",
		"{\"key\":\"a\",\"hex\":\"0\",\"version\":9}",
		"{\"key\":\"a\",\"hex\":\"zz\",\"version\":9}",
		"{\"key\":\"none\",\"deleted\":true,\"version\":9}",
		"{\"key\":\"none\",\"ttl_ms\":5,\"expires_ms\":5}",
		"{\"key\":\"a\",\"value\":\"1\",\"version\":9,\"ttl_ms\":5}",
		"{\"key\":\"a\",\"value\":\"1\",\"version\":9} x",
	};
	char *text;
	size_t len;

	(void)state;
	text = three_records(&len);
	strchr(text, '\n')[3] = 0x01;
	assert_left_alone(text, len, -EBADMSG, "line 2 is damaged");
	free(text);
	for (size_t i = 0; i < mc_array_len(bad); i++) {
		char lines[256];
		int n = snprintf(lines, sizeof(lines), "{\"mooncake_registry\":"
				 "1,\"version\":1}\n%s\n", bad[i]);

		assert_left_alone(lines, n, -EBADMSG, "line 2 is damaged");
	}
}

static void other_files_stay_as_they_are(void **state)
{
	struct mc_registryd *d, *other;
	char path[160];

	(void)state;
	assert_left_alone("hello", 5, -EBADMSG, "not the state file");
	assert_left_alone("hello\n", 6, -EBADMSG, "not the state file");
	assert_left_alone("{\"a\":1}\n", 8, -EBADMSG, "not the state file");
	assert_left_alone("{\"mooncake_registry\":2,\"version\":1}\n", 36,
			  -EBADMSG, "format 2");
	assert_fails(mc_registryd_open(&d, NULL, dir), -EISDIR, dir);
	snprintf(path, sizeof(path), "%s/none/state", dir);
	assert_fails(mc_registryd_open(&d, NULL, path), -ENOENT, path);
	unlink(file);
	other = serve(file);
	assert_fails(mc_registryd_open(&d, NULL, file), -EBUSY, "in use");
	mc_registryd_close(other);
	mc_registryd_close(serve(file));
}

static void a_link_stays_a_link(void **state)
{
	struct stat st;
	char path[160];

	(void)state;
	unlink(file);
	mc_registryd_close(serve(file));
	assert_int_equal(chmod(file, 0640), 0);
	snprintf(path, sizeof(path), "%s/link", dir);
	assert_int_equal(symlink("state", path), 0);
	mc_registryd_close(serve(path));
	assert_int_equal(lstat(path, &st), 0);
	assert_true(S_ISLNK(st.st_mode));
	assert_int_equal(stat(file, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0640);
}

/* A server in a process of its own. */
static pid_t server_process(char addr[MC_ADDR_MAX])
{
	int pipes[2];
	char fd[16];
	pid_t pid;

	assert_int_equal(pipe(pipes), 0);
	snprintf(fd, sizeof(fd), "%d", pipes[1]);
	pid = fork();
	if (!pid) {
		execl("/proc/self/exe", "server", fd, file, NULL);
		_exit(127);
	}
	close(pipes[1]);
	assert_int_equal(read(pipes[0], addr, MC_ADDR_MAX), MC_ADDR_MAX);
	close(pipes[0]);
	return pid;
}

/* Such a process: tells its address and serves. */
static int server_main(int fd, const char *state)
{
	struct mc_registryd *d;
	char addr[MC_ADDR_MAX] = "";

	if (mc_registryd_open(&d, "127.0.0.1:0", state) < 0)
		return 1;
	mc_copy(addr, mc_registryd_addr(d));
	if (write(fd, addr, sizeof(addr)) < 0)
		return 1;
	for (;;)
		pause();
}

static void what_was_answered_survives_a_kill(void **state)
{
	char addr[MC_ADDR_MAX], url[160], key[16], out[16384];
	struct mc_registryd *d;
	struct mc_registry *r;
	pid_t pid;

	(void)state;
	unlink(file);
	pid = server_process(addr);
	snprintf(url, sizeof(url), "http://%s", addr);
	assert_ok(mc_registry_open(&r, url));
	for (int i = 0; i < 500; i++) {
		snprintf(key, sizeof(key), "%03d", i);
		assert_ok(mc_registry_put(r, key, "1", 1, 0));
	}
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	mc_registry_close(r);
	d = serve(file);
	r = client(d);
	assert_int_equal(mc_registry_list(r, "", out, sizeof(out)), 2000);
	mc_registry_close(r);
	mc_registryd_close(d);
}

static void the_file_is_shortened(void **state)
{
	struct mc_registryd *d;
	struct mc_registry *r;
	struct stat st;
	char value[16], out[16];

	(void)state;
	unlink(file);
	d = serve(file);
	r = client(d);
	for (int i = 0; i < 3000; i++) {
		snprintf(value, sizeof(value), "%d", i);
		assert_ok(mc_registry_put(r, "a", value, strlen(value), 0));
	}
	/* 1,000 lines out of date may stay. */
	for (int i = 0; i < 30; i++) {
		assert_int_equal(stat(file, &st), 0);
		if (st.st_size < 60000)
			break;
		usleep(100000);
	}
	assert_true(st.st_size < 60000);
	assert_ok(mc_registry_put(r, "b", "1", 1, 0));
	mc_registry_close(r);
	mc_registryd_close(d);
	d = serve(file);
	r = client(d);
	assert_ok(mc_registry_get(r, "a", out, sizeof(out), NULL));
	assert_string_equal(out, "2999");
	assert_ok(mc_registry_get(r, "b", NULL, 0, NULL));
	mc_registry_close(r);
	mc_registryd_close(d);
}

/* A full disk: what could not be written has not happened. */
static void a_file_that_cannot_grow(void **state)
{
	struct rlimit old, small;
	struct mc_registryd *d;
	struct mc_registry *r;
	char big[5000], out[64];

	(void)state;
	unlink(file);
	d = serve(file);
	r = client(d);
	assert_ok(mc_registry_put(r, "a", "1", 1, 0));
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
	small = old;
	small.rlim_cur = 4096;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
	memset(big, 'x', sizeof(big));
	assert_fails(mc_registry_put(r, "b", big, sizeof(big), 0), -EREMOTEIO,
		     "cannot write state file");
	assert_ok(mc_registry_put(r, "c", "1", 1, 0));
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
	assert_ok(mc_registry_list(r, "", out, sizeof(out)));
	assert_string_equal(out, "a\nc\n");
	mc_registry_close(r);
	mc_registryd_close(d);
	d = serve(file);
	r = client(d);
	assert_ok(mc_registry_list(r, "", out, sizeof(out)));
	assert_string_equal(out, "a\nc\n");
	mc_registry_close(r);
	mc_registryd_close(d);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(answers_are_the_public_ones),
		cmocka_unit_test(bad_requests_are_refused),
		cmocka_unit_test(conditions_are_etags_too),
		cmocka_unit_test(bodies_have_a_limit),
		cmocka_unit_test(nonsense_does_no_harm),
		cmocka_unit_test(watchers_may_leave),
		cmocka_unit_test(addresses_of_all_kinds),
		cmocka_unit_test(records_survive_a_restart),
		cmocka_unit_test(a_lost_memory_gives_out_no_old_version),
		cmocka_unit_test(leases_run_out_without_a_server),
		cmocka_unit_test(a_torn_last_line_is_dropped),
		cmocka_unit_test(a_damaged_file_stays_as_it_is),
		cmocka_unit_test(other_files_stay_as_they_are),
		cmocka_unit_test(a_link_stays_a_link),
		cmocka_unit_test(what_was_answered_survives_a_kill),
		cmocka_unit_test(the_file_is_shortened),
		cmocka_unit_test(a_file_that_cannot_grow),
	};

	if (argc == 3)
		return server_main(atoi(argv[1]), argv[2]);
	setenv("MC_LOG", "error", 0);	/* torn lines are warned of */
	alarm(120);
	return cmocka_run_group_tests(tests, setup, teardown);
}
