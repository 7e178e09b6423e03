/* matrix.c - which network devices memory at a place is to use. */
#include "matrix.h"

#include "../base/err.h"
#include "../base/util.h"

#include <errno.h>
#include <json-c/json.h>
#include <stdlib.h>
#include <string.h>

enum { MATRIX_FAR = 4, MATRIX_DOWN };	/* beyond the distances of devices */

struct matrix_place {
	char location[32];
	int first, n;			/* how many are the first choice */
	char dev[MATRIX_DEVS][32];	/* in their order */
};

struct mc_matrix {
	int refs;			/* atomic */
	int n;
	struct matrix_place *place[MATRIX_PLACES];
};

/* ---- life ----------------------------------------------------------- */

struct mc_matrix *mc_matrix_new(void)
{
	struct mc_matrix *m = calloc(1, sizeof(*m));

	if (m)
		m->refs = 1;
	return m;
}

struct mc_matrix *mc_matrix_get(struct mc_matrix *m)
{
	if (m)
		__atomic_add_fetch(&m->refs, 1, __ATOMIC_RELAXED);
	return m;
}

void mc_matrix_put(struct mc_matrix *m)
{
	if (!m || __atomic_sub_fetch(&m->refs, 1, __ATOMIC_ACQ_REL))
		return;
	for (int i = 0; i < m->n; i++)
		free(m->place[i]);
	free(m);
}

static int matrix_index(const struct mc_matrix *m, const char *location)
{
	for (int i = 0; m && i < m->n; i++)
		if (!strcmp(m->place[i]->location, location))
			return i;
	return -1;
}

/* That of @location, made if it is not there; NULL: no room. */
static struct matrix_place *matrix_place(struct mc_matrix *m,
					 const char *location)
{
	int i = matrix_index(m, location);
	struct matrix_place *p;

	if (i >= 0 || m->n == MATRIX_PLACES)
		return i < 0 ? NULL : m->place[i];
	p = calloc(1, sizeof(*p));
	if (!p)
		return NULL;
	mc_copy(p->location, location);
	m->place[m->n++] = p;
	return p;
}

static bool matrix_has(const struct matrix_place *p, const char *dev)
{
	for (int i = 0; i < p->n; i++)
		if (!strcmp(p->dev[i], dev))
			return true;
	return false;
}

/* At the end of the first choices, or of all. */
static void matrix_insert(struct matrix_place *p, const char *dev, bool first)
{
	int at = first ? p->first : p->n;

	if (p->n == MATRIX_DEVS || matrix_has(p, dev))
		return;
	memmove(p->dev + at + 1, p->dev + at, (p->n - at) * sizeof(*p->dev));
	mc_copy(p->dev[at], dev);
	p->n++;
	p->first += first;
}

/* ---- from the machine ----------------------------------------------- */

/* "gpu:1" is the device, "cuda:1" the memory there. */
static void matrix_location(const char *name, char *out, size_t size)
{
	if (strncmp(name, "gpu:", 4))
		mc_copy_to(out, size, name);
	else
		snprintf(out, size, "cuda:%.26s", name + 4);
}

static int matrix_device(const struct mc_topology *t, const char *name,
			 struct mc_device_info *out)
{
	for (int i = 0; i < mc_topology_count(t); i++)
		if (!mc_topology_device(t, i, out) && !strcmp(out->name, name))
			return i;
	return -1;
}

static int matrix_cost(const struct mc_topology *t, int at, const char *name)
{
	struct mc_device_info d;
	int i = matrix_device(t, name, &d);

	if (i < 0)
		return MATRIX_FAR;
	return d.up ? mc_topology_distance(t, at, i) : MATRIX_DOWN;
}

static void matrix_fill(struct matrix_place *p, const struct mc_topology *t,
			int at, char names[][32], int n)
{
	int costs[MATRIX_DEVS];
	bool some = false;

	n = mc_min(n, MATRIX_DEVS);
	for (int i = 0; i < n; i++)
		costs[i] = matrix_cost(t, at, names[i]);
	for (int cost = 0; cost <= MATRIX_DOWN; cost++) {
		bool first = !some;

		for (int i = 0; i < n; i++) {
			if (costs[i] != cost)
				continue;
			matrix_insert(p, names[i], first);
			some = true;
		}
	}
}

