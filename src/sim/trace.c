/*
 * trace.c - request traces: lines, formats, and the Mooncake JSONL reader.
 *
 * A format is an entry of trace_formats[]: how to know it by its first line,
 * and how to read a line. Records are read by hand rather than with json-c,
 * because a record is one flat object whose bulk is an array of integers, and
 * a JSON tree would allocate an object for each of them; memory stays at one
 * line whatever the trace. It does not sort: a trace is in order of arrival.
 */
#include <mooncake.h>
#include "../base/err.h"
#include "../base/util.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
	TRACE_BUF = 64 << 10,
	TRACE_LINE_MAX = 16 << 20,
	TRACE_DEPTH_MAX = 32,		/* of values that are skipped */
};

struct trace_format {
	const char *name;
	uint32_t block_tokens;
	bool (*sniff)(const char *line);

	/* Fill @out from the line in t->p, blocks into t->blocks. */
	int (*parse)(struct mc_trace *t, struct mc_trace_req *out);
};

struct mc_trace {
	int fd;
	char *path;
	const struct trace_format *format;
	uint32_t block_tokens;
	uint64_t line;			/* number of the current one */
	uint64_t last_ns;
	char *buf;			/* size + 1 bytes: room for a zero */
	size_t size, start, end;	/* [start, end) is read, not parsed */
	bool eof;
	const char *text, *p;		/* current line, and where in it */
	uint64_t *blocks;
	uint32_t n_blocks, cap;
};

/* ---- lines ---------------------------------------------------------- */

static int trace_bad(const struct mc_trace *t, const char *what)
{
	return mc_err(-EINVAL, "%s:%" PRIu64 ":%d: %s", t->path, t->line,
		      (int)(t->p - t->text) + 1, what);
}

/* Make room behind t->end, at the cost of what is parsed already. */
static int trace_room(struct mc_trace *t)
{
	char *buf;

	if (t->start) {
		memmove(t->buf, t->buf + t->start, t->end - t->start);
		t->end -= t->start;
		t->start = 0;
	}
	if (t->end < t->size)
		return 0;
	if (t->size >= TRACE_LINE_MAX)
		return mc_err(-EMSGSIZE, "%s:%" PRIu64 ": a line of more than "
			      "%d MiB is no record of a trace", t->path,
			      t->line + 1, TRACE_LINE_MAX >> 20);
	buf = realloc(t->buf, t->size * 2 + 1);
	if (!buf)
		return mc_err(-ENOMEM, "%s: no memory for a line of %zu bytes",
			      t->path, t->size);
	t->buf = buf;
	t->size *= 2;
	return 0;
}

