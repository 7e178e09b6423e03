/*
 * segment.c - JSON of the public Mooncake, read liberally.
 *
 *	{"name":"10.0.0.1:15123","protocol":"tcp","tcp_data_port":16001,
 *	 "tcp_proto_version":2,"buffers":[{"name":"10.0.0.1:15123",
 *	  "addr":139641869037584,"length":65536}]}
 *
 * A segment of several protocols has them in a list, and each buffer says which
 * one is its own.
 */
#include "segment.h"

#include "../base/err.h"
#include "../base/json.h"
#include "../base/net.h"
#include "../base/util.h"

#include <errno.h>
#include <json-c/json.h>
#include <stdlib.h>

enum { V1SEG_MAX = 128 << 20 };		/* what the public one sends at most */

/* ---- JSON ------------------------------------------------------------ */

static int v1seg_parse(const char *what, const char *json, size_t len,
		       struct json_object **out)
{
	struct json_tokener *t;
	int r = 0;

	if (len > V1SEG_MAX)
		return mc_err(-EBADMSG, "%s of %zu bytes", what, len);
	t = json_tokener_new();
	if (!t)
		return mc_err(-ENOMEM, "out of memory");
	*out = json_tokener_parse_ex(t, json, len);
	if (!*out)
		r = mc_err(-EBADMSG, "%s: not JSON: %s", what,
			   json_tokener_error_desc(json_tokener_get_error(t)));
	else if (!json_object_is_type(*out, json_type_object))
		r = mc_err(-EBADMSG, "%s: not a JSON object", what);
	json_tokener_free(t);
	if (r < 0)
		json_object_put(*out);
	return r;
}

static struct json_object *v1seg_get(struct json_object *o, const char *name,
				     enum json_type type)
{
	struct json_object *v;

	return json_object_object_get_ex(o, name, &v) &&
	       json_object_is_type(v, type) ? v : NULL;
}

/* "" for what is not there, or longer than what we would do with it. */
static const char *v1seg_text(struct json_object *o, const char *name,
			      size_t max)
{
	struct json_object *v = v1seg_get(o, name, json_type_string);
	const char *text = v ? json_object_get_string(v) : "";

	return strlen(text) < max ? text : "";
}

/* @absent for what is not there; -EBADMSG for what is no such number. */
static int v1seg_number(struct json_object *o, const char *name, uint64_t max,
			uint64_t absent, uint64_t *out)
{
	struct json_object *v;

	*out = absent;
	if (!json_object_object_get_ex(o, name, &v))
		return 0;
	if (!json_object_is_type(v, json_type_int) ||
	    json_object_get_int64(v) < 0)
		return mc_err(-EBADMSG, "segment descriptor: '%s' is not a "
			      "number from 0", name);
	*out = json_object_get_uint64(v);
	return *out <= max ? 0 : mc_err(-EBADMSG, "segment descriptor: '%s' "
					"is %llu", name, (long long)*out);
}

/* ---- protocols ------------------------------------------------------- */

static bool v1seg_speaks(const char *list, const char *name)
{
	size_t n = strlen(name);

	for (const char *at = list; *at; at += strcspn(at, ", ")) {
		at += strspn(at, ", ");
		if (strcspn(at, ", ") == n && !strncmp(at, name, n))
			return true;
	}
	return false;
}

/* Text, or a list of texts. */
static void v1seg_protocol(struct json_object *o, char *out, size_t size)
{
	struct json_object *list = v1seg_get(o, "protocol", json_type_array);
	size_t n = 0;

	mc_copy_to(out, size, v1seg_text(o, "protocol", size));
	for (size_t i = 0; list && i < json_object_array_length(list); i++) {
		struct json_object *v = json_object_array_get_idx(list, i);
		const char *text = json_object_is_type(v, json_type_string) ?
				   json_object_get_string(v) : "";

		if (n + strlen(text) + 2 < size)
			n += snprintf(out + n, size - n, "%s%s", n ? "," : "",
				      text);
	}
}

/* Those whose buffers have a key for each device. */
static bool v1seg_has_keys(const char *protocol)
{
	return !strcmp(protocol, "rdma") || !strcmp(protocol, "efa") ||
	       !strcmp(protocol, "cxi") || !strcmp(protocol, "barex");
}

/* ---- buffers --------------------------------------------------------- */

static size_t v1seg_length(struct json_object *o, const char *name)
{
	struct json_object *v = v1seg_get(o, name, json_type_array);

	return v ? json_object_array_length(v) : 0;
}

