/*
 * limits.c - what the machine can do without us; see mooncake.h.
 *
 * The far end is a child that makes system calls only: it is forked from a
 * process that may have threads, holding who knows which locks. Runs over the
 * socket go in rounds of a known number of batches, so that nothing but the
 * blocks and the byte back travels.
 */
#include <mooncake.h>
#include "clock.h"
#include "err.h"
#include "util.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
	LIMITS_IOV = 1024,		/* the kernel's IOV_MAX */
	LIMITS_BATCH = 65536,
	LIMITS_STEP = 7919,
	LIMITS_ROUND_MS = 20,
};

struct limits_round {
	struct mc_limit_run run;
	uint64_t first, count;		/* batches */
	bool polling;
};

struct mc_limit {
	enum mc_limit_kind kind;
	uint8_t *near, *far;		/* far: an address in the child, or ours
					 * with MC_LIMIT_MEMCPY */
	uint64_t span;
	int ctl, data;			/* sockets to the child */
	pid_t child;
	struct iovec *iov, *iov2;	/* LIMITS_BATCH each */
};

static uint64_t limits_offset(const struct mc_limit *l,
			      const struct mc_limit_run *run, uint64_t i)
{
	uint64_t blocks = l->span / run->block;

	return i % run->cycle * LIMITS_STEP % blocks * run->block;
}

/* The places of batch @k at @base. */
static void limits_fill(const struct mc_limit *l, struct iovec *iov,
			const struct mc_limit_run *run, uint64_t k,
			uint8_t *base)
{
	for (uint32_t i = 0; i < run->batch; i++) {
		iov[i].iov_base = base +
			limits_offset(l, run, k * run->batch + i);
		iov[i].iov_len = run->block;
	}
}

/* Drop @bytes from the front; returns how many entries are used up. */
static uint32_t limits_advance(struct iovec *iov, uint64_t bytes)
{
	uint32_t used = 0;

	while (bytes && bytes >= iov[used].iov_len)
		bytes -= iov[used++].iov_len;
	if (bytes) {
		iov[used].iov_base = (char *)iov[used].iov_base + bytes;
		iov[used].iov_len -= bytes;
	}
	return used;
}

static int limits_move(int fd, struct iovec *iov, uint32_t n, bool out,
		       bool polling)
{
	int flags = MSG_NOSIGNAL | (polling ? MSG_DONTWAIT : 0);
	struct msghdr m = { 0 };
	uint32_t used;
	ssize_t r;

	if (!out && !polling)
		flags |= MSG_WAITALL;
	while (n) {
		m.msg_iov = iov;
		m.msg_iovlen = mc_min(n, (uint32_t)LIMITS_IOV);
		r = out ? sendmsg(fd, &m, flags) : recvmsg(fd, &m, flags);
		if (!r)
			return -ECONNRESET;
		if (r < 0 && (errno == EAGAIN || errno == EINTR))
			continue;
		if (r < 0)
			return -errno;
		used = limits_advance(iov, r);
		iov += used;
		n -= used;
	}
	return 0;
}

static int limits_byte(int fd, bool out, bool polling)
{
	char c = 0;
	struct iovec v = { &c, 1 };

	return limits_move(fd, &v, 1, out, polling);
}

/* One batch at one end of the socket. @sends: this end has the blocks go out;
 * the byte goes the other way, after a write and before a read. */
static int limits_exchange(struct mc_limit *l, uint8_t *base,
			   const struct limits_round *rd, uint64_t k,
			   bool sends)
{
	bool read = rd->run.op == MC_READ;
	int r;

	limits_fill(l, l->iov, &rd->run, k, base);
	if (read) {
		r = limits_byte(l->data, !sends, rd->polling);
		if (r < 0)
			return r;
	}
	r = limits_move(l->data, l->iov, rd->run.batch, sends, rd->polling);
	if (r < 0 || read)
		return r;
	return limits_byte(l->data, !sends, rd->polling);
}

/* What else the parent has open must end when the parent closes it. */
static void limits_close_others(int a, int b)
{
	int low = mc_min(a, b), high = mc_max(a, b);

	if (low > 3)
		syscall(SYS_close_range, 3, low - 1, 0);
	if (high - low > 1)
		syscall(SYS_close_range, low + 1, high - 1, 0);
	syscall(SYS_close_range, high + 1, ~0u, 0);
}

static void limits_child(struct mc_limit *l, pid_t parent)
{
	struct limits_round rd;
	char ok = 1;

	limits_close_others(l->ctl, l->data);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(1);
	memset(l->far, 0, l->span);
	if (write(l->ctl, &ok, 1) != 1)
		_exit(1);
	while (read(l->ctl, &rd, sizeof(rd)) == sizeof(rd)) {
		for (uint64_t k = 0; k < rd.count; k++)
			if (limits_exchange(l, l->far, &rd, rd.first + k,
					    rd.run.op == MC_READ) < 0)
				_exit(1);
	}
	_exit(0);
}

