/*
 * cma.h - memory of another process that it has not shared: process_vm_readv
 * and writev, where the kernel lets us.
 */
#ifndef MC_CMA_H
#define MC_CMA_H

#include <mooncake.h>

#include <sys/uio.h>

/* What a process says of itself, so that another can tell it from one that got
 * its number later. */
struct mc_cma_id {
	uint64_t start;			/* ticks since boot, as /proc says */
	uint64_t probe_addr;		/* of a word in its memory, */
	uint64_t probe;			/* which has this value */
};

struct mc_cma {
	int pid;			/* 0: may not be reached */
	int pidfd;			/* of the caller, -1: none */
	char why[MC_WHY_MAX];		/* with pid 0 */
};

enum {
	MC_CMA_IOV = 1024,		/* the kernel's limit per call */
};

/* When process @pid was started; 0: unknown. */
uint64_t mc_cma_start(int pid);

/* A descriptor of process @pid, or -1. */
int mc_cma_pidfd(int pid);

/* False once the process of @pidfd has ended. True without descriptor. */
bool mc_cma_alive(int pidfd);

/* Decide if process @pid, as the kernel named it, is the one that says @id and
 * lets us at its memory. Otherwise @c says why not. */
void mc_cma_open(struct mc_cma *c, int pid, int pidfd,
		 const struct mc_cma_id *id);

/* Move bytes between lists of equal length; returns how many were, at least
 * one, or -errno (without message): -ESRCH the process has ended, -EFAULT some
 * of the memory at one of the ends is not there. */
int64_t mc_cma_copy(const struct mc_cma *c, enum mc_op op,
		    const struct iovec *near, const struct iovec *far, int n);

#endif