/* What the public decoder rejects is rejected. */
static int v1seg_check_keys(struct json_object *b, const char *protocol,
			    size_t devices)
{
	size_t lkeys = v1seg_length(b, "lkey"), rkeys = v1seg_length(b, "rkey");

	if (!lkeys || (rkeys && rkeys != lkeys))
		return mc_err(-EBADMSG, "segment descriptor: %s buffer with "
			      "%zu lkeys and %zu rkeys", protocol, lkeys,
			      rkeys);
	if (rkeys && strcmp(protocol, "barex") && rkeys != devices)
		return mc_err(-EBADMSG, "segment descriptor: %s buffer with "
			      "%zu keys for %zu devices", protocol, rkeys,
			      devices);
	return 0;
}

/* Those of the buffer read last; @n: of its protocol. */
static int v1seg_keys(struct json_object *b, struct mc_v1_segment *s)
{
	struct json_object *list = v1seg_get(b, "rkey", json_type_array);
	uint32_t *keys = s->rkeys + (s->n - 1) * s->n_devs;

	for (int i = 0; i < s->n_devs; i++) {
		struct json_object *v = json_object_array_get_idx(list, i);

		if (!json_object_is_type(v, json_type_int))
			return mc_err(-EBADMSG, "segment descriptor: a key "
				      "that is no number");
		keys[i] = json_object_get_uint64(v);
	}
	return 0;
}

static int v1seg_buffer(struct json_object *b, struct mc_v1_segment *s)
{
	struct mc_buffer_info *i = &s->buf[s->n];
	uint64_t access;
	int r;

	*i = (struct mc_buffer_info){ .access = MC_REMOTE_RW, .id = s->n };
	mc_copy(i->location, "cpu:0");
	r = v1seg_number(b, "mooncake_access", MC_REMOTE_RW, MC_REMOTE_RW,
			 &access);
	if (!r)
		r = v1seg_number(b, "addr", UINT64_MAX, 0, &i->addr);
	if (!r)
		r = v1seg_number(b, "length", UINT64_MAX, 0, &i->len);
	if (r < 0)
		return r;
	i->access = access;
	if (!i->addr || !i->len || i->len - 1 > UINT64_MAX - i->addr ||
	    !v1seg_text(b, "name", SIZE_MAX)[0])
		return mc_err(-EBADMSG, "segment descriptor: buffer at "
			      "%#llx of %llu bytes, named '%.40s'",
			      (long long)i->addr, (long long)i->len,
			      v1seg_text(b, "name", SIZE_MAX));
	s->n++;
	return 0;
}

/* By rdma if it is for others, and has keys for the devices that we know. */
static int v1seg_rdma_buffer(struct json_object *b, struct mc_v1_segment *s)
{
	int r;

	if (!s->n_devs || v1seg_length(b, "rkey") != (size_t)s->n_devs)
		return 0;
	r = v1seg_buffer(b, s);
	return r < 0 ? r : v1seg_keys(b, s);
}

static int v1seg_one(struct json_object *b, struct mc_v1_segment *s,
		     size_t devices)
{
	const char *protocol = v1seg_text(b, "protocol", 32);
	int r = 0;

	if (!protocol[0])
		protocol = s->protocol;
	if (!strcmp(protocol, "tcp"))
		return v1seg_buffer(b, s);
	if (v1seg_has_keys(protocol))
		r = v1seg_check_keys(b, protocol, devices);
	return r || strcmp(protocol, "rdma") ? r : v1seg_rdma_buffer(b, s);
}

static int v1seg_buffers(struct json_object *o, struct mc_v1_segment *s)
{
	struct json_object *list = v1seg_get(o, "buffers", json_type_array);
	size_t n = list ? json_object_array_length(list) : 0;
	size_t devices = v1seg_length(o, "devices");
	int r = 0;

	s->buf = calloc(n + 1, sizeof(*s->buf));
	s->rkeys = calloc((n + 1) * (s->n_devs + 1), sizeof(*s->rkeys));
	if (!s->buf || !s->rkeys)
		return mc_err(-ENOMEM, "out of memory");
	for (size_t i = 0; i < n && !r; i++) {
		struct json_object *b = json_object_array_get_idx(list, i);

		if (!json_object_is_type(b, json_type_object))
			return mc_err(-EBADMSG, "segment descriptor: buffer "
				      "%zu is not an object", i);
		r = v1seg_one(b, s, devices);
	}
	return r;
}