/* Both ends of a TCP connection over loopback. */
static int limits_tcp(int fds[2])
{
	struct sockaddr_in a = { .sin_family = AF_INET };
	socklen_t len = sizeof(a);
	int one = 1, lis, r;

	fds[0] = fds[1] = -1;
	a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	lis = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (lis < 0)
		return mc_syserr(-errno, "socket");
	fds[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fds[0] < 0 || bind(lis, (struct sockaddr *)&a, len) < 0 ||
	    listen(lis, 1) < 0 ||
	    getsockname(lis, (struct sockaddr *)&a, &len) < 0 ||
	    connect(fds[0], (struct sockaddr *)&a, len) < 0)
		goto fail;
	fds[1] = accept4(lis, NULL, NULL, SOCK_CLOEXEC);
	if (fds[1] < 0)
		goto fail;
	for (int i = 0; i < 2; i++)
		setsockopt(fds[i], IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	close(lis);
	return 0;
fail:
	r = mc_syserr(-errno, "loopback connection");
	close(lis);
	if (fds[0] >= 0)
		close(fds[0]);
	return r;
}

/* Start the child; it touches its memory first, which is ours by address
 * only. */
static int limits_start(struct mc_limit *l)
{
	pid_t parent = getpid();
	int ctl[2], data[2], r;
	char ok;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ctl) < 0)
		return mc_syserr(-errno, "socketpair");
	r = limits_tcp(data);
	if (r < 0)
		goto close_ctl;
	l->child = fork();
	if (l->child < 0) {
		r = mc_syserr(-errno, "fork");
		goto close_data;
	}
	if (!l->child) {
		close(ctl[0]);
		close(data[0]);
		l->ctl = ctl[1];
		l->data = data[1];
		limits_child(l, parent);
	}
	close(ctl[1]);
	close(data[1]);
	l->ctl = ctl[0];
	l->data = data[0];
	if (read(l->ctl, &ok, 1) != 1)
		return mc_err(-ECHILD, "the far end of a limit died: is there "
			      "memory for %llu bytes?",
			      (unsigned long long)l->span);
	return 0;
close_data:
	close(data[0]);
	close(data[1]);
close_ctl:
	close(ctl[0]);
	close(ctl[1]);
	return r;
}

