/* blocks.c - a table of blocks by id; see blocks.h. */
#include "blocks.h"
#include "../base/util.h"

#include <stdbool.h>

/* In percent of the homes. A table that is fuller than FULL or emptier than
 * EMPTY becomes GROWN or SHRUNK full, and is then neither for a while. An entry
 * so takes 16 bytes / EMPTY at most. */
enum {
	BLOCKS_FULL = 80,
	BLOCKS_GROWN = 53,
	BLOCKS_SHRUNK = 65,
	BLOCKS_EMPTY = 45,
	BLOCKS_MIN = 384,		/* homes of the smallest table */
	BLOCKS_TAIL = 128,		/* places behind the homes, or more */
};

/* ---- size ----------------------------------------------------------- */

/* How many places are needed with so many homes. */
static uint64_t blocks_extent(const struct mc_blocks *b, uint64_t homes)
{
	struct mc_blocks as = { .homes = homes };
	uint64_t next = 0;

	for (uint64_t i = 0; i < b->places; i++)
		if (b->at[i].holders)
			next = mc_max(next, mc_blocks_home(&as,
							   b->at[i].key)) + 1;
	return mc_max(next, homes) + BLOCKS_TAIL;
}

/* Move all to the end of so many places. */
static void blocks_gather(struct mc_blocks *b, uint64_t places)
{
	struct mc_block *to = b->at + places;

	for (struct mc_block *p = b->at + b->places; p-- > b->at;) {
		struct mc_block block = *p;

		if (!block.holders)
			continue;
		p->holders = 0;
		*--to = block;
	}
}

/* Move all from @from on, of so many places, to where they belong, which is
 * behind where they come from for none. Counts them. */
static void blocks_spread(struct mc_blocks *b, uint64_t from, uint64_t places)
{
	uint64_t next = 0;

	b->n = 0;
	for (uint64_t i = from; i < places; i++) {
		struct mc_block block = b->at[i];
		uint64_t to;

		if (!block.holders)
			continue;
		to = mc_max(next, mc_blocks_home(b, block.key));
		b->at[i].holders = 0;
		b->at[to] = block;
		next = to + 1;
		b->n++;
	}
}

static int blocks_resize(struct mc_blocks *b, uint64_t homes)
{
	uint64_t places = blocks_extent(b, homes);
	uint64_t room = mc_max(places, b->places);
	int r = mc_pages_resize(&b->pages, room * sizeof(*b->at));

	if (r < 0)
		return r;
	b->at = b->pages.at;
	b->homes = homes;
	blocks_gather(b, room);
	blocks_spread(b, room - b->n, room);
	b->places = places;
	r = mc_pages_resize(&b->pages, places * sizeof(*b->at));
	b->at = b->pages.at;
	return r;
}

static int blocks_grow(struct mc_blocks *b)
{
	if (b->n < b->homes * BLOCKS_FULL / 100)
		return 0;
	return blocks_resize(b, mc_max((b->n + 1) * 100 / BLOCKS_GROWN,
				       BLOCKS_MIN));
}

/* If it cannot be made smaller, it stays as it is. */
static void blocks_shrink(struct mc_blocks *b)
{
	if (!b->n)
		mc_blocks_fini(b);
	else if (b->homes > BLOCKS_MIN &&
		 b->n < b->homes * BLOCKS_EMPTY / 100)
		blocks_resize(b, mc_max(b->n * 100 / BLOCKS_SHRUNK,
					BLOCKS_MIN));
}

void mc_blocks_sweep(struct mc_blocks *b)
{
	blocks_spread(b, 0, b->places);
	blocks_shrink(b);
}

void mc_blocks_fini(struct mc_blocks *b)
{
	mc_pages_resize(&b->pages, 0);
	*b = (struct mc_blocks){ 0 };
}

/* ---- entries -------------------------------------------------------- */

/* Append places, which takes no more than saying so: there are no homes. */
static int blocks_lengthen(struct mc_blocks *b)
{
	uint64_t places = b->places + BLOCKS_TAIL;
	int r = mc_pages_resize(&b->pages, places * sizeof(*b->at));

	if (r < 0)
		return r;
	b->at = b->pages.at;
	b->places = places;
	return 0;
}

/* Make a gap at @p by moving what follows; false: there is no place left. */
static bool blocks_open(struct mc_blocks *b, struct mc_block *p)
{
	struct mc_block *gap = p;

	while (gap->holders)
		gap++;
	if (gap == b->at + b->places - 1)
		return false;
	memmove(p + 1, p, (char *)gap - (char *)p);
	p->holders = 0;
	return true;
}

int mc_blocks_add(struct mc_blocks *b, uint64_t key, struct mc_block **out)
{
	struct mc_block *p;
	int r = blocks_grow(b);

	if (r < 0)
		return r;
	for (;;) {
		p = b->at + mc_blocks_place(b, key);
		if (p->holders && p->key == key)
			break;
		if (blocks_open(b, p)) {
			p->key = key;
			b->n++;
			break;
		}
		r = blocks_lengthen(b);
		if (r < 0)
			return r;
	}
	*out = p;
	return 0;
}

void mc_blocks_del(struct mc_blocks *b, struct mc_block *p)
{
	struct mc_block *end = p + 1;

	/* Those behind move up, as far as they are not at home. */
	while (end->holders && b->at + mc_blocks_home(b, end->key) < end)
		end++;
	memmove(p, p + 1, (char *)end - (char *)(p + 1));
	end[-1].holders = 0;
	b->n--;
	blocks_shrink(b);
}
