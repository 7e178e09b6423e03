/* peer.c - two engines for a test, and the setups; see peer.h. */
#include "peer.h"

#include "../../src/base/net.h"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

const struct setup setups[] = {
	{ .name = "local", .transports = "local", .same = true },
	{ .name = "local-foreign", .transports = "local", .same = true,
	  .foreign = true },
	{ .name = "shm", .transports = "shm", .child = true },
	{ .name = "shm-foreign", .transports = "shm", .child = true,
	  .foreign = true },
	{ .name = "shm-here", .transports = "shm" },
	{ .name = "tcp", .transports = "tcp" },
	{ .name = "tcp-child", .transports = "tcp", .child = true,
	  .foreign = true },
	{ .name = "tcp-key", .transports = "tcp", .key = true },
	{ .name = "tcp-tls", .transports = "tcp", .tls = true },
	{ .name = "tcp-4", .transports = "tcp", .streams = 4 },
	{ .name = "tcp-v6", .transports = "tcp", .listen = "[::1]:0" },
	{ .name = "v1", .transports = "v1", .profile = "v1" },
	{ .name = "v1-child", .transports = "v1", .profile = "v1",
	  .child = true, .foreign = true },
	{ .name = "rdma", .transports = "rdma" },
	{ .name = "rdma-child", .transports = "rdma", .child = true,
	  .foreign = true },
	{ .name = "rdma-2", .transports = "rdma", .streams = 2 },
};
const int n_setups = sizeof(setups) / sizeof(setups[0]);

enum far_op {
	FAR_OPEN, FAR_CLOSE, FAR_ALLOC, FAR_MALLOC, FAR_REG, FAR_DROP,
	FAR_READ, FAR_WRITE, FAR_FILL, FAR_HASH, FAR_NOTIFIED, FAR_STATS,
	FAR_CHUNK = 64 << 10, PEER_FILES = 8,
};

struct far_cmd {
	enum far_op op;
	uint64_t a, b, c;
	uint32_t n;			/* bytes that follow */
};

struct far_reply {
	int64_t r;
	uint32_t n;
};

static char peer_dir[64];
static int peer_helper = -1;
static void *peer_owned[256];		/* foreign far memory of this process */
static int peer_n_owned;
static pid_t peer_helper_pid;

double seconds(void)
{
	return mc_now_ns() / 1e9;
}

void sleep_ms(int ms)
{
	usleep(ms * 1000);
}

uint64_t rnd(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15u;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return z ^ z >> 31;
}

int64_t ok_at(int64_t r, const char *file, int line)
{
	if (r >= 0)
		return r;
	print_error("%s\n", mc_errmsg());
	_assert_int_equal(0, r, file, line);
	return r;
}

void refused_at(int64_t r, int err, const char *word, const char *file,
		int line)
{
	_assert_int_equal(r, err, file, line);
	if (strstr(mc_errmsg(), word))
		return;
	print_error("'%s' does not say '%s'\n", mc_errmsg(), word);
	_fail(file, line);
}

/* ---- setups ----------------------------------------------------- */

const char *peer_file(const char *name)
{
	static char paths[PEER_FILES][128];
	static int n;
	char *at;

	for (int i = 0; i < n; i++)
		if (!strcmp(strrchr(paths[i], '/') + 1, name))
			return paths[i];
	if (n == PEER_FILES)
		fail_msg("more than %d files", PEER_FILES);
	at = paths[n++];
	snprintf(at, sizeof(paths[0]), "%s/%s", peer_dir, name);
	return at;
}

struct mc_options setup_options(const struct setup *s)
{
	struct mc_options o = {
		.transports = s->transports, .streams = s->streams,
		.listen = s->listen, .profile = s->profile,
	};

	if (s->key)
		o.key_file = peer_file("key");
	if (s->tls) {
		o.tls_cert = peer_file("cert.pem");
		o.tls_key = peer_file("key.pem");
	}
	return o;
}

