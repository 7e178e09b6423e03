/* ranges.c - address ranges that do not overlap; see ranges.h. */
#include "ranges.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { RANGES_CHUNK = 512 };

struct ranges_chunk {
	uint32_t n;
	struct mc_node *item[RANGES_CHUNK];
};

/* The last chunk that begins at or before @addr; 0 if none does. */
static uint32_t ranges_chunk_of(const struct mc_ranges *r, uint64_t addr)
{
	uint32_t lo = 0, hi = r->n;

	while (hi - lo > 1) {
		uint32_t mid = (lo + hi) / 2;

		if (r->chunks[mid]->item[0]->addr <= addr)
			lo = mid;
		else
			hi = mid;
	}
	return lo;
}

/* How many of the chunk's nodes begin at or before @addr. */
static uint32_t ranges_below(const struct ranges_chunk *c, uint64_t addr)
{
	uint32_t lo = 0, hi = c->n;

	while (lo < hi) {
		uint32_t mid = (lo + hi) / 2;

		if (c->item[mid]->addr <= addr)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

struct mc_node *mc_ranges_find(const struct mc_ranges *r, uint64_t addr)
{
	const struct ranges_chunk *c;
	struct mc_node *node;
	uint32_t i;

	if (!r->n)
		return NULL;
	c = r->chunks[ranges_chunk_of(r, addr)];
	i = ranges_below(c, addr);
	if (!i)
		return NULL;
	node = c->item[i - 1];
	return addr - node->addr < node->len ? node : NULL;
}

static int ranges_insert_chunk(struct mc_ranges *r, uint32_t at)
{
	struct ranges_chunk *c = calloc(1, sizeof(*c));

	if (!c)
		return -ENOMEM;
	if (r->n == r->cap) {
		uint32_t cap = r->cap ? r->cap * 2 : 8;
		void *p = realloc(r->chunks, cap * sizeof(*r->chunks));

		if (!p) {
			free(c);
			return -ENOMEM;
		}
		r->chunks = p;
		r->cap = cap;
	}
	memmove(r->chunks + at + 1, r->chunks + at,
		(r->n - at) * sizeof(*r->chunks));
	r->chunks[at] = c;
	r->n++;
	return 0;
}

/* Make room in chunk @k for one more; ascending input splits off an empty
 * tail, so that chunks fill up. */
static int ranges_split(struct mc_ranges *r, uint32_t k, uint32_t at)
{
	uint32_t keep = at == RANGES_CHUNK && k == r->n - 1 ?
			RANGES_CHUNK - 1 : RANGES_CHUNK / 2;
	struct ranges_chunk *from, *to;
	int ret = ranges_insert_chunk(r, k + 1);

	if (ret < 0)
		return ret;
	from = r->chunks[k];
	to = r->chunks[k + 1];
	to->n = from->n - keep;
	memcpy(to->item, from->item + keep, to->n * sizeof(*to->item));
	from->n = keep;
	return 0;
}

static struct mc_node *ranges_clash(const struct mc_ranges *r, uint32_t k,
				    uint32_t at, const struct mc_node *node)
{
	const struct ranges_chunk *c = r->chunks[k];
	struct mc_node *next = NULL;

	if (at && c->item[at - 1]->addr + c->item[at - 1]->len > node->addr)
		return c->item[at - 1];
	if (at < c->n)
		next = c->item[at];
	else if (k + 1 < r->n)
		next = r->chunks[k + 1]->item[0];
	return next && next->addr < node->addr + node->len ? next : NULL;
}

int mc_ranges_add(struct mc_ranges *r, struct mc_node *node,
		  struct mc_node **clash)
{
	struct ranges_chunk *c;
	uint32_t k, at;
	int ret;

	if (!r->n) {
		ret = ranges_insert_chunk(r, 0);
		if (ret < 0)
			return ret;
	}
	k = r->count ? ranges_chunk_of(r, node->addr) : 0;
	c = r->chunks[k];
	at = ranges_below(c, node->addr);
	*clash = ranges_clash(r, k, at, node);
	if (*clash)
		return -EEXIST;
	if (c->n == RANGES_CHUNK) {
		ret = ranges_split(r, k, at);
		if (ret < 0)
			return ret;
		if (at > c->n) {
			at -= c->n;
			c = r->chunks[k + 1];
		}
	}
	memmove(c->item + at + 1, c->item + at,
		(c->n - at) * sizeof(*c->item));
	c->item[at] = node;
	c->n++;
	r->count++;
	return 0;
}

void mc_ranges_del(struct mc_ranges *r, struct mc_node *node)
{
	uint32_t k = ranges_chunk_of(r, node->addr);
	struct ranges_chunk *c = r->chunks[k];
	uint32_t i = ranges_below(c, node->addr) - 1;

	memmove(c->item + i, c->item + i + 1,
		(c->n - i - 1) * sizeof(*c->item));
	c->n--;
	r->count--;
	if (c->n)
		return;
	free(c);
	memmove(r->chunks + k, r->chunks + k + 1,
		(r->n - k - 1) * sizeof(*r->chunks));
	r->n--;
}

struct mc_node *mc_ranges_at(const struct mc_ranges *r, uint64_t i)
{
	for (uint32_t k = 0; k < r->n; k++) {
		if (i < r->chunks[k]->n)
			return r->chunks[k]->item[i];
		i -= r->chunks[k]->n;
	}
	return NULL;
}

struct mc_node *mc_ranges_in(const struct mc_ranges *r, uint32_t k,
			     uint32_t i)
{
	return i < r->chunks[k]->n ? r->chunks[k]->item[i] : NULL;
}

void mc_ranges_fini(struct mc_ranges *r)
{
	for (uint32_t k = 0; k < r->n; k++)
		free(r->chunks[k]);
	free(r->chunks);
	*r = (struct mc_ranges){ 0 };
}
