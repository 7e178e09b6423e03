/* trace_text.h - texts and files as traces, for the tests of the readers. */
#ifndef MC_TESTS_TRACE_TEXT_H
#define MC_TESTS_TRACE_TEXT_H

#include <mooncake.h>

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

static inline struct mc_trace *open_bytes(const char *text, size_t len,
					  const struct mc_trace_options *opts)
{
	char path[32];
	struct mc_trace *t = NULL;
	int fd = memfd_create("trace", 0);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, len), len);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	assert_int_equal(mc_trace_open(&t, path, opts), 0);
	close(fd);
	return t;
}

static inline struct mc_trace *open_text(const char *text)
{
	return open_bytes(text, strlen(text), NULL);
}

/* All of @text is read until an error, which must be as @why says. */
static inline void refuses(const char *text, const char *why)
{
	struct mc_trace *t = open_text(text);
	struct mc_trace_req r;
	int got;

	do {
		got = mc_trace_next(t, &r);
	} while (got > 0);
	if (got != -EINVAL || !strstr(mc_errmsg(), why))
		fail_msg("%s: %d, %s", text, got, mc_errmsg());
	mc_trace_close(t);
}

struct sums {
	char format[16];
	uint64_t requests, input_tokens, output_tokens, blocks, at_ns, last_ns;
};

/* Of a file that is not ours to keep: without it the test is skipped. */
static inline struct sums sums_of(const char *path)
{
	struct sums s = { .requests = 0 };
	struct mc_trace *t = NULL;
	struct mc_trace_req r;
	int got;

	if (access(path, R_OK) < 0) {
		print_message("skipped: no %s\n", path);
		skip();
	}
	assert_int_equal(mc_trace_open(&t, path, NULL), 0);
	while ((got = mc_trace_next(t, &r)) > 0) {
		s.requests++;
		s.input_tokens += r.input_tokens;
		s.output_tokens += r.output_tokens;
		s.blocks += r.n_blocks;
		s.at_ns += r.at_ns;
		s.last_ns = r.at_ns;
	}
	if (got < 0)
		fail_msg("%s", mc_errmsg());
	snprintf(s.format, sizeof(s.format), "%s", mc_trace_format(t));
	mc_trace_close(t);
	return s;
}

#endif