const struct setup *setup_named(const char *name)
{
	for (int i = 0; i < n_setups; i++)
		if (!strcmp(setups[i].name, name))
			return &setups[i];
	fail_msg("no setup '%s'", name);
	return NULL;
}

static void peer_files(void)
{
	char cmd[512];
	FILE *f;

	f = fopen(peer_file("key"), "w");
	fputs("a key that only this test knows\n", f);
	fclose(f);
	chmod(peer_file("key"), 0600);
	snprintf(cmd, sizeof(cmd), "openssl req -x509 -newkey ec -pkeyopt "
		 "ec_paramgen_curve:prime256v1 -nodes -days 2 -subj "
		 "/CN=mooncake -keyout %s -out %s 2>/dev/null",
		 peer_file("key.pem"), peer_file("cert.pem"));
	if (system(cmd))
		exit(1);
}

static void peer_remove(void)
{
	DIR *d = opendir(peer_dir);
	struct dirent *e;

	while (d && (e = readdir(d)))
		unlinkat(dirfd(d), e->d_name, 0);
	if (d)
		closedir(d);
	rmdir(peer_dir);
}

/* ---- what the far side does, here or in a child ----------------- */

/* Not instrumented: that one engine's memory may be looked at when another
 * one's says it is done, a sanitizer of threads cannot know, for the word went
 * over a socket. */
__attribute__((no_sanitize("thread")))
static void far_bytes(volatile uint8_t *to, const volatile uint8_t *from,
		      uint64_t len)
{
	uint64_t i = 0;

	if (!((uintptr_t)to % 8) && !((uintptr_t)from % 8))
		for (; i + 8 <= len; i += 8)
			*(volatile uint64_t *)(to + i) =
				*(const volatile uint64_t *)(from + i);
	for (; i < len; i++)
		to[i] = from[i];
}

static int64_t far_do_fill(const struct far_cmd *c)
{
	uint8_t *tmp = malloc(c->b + 1);

	mc_fill(tmp, c->b, c->c);
	far_bytes((void *)c->a, tmp, c->b);
	free(tmp);
	return 0;
}

static uint64_t far_do_hash(uint64_t addr, uint64_t len)
{
	uint8_t *tmp = malloc(len + 1);
	uint64_t h;

	far_bytes(tmp, (void *)addr, len);
	h = mc_hash(tmp, len, 0);
	free(tmp);
	return h;
}

static int64_t far_do_notified(struct mc_engine *e, const struct far_cmd *c,
			       char *out, uint32_t *n)
{
	uint64_t until = mc_now_ns() + c->c * 1000000u, h;
	struct pollfd f = { mc_engine_fd(e), POLLIN, 0 };
	struct mc_notify note;

	while (!mc_notify_next(e, &note)) {
		if (mc_now_ns() > until)
			return 0;
		poll(&f, 1, 10);
	}
	h = c->b ? far_do_hash(c->a, c->b) : 0;
	memcpy(out, &h, 8);
	snprintf(out + 8, 256, "%s", note.name);
	snprintf(out + 264, 256, "%.*s", (int)note.len,
		 (const char *)note.msg);
	mc_notify_free(&note);
	*n = 520;
	return 1;
}

static int64_t far_do_alloc(struct mc_engine *e, const struct setup *s,
			    const struct far_cmd *c)
{
	void *addr;
	int r;

	if (c->op == FAR_MALLOC || s->foreign) {
		addr = aligned_alloc(4096, (c->a + 4095) & ~4095ul);
		memset(addr, 0, c->a);
		if (peer_n_owned < 256)
			peer_owned[peer_n_owned++] = addr;
		r = c->op == FAR_MALLOC ? 0 :
		    mc_buffer_reg(e, addr, c->a, NULL, c->b);
	} else {
		r = mc_buffer_alloc(e, c->a, c->b, 0, -1, &addr);
	}
	return r < 0 ? r : (int64_t)(uintptr_t)addr;
}

