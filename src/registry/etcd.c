/*
 * etcd.c - the registry client for etcd, 3.4 or later, by its JSON gateway.
 *
 * Keys are as they come: the public engine's "mooncake/ram/<segment>", under
 * which ours are published too (record.c), and "mooncake/checkpoint/<name>" of
 * the P2P store. A record's version is its mod_revision.
 *
 * Every write is a transaction on the revision that was seen before it. One
 * that is sent twice, or that a frozen member sends on late, so changes nothing
 * that has changed since.
 *
 * A lease has one record. Its id says whose it is and for how long, so that any
 * handle can keep it alive instead of writing the same value again:
 *
 *	0x4d, 24 bits of seconds, 32 random bits
 *
 * etcd counts leases in whole seconds, and has a shortest one, mostly of 2.
 */
#include "etcd_link.h"

#include "../base/clock.h"
#include "../base/err.h"
#include "../base/util.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <sys/random.h>

enum {
	ETCD_LEASE_MARK = 0x4d,
	ETCD_LEASE_TRIES = 4,
};

/* A record that is to be put, or to go. */
struct etcd_write {
	struct mc_etcd_op op;
	char *key;			/* in base64 */
	const void *plain;		/* the value */
	size_t len;
	char *value;			/* in base64; NULL: delete it */
	uint32_t ttl_s;
	const uint64_t *version;	/* only if it is this; NULL: any */
	struct mc_etcd_record seen;
	bool same;			/* what was seen has our value */
	uint64_t lease;			/* granted for this; 0 */
};

static int etcd_out_of_memory(struct mc_etcd *e, struct mc_etcd_op *op)
{
	return mc_etcd_fail(e, op, -ENOMEM, "out of memory");
}

/* Ask with a body from asprintf(), whose result is @n. */
static int etcd_ask(struct mc_etcd *e, struct mc_etcd_op *op, const char *path,
		    char *body, int n, struct json_object **answer)
{
	int r;

	*answer = NULL;
	if (n < 0)
		return etcd_out_of_memory(e, op);
	r = mc_etcd_ask(e, op, path, body, answer);
	free(body);
	return r;
}

/* ---- reading ----------------------------------------------------------- */

/* The record under @key, which is in base64; its value is added to @value. */
static int etcd_look(struct mc_etcd *e, struct mc_etcd_op *op, const char *key,
		     struct mc_etcd_record *out, struct mc_registry_text *value)
{
	struct json_object *answer;
	char *body;
	int n = asprintf(&body, "{\"key\":\"%s\"}", key);
	int r = etcd_ask(e, op, "kv/range", body, n, &answer);

	if (r < 0)
		return r;
	r = mc_etcd_record(answer, out, value);
	json_object_put(answer);
	return r < 0 ? mc_etcd_misread(e, op, r) : 0;
}

static int etcd_get(void *ctx, const char *key, struct mc_registry_text *out,
		    uint64_t *version)
{
	struct mc_etcd_op op = mc_etcd_begin(ctx, "get", key);
	struct mc_etcd_record seen;
	char *key64 = mc_base64(key, strlen(key));
	int r = key64 ? etcd_look(ctx, &op, key64, &seen, out) :
		etcd_out_of_memory(ctx, &op);

	free(key64);
	free(op.answer.data);
	if (r < 0)
		return r;
	if (!seen.revision)
		return mc_etcd_fail(ctx, &op, -ENOENT, "no such key");
	*version = seen.revision;
	return 0;
}

static int etcd_list(void *ctx, const char *prefix,
		     struct mc_registry_text *out)
{
	struct mc_etcd_op op = mc_etcd_begin(ctx, "list", prefix);
	struct json_object *answer;
	char *range = mc_etcd_range(prefix), *body = NULL;
	int n = range ? asprintf(&body, "{%s,\"keys_only\":true}", range) : -1;
	int r = etcd_ask(ctx, &op, "kv/range", body, n, &answer);

	free(range);
	if (!r) {
		r = mc_etcd_names(answer, out);
		if (r < 0)
			r = mc_etcd_misread(ctx, &op, r);
		json_object_put(answer);
	}
	free(op.answer.data);
	return r;
}

/* ---- leases ------------------------------------------------------------ */

