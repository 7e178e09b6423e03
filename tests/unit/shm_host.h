/*
 * shm_host.h - a host for the shm and local transports under test, in place
 * of the engine: it calls the other context's accept() and passes descriptors
 * on. The other context is of this process, or of a child that does what it is
 * told over a socket.
 *
 * The sources are included, under other names: this is for one program.
 */
#ifndef MC_TESTS_SHM_HOST_H
#define MC_TESTS_SHM_HOST_H

#define mc_host_epoch fake_epoch
#define mc_host_name fake_name
#define mc_host_id fake_id
#define mc_host_peer_pid fake_peer_pid
#define mc_host_handshake fake_handshake
#define mc_shm_transport tested_shm
#define mc_local_transport tested_local
#define mc_shm_host tested_shm_host
#define mc_shm_connect tested_shm_connect
#define mc_shm_abort tested_shm_abort
#define mc_shm_disconnect tested_shm_disconnect
#define mc_shm_copy tested_shm_copy
#define mc_shm_learn tested_shm_learn
#define mc_shm_forget tested_shm_forget
#define mc_shm_forget_all tested_shm_forget_all
#define mc_shm_settle tested_shm_settle
#define mc_shm_attachment_free tested_shm_attachment_free
#define mc_shm_accept tested_shm_accept
#define mc_shm_gone tested_shm_gone

#include "../../src/transport/local.c"
#include "../../src/transport/shm.c"
#include "../../src/transport/shm_connect.c"
#include "../../src/transport/shm_maps.c"
#include "../../src/transport/shm_path.c"
#include "../../src/transport/shm_serve.c"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <cmocka.h>

enum { MIB = 1 << 20, CONN = 7 };

/* ---- a host ---------------------------------------------------------- */

struct mc_host {
	const char *name;
	uint64_t epoch, id;
	void *ctx;			/* of its shm transport */
	struct mc_host *far;		/* in this process, or */
	int sock;			/* in another */
	int pid;			/* of that */
	int asked;			/* handshakes */
	void (*spoil)(struct mc_blob *reply, int *fds);
	uint32_t last_id;
};

uint64_t mc_host_epoch(const struct mc_host *h)
{
	return h->epoch;
}

const char *mc_host_name(const struct mc_host *h)
{
	return h->name;
}

uint64_t mc_host_id(const struct mc_host *h)
{
	return h->id;
}

int mc_host_peer_pid(struct mc_host *h, const struct mc_peer *peer,
		     uint64_t conn)
{
	(void)peer;
	(void)conn;
	return h->pid;
}

/* ---- the other process ----------------------------------------------- */

enum job {
	HANDSHAKE, REPLY, DONE, ALLOC, PLAIN, UNREG, FILL, CHECK, CONNECT,
	COPY, STOP_INSIDE, LEAVE, CLOSE,
};

struct job_msg {
	enum job job;
	int r;
	uint64_t addr, len, n;
	uint64_t local;
	struct mc_blob blob;
	int n_fds;
	char why[MC_WHY_MAX];
};

static void job_send(int sock, const struct job_msg *m, const int *fds)
{
	char room[CMSG_SPACE(MC_HOST_FDS * sizeof(int))] = { 0 };
	struct iovec v = { (void *)m, sizeof(*m) };
	struct msghdr h = { .msg_iov = &v, .msg_iovlen = 1 };

	if (m->n_fds) {
		struct cmsghdr *c;

		h.msg_control = room;
		h.msg_controllen = CMSG_SPACE(m->n_fds * sizeof(int));
		c = CMSG_FIRSTHDR(&h);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(m->n_fds * sizeof(int));
		memcpy(CMSG_DATA(c), fds, m->n_fds * sizeof(int));
	}
	if (sendmsg(sock, &h, MSG_NOSIGNAL) < 0)
		perror("sendmsg");
	for (int i = 0; i < m->n_fds; i++)
		close(fds[i]);
}

static bool job_recv(int sock, struct job_msg *m, int *fds)
{
	char room[CMSG_SPACE(MC_HOST_FDS * sizeof(int))];
	struct iovec v = { m, sizeof(*m) };
	struct msghdr h = { .msg_iov = &v, .msg_iovlen = 1,
			    .msg_control = room,
			    .msg_controllen = sizeof(room) };

	if (recvmsg(sock, &h, MSG_CMSG_CLOEXEC) != sizeof(*m))
		return false;
	if (m->n_fds)
		memcpy(fds, CMSG_DATA(CMSG_FIRSTHDR(&h)),
		       m->n_fds * sizeof(int));
	return true;
}

