/* trace_test.c - the trace reader: lines, JSON formats, what it refuses. */
#include "trace_text.h"

#include <unistd.h>

#define REC(at, in, ids) \
	"{\"timestamp\": " at ", \"input_length\": " in \
	", \"output_length\": 7, \"hash_ids\": [" ids "]}\n"

#define QWEN(at, in, ids) \
	"{\"chat_id\": 159, \"parent_chat_id\": -1, \"timestamp\": " at \
	", \"input_length\": " in ", \"output_length\": 132, \"type\": " \
	"\"text\", \"turn\": 2, \"hash_ids\": [" ids "]}\n"

static void reads_records(void **state)
{
	struct mc_trace *t = open_text(
		REC("0", "513", "0, 1") "\n"
		"  {\"hash_ids\":[],\"output_length\":1,\"input_length\":0,"
		"\"timestamp\":1.5}\r\n"
		REC("2999", "1024", "18446744073709551615, -1"));
	struct mc_trace_req r;

	(void)state;
	assert_string_equal(mc_trace_format(t), "");
	assert_int_equal(mc_trace_next(t, &r), 1);
	assert_string_equal(mc_trace_format(t), "mooncake");
	assert_int_equal(r.line, 1);
	assert_int_equal(r.n_blocks, 2);
	assert_int_equal(r.blocks[1], 1);
	assert_int_equal(r.input_tokens, 513);
	assert_int_equal(r.output_tokens, 7);
	assert_int_equal(r.block_tokens, 512);
	assert_int_equal(mc_trace_next(t, &r), 1);
	assert_int_equal(r.line, 3);
	assert_int_equal(r.at_ns, 1500000);
	assert_int_equal(r.n_blocks, 0);
	assert_int_equal(mc_trace_next(t, &r), 1);
	assert_int_equal(r.at_ns, 2999000000u);
	assert_true(r.blocks[0] == UINT64_MAX && r.blocks[1] == UINT64_MAX);
	assert_int_equal(mc_trace_next(t, &r), 0);
	assert_int_equal(mc_trace_next(t, &r), 0);
	assert_int_equal(mc_trace_rewind(t), 0);
	assert_int_equal(mc_trace_next(t, &r), 1);
	assert_int_equal(r.line, 1);
	mc_trace_close(t);
	mc_trace_close(NULL);
}

static void skips_what_it_does_not_know(void **state)
{
	struct mc_trace *t = open_text(
		"{\"chat\": {\"a\": [1, {\"b\": \"}\\\"]\"}], \"c\": null}, "
		"\"timestamp\": 0, \"x\": -1.5e3, \"input_length\": 1, "
		"\"t\": true, \"output_length\": 2, \"hash_ids\": [9], "
		"\"s\": \"\\\\\"}");
	struct mc_trace_req r;

	(void)state;
	assert_int_equal(mc_trace_next(t, &r), 1);
	assert_int_equal(r.blocks[0], 9);
	assert_int_equal(mc_trace_next(t, &r), 0);
	mc_trace_close(t);
}

