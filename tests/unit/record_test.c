/*
 * record_test.c - segment records as JSON, and in a registry: published,
 * renewed, replaced, withdrawn.
 */
#include "../../src/registry/record.h"

#include "../../src/base/util.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct mc_record node = {
	.name = "node-1", .addr = "10.0.0.1:7000",
	.epoch = 0xfedcba9876543210, .host_id = 7,
};

static void assert_fails(int r, int err, const char *text)
{
	if (r != err)
		fail_msg("%d is not %d: %s", r, err, mc_errmsg());
	if (!strstr(mc_errmsg(), text))
		fail_msg("message '%s' lacks '%s'", mc_errmsg(), text);
}

static void assert_ok(int64_t r)
{
	if (r < 0)
		fail_msg("%lld: %s", (long long)r, mc_errmsg());
}

static void assert_same(const struct mc_record *a, const struct mc_record *b)
{
	assert_string_equal(a->name, b->name);
	assert_string_equal(a->addr, b->addr);
	assert_true(a->epoch == b->epoch && a->host_id == b->host_id);
}

static int decode(const char *json, struct mc_record *r)
{
	return mc_record_decode(json, strlen(json), r);
}

static void the_form_is_the_public_one(void **state)
{
	char *json;

	(void)state;
	assert_ok(mc_record_encode(&node, &json));
	assert_string_equal(json, "{\"name\":\"node-1\",\"protocol\":\"tcp\","
			    "\"tcp_data_port\":0,\"buffers\":[],"
			    "\"mooncake_native\":{\"version\":1,"
			    "\"addr\":\"10.0.0.1:7000\","
			    "\"epoch\":\"fedcba9876543210\","
			    "\"host_id\":\"0000000000000007\"}}");
	free(json);
}

static void records_go_there_and_back(void **state)
{
	struct mc_record r = node, out;
	char *json;

	(void)state;
	mc_copy(r.name, "quote\" back\\slash \xe2\x82\xac/\n");
	mc_copy(r.addr, "[fe80::1%eth0]:65535");
	r.epoch = 0;
	r.host_id = ~0ull;
	assert_ok(mc_record_encode(&r, &json));
	assert_ok(decode(json, &out));
	assert_same(&r, &out);
	free(json);
}

static void unknown_members_are_passed_over(void **state)
{
	struct mc_record r;

	(void)state;
	assert_ok(decode("{\"x\":[1,{}],\"name\":\"n\",\"protocol\":[\"rdma\"],"
			 "\"mooncake_native\":{\"y\":null,\"version\":1,"
			 "\"addr\":\"h:1\",\"epoch\":\"A\",\"host_id\":\"0\","
			 "\"transports\":[\"tcp\"]}}\n", &r));
	assert_string_equal(r.name, "n");
	assert_string_equal(r.addr, "h:1");
	assert_true(r.epoch == 10 && r.host_id == 0);
}

static void malformed_records_are_refused(void **state)
{
#define NATIVE "{\"name\":\"n\",\"mooncake_native\":"
	static const struct {
		const char *json;
		int err;
		const char *says;
	} t[] = {
		{ "", -EBADMSG, "0 bytes" },
		{ "  \n", -EBADMSG, "0 bytes" },
		{ "{", -EBADMSG, "not JSON" },
		{ "{} x", -EBADMSG, "not JSON" },
		{ "{'name':'n'}", -EBADMSG, "not JSON" },
		{ "[]", -EBADMSG, "not a JSON object" },
		{ "null", -EBADMSG, "not" },
		{ "{}", -EBADMSG, "no text 'name'" },
		{ "{\"name\":5}", -EBADMSG, "no text 'name'" },
		{ "{\"name\":\"\"}", -EBADMSG, "'name' is empty" },
		{ "{\"name\":\"a\\u0000b\"}", -EBADMSG, "has a zero" },
		{ "{\"name\":\"n\"}", -EPROTONOSUPPORT, "'n' is not of an" },
		{ NATIVE "1}", -EBADMSG, "not an object" },
		{ NATIVE "null}", -EBADMSG, "not an object" },
		{ NATIVE "{}}", -EBADMSG, "no version" },
		{ NATIVE "{\"version\":2}}", -EPROTONOSUPPORT, "version 2" },
		{ NATIVE "{\"version\":1}}", -EBADMSG, "no text 'addr'" },
		{ NATIVE "{\"version\":1,\"addr\":\"h:1\"}}", -EBADMSG,
		  "no text 'epoch'" },
		{ NATIVE "{\"version\":1,\"addr\":\"h:1\",\"epoch\":\"x\"}}",
		  -EBADMSG, "not hex" },
		{ NATIVE "{\"version\":1,\"addr\":\"h:1\",\"epoch\":"
		  "\"11112222333344445\"}}", -EBADMSG, "longer than 16" },
		{ NATIVE "{\"version\":1,\"addr\":\"nowhere\",\"epoch\":\"1\","
		  "\"host_id\":\"1\"}}", -EBADMSG, "not an address" },
	};
	struct mc_record r;

	(void)state;
	for (size_t i = 0; i < mc_array_len(t); i++)
		assert_fails(decode(t[i].json, &r), t[i].err, t[i].says);
}