static void job_accept(struct mc_host *h, struct job_msg *m)
{
	int fds[MC_HOST_FDS];

	m->n_fds = 0;
	m->r = tested_shm.accept(h->ctx, CONN, &m->blob, &m->blob, fds,
				 &m->n_fds);
	if (m->r < 0)
		snprintf(m->why, sizeof(m->why), "%s", mc_errmsg());
	m->job = REPLY;
	job_send(h->sock, m, fds);
}

/* Until the answer comes, the other side may ask something of us. */
static struct job_msg job_call(struct mc_host *h, struct job_msg m, int *fds)
{
	job_send(h->sock, &m, NULL);
	while (job_recv(h->sock, &m, fds) && m.job == HANDSHAKE)
		job_accept(h, &m);
	return m;
}

int mc_host_handshake(struct mc_host *h, const struct mc_peer *peer,
		      const char *transport, const struct mc_blob *hello,
		      struct mc_blob *reply, int *fds, int *n_fds,
		      uint64_t deadline_ns)
{
	struct job_msg m = { .job = HANDSHAKE, .blob = *hello };

	(void)peer;
	(void)transport;
	(void)deadline_ns;
	__atomic_add_fetch(&h->asked, 1, __ATOMIC_RELAXED);
	*n_fds = 0;
	if (h->far) {
		m.r = tested_shm.accept(h->far->ctx, CONN, hello, reply, fds,
					n_fds);
	} else {
		m = job_call(h, m, fds);
		if (m.r < 0)
			mc_err(m.r, "%s", m.why);
		*reply = m.blob;
		*n_fds = m.n_fds;
	}
	if (!m.r && h->spoil)
		h->spoil(reply, fds);
	return m.r;
}

static struct mc_buffer_info reg_memory(struct mc_host *h, void *addr,
					uint64_t len, unsigned access, int fd)
{
	struct mc_buffer_info b = { .addr = (uintptr_t)addr, .len = len,
				    .id = ++h->last_id, .access = access,
				    .location = "cpu:0" };

	assert_int_equal(tested_shm.reg(h->ctx, &b, fd, 0), 0);
	return b;
}

static struct mc_buffer_info reg_alloc(struct mc_host *h, uint64_t len,
				       unsigned access)
{
	uint64_t mapped;
	void *addr;
	int fd;

	assert_int_equal(mc_memfd_alloc(len, 0, -1, &addr, &mapped, &fd), 0);
	return reg_memory(h, addr, len, access, fd);
}