static uint64_t etcd_lease_id(uint32_t ttl_s)
{
	uint32_t any = 0;

	if (getrandom(&any, sizeof(any), 0) != sizeof(any))
		any = mc_clock_ns();
	return (uint64_t)ETCD_LEASE_MARK << 56 |
	       (uint64_t)(ttl_s & 0xffffff) << 32 | any;
}

static bool etcd_lease_is_ours(uint64_t lease)
{
	return lease >> 56 == ETCD_LEASE_MARK;
}

static bool etcd_lease_fits(uint64_t lease, uint32_t ttl_s)
{
	return etcd_lease_is_ours(lease) && (lease >> 32 & 0xffffff) == ttl_s;
}

/* No harm if it fails: a lease without a record runs out by itself. */
static void etcd_revoke(struct mc_etcd *e, struct etcd_write *w, uint64_t lease)
{
	char body[64];

	if (!etcd_lease_is_ours(lease))
		return;
	snprintf(body, sizeof(body), "{\"ID\":\"%" PRIu64 "\"}", lease);
	mc_etcd_post(e, &w->op, "lease/revoke", body);
}

static int etcd_grant(struct mc_etcd *e, struct etcd_write *w)
{
	char body[96];
	int r = -EEXIST;

	for (int i = 0; i < ETCD_LEASE_TRIES && r == -EEXIST; i++) {
		w->lease = etcd_lease_id(w->ttl_s);
		snprintf(body, sizeof(body), "{\"TTL\":\"%u\",\"ID\":\"%" PRIu64
			 "\"}", w->ttl_s, w->lease);
		r = mc_etcd_post(e, &w->op, "lease/grant", body);
	}
	if (r < 0)
		w->lease = 0;
	return r;
}

/* 1 the lease goes on, 0 it is gone. */
static int etcd_keep(struct mc_etcd *e, struct mc_etcd_op *op, uint64_t lease)
{
	struct json_object *answer, *result = NULL;
	char *body;
	int n = asprintf(&body, "{\"ID\":\"%" PRIu64 "\"}", lease);
	int r = etcd_ask(e, op, "lease/keepalive", body, n, &answer);

	if (r < 0)
		return r;
	r = json_object_object_get_ex(answer, "result", &result) &&
	    json_object_is_type(result, json_type_object) &&
	    mc_etcd_number(result, "TTL") > 0;
	json_object_put(answer);
	return r;
}

/* ---- writing ----------------------------------------------------------- */

/* See what is there. */
static int etcd_write_look(struct mc_etcd *e, struct etcd_write *w)
{
	struct mc_registry_text value = { 0 };
	int r = etcd_look(e, &w->op, w->key, &w->seen, &value);

	w->same = !r && w->value && w->seen.revision && value.len == w->len &&
		  (!w->len || !memcmp(value.data, w->plain, w->len));
	free(value.data);
	return r;
}

/* Is what was seen what the caller wants it to be? 1 it is what he wanted to
 * make it, and has our very lease or has gone: an earlier try had no answer. */
static int etcd_write_check(struct mc_etcd *e, struct etcd_write *w)
{
	if (w->lease && w->seen.lease == w->lease)
		return 1;
	if (!w->value && !w->seen.revision && w->op.doubt)
		return 1;
	if (w->version && w->seen.revision != *w->version)
		return mc_etcd_fail(e, &w->op, -EAGAIN, w->seen.revision ?
				    "the record has another version" :
				    "there is no such record");
	if (!w->value && !w->seen.revision)
		return mc_etcd_fail(e, &w->op, -ENOENT, "no such key");
	return 0;
}

/* The record has the value already: 1 and its lease is as it should be, 0 it
 * must be written all the same. */
static int etcd_write_keep(struct mc_etcd *e, struct etcd_write *w)
{
	if (!w->same)
		return 0;
	if (!w->ttl_s)
		return !w->seen.lease;
	return etcd_lease_fits(w->seen.lease, w->ttl_s) ?
	       etcd_keep(e, &w->op, w->seen.lease) : 0;
}

