/*
 * v1_segment_test.c - JSON of the public Mooncake, read and written: its
 * descriptors (W8), connections of devices, notifications.
 */
#include "peer.h"

#include "../../src/v1/segment.h"

#define TCP_BUFFER "{\"name\":\"a\",\"addr\":4096,\"length\":8192}"

static void descriptors_are_read_liberally(void **state)
{
	static const struct {
		const char *json;
		int r;
		uint64_t n;
		bool tcp;
	} t[] = {
		{ "{\"name\":\"a\",\"protocol\":\"tcp\",\"tcp_data_port\":7,"
		  "\"buffers\":[" TCP_BUFFER "]}\n", 0, 1, true },
		/* Unknown members, of any kind. */
		{ "{\"protocol\":\"tcp\",\"x\":{\"y\":[1,null]},\"buffers\":"
		  "[{\"name\":\"a\",\"addr\":18446744073709547520,"
		  "\"length\":4096,\"z\":1.5}]}", 0, 1, true },
		/* Several protocols: each buffer says which. */
		{ "{\"protocol\":[\"rdma\",\"tcp\"],\"devices\":[{\"name\":"
		  "\"m\",\"lid\":0,\"gid\":\"00\"}],\"buffers\":["
		  "{\"protocol\":\"rdma\",\"name\":\"cpu:0\",\"addr\":1,"
		  "\"length\":1,\"rkey\":[1],\"lkey\":[1]},"
		  "{\"protocol\":\"tcp\",\"name\":\"a\",\"addr\":1,"
		  "\"length\":1}]}", 0, 1, true },
		{ "{\"protocol\":\"nvlink\",\"tcp_data_port\":-559038737,"
		  "\"buffers\":[{\"name\":\"a\",\"addr\":1,\"length\":1,"
		  "\"shm_name\":\"00\"}]}", 0, 0, false },
		/* No buffers is no error; nor one that is there twice. */
		{ "{\"protocol\":\"tcp\"}", 0, 0, true },
		{ "{\"protocol\":\"tcp\",\"buffers\":[" TCP_BUFFER ","
		  TCP_BUFFER "]}", 0, 1, true },
		/* What the public decoder rejects. */
		{ "{\"protocol\":\"tcp\",\"buffers\":[{\"name\":\"\","
		  "\"addr\":1,\"length\":1}]}", -EBADMSG, 0, false },
		{ "{\"protocol\":\"tcp\",\"buffers\":[{\"name\":\"a\","
		  "\"addr\":0,\"length\":1}]}", -EBADMSG, 0, false },
		{ "{\"protocol\":\"tcp\",\"buffers\":[{\"name\":\"a\","
		  "\"addr\":1,\"length\":0}]}", -EBADMSG, 0, false },
		{ "{\"protocol\":\"rdma\",\"devices\":[{\"name\":\"m\"}],"
		  "\"buffers\":[{\"name\":\"a\",\"addr\":1,\"length\":1,"
		  "\"rkey\":[1,2],\"lkey\":[1,2]}]}", -EBADMSG, 0, false },
		{ "{\"protocol\":\"rdma\",\"devices\":[{\"name\":\"m\"}],"
		  "\"buffers\":[{\"name\":\"a\",\"addr\":1,\"length\":1,"
		  "\"rkey\":[1],\"lkey\":[1]}]}", 0, 1, false },
		{ "{\"protocol\":\"rdma\",\"devices\":[{\"name\":\"m\"}],"
		  "\"buffers\":[{\"name\":\"a\",\"addr\":1,\"length\":1,"
		  "\"rkey\":[],\"lkey\":[1]}]}", 0, 0, false },
		{ "{\"protocol\":\"rdma\",\"devices\":[{\"name\":\"\"}]}",
		  -EBADMSG, 0, false },
		/* What would wrap, or is nothing at all. */
		{ "{\"protocol\":\"tcp\",\"buffers\":[{\"name\":\"a\","
		  "\"addr\":18446744073709551615,\"length\":2}]}", -EBADMSG, 0,
		  false },
		{ "{\"protocol\":\"tcp\",\"buffers\":[{\"name\":\"a\","
		  "\"addr\":-1,\"length\":2}]}", -EBADMSG, 0, false },
		{ "{\"protocol\":\"tcp\",\"tcp_data_port\":70000}", -EBADMSG,
		  0, false },
		{ "{\"buffers\":[]}", -EBADMSG, 0, false },
		{ "[]", -EBADMSG, 0, false },
		{ "null", -EBADMSG, 0, false },
		{ "", -EBADMSG, 0, false },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
		struct mc_v1_segment s;
		int r = mc_v1_segment_decode(t[i].json, strlen(t[i].json), &s);

		if (r != t[i].r)
			fail_msg("%d for %s", r, t[i].json);
		if (r < 0)
			continue;
		assert_int_equal(s.n, t[i].n);
		assert_int_equal(s.tcp, t[i].tcp);
		assert_false(s.native);
		mc_v1_segment_free(&s);
	}
}

/* Each buffer has a key for each device, in the devices' order; one without is
 * not for others. */