static int far_do_drop(struct mc_engine *e, uint64_t addr)
{
	int r = mc_buffer_unreg(e, (void *)addr);

	return r == -EINVAL ? mc_buffer_free(e, (void *)addr) : r;
}

/* FAR_OPEN and FAR_CLOSE aside. */
static int64_t far_do(struct mc_engine *e, const struct setup *s,
		      const struct far_cmd *c, const void *in, void *out,
		      uint32_t *n)
{
	switch (c->op) {
	case FAR_ALLOC:
	case FAR_MALLOC:
		return far_do_alloc(e, s, c);
	case FAR_REG:
		return mc_buffer_reg(e, (void *)c->a, c->b, NULL, c->c);
	case FAR_DROP:
		return far_do_drop(e, c->a);
	case FAR_READ:
		*n = c->b;
		far_bytes(out, (void *)c->a, c->b);
		return 0;
	case FAR_WRITE:
		far_bytes((void *)c->a, in, c->n);
		return 0;
	case FAR_FILL:
		return far_do_fill(c);
	case FAR_HASH:
		*n = 8;
		*(uint64_t *)out = far_do_hash(c->a, c->b);
		return 0;
	case FAR_NOTIFIED:
		return far_do_notified(e, c, out, n);
	case FAR_STATS:
		*n = sizeof(struct mc_stats);
		return mc_stats(e, out);
	default:
		return -EINVAL;
	}
}

/* ---- the child -------------------------------------------------- */

static bool full_read(int fd, void *buf, size_t len)
{
	for (ssize_t r; len; len -= r, buf = (char *)buf + r) {
		r = read(fd, buf, len);
		if (r <= 0)
			return false;
	}
	return true;
}

static bool full_write(int fd, const void *buf, size_t len)
{
	for (ssize_t r; len; len -= r, buf = (const char *)buf + r) {
		r = send(fd, buf, len, MSG_NOSIGNAL);
		if (r <= 0)
			return false;
	}
	return true;
}

static int64_t child_open(struct mc_engine **e, const struct setup *s,
			  const char *listen, char *out, uint32_t *n)
{
	struct mc_options o = setup_options(s);
	int r;

	if (listen[0])
		o.listen = listen;
	r = mc_open(e, &o);
	if (r < 0)
		return r;
	*n = MC_NAME_MAX + 8;
	snprintf(out, MC_NAME_MAX, "%s", mc_engine_name(*e));
	*(uint64_t *)(out + MC_NAME_MAX) = mc_engine_epoch(*e);
	return 0;
}

static void child_main(int fd)
{
	static _Alignas(8) char in[FAR_CHUNK + 1], out[FAR_CHUNK];
	const struct setup *s = &setups[0];
	struct mc_engine *e = NULL;
	struct far_cmd c;

	while (full_read(fd, &c, sizeof(c)) && full_read(fd, in, c.n)) {
		struct far_reply a = { 0 };

		in[c.n] = 0;
		if (c.op == FAR_OPEN) {
			s = &setups[c.a];
			a.r = child_open(&e, s, in, out, &a.n);
		} else if (c.op == FAR_CLOSE) {
			mc_close(e);
			e = NULL;
		} else {
			a.r = far_do(e, s, &c, in, out, &a.n);
		}
		if (a.r < 0 && a.r > -4096)
			a.n = snprintf(out, 256, "%s", mc_errmsg());
		if (!full_write(fd, &a, sizeof(a)) ||
		    !full_write(fd, out, a.n))
			break;
	}
	mc_close(e);
	exit(0);
}

/* One thread for ever: its children may start as many as they like. It ends
 * with the program, however that ends, and takes the files away. */
