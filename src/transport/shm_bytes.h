/*
 * shm_bytes.h - copying blocks that are larger than what a cache should keep.
 *
 * Ordinary stores first read each line of the destination. Blocks that lie
 * scattered over gigabytes are not in the cache, so that is one transfer in
 * three for nothing; stores that bypass the cache do without.
 */
#ifndef MC_SHM_BYTES_H
#define MC_SHM_BYTES_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__x86_64__)

#include <emmintrin.h>

enum { BYTES_AHEAD = 1024 };

/* Others see the bytes of bytes_stream() in order only after bytes_fence(). */
static inline void bytes_stream(void *dst, const void *src, uint64_t len)
{
	uint64_t head = -(uintptr_t)dst & 63;
	uint8_t *d = dst;
	const uint8_t *s = src;

	if (head > len)
		head = len;
	memcpy(d, s, head);
	d += head;
	s += head;
	len -= head;
	for (; len >= 64; len -= 64, d += 64, s += 64) {
		const __m128i *from = (const __m128i *)s;
		__m128i *to = (__m128i *)d;
		__m128i v0, v1, v2, v3;

		/* Past the end it is harmless. */
		_mm_prefetch((const char *)s + BYTES_AHEAD, _MM_HINT_NTA);
		v0 = _mm_loadu_si128(from);
		v1 = _mm_loadu_si128(from + 1);
		v2 = _mm_loadu_si128(from + 2);
		v3 = _mm_loadu_si128(from + 3);
		_mm_stream_si128(to, v0);
		_mm_stream_si128(to + 1, v1);
		_mm_stream_si128(to + 2, v2);
		_mm_stream_si128(to + 3, v3);
	}
	memcpy(d, s, len);
}

static inline void bytes_fence(void)
{
	_mm_sfence();
}

#else

static inline void bytes_stream(void *dst, const void *src, uint64_t len)
{
	memcpy(dst, src, len);
}

static inline void bytes_fence(void)
{
}

#endif

enum {
	BYTES_ONE = 16384,		/* a block so long is worth it, */
	BYTES_MANY = 32,		/* or one of so many */
	BYTES_EACH = 2048,		/* that is so long */
};

static inline int bytes_worth(uint64_t len, uint32_t n)
{
	return len >= BYTES_ONE || (n >= BYTES_MANY && len >= BYTES_EACH);
}

#endif