static void says_where_and_why(void **state)
{
	static const struct {
		const char *text, *why;
	} bad[] = {
		{ "timestamp,tokens\n", ":1:1: no trace format begins" },
		{ "{}\n", "no timestamp" },
		{ "{\"timestamp\": 1, \"input_length\": 2, "
		  "\"output_length\": 3}", "no hash_ids" },
		{ "{\"timestamp\": \"1\"}", ":1:15: a time of 0" },
		{ "{\"timestamp\": 1e3}", "without exponent" },
		{ "{\"timestamp\": 99999999999999999999}", "too large" },
		{ "{\"timestamp\": -5}", "a time of 0 or more" },
		{ "{\"timestamp\": 1, \"timestamp\": 1}", "twice" },
		{ "{\"input_length\": 1.5}", "whole number" },
		{ "{\"input_length\": 2147483648}", "too large" },
		{ "{\"hash_ids\": 3}", "should be a list" },
		{ "{\"hash_ids\": [1 2]}", ":1:17: ',' or ']'" },
		{ "{\"hash_ids\": [1,]}", "whole number" },
		{ "{\"hash_ids\": [18446744073709551616]}", "too large" },
		{ "{\"hash_ids\": [-9223372036854775809]}", "too large" },
		{ "{\"a\" 1}", "':' should follow" },
		{ "{\"a\": 1", "',' or '}' should follow" },
		{ "{\"a: 1}", "has no end" },
		{ "{\"a\": [1}", "a value should be here" },
		{ "{a: 1}", "a string should begin" },
		{ REC("0", "1", "1") REC("5", "1025", "1"), ":2: 1 block ids"
		  " for 1025 tokens, but blocks of 512 tokens would be 3" },
		{ REC("0", "512", "1, 2"), "2 block ids for 512" },
		{ REC("5", "1", "1") REC("3", "1", "1"), ":2: it came 2.000" },
		{ "{\"timestamp\": 0, \"input_length\": 1, \"output_length\":"
		  " 1, \"hash_ids\": [1]} x", "should end" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		refuses(bad[i].text, bad[i].why);
}

static void goes_on_after_a_bad_line(void **state)
{
	struct mc_trace *t = open_text(REC("0", "1", "1") "{oops\n"
				       REC("9", "1", "2"));
	struct mc_trace_req r;

	(void)state;
	assert_int_equal(mc_trace_next(t, &r), 1);
	assert_int_equal(mc_trace_next(t, &r), -EINVAL);
	assert_int_equal(mc_trace_next(t, &r), 1);
	assert_int_equal(r.line, 3);
	mc_trace_close(t);
}

static void whole_blocks_only_is_fine(void **state)
{
	struct mc_trace_options opts = { .block_tokens = 16 };
	const char *text = REC("0", "40", "1, 2") REC("1", "40", "1, 2, 3");
	struct mc_trace *t = open_bytes(text, strlen(text), &opts);
	struct mc_trace_req r;

	(void)state;
	assert_int_equal(mc_trace_next(t, &r), 1);
	assert_int_equal(r.block_tokens, 16);
	assert_int_equal(r.n_blocks, 2);
	assert_int_equal(mc_trace_next(t, &r), 1);
	assert_int_equal(r.n_blocks, 3);
	mc_trace_close(t);
}

static void qwen_counts_in_seconds_and_blocks_of_16(void **state)
{
	struct mc_trace *t = open_text(QWEN("61.114", "33", "1, 2, 3")
				       QWEN("61.5", "32", "1, 2"));
	struct mc_trace_req r;

	(void)state;
	assert_int_equal(mc_trace_next(t, &r), 1);
	assert_string_equal(mc_trace_format(t), "qwen");
	assert_int_equal(r.at_ns, 61114000000);
	assert_int_equal(r.input_tokens, 33);
	assert_int_equal(r.output_tokens, 132);
	assert_int_equal(r.block_tokens, 16);
	assert_int_equal(r.n_blocks, 3);
	assert_int_equal(mc_trace_next(t, &r), 1);
	assert_int_equal(r.at_ns, 61500000000);
	assert_int_equal(r.n_blocks, 2);
	mc_trace_close(t);
}

/* In the file the same tokens have one id wherever they are; to the reader's
 * caller an id names all before it, too. */
static void qwen_ids_name_prefixes(void **state)
{
	struct mc_trace *t = open_text(QWEN("0", "64", "1, 2, 2, 3")
				       QWEN("0", "64", "1, 2, 3, 3")
				       QWEN("0", "32", "2, 1"));
	struct mc_trace_req r;
	uint64_t a[4];

	(void)state;
	assert_int_equal(mc_trace_next(t, &r), 1);
	memcpy(a, r.blocks, sizeof(a));
	assert_true(a[1] != a[2]);
	assert_int_equal(mc_trace_next(t, &r), 1);
	assert_true(r.blocks[0] == a[0] && r.blocks[1] == a[1]);
	assert_true(r.blocks[2] != a[2] && r.blocks[2] != a[3]);
	assert_true(r.blocks[3] != a[3]);
	assert_int_equal(mc_trace_next(t, &r), 1);
	assert_true(r.blocks[0] != a[0] && r.blocks[0] != a[1]);
	assert_true(r.blocks[1] != a[0] && r.blocks[1] != a[1]);
	mc_trace_close(t);
}

/* Known by its keys at the first line, or as the caller says. */
static void a_format_can_be_told(void **state)
{
	struct mc_trace_options opts = { .format = "qwen" };
	const char *text = REC("1.5", "20", "4, 5");
	struct mc_trace *t = open_bytes(text, strlen(text), &opts);
	struct mc_trace_req r;

	(void)state;
	assert_string_equal(mc_trace_format(t), "qwen");
	assert_int_equal(mc_trace_next(t, &r), 1);
	assert_int_equal(r.at_ns, 1500000000);
	assert_int_equal(r.block_tokens, 16);
	mc_trace_close(t);
	opts.format = "azure";
	t = open_bytes("a,b\n", 4, &opts);
	assert_int_equal(mc_trace_next(t, &r), -EINVAL);
	assert_non_null(strstr(mc_errmsg(), "no column 'TIMESTAMP'"));
	mc_trace_close(t);
}

/* Lines far longer than the first buffer, cut by reads at any place. */
static void long_lines(void **state)
{
	enum { LINES = 5, IDS = 40000 };
	char *text = NULL;
	size_t len;
	FILE *f = open_memstream(&text, &len);
	struct mc_trace *t;
	struct mc_trace_req r;

	(void)state;
	for (int i = 0; i < LINES; i++) {
		fprintf(f, "{\"timestamp\":%d,\"input_length\":%d,"
			"\"output_length\":1,\"hash_ids\":[0", i, IDS * 512);
		for (int k = 1; k < IDS; k++)
			fprintf(f, ",%d", i * IDS + k);
		fprintf(f, "]}%s", i < LINES - 1 ? "\n" : "");
	}
	fclose(f);
	t = open_bytes(text, len, NULL);
	for (int i = 0; i < LINES; i++) {
		assert_int_equal(mc_trace_next(t, &r), 1);
		assert_int_equal(r.n_blocks, IDS);
		assert_int_equal(r.blocks[IDS - 1], i * IDS + IDS - 1);
	}
	assert_int_equal(mc_trace_next(t, &r), 0);
	mc_trace_close(t);
	free(text);
}

static void no_end_of_line(void **state)
{
	struct mc_trace *t = NULL;
	struct mc_trace_req r;

	(void)state;
	assert_int_equal(mc_trace_open(&t, "/dev/zero", NULL), 0);
	assert_int_equal(mc_trace_next(t, &r), -EMSGSIZE);
	assert_non_null(strstr(mc_errmsg(), "/dev/zero:1: a line of more"));
	mc_trace_close(t);
}

static void open_says_why(void **state)
{
	struct mc_trace_options opts = { .format = "morse" };
	struct mc_trace *t = NULL;
	struct mc_trace_req r;

	(void)state;
	assert_int_equal(mc_trace_open(&t, "/nowhere/t.jsonl", NULL), -ENOENT);
	assert_non_null(strstr(mc_errmsg(), "/nowhere/t.jsonl"));
	assert_int_equal(mc_trace_open(&t, "/dev/null", &opts), -EINVAL);
	assert_non_null(strstr(mc_errmsg(), "'morse'"));
	assert_non_null(strstr(mc_errmsg(), "mooncake, azure, burstgpt"));
	assert_null(t);
	assert_int_equal(mc_trace_open(&t, "/dev/null", NULL), 0);
	assert_int_equal(mc_trace_next(t, &r), 0);
	mc_trace_close(t);
	assert_int_equal(mc_trace_open(&t, "/", NULL), 0);
	assert_int_equal(mc_trace_next(t, &r), -EISDIR);
	mc_trace_close(t);
}

/* Its sums, counted by other means. */
static void the_public_trace_is_read_whole(void **state)
{
	struct sums s = sums_of("../shared/traces/conversation_trace.jsonl");

	(void)state;
	assert_string_equal(s.format, "mooncake");
	assert_int_equal(s.requests, 12031);
	assert_int_equal(s.input_tokens, 144793823);
	assert_int_equal(s.output_tokens, 4122048);
	assert_int_equal(s.blocks, 288500);
	assert_int_equal(s.last_ns, 3536999000000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(reads_records),
		cmocka_unit_test(skips_what_it_does_not_know),
		cmocka_unit_test(says_where_and_why),
		cmocka_unit_test(goes_on_after_a_bad_line),
		cmocka_unit_test(whole_blocks_only_is_fine),
		cmocka_unit_test(qwen_counts_in_seconds_and_blocks_of_16),
		cmocka_unit_test(qwen_ids_name_prefixes),
		cmocka_unit_test(a_format_can_be_told),
		cmocka_unit_test(the_public_trace_is_read_whole),
		cmocka_unit_test(long_lines),
		cmocka_unit_test(no_end_of_line),
		cmocka_unit_test(open_says_why),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
