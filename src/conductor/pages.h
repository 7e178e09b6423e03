/* pages.h - memory by the page that grows and shrinks without being copied. */
#ifndef MC_CONDUCTOR_PAGES_H
#define MC_CONDUCTOR_PAGES_H

#include <stddef.h>

/* All zeros is one of no pages. What was never written reads as zero. */
struct mc_pages {
	void *at;			/* changes with the size */
	size_t size;
};

/* Make it @size bytes, rounded up to pages; 0 frees it. -ENOMEM leaves it as
 * it was, and happens only if it should grow. */
int mc_pages_resize(struct mc_pages *p, size_t size);

#endif