static int v1seg_compare(const void *a, const void *b)
{
	const struct mc_buffer_info *x = a, *y = b;

	if (x->addr != y->addr)
		return x->addr < y->addr ? -1 : 1;
	return x->len > y->len ? -1 : x->len < y->len;
}

/* Of what it is and of its keys, so that one that is registered anew at the
 * same place is another. */
static uint32_t v1seg_id(const struct mc_v1_segment *s, uint64_t i)
{
	uint64_t at[] = { s->buf[i].addr, s->buf[i].len };
	uint64_t seed = mc_hash(s->rkeys + i * s->n_devs,
				s->n_devs * sizeof(*s->rkeys), 0);

	return (uint32_t)mc_hash(at, sizeof(at), seed) | 1;
}

/* By address, each ending before the next begins: who registered memory twice
 * reaches it once. Until here ids say which keys are whose. */
static int v1seg_order(struct mc_v1_segment *s)
{
	size_t row = s->n_devs * sizeof(*s->rkeys);
	uint32_t *keys = calloc((s->n + 1) * (s->n_devs + 1), sizeof(*keys));
	uint64_t n = 0, last = 0;	/* the last byte of those taken */

	if (!keys)
		return mc_err(-ENOMEM, "out of memory");
	qsort(s->buf, s->n, sizeof(*s->buf), v1seg_compare);
	for (uint64_t i = 0; i < s->n; i++) {
		struct mc_buffer_info b = s->buf[i];
		uint64_t end = b.addr + (b.len - 1);

		if (n && end <= last)
			continue;
		if (n && b.addr <= last) {
			b.addr = last + 1;
			b.len = end - last;
		}
		last = end;
		memcpy(keys + n * s->n_devs, s->rkeys + b.id * s->n_devs, row);
		s->buf[n++] = b;
	}
	free(s->rkeys);
	s->rkeys = keys;
	s->n = n;
	for (uint64_t i = 0; i < n; i++)
		s->buf[i].id = v1seg_id(s, i);
	return 0;
}

bool mc_v1_segment_key(const struct mc_v1_segment *s, uint32_t id, int dev,
		       uint32_t *rkey)
{
	for (uint64_t i = 0; dev < s->n_devs && i < s->n; i++)
		if (s->buf[i].id == id) {
			*rkey = s->rkeys[i * s->n_devs + dev];
			return *rkey;
		}
	return false;
}

/* ---- descriptors ----------------------------------------------------- */

/* "fe:80:00:...": false if it is anything else. */
static bool v1seg_gid(const char *text, uint8_t gid[16])
{
	int n = 0;

	for (unsigned byte; n < 16; n++) {
		if (strlen(text) < 2 || sscanf(text, "%2x", &byte) != 1 ||
		    text[2] != (n < 15 ? ':' : 0))
			return false;
		gid[n] = byte;
		text += 3 - (n == 15);
	}
	return true;
}

void mc_v1_gid_encode(const uint8_t gid[16], char text[48])
{
	for (int i = 0; i < 16; i++)
		snprintf(text + 3 * i, 48 - 3 * i, i < 15 ? "%02x:" : "%02x",
			 gid[i]);
}

static int v1seg_device(struct json_object *o, struct mc_v1_segment *s)
{
	struct mc_v1_device *d = &s->devs[s->n_devs];
	uint64_t lid;
	int r = v1seg_number(o, "lid", UINT16_MAX, 0, &lid);

	if (r < 0)
		return r;
	*d = (struct mc_v1_device){ .lid = lid, .dev = s->n_devs };
	mc_copy(d->name, v1seg_text(o, "name", sizeof(d->name)));
	/* A first guess: it is told again when devices are connected. */
	if (!v1seg_gid(v1seg_text(o, "gid", 48), d->gid))
		memset(d->gid, 0, sizeof(d->gid));
	s->n_devs++;
	return 0;
}

/* Who has them must name them. */
static int v1seg_devices(struct json_object *o, struct mc_v1_segment *s)
{
	struct json_object *list = v1seg_get(o, "devices", json_type_array);
	size_t n = list ? json_object_array_length(list) : 0;
	int r = 0;

	for (size_t i = 0; i < n && !r; i++) {
		struct json_object *d = json_object_array_get_idx(list, i);

		if (!json_object_is_type(d, json_type_object) ||
		    !v1seg_text(d, "name", SIZE_MAX)[0])
			return mc_err(-EBADMSG, "segment descriptor: device "
				      "%zu has no name", i);
		if (s->rdma && n <= MC_V1_DEVICES)
			r = v1seg_device(d, s);
	}
	return r;
}