static int trace_fill(struct mc_trace *t)
{
	ssize_t n;
	int r = trace_room(t);

	if (r < 0)
		return r;
	do {
		n = read(t->fd, t->buf + t->end, t->size - t->end);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return mc_syserr(-errno, "cannot read %s", t->path);
	t->end += n;
	t->eof = !n;
	return 0;
}

/* Set t->p to the next line, ended by a zero: 1, or 0 at the end. */
static int trace_line(struct mc_trace *t)
{
	size_t seen = 0;
	char *nl;
	int r;

	for (;;) {
		nl = memchr(t->buf + t->start + seen, '\n',
			    t->end - t->start - seen);
		if (nl || t->eof)
			break;
		seen = t->end - t->start;
		r = trace_fill(t);
		if (r < 0)
			return r;
	}
	if (!nl && t->start == t->end)
		return 0;
	if (!nl)
		nl = t->buf + t->end;
	*nl = '\0';
	t->p = t->text = t->buf + t->start;
	t->start = mc_min((size_t)(nl + 1 - t->buf), t->end);
	t->line++;
	return 1;
}

/* ---- JSON ----------------------------------------------------------- */

static void trace_space(struct mc_trace *t)
{
	while (*t->p == ' ' || *t->p == '\t' || *t->p == '\r')
		t->p++;
}

/* Past @c and the space around it, if it is there. */
static bool trace_take(struct mc_trace *t, char c)
{
	trace_space(t);
	if (*t->p != c)
		return false;
	t->p++;
	trace_space(t);
	return true;
}

static bool trace_digit(char c)
{
	return c >= '0' && c <= '9';
}

/* An unsigned integer of at most @max, without sign, fraction or exponent. */
static int trace_uint(struct mc_trace *t, uint64_t max, uint64_t *out)
{
	const char *p = t->p;
	uint64_t v = 0;

	if (!trace_digit(*p))
		return trace_bad(t, "a whole number should be here");
	for (; trace_digit(*p); p++) {
		unsigned int d = *p - '0';

		if (v > (max - d) / 10)
			return trace_bad(t, "this number is too large");
		v = v * 10 + d;
	}
	if (*p == '.' || *p == 'e' || *p == 'E')
		return trace_bad(t, "a whole number should be here");
	t->p = p;
	*out = v;
	return 0;
}

/* A block id: any 64 bits, written as unsigned or as signed integer. */
static int trace_id(struct mc_trace *t, uint64_t *out)
{
	uint64_t v;
	int r;

	if (*t->p != '-')
		return trace_uint(t, UINT64_MAX, out);
	t->p++;
	r = trace_uint(t, (uint64_t)1 << 63, &v);
	if (!r)
		*out = -v;
	return r;
}

/* A time in units of @unit nanoseconds (a power of ten), in decimals, none of
 * which passes through a float. What is below a nanosecond is cut. */
static int trace_time(struct mc_trace *t, uint64_t unit, uint64_t *out)
{
	const char *p = t->p;
	uint64_t v = 0;

	if (!trace_digit(*p))
		return trace_bad(t, "a time of 0 or more should be here");
	for (; trace_digit(*p); p++) {
		if (v > (uint64_t)INT64_MAX / unit / 10 - 1)
			return trace_bad(t, "this time is too large");
		v = v * 10 + (*p - '0');
	}
	v *= unit;
	if (*p == '.')
		for (p++; trace_digit(*p); p++) {
			unit /= 10;
			v += unit * (*p - '0');
		}
	if (*p == 'e' || *p == 'E')
		return trace_bad(t, "a time is written without exponent");
	t->p = p;
	*out = v;
	return 0;
}

/* A string, of which the text between the quotes is wanted as it stands. */
static int trace_string(struct mc_trace *t, const char **s, size_t *len)
{
	const char *p;

	if (*t->p != '"')
		return trace_bad(t, "a string should begin here");
	for (p = t->p + 1; *p != '"'; p++) {
		if (*p == '\\')
			p++;
		if (!*p)
			return trace_bad(t, "this string has no end");
	}
	*s = t->p + 1;
	*len = p - *s;
	t->p = p + 1;
	return 0;
}

/* Past one value of any kind. Brackets are matched, words not looked at. */
static int trace_skip(struct mc_trace *t)
{
	char closer[TRACE_DEPTH_MAX];
	int depth = 0, r = 0;
	const char *s;
	size_t len;

	do {
		trace_space(t);
		if (*t->p == '"') {
			r = trace_string(t, &s, &len);
		} else if (*t->p == '{' || *t->p == '[') {
			if (depth == TRACE_DEPTH_MAX)
				return trace_bad(t, "nested too deep");
			closer[depth++] = *t->p++ == '{' ? '}' : ']';
		} else if (depth && *t->p == closer[depth - 1]) {
			depth--;
			t->p++;
		} else if (depth && (*t->p == ',' || *t->p == ':')) {
			t->p++;
		} else {
			len = strcspn(t->p, ",:\"{}[] \t\r");
			if (!len)
				return trace_bad(t, "a value should be here");
			t->p += len;
		}
	} while (!r && depth);
	return r;
}

static int trace_blocks(struct mc_trace *t)
{
	if (!trace_take(t, '['))
		return trace_bad(t, "hash_ids should be a list");
	t->n_blocks = 0;
	if (trace_take(t, ']'))
		return 0;
	do {
		int r;

		if (t->n_blocks == t->cap) {
			uint32_t cap = t->cap ? t->cap * 2 : 256;
			uint64_t *b = realloc(t->blocks, cap * sizeof(*b));

			if (!b)
				return mc_err(-ENOMEM, "%s: no memory for %u "
					      "block ids", t->path, cap);
			t->blocks = b;
			t->cap = cap;
		}
		r = trace_id(t, &t->blocks[t->n_blocks]);
		if (r < 0)
			return r;
		t->n_blocks++;
	} while (trace_take(t, ','));
	if (!trace_take(t, ']'))
		return trace_bad(t, "',' or ']' should follow in hash_ids");
	return 0;
}

/* ---- Mooncake JSONL ------------------------------------------------- */

enum trace_field {
	TRACE_TIMESTAMP = 1,
	TRACE_INPUT = 2,
	TRACE_OUTPUT = 4,
	TRACE_HASH_IDS = 8,
	TRACE_ALL = 15,
};

static const struct {
	const char *name;
	enum trace_field field;
} trace_fields[] = {
	{ "timestamp", TRACE_TIMESTAMP },
	{ "input_length", TRACE_INPUT },
	{ "output_length", TRACE_OUTPUT },
	{ "hash_ids", TRACE_HASH_IDS },
};

static unsigned int trace_field_of(const char *name, size_t len)
{
	for (size_t i = 0; i < mc_array_len(trace_fields); i++)
		if (strlen(trace_fields[i].name) == len &&
		    !memcmp(trace_fields[i].name, name, len))
			return trace_fields[i].field;
	return 0;
}

static int trace_value(struct mc_trace *t, unsigned int field,
		       struct mc_trace_req *out)
{
	uint64_t v = 0;
	int r;

	switch (field) {
	case TRACE_TIMESTAMP:
		return trace_time(t, 1000000, &out->at_ns);
	case TRACE_INPUT:
		r = trace_uint(t, INT32_MAX, &v);
		out->input_tokens = v;
		return r;
	case TRACE_OUTPUT:
		r = trace_uint(t, INT32_MAX, &v);
		out->output_tokens = v;
		return r;
	case TRACE_HASH_IDS:
		return trace_blocks(t);
	}
	return trace_skip(t);
}

static int trace_missing(const struct mc_trace *t, unsigned int have)
{
	char what[64];
	size_t i = 0;

	while (have & trace_fields[i].field)
		i++;
	snprintf(what, sizeof(what), "the record has no %s",
		 trace_fields[i].name);
	return trace_bad(t, what);
}

static int trace_mooncake(struct mc_trace *t, struct mc_trace_req *out)
{
	unsigned int have = 0;

	if (!trace_take(t, '{'))
		return trace_bad(t, "a record should begin with '{'");
	if (trace_take(t, '}'))
		return trace_missing(t, 0);
	do {
		unsigned int field;
		const char *key = "";
		size_t len = 0;
		int r = trace_string(t, &key, &len);

		if (r < 0)
			return r;
		field = trace_field_of(key, len);
		if (have & field)
			return trace_bad(t, "this field is there twice");
		have |= field;
		if (!trace_take(t, ':'))
			return trace_bad(t, "':' should follow the name");
		r = trace_value(t, field, out);
		if (r < 0)
			return r;
	} while (trace_take(t, ','));
	if (!trace_take(t, '}'))
		return trace_bad(t, "',' or '}' should follow");
	if (*t->p)
		return trace_bad(t, "the line should end after the record");
	return have == TRACE_ALL ? 0 : trace_missing(t, have);
}

static bool trace_is_mooncake(const char *line)
{
	return *line == '{';
}

static const struct trace_format trace_formats[] = {
	{ "mooncake", 512, trace_is_mooncake, trace_mooncake },
};

/* ---- any format ----------------------------------------------------- */

static int trace_sniff(struct mc_trace *t)
{
	for (size_t i = 0; i < mc_array_len(trace_formats); i++) {
		if (!trace_formats[i].sniff(t->p))
			continue;
		t->format = &trace_formats[i];
		if (!t->block_tokens)
			t->block_tokens = t->format->block_tokens;
		return 0;
	}
	return trace_bad(t, "no trace format begins like this; known: "
			 "mooncake (JSON objects, one a line)");
}

/* What holds for a record of every format. The last, partial block may be left
 * without id: some writers hash whole blocks only. */
static int trace_check(struct mc_trace *t, const struct mc_trace_req *r)
{
	uint32_t whole = r->input_tokens / t->block_tokens;
	uint32_t all = whole + !!(r->input_tokens % t->block_tokens);

	t->p = t->text;
	if (r->n_blocks && r->n_blocks != all && r->n_blocks != whole)
		return mc_err(-EINVAL, "%s:%" PRIu64 ": %u block ids for %u "
			      "tokens, but blocks of %u tokens would be %u: is "
			      "the block size another?", t->path, t->line,
			      r->n_blocks, r->input_tokens, t->block_tokens,
			      all);
	if (r->at_ns < t->last_ns)
		return mc_err(-EINVAL, "%s:%" PRIu64 ": it came %.3f ms before "
			      "the request of the line before; sort the trace "
			      "by time", t->path, t->line,
			      (t->last_ns - r->at_ns) / 1e6);
	t->last_ns = r->at_ns;
	return 0;
}

int mc_trace_next(struct mc_trace *t, struct mc_trace_req *out)
{
	struct mc_trace_req req = { 0 };
	int r;

	do {
		r = trace_line(t);
		if (r <= 0)
			return r;
		trace_space(t);
	} while (!*t->p);
	if (!t->format) {
		r = trace_sniff(t);
		if (r < 0)
			return r;
	}
	t->n_blocks = 0;
	r = t->format->parse(t, &req);
	if (r < 0)
		return r;
	req.line = t->line;
	req.block_tokens = t->block_tokens;
	req.n_blocks = t->n_blocks;
	req.blocks = t->n_blocks ? t->blocks : NULL;
	r = trace_check(t, &req);
	if (r < 0)
		return r;
	*out = req;
	return 1;
}

int mc_trace_rewind(struct mc_trace *t)
{
	if (lseek(t->fd, 0, SEEK_SET) < 0)
		return mc_syserr(-errno, "cannot go back in %s", t->path);
	t->start = t->end = 0;
	t->eof = false;
	t->line = t->last_ns = 0;
	return 0;
}

const char *mc_trace_format(const struct mc_trace *t)
{
	return t->format ? t->format->name : "";
}

static int trace_options(struct mc_trace *t,
			 const struct mc_trace_options *opts)
{
	if (!opts)
		return 0;
	t->block_tokens = opts->block_tokens;
	if (!opts->format)
		return 0;
	for (size_t i = 0; i < mc_array_len(trace_formats); i++)
		if (!strcmp(opts->format, trace_formats[i].name))
			t->format = &trace_formats[i];
	if (!t->format)
		return mc_err(-EINVAL, "trace format '%s': no such; there is: "
			      "mooncake", opts->format);
	if (!t->block_tokens)
		t->block_tokens = t->format->block_tokens;
	return 0;
}

int mc_trace_open(struct mc_trace **out, const char *path,
		  const struct mc_trace_options *opts)
{
	struct mc_trace *t = calloc(1, sizeof(*t));
	int r;

	if (!t)
		return mc_err(-ENOMEM, "no memory to read %s", path);
	t->fd = -1;
	t->size = TRACE_BUF;
	t->buf = malloc(t->size + 1);
	t->path = strdup(strcmp(path, "-") ? path : "standard input");
	if (!t->buf || !t->path) {
		r = mc_err(-ENOMEM, "no memory to read %s", path);
		goto fail;
	}
	r = trace_options(t, opts);
	if (r < 0)
		goto fail;
	t->fd = strcmp(path, "-") ? open(path, O_RDONLY | O_CLOEXEC) :
				    fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 0);
	if (t->fd < 0) {
		r = mc_syserr(-errno, "cannot open trace %s", path);
		goto fail;
	}
	*out = t;
	return 0;
fail:
	mc_trace_close(t);
	return r;
}

void mc_trace_close(struct mc_trace *t)
{
	if (!t)
		return;
	if (t->fd >= 0)
		close(t->fd);
	free(t->blocks);
	free(t->buf);
	free(t->path);
	free(t);
}
