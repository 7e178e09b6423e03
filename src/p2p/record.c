/*
 * record.c - the record of an object, as JSON and in a registry.
 *
 *	mooncake/checkpoint/llama/7:
 *	{"name":"llama/7","size":3145728,"size_list":[3145728],
 *	 "max_shard_size":2097152,"shards":[{"size":2097152,
 *	   "gold":[{"segment_name":"10.0.0.1:7000","offset":139637976727552}],
 *	   "replica_list":[],"xxh3":"5f3a..."},...],
 *	 "mooncake_native":{"version":1,"id":"77c0...","pinned":false,
 *	   "note":""}}
 */
#include "record.h"

#include "../base/err.h"
#include "../base/json.h"
#include "../base/util.h"
#include "../registry/registry.h"

#include <errno.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <stdlib.h>

enum {
	P2P_RECORD_VERSION = 1,
	P2P_RECORD_MAX = MC_VALUE_MAX,
	P2P_NOTE_MAX = 1 << 20,
};

/* ---- what a record says ------------------------------------------------ */

int64_t p2p_count_shards(const uint64_t *sizes, uint32_t n,
			 uint64_t shard_bytes)
{
	uint64_t count = 0;

	for (uint32_t i = 0; i < n; i++) {
		count += sizes[i] / shard_bytes + !!(sizes[i] % shard_bytes);
		if (count > P2P_SHARDS_MAX)
			return mc_err(-E2BIG, "more than %d shards: they would "
				      "have to be larger", P2P_SHARDS_MAX);
	}
	return count;
}

void p2p_lay_out(const struct p2p_record *r, struct p2p_shard *out)
{
	for (uint32_t i = 0; i < r->n_buffers; i++)
		for (uint64_t off = 0; off < r->sizes[i];
		     off += r->shard_bytes)
			*out++ = (struct p2p_shard){
				i, off, mc_min(r->shard_bytes,
					       r->sizes[i] - off)
			};
}

void p2p_record_fini(struct p2p_record *r)
{
	for (uint32_t i = 0; i < r->n_seeds; i++)
		free(r->seeds[i].offsets);
	free(r->seeds);
	free(r->sizes);
	free(r->sums);
	free(r->note);
	*r = (struct p2p_record){ 0 };
}

struct p2p_seed *p2p_record_seed(struct p2p_record *r, const char *segment,
				 bool gold, bool add)
{
	struct p2p_seed *s;

	for (uint32_t i = 0; i < r->n_seeds; i++)
		if (!strcmp(r->seeds[i].segment, segment))
			return &r->seeds[i];
	if (!add || r->n_seeds == P2P_SEEDS_MAX)
		return NULL;
	s = realloc(r->seeds, (r->n_seeds + 1) * sizeof(*s));
	if (!s)
		return NULL;
	r->seeds = s;
	s += r->n_seeds;
	*s = (struct p2p_seed){ .gold = gold };
	s->offsets = calloc(r->n_shards + 1, sizeof(*s->offsets));
	if (!s->offsets)
		return NULL;
	mc_copy(s->segment, segment);
	r->n_seeds++;
	return s;
}

void p2p_record_unseed(struct p2p_record *r, const char *segment)
{
	struct p2p_seed *s = p2p_record_seed(r, segment, false, false);

	if (!s)
		return;
	free(s->offsets);
	*s = r->seeds[--r->n_seeds];
}

/* ---- encode ------------------------------------------------------------ */

static int p2p_append(struct json_object *array, struct json_object *value)
{
	if (value && !json_object_array_add(array, value))
		return 0;
	json_object_put(value);
	return -ENOMEM;
}

static struct json_object *p2p_hex(uint64_t value)
{
	char text[20];

	snprintf(text, sizeof(text), "%016" PRIx64, value);
	return json_object_new_string(text);
}

static struct json_object *p2p_place(const char *segment, uint64_t offset)
{
	struct json_object *o = json_object_new_object();

	if (o && !mc_json_add(o, "segment_name",
			      json_object_new_string(segment)) &&
	    !mc_json_add(o, "offset", json_object_new_int64(offset)))
		return o;
	json_object_put(o);
	return NULL;
}

/* Those who have shard @i, as sources or not. */
static struct json_object *p2p_places(const struct p2p_record *r, uint32_t i,
				      bool gold)
{
	struct json_object *list = json_object_new_array();

	for (uint32_t k = 0; list && k < r->n_seeds; k++) {
		const struct p2p_seed *s = &r->seeds[k];

		if (s->gold != gold || !s->offsets[i])
			continue;
		if (!p2p_append(list, p2p_place(s->segment, s->offsets[i])))
			continue;
		json_object_put(list);
		return NULL;
	}
	return list;
}