/* One that we cannot use is passed over: which device is near what memory is
 * good to know, no more. */
static int v1seg_matrix(struct json_object *o, struct mc_v1_segment *s)
{
	struct json_object *m = v1seg_get(o, "priority_matrix",
					  json_type_object);
	const char *json = m && s->rdma ? json_object_to_json_string(m) : NULL;
	int r = 0;

	if (json)
		r = mc_matrix_parse(&s->matrix, json, strlen(json));
	if (!r || r == -ENOMEM)
		return r;
	mc_log(MC_INFO, "v1", "%s: its priority_matrix: %s", s->name,
	       mc_errmsg());
	return 0;
}

static int v1seg_tcp(struct json_object *o, struct mc_v1_segment *s)
{
	uint64_t port, version;
	int r = v1seg_number(o, "tcp_data_port", 65535, 0, &port);

	if (!r)
		r = v1seg_number(o, "tcp_proto_version", INT32_MAX, 1,
				 &version);
	if (r < 0)
		return r;
	mc_copy(s->data_host, v1seg_text(o, "tcp_data_host",
					 sizeof(s->data_host)));
	s->data_port = port;
	s->version = version;
	return 0;
}

static int v1seg_decode(struct json_object *o, struct mc_v1_segment *s)
{
	int r;

	mc_copy(s->name, v1seg_text(o, "name", sizeof(s->name)));
	v1seg_protocol(o, s->protocol, sizeof(s->protocol));
	s->tcp = v1seg_speaks(s->protocol, "tcp");
	s->rdma = v1seg_speaks(s->protocol, "rdma");
	s->native = v1seg_get(o, "mooncake_native", json_type_object);
	if (!s->protocol[0])
		return mc_err(-EBADMSG, "segment descriptor: no protocol");
	r = v1seg_devices(o, s);
	if (!r)
		r = v1seg_matrix(o, s);
	if (!r)
		r = v1seg_buffers(o, s);
	if (!r)
		r = v1seg_order(s);
	return r || !s->tcp ? r : v1seg_tcp(o, s);
}

int mc_v1_segment_decode(const char *json, size_t len,
			 struct mc_v1_segment *out)
{
	struct mc_v1_segment s = { 0 };
	struct json_object *o = NULL;
	int r = v1seg_parse("segment descriptor", json, len, &o);

	if (r < 0)
		return r;
	r = v1seg_decode(o, &s);
	json_object_put(o);
	if (r < 0)
		mc_v1_segment_free(&s);
	else
		*out = s;
	return r;
}

void mc_v1_segment_free(struct mc_v1_segment *s)
{
	free(s->buf);
	free(s->rkeys);
	mc_matrix_put(s->matrix);
	s->matrix = NULL;
	s->buf = NULL;
	s->rkeys = NULL;
	s->n = 0;
}

/* ---- rpc_meta -------------------------------------------------------- */

int mc_v1_place_decode(const char *json, size_t len, char addr[MC_ADDR_MAX])
{
	struct json_object *o = NULL;
	char host[MC_ADDR_MAX];
	uint64_t port;
	int r = v1seg_parse("rpc_meta", json, len, &o);

	if (r < 0)
		return r;
	mc_copy(host, v1seg_text(o, "ip_or_host_name", sizeof(host)));
	r = v1seg_number(o, "rpc_port", 65535, 0, &port);
	json_object_put(o);
	if (r < 0)
		return r;
	if (!host[0] || !port)
		return mc_err(-EBADMSG, "rpc_meta: no host, or no port");
	return mc_net_join(host, port, addr);
}

int mc_v1_place_encode(const char *addr, char *json, size_t size)
{
	struct mc_net_name at;
	int r = mc_net_parse(addr, -1, &at);

	if (r < 0)
		return r;
	/* A host that has been parsed has nothing to escape. */
	snprintf(json, size, "{\"ip_or_host_name\":\"%s\",\"rpc_port\":%d}",
		 at.host, at.port);
	return 0;
}

/* ---- notifications --------------------------------------------------- */

int mc_v1_notify_encode(const char *name, const void *msg, uint32_t len,
			char **json)
{
	struct json_object *o = json_object_new_object();

	*json = NULL;
	if (o && !mc_json_add(o, "name", json_object_new_string(name)) &&
	    !mc_json_add(o, "notify_msg", json_object_new_string_len(msg, len)))
		*json = strdup(json_object_to_json_string_ext(o,
				JSON_C_TO_STRING_PLAIN));
	json_object_put(o);
	return *json ? 0 : mc_err(-ENOMEM, "out of memory");
}

