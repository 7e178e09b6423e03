/* hash.c - checksums, and memory filled with bytes that can be checked. */
#include <mooncake.h>

#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

uint64_t mc_hash(const void *addr, uint64_t len, uint64_t seed)
{
	return XXH3_64bits_withSeed(addr, len, seed);
}

/* One step of splitmix64 (Steele, Lea, Flood: "Fast splittable pseudorandom
 * number generators", 2014): word i of a seed in O(1), so that any part of a
 * buffer can be made on its own. */
static uint64_t hash_word(uint64_t seed, uint64_t i)
{
	uint64_t z = seed + (i + 1) * 0x9e3779b97f4a7c15u;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return z ^ z >> 31;
}

void mc_fill(void *addr, uint64_t len, uint64_t seed)
{
	char *p = addr;
	uint64_t i, w;

	for (i = 0; i < len / 8; i++) {
		w = hash_word(seed, i);
		memcpy(p + i * 8, &w, 8);
	}
	w = hash_word(seed, i);
	memcpy(p + i * 8, &w, len % 8);
}
