/*
 * trace.h - what the readers of trace formats share, seen by trace*.c only.
 *
 * trace.c has the lines, the fields that all formats know, and the API. A
 * format says how to know it by its first line and how to read a line; those
 * of JSON objects are in trace_json.c, those of CSV in trace_csv.c.
 */
#ifndef MC_SIM_TRACE_H
#define MC_SIM_TRACE_H

#include <mooncake.h>

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct trace_format {
	const char *name;
	uint32_t block_tokens;		/* nominal where there are no blocks */
	bool from_first;		/* times count from the first request */
	bool (*sniff)(const char *line);

	/* Read the line at t->p: 1 and @out, its blocks in t->blocks; 0 if the
	 * line holds no request; or an error. */
	int (*parse)(struct mc_trace *t, struct mc_trace_req *out);
};

extern const struct trace_format trace_mooncake, trace_qwen;
extern const struct trace_format trace_azure, trace_burstgpt;

enum { TRACE_COLUMNS = 3 };		/* time, input, output */

struct mc_trace {
	int fd;
	char *path;
	const struct trace_format *format;
	uint32_t block_tokens;
	uint64_t line;			/* number of the current one */
	bool begun;			/* there was a request */
	uint64_t first_ns, last_ns;	/* as the lines have them */
	char *buf;			/* size + 1 bytes: room for a zero */
	size_t size, start, end;	/* [start, end) is read, not parsed */
	bool eof;
	const char *text, *p;		/* current line, and where in it */
	uint64_t *blocks;
	uint32_t n_blocks, cap;
	int columns;			/* of the CSV header; 0: not seen */
	int column[TRACE_COLUMNS];	/* which of them hold what we want */
};

/* -EINVAL with file, line and column in front of @what. */
int trace_bad(const struct mc_trace *t, const char *what);

static inline bool trace_digit(char c)
{
	return c >= '0' && c <= '9';
}

static inline void trace_space(struct mc_trace *t)
{
	while (*t->p == ' ' || *t->p == '\t' || *t->p == '\r')
		t->p++;
}

/* Past @c and the space around it, if it is there. */
static inline bool trace_take(struct mc_trace *t, char c)
{
	trace_space(t);
	if (*t->p != c)
		return false;
	t->p++;
	trace_space(t);
	return true;
}

/* An unsigned integer of at most @max, without sign, fraction or exponent. */
int trace_uint(struct mc_trace *t, uint64_t max, uint64_t *out);

/* How many tokens there are. */
int trace_tokens(struct mc_trace *t, uint32_t *out);

/* A time in units of @unit nanoseconds (a power of ten), in decimals, none of
 * which passes through a float. What is below a nanosecond is cut. */
int trace_time(struct mc_trace *t, uint64_t unit, uint64_t *out);

/* The decimals that may follow here, in the same way. */
uint64_t trace_decimals(struct mc_trace *t, uint64_t unit);

#endif
