/*
 * describe.h - the answer to WIRE_DESCRIBE: a head, then the buffers that came
 * since the version asked about, as they lie in struct mc_buffer_info, the ids
 * of those that went, the addresses of the engine's interfaces, each ended by a
 * zero, and with the whole table its matrix as JSON (../topology/matrix.h).
 */
#ifndef MC_DESCRIBE_H
#define MC_DESCRIBE_H

#include <stdint.h>

struct describe_head {
	uint64_t version;
	uint64_t since;			/* 0: the whole table follows */
	uint32_t n_add, n_del;
	uint32_t addrs_len, matrix_len;
};

#endif
