/* registries.c - real registry servers for tests; see registries.h. */
#include "registries.h"

#include "../../src/base/clock.h"
#include "../../src/base/net.h"
#include "../../src/base/util.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
	READY_MS = 60000,		/* a busy machine, instrumented code */
	/* Below those that the kernel gives to whoever connects. */
	PORT_FIRST = 20000, PORT_LAST = 32000,
};

/* etcd counts leases in seconds, and looks for those that are over every half
 * second. redis keeps no history, and is asked again and again unless it sends
 * events. */
const struct kind kinds[] = {
	{ .name = "http", .scheme = "http", .lease_ms = 400, .late_ms = 300,
	  .wake_ms = 100, .value_max = MC_VALUE_MAX },
	{ .name = "etcd", .scheme = "etcd", .lease_ms = 2000, .late_ms = 3000,
	  .wake_ms = 500, .value_max = 1 << 20 },
	{ .name = "redis", .scheme = "redis", .lease_ms = 400, .late_ms = 500,
	  .wake_ms = 1000, .value_max = MC_VALUE_MAX },
	{ .name = "redis-events", .scheme = "redis", .lease_ms = 400,
	  .late_ms = 1000, .wake_ms = 500, .value_max = MC_VALUE_MAX / 8,
	  .more = { "--notify-keyspace-events", "KA" } },
};
const int n_kinds = mc_array_len(kinds);
const struct kind *kind;

/* ---- asserting --------------------------------------------------------- */

void assert_says(const char *text)
{
	if (!strstr(mc_errmsg(), text))
		fail_msg("message '%s' lacks '%s'", mc_errmsg(), text);
}

void assert_fails(int64_t r, int err, const char *text)
{
	char copy[200], *part, *rest = copy;

	if (r != err)
		fail_msg("%lld is not %d: %s", (long long)r, err, mc_errmsg());
	mc_copy(copy, text);
	while ((part = strsep(&rest, "|")))
		assert_says(part);
}

void assert_ok(int64_t r)
{
	if (r < 0)
		fail_msg("%lld: %s", (long long)r, mc_errmsg());
}

void shell(const char *fmt, ...)
{
	char cmd[1024];
	va_list ap;
	int r;

	va_start(ap, fmt);
	vsnprintf(cmd, sizeof(cmd), fmt, ap);
	va_end(ap);
	r = system(cmd);
	if (r)
		fail_msg("%s: status %d", cmd, r);
}

/* ---- servers ----------------------------------------------------------- */

const struct kind *kind_named(const char *name)
{
	for (int i = 0; i < n_kinds; i++)
		if (!strcmp(kinds[i].name, name))
			return &kinds[i];
	fail_msg("no kind of registry '%s'", name);
	return NULL;
}

void registries_main(int argc, char **argv)
{
	struct mc_registryd *d;

	if (argc != 4 || strcmp(argv[1], "serve"))
		return;
	if (mc_registryd_open(&d, argv[2], argv[3]) < 0) {
		fprintf(stderr, "%s\n", mc_errmsg());
		exit(1);
	}
	for (;;)
		pause();
}

static int free_port(void)
{
	static unsigned int seed;
	char addr[MC_ADDR_MAX];
	int fd;

	if (!seed)
		seed = getpid() ^ (unsigned int)mc_clock_ns();
	for (int i = 0; i < 1000; i++) {
		int port = PORT_FIRST + rand_r(&seed) %
			   (PORT_LAST - PORT_FIRST);

		snprintf(addr, sizeof(addr), "127.0.0.1:%d", port);
		if (mc_net_listen(addr, &fd, addr) < 0)
			continue;
		close(fd);
		return port;
	}
	fail_msg("no free port");
	return 0;
}

void server_init(struct server *s, const struct kind *k)
{
	memset(s, 0, sizeof(*s));
	s->kind = k;
	s->port = free_port();
	s->peer_port = free_port();
	strcpy(s->dir, "/tmp/registry_test.XXXXXX");
	if (!mkdtemp(s->dir))
		fail_msg("%s: %s", s->dir, strerror(errno));
	snprintf(s->addr, sizeof(s->addr), "127.0.0.1:%d", s->port);
	snprintf(s->url, sizeof(s->url), "%s://%s", k->scheme, s->addr);
}

static void exec_http(struct server *s)
{
	char state[80];

	snprintf(state, sizeof(state), "%s/state", s->dir);
	execl("/proc/self/exe", "server", "serve", s->addr, state, NULL);
}

/* Later arguments of etcd and redis take the place of earlier ones. */
static void exec_more(struct server *s, const char **argv)
{
	int n = 0;

	while (argv[n])
		n++;
	for (int i = 0; s->kind->more[i]; i++)
		argv[n++] = s->kind->more[i];
	for (int i = 0; s->more[i]; i++)
		argv[n++] = s->more[i];
	argv[n] = NULL;
	execvp(argv[0], (char **)argv);
}

