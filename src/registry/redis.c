/*
 * redis.c - the registry client for redis, 6 or later.
 *
 * Keys and values are as they come, so that the public engine's "SET
 * mooncake/ram/<segment>" and ours (record.c) are the same to both. What redis
 * does not have is beside them:
 *
 *	mooncake.version	the version that was given last: the server's
 *				time in microseconds, or one more
 *	mooncake.version:<key>	"version sha1": what the value has that has
 *				this sum; a value that others have set gets a
 *				new one when we see it
 *
 * Conditions, and values with their versions, are scripts on the server, which
 * nothing comes between. Leases are its expiry.
 */
#include "redis.h"

#include "../base/err.h"
#include "../base/util.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

enum {
	REDIS_PORT = 6379,
	REDIS_ARGS = 8,
};

struct redis {
	struct mc_registry_url url;
	struct mc_redis link;
	struct mc_redis_watch *watch;
};

/* ---- scripts ----------------------------------------------------------- */

/* What all scripts begin with. */
#define REDIS_LOOK \
	"local function new()\n" \
	"   local t = redis.call('TIME')\n" \
	"   local last = redis.call('GET', '" MC_REDIS_SIDE "')\n" \
	"   local v = math.max(t[1]*1e6 + t[2], (tonumber(last) or 0) + 1)\n" \
	"   v = string.format('%.0f', v)\n" \
	"   redis.call('SET', '" MC_REDIS_SIDE "', v)\n" \
	"   return v\n" \
	"end\n" \
	"local function side(key) return '" MC_REDIS_SIDE ":' .. key end\n" \
	/* The side key goes a little later than the record. */ \
	"local function lease(key, ttl_ms)\n" \
	"   if ttl_ms > 0 then\n" \
	"      redis.call('PEXPIRE', key, ttl_ms)\n" \
	"      redis.call('PEXPIRE', side(key), ttl_ms + 1000)\n" \
	"   else\n" \
	"      redis.call('PERSIST', key)\n" \
	"      redis.call('PERSIST', side(key))\n" \
	"   end\n" \
	"end\n" \
	"local function mark(key, value)\n" \
	"   local v = new()\n" \
	"   redis.call('SET', side(key), v .. ' ' .. redis.sha1hex(value))\n" \
	"   return v\n" \
	"end\n" \
	"local function look(key)\n" \
	"   local value = redis.call('GET', key)\n" \
	"   if not value then return false, '0' end\n" \
	"   local v, sum = string.match(redis.call('GET', side(key)) or '',\n" \
	"                               '^(%d+) (%x+)$')\n" \
	"   if sum ~= redis.sha1hex(value) then\n" \
	"      v = mark(key, value)\n" \
	"      lease(key, redis.call('PTTL', key))\n" \
	"   end\n" \
	"   return value, v\n" \
	"end\n"

/* {value, version} */
static const char redis_get_script[] = REDIS_LOOK
	"return {look(KEYS[1])}\n";

/* 1, or the version that is not the one of the condition ('': none). */
static const char redis_put_script[] = REDIS_LOOK
	"local key, want, ttl_ms, condition =\n"
	"   KEYS[1], ARGV[1], tonumber(ARGV[2]), ARGV[3]\n"
	"local value, version = look(key)\n"
	"if condition ~= '' and condition ~= version then\n"
	"   return version\n"
	"end\n"
	"if value ~= want then\n"
	"   redis.call('SET', key, want)\n"
	"   mark(key, want)\n"
	"end\n"
	"lease(key, ttl_ms)\n"
	"return 1\n";

static const char redis_del_script[] = REDIS_LOOK
	"local value, version = look(KEYS[1])\n"
	"if not value or ARGV[1] ~= '' and ARGV[1] ~= version then\n"
	"   return version\n"
	"end\n"
	"redis.call('DEL', KEYS[1], side(KEYS[1]))\n"
	"return 1\n";

/* The versions of all keys, '0' where there is no value. */
static const char redis_versions_script[] = REDIS_LOOK
	"local function version(key)\n"
	"   local _, v = look(key)\n"
	"   return v\n"
	"end\n"
	"local out = {}\n"
	"for i, key in ipairs(KEYS) do\n"
	"   local ok, v = pcall(version, key)\n"
	"   out[i] = ok and v or '0'\n"
	"end\n"
	"return out\n";

