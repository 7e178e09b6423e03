/*
 * trace.h - request traces, read one record at a time in bounded memory.
 *
 * A trace is a text of one request per line: when it came, how many tokens it
 * brought and produced, and the ids of its blocks. The functions are for Lua
 * too, so the declarations are written as those of mooncake.h.
 */
#ifndef MC_SIM_TRACE_H
#define MC_SIM_TRACE_H

#include <stdint.h>

#pragma GCC visibility push(default)

struct mc_trace;

struct mc_trace_options {
	const char *format;	/* "mooncake"; NULL: seen at the first line */
	uint32_t block_tokens;	/* tokens of a block; 0: as the format has it */
};

/* One request. The blocks are those of its input in order, the last one may be
 * partial. An id names a block together with all before it: equal ids, equal
 * prefixes. Formats that know no blocks leave n_blocks 0. */
struct mc_trace_req {
	uint64_t line;			/* in the file, from 1 */
	uint64_t at_ns;			/* arrival on the trace's own clock */
	uint32_t input_tokens;
	uint32_t output_tokens;
	uint32_t block_tokens;
	uint32_t n_blocks;
	const uint64_t *blocks;		/* valid until the next call */
};

/* Open a trace file, "-" for standard input. @opts may be NULL. */
int mc_trace_open(struct mc_trace **out, const char *path,
		  const struct mc_trace_options *opts);

/* The next request: 1, or 0 at the end. -EINVAL with file, line and column in
 * the message for a record that is not as its format says, that has more or
 * fewer blocks than its tokens fill, or that comes before its predecessor; the
 * call after that goes on with the line that follows. */
int mc_trace_next(struct mc_trace *t, struct mc_trace_req *out);

/* Go back to the first request. -ESPIPE for what is not a file. */
int mc_trace_rewind(struct mc_trace *t);

/* The name of the format, "" while no line has been seen. */
const char *mc_trace_format(const struct mc_trace *t);
void mc_trace_close(struct mc_trace *t);

#pragma GCC visibility pop
#endif
