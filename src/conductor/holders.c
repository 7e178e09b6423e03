/* holders.c - sets of instances; see holders.h. */
#include "holders.h"
#include "../base/err.h"
#include "../base/util.h"

#include <errno.h>

enum {
	HOLDERS_MIN = 64,		/* bitmaps of the smallest pool */
	HOLDERS_GROWTH = 8,		/* by one eighth */
	HOLDERS_SPARSE = 2,		/* one half in use */
};

/* ---- the pool ------------------------------------------------------- */

static uint64_t *holders_at(const struct mc_holders *h, uint64_t i)
{
	return (uint64_t *)h->pages.at + i * h->words;
}

int mc_holders_reserve(struct mc_holders *h, uint64_t n)
{
	int r;

	if (n <= h->cap)
		return 0;
	if (n > UINT32_MAX)
		return mc_err(-ENOMEM, "more than 4 G blocks have many "
			      "holders");
	r = mc_pages_resize(&h->pages, n * h->words * sizeof(uint64_t));
	if (!r)
		h->cap = n;
	return r;
}

/* A bitmap of zeros: its number to @out. */
static int holders_get(struct mc_holders *h, uint32_t *out)
{
	int r;

	if (h->unused) {
		uint64_t *bits = holders_at(h, h->unused - 1);

		*out = h->unused - 1;
		h->unused = *bits;
		*bits = 0;
	} else {
		if (h->used == h->cap) {
			r = mc_holders_reserve(h, h->cap + HOLDERS_MIN +
					       h->cap / HOLDERS_GROWTH);
			if (r < 0)
				return r;
		}
		*out = h->used++;
	}
	h->n++;
	return 0;
}

static void holders_put(struct mc_holders *h, uint32_t i)
{
	uint64_t *bits = holders_at(h, i);

	memset(bits, 0, h->words * sizeof(*bits));
	*bits = h->unused;
	h->unused = i + 1;
	if (!--h->n)
		mc_holders_fini(h);
}

bool mc_holders_sparse(const struct mc_holders *h)
{
	return h->cap > 2 * HOLDERS_MIN && h->n < h->cap / HOLDERS_SPARSE;
}

void mc_holders_fini(struct mc_holders *h)
{
	mc_pages_resize(&h->pages, 0);
	*h = (struct mc_holders){ .words = h->words };
}

/* ---- sets ----------------------------------------------------------- */

static uint64_t holders_set(uint64_t count, uint32_t bitmap)
{
	return (uint64_t)MC_HOLDERS_MANY << 48 | count << 32 | bitmap;
}

uint32_t mc_holders_count(uint64_t set)
{
	uint32_t n = 0;

	if (mc_holders_many(set))
		return set >> 32 & 0xffff;
	for (; set; set >>= 16)
		n++;
	return n;
}

/* Of a full set of few make one of many. */
static int holders_widen(struct mc_holders *h, uint64_t *set)
{
	uint32_t bitmap = 0;
	int r = holders_get(h, &bitmap);

	if (r < 0)
		return r;
	for (uint64_t few = *set; few; few >>= 16) {
		uint32_t i = (few & 0xffff) - 1;

		holders_at(h, bitmap)[i / 64] |= (uint64_t)1 << i % 64;
	}
	*set = holders_set(MC_HOLDERS_FEW, bitmap);
	return 0;
}

/* And the other way. */
static void holders_narrow(struct mc_holders *h, uint64_t *set)
{
	uint64_t *bits = mc_holders_bits(h, *set), few = 0;

	for (uint32_t w = 0; w < h->words; w++)
		for (uint64_t b = bits[w]; b; b &= b - 1)
			few = few << 16 | (w * 64 + __builtin_ctzll(b) + 1);
	holders_put(h, (uint32_t)*set);
	*set = few;
}

int mc_holders_add(struct mc_holders *h, uint64_t *set, uint32_t i)
{
	uint64_t bit = (uint64_t)1 << i % 64;
	uint32_t n = mc_holders_count(*set);

	if (mc_holders_word(h, *set, i / 64) & bit)
		return 0;
	if (n < MC_HOLDERS_FEW) {
		*set |= (uint64_t)(i + 1) << 16 * n;
		return 1;
	}
	if (n == MC_HOLDERS_FEW) {
		int r = holders_widen(h, set);

		if (r < 0)
			return r;
	}
	mc_holders_bits(h, *set)[i / 64] |= bit;
	*set = holders_set(n + 1, (uint32_t)*set);
	return 1;
}

bool mc_holders_del(struct mc_holders *h, uint64_t *set, uint32_t i)
{
	uint64_t bit = (uint64_t)1 << i % 64, below = 0;
	uint32_t n = mc_holders_count(*set);

	if (!(mc_holders_word(h, *set, i / 64) & bit))
		return false;
	if (mc_holders_many(*set)) {
		mc_holders_bits(h, *set)[i / 64] &= ~bit;
		*set = holders_set(n - 1, (uint32_t)*set);
		if (n - 1 == MC_HOLDERS_FEW)
			holders_narrow(h, set);
		return true;
	}
	/* Those above it move down by one. */
	while ((*set & (below + 1) * 0xffff) != (below + 1) * (i + 1))
		below = below << 16 | 0xffff;
	*set = (*set & below) | (*set >> 16 & ~below);
	return true;
}

void mc_holders_move(struct mc_holders *to, const struct mc_holders *from,
		     uint64_t *set)
{
	uint32_t bitmap = 0;

	if (!mc_holders_many(*set))
		return;
	holders_get(to, &bitmap);
	memcpy(holders_at(to, bitmap), mc_holders_bits(from, *set),
	       to->words * sizeof(uint64_t));
	*set = holders_set(mc_holders_count(*set), bitmap);
}
