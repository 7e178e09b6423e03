/*
 * trace.c - request traces: lines, fields, and the API over all formats.
 *
 * Records are read by hand rather than with json-c, because a record is one
 * flat line whose bulk is an array of integers, and a JSON tree would allocate
 * an object for each of them; memory stays at one line whatever the trace. It
 * does not sort: a trace is in order of arrival.
 */
#include "trace.h"
#include "../base/err.h"
#include "../base/util.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
	TRACE_BUF = 64 << 10,
	TRACE_LINE_MAX = 16 << 20,
};

/* The first that knows a line has it. */
static const struct trace_format *const trace_formats[] = {
	&trace_qwen, &trace_mooncake, &trace_azure, &trace_burstgpt,
};

/* ---- lines ---------------------------------------------------------- */

int trace_bad(const struct mc_trace *t, const char *what)
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

/* ---- fields --------------------------------------------------------- */

int trace_uint(struct mc_trace *t, uint64_t max, uint64_t *out)
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

int trace_tokens(struct mc_trace *t, uint32_t *out)
{
	uint64_t v;
	int r = trace_uint(t, INT32_MAX, &v);

	if (!r)
		*out = v;
	return r;
}

uint64_t trace_decimals(struct mc_trace *t, uint64_t unit)
{
	uint64_t v = 0;

	if (*t->p == '.')
		for (t->p++; trace_digit(*t->p); t->p++) {
			unit /= 10;
			v += unit * (*t->p - '0');
		}
	return v;
}

int trace_time(struct mc_trace *t, uint64_t unit, uint64_t *out)
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
	t->p = p;
	v = v * unit + trace_decimals(t, unit);
	if (*t->p == 'e' || *t->p == 'E')
		return trace_bad(t, "a time is written without exponent");
	*out = v;
	return 0;
}

/* ---- any format ----------------------------------------------------- */

/* "mooncake, qwen" in @out. */
static const char *trace_names(char *out, size_t size)
{
	size_t n = 0;

	for (size_t i = 0; i < mc_array_len(trace_formats) && n < size; i++)
		n += snprintf(out + n, size - n, "%s%s", i ? ", " : "",
			      trace_formats[i]->name);
	return out;
}

static void trace_set_format(struct mc_trace *t, const struct trace_format *f)
{
	t->format = f;
	if (!t->block_tokens)
		t->block_tokens = f->block_tokens;
}

static int trace_sniff(struct mc_trace *t)
{
	char names[64], what[128];

	for (size_t i = 0; i < mc_array_len(trace_formats); i++)
		if (trace_formats[i]->sniff(t->p)) {
			trace_set_format(t, trace_formats[i]);
			return 0;
		}
	snprintf(what, sizeof(what), "no trace format begins like this; "
		 "known: %s", trace_names(names, sizeof(names)));
	return trace_bad(t, what);
}

/* The next line that holds a request: 1, or 0 at the end. */
static int trace_read(struct mc_trace *t, struct mc_trace_req *out)
{
	int r;

	do {
		r = trace_line(t);
		if (r <= 0)
			return r;
		trace_space(t);
		if (!*t->p) {
			r = 0;
			continue;
		}
		r = t->format ? 0 : trace_sniff(t);
		if (r < 0)
			return r;
		t->n_blocks = 0;
		r = t->format->parse(t, out);
	} while (!r);
	return r;
}

/* What holds for a record of every format. The last, partial block may be left
 * without id: some writers hash whole blocks only. */
static int trace_check(struct mc_trace *t, const struct mc_trace_req *r)
{
	uint32_t whole = r->input_tokens / t->block_tokens;
	uint32_t all = whole + !!(r->input_tokens % t->block_tokens);

	if (t->n_blocks && t->n_blocks != all && t->n_blocks != whole)
		return mc_err(-EINVAL, "%s:%" PRIu64 ": %u block ids for %u "
			      "tokens, but blocks of %u tokens would be %u: is "
			      "the block size another?", t->path, t->line,
			      t->n_blocks, r->input_tokens, t->block_tokens,
			      all);
	if (t->begun && r->at_ns < t->last_ns)
		return mc_err(-EINVAL, "%s:%" PRIu64 ": it came %.3f ms before "
			      "the request of the line before; sort the trace "
			      "by time", t->path, t->line,
			      (t->last_ns - r->at_ns) / 1e6);
	return 0;
}

int mc_trace_next(struct mc_trace *t, struct mc_trace_req *out)
{
	struct mc_trace_req req = { 0 };
	int r = trace_read(t, &req);

	if (r <= 0)
		return r;
	r = trace_check(t, &req);
	if (r < 0)
		return r;
	if (!t->begun)
		t->first_ns = req.at_ns;
	t->begun = true;
	t->last_ns = req.at_ns;
	if (t->format->from_first)
		req.at_ns -= t->first_ns;
	req.line = t->line;
	req.block_tokens = t->block_tokens;
	req.n_blocks = t->n_blocks;
	req.blocks = t->n_blocks ? t->blocks : NULL;
	*out = req;
	return 1;
}

int mc_trace_rewind(struct mc_trace *t)
{
	if (lseek(t->fd, 0, SEEK_SET) < 0)
		return mc_syserr(-errno, "cannot go back in %s", t->path);
	t->start = t->end = 0;
	t->eof = t->begun = false;
	t->line = 0;
	t->columns = 0;
	return 0;
}

const char *mc_trace_format(const struct mc_trace *t)
{
	return t->format ? t->format->name : "";
}

static int trace_options(struct mc_trace *t,
			 const struct mc_trace_options *opts)
{
	char names[64];

	if (!opts)
		return 0;
	t->block_tokens = opts->block_tokens;
	if (!opts->format)
		return 0;
	for (size_t i = 0; i < mc_array_len(trace_formats); i++)
		if (!strcmp(opts->format, trace_formats[i]->name)) {
			trace_set_format(t, trace_formats[i]);
			return 0;
		}
	return mc_err(-EINVAL, "trace format '%s': no such; there are: %s",
		      opts->format, trace_names(names, sizeof(names)));
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