static void keys_go_with_buffers(void **state)
{
	static const char json[] =
		"{\"protocol\":\"rdma\",\"devices\":[{\"name\":\"m0\","
		"\"lid\":7,\"gid\":\"00:01:02:03:04:05:06:07:08:09:0a:0b:"
		"0c:0d:0e:ff\"},"
		"{\"name\":\"m1\",\"gid\":\"no\"}],\"priority_matrix\":{"
		"\"cpu:0\":[[\"m1\"],[\"m0\"]]},\"buffers\":["
		"{\"name\":\"cpu:0\",\"addr\":8192,\"length\":16,"
		"\"rkey\":[3,4294967295],\"lkey\":[0,0]},"
		"{\"name\":\"cpu:0\",\"addr\":64,\"length\":16,"
		"\"rkey\":[],\"lkey\":[0,0]},"
		"{\"name\":\"cpu:0\",\"addr\":4096,\"length\":16,"
		"\"rkey\":[1,2],\"lkey\":[0,0]}]}";
	struct mc_v1_segment s;
	uint32_t key;

	(void)state;
	ok(mc_v1_segment_decode(json, strlen(json), &s));
	assert_int_equal(s.n_devs, 2);
	assert_string_equal(s.devs[0].name, "m0");
	assert_int_equal(s.devs[0].lid, 7);
	assert_int_equal(s.devs[0].gid[15], 0xff);
	assert_int_equal(s.n, 2);
	assert_int_equal(s.buf[0].addr, 4096);
	assert_true(mc_v1_segment_key(&s, s.buf[0].id, 1, &key));
	assert_int_equal(key, 2);
	assert_true(mc_v1_segment_key(&s, s.buf[1].id, 1, &key));
	assert_int_equal(key, 4294967295);
	assert_false(mc_v1_segment_key(&s, s.buf[1].id, 2, &key));
	assert_false(mc_v1_segment_key(&s, s.buf[1].id + 1, 0, &key));
	assert_int_equal(mc_matrix_rank(s.matrix, 0, "m1"), 0);
	assert_int_equal(mc_matrix_rank(s.matrix, 0, "m0"), 1);
	mc_v1_segment_free(&s);
}

static void a_matrix_that_makes_no_sense_is_passed_over(void **state)
{
	static const char json[] =
		"{\"protocol\":\"rdma\",\"devices\":[{\"name\":\"m0\"}],"
		"\"priority_matrix\":{\"cpu:0\":[[\"m0\"]]}}";
	struct mc_v1_segment s;

	(void)state;
	ok(mc_v1_segment_decode(json, strlen(json), &s));
	assert_int_equal(s.n_devs, 1);
	assert_null(s.matrix);
	mc_v1_segment_free(&s);
}

static void meetings_are_told_and_heard(void **state)
{
	struct mc_meeting m = { .from = "a:1@m0", .to = "b@m1", .lid = 9,
				.qps = { 17, 16777215 }, .n_qps = 2,
				.can_ack = true, .gid = { 0xfe, 0x80 } }, back;
	static const char many[] = "{\"qp_num\":[1,2,3,4,5,6,7,8,9,10,11,12,"
				   "13,14,15,16,17]}";
	char *json;

	(void)state;
	ok(mc_v1_meeting_encode(&m, &json));
	assert_non_null(strstr(json, "\"local_gid\":\"fe:80:00:"));
	ok(mc_v1_meeting_decode(json, strlen(json), &back));
	assert_memory_equal(&m, &back, sizeof(m));
	free(json);
	ok(mc_v1_meeting_decode("{}", 2, &back));
	assert_int_equal(back.n_qps, 0);
	assert_false(back.can_ack);
	assert_int_equal(mc_v1_meeting_decode(many, strlen(many), &back),
			 -EBADMSG);
	assert_int_equal(mc_v1_meeting_decode("[]", 2, &back), -EBADMSG);
}

static void overlapping_buffers_are_cut(void **state)
{
	static const char json[] = "{\"protocol\":\"tcp\",\"buffers\":["
		"{\"name\":\"a\",\"addr\":300,\"length\":100},"
		"{\"name\":\"a\",\"addr\":100,\"length\":250},"
		"{\"name\":\"a\",\"addr\":120,\"length\":10},"
		"{\"name\":\"a\",\"addr\":400,\"length\":1}]}";
	static const uint64_t want[][2] = { { 100, 250 }, { 350, 50 },
					    { 400, 1 } };
	struct mc_v1_segment s;

	(void)state;
	ok(mc_v1_segment_decode(json, strlen(json), &s));
	assert_int_equal(s.n, 3);
	assert_int_equal(s.version, 1);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(s.buf[i].addr, want[i][0]);
		assert_int_equal(s.buf[i].len, want[i][1]);
		assert_int_not_equal(s.buf[i].id, 0);
	}
	mc_v1_segment_free(&s);
}

static void places_and_notifications_are_read(void **state)
{
	static const char place[] = "{\"ip_or_host_name\":\"fe80::1\","
				    "\"rpc_port\":15001}";
	char addr[MC_ADDR_MAX], text[160], name[MC_NAME_MAX], *json, *msg;
	uint32_t len;

	(void)state;
	ok(mc_v1_place_decode(place, strlen(place), addr));
	assert_string_equal(addr, "[fe80::1]:15001");
	ok(mc_v1_place_encode(addr, text, sizeof(text)));
	assert_string_equal(text, place);
	assert_int_equal(mc_v1_place_decode("{}", 2, addr), -EBADMSG);
	ok(mc_v1_notify_encode("a\"b", "\0\n\xc3\xa9", 4, &json));
	ok(mc_v1_notify_decode(json, strlen(json), name, &msg, &len));
	assert_string_equal(name, "a\"b");
	assert_int_equal(len, 4);
	assert_memory_equal(msg, "\0\n\xc3\xa9", 5);
	free(json);
	free(msg);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(descriptors_are_read_liberally),
		cmocka_unit_test(keys_go_with_buffers),
		cmocka_unit_test(a_matrix_that_makes_no_sense_is_passed_over),
		cmocka_unit_test(meetings_are_told_and_heard),
		cmocka_unit_test(overlapping_buffers_are_cut),
		cmocka_unit_test(places_and_notifications_are_read),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