static void helper_main(int fd)
{
	char byte;

	signal(SIGCHLD, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	signal(SIGINT, SIG_IGN);
	signal(SIGTERM, SIG_IGN);
	while (read(fd, &byte, 1) == 1) {
		int sv[2];
		pid_t pid;

		if (socketpair(AF_UNIX, SOCK_STREAM, 0, sv) < 0)
			exit(1);
		pid = fork();
		if (!pid) {
			close(sv[0]);
			close(fd);
			signal(SIGCHLD, SIG_DFL);
			signal(SIGHUP, SIG_DFL);
			signal(SIGINT, SIG_DFL);
			signal(SIGTERM, SIG_DFL);
			child_main(sv[1]);
		}
		mc_net_sendmsg_fds(fd, &pid, sizeof(pid), &sv[0], 1);
		close(sv[0]);
		close(sv[1]);
	}
	peer_remove();
	exit(0);
}

void peer_start(void)
{
	int sv[2];

	/* What a developer's environment says must not change the tests. */
	unsetenv("MOONCAKE_KEY_FILE");
	unsetenv("MOONCAKE_PROFILE");
	strcpy(peer_dir, "/tmp/mooncake-test-XXXXXX");
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) < 0 ||
	    !mkdtemp(peer_dir))
		exit(1);
	peer_helper_pid = fork();
	if (!peer_helper_pid) {
		close(sv[0]);
		helper_main(sv[1]);
	}
	close(sv[1]);
	peer_helper = sv[0];
	peer_files();
}

int peer_stop(int status)
{
	close(peer_helper);
	waitpid(peer_helper_pid, NULL, 0);
	return status;
}

/* ---- far_*() ---------------------------------------------------- */

static int64_t far_ask(struct far *f, struct far_cmd c, const void *in,
		       void *out, uint32_t max)
{
	static _Alignas(8) char buf[FAR_CHUNK];
	struct far_reply a = { 0 };

	if (f->e) {
		a.r = far_do(f->e, f->s, &c, in, buf, &a.n);
	} else {
		assert_true(full_write(f->fd, &c, sizeof(c)));
		assert_true(full_write(f->fd, in, c.n));
		assert_true(full_read(f->fd, &a, sizeof(a)));
		assert_true(full_read(f->fd, buf, a.n));
		if (a.r < 0 && a.r > -4096)
			print_message("far: %.*s\n", (int)a.n, buf);
	}
	if (out && a.n)
		memcpy(out, buf, a.n < max ? a.n : max);
	return a.r;
}

static void far_fork(struct far *f)
{
	struct pollfd p = { peer_helper, POLLIN, 0 };
	int n = 1;

	assert_int_equal(write(peer_helper, "f", 1), 1);
	assert_int_equal(poll(&p, 1, 10000), 1);
	assert_int_equal(mc_net_recvmsg_fds(peer_helper, &f->pid,
					    sizeof(f->pid), &f->fd, &n),
			 sizeof(f->pid));
	assert_int_equal(n, 1);
}

void far_open(struct far *f, const struct setup *s, const char *listen)
{
	struct mc_options o = setup_options(s);
	char out[MC_NAME_MAX + 8];

	f->s = s;
	f->borrowed = false;
	if (!s->child) {
		f->fd = -1;
		f->pid = 0;
		if (listen)
			o.listen = listen;
		ok(mc_open(&f->e, &o));
		snprintf(f->name, sizeof(f->name), "%s",
			 mc_engine_name(f->e));
		f->epoch = mc_engine_epoch(f->e);
		return;
	}
	f->e = NULL;
	if (f->fd <= 0)
		far_fork(f);
	ok(far_ask(f, (struct far_cmd){ .op = FAR_OPEN, .a = s - setups,
		   .n = listen ? strlen(listen) : 0 }, listen, out,
		   sizeof(out)));
	memcpy(f->name, out, MC_NAME_MAX);
	memcpy(&f->epoch, out + MC_NAME_MAX, 8);
}

void far_close(struct far *f)
{
	if (!f->s->child) {
		if (!f->borrowed)
			mc_close(f->e);
		f->e = NULL;
	} else if (f->fd > 0) {
		far_ask(f, (struct far_cmd){ .op = FAR_CLOSE }, NULL, NULL, 0);
	}
}