static void engines_are_found_by_name(void **state)
{
	static const char *const names[][2] = {
		{ "node-1", "mooncake/ram/node-1" },
		{ "10.0.0.1:7000", "mooncake/ram/10.0.0.1:7000" },
		{ "nvmeof/test", "mooncake/nvmeof/test" },
		{ "/node-2", "mooncake/ram/node-2" },
	};
	struct mc_registry *reg = *state;
	struct mc_record r = node, out;

	for (size_t i = 0; i < mc_array_len(names); i++) {
		mc_copy(r.name, names[i][0]);
		assert_ok(mc_record_publish(reg, &r, 0));
		assert_ok(mc_registry_get(reg, names[i][1], NULL, 0, NULL));
		assert_ok(mc_record_fetch(reg, names[i][0], &out));
		assert_same(&r, &out);
		assert_ok(mc_record_withdraw(reg, names[i][0], node.epoch));
	}
	assert_fails(mc_record_fetch(reg, "none", &out), -ENOENT,
		     "mooncake/ram/none");
	assert_fails(mc_record_fetch(reg, "//", &out), -EINVAL, "name ''");
	assert_ok(mc_registry_put(reg, "mooncake/ram/x", "{}", 2, 0));
	assert_fails(mc_record_fetch(reg, "x", &out), -EBADMSG, "'name'");
	assert_ok(mc_record_publish(reg, &node, 0));
}

static void records_expire_unless_renewed(void **state)
{
	struct mc_registry *reg = *state;
	struct mc_record out;

	for (int i = 0; i < 4; i++) {
		assert_ok(mc_record_publish(reg, &node, 300));
		usleep(100000);
	}
	assert_ok(mc_record_fetch(reg, "node-1", &out));
	usleep(300000);
	assert_fails(mc_record_fetch(reg, "node-1", &out), -ENOENT, "node-1");
}

static void only_the_own_record_is_withdrawn(void **state)
{
	struct mc_registry *reg = *state;
	struct mc_record restarted = node, out;

	restarted.epoch = 5;
	assert_ok(mc_record_publish(reg, &node, 5000));
	assert_ok(mc_record_publish(reg, &restarted, 5000));
	assert_fails(mc_record_withdraw(reg, "node-1", node.epoch), -ESTALE,
		     "another engine, at 10.0.0.1:7000");
	assert_ok(mc_record_fetch(reg, "node-1", &out));
	assert_same(&restarted, &out);
	assert_ok(mc_record_withdraw(reg, "node-1", 5));
	assert_fails(mc_record_withdraw(reg, "node-1", 5), -ENOENT, "node-1");
}

static struct mc_registryd *server;

static int setup(void **state)
{
	struct mc_registry *r;
	char url[160];

	if (mc_registryd_open(&server, NULL, NULL) < 0)
		return -1;
	snprintf(url, sizeof(url), "http://%s", mc_registryd_addr(server));
	if (mc_registry_open(&r, url) < 0)
		return -1;
	*state = r;
	return 0;
}

static int teardown(void **state)
{
	mc_registry_close(*state);
	mc_registryd_close(server);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_form_is_the_public_one),
		cmocka_unit_test(records_go_there_and_back),
		cmocka_unit_test(unknown_members_are_passed_over),
		cmocka_unit_test(malformed_records_are_refused),
		cmocka_unit_test(engines_are_found_by_name),
		cmocka_unit_test(records_expire_unless_renewed),
		cmocka_unit_test(only_the_own_record_is_withdrawn),
	};

	alarm(60);
	return cmocka_run_group_tests(tests, setup, teardown);
}