int mc_matrix_add(struct mc_matrix *m, const struct mc_topology *t,
		  char names[][32], int n)
{
	for (int i = 0; i < mc_topology_count(t); i++) {
		struct mc_device_info d;
		struct matrix_place *p;
		char location[32];

		if (mc_topology_device(t, i, &d) < 0 ||
		    (strcmp(d.kind, "cpu") && strcmp(d.kind, "gpu")))
			continue;
		matrix_location(d.name, location, sizeof(location));
		p = matrix_place(m, location);
		/* A machine with more nodes than that has no preference on
		 * those that come last. */
		if (!p && m->n == MATRIX_PLACES)
			break;
		if (!p)
			return mc_err(-ENOMEM, "out of memory");
		matrix_fill(p, t, i, names, n);
	}
	return 0;
}

/* ---- JSON ----------------------------------------------------------- */

static bool matrix_is_name(struct json_object *o)
{
	const char *s;
	size_t len;

	if (!json_object_is_type(o, json_type_string))
		return false;
	s = json_object_get_string(o);
	len = json_object_get_string_len(o);
	return len && len < 32 && strlen(s) == len;
}

static int matrix_decode_list(struct matrix_place *p, struct json_object *list,
			      bool first)
{
	if (!json_object_is_type(list, json_type_array))
		return -EBADMSG;
	for (size_t i = 0; i < json_object_array_length(list); i++) {
		struct json_object *dev = json_object_array_get_idx(list, i);

		if (!matrix_is_name(dev) || p->n == MATRIX_DEVS)
			return -EBADMSG;
		matrix_insert(p, json_object_get_string(dev), first);
	}
	return 0;
}

static int matrix_decode_place(struct mc_matrix *m, const char *location,
			       struct json_object *both)
{
	bool two = json_object_is_type(both, json_type_array) &&
		   json_object_array_length(both) == 2;
	struct matrix_place *p;
	char name[32];
	int r = -EBADMSG;

	if (strlen(location) >= sizeof(name) || m->n == MATRIX_PLACES)
		return mc_err(-EBADMSG, "topology: '%.40s' is too long for a "
			      "location, or one of more than %d", location,
			      MATRIX_PLACES);
	matrix_location(location, name, sizeof(name));
	p = matrix_place(m, name);
	if (!p)
		return mc_err(-ENOMEM, "out of memory");
	for (int i = 0; two && i < 2; i++) {
		r = matrix_decode_list(p, json_object_array_get_idx(both, i),
				       i == 0);
		if (r < 0)
			break;
	}
	return r < 0 ? mc_err(r, "topology: at '%s' expected two lists of "
			      "device names, [[first choice], [others]]",
			      location) : 0;
}

static int matrix_decode(struct mc_matrix **out, struct json_object *o)
{
	struct mc_matrix *m;
	int r = 0;

	if (!json_object_is_type(o, json_type_object))
		return mc_err(-EBADMSG, "topology: expected a JSON object, "
			      "{\"cpu:0\": [[first choice], [others]], ...}");
	m = mc_matrix_new();
	if (!m)
		return mc_err(-ENOMEM, "out of memory");
	json_object_object_foreach(o, key, value) {
		r = matrix_decode_place(m, key, value);
		if (r < 0)
			break;
	}
	if (r < 0)
		mc_matrix_put(m);
	else
		*out = m;
	return r;
}

int mc_matrix_parse(struct mc_matrix **out, const char *json, size_t len)
{
	struct json_tokener *t = json_tokener_new();
	struct json_object *o;
	size_t end;
	int r;

	if (!t)
		return mc_err(-ENOMEM, "out of memory");
	o = len < MATRIX_JSON_MAX ? json_tokener_parse_ex(t, json, len) : NULL;
	end = json_tokener_get_parse_end(t);
	while (end < len && strchr(" \t\r\n", json[end]))
		end++;
	if (!o || end < len)
		r = mc_err(-EBADMSG, "topology: not one JSON object of less "
			   "than %d bytes: %s", MATRIX_JSON_MAX,
			   json_tokener_error_desc(json_tokener_get_error(t)));
	else
		r = matrix_decode(out, o);
	json_object_put(o);
	json_tokener_free(t);
	return r;
}

