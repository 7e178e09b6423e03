/* trace_csv_test.c - traces of comma-separated values: Azure's, BurstGPT's. */
#include "trace_text.h"

#define AZURE "TIMESTAMP,ContextTokens,GeneratedTokens\n"
#define BURST "Timestamp,Model,Request tokens,Response tokens,Total tokens," \
	"Log Type\n"

static void azure_times_count_from_the_first(void **state)
{
	struct mc_trace *t = open_text(
		AZURE "2023-11-30 23:59:59.9799600,4808,10\r\n\n"
		"2023-11-30 23:59:59.9799600, 20 ,11\n"
		"2023-12-01 00:00:00.0319601,3180,8");
	struct mc_trace_req r;

	(void)state;
	for (int pass = 0; pass < 2; pass++) {
		assert_int_equal(mc_trace_next(t, &r), 1);
		assert_string_equal(mc_trace_format(t), "azure");
		assert_int_equal(r.line, 2);
		assert_int_equal(r.at_ns, 0);
		assert_int_equal(r.input_tokens, 4808);
		assert_int_equal(r.output_tokens, 10);
		assert_int_equal(r.n_blocks, 0);
		assert_null(r.blocks);
		assert_true(r.block_tokens > 0);
		assert_int_equal(mc_trace_next(t, &r), 1);
		assert_int_equal(r.line, 4);
		assert_int_equal(r.at_ns, 0);
		assert_int_equal(r.input_tokens, 20);
		assert_int_equal(mc_trace_next(t, &r), 1);
		assert_int_equal(r.at_ns, 52000100);
		assert_int_equal(mc_trace_next(t, &r), 0);
		assert_int_equal(mc_trace_rewind(t), 0);
	}
	mc_trace_close(t);
}

/* All the forms of one moment, and then a second later. */
static void azure_times_have_zones_and_any_decimals(void **state)
{
	static const char *const same[] = {
		"2024-05-10 00:00:00+00:00", "2024-05-10 00:00:00",
		"2024-05-10T00:00:00Z", "2024-05-10 00:00:00.000000+00:00",
		"2024-05-10 02:30:00.0+0230", "2024-05-09 19:00:00-05:00",
		"2024-05-10 00:00:00.0000000009999",
	};
	char text[128];
	struct mc_trace_req r;

	(void)state;
	for (size_t i = 0; i < sizeof(same) / sizeof(same[0]); i++) {
		struct mc_trace *t;

		snprintf(text, sizeof(text), "%s2024-05-09 23:59:59,1,1\n"
			 "%s,1,1\n", AZURE, same[i]);
		t = open_text(text);
		assert_int_equal(mc_trace_next(t, &r), 1);
		assert_int_equal(mc_trace_next(t, &r), 1);
		if (r.at_ns != 1000000000)
			fail_msg("%s: %llu", same[i],
				 (unsigned long long)r.at_ns);
		mc_trace_close(t);
	}
}

/* Every day of 400 years, each a day after the one before. */
static void the_calendar_has_all_days(void **state)
{
	static const int days[] = {
		31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31
	};
	char *text = NULL;
	size_t len;
	FILE *f = open_memstream(&text, &len);
	struct mc_trace *t;
	struct mc_trace_req r;
	uint64_t n = 0;

	(void)state;
	fputs(AZURE, f);
	for (int y = 1971; y < 2262; y++)
		for (int m = 0; m < 12; m++) {
			bool leap = m == 1 && y % 4 == 0 &&
				    (y % 100 || y % 400 == 0);

			for (int d = 1; d <= days[m] + leap; d++)
				fprintf(f, "%d-%02d-%02d 00:00:00,1,1\n", y,
					m + 1, d);
		}
	fclose(f);
	t = open_bytes(text, len, NULL);
	while (mc_trace_next(t, &r) > 0)
		assert_true(r.at_ns == n++ * 86400 * 1000000000);
	assert_int_equal(n, 291 * 365 + 71);
	mc_trace_close(t);
	free(text);
}

static void burstgpt_leaves_out_what_failed(void **state)
{
	struct mc_trace *t = open_text(
		BURST "5,ChatGPT,472,18,490,Conversation log\n"
		"45,ChatGPT,1087,0,1087,API log\n"
		"118.5,\"GPT-4, \"\"turbo\"\"\",417,276,693,API log\n");
	struct mc_trace_req r;

	(void)state;
	assert_int_equal(mc_trace_next(t, &r), 1);
	assert_string_equal(mc_trace_format(t), "burstgpt");
	assert_int_equal(r.at_ns, 0);
	assert_int_equal(r.input_tokens, 472);
	assert_int_equal(r.output_tokens, 18);
	assert_int_equal(mc_trace_next(t, &r), 1);
	assert_int_equal(r.line, 4);
	assert_int_equal(r.at_ns, 113500000000);
	assert_int_equal(r.input_tokens, 417);
	assert_int_equal(mc_trace_next(t, &r), 0);
	mc_trace_close(t);
}