/* The far end of a memcpy: like memory of mc_buffer_alloc(). */
static int limits_map_shared(struct mc_limit *l)
{
	int fd = memfd_create("mooncake-limit", MFD_CLOEXEC);
	int r = 0;

	if (fd < 0)
		return mc_syserr(-errno, "memfd_create");
	if (ftruncate(fd, l->span) < 0) {
		r = mc_syserr(-errno, "memfd of %llu bytes",
			      (unsigned long long)l->span);
		goto out;
	}
	l->far = mmap(NULL, l->span, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (l->far == MAP_FAILED) {
		l->far = NULL;
		r = mc_syserr(-errno, "map %llu bytes",
			      (unsigned long long)l->span);
		goto out;
	}
	madvise(l->far, l->span, MADV_HUGEPAGE);
	memset(l->far, 0, l->span);
out:
	close(fd);
	return r;
}

static int limits_map_private(struct mc_limit *l)
{
	l->far = mmap(NULL, l->span, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (l->far == MAP_FAILED) {
		l->far = NULL;
		return mc_syserr(-errno, "map %llu bytes",
				 (unsigned long long)l->span);
	}
	return 0;
}

int mc_limit_open(struct mc_limit **out, enum mc_limit_kind kind, void *mem,
		  uint64_t span)
{
	struct mc_limit *l;
	int r = -ENOMEM;

	if (!mem || !span || (unsigned)kind > MC_LIMIT_SOCKET_POLL)
		return mc_err(-EINVAL, "limit: no memory, or no such kind");
	l = calloc(1, sizeof(*l));
	if (!l)
		return mc_err(-ENOMEM, "limit: out of memory");
	l->kind = kind;
	l->near = mem;
	l->span = span;
	l->ctl = l->data = -1;
	l->iov = calloc(LIMITS_BATCH, 2 * sizeof(*l->iov));
	if (!l->iov) {
		mc_err(-ENOMEM, "limit: out of memory");
		goto fail;
	}
	l->iov2 = l->iov + LIMITS_BATCH;
	r = kind == MC_LIMIT_MEMCPY ? limits_map_shared(l) :
				      limits_map_private(l);
	if (r < 0)
		goto fail;
	if (kind != MC_LIMIT_MEMCPY)
		r = limits_start(l);
	if (r < 0)
		goto fail;
	*out = l;
	return 0;
fail:
	mc_limit_close(l);
	return r;
}

void mc_limit_close(struct mc_limit *l)
{
	if (!l)
		return;
	if (l->ctl >= 0)
		close(l->ctl);
	if (l->data >= 0)
		close(l->data);
	if (l->child > 0) {
		kill(l->child, SIGKILL);
		while (waitpid(l->child, NULL, 0) < 0 && errno == EINTR)
			;
	}
	if (l->far)
		munmap(l->far, l->span);
	free(l->iov);
	free(l);
}

static int limits_memcpy(struct mc_limit *l, const struct limits_round *rd,
			 uint64_t k)
{
	const struct mc_limit_run *run = &rd->run;
	uint64_t at;

	for (uint32_t i = 0; i < run->batch; i++) {
		at = limits_offset(l, run, k * run->batch + i);
		if (run->op == MC_WRITE)
			memcpy(l->far + at, l->near + at, run->block);
		else
			memcpy(l->near + at, l->far + at, run->block);
	}
	return 0;
}

static int limits_vm(struct mc_limit *l, const struct limits_round *rd,
		     uint64_t k)
{
	const struct mc_limit_run *run = &rd->run;
	ssize_t r, want;
	uint32_t n;

	limits_fill(l, l->iov, run, k, l->near);
	limits_fill(l, l->iov2, run, k, l->far);
	for (uint32_t i = 0; i < run->batch; i += n) {
		n = mc_min(run->batch - i, (uint32_t)LIMITS_IOV);
		want = n * run->block;
		r = run->op == MC_WRITE ?
		    process_vm_writev(l->child, l->iov + i, n, l->iov2 + i, n,
				      0) :
		    process_vm_readv(l->child, l->iov + i, n, l->iov2 + i, n,
				     0);
		if (r != want)
			return r < 0 ? -errno : -EFAULT;
	}
	return 0;
}

/* A round: a known number of batches, each timed. */
static int limits_round(struct mc_limit *l, const struct limits_round *rd,
			struct mc_measure *m)
{
	uint64_t t0, t1, start;
	int r = 0;

	if (l->data >= 0 && l->kind != MC_LIMIT_VM &&
	    send(l->ctl, rd, sizeof(*rd), MSG_NOSIGNAL) != sizeof(*rd))
		return mc_syserr(-errno, "the far end of a limit has gone");
	start = t0 = mc_clock_ns();
	for (uint64_t k = 0; k < rd->count; k++) {
		if (l->kind == MC_LIMIT_MEMCPY)
			r = limits_memcpy(l, rd, rd->first + k);
		else if (l->kind == MC_LIMIT_VM)
			r = limits_vm(l, rd, rd->first + k);
		else
			r = limits_exchange(l, l->near, rd, rd->first + k,
					    rd->run.op == MC_WRITE);
		if (r < 0)
			return mc_syserr(r, "limit: batch %llu",
					 (unsigned long long)(rd->first + k));
		t1 = mc_clock_ns();
		mc_measure_add(m, t1 - t0);
		t0 = t1;
	}
	m->wall_ns += t0 - start;
	m->batches += rd->count;
	m->bytes += rd->count * rd->run.batch * rd->run.block;
	return 0;
}

static int limits_check(const struct mc_limit *l,
			const struct mc_limit_run *run)
{
	if (!run->block || run->block > l->span)
		return mc_err(-EINVAL, "limit: block of %llu bytes in %llu",
			      (unsigned long long)run->block,
			      (unsigned long long)l->span);
	if (!run->batch || run->batch > LIMITS_BATCH)
		return mc_err(-EINVAL, "limit: batch of %u blocks, 1 to %d are "
			      "possible", run->batch, LIMITS_BATCH);
	return 0;
}

/* CPU of both ends; what cannot be read counts as nothing. */
static uint64_t limits_cpu(const struct mc_limit *l)
{
	int64_t ours = mc_measure_cpu_ns(0);
	int64_t theirs = l->child > 0 ? mc_measure_cpu_ns(l->child) : 0;

	return mc_max(ours, 0) + mc_max(theirs, 0);
}

int mc_limit_measure(struct mc_limit *l, const struct mc_limit_run *run,
		     struct mc_measure *out)
{
	struct limits_round rd = { .run = *run, .count = 1 };
	uint64_t round_ns = (uint64_t)LIMITS_ROUND_MS * MC_MS;
	uint64_t cpu, last, wall;
	int r = limits_check(l, run);

	if (r < 0)
		return r;
	if (!rd.run.cycle)
		rd.run.cycle = run->batch;
	rd.polling = l->kind == MC_LIMIT_SOCKET_POLL;
	memset(out, 0, sizeof(*out));
	cpu = limits_cpu(l);
	do {
		wall = out->wall_ns;
		r = limits_round(l, &rd, out);
		if (r < 0)
			return r;
		rd.first += rd.count;
		last = mc_max(out->wall_ns - wall, 1u);
		rd.count = mc_max(rd.count * round_ns / last, 1u);
		rd.count = mc_min(rd.count, 1000000u);
	} while (out->wall_ns < (uint64_t)run->duration_ms * MC_MS);
	out->cpu_ns = limits_cpu(l) - cpu;
	return 0;
}
