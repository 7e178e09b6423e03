/*
 * etcd_fuzz.c - libFuzzer target: any bytes as an answer of etcd, as a line of
 * its watch, and as the URL of a registry.
 */
#include "replay.h"

#include "../../src/registry/etcd_text.h"
#include "../../src/registry/url.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static bool is_expected(int r)
{
	return !r || r == -EBADMSG;
}

static void check_names(struct json_object *o)
{
	struct mc_registry_text names = { 0 };
	char *s, *rest;

	if (!is_expected(mc_etcd_names(o, &names)))
		abort();
	rest = names.data;
	while ((s = strsep(&rest, "\n")) && rest)
		if (mc_key_check(s, strlen(s)) < 0)
			abort();
	free(names.data);
}

static void check_record(struct json_object *o)
{
	struct mc_registry_text value = { 0 };
	struct mc_etcd_record rec;
	int r = mc_etcd_record(o, &rec, &value);

	if (!is_expected(r) || (!r && value.len && !rec.revision))
		abort();
	free(value.data);
}

/* What ends up in messages is one short line. */
static void check_why(const char *why)
{
	if (strlen(why) >= 160 || strpbrk(why, "\r\n\t"))
		abort();
}

static void check_answer(const char *text, size_t len)
{
	static const long status[] = { 200, 401, 404, 500, 503 };
	struct json_object *o;
	char why[160];

	if (mc_etcd_parse(text, len, &o) == 0) {
		mc_etcd_revision(o);
		check_names(o);
		check_record(o);
		json_object_put(o);
	}
	for (size_t i = 0; i < sizeof(status) / sizeof(status[0]); i++) {
		if (mc_etcd_refusal(text, len, status[i], why) >= 0)
			abort();
		check_why(why);
	}
}

static void check_news(const char *line, size_t len)
{
	struct mc_registry_text changes = { 0 };
	struct mc_registry_change c;
	struct mc_etcd_news n;
	char why[160] = "";
	int r = mc_etcd_news(line, len, &n, &changes, why);
	const char *s = changes.data;
	size_t left = changes.len;

	if (r > 0)
		abort();
	if (r < 0)			/* there may be a piece of a line */
		left = 0;
	while ((r = mc_change_next(&s, &left, &c)) > 0)
		if (c.version > n.last || mc_key_check(c.key, c.len) < 0)
			abort();
	if (r < 0)
		abort();
	free(changes.data);
}

/* Bytes survive base64 and an answer that carries them. */
static void check_base64(const char *data, size_t len)
{
	struct mc_registry_text value = { 0 };
	char *text = mc_base64(data, len), *json = NULL;
	struct mc_etcd_record rec;
	struct json_object *o;

	if (asprintf(&json, "{\"kvs\":[{\"mod_revision\":\"7\",\"lease\":\"9\","
		     "\"value\":\"%s\"}]}", text) < 0 ||
	    mc_etcd_parse(json, strlen(json), &o) < 0 ||
	    mc_etcd_record(o, &rec, &value) < 0)
		abort();
	if (rec.revision != 7 || rec.lease != 9 || value.len != len ||
	    (len && memcmp(value.data, data, len)))
		abort();
	json_object_put(o);
	free(value.data);
	free(json);
	free(text);
}

static void check_url(const char *text)
{
	static const char *const schemes[] = { "etcd", "redis" };
	struct mc_registry_url u;

	for (int i = 0; i < 2; i++) {
		if (mc_registry_url_parse(text, schemes[i], 1234, &u) < 0)
			continue;
		if (u.n_hosts < 1 || u.n_hosts > MC_URL_HOSTS ||
		    strncasecmp(u.shown, schemes[i], strlen(schemes[i])))
			abort();
		/* Nothing that is secret is shown. */
		if (u.password[0] && strlen(u.password) > 8 &&
		    strstr(u.shown, u.password) &&
		    !strstr(u.hosts[0], u.password))
			abort();
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *exact = malloc(size ? size : 1);
	char *text = malloc(size + 1);

	memcpy(exact, data, size);	/* without a zero behind it */
	memcpy(text, data, size);
	text[size] = 0;
	check_answer(exact, size);
	check_news(exact, size);
	check_base64(exact, size);
	check_url(text);
	free(exact);
	free(text);
	return 0;
}
