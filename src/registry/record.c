/*
 * record.c - the record under which an engine is found in a registry.
 *
 *	mooncake/ram/node-1:
 *	{"name":"node-1","protocol":"tcp","tcp_data_port":0,"buffers":[],
 *	 "mooncake_native":{"version":1,"addr":"10.0.0.1:7000",
 *	  "epoch":"5f3a...","host_id":"77c0..."}}
 *
 * Numbers of 64 bits are in hex: readers of JSON may have no more than doubles.
 */
#include "record.h"

#include "registry.h"

#include "../base/err.h"
#include "../base/json.h"
#include "../base/net.h"
#include "../base/util.h"

#include <errno.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <stdlib.h>
#include <time.h>

enum {
	RECORD_VERSION = 1,
	RECORD_MAX = 16 << 20,		/* descriptors with many buffers */
};

#define RECORD_PLACE "cpu:0"

/* ---- encode ------------------------------------------------------------ */

static int record_add_text(struct json_object *o, const char *name,
			   const char *text)
{
	return mc_json_add(o, name, json_object_new_string(text));
}

static int record_add_hex(struct json_object *o, const char *name,
			  uint64_t value)
{
	char text[20];

	snprintf(text, sizeof(text), "%016" PRIx64, value);
	return record_add_text(o, name, text);
}

static struct json_object *record_native(const struct mc_record *r)
{
	struct json_object *o = json_object_new_object();

	if (!o)
		return NULL;
	if (!mc_json_add(o, "version", json_object_new_int(RECORD_VERSION)) &&
	    !record_add_text(o, "addr", r->addr) &&
	    !record_add_hex(o, "epoch", r->epoch) &&
	    !record_add_hex(o, "host_id", r->host_id))
		return o;
	json_object_put(o);
	return NULL;
}

/* One that answers with less than it was asked for is freed. */
static struct json_object *record_whole(struct json_object *o, bool whole)
{
	if (whole)
		return o;
	json_object_put(o);
	return NULL;
}

/* Those of our end are of no use to others, but have to be there. */
static int record_keys(struct json_object *o, const char *name,
		       const uint32_t *keys, int n)
{
	struct json_object *list = json_object_new_array();

	for (int i = 0; list && i < n; i++)
		json_object_array_add(list, json_object_new_int64(keys[i]));
	return mc_json_add(o, name, list);
}

static struct json_object *record_buffer(const struct mc_record *r, uint64_t i)
{
	const struct mc_buffer_info *b = &r->buffers[i];
	const uint32_t *keys = r->n_devs ? r->keys + i * r->n_devs : NULL;
	struct json_object *o = json_object_new_object();
	bool whole = o;

	/* By tcp a buffer is named after the segment, by rdma after where it
	 * is: one place, or readers would number the devices as they like. */
	whole = whole &&
		!record_add_text(o, "name", r->n_devs ? RECORD_PLACE :
				 r->name) &&
		!mc_json_add(o, "addr", json_object_new_uint64(b->addr)) &&
		!mc_json_add(o, "length", json_object_new_uint64(b->len));
	/* For our own; the public one knows of no access flags. */
	if (whole && b->access != MC_REMOTE_RW)
		whole = !mc_json_add(o, "mooncake_access",
				     json_object_new_int(b->access));
	if (whole && r->n_devs)
		whole = !record_keys(o, "lkey", keys, r->n_devs) &&
			!record_keys(o, "rkey", keys, r->n_devs);
	return record_whole(o, whole);
}

static struct json_object *record_buffers(const struct mc_record *r)
{
	struct json_object *list = json_object_new_array();
	bool whole = list;

	for (uint64_t i = 0; whole && i < r->n_buffers; i++) {
		struct json_object *b = record_buffer(r, i);

		whole = b && !json_object_array_add(list, b);
		if (!whole)
			json_object_put(b);
	}
	return record_whole(list, whole);
}

static struct json_object *record_device(const struct mc_record_dev *d)
{
	struct json_object *o = json_object_new_object();

	return record_whole(o, o && !record_add_text(o, "name", d->name) &&
			    !mc_json_add(o, "lid",
					 json_object_new_int(d->lid)) &&
			    !record_add_text(o, "gid", d->gid));
}

/* All are the first choice for the one place, in their order; there is no
 * second. */
static struct json_object *record_matrix(const struct mc_record *r)
{
	struct json_object *o = json_object_new_object();
	struct json_object *both = json_object_new_array();
	struct json_object *first = json_object_new_array();

	for (int i = 0; first && i < r->n_devs; i++)
		json_object_array_add(first, json_object_new_string(
					      r->devs[i].name));
	json_object_array_add(both, first);
	json_object_array_add(both, json_object_new_array());
	if (!o || mc_json_add(o, RECORD_PLACE, both) < 0)
		return record_whole(o, false);
	return o;
}

