/*
 * etcd_text.c - the text that etcd's JSON gateway takes and gives.
 */
#include "etcd_text.h"

#include "../base/util.h"

#include <errno.h>
#include <inttypes.h>
#include <openssl/evp.h>
#include <stdlib.h>

enum {
	ETEXT_WHY = 160,
	/* Codes of gRPC. */
	ETEXT_UNKNOWN = 2, ETEXT_INVALID = 3, ETEXT_LATE = 4,
	ETEXT_NOT_FOUND = 5, ETEXT_DENIED = 7, ETEXT_EXHAUSTED = 8,
	ETEXT_PRECONDITION = 9, ETEXT_OUT_OF_RANGE = 11,
	ETEXT_UNIMPLEMENTED = 12, ETEXT_UNAVAILABLE = 14,
	ETEXT_UNAUTHENTICATED = 16,
};

/* ---- base64 ------------------------------------------------------------ */

char *mc_base64(const void *data, size_t len)
{
	char *out = malloc(4 * ((len + 2) / 3) + 1);

	if (out)
		EVP_EncodeBlock((uint8_t *)out, data, len);
	return out;
}

/* Add what @text stands for. */
static int etext_decode(const char *text, size_t len,
			struct mc_registry_text *out)
{
	uint8_t *data;
	int n = 0, r;

	if (len % 4)
		return -EBADMSG;
	data = malloc(len / 4 * 3 + 1);
	if (!data)
		return -ENOMEM;
	if (len)
		n = EVP_DecodeBlock(data, (const uint8_t *)text, len);
	/* The signs that fill it up count as bytes. */
	for (size_t i = 1; i <= 2 && i <= len && text[len - i] == '='; i++)
		n--;
	r = n < 0 ? -EBADMSG : mc_registry_text_add(out, data, n);
	free(data);
	return r;
}

/* UTF-8 has no byte 255 to be one more than. An empty prefix is all keys. */
char *mc_etcd_range(const char *prefix)
{
	size_t len = strlen(prefix);
	char *end = strdup(prefix), *out = NULL;
	char *from64, *end64;

	if (!end)
		return NULL;
	if (len)
		end[len - 1]++;
	from64 = mc_base64(prefix, len ? len : 1);
	end64 = mc_base64(end, len ? len : 1);
	if (from64 && end64 && asprintf(&out, "\"key\":\"%s\",\"range_end\":"
					"\"%s\"", from64, end64) < 0)
		out = NULL;
	free(from64);
	free(end64);
	free(end);
	return out;
}

/* ---- members ----------------------------------------------------------- */

int mc_etcd_parse(const char *text, size_t len, struct json_object **out)
{
	struct json_tokener *t = json_tokener_new();
	struct json_object *o;
	int r = -EBADMSG;

	if (!t)
		return -ENOMEM;
	while (len && strchr(" \t\r\n", text[len - 1]) && text[len - 1])
		len--;
	o = len && len <= INT32_MAX ?
	    json_tokener_parse_ex(t, text, len) : NULL;
	if (o && json_tokener_get_parse_end(t) == len &&
	    json_object_is_type(o, json_type_object)) {
		*out = o;
		o = NULL;
		r = 0;
	}
	json_object_put(o);
	json_tokener_free(t);
	return r;
}

static struct json_object *etext_member(struct json_object *o, const char *name,
					enum json_type type)
{
	struct json_object *v = NULL;

	return json_object_object_get_ex(o, name, &v) &&
	       json_object_is_type(v, type) ? v : NULL;
}

uint64_t mc_etcd_number(struct json_object *o, const char *name)
{
	struct json_object *v = NULL;
	uint64_t n = 0;

	if (!json_object_object_get_ex(o, name, &v))
		return 0;
	if (json_object_is_type(v, json_type_int))
		return json_object_get_uint64(v);
	if (json_object_is_type(v, json_type_string) &&
	    mc_query_number(json_object_get_string(v), &n) < 0)
		return 0;
	return n;
}

static bool etext_true(struct json_object *o, const char *name)
{
	struct json_object *v = etext_member(o, name, json_type_boolean);

	return v && json_object_get_boolean(v);
}

/* Add the bytes that member @name has; none if it is left out. */
static int etext_bytes(struct json_object *o, const char *name,
		       struct mc_registry_text *out)
{
	struct json_object *v = NULL;