int mc_v1_notify_decode(const char *json, size_t len, char name[MC_NAME_MAX],
			char **msg, uint32_t *msg_len)
{
	struct json_object *o = NULL, *m;
	int r = v1seg_parse("notification", json, len, &o);

	if (r < 0)
		return r;
	m = v1seg_get(o, "notify_msg", json_type_string);
	mc_copy_to(name, MC_NAME_MAX, v1seg_text(o, "name", MC_NAME_MAX));
	*msg_len = m ? json_object_get_string_len(m) : 0;
	*msg = malloc(*msg_len + 1);
	if (*msg) {
		memcpy(*msg, m ? json_object_get_string(m) : "", *msg_len);
		(*msg)[*msg_len] = 0;
	} else {
		r = mc_err(-ENOMEM, "out of memory");
	}
	json_object_put(o);
	return r;
}

/* ---- connections of devices ------------------------------------------ */

static struct json_object *v1seg_qps(const struct mc_meeting *m)
{
	struct json_object *list = json_object_new_array();

	for (int i = 0; list && i < m->n_qps; i++)
		json_object_array_add(list, json_object_new_int64(m->qps[i]));
	return list;
}

static bool v1seg_fill(struct json_object *o, const struct mc_meeting *m)
{
	char gid[48];

	mc_v1_gid_encode(m->gid, gid);
	return !mc_json_add(o, "local_gid", json_object_new_string(gid)) &&
	       !mc_json_add(o, "local_lid", json_object_new_int(m->lid)) &&
	       !mc_json_add(o, "local_nic_path",
			    json_object_new_string(m->from)) &&
	       !mc_json_add(o, "payload", json_object_new_string("")) &&
	       !mc_json_add(o, "peer_nic_path",
			    json_object_new_string(m->to)) &&
	       !mc_json_add(o, "qp_num", v1seg_qps(m)) &&
	       !mc_json_add(o, "reply_msg", json_object_new_string(m->why)) &&
	       (!m->can_ack || !mc_json_add(o, "ready_ack",
				json_object_new_boolean(m->ack)));
}

int mc_v1_meeting_encode(const struct mc_meeting *m, char **json)
{
	struct json_object *o = json_object_new_object();

	*json = NULL;
	if (o && v1seg_fill(o, m))
		*json = strdup(json_object_to_json_string_ext(o,
				JSON_C_TO_STRING_PLAIN |
				JSON_C_TO_STRING_NOSLASHESCAPE));
	json_object_put(o);
	return *json ? 0 : mc_err(-ENOMEM, "out of memory");
}

static int v1seg_meeting(struct json_object *o, struct mc_meeting *m)
{
	struct json_object *list = v1seg_get(o, "qp_num", json_type_array);
	struct json_object *ack = v1seg_get(o, "ready_ack", json_type_boolean);
	size_t n = list ? json_object_array_length(list) : 0;
	uint64_t lid;
	int r = v1seg_number(o, "local_lid", UINT16_MAX, 0, &lid);

	*m = (struct mc_meeting){ .lid = lid, .can_ack = ack,
				  .ack = ack && json_object_get_boolean(ack) };
	mc_copy(m->from, v1seg_text(o, "local_nic_path", sizeof(m->from)));
	mc_copy(m->to, v1seg_text(o, "peer_nic_path", sizeof(m->to)));
	mc_copy(m->why, v1seg_text(o, "reply_msg", SIZE_MAX));
	if (!v1seg_gid(v1seg_text(o, "local_gid", 48), m->gid))
		memset(m->gid, 0, sizeof(m->gid));
	if (n > MC_V1_QPS)
		return mc_err(-EBADMSG, "a connection of %zu queue pairs: at "
			      "most %d", n, MC_V1_QPS);
	for (size_t i = 0; i < n; i++)
		m->qps[m->n_qps++] = json_object_get_int64(
			json_object_array_get_idx(list, i));
	return r;
}

int mc_v1_meeting_decode(const char *json, size_t len, struct mc_meeting *m)
{
	struct json_object *o = NULL;
	int r = v1seg_parse("connection", json, len, &o);

	if (r < 0)
		return r;
	r = v1seg_meeting(o, m);
	json_object_put(o);
	return r;
}
