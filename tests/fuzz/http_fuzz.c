/*
 * http_fuzz.c - libFuzzer target: any bytes as a query string, as a number in a
 * header and as the lines of a watch, for the server and the client of
 * src/registry.
 */
#include "replay.h"

#include "../../src/registry/query.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* What was decoded must survive being encoded and decoded again. */
static void check_again(const char *value, size_t len)
{
	char *query = malloc(3 * len + 3);
	char *again = malloc(len + 1);
	ssize_t n = mc_query_escape(value, len, query + 2, 3 * len + 1);

	memcpy(query, "k=", 2);
	if (n < (ssize_t)len || strpbrk(query + 2, "&+ =#?/\n"))
		abort();
	n = mc_query_get(query, "k", again, len + 1);
	if (n != (ssize_t)len || memcmp(value, again, len))
		abort();
	if (len && mc_query_get(query, "k", again, len) != -E2BIG)
		abort();
	free(query);
	free(again);
}

static void check_query(const char *text)
{
	static const char *const names[] = { "key", "prefix", "after", "k" };
	char out[MC_KEY_MAX + 1];

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		ssize_t n = mc_query_get(text, names[i], out, sizeof(out));

		if (n < 0 && n != -ENOENT && n != -EINVAL && n != -E2BIG)
			abort();
		if (n < 0)
			continue;
		if (strlen(out) != (size_t)n)
			abort();
		check_again(out, n);
		if (!mc_key_check(out, n) && (!n || strchr(out, '\n') ||
					      !mc_utf8_ok(out, n)))
			abort();
	}
}

static void check_changes(const char *text, size_t len)
{
	struct mc_registry_change c;
	const char *s = text, *end = text + len;
	int r;

	while ((r = mc_change_next(&s, &len, &c)) > 0)
		if (c.key < text || c.key + c.len >= s || s > end ||
		    s + len != end || memchr(c.key, '\n', c.len))
			abort();
	if (r < 0 && r != -EBADMSG)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = malloc(size + 1);
	char *lines = malloc(size ? size : 1);
	uint64_t n;

	memcpy(text, data, size);
	text[size] = 0;
	memcpy(lines, data, size);	/* without a zero behind them */
	check_query(text);
	if (!mc_query_number(text, &n) && !strpbrk(text, "0123456789"))
		abort();
	check_changes(lines, size);
	free(text);
	free(lines);
	return 0;
}