	if (!json_object_object_get_ex(o, name, &v))
		return mc_registry_text_add(out, "", 0);
	if (!json_object_is_type(v, json_type_string))
		return -EBADMSG;
	return etext_decode(json_object_get_string(v),
			    json_object_get_string_len(v), out);
}

uint64_t mc_etcd_revision(struct json_object *answer)
{
	struct json_object *h = etext_member(answer, "header",
					     json_type_object);

	return h ? mc_etcd_number(h, "revision") : 0;
}

/* The elements of array @name, which may be left out. */
static size_t etext_array(struct json_object *o, const char *name,
			  struct json_object **out)
{
	*out = etext_member(o, name, json_type_array);
	return *out ? json_object_array_length(*out) : 0;
}

int mc_etcd_record(struct json_object *answer, struct mc_etcd_record *out,
		   struct mc_registry_text *value)
{
	struct json_object *kvs, *kv;

	*out = (struct mc_etcd_record){ 0 };
	if (!etext_array(answer, "kvs", &kvs))
		return 0;
	kv = json_object_array_get_idx(kvs, 0);
	if (!json_object_is_type(kv, json_type_object))
		return -EBADMSG;
	out->revision = mc_etcd_number(kv, "mod_revision");
	out->lease = mc_etcd_number(kv, "lease");
	return out->revision ? etext_bytes(kv, "value", value) : -EBADMSG;
}

/* Add @head and the key of @kv as a line, unless it is no key of ours. */
static int etext_line(struct json_object *kv, const char *head,
		      struct mc_registry_text *out)
{
	struct mc_registry_text key = { 0 };
	int r = etext_bytes(kv, "key", &key);

	if (!r && !mc_key_check(key.data, key.len)) {
		r = mc_registry_text_add(out, head, strlen(head));
		if (!r)
			r = mc_registry_text_add(&key, "\n", 1);
		if (!r)
			r = mc_registry_text_add(out, key.data, key.len);
	}
	free(key.data);
	return r;
}

int mc_etcd_names(struct json_object *answer, struct mc_registry_text *out)
{
	struct json_object *kvs, *kv;
	size_t n = etext_array(answer, "kvs", &kvs);
	int r = 0;

	for (size_t i = 0; i < n && !r; i++) {
		kv = json_object_array_get_idx(kvs, i);
		r = json_object_is_type(kv, json_type_object) ?
		    etext_line(kv, "", out) : -EBADMSG;
	}
	return r;
}

/* ---- refusals ---------------------------------------------------------- */

/* The first that fits; "" fits all of a code. */
static const struct {
	int code;
	const char *says;
	int err;
} etext_refusals[] = {
	{ ETEXT_UNKNOWN, "dropped", -EBUSY },
	{ ETEXT_INVALID, "invalid user ID or password", -EACCES },
	{ ETEXT_INVALID, "user name is empty", -EACCES },
	{ ETEXT_INVALID, "revision of auth store is old", -EKEYEXPIRED },
	{ ETEXT_INVALID, "too large", -EFBIG },
	{ ETEXT_INVALID, "", -EINVAL },
	{ ETEXT_LATE, "", -EBUSY },
	{ ETEXT_NOT_FOUND, "", -ENOENT },
	{ ETEXT_DENIED, "", -EACCES },
	{ ETEXT_EXHAUSTED, "space exceeded", -ENOSPC },
	{ ETEXT_EXHAUSTED, "larger than max", -EFBIG },
	{ ETEXT_EXHAUSTED, "", -EBUSY },
	{ ETEXT_PRECONDITION, "lease already exists", -EEXIST },
	{ ETEXT_PRECONDITION, "authentication is not enabled", -EACCES },
	{ ETEXT_OUT_OF_RANGE, "", -ESTALE },
	{ ETEXT_UNIMPLEMENTED, "", -EOPNOTSUPP },
	{ ETEXT_UNAVAILABLE, "", -EBUSY },
	{ ETEXT_UNAUTHENTICATED, "invalid auth token", -EKEYEXPIRED },
	{ ETEXT_UNAUTHENTICATED, "", -EACCES },
};