int mc_matrix_read(struct mc_matrix **out, const char *text)
{
	char json[MATRIX_JSON_MAX], why[MC_WHY_MAX];
	size_t n;
	FILE *f;
	int r;

	if (text[strspn(text, " \t\r\n")] == '{')
		return mc_matrix_parse(out, text, strlen(text));
	f = fopen(text, "re");
	if (!f)
		return mc_syserr(-errno, "topology file %s", text);
	n = fread(json, 1, sizeof(json), f);
	r = ferror(f) ? -errno : 0;
	fclose(f);
	if (r < 0)
		return mc_syserr(r, "topology file %s", text);
	r = mc_matrix_parse(out, json, n);
	if (!r)
		return 0;
	mc_copy(why, mc_errmsg());
	return mc_err(r, "%.80s: %.150s", text, why);
}

static struct json_object *matrix_encode(const struct matrix_place *p)
{
	struct json_object *both = json_object_new_array();
	struct json_object *list[2] = { json_object_new_array(),
					json_object_new_array() };

	for (int i = 0; i < p->n; i++)
		json_object_array_add(list[i >= p->first],
				      json_object_new_string(p->dev[i]));
	json_object_array_add(both, list[0]);
	json_object_array_add(both, list[1]);
	return both;
}

char *mc_matrix_json(const struct mc_matrix *m)
{
	struct json_object *o = json_object_new_object();
	const char *text;
	char *copy;

	for (int i = 0; m && i < m->n; i++)
		json_object_object_add(o, m->place[i]->location,
				       matrix_encode(m->place[i]));
	text = json_object_to_json_string_ext(o, JSON_C_TO_STRING_PLAIN |
					      JSON_C_TO_STRING_NOSLASHESCAPE);
	copy = text ? strdup(text) : NULL;
	json_object_put(o);
	if (!copy)
		mc_err(-ENOMEM, "out of memory");
	return copy;
}

/* ---- questions ------------------------------------------------------ */

int mc_matrix_place(const struct mc_matrix *m, const char *location)
{
	char name[32];
	int i;

	if (!m)
		return -1;
	matrix_location(location, name, sizeof(name));
	i = matrix_index(m, name);
	return i < 0 ? matrix_index(m, "*") : i;
}

int mc_matrix_rank(const struct mc_matrix *m, int place, const char *device)
{
	const struct matrix_place *p;

	if (!m || place < 0 || place >= m->n)
		return -1;
	p = m->place[place];
	for (int i = 0; i < p->n; i++)
		if (!strcmp(p->dev[i], device))
			return i >= p->first && p->first;
	return -1;
}

const char *mc_matrix_first(const struct mc_matrix *m, int place,
			    uint32_t turn)
{
	const struct matrix_place *p;

	if (!m || place < 0 || place >= m->n || !m->place[place]->first)
		return "";
	p = m->place[place];
	return p->dev[turn % p->first];
}

/* ---- for users ------------------------------------------------------ */

/* RDMA devices, or where there are none interfaces that are hardware. */
static int matrix_devices(const struct mc_topology *t, const char *kind,
			  char names[][32])
{
	struct mc_device_info d;
	int n = 0;

	for (int i = 0; i < mc_topology_count(t) && n < MATRIX_DEVS; i++)
		if (!mc_topology_device(t, i, &d) && !strcmp(d.kind, kind) &&
		    (d.pci[0] || !strcmp(kind, "rdma")))
			mc_copy_to(names[n++], 32, d.name);
	return n || !strcmp(kind, "net") ? n :
	       matrix_devices(t, "net", names);
}

static int matrix_listed(const char *list, char names[][32])
{
	int n = 0;

	while (*list && n < MATRIX_DEVS) {
		size_t len = strcspn(list, ", ");

		if (len && len < 32)
			snprintf(names[n++], 32, "%.*s", (int)len, list);
		list += len + strspn(list + len, ", ");
	}
	return n;
}

int64_t mc_matrix_give(const struct mc_matrix *m, char *out, uint64_t size)
{
	char *json = mc_matrix_json(m);
	int64_t len;

	if (!json)
		return -ENOMEM;
	len = strlen(json);
	if (size)
		mc_copy_to(out, size, json);
	free(json);
	return len;
}

int64_t mc_topology_matrix(const struct mc_topology *t, const char *devices,
			   char *out, uint64_t size)
{
	struct mc_matrix *m = mc_matrix_new();
	char names[MATRIX_DEVS][32];
	int64_t r = m ? 0 : mc_err(-ENOMEM, "out of memory");

	if (!r)
		r = mc_matrix_add(m, t, names, devices ?
				  matrix_listed(devices, names) :
				  matrix_devices(t, "rdma", names));
	if (!r)
		r = mc_matrix_give(m, out, size);
	mc_matrix_put(m);
	return r;
}