static void exec_etcd(struct server *s)
{
	char data[80], url[MC_ADDR_MAX + 16], peer[64], cluster[80];
	const char *argv[32 + SERVER_ARGS] = {
		"etcd", "--name", "m", "--data-dir", data,
		"--listen-client-urls", url, "--advertise-client-urls", url,
		"--listen-peer-urls", peer,
		"--initial-advertise-peer-urls", peer,
		"--initial-cluster", cluster, "--logger", "zap",
		"--log-level", "error", "--heartbeat-interval", "50",
		"--election-timeout", "500",
	};

	snprintf(data, sizeof(data), "%s/data", s->dir);
	snprintf(url, sizeof(url), "http://%s", s->addr);
	snprintf(peer, sizeof(peer), "http://127.0.0.1:%d", s->peer_port);
	snprintf(cluster, sizeof(cluster), "m=%s", peer);
	exec_more(s, argv);
}

static void exec_redis(struct server *s)
{
	char port[16];
	const char *argv[32 + SERVER_ARGS] = {
		"redis-server", "--port", port, "--bind", "127.0.0.1",
		"--dir", s->dir, "--save", "",
	};

	snprintf(port, sizeof(port), "%d", s->port);
	exec_more(s, argv);
}

/* It goes with us, and its output to a file of its own. */
static void exec_server(struct server *s)
{
	char log[80];
	int fd;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	snprintf(log, sizeof(log), "%s/log", s->dir);
	fd = open(log, O_WRONLY | O_CREAT | O_APPEND, 0600);
	dup2(fd, STDOUT_FILENO);
	dup2(fd, STDERR_FILENO);
	if (!strcmp(s->kind->scheme, "http"))
		exec_http(s);
	else if (!strcmp(s->kind->scheme, "etcd"))
		exec_etcd(s);
	else
		exec_redis(s);
	dprintf(fd, "cannot be run: %s (scripts/deps.sh test installs it)\n",
		strerror(errno));
	_exit(127);
}

void server_launch(struct server *s)
{
	s->pid = fork();
	if (!s->pid)
		exec_server(s);
	if (s->pid < 0)
		fail_msg("fork: %s", strerror(errno));
}

/* Does it answer, be it that it has no such key, or that we may not see it? */
static bool server_answers(struct server *s)
{
	struct mc_registry *r = registry_open(s->url);
	int64_t ret = mc_registry_get(r, "ready?", NULL, 0, NULL);

	mc_registry_close(r);
	return ret >= 0 || ret == -ENOENT || ret == -EACCES;
}

void server_start(struct server *s)
{
	uint64_t end = mc_clock_ns() + READY_MS * (uint64_t)MC_MS;
	int status;

	server_launch(s);
	while (!server_answers(s)) {
		if (waitpid(s->pid, &status, WNOHANG) == s->pid) {
			s->pid = 0;
			shell("tail -5 %s/log >&2", s->dir);
			fail_msg("%s: ended at once", s->url);
		}
		if (mc_clock_ns() > end)
			fail_msg("%s: %s", s->url, mc_errmsg());
		usleep(20000);
	}
}

void server_kill(struct server *s)
{
	if (s->pid > 0) {
		kill(s->pid, SIGKILL);
		waitpid(s->pid, NULL, 0);
	}
	s->pid = 0;
}

void server_wipe(struct server *s)
{
	shell("rm -rf %s/*", s->dir);
}

void server_end(struct server *s)
{
	server_kill(s);
	if (s->dir[0])
		shell("rm -rf %s", s->dir);
	s->dir[0] = 0;
}

void server_open(struct server *s, const struct kind *k)
{
	server_init(s, k);
	server_start(s);
}

void server_certify(const struct server *s, const char *name)
{
	shell("openssl req -x509 -newkey ec -pkeyopt "
	      "ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=test "
	      "-addext subjectAltName=IP:127.0.0.1 -keyout %s/%s.key "
	      "-out %s/%s.crt 2>/dev/null", s->dir, name, s->dir, name);
}

/* ---- clients ----------------------------------------------------------- */

struct mc_registry *registry_open(const char *url)
{
	struct mc_registry *r = NULL;

	assert_ok(mc_registry_open(&r, url));
	return r;
}

int64_t registry_get(struct mc_registry *r, const char *key, char *out,
		     size_t size)
{
	return mc_registry_get(r, key, out, size, NULL);
}

/* ---- running ----------------------------------------------------------- */

int run_for_kinds(int n_first, const struct CMUnitTest *tests, int n,
		  int (*setup)(void **), int (*teardown)(void **))
{
	struct CMUnitTest *named = calloc(n, sizeof(*named));
	int failed = 0;

	for (int i = 0; i < n_first; i++) {
		kind = &kinds[i];
		for (int k = 0; k < n; k++) {
			named[k] = tests[k];
			if (asprintf((char **)&named[k].name, "%s: %s",
				     kind->name, tests[k].name) < 0)
				abort();
		}
		failed += _cmocka_run_group_tests(kind->name, named, n, setup,
						  teardown);
		for (int k = 0; k < n; k++)
			free((char *)named[k].name);
	}
	free(named);
	return failed;
}