/* Run @script with one key and @n arguments. */
static int redis_eval(struct redis *d, struct mc_redis_op *op,
		      const char *script, int n, const char *const *args,
		      const size_t *lens, redisReply **reply)
{
	const char *argv[REDIS_ARGS] = { "EVAL", script, "1", op->key };
	size_t all[REDIS_ARGS];

	for (int i = 0; i < 4; i++)
		all[i] = strlen(argv[i]);
	for (int i = 0; i < n; i++) {
		argv[4 + i] = args[i];
		all[4 + i] = lens ? lens[i] : strlen(args[i]);
	}
	return mc_redis_ask(&d->link, op, 4 + n, argv, all, reply);
}

static int redis_misread(const struct mc_redis *l, const struct mc_redis_op *op)
{
	return mc_redis_fail(l, op, -EBADMSG, "the answer is not of redis");
}

/* ---- names ------------------------------------------------------------- */

static int redis_scan(struct mc_redis *l, struct mc_redis_op *op,
		      const char *glob, struct mc_registry_text *out)
{
	char cursor[24] = "0";
	const char *argv[] = { "SCAN", cursor, "MATCH", glob, "COUNT", "1000",
			       "TYPE", "string" };
	redisReply *reply;
	int r;

	do {
		r = mc_redis_ask(l, op, mc_array_len(argv), argv, NULL, &reply);
		if (r < 0)
			return r;
		r = mc_redis_scanned(reply, cursor, out);
		mc_hiredis.freeReplyObject(reply);
		if (r == -ENOMEM)
			return mc_redis_fail(l, op, r, "out of memory");
		if (r < 0)
			return redis_misread(l, op);
	} while (strcmp(cursor, "0"));
	return 0;
}

int mc_redis_names(struct mc_redis *l, struct mc_redis_op *op,
		   const char *prefix, struct mc_registry_text *out)
{
	struct mc_registry_text found = { 0 };
	char glob[MC_REDIS_GLOB_MAX];
	int r = mc_redis_glob(prefix, glob, sizeof(glob));

	if (!r)
		r = redis_scan(l, op, glob, &found);
	if (!r && mc_redis_sort(&found, out) < 0)
		r = mc_redis_fail(l, op, -ENOMEM, "out of memory");
	free(found.data);
	return r;
}

int mc_redis_versions(struct mc_redis *l, struct mc_redis_op *op, int n,
		      const char *const *names, uint64_t *versions)
{
	const char *argv[3 + MC_REDIS_BATCH] = { "EVAL",
						 redis_versions_script };
	redisReply *reply;
	char count[8];
	int r;

	snprintf(count, sizeof(count), "%d", n);
	argv[2] = count;
	memcpy(argv + 3, names, n * sizeof(*names));
	r = mc_redis_ask(l, op, 3 + n, argv, NULL, &reply);
	if (r < 0)
		return r;
	if (reply->type != REDIS_REPLY_ARRAY || reply->elements != (size_t)n)
		r = -EBADMSG;
	for (int i = 0; i < n && !r; i++)
		r = mc_redis_number(reply->element[i], &versions[i]);
	mc_hiredis.freeReplyObject(reply);
	return r < 0 ? redis_misread(l, op) : 0;
}

/* ---- open and close ---------------------------------------------------- */

static void redis_close(void *ctx)
{
	struct redis *d = ctx;

	if (!d)
		return;
	mc_redis_watch_free(d->watch);
	mc_redis_close(&d->link);
	explicit_bzero(&d->url, sizeof(d->url));
	free(d);
}

static int redis_address(struct redis *d, const char *url)
{
	int r = mc_registry_url_parse(url, "redis", REDIS_PORT, &d->url);

	if (r < 0)
		return r;
	if (d->url.n_hosts > 1)
		return mc_err(-EINVAL, "registry %s: one server, please: redis "
			      "has no others to go to", d->url.shown);
	if (d->url.path[strspn(d->url.path, "0123456789")])
		return mc_err(-EINVAL, "registry %s: '/%.40s' is not the "
			      "number of a database", d->url.shown,
			      d->url.path);
	return 0;
}

static int redis_open(void **ctx, const char *url,
		      const struct mc_registry_times *times)
{
	struct redis *d;
	int r = mc_curl_load();

	if (!r)
		r = mc_hiredis_load();
	if (r < 0)
		return r;
	d = calloc(1, sizeof(*d));
	if (!d)
		return mc_err(-ENOMEM, "out of memory");
	mc_redis_init(&d->link, &d->url, times);
	r = redis_address(d, url);
	if (r < 0) {
		redis_close(d);
		return r;
	}
	*ctx = d;
	return 0;
}

