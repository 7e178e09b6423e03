/*
 * p2p_record_test.c - the record of an object: as we write it, as the public
 * store writes it, and what is no such record.
 */
#include "../../src/p2p/p2p.h"
#include "../../src/base/util.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static const char public_record[] =
	"{\"name\":\"foo/bar\",\"size\":10240,\"size_list\":[6144,4096],"
	"\"max_shard_size\":4096,\"shards\":["
	"{\"size\":4096,\"gold\":[{\"segment_name\":\"10.0.0.1:12345\","
	"\"offset\":139637976727552}],\"replica_list\":null},"
	"{\"size\":2048,\"gold\":[{\"segment_name\":\"10.0.0.1:12345\","
	"\"offset\":139637976731648}],\"replica_list\":[]},"
	"{\"size\":4096,\"gold\":[{\"segment_name\":\"10.0.0.1:12345\","
	"\"offset\":139637976735744}],\"replica_list\":["
	"{\"segment_name\":\"10.0.0.7:12345\",\"offset\":140001234567168}]}]}";

static int decode(const char *json, struct p2p_record *r)
{
	return p2p_record_decode(json, strlen(json), r);
}

static void the_public_form_is_read(void **state)
{
	struct p2p_record r;
	struct p2p_shard at[3];

	(void)state;
	assert_int_equal(decode(public_record, &r), 0);
	assert_string_equal(r.name, "foo/bar");
	assert_false(r.native);
	assert_int_equal(r.n_shards, 3);
	assert_int_equal(r.n_seeds, 2);
	assert_true(r.seeds[0].gold);
	assert_int_equal(r.seeds[0].offsets[1], 139637976731648);
	assert_false(r.seeds[1].gold);
	assert_int_equal(r.seeds[1].offsets[0], 0);
	assert_int_equal(r.seeds[1].offsets[2], 140001234567168);
	p2p_lay_out(&r, at);
	assert_int_equal(at[1].buffer, 0);
	assert_int_equal(at[1].off, 4096);
	assert_int_equal(at[1].len, 2048);
	assert_int_equal(at[2].buffer, 1);
	p2p_record_fini(&r);
}

/* Not a member of it, but of ours, is lost: it can be written back. */
static void the_public_form_is_written(void **state)
{
	struct p2p_record r, again;
	char *json;

	(void)state;
	assert_int_equal(decode(public_record, &r), 0);
	p2p_record_unseed(&r, "10.0.0.7:12345");
	assert_int_equal(p2p_record_encode(&r, &json), 0);
	assert_null(strstr(json, "native"));
	assert_non_null(strstr(json, "\"replica_list\":[]"));
	assert_int_equal(decode(json, &again), 0);
	assert_int_equal(again.n_seeds, 1);
	assert_int_equal(again.id, r.id);
	free(json);
	p2p_record_fini(&again);
	p2p_record_fini(&r);
}

static void ours_goes_round(void **state)
{
	struct p2p_record r, again;
	struct p2p_seed *s;
	char *json, *text;

	(void)state;
	assert_int_equal(decode(public_record, &r), 0);
	r.native = r.pinned = true;
	r.id = 0xfedcba9876543210u;
	free(r.note);
	r.note = strdup("{\"files\":[\"a \\\"b\\\"/\xc3\xa4\"]}");
	for (int i = 0; i < 3; i++)
		r.sums[i] = UINT64_MAX - i;
	s = p2p_record_seed(&r, "node-3", true, true);
	s->offsets[2] = 4096;
	assert_int_equal(p2p_record_encode(&r, &json), 0);
	assert_int_equal(decode(json, &again), 0);
	assert_int_equal(again.id, r.id);
	assert_true(again.pinned && again.native);
	assert_string_equal(again.note, r.note);
	assert_int_equal(again.sums[2], UINT64_MAX - 2);
	assert_int_equal(again.n_seeds, 3);
	assert_int_equal(p2p_record_encode(&again, &text), 0);
	assert_string_equal(text, json);
	free(text);
	free(json);
	p2p_record_fini(&again);
	p2p_record_fini(&r);
}

/* The record with the first @was of it made @is: what is said of it. */
static void bad(const char *was, const char *is, int err, const char *says)
{
	struct p2p_record r;
	char text[2000], *at;

	snprintf(text, sizeof(text), "%s", public_record);
	at = strstr(text, was);
	assert_non_null(at);
	memmove(at + strlen(is), at + strlen(was),
		strlen(at + strlen(was)) + 1);
	memcpy(at, is, strlen(is));
	assert_int_equal(decode(text, &r), err);
	if (!strstr(mc_errmsg(), says))
		fail_msg("'%s' does not say '%s'", mc_errmsg(), says);
}

