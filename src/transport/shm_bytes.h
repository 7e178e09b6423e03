/*
 * shm_bytes.h - copying more than the cache of a core keeps.
 *
 * Ordinary stores first read each line of the destination, which is one
 * transfer in three for nothing when it comes from beyond the core; stores that
 * bypass the cache do without. Both ends of a copy that fits into the cache may
 * be there, and then ordinary stores are two to four times as fast. So what
 * decides is if they can be. Short blocks gain nothing: the hardware foresees
 * no jump from one to the next, and waiting for the first line of each is most
 * of the work.
 */
#ifndef MC_SHM_BYTES_H
#define MC_SHM_BYTES_H

#include "transport.h"

#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

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

		/* Past the end it is harmless. Not NTA: what is fetched so
		 * comes into the first cache only, at a third of the rate on
		 * a Xeon of 2023. */
		_mm_prefetch((const char *)s + BYTES_AHEAD, _MM_HINT_T0);
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
	BYTES_BLOCK = 16384,		/* shorter ones are not streamed */
	BYTES_CACHE = 1 << 20,		/* of a core, if the system does not
					 * say */
};

/* Both ends of a copy of so many bytes are all that the cache of a core
 * keeps. */
static inline uint64_t bytes_kept(void)
{
	long cache = sysconf(_SC_LEVEL2_CACHE_SIZE);

	return (cache > 0 ? cache : BYTES_CACHE) / 2;
}

/* From which length on blocks are to be streamed, where all of @pieces are
 * copied at once. */
static inline uint32_t bytes_from(const struct mc_piece *pieces, uint32_t n,
				  uint64_t kept)
{
	uint64_t total = 0;

	for (uint32_t i = 0; i < n; i++)
		total += pieces[i].len;
	return total > kept ? BYTES_BLOCK : UINT32_MAX;
}

#endif