static struct json_object *p2p_shard(const struct p2p_record *r, uint32_t i,
				     uint64_t len)
{
	struct json_object *o = json_object_new_object();

	if (o && !mc_json_add(o, "size", json_object_new_int64(len)) &&
	    !mc_json_add(o, "gold", p2p_places(r, i, true)) &&
	    !mc_json_add(o, "replica_list", p2p_places(r, i, false)) &&
	    (!r->native || !mc_json_add(o, "xxh3", p2p_hex(r->sums[i]))))
		return o;
	json_object_put(o);
	return NULL;
}

static struct json_object *p2p_shards(const struct p2p_record *r)
{
	struct json_object *list = json_object_new_array();
	struct p2p_shard *s = calloc(r->n_shards + 1, sizeof(*s));
	int ret = list && s ? 0 : -ENOMEM;

	if (!ret)
		p2p_lay_out(r, s);
	for (uint32_t i = 0; !ret && i < r->n_shards; i++)
		ret = p2p_append(list, p2p_shard(r, i, s[i].len));
	free(s);
	if (!ret)
		return list;
	json_object_put(list);
	return NULL;
}

static struct json_object *p2p_sizes(const struct p2p_record *r)
{
	struct json_object *list = json_object_new_array();
	int ret = list ? 0 : -ENOMEM;

	for (uint32_t i = 0; !ret && i < r->n_buffers; i++)
		ret = p2p_append(list, json_object_new_int64(r->sizes[i]));
	if (!ret)
		return list;
	json_object_put(list);
	return NULL;
}

static struct json_object *p2p_native(const struct p2p_record *r)
{
	struct json_object *o = json_object_new_object();

	if (o &&
	    !mc_json_add(o, "version",
			 json_object_new_int(P2P_RECORD_VERSION)) &&
	    !mc_json_add(o, "id", p2p_hex(r->id)) &&
	    !mc_json_add(o, "pinned", json_object_new_boolean(r->pinned)) &&
	    !mc_json_add(o, "note", json_object_new_string(r->note ? r->note :
							   "")))
		return o;
	json_object_put(o);
	return NULL;
}

static int p2p_record_fill(struct json_object *o, const struct p2p_record *r)
{
	if (mc_json_add(o, "name", json_object_new_string(r->name)) < 0 ||
	    mc_json_add(o, "size", json_object_new_int64(r->size)) < 0 ||
	    mc_json_add(o, "size_list", p2p_sizes(r)) < 0 ||
	    mc_json_add(o, "max_shard_size",
			json_object_new_int64(r->shard_bytes)) < 0 ||
	    mc_json_add(o, "shards", p2p_shards(r)) < 0)
		return -ENOMEM;
	return r->native ? mc_json_add(o, "mooncake_native", p2p_native(r)) : 0;
}