static int record_fill_devices(struct json_object *o,
			       const struct mc_record *r)
{
	struct json_object *list = json_object_new_array();

	for (int i = 0; list && i < r->n_devs; i++)
		json_object_array_add(list, record_device(&r->devs[i]));
	if (mc_json_add(o, "devices", list) < 0)
		return -ENOMEM;
	return mc_json_add(o, "priority_matrix", record_matrix(r));
}

/* What the public Mooncake wants to know to reach the buffers. */
static int record_fill_served(struct json_object *o, const struct mc_record *r)
{
	struct mc_net_name at = { .port = 0 };
	char now[48];
	struct timespec t;
	struct tm tm;
	size_t n;

	clock_gettime(CLOCK_REALTIME, &t);
	n = strftime(now, sizeof(now), "%F %T", localtime_r(&t.tv_sec, &tm));
	snprintf(now + n, sizeof(now) - n, ".%06ld", t.tv_nsec / 1000);
	if (mc_net_parse(r->addr, -1, &at) < 0 ||
	    record_add_text(o, "tcp_data_host", at.host) < 0 ||
	    mc_json_add(o, "tcp_proto_version", json_object_new_int(2)) < 0)
		return -ENOMEM;
	return record_add_text(o, "timestamp", now);
}

static int record_fill(struct json_object *o, const struct mc_record *r)
{
	if (record_add_text(o, "name", r->name) < 0 ||
	    record_add_text(o, "protocol", r->n_devs ? "rdma" : "tcp") < 0 ||
	    mc_json_add(o, "tcp_data_port",
			json_object_new_int(r->data_port)) < 0 ||
	    mc_json_add(o, "buffers", record_buffers(r)) < 0 ||
	    (r->data_port && record_fill_served(o, r) < 0) ||
	    (r->n_devs && record_fill_devices(o, r) < 0))
		return -ENOMEM;
	return mc_json_add(o, "mooncake_native", record_native(r));
}

int mc_record_encode(const struct mc_record *r, char **json)
{
	struct json_object *o = json_object_new_object();
	const char *text = NULL;
	char *copy;

	if (o && !record_fill(o, r))
		text = json_object_to_json_string_ext(
			o, JSON_C_TO_STRING_PLAIN |
			JSON_C_TO_STRING_NOSLASHESCAPE);
	copy = text ? strdup(text) : NULL;
	json_object_put(o);
	if (!copy)
		return mc_err(-ENOMEM, "out of memory");
	*json = copy;
	return 0;
}

/* ---- decode ------------------------------------------------------------ */

static bool record_get(struct json_object *o, const char *name,
		       enum json_type type, struct json_object **out)
{
	return json_object_object_get_ex(o, name, out) &&
	       json_object_is_type(*out, type);
}

/* Text of member @name, with no zero inside, that fits. */
static int record_text(struct json_object *o, const char *name, char *out,
		       size_t size)
{
	struct json_object *v;
	const char *text;
	size_t len;

	if (!record_get(o, name, json_type_string, &v))
		return mc_err(-EBADMSG, "segment record: no text '%s'", name);
	text = json_object_get_string(v);
	len = json_object_get_string_len(v);
	if (!len || len >= size || strlen(text) != len)
		return mc_err(-EBADMSG, "segment record: '%s' is empty, or "
			      "longer than %zu bytes, or has a zero", name,
			      size - 1);
	memcpy(out, text, len + 1);
	return 0;
}

static int record_hex(struct json_object *o, const char *name, uint64_t *out)
{
	char text[17];
	int r = record_text(o, name, text, sizeof(text));

	if (r < 0)
		return r;
	if (text[strspn(text, "0123456789abcdefABCDEF")])
		return mc_err(-EBADMSG, "segment record: '%s' is not hex: "
			      "'%s'", name, text);
	*out = strtoull(text, NULL, 16);
	return 0;
}

static int record_decode_native(struct json_object *o, struct mc_record *r)
{
	struct mc_net_name at;
	struct json_object *version;
	int ret;

	if (!record_get(o, "version", json_type_int, &version))
		return mc_err(-EBADMSG, "segment record '%s': mooncake_native "
			      "has no version", r->name);
	if (json_object_get_int64(version) != RECORD_VERSION)
		return mc_err(-EPROTONOSUPPORT, "segment record '%s' is of "
			      "version %" PRId64 ", this release knows %d",
			      r->name, json_object_get_int64(version),
			      RECORD_VERSION);
	ret = record_text(o, "addr", r->addr, sizeof(r->addr));
	if (!ret)
		ret = record_hex(o, "epoch", &r->epoch);
	if (!ret)
		ret = record_hex(o, "host_id", &r->host_id);
	if (!ret && mc_net_parse(r->addr, -1, &at) < 0)
		ret = mc_err(-EBADMSG, "segment record '%s': '%s' is not an "
			     "address", r->name, r->addr);
	return ret;
}