static int etcd_write_body(struct etcd_write *w, char **body)
{
	static const char compare[] = "{\"compare\":[{\"target\":\"MOD\","
		"\"key\":\"%s\",\"mod_revision\":\"%" PRIu64 "\"}],"
		"\"success\":[{\"request_%s}]}";
	char *request;
	int n;

	n = w->value ?
	    asprintf(&request, "put\":{\"key\":\"%s\",\"value\":\"%s\","
		     "\"lease\":\"%" PRIu64 "\"}", w->key, w->value, w->lease) :
	    asprintf(&request, "delete_range\":{\"key\":\"%s\"}", w->key);
	if (n < 0)
		return n;
	n = asprintf(body, compare, w->key, w->seen.revision, request);
	free(request);
	return n;
}

/* 1 it is done, 0 the record has changed since it was seen. */
static int etcd_write_swap(struct mc_etcd *e, struct etcd_write *w)
{
	struct json_object *answer, *v = NULL;
	char *body;
	int n = etcd_write_body(w, &body), r;

	w->op.writes = true;
	w->op.once = w->version;
	r = etcd_ask(e, &w->op, "kv/txn", body, n, &answer);
	w->op.writes = w->op.once = false;
	if (r < 0)
		return r;
	r = json_object_object_get_ex(answer, "succeeded", &v) &&
	    json_object_get_boolean(v);
	json_object_put(answer);
	return r;
}

/* 1 done, 0 someone else was faster. */
static int etcd_write_try(struct mc_etcd *e, struct etcd_write *w)
{
	int r = etcd_write_look(e, w);

	if (!r)
		r = etcd_write_check(e, w);
	if (!r)
		r = etcd_write_keep(e, w);
	if (!r && w->ttl_s && !w->lease)
		r = etcd_grant(e, w);
	if (r)
		return r;
	r = etcd_write_swap(e, w);
	if (r > 0)
		etcd_revoke(e, w, w->seen.lease);
	return r;
}

static int etcd_write(struct mc_etcd *e, struct etcd_write *w)
{
	char why[MC_WHY_MAX];
	int r = 0;

	while (!r)
		r = etcd_write_try(e, w);
	if (r == -EAGAIN && w->lease) {
		mc_copy(why, mc_errmsg());
		etcd_revoke(e, w, w->lease);
		mc_err(r, "%s", why);
	}
	return mc_min(r, 0);
}

static void etcd_write_free(struct etcd_write *w)
{
	free(w->key);
	free(w->value);
	free(w->op.answer.data);
}

static int etcd_put(void *ctx, const char *key, const void *value, size_t len,
		    int ttl_ms, const uint64_t *version)
{
	struct etcd_write w = {
		.op = mc_etcd_begin(ctx, version ? "cas" : "put", key),
		.key = mc_base64(key, strlen(key)),
		.plain = value, .len = len, .value = mc_base64(value, len),
		.ttl_s = ttl_ms / 1000 + (ttl_ms % 1000 > 0),
		.version = version,
	};
	int r = w.key && w.value ? etcd_write(ctx, &w) :
		etcd_out_of_memory(ctx, &w.op);

	etcd_write_free(&w);
	return r;
}

static int etcd_del(void *ctx, const char *key, const uint64_t *version)
{
	struct etcd_write w = {
		.op = mc_etcd_begin(ctx, "delete", key),
		.key = mc_base64(key, strlen(key)),
		.version = version,
	};
	int r = w.key ? etcd_write(ctx, &w) : etcd_out_of_memory(ctx, &w.op);

	etcd_write_free(&w);
	return r;
}

/* ---- the backend ------------------------------------------------------- */

static int etcd_open(void **ctx, const char *url,
		     const struct mc_registry_times *times)
{
	struct mc_etcd *e;
	int r = mc_etcd_open(&e, url, times);

	if (!r)
		*ctx = e;
	return r;
}

static void etcd_close(void *ctx)
{
	mc_etcd_close(ctx);
}

static int etcd_watch(void *ctx, const char *prefix, uint64_t *version,
		      int wait_ms, struct mc_registry_text *out)
{
	return mc_etcd_watch(ctx, prefix, version, wait_ms, out);
}

static const char *const etcd_schemes[] = { "etcd", "etcds", NULL };

const struct mc_registry_backend mc_registry_etcd = {
	.schemes = etcd_schemes,
	.open = etcd_open,
	.close = etcd_close,
	.get = etcd_get,
	.put = etcd_put,
	.del = etcd_del,
	.list = etcd_list,
	.watch = etcd_watch,
};
