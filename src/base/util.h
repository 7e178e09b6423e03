/* util.h - the few macros and inline helpers that everything uses. */
#ifndef MC_BASE_UTIL_H
#define MC_BASE_UTIL_H

#include <stddef.h>
#include <stdio.h>
#include <string.h>

#define mc_container_of(ptr, type, member) \
	((type *)((char *)(ptr) - offsetof(type, member)))

#define mc_array_len(a) (sizeof(a) / sizeof((a)[0]))

#define mc_min(a, b) ((a) < (b) ? (a) : (b))
#define mc_max(a, b) ((a) > (b) ? (a) : (b))

/* Copy a string into an array, cut if need be, always ended. */
#define mc_copy(dst, src) mc_copy_to(dst, sizeof(dst), src)

static inline void mc_copy_to(char *dst, size_t size, const char *src)
{
	size_t n = strlen(src);

	n = n < size ? n : size - 1;
	memmove(dst, src, n);
	dst[n] = 0;
}

#endif