static struct mc_buffer_info reg_plain(struct mc_host *h, uint64_t len,
				       unsigned access)
{
	void *addr = mmap(NULL, len, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	assert_ptr_not_equal(addr, MAP_FAILED);
	return reg_memory(h, addr, len, access, -1);
}

static struct mc_peer peer_of(const struct mc_host *h)
{
	struct mc_peer p = { .epoch = h->epoch, .host_id = h->id };

	mc_copy(p.name, h->name);
	return p;
}

static struct mc_path *join(struct mc_host *h, const struct mc_host *far)
{
	struct mc_peer peer = peer_of(far);
	struct mc_path *path = NULL;
	int r = tested_shm.connect(h->ctx, &peer, 0, UINT64_MAX, &path);

	if (r < 0)
		print_error("%s\n", mc_errmsg());
	assert_int_equal(r, 0);
	return path;
}

static int copy_one(struct mc_path *path, enum mc_op op, void *at,
		    const struct mc_buffer_info *b, uint64_t off, uint32_t len)
{
	struct mc_piece pc = { at, b->addr + off, len, b->id };

	return path->transport ? path->transport->copy(path, op, &pc, 1) :
				 tested_shm.copy(path, op, &pc, 1);
}

/* What the other process does with one message. */
static void job_do(struct mc_host *h, struct job_msg *m, struct mc_path **path)
{
	static struct mc_buffer_info b;
	static struct shm_copying c;
	struct mc_host parent = { .name = "parent", .epoch = 1, .id = h->id };

	if (m->job == ALLOC || m->job == PLAIN) {
		b = (m->job == ALLOC ? reg_alloc : reg_plain)(h, m->len, m->n);
		m->addr = b.addr;
		m->n = b.id;
	} else if (m->job == UNREG) {
		b.addr = m->addr;
		b.id = m->n;
		m->r = tested_shm.unreg(h->ctx, &b);
	} else if (m->job == FILL) {
		memset((void *)m->addr, m->n, m->len);
	} else if (m->job == CHECK) {
		for (uint64_t i = 0; i < m->len; i++)
			m->r += ((uint8_t *)m->addr)[i] != m->n;
	} else if (m->job == CONNECT) {
		*path = join(h, &parent);
	} else if (m->job == COPY) {
		struct mc_buffer_info to = { .addr = m->addr, .id = m->n };
		void *from = malloc(m->len);

		memset(from, 'c', m->len);
		m->r = copy_one(*path, MC_WRITE, from, &to, 0, m->len);
		free(from);
	} else if (m->job == STOP_INSIDE) {
		c.p = mc_container_of(*path, struct shm_path, base);
		m->r = shm_enter(&c);
	} else if (m->job == LEAVE) {
		shm_leave(&c);
	} else if (m->job == CLOSE) {
		tested_shm.close(h->ctx);
	}
	if (m->r < 0)
		snprintf(m->why, sizeof(m->why), "%s", mc_errmsg());
}

static void job_loop(int sock)
{
	struct mc_host h = { .name = "child", .epoch = 2, .id = 9,
			     .sock = sock, .pid = getppid() };
	struct mc_path *path = NULL;
	struct job_msg m;
	int fds[MC_HOST_FDS];

	tested_shm.open(&h.ctx, &h, NULL);
	while (job_recv(sock, &m, fds)) {
		bool stop = m.job == STOP_INSIDE;

		if (m.job == HANDSHAKE) {
			job_accept(&h, &m);
			continue;
		}
		m.r = m.n_fds = 0;
		job_do(&h, &m, &path);
		m.job = DONE;
		job_send(sock, &m, NULL);
		if (stop)
			raise(SIGSTOP);
	}
	_exit(0);
}

/* ---- fixtures -------------------------------------------------------- */

/* Two engines of this process, joined. */
struct two {
	struct mc_host a, b;
	struct mc_path *path;		/* from a to b */
};

static int two_setup(void **state)
{
	struct two *t = calloc(1, sizeof(*t));

	t->a = (struct mc_host){ .name = "a", .epoch = 1, .id = 9,
				 .far = &t->b, .pid = getpid() };
	t->b = (struct mc_host){ .name = "b", .epoch = 2, .id = 9,
				 .far = &t->a, .pid = getpid() };
	assert_int_equal(tested_shm.open(&t->a.ctx, &t->a, NULL), 0);
	assert_int_equal(tested_shm.open(&t->b.ctx, &t->b, NULL), 0);
	t->path = join(&t->a, &t->b);
	*state = t;
	return 0;
}

static int two_teardown(void **state)
{
	struct two *t = *state;

	if (t->path)
		tested_shm.disconnect(t->path);
	if (t->b.ctx)
		tested_shm.close(t->b.ctx);
	tested_shm.close(t->a.ctx);
	free(t);
	return 0;
}

/* This process and a child. */
struct pair {
	struct mc_host h, child;
};

static int pair_setup(void **state)
{
	struct pair *t = calloc(1, sizeof(*t));
	int sv[2];
	int pid;

	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0,
				    sv), 0);
	pid = fork();
	if (!pid) {
		close(sv[0]);
		job_loop(sv[1]);
	}
	close(sv[1]);
	t->h = (struct mc_host){ .name = "parent", .epoch = 1, .id = 9,
				 .sock = sv[0], .pid = pid };
	t->child = (struct mc_host){ .name = "child", .epoch = 2, .id = 9 };
	assert_int_equal(tested_shm.open(&t->h.ctx, &t->h, NULL), 0);
	*state = t;
	return 0;
}

static int pair_teardown(void **state)
{
	struct pair *t = *state;

	kill(t->h.pid, SIGKILL);
	waitpid(t->h.pid, NULL, 0);
	close(t->h.sock);
	tested_shm.close(t->h.ctx);
	free(t);
	return 0;
}

static struct job_msg ask(struct pair *t, enum job job, uint64_t addr,
			  uint64_t len, uint64_t n)
{
	struct job_msg m = { .job = job, .addr = addr, .len = len, .n = n };
	int fds[MC_HOST_FDS];

	return job_call(&t->h, m, fds);
}

static struct mc_buffer_info ask_buffer(struct pair *t, enum job job,
					uint64_t len, unsigned access)
{
	struct job_msg m = ask(t, job, 0, len, access);

	return (struct mc_buffer_info){ .addr = m.addr, .len = len,
					.id = m.n, .access = access };
}

#endif