/* An operation on one key, unless it keeps a version. */
static int redis_begin(struct redis *d, const char *what, const char *key,
		       struct mc_redis_op *op)
{
	*op = mc_redis_begin(&d->link, what, key);
	return mc_redis_is_name(key, strlen(key)) ? 0 :
	       mc_redis_fail(&d->link, op, -EINVAL, "keys that begin so keep "
			     "the versions of others");
}

/* ---- the backend ------------------------------------------------------- */

static int redis_get(void *ctx, const char *key, struct mc_registry_text *out,
		     uint64_t *version)
{
	struct redis *d = ctx;
	struct mc_redis_op op;
	redisReply *reply, *value;
	int r = redis_begin(d, "get", key, &op);

	if (!r)
		r = redis_eval(d, &op, redis_get_script, 0, NULL, NULL, &reply);
	if (r < 0)
		return r;
	value = reply->type == REDIS_REPLY_ARRAY && reply->elements == 2 ?
		reply->element[0] : NULL;
	if (value && value->type == REDIS_REPLY_NIL)
		r = mc_redis_fail(&d->link, &op, -ENOENT, "no such key");
	else if (!value || value->type != REDIS_REPLY_STRING ||
		 mc_redis_number(reply->element[1], version) < 0)
		r = redis_misread(&d->link, &op);
	else if (mc_registry_text_add(out, value->str, value->len) < 0)
		r = mc_redis_fail(&d->link, &op, -ENOMEM, "out of memory");
	mc_hiredis.freeReplyObject(reply);
	return r;
}

/* What came of a change: 1, or the version that there is. */
static int redis_changed(struct redis *d, struct mc_redis_op *op,
			 redisReply *reply, const uint64_t *version)
{
	bool done = reply->type == REDIS_REPLY_INTEGER;
	uint64_t found = 0;
	int r = done ? 0 : mc_redis_number(reply, &found);

	mc_hiredis.freeReplyObject(reply);
	if (r < 0)
		return redis_misread(&d->link, op);
	if (done)
		return 0;
	if (found)
		return mc_redis_fail(&d->link, op, -EAGAIN,
				     "the record has another version");
	return version ? mc_redis_fail(&d->link, op, -EAGAIN,
				       "there is no such record") :
	       mc_redis_fail(&d->link, op, -ENOENT, "no such key");
}

static void redis_condition(const uint64_t *version, char out[24])
{
	out[0] = 0;
	if (version)
		snprintf(out, 24, "%" PRIu64, *version);
}

static int redis_put(void *ctx, const char *key, const void *value, size_t len,
		     int ttl_ms, const uint64_t *version)
{
	struct redis *d = ctx;
	struct mc_redis_op op;
	char ttl[16], condition[24];
	const char *args[] = { len ? value : "", ttl, condition };
	size_t lens[] = { len, 0, 0 };
	redisReply *reply;
	int r = redis_begin(d, version ? "cas" : "put", key, &op);

	snprintf(ttl, sizeof(ttl), "%d", ttl_ms);
	redis_condition(version, condition);
	lens[1] = strlen(ttl);
	lens[2] = strlen(condition);
	if (!r)
		r = redis_eval(d, &op, redis_put_script, 3, args, lens, &reply);
	return r < 0 ? r : redis_changed(d, &op, reply, version);
}

static int redis_del(void *ctx, const char *key, const uint64_t *version)
{
	struct redis *d = ctx;
	struct mc_redis_op op;
	char condition[24];
	const char *args[] = { condition };
	redisReply *reply;
	int r = redis_begin(d, "delete", key, &op);

	redis_condition(version, condition);
	if (!r)
		r = redis_eval(d, &op, redis_del_script, 1, args, NULL, &reply);
	return r < 0 ? r : redis_changed(d, &op, reply, version);
}

static int redis_list(void *ctx, const char *prefix,
		      struct mc_registry_text *out)
{
	struct redis *d = ctx;
	struct mc_redis_op op = mc_redis_begin(&d->link, "list", prefix);

	return mc_redis_names(&d->link, &op, prefix, out);
}

static int redis_watch(void *ctx, const char *prefix, uint64_t *version,
		       int wait_ms, struct mc_registry_text *out)
{
	struct redis *d = ctx;

	return mc_redis_watch(&d->watch, &d->link, prefix, version, wait_ms,
			      out);
}

static const char *const redis_schemes[] = { "redis", "rediss", NULL };

const struct mc_registry_backend mc_registry_redis = {
	.schemes = redis_schemes,
	.open = redis_open,
	.close = redis_close,
	.get = redis_get,
	.put = redis_put,
	.del = redis_del,
	.list = redis_list,
	.watch = redis_watch,
};