int p2p_record_encode(const struct p2p_record *r, char **json)
{
	struct json_object *o = json_object_new_object();
	const char *text = NULL;
	char *copy;

	if (o && !p2p_record_fill(o, r))
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

static bool p2p_member(struct json_object *o, const char *name,
		       enum json_type type, struct json_object **out)
{
	return json_object_is_type(o, json_type_object) &&
	       json_object_object_get_ex(o, name, out) &&
	       json_object_is_type(*out, type);
}

static int p2p_bad(const struct p2p_record *r, const char *what)
{
	return mc_err(-EBADMSG, "object record '%.80s': %s", r->name, what);
}

/* A whole number of at least @least. */
static bool p2p_number(struct json_object *o, int64_t least, uint64_t *out)
{
	int64_t n;

	if (!json_object_is_type(o, json_type_int))
		return false;
	n = json_object_get_int64(o);
	/* The largest is also what larger ones are cut to. */
	if (n < least || n == INT64_MAX)
		return false;
	*out = n;
	return true;
}

static bool p2p_member_number(struct json_object *o, const char *name,
			      int64_t least, uint64_t *out)
{
	struct json_object *v;

	return p2p_member(o, name, json_type_int, &v) &&
	       p2p_number(v, least, out);
}

/* Text with no zero inside, of less than @size bytes. */
static const char *p2p_member_text(struct json_object *o, const char *name,
				   size_t size)
{
	struct json_object *v;
	const char *text;
	size_t len;

	if (!p2p_member(o, name, json_type_string, &v))
		return NULL;
	text = json_object_get_string(v);
	len = json_object_get_string_len(v);
	return len < size && strlen(text) == len ? text : NULL;
}

static bool p2p_member_hex(struct json_object *o, const char *name,
			   uint64_t *out)
{
	const char *text = p2p_member_text(o, name, 17);

	if (!text || !*text || text[strspn(text, "0123456789abcdef")])
		return false;
	*out = strtoull(text, NULL, 16);
	return true;
}

static int p2p_read_sizes(struct json_object *o, struct p2p_record *r)
{
	struct json_object *list;
	uint64_t sum = 0;
	size_t n;

	if (!p2p_member(o, "size_list", json_type_array, &list))
		return p2p_bad(r, "no 'size_list'");
	n = json_object_array_length(list);
	if (!n || n > P2P_BUFFERS_MAX)
		return p2p_bad(r, "no buffers, or too many");
	r->sizes = calloc(n, sizeof(*r->sizes));
	if (!r->sizes)
		return mc_err(-ENOMEM, "out of memory");
	r->n_buffers = n;
	for (size_t i = 0; i < n; i++) {
		if (!p2p_number(json_object_array_get_idx(list, i), 1,
				&r->sizes[i]))
			return p2p_bad(r, "a size is not a number above 0");
		if (__builtin_add_overflow(sum, r->sizes[i], &sum))
			return p2p_bad(r, "sizes that no memory has");
	}
	return sum == r->size ? 0 : p2p_bad(r, "'size' is not the sum of "
					    "'size_list'");
}

/* Whoever is in list @which of shard @i. More than we can keep are left out. */
static int p2p_read_places(struct json_object *shard, const char *which,
			   uint32_t i, struct p2p_record *r)
{
	struct json_object *list;

	/* An empty list of the public store's may be written as null. */
	if (!p2p_member(shard, which, json_type_array, &list))
		return 0;
	for (size_t k = 0; k < json_object_array_length(list); k++) {
		struct json_object *at = json_object_array_get_idx(list, k);
		const char *name = p2p_member_text(at, "segment_name",
						   MC_NAME_MAX);
		struct p2p_seed *s;
		uint64_t offset;

		if (!name || !*name ||
		    !p2p_member_number(at, "offset", 0, &offset))
			return p2p_bad(r, "a holder without 'segment_name' "
				       "and 'offset'");
		s = p2p_record_seed(r, name, *which == 'g', true);
		if (!s && r->n_seeds < P2P_SEEDS_MAX)
			return mc_err(-ENOMEM, "out of memory");
		if (s && !s->offsets[i])
			s->offsets[i] = offset;
	}
	return 0;
}

static int p2p_read_shard(struct json_object *o, const struct p2p_shard *at,
			  uint32_t i, struct p2p_record *r)
{
	uint64_t len;
	int ret;

	if (!p2p_member_number(o, "size", 1, &len) || len != at->len)
		return p2p_bad(r, "a shard is not of the size that it would "
			       "have to be of");
	if (r->native && !p2p_member_hex(o, "xxh3", &r->sums[i]))
		return p2p_bad(r, "a shard without its checksum");
	ret = p2p_read_places(o, "gold", i, r);
	return ret < 0 ? ret : p2p_read_places(o, "replica_list", i, r);
}

static int p2p_read_shards(struct json_object *o, struct p2p_record *r)
{
	struct json_object *list;
	struct p2p_shard *at;
	int64_t n = p2p_count_shards(r->sizes, r->n_buffers, r->shard_bytes);
	int ret = 0;

	if (n < 0)
		return p2p_bad(r, "too many shards");
	if (!p2p_member(o, "shards", json_type_array, &list) ||
	    json_object_array_length(list) != (size_t)n)
		return p2p_bad(r, "'shards' is not a list of as many as the "
			       "sizes make");
	r->n_shards = n;
	at = calloc(n, sizeof(*at));
	r->sums = calloc(n, sizeof(*r->sums));
	if (!at || !r->sums) {
		free(at);
		return mc_err(-ENOMEM, "out of memory");
	}
	p2p_lay_out(r, at);
	for (int64_t i = 0; !ret && i < n; i++)
		ret = p2p_read_shard(json_object_array_get_idx(list, i), &at[i],
				     i, r);
	free(at);
	return ret;
}

static int p2p_read_native(struct json_object *o, struct p2p_record *r)
{
	struct json_object *native, *pinned;
	const char *note;
	uint64_t version;

	if (!json_object_object_get_ex(o, "mooncake_native", &native)) {
		r->id = mc_hash(r->name, strlen(r->name), r->size);
		r->note = strdup("");
		return r->note ? 0 : mc_err(-ENOMEM, "out of memory");
	}
	if (!p2p_member_number(native, "version", 1, &version))
		return p2p_bad(r, "mooncake_native has no version");
	if (version != P2P_RECORD_VERSION)
		return mc_err(-EPROTONOSUPPORT, "object record '%.80s' is of "
			      "version %" PRIu64 ", this release knows %d",
			      r->name, version, P2P_RECORD_VERSION);
	note = p2p_member_text(native, "note", P2P_NOTE_MAX);
	if (!p2p_member_hex(native, "id", &r->id) || !note)
		return p2p_bad(r, "mooncake_native without 'id' and 'note'");
	r->pinned = p2p_member(native, "pinned", json_type_boolean, &pinned) &&
		    json_object_get_boolean(pinned);
	r->native = true;
	r->note = strdup(note);
	return r->note ? 0 : mc_err(-ENOMEM, "out of memory");
}

static int p2p_read(struct json_object *o, struct p2p_record *r)
{
	const char *name;
	int ret;

	if (!json_object_is_type(o, json_type_object))
		return mc_err(-EBADMSG, "object record: not a JSON object");
	name = p2p_member_text(o, "name", sizeof(r->name));
	if (!name || !*name)
		return mc_err(-EBADMSG, "object record: no text 'name'");
	mc_copy(r->name, name);
	if (!p2p_member_number(o, "size", 1, &r->size) ||
	    !p2p_member_number(o, "max_shard_size", 1, &r->shard_bytes))
		return p2p_bad(r, "'size' or 'max_shard_size' is not a "
			       "number above 0");
	ret = p2p_read_sizes(o, r);
	if (!ret)
		ret = p2p_read_native(o, r);
	return ret < 0 ? ret : p2p_read_shards(o, r);
}

int p2p_record_decode(const char *json, size_t len, struct p2p_record *r)
{
	struct json_tokener *t;
	struct json_object *o;
	int ret;

	*r = (struct p2p_record){ 0 };
	if (!len || len > P2P_RECORD_MAX)
		return mc_err(-EBADMSG, "object record: %zu bytes is not the "
			      "length of one", len);
	t = json_tokener_new();
	if (!t)
		return mc_err(-ENOMEM, "out of memory");
	json_tokener_set_flags(t, JSON_TOKENER_STRICT);
	o = json_tokener_parse_ex(t, json, len);
	if (!o || json_tokener_get_error(t) != json_tokener_success)
		ret = mc_err(-EBADMSG, "object record: not JSON: %s",
			     json_tokener_error_desc(
				     json_tokener_get_error(t)));
	else
		ret = p2p_read(o, r);
	json_object_put(o);
	json_tokener_free(t);
	if (ret < 0)
		p2p_record_fini(r);
	return ret;
}

/* ---- in a registry ----------------------------------------------------- */

int p2p_key(const char *name, char key[P2P_KEY_MAX])
{
	if (!name || !*name || strlen(name) >= MC_P2P_NAME_MAX)
		return mc_err(-EINVAL, "object name '%.80s': expected 1 to %d "
			      "bytes", name ? name : "", MC_P2P_NAME_MAX - 1);
	snprintf(key, P2P_KEY_MAX, "mooncake/checkpoint/%s", name);
	return 0;
}

int p2p_record_fetch(struct mc_registry *reg, const char *name,
		     struct p2p_record *r, uint64_t *version)
{
	char key[P2P_KEY_MAX], *json = NULL;
	int64_t len;
	int ret = p2p_key(name, key);

	if (ret < 0)
		return ret;
	len = mc_registry_read(reg, key, &json, version);
	if (len == -ENOENT)
		return mc_err(-ENOENT, "no object '%.200s'", name);
	if (len < 0)
		return len;
	ret = p2p_record_decode(json, len, r);
	free(json);
	if (!ret && strcmp(r->name, name)) {
		ret = mc_err(-EBADMSG, "object '%.80s': its record names "
			     "'%.80s'", name, r->name);
		p2p_record_fini(r);
	}
	return ret;
}

int p2p_record_store(struct mc_registry *reg, const struct p2p_record *r,
		     uint64_t version)
{
	char key[P2P_KEY_MAX], *json = NULL;
	int ret = p2p_key(r->name, key);

	if (!ret)
		ret = p2p_record_encode(r, &json);
	if (ret < 0)
		return ret;
	ret = mc_registry_cas(reg, key, json, strlen(json), version, 0);
	free(json);
	return ret;
}
