/*
 * trace_csv.c - traces of comma-separated values: Azure's and BurstGPT's.
 *
 * The first line names the columns, and three of them are wanted, wherever
 * they are: files of one family differ in the others. A field may stand in
 * quotes, but not go on in the next line. Neither family knows blocks.
 */
#include "trace.h"
#include "../base/err.h"
#include "../base/util.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { CSV_TIME, CSV_INPUT, CSV_OUTPUT };	/* mc_trace.column[] */

/* ---- fields --------------------------------------------------------- */

/* Past a field, of which the text is wanted without quotes and blanks. */
static int csv_text(struct mc_trace *t, const char **s, size_t *len)
{
	const char *p = t->p + 1;

	*s = t->p;
	if (*t->p == '"') {
		while (*p && (*p != '"' || p[1] == '"'))
			p += *p == '"' ? 2 : 1;
		if (!*p)
			return trace_bad(t, "this field has no second quote");
		++*s;
		*len = p - *s;
		t->p = p + 1;
		return 0;
	}
	*len = strcspn(t->p, ",");
	t->p += *len;
	while (*len && strchr(" \t\r", (*s)[*len - 1]))
		--*len;
	return 0;
}

/* To the next field of the line: false after the last one. */
static bool csv_more(struct mc_trace *t, int *r)
{
	if (*r < 0)
		return false;
	if (trace_take(t, ','))
		return true;
	if (*t->p)
		*r = trace_bad(t, "',' should follow");
	return false;
}

/* ---- dates ---------------------------------------------------------- */

/* Days since 1970. Years begin in March, so that the leap day is the last one
 * (Hinnant: "chrono-compatible low-level date algorithms"). */
static int64_t csv_days(int year, int month, int day)
{
	year -= month <= 2;
	month += month <= 2 ? 9 : -3;
	return 365 * (int64_t)year + year / 4 - year / 100 + year / 400 +
	       (153 * month + 2) / 5 + day - 1 - 719468;
}

/* @digits of a number from @min to @max. */
static int csv_digits(struct mc_trace *t, int digits, int min, int max,
		      int *out)
{
	int v = 0;

	for (int i = 0; i < digits; i++) {
		if (!trace_digit(t->p[i]))
			return trace_bad(t, "a time is written as 2023-11-16 "
					 "18:17:03.9799600");
		v = v * 10 + (t->p[i] - '0');
	}
	if (v < min || v > max)
		return trace_bad(t, "there is no such time");
	t->p += digits;
	*out = v;
	return 0;
}

/* "Z", "+02:00", "+0200" or nothing, in minutes. */
static int csv_zone(struct mc_trace *t, int *out)
{
	int sign = *t->p == '-' ? -1 : 1, hours = 0, minutes = 0;
	int r;

	*out = 0;
	if (*t->p == 'Z')
		t->p++;
	if (*t->p != '+' && *t->p != '-')
		return 0;
	t->p++;
	r = csv_digits(t, 2, 0, 23, &hours);
	if (r < 0)
		return r;
	if (*t->p == ':')
		t->p++;
	r = csv_digits(t, 2, 0, 59, &minutes);
	*out = sign * (hours * 60 + minutes);
	return r;
}

/* A date with a time, down to any decimals of a second, with or without zone:
 * since 1970 in nanoseconds, of which 64 bits hold the years below. */
static int csv_date(struct mc_trace *t, uint64_t *out)
{
	static const struct {
		int digits, min, max;
		const char *after;	/* which one of these follows */
	} part[] = {
		{ 4, 1971, 2261, "-" }, { 2, 1, 12, "-" }, { 2, 1, 31, " T" },
		{ 2, 0, 23, ":" }, { 2, 0, 59, ":" }, { 2, 0, 59, NULL },
	};
	int v[mc_array_len(part)], zone, r;
	uint64_t ns;
	int64_t days;

	for (size_t i = 0; i < mc_array_len(part); i++) {
		r = csv_digits(t, part[i].digits, part[i].min, part[i].max,
			       &v[i]);
		if (r < 0)
			return r;
		if (!part[i].after)
			break;
		if (!*t->p || !strchr(part[i].after, *t->p))
			return trace_bad(t, "this is no date with a time");
		t->p++;
	}
	days = csv_days(v[0], v[1], v[2]);
	if (days >= csv_days(v[0] + v[1] / 12, v[1] % 12 + 1, 1))
		return trace_bad(t, "this month has no such day");
	ns = trace_decimals(t, 1000000000);
	r = csv_zone(t, &zone);
	if (r < 0)
		return r;
	*out = (days * 86400 + v[3] * 3600 + v[4] * 60 + v[5] - zone * 60) *
	       (uint64_t)1000000000 + ns;
	return 0;
}