void far_end(struct far *f)
{
	if (!f->s->child) {
		far_close(f);
	} else if (f->fd > 0) {
		close(f->fd);
		f->fd = -1;
	}
}

uint64_t far_alloc(struct far *f, uint64_t len, unsigned access)
{
	return ok(far_ask(f, (struct far_cmd){ FAR_ALLOC, len, access, 0, 0 },
			  NULL, NULL, 0));
}

uint64_t far_malloc(struct far *f, uint64_t len)
{
	return ok(far_ask(f, (struct far_cmd){ FAR_MALLOC, len, 0, 0, 0 },
			  NULL, NULL, 0));
}

int far_reg(struct far *f, uint64_t addr, uint64_t len, unsigned access)
{
	return far_ask(f, (struct far_cmd){ FAR_REG, addr, len, access, 0 },
		       NULL, NULL, 0);
}

int far_drop(struct far *f, uint64_t addr)
{
	return far_ask(f, (struct far_cmd){ FAR_DROP, addr, 0, 0, 0 }, NULL,
		       NULL, 0);
}

void far_read(struct far *f, uint64_t addr, void *out, uint64_t len)
{
	for (uint64_t n; len; len -= n, addr += n, out = (char *)out + n) {
		n = len < FAR_CHUNK ? len : FAR_CHUNK;
		far_ask(f, (struct far_cmd){ FAR_READ, addr, n, 0, 0 }, NULL,
			out, n);
	}
}

void far_write(struct far *f, uint64_t addr, const void *in, uint64_t len)
{
	for (uint64_t n; len; len -= n, addr += n,
	     in = (const char *)in + n) {
		n = len < FAR_CHUNK ? len : FAR_CHUNK;
		far_ask(f, (struct far_cmd){ FAR_WRITE, addr, 0, 0, n }, in,
			NULL, 0);
	}
}

void far_fill(struct far *f, uint64_t addr, uint64_t len, uint64_t seed)
{
	far_ask(f, (struct far_cmd){ FAR_FILL, addr, len, seed, 0 }, NULL,
		NULL, 0);
}

uint64_t far_hash(struct far *f, uint64_t addr, uint64_t len)
{
	uint64_t h = 0;

	far_ask(f, (struct far_cmd){ FAR_HASH, addr, len, 0, 0 }, NULL, &h,
		sizeof(h));
	return h;
}

int far_notified(struct far *f, int timeout_ms, uint64_t addr, uint64_t len,
		 char *name, char *msg, uint64_t *hash)
{
	char out[520];
	int r = far_ask(f, (struct far_cmd){ FAR_NOTIFIED, addr, len,
					     timeout_ms, 0 }, NULL, out,
			sizeof(out));

	if (r != 1)
		return r;
	memcpy(hash, out, 8);
	memcpy(name, out + 8, 256);
	memcpy(msg, out + 264, 256);
	return 1;
}

struct mc_stats far_stats(struct far *f)
{
	struct mc_stats st = { 0 };

	far_ask(f, (struct far_cmd){ .op = FAR_STATS }, NULL, &st,
		sizeof(st));
	return st;
}

/* ---- pairs ------------------------------------------------------ */

void *near_alloc(struct pair *p, uint64_t len, unsigned access)
{
	void *addr = NULL;

	if (!p->s->foreign) {
		ok(mc_buffer_alloc(p->e, len, access, 0, -1, &addr));
		return addr;
	}
	addr = aligned_alloc(4096, (len + 4095) & ~4095ul);
	memset(addr, 0, len);
	ok(mc_buffer_reg(p->e, addr, len, NULL, access));
	return addr;
}

void near_free(struct pair *p, void *addr)
{
	if (!p->s->foreign) {
		ok(mc_buffer_free(p->e, addr));
		return;
	}
	ok(mc_buffer_unreg(p->e, addr));
	free(addr);
}

