/*
 * trace_json.c - traces of JSON objects, one a line: Mooncake's and Qwen's.
 *
 * Both have the same four fields that matter here, and any others are skipped.
 * They differ in units, and in what an id stands for: a Mooncake id names a
 * block and all before it. A Qwen id (qwen-bailian-usagetraces-anon, README)
 * is, in some of the files, a hash of its 16 tokens only, so the same id comes
 * at several places; each is made one of the whole prefix here.
 */
#include "trace.h"
#include "../base/err.h"
#include "../base/util.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { JSON_DEPTH_MAX = 32 };		/* of values that are skipped */

/* A block id: any 64 bits, written as unsigned or as signed integer. */
static int json_id(struct mc_trace *t, uint64_t *out)
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

/* A string, of which the text between the quotes is wanted as it stands. */
static int json_text(struct mc_trace *t, const char **s, size_t *len)
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
static int json_skip(struct mc_trace *t)
{
	char closer[JSON_DEPTH_MAX];
	int depth = 0, r = 0;
	const char *s;
	size_t len;

	do {
		trace_space(t);
		if (*t->p == '"') {
			r = json_text(t, &s, &len);
		} else if (*t->p == '{' || *t->p == '[') {
			if (depth == JSON_DEPTH_MAX)
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

static int json_room(struct mc_trace *t)
{
	uint32_t cap = t->cap ? t->cap * 2 : 256;
	uint64_t *b;

	if (t->n_blocks < t->cap)
		return 0;
	b = realloc(t->blocks, cap * sizeof(*b));
	if (!b)
		return mc_err(-ENOMEM, "%s: no memory for %u block ids",
			      t->path, cap);
	t->blocks = b;
	t->cap = cap;
	return 0;
}

static int json_blocks(struct mc_trace *t)
{
	int r;

	if (!trace_take(t, '['))
		return trace_bad(t, "hash_ids should be a list");
	t->n_blocks = 0;
	if (trace_take(t, ']'))
		return 0;
	do {
		r = json_room(t);
		if (r < 0)
			return r;
		r = json_id(t, &t->blocks[t->n_blocks]);
		if (r < 0)
			return r;
		t->n_blocks++;
	} while (trace_take(t, ','));
	if (!trace_take(t, ']'))
		return trace_bad(t, "',' or ']' should follow in hash_ids");
	return 0;
}

/* ---- records -------------------------------------------------------- */

enum json_field {
	JSON_TIMESTAMP = 1,
	JSON_INPUT = 2,
	JSON_OUTPUT = 4,
	JSON_HASH_IDS = 8,
	JSON_ALL = 15,
};

static const struct {
	const char *name;
	enum json_field field;
} json_fields[] = {
	{ "timestamp", JSON_TIMESTAMP },
	{ "input_length", JSON_INPUT },
	{ "output_length", JSON_OUTPUT },
	{ "hash_ids", JSON_HASH_IDS },
};

static unsigned int json_field_of(const char *name, size_t len)
{
	for (size_t i = 0; i < mc_array_len(json_fields); i++)
		if (strlen(json_fields[i].name) == len &&
		    !memcmp(json_fields[i].name, name, len))
			return json_fields[i].field;
	return 0;
}

static int json_value(struct mc_trace *t, unsigned int field, uint64_t unit_ns,
		      struct mc_trace_req *out)
{
	switch (field) {
	case JSON_TIMESTAMP:
		return trace_time(t, unit_ns, &out->at_ns);
	case JSON_INPUT:
		return trace_tokens(t, &out->input_tokens);
	case JSON_OUTPUT:
		return trace_tokens(t, &out->output_tokens);
	case JSON_HASH_IDS:
		return json_blocks(t);
	}
	return json_skip(t);
}

static int json_missing(const struct mc_trace *t, unsigned int have)
{
	char what[64];
	size_t i = 0;

	while (have & json_fields[i].field)
		i++;
	snprintf(what, sizeof(what), "the record has no %s",
		 json_fields[i].name);
	return trace_bad(t, what);
}

static int json_record(struct mc_trace *t, uint64_t unit_ns,
		       struct mc_trace_req *out)
{
	unsigned int have = 0;

	if (!trace_take(t, '{'))
		return trace_bad(t, "a record should begin with '{'");
	if (trace_take(t, '}'))
		return json_missing(t, 0);
	do {
		unsigned int field;
		const char *key = "";
		size_t len = 0;
		int r = json_text(t, &key, &len);

		if (r < 0)
			return r;
		field = json_field_of(key, len);
		if (have & field)
			return trace_bad(t, "this field is there twice");
		have |= field;
		if (!trace_take(t, ':'))
			return trace_bad(t, "':' should follow the name");
		r = json_value(t, field, unit_ns, out);
		if (r < 0)
			return r;
	} while (trace_take(t, ','));
	if (!trace_take(t, '}'))
		return trace_bad(t, "',' or '}' should follow");
	if (*t->p)
		return trace_bad(t, "the line should end after the record");
	return have == JSON_ALL ? 1 : json_missing(t, have);
}

/* ---- formats -------------------------------------------------------- */

static bool json_is_mooncake(const char *line)
{
	return *line == '{';
}

static int json_mooncake(struct mc_trace *t, struct mc_trace_req *out)
{
	return json_record(t, 1000000, out);
}

const struct trace_format trace_mooncake = {
	.name = "mooncake",
	.block_tokens = 512,
	.sniff = json_is_mooncake,
	.parse = json_mooncake,
};

static bool json_is_qwen(const char *line)
{
	return *line == '{' && strstr(line, "\"chat_id\"");
}

static int json_qwen(struct mc_trace *t, struct mc_trace_req *out)
{
	uint64_t chain = 0;
	int r = json_record(t, 1000000000, out);

	if (r < 0)
		return r;
	for (uint32_t i = 0; i < t->n_blocks; i++) {
		chain = mc_hash(&t->blocks[i], sizeof(chain), chain);
		t->blocks[i] = chain;
	}
	return r;
}

const struct trace_format trace_qwen = {
	.name = "qwen",
	.block_tokens = 16,
	.sniff = json_is_qwen,
	.parse = json_qwen,
};