static void what_is_none(void **state)
{
	struct p2p_record r;

	(void)state;
	assert_int_equal(decode("", &r), -EBADMSG);
	assert_int_equal(decode("[]", &r), -EBADMSG);
	assert_int_equal(decode("{}", &r), -EBADMSG);
	bad("}]}]}", "}]}]", -EBADMSG, "not JSON");
	bad("foo/bar", "", -EBADMSG, "name");
	bad("\"size\":10240", "\"size\":10241", -EBADMSG, "sum");
	bad("[6144,4096]", "[6144,4096,0]", -EBADMSG, "above 0");
	bad("[6144,4096]", "[]", -EBADMSG, "no buffers");
	bad("[6144,4096]", "[9223372036854775806,9223372036854775806]",
	    -EBADMSG, "sum");
	bad("size\":4096,\"sh", "size\":0,\"sh", -EBADMSG, "above 0");
	bad("size\":4096,\"sh", "size\":2048,\"sh", -EBADMSG, "as many");
	bad("{\"size\":2048", "{\"size\":2049", -EBADMSG, "a shard");
	bad("segment_name", "segment", -EBADMSG, "holder");
	bad("139637976727552", "-1", -EBADMSG, "holder");
	bad("{\"name\"", "{\"mooncake_native\":{},\"name\"", -EBADMSG,
	    "version");
	bad("{\"name\"", "{\"mooncake_native\":{\"version\":2},\"name\"",
	    -EPROTONOSUPPORT, "version 2");
	bad("{\"name\"", "{\"mooncake_native\":{\"version\":1,\"id\":\"7\","
	    "\"note\":\"\"},\"name\"", -EBADMSG, "checksum");
}

static void shards_are_counted(void **state)
{
	const uint64_t sizes[] = { 1, 4096, 4097, UINT64_MAX };

	(void)state;
	assert_int_equal(p2p_count_shards(sizes, 3, 4096), 4);
	assert_int_equal(p2p_count_shards(sizes, 4, 4096), -E2BIG);
}

static bool parse(const char *key, uint32_t *hash, char *segment, uint64_t *map)
{
	return p2p_member_parse(key, strlen(key), hash, segment, map);
}

static void keys_of_nodes(void **state)
{
	static const char *const none[] = {
		"", "mooncake/p2p/", "mooncake/ram/x",
		"mooncake/p2p/12/3f09a1c2-10.0.0.7:7000",
		"mooncake/p2p/12/3f09a1c2-10.0.0.7:7000@",
		"mooncake/p2p/12/3f09a1c2-10.0.0.7:7000@0",
		"mooncake/p2p/12/3f09a1c2-@7f",
		"mooncake/p2p/12/3f09a1c2f-a@7f",
		"mooncake/p2p/12/xf09a1c2-a@7f",
		"mooncake/p2p//3f09a1c2-a@7f",
		"mooncake/p2p/12/3f09a1c2-a@7fg",
		"mooncake/p2p/12/3f09a1c2-a@11112222333344445",
	};
	char segment[MC_NAME_MAX], longer[300];
	uint64_t map;
	uint32_t hash;

	(void)state;
	assert_true(parse("mooncake/p2p/0123456789abcdef/3f09a1c2-"
			  "[fe80::1%eth-0]:7000@7f3a10000000", &hash, segment,
			  &map));
	assert_int_equal(hash, 0x3f09a1c2);
	assert_string_equal(segment, "[fe80::1%eth-0]:7000");
	assert_int_equal(map, 0x7f3a10000000);
	for (size_t i = 0; i < mc_array_len(none); i++)
		if (parse(none[i], &hash, segment, &map))
			fail_msg("'%s' is taken for a node's key", none[i]);
	snprintf(longer, sizeof(longer), "mooncake/p2p/12/3f09a1c2-%0128d@7f",
		 0);
	assert_false(parse(longer, &hash, segment, &map));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_public_form_is_read),
		cmocka_unit_test(the_public_form_is_written),
		cmocka_unit_test(ours_goes_round),
		cmocka_unit_test(what_is_none),
		cmocka_unit_test(shards_are_counted),
		cmocka_unit_test(keys_of_nodes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
