/* memfd.h - memory without a name that other processes can map. */
#ifndef MC_BASE_MEMFD_H
#define MC_BASE_MEMFD_H

#include <stdint.h>
#include <sys/mman.h>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23		/* Linux 5.14 */
#endif

/* A descriptor of @len bytes of zeros, closed on exec, that can neither shrink
 * nor grow: whoever maps all of it never meets SIGBUS for want of a page.
 * Other seals may still be added. Returns it or -errno. */
int mc_memfd_create(const char *name, uint64_t len);

/* Check what another process passed as memory: @need bytes that stay. Returns
 * the size of its pages or -errno. */
int64_t mc_memfd_check(int fd, uint64_t need);

/* Allocate @len bytes and map them, rounded up to whole pages as @mapped_len
 * says. @flags are of enum mc_alloc_flags; without huge pages to be had it is
 * small ones. @node: the NUMA node of the pages, whoever touches them first;
 * -1: any. */
int mc_memfd_alloc(uint64_t len, unsigned flags, int node, void **addr,
		   uint64_t *mapped_len, int *fd);
void mc_memfd_free(void *addr, uint64_t mapped_len, int fd);

/* Give the pages back although others still map them; they read zeros then.
 * Where a seal forbids it the pages stay until the last mapping has gone. Not
 * for a child of fork(): its parent's memory is the same. */
void mc_memfd_discard(int fd, uint64_t mapped_len);

#endif