static void columns_go_by_their_names(void **state)
{
	struct mc_trace *t = open_text(
		"Timestamp,Session ID,Elapsed time,Model,Request tokens,"
		"Response tokens,Total tokens,Log Type\n"
		"19440110.0,f0c1-82,43,GPT-4,906,446,1352,Conversation log\n"
		"19440161.0,,2,ChatGPT,36,29,65,API log\n");
	struct mc_trace_req r;

	(void)state;
	assert_int_equal(mc_trace_next(t, &r), 1);
	assert_string_equal(mc_trace_format(t), "burstgpt");
	assert_int_equal(r.input_tokens, 906);
	assert_int_equal(r.output_tokens, 446);
	assert_int_equal(mc_trace_next(t, &r), 1);
	assert_int_equal(r.at_ns, 51000000000);
	assert_int_equal(r.input_tokens, 36);
	mc_trace_close(t);
	t = open_text("\"GeneratedTokens\" , x,ContextTokens,TIMESTAMP\r\n"
		      "3,,2,2023-11-16 18:17:03\r\n");
	assert_int_equal(mc_trace_next(t, &r), 1);
	assert_int_equal(r.input_tokens, 2);
	assert_int_equal(r.output_tokens, 3);
	mc_trace_close(t);
}

static void says_where_and_why(void **state)
{
	static const struct {
		const char *text, *why;
	} bad[] = {
		{ "TIMESTAMP,ContextTokens\n", ":1:1: no trace format begins" },
		{ "TIMESTAMP,ContextTokens2,GeneratedTokens\n",
		  "no column 'ContextTokens'" },
		{ "TIMESTAMP,ContextTokens,\"GeneratedTokens\n",
		  ":1:25: this field has no second quote" },
		{ AZURE "2023-11-16 18:17:03,1\n", ":2: 2 fields, and the "
		  "header names 3" },
		{ AZURE "2023-11-16 18:17:03,1,2,3\n", ":2: 4 fields" },
		{ AZURE "2023-11-16 18:17:03,1,\n", ":2:23: a whole number" },
		{ AZURE "2023-11-16 18:17:03,-1,2\n", ":2:21: a whole number" },
		{ AZURE "2023-11-16 18:17:03,1.5,2\n", "whole number" },
		{ AZURE "2023-11-16 18:17:03,1 x,2\n", ":2:23: ',' should" },
		{ AZURE "2023-11-16 18:17:03,1,2147483648\n", "too large" },
		{ AZURE "2023-11-16 18:17:03x,1,2\n", ":2:20: ',' should" },
		{ AZURE "2023-11-16 18:17:03+1:00,1,2\n", ":2:21: a time is" },
		{ AZURE "2023-11-16 18:17:03+24:00,1,2\n", "no such time" },
		{ AZURE "2023-11-16 18:17,1,2\n", ":2:17: this is no date" },
		{ AZURE "2023/11/16 18:17:03,1,2\n", ":2:5: this is no date" },
		{ AZURE "23-11-16 18:17:03,1,2\n", ":2:1: a time is written" },
		{ AZURE "2023-13-16 18:17:03,1,2\n", ":2:6: there is no such" },
		{ AZURE "2023-00-16 18:17:03,1,2\n", "there is no such time" },
		{ AZURE "2023-11-16 24:00:00,1,2\n", "there is no such time" },
		{ AZURE "2023-11-31 18:17:03,1,2\n", "no such day" },
		{ AZURE "2100-02-29 18:17:03,1,2\n", "no such day" },
		{ AZURE "1970-01-01 00:00:00,1,2\n", "there is no such time" },
		{ AZURE "5,1,2\n", "a time is written as 2023" },
		{ AZURE "2023-11-16 18:17:03,1,2\n2023-11-16 18:17:02.5,1,2",
		  ":3: it came 500.000 ms before" },
		{ BURST "x,GPT-4,1,2,3,API log\n", "a time of 0 or more" },
		{ BURST "5,GPT-4,1,2,3,API log\n4.5,GPT-4,1,2,3,API log\n",
		  ":3: it came 500.000 ms before" },
		{ BURST "5,GPT-4,1,2,3\n", ":2: 5 fields, and the header "
		  "names 6" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		refuses(bad[i].text, bad[i].why);
}

static void goes_on_after_a_bad_line(void **state)
{
	struct mc_trace *t = open_text(
		AZURE "oops\n2023-11-16 18:17:03,1,2\n2023-11-16 18:17:01,3,4\n"
		"2023-11-16 18:17:04,5,6\n");
	struct mc_trace_req r;

	(void)state;
	assert_int_equal(mc_trace_next(t, &r), -EINVAL);
	assert_int_equal(mc_trace_next(t, &r), 1);
	assert_int_equal(r.at_ns, 0);
	assert_int_equal(mc_trace_next(t, &r), -EINVAL);
	assert_int_equal(mc_trace_next(t, &r), 1);
	assert_int_equal(r.line, 5);
	assert_int_equal(r.at_ns, 1000000000);
	mc_trace_close(t);
}

/* Its sums, counted by other means. */
static void the_public_trace_is_read_whole(void **state)
{
	struct sums s = sums_of("../shared/traces/azure_llm_2023_code.csv");

	(void)state;
	assert_string_equal(s.format, "azure");
	assert_int_equal(s.requests, 8819);
	assert_int_equal(s.input_tokens, 18059974);
	assert_int_equal(s.output_tokens, 245896);
	assert_int_equal(s.blocks, 0);
	assert_int_equal(s.last_ns, 3435948056000);
	assert_int_equal(s.at_ns, 13327267954592000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(azure_times_count_from_the_first),
		cmocka_unit_test(azure_times_have_zones_and_any_decimals),
		cmocka_unit_test(the_calendar_has_all_days),
		cmocka_unit_test(burstgpt_leaves_out_what_failed),
		cmocka_unit_test(columns_go_by_their_names),
		cmocka_unit_test(says_where_and_why),
		cmocka_unit_test(goes_on_after_a_bad_line),
		cmocka_unit_test(the_public_trace_is_read_whole),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