void pair_open(struct pair *p, const struct setup *s, uint64_t len)
{
	struct mc_options o = setup_options(s);

	memset(p, 0, sizeof(*p));
	p->s = s;
	p->len = len;
	/* Children first: they have no copy of our descriptors. */
	if (!s->same)
		far_open(&p->far, s, NULL);
	ok(mc_open(&p->e, &o));
	if (s->same) {
		p->far.s = s;
		p->far.e = p->e;
		p->far.borrowed = true;
		snprintf(p->far.name, sizeof(p->far.name), "%s",
			 mc_engine_name(p->e));
		p->far.epoch = mc_engine_epoch(p->e);
	}
	p->near = near_alloc(p, len, MC_LOCAL);
	p->remote = far_alloc(&p->far, len, MC_REMOTE_RW);
	p->seg = ok(mc_segment_open(p->e, p->far.name, 5000));
}

void pair_close(struct pair *p)
{
	bool foreign = p->s->foreign;

	if (!p->far.borrowed)
		far_close(&p->far);
	mc_close(p->e);
	if (p->s->child)
		far_end(&p->far);
	if (foreign)
		free(p->near);
	while (peer_n_owned)
		free(peer_owned[--peer_n_owned]);
}

struct mc_req req_of(const struct pair *p, enum mc_op op, uint64_t near_off,
		     uint64_t far_off, uint64_t len)
{
	return (struct mc_req){
		.op = op, .segment = p->seg, .buf = p->near + near_off,
		.remote = p->remote + far_off, .len = len,
	};
}

/* ---- the suite -------------------------------------------------- */

struct bound {
	const struct unit_case *c;
	const struct setup *s;
	char name[120];
};

static void run_bound(void **state)
{
	struct bound *b = *state;
	struct pair p;

	pair_open(&p, b->s, b->c->len ? b->c->len : 1 << 20);
	b->c->fn(&p);
	pair_close(&p);
}

/* Is there what the setup needs? Otherwise the message says why not. */
static bool setup_works(const struct setup *s)
{
	struct mc_rdma_info info;

	return strcmp(s->transports, "rdma") || mc_rdma_list(&info, 1) > 0;
}

static bool setup_chosen(const struct setup *s)
{
	const char *only = getenv("MC_SETUP");

	return !only || !strcmp(only, s->name);
}

bool setup_wanted(const struct setup *s)
{
	return setup_chosen(s) && setup_works(s);
}

static void run_absent(void **state)
{
	(void)state;
	print_message("skipped: rdma: %s\n", mc_errmsg());
	skip();
}

int run_cases(const char *name, const struct unit_case *cases, int n,
	      const struct CMUnitTest *more, int n_more)
{
	int total = n * n_setups, r, k = 0;
	bool absent = false;
	struct bound *b = calloc(total + 1, sizeof(*b));
	struct CMUnitTest *t = calloc(total + n_more + 2, sizeof(*t));

	for (int s = 0; s < n_setups; s++) {
		if (!setup_chosen(&setups[s]))
			continue;
		if (!setup_works(&setups[s])) {
			absent = true;
			continue;
		}
		for (int i = 0; i < n; i++) {
			b[k].c = &cases[i];
			b[k].s = &setups[s];
			snprintf(b[k].name, sizeof(b[k].name), "%s [%s]",
				 cases[i].name, setups[s].name);
			t[k] = (struct CMUnitTest){ b[k].name, run_bound, NULL,
						    NULL, &b[k] };
			k++;
		}
	}
	if (absent)
		t[k++] = (struct CMUnitTest){ "rdma", run_absent, NULL, NULL,
					      NULL };
	for (int i = 0; i < n_more; i++)
		t[k++] = more[i];
	r = _cmocka_run_group_tests(name, t, k, NULL, NULL);
	free(t);
	free(b);
	return r;
}
