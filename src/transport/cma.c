/* cma.c - process_vm_readv and writev; see cma.h. */
#include "cma.h"

#include "../base/err.h"
#include "../base/util.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif

enum { CMA_STAT_START = 20 };		/* fields after the command's name */

static int cma_read(const char *path, char *buf, int size)
{
	int n, fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	n = read(fd, buf, size - 1);
	close(fd);
	buf[mc_max(n, 0)] = 0;
	return n;
}

uint64_t mc_cma_start(int pid)
{
	char path[32], buf[1024];
	char *s;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	if (cma_read(path, buf, sizeof(buf)) <= 0)
		return 0;
	/* The name is in parentheses and may hold anything, these too. */
	s = strrchr(buf, ')');
	for (int i = 0; s && i < CMA_STAT_START; i++)
		s = strchr(s + 1, ' ');
	return s ? strtoull(s, NULL, 10) : 0;
}

int mc_cma_pidfd(int pid)
{
	int fd = pid > 0 ? syscall(SYS_pidfd_open, pid, 0) : -1;

	return fd < 0 ? -1 : fd;
}

bool mc_cma_alive(int pidfd)
{
	struct pollfd p = { .fd = pidfd, .events = POLLIN };

	return pidfd < 0 || poll(&p, 1, 0) != 1;
}

/* What to change, where it is known to be this. */
static const char *cma_remedy(int err)
{
	char scope[8] = "";

	if (err != EPERM)
		return "";
	if (cma_read("/proc/sys/kernel/yama/ptrace_scope", scope,
		     sizeof(scope)) > 0 && scope[0] > '0')
		return " (sysctl kernel.yama.ptrace_scope=0 permits it)";
	return " (another user's process, or a container without SYS_PTRACE)";
}

static void cma_refuse(struct mc_cma *c, const char *why)
{
	snprintf(c->why, sizeof(c->why), "%s", why);
}

void mc_cma_open(struct mc_cma *c, int pid, int pidfd,
		 const struct mc_cma_id *id)
{
	uint64_t found = 0, start = mc_cma_start(pid);
	struct iovec near = { &found, sizeof(found) };
	struct iovec far = { (void *)(uintptr_t)id->probe_addr,
			     sizeof(found) };
	ssize_t n;

	*c = (struct mc_cma){ .pidfd = pidfd };
	if (pid <= 0 || pidfd < 0) {
		cma_refuse(c, "the kernel does not name its process");
		return;
	}
	if (!start || start != id->start) {
		cma_refuse(c, "its process is not the one that answered");
		return;
	}
	n = process_vm_readv(pid, &near, 1, &far, 1, 0);
	if (n < 0) {
		int err = errno;
		char text[64] = "";

		snprintf(c->why, sizeof(c->why), "process_vm_readv: %s%s",
			 strerror_r(err, text, sizeof(text)),
			 cma_remedy(err));
		return;
	}
	if (n != sizeof(found) || found != id->probe || !mc_cma_alive(pidfd)) {
		cma_refuse(c, "its process is not the one that answered");
		return;
	}
	c->pid = pid;
}

/* Its number is its own while it lives. So who writes looks first, and who
 * reads looks afterwards: then the bytes were those of that process. */
int64_t mc_cma_copy(const struct mc_cma *c, enum mc_op op,
		    const struct iovec *near, const struct iovec *far, int n)
{
	ssize_t r;

	if (op == MC_WRITE && !mc_cma_alive(c->pidfd))
		return -ESRCH;
	if (op == MC_WRITE)
		r = process_vm_writev(c->pid, near, n, far, n, 0);
	else
		r = process_vm_readv(c->pid, near, n, far, n, 0);
	if (r <= 0)
		return r < 0 ? -errno : -EFAULT;
	return op == MC_WRITE || mc_cma_alive(c->pidfd) ? r : -ESRCH;
}