static int etext_refused(uint64_t code, const char *why)
{
	for (size_t i = 0; i < mc_array_len(etext_refusals); i++)
		if (code == (uint64_t)etext_refusals[i].code &&
		    strstr(why, etext_refusals[i].says))
			return etext_refusals[i].err;
	return -EREMOTEIO;
}

/* Of an error's object, whose members differ between gateways. */
static uint64_t etext_error(struct json_object *o, char why[ETEXT_WHY])
{
	struct json_object *text = etext_member(o, "message", json_type_string);
	uint64_t code = mc_etcd_number(o, "code");

	if (!text)
		text = etext_member(o, "error", json_type_string);
	if (text)
		mc_copy_to(why, ETEXT_WHY, json_object_get_string(text));
	for (char *s = why; *s; s++)
		if ((uint8_t)*s < 0x20 || *s == 0x7f)
			*s = ' ';
	return code ? code : mc_etcd_number(o, "grpc_code");
}

int mc_etcd_refusal(const char *text, size_t len, long status,
		    char why[ETEXT_WHY])
{
	struct json_object *o = NULL, *inner;
	uint64_t code = 0;

	if (status == 404)
		mc_copy_to(why, ETEXT_WHY, "HTTP 404: there is no /v3 here, "
			   "which etcd has since 3.4");
	else
		snprintf(why, ETEXT_WHY, "HTTP %ld", status);
	if (!mc_etcd_parse(text, len, &o)) {
		inner = etext_member(o, "error", json_type_object);
		code = etext_error(inner ? inner : o, why);
	}
	json_object_put(o);
	if (code)
		return etext_refused(code, why);
	switch (status) {
	case 404:
		return -EOPNOTSUPP;
	case 401:
	case 403:
		return -EACCES;
	case 502:
	case 503:
	case 504:
		return -EBUSY;
	default:
		return -EREMOTEIO;
	}
}

/* ---- watching ---------------------------------------------------------- */

static int etext_event(struct json_object *e, struct mc_etcd_news *out,
		       struct mc_registry_text *changes)
{
	struct json_object *kv = etext_member(e, "kv", json_type_object);
	struct json_object *type = etext_member(e, "type", json_type_string);
	uint64_t revision = kv ? mc_etcd_number(kv, "mod_revision") : 0;
	char head[40];

	if (!revision)
		return -EBADMSG;
	snprintf(head, sizeof(head), "%" PRIu64 " %s ", revision,
		 type && !strcmp(json_object_get_string(type), "DELETE") ?
		 "del" : "put");
	out->last = mc_max(out->last, revision);
	return etext_line(kv, head, changes);
}

static int etext_result(struct json_object *o, struct mc_etcd_news *out,
			struct mc_registry_text *changes, char why[ETEXT_WHY])
{
	struct json_object *events, *e;
	size_t n = etext_array(o, "events", &events);
	int r = 0;

	out->revision = mc_etcd_revision(o);
	out->created = etext_true(o, "created");
	out->ended = etext_true(o, "canceled");
	out->compacted = out->ended && mc_etcd_number(o, "compact_revision");
	if (out->ended) {
		e = etext_member(o, "cancel_reason", json_type_string);
		mc_copy_to(why, ETEXT_WHY, e ? json_object_get_string(e) :
			   "the server has ended the watch");
	}
	for (size_t i = 0; i < n && !r; i++) {
		e = json_object_array_get_idx(events, i);
		r = json_object_is_type(e, json_type_object) ?
		    etext_event(e, out, changes) : -EBADMSG;
	}
	return r;
}

int mc_etcd_news(const char *line, size_t len, struct mc_etcd_news *out,
		 struct mc_registry_text *changes, char why[ETEXT_WHY])
{
	struct json_object *o = NULL, *result, *error;
	int r = mc_etcd_parse(line, len, &o);

	*out = (struct mc_etcd_news){ 0 };
	if (r < 0)
		return r;
	result = etext_member(o, "result", json_type_object);
	error = etext_member(o, "error", json_type_object);
	if (result) {
		r = etext_result(result, out, changes, why);
	} else if (error) {
		mc_copy_to(why, ETEXT_WHY, "the server has ended the watch");
		r = etext_refused(etext_error(error, why), why);
	} else {
		r = -EBADMSG;
	}
	json_object_put(o);
	return r;
}
