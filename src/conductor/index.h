/* index.h - what the block index is made of. */
#ifndef MC_CONDUCTOR_INDEX_H
#define MC_CONDUCTOR_INDEX_H

#include <mooncake.h>
#include "blocks.h"
#include "holders.h"

struct mc_index {
	uint32_t instances;
	uint64_t pairs;
	struct mc_blocks blocks;
	struct mc_holders holders;
	struct index_live *live;	/* of the match that runs; match.c */
};

/* Instances [64 * word, 64 * word + 64) that are still in a match. */
struct index_live {
	uint64_t bits;			/* never 0 */
	uint32_t word;
};

#endif
