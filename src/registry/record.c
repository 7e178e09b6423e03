/* record.c - the segment record that an engine publishes; see record.h. */
#include "record.h"

#include "registry.h"

#include "../base/err.h"
#include "../base/util.h"

#include <errno.h>
#include <json-c/json.h>
#include <stdlib.h>

enum {
	RECORD_VERSION = 1,
	RECORD_MAX = 64 << 10,		/* bytes of one that we read */
};

static void record_key(const char *name, char *key, size_t size)
{
	snprintf(key, size, "mooncake/%s%s", strchr(name, '/') ? "" : "ram/",
		 name);
}

static void record_hex(struct json_object *o, const char *member, uint64_t v)
{
	char text[20];

	snprintf(text, sizeof(text), "%016llx", (long long)v);
	json_object_object_add(o, member, json_object_new_string(text));
}

int mc_record_encode(const struct mc_record *r, char **json)
{
	struct json_object *o = json_object_new_object();
	struct json_object *native = json_object_new_object();

	json_object_object_add(o, "name", json_object_new_string(r->name));
	json_object_object_add(o, "protocol", json_object_new_string("tcp"));
	json_object_object_add(o, "tcp_data_port", json_object_new_int(0));
	json_object_object_add(o, "buffers", json_object_new_array());
	json_object_object_add(native, "version",
			       json_object_new_int(RECORD_VERSION));
	json_object_object_add(native, "addr",
			       json_object_new_string(r->addr));
	record_hex(native, "epoch", r->epoch);
	record_hex(native, "host_id", r->host_id);
	json_object_object_add(o, "mooncake_native", native);
	*json = strdup(json_object_to_json_string_ext(o,
						JSON_C_TO_STRING_PLAIN));
	json_object_put(o);
	return *json ? 0 : mc_err(-ENOMEM, "out of memory");
}

static struct json_object *record_member(struct json_object *o,
					 const char *name, json_type type)
{
	struct json_object *m = NULL;

	if (!json_object_is_type(o, json_type_object) ||
	    !json_object_object_get_ex(o, name, &m) ||
	    !json_object_is_type(m, type))
		return NULL;
	return m;
}

static int record_string(struct json_object *o, const char *name, char *out,
			 size_t size)
{
	struct json_object *m = record_member(o, name, json_type_string);

	if (!m || !json_object_get_string_len(m) ||
	    (size_t)json_object_get_string_len(m) >= size)
		return mc_err(-EPROTO, "segment record: '%s' is missing, "
			      "empty or too long", name);
	mc_copy_to(out, size, json_object_get_string(m));
	return 0;
}

static int record_number(struct json_object *o, const char *name,
			 uint64_t *out)
{
	char text[32], *end;
	int r = record_string(o, name, text, sizeof(text));

	if (r < 0)
		return r;
	*out = strtoull(text, &end, 16);
	return *end ? mc_err(-EPROTO, "segment record: '%s' is no hexadecimal "
			     "number", name) : 0;
}

static int record_native(struct json_object *o, struct mc_record *r)
{
	struct json_object *native, *version;
	int ret;

	native = record_member(o, "mooncake_native", json_type_object);
	if (!native)
		return mc_err(-EOPNOTSUPP, "segment '%s' is of an engine that "
			      "does not speak the native protocol", r->name);
	version = record_member(native, "version", json_type_int);
	if (!version || json_object_get_int(version) < RECORD_VERSION)
		return mc_err(-EPROTO, "segment record: no native version");
	ret = record_string(native, "addr", r->addr, sizeof(r->addr));
	if (!ret)
		ret = record_number(native, "epoch", &r->epoch);
	if (!ret)
		ret = record_number(native, "host_id", &r->host_id);
	return ret;
}

int mc_record_decode(const char *json, size_t len, struct mc_record *r)
{
	struct json_tokener *t = json_tokener_new();
	struct mc_record rec = { .epoch = 0 };
	struct json_object *o;
	int ret;

	if (!t)
		return mc_err(-ENOMEM, "out of memory");
	o = len <= RECORD_MAX ? json_tokener_parse_ex(t, json, len) : NULL;
	if (!o)
		ret = mc_err(-EPROTO, "segment record: %s",
			     len > RECORD_MAX ? "too long" :
			     json_tokener_error_desc(
				     json_tokener_get_error(t)));
	else
		ret = record_string(o, "name", rec.name, sizeof(rec.name));
	if (!ret)
		ret = record_native(o, &rec);
	if (!ret)
		*r = rec;
	json_object_put(o);
	json_tokener_free(t);
	return ret;
}

int mc_record_publish(struct mc_registry *reg, const struct mc_record *r,
		      int ttl_ms)
{
	char key[MC_NAME_MAX + 32], *json;
	int ret = mc_record_encode(r, &json);

	if (ret < 0)
		return ret;
	record_key(r->name, key, sizeof(key));
	ret = mc_registry_put(reg, key, json, strlen(json), ttl_ms);
	free(json);
	return ret;
}

static int record_get(struct mc_registry *reg, const char *name,
		      struct mc_record *out, uint64_t *version)
{
	char key[MC_NAME_MAX + 32];
	char *json = malloc(RECORD_MAX);
	int64_t n;
	int r;

	if (!json)
		return mc_err(-ENOMEM, "out of memory");
	record_key(name, key, sizeof(key));
	n = mc_registry_get(reg, key, json, RECORD_MAX, version);
	if (n < 0)
		r = n;
	else if (n >= RECORD_MAX)
		r = mc_err(-EPROTO, "segment record '%s' is too long", name);
	else
		r = mc_record_decode(json, n, out);
	free(json);
	return r;
}

int mc_record_fetch(struct mc_registry *reg, const char *name,
		    struct mc_record *out)
{
	return record_get(reg, name, out, NULL);
}

int mc_record_withdraw(struct mc_registry *reg, const char *name,
		       uint64_t epoch)
{
	char key[MC_NAME_MAX + 32];
	struct mc_record now;
	uint64_t version;
	int r = record_get(reg, name, &now, &version);

	if (r == -ENOENT || (!r && now.epoch != epoch))
		return 0;
	if (r < 0)
		return r;
	record_key(name, key, sizeof(key));
	r = version ? mc_registry_del_if(reg, key, version) :
	    mc_registry_del(reg, key);
	return r == -EAGAIN || r == -ENOENT ? 0 : r;
}