/* ---- lines ---------------------------------------------------------- */

/* Which column is which; @names are those wanted. */
static int csv_header(struct mc_trace *t, const char *const *names)
{
	char what[64];
	const char *s = "";
	size_t len = 0;
	int n = 0, r;

	memset(t->column, 0xff, sizeof(t->column));
	do {
		r = csv_text(t, &s, &len);
		for (int i = 0; i < TRACE_COLUMNS; i++)
			if (strlen(names[i]) == len &&
			    !memcmp(names[i], s, len))
				t->column[i] = n;
		n++;
	} while (csv_more(t, &r));
	for (int i = 0; !r && i < TRACE_COLUMNS; i++)
		if (t->column[i] < 0) {
			snprintf(what, sizeof(what), "the header has no column "
				 "'%s'", names[i]);
			r = trace_bad(t, what);
		}
	if (!r)
		t->columns = n;
	return r;
}

static int csv_row(struct mc_trace *t, struct mc_trace_req *out,
		   int (*when)(struct mc_trace *t, uint64_t *out))
{
	const char *s;
	size_t len;
	int n = 0, r;

	do {
		if (n == t->column[CSV_TIME])
			r = when(t, &out->at_ns);
		else if (n == t->column[CSV_INPUT])
			r = trace_tokens(t, &out->input_tokens);
		else if (n == t->column[CSV_OUTPUT])
			r = trace_tokens(t, &out->output_tokens);
		else
			r = csv_text(t, &s, &len);
		n++;
	} while (csv_more(t, &r));
	if (r < 0)
		return r;
	if (n != t->columns)
		return mc_err(-EINVAL, "%s:%" PRIu64 ": %d fields, and the "
			      "header names %d", t->path, t->line, n,
			      t->columns);
	return 1;
}

static bool csv_names_all(const char *line, const char *const *names)
{
	for (int i = 0; i < TRACE_COLUMNS; i++)
		if (!strstr(line, names[i]))
			return false;
	return true;
}

/* ---- Azure ---------------------------------------------------------- */

/* AzurePublicDataset, LLM inference traces of 2023 and 2024. */
static const char *const csv_azure_names[] = {
	"TIMESTAMP", "ContextTokens", "GeneratedTokens",
};

static bool csv_is_azure(const char *line)
{
	return csv_names_all(line, csv_azure_names);
}

static int csv_azure(struct mc_trace *t, struct mc_trace_req *out)
{
	if (!t->columns)
		return csv_header(t, csv_azure_names);
	return csv_row(t, out, csv_date);
}

const struct trace_format trace_azure = {
	.name = "azure",
	.block_tokens = 512,
	.from_first = true,
	.sniff = csv_is_azure,
	.parse = csv_azure,
};

/* ---- BurstGPT ------------------------------------------------------- */

/* Times are seconds, but a file begins where the one before it ended. */
static const char *const csv_burstgpt_names[] = {
	"Timestamp", "Request tokens", "Response tokens",
};

static bool csv_is_burstgpt(const char *line)
{
	return csv_names_all(line, csv_burstgpt_names);
}

static int csv_seconds(struct mc_trace *t, uint64_t *out)
{
	return trace_time(t, 1000000000, out);
}

/* No response token: the service failed. Without those a file is what its
 * authors publish as "without fails". */
static int csv_burstgpt(struct mc_trace *t, struct mc_trace_req *out)
{
	int r;

	if (!t->columns)
		return csv_header(t, csv_burstgpt_names);
	r = csv_row(t, out, csv_seconds);
	return r < 0 ? r : out->output_tokens > 0;
}

const struct trace_format trace_burstgpt = {
	.name = "burstgpt",
	.block_tokens = 512,
	.from_first = true,
	.sniff = csv_is_burstgpt,
	.parse = csv_burstgpt,
};
