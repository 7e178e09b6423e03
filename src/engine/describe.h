/*
 * describe.h - the answer to WIRE_DESCRIBE: a head, then the buffers that came
 * since the version asked about, as they lie in struct mc_buffer_info, the ids
 * of those that went, and the addresses of the engine's interfaces, each ended
 * by a zero.
 */
#ifndef MC_DESCRIBE_H
#define MC_DESCRIBE_H

#include <stdint.h>

struct describe_head {
	uint64_t version;
	uint64_t since;			/* 0: the whole table follows */
	uint32_t n_add, n_del;
	uint32_t addrs_len, pad;
};

#endif