static int record_decode_object(struct json_object *o, struct mc_record *r)
{
	struct json_object *native;
	int ret;

	if (!json_object_is_type(o, json_type_object))
		return mc_err(-EBADMSG, "segment record: not a JSON object");
	ret = record_text(o, "name", r->name, sizeof(r->name));
	if (ret < 0)
		return ret;
	if (!json_object_object_get_ex(o, "mooncake_native", &native))
		return mc_err(-EPROTONOSUPPORT, "segment '%s' is not of an "
			      "engine of ours: its record has no "
			      "mooncake_native", r->name);
	if (!json_object_is_type(native, json_type_object))
		return mc_err(-EBADMSG, "segment record '%s': mooncake_native "
			      "is not an object", r->name);
	return record_decode_native(native, r);
}

int mc_record_decode(const char *json, size_t len, struct mc_record *r)
{
	struct json_tokener *t;
	struct json_object *o = NULL;
	struct mc_record got = { 0 };
	int ret;

	while (len && strchr(" \t\r\n", json[len - 1]) && json[len - 1])
		len--;
	if (!len || len > RECORD_MAX)
		return mc_err(-EBADMSG, "segment record: %zu bytes is not the "
			      "length of one", len);
	t = json_tokener_new();
	if (!t)
		return mc_err(-ENOMEM, "out of memory");
	json_tokener_set_flags(t, JSON_TOKENER_STRICT);
	o = json_tokener_parse_ex(t, json, len);
	if (!o || json_tokener_get_error(t) != json_tokener_success)
		ret = mc_err(-EBADMSG, "segment record: not JSON: %s",
			     json_tokener_error_desc(json_tokener_get_error(
							     t)));
	else
		ret = record_decode_object(o, &got);
	json_object_put(o);
	json_tokener_free(t);
	if (!ret)
		*r = got;
	return ret;
}

/* ---- in a registry ----------------------------------------------------- */

/* Leading slashes are not part of a segment's name; one that has others is its
 * key without a kind. */
int mc_record_key(const char *kind, const char *name,
		  char key[MC_RECORD_KEY_MAX])
{
	const char *cluster = getenv("MC_METADATA_CLUSTER_ID");
	bool ram = !strcmp(kind, "ram");

	name += strspn(name, "/");
	if (!*name || strlen(name) >= MC_NAME_MAX)
		return mc_err(-EINVAL, "segment name '%.80s': expected 1 to "
			      "%d bytes", name, MC_NAME_MAX - 1);
	if (!cluster)
		cluster = "";
	if (strlen(cluster) >= MC_NAME_MAX)
		return mc_err(-EINVAL, "MC_METADATA_CLUSTER_ID is longer than "
			      "%d bytes", MC_NAME_MAX - 1);
	snprintf(key, MC_RECORD_KEY_MAX, "mooncake/%s%s%s%s%s", cluster,
		 *cluster && cluster[strlen(cluster) - 1] != '/' ? "/" : "",
		 ram && strchr(name, '/') ? "" : kind,
		 ram && strchr(name, '/') ? "" : "/", name);
	return 0;
}

int mc_record_publish(struct mc_registry *reg, const struct mc_record *r,
		      int ttl_ms)
{
	char key[MC_RECORD_KEY_MAX];
	char *json = NULL;
	int ret = mc_record_key("ram", r->name, key);

	if (!ret)
		ret = mc_record_encode(r, &json);
	if (ret < 0)
		return ret;
	ret = mc_registry_put(reg, key, json, strlen(json), ttl_ms);
	free(json);
	return ret;
}

static int record_fetch(struct mc_registry *reg, const char *name,
			const char *key, struct mc_record *r, uint64_t *version)
{
	char *json = NULL;
	int64_t len = mc_registry_read(reg, key, &json, version);
	int ret;

	if (len == -ENOENT)
		return mc_err(-ENOENT, "no segment '%.100s': %s", name,
			      mc_errmsg());
	if (len < 0)
		return len;
	ret = mc_record_decode(json, len, r);
	free(json);
	if (!ret && strcmp(r->name + strspn(r->name, "/"),
			   name + strspn(name, "/")))
		ret = mc_err(-EBADMSG, "segment '%.100s': its record names "
			     "'%s'", name, r->name);
	return ret;
}

int mc_record_fetch(struct mc_registry *reg, const char *name,
		    struct mc_record *r)
{
	char key[MC_RECORD_KEY_MAX];
	uint64_t version;
	int ret = mc_record_key("ram", name, key);

	return ret < 0 ? ret : record_fetch(reg, name, key, r, &version);
}

int mc_record_withdraw(struct mc_registry *reg, const char *name,
		       uint64_t epoch)
{
	char key[MC_RECORD_KEY_MAX];
	struct mc_record r;
	uint64_t version;
	int ret = mc_record_key("ram", name, key);

	if (!ret)
		ret = record_fetch(reg, name, key, &r, &version);
	if (ret < 0)
		return ret;
	if (r.epoch != epoch)
		return mc_err(-ESTALE, "segment '%.100s' is published by "
			      "another engine, at %s, by now", name, r.addr);
	/* Servers without versions leave a moment between the two. */
	return version ? mc_registry_del_if(reg, key, version) :
	       mc_registry_del(reg, key);
}
