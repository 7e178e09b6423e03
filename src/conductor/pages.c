/*
 * pages.c - memory by the page; see pages.h.
 *
 * The kernel moves page tables instead of bytes (mremap), and maps huge pages
 * where it may: what lies here is looked up at random, and a table of 4 KiB
 * pages costs a miss in the TLB for each look-up.
 */
#include "pages.h"
#include "../base/err.h"

#include <errno.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

enum {
	PAGES_HUGE = 2 << 20,
	PAGES_MANY = 32 << 20,		/* where a huge page more is little */
};

/* Whole huge pages, too, stay what they are when they are moved. */
static size_t pages_round(size_t size)
{
	size_t page = size < PAGES_MANY ? (size_t)sysconf(_SC_PAGESIZE) :
					  PAGES_HUGE;

	return (size + page - 1) / page * page;
}

static void *pages_map(void *old, size_t from, size_t to)
{
	if (old)
		return mremap(old, from, to, MREMAP_MAYMOVE);
	return mmap(NULL, to, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

int mc_pages_resize(struct mc_pages *p, size_t size)
{
	void *at;

	size = pages_round(size);
	if (size == p->size)
		return 0;
	if (!size) {
		munmap(p->at, p->size);
		*p = (struct mc_pages){ 0 };
		return 0;
	}
	at = pages_map(p->at, p->size, size);
	if (at == MAP_FAILED && size < p->size)
		return 0;
	if (at == MAP_FAILED)
		return mc_err(-ENOMEM, "no memory for %zu MiB more",
			      ((size - p->size) >> 20) + 1);
	madvise(at, size, MADV_HUGEPAGE);
	*p = (struct mc_pages){ at, size };
	return 0;
}
