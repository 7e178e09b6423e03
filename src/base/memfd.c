/* memfd.c - memory without a name that other processes can map. */
#include "memfd.h"

#include "err.h"

#include <mooncake.h>

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/mempolicy.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x8u		/* Linux 6.3 */
#endif
#ifndef MFD_HUGE_2MB
#define MFD_HUGE_2MB (21u << 26)
#endif

enum {
	MEMFD_HUGE = 2 << 20,
	MEMFD_NODES = 1024,
};

/* Kernels since 6.3 may insist that memory says it is no program; those before
 * do not know the flag. */
static int memfd_open(const char *name, unsigned flags)
{
	int fd;

	flags |= MFD_CLOEXEC | MFD_ALLOW_SEALING;
	fd = memfd_create(name, flags | MFD_NOEXEC_SEAL);
	if (fd < 0 && errno == EINVAL)
		fd = memfd_create(name, flags);
	return fd < 0 ? -errno : fd;
}

static int memfd_sized(const char *name, unsigned flags, uint64_t len)
{
	int r, fd = memfd_open(name, flags);

	if (fd < 0)
		return fd;
	if (len > INT64_MAX)
		r = -EFBIG;
	else if (ftruncate(fd, len) < 0 ||
		 fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) < 0)
		r = -errno;
	else
		return fd;
	close(fd);
	return r;
}

int mc_memfd_create(const char *name, uint64_t len)
{
	int fd = memfd_sized(name, 0, len);

	return fd < 0 ? mc_syserr(fd, "memfd of %llu bytes",
				  (unsigned long long)len) : fd;
}

int64_t mc_memfd_check(int fd, uint64_t need)
{
	int seals = fcntl(fd, F_GET_SEALS);
	struct stat st;

	if (seals < 0 || !(seals & F_SEAL_SHRINK))
		return mc_err(-EPROTO, "memory that may shrink");
	if (fstat(fd, &st) < 0)
		return mc_syserr(-errno, "memory that was passed");
	if (st.st_size < 0 || need > (uint64_t)st.st_size)
		return mc_err(-EPROTO, "memory of %lld bytes, not %llu",
			      (long long)st.st_size, (unsigned long long)need);
	if (st.st_blksize <= 0 || st.st_blksize & (st.st_blksize - 1))
		return mc_err(-EPROTO, "memory of odd pages");
	return st.st_blksize;
}

static int memfd_bind(void *addr, uint64_t len, int node)
{
	enum { BITS = 8 * sizeof(long) };
	unsigned long mask[MEMFD_NODES / BITS] = { 0 };

	if (node < 0)
		return 0;
	if (node < MEMFD_NODES) {
		mask[node / BITS] = 1ul << node % BITS;
		if (!syscall(SYS_mbind, addr, len, MPOL_BIND, mask,
			     (unsigned long)MEMFD_NODES, 0u))
			return 0;
		/* A kernel without NUMA has this one node. */
		if (errno == ENOSYS && !node)
			return 0;
		if (errno != EINVAL)
			return mc_syserr(-errno, "memory on NUMA node %d",
					 node);
	}
	return mc_err(-EINVAL, "there is no NUMA node %d to allocate on", node);
}

static int memfd_populate(void *addr, uint64_t len)
{
	int r;

	do {
		if (!madvise(addr, len, MADV_POPULATE_WRITE))
			return 0;
		r = -errno;
	} while (r == -EINTR);
	if (r != -EINVAL)
		return mc_syserr(r == -EFAULT ? -ENOMEM : r,
				 "touching %llu bytes",
				 (unsigned long long)len);
	for (uint64_t i = 0; i < len; i += 4096)
		((volatile char *)addr)[i] = 0;
	return 0;
}

struct memfd_want {
	unsigned flags;			/* of memfd_create() */
	uint64_t page, len;
	int node;
	bool populate;
};

static int memfd_map(const struct memfd_want *w, void **addr,
		     uint64_t *mapped_len)
{
	uint64_t len = (w->len + w->page - 1) & ~(w->page - 1);
	int fd = len < w->len ? -ENOMEM :
				memfd_sized("mooncake", w->flags, len);

	if (fd < 0)
		return mc_syserr(fd, "allocating %llu bytes",
				 (unsigned long long)w->len);
	*addr = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (*addr == MAP_FAILED) {
		int r = -errno;

		close(fd);
		return mc_syserr(r, "mapping %llu bytes",
				 (unsigned long long)len);
	}
	*mapped_len = len;
	return fd;
}

/* Returns the descriptor or -errno. */
static int memfd_get(const struct memfd_want *w, void **addr,
		     uint64_t *mapped_len)
{
	int r, fd = memfd_map(w, addr, mapped_len);

	if (fd < 0)
		return fd;
	r = memfd_bind(*addr, *mapped_len, w->node);
	/* Advice: many kernels keep it off for shared memory. */
	if (!r && !(w->flags & MFD_HUGETLB) && *mapped_len >= MEMFD_HUGE)
		(void)madvise(*addr, *mapped_len, MADV_HUGEPAGE);
	if (!r && w->populate)
		r = memfd_populate(*addr, *mapped_len);
	if (!r)
		return fd;
	mc_memfd_free(*addr, *mapped_len, fd);
	return r;
}

int mc_memfd_alloc(uint64_t len, unsigned flags, int node, void **addr,
		   uint64_t *mapped_len, int *fd)
{
	struct memfd_want w = { .page = MEMFD_HUGE, .len = len, .node = node,
				.flags = MFD_HUGETLB | MFD_HUGE_2MB,
				.populate = flags & MC_ALLOC_POPULATE };
	void *mem = NULL;
	uint64_t mapped = 0;
	int f = -1;

	if (!len)
		return mc_err(-EINVAL, "cannot allocate 0 bytes");
	/* Huge pages are reserved when mapped, but not on a node: there only
	 * touching them shows that they are to be had. */
	if (flags & MC_ALLOC_HUGE && node >= 0)
		w.populate = true;
	if (flags & MC_ALLOC_HUGE)
		f = memfd_get(&w, &mem, &mapped);
	if (f < 0) {
		w.flags = 0;
		w.page = sysconf(_SC_PAGESIZE);
		w.populate = flags & MC_ALLOC_POPULATE;
		f = memfd_get(&w, &mem, &mapped);
	}
	if (f < 0)
		return f;
	*addr = mem;
	*mapped_len = mapped;
	*fd = f;
	return 0;
}

void mc_memfd_free(void *addr, uint64_t mapped_len, int fd)
{
	if (addr)
		munmap(addr, mapped_len);
	if (fd >= 0)
		close(fd);
}

void mc_memfd_discard(int fd, uint64_t mapped_len)
{
	(void)fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
			mapped_len);
}
