/*
 * registryd_load.c - reads the file of registryd_state.c, which says what its
 * lines are.
 */
#include "registryd_state.h"

#include "../base/clock.h"
#include "../base/err.h"
#include "../base/util.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct load_job {
	struct mc_store *store;
	const char *path;
	uint64_t lines;			/* read so far */
};

static bool load_get(struct json_object *o, const char *name,
		      enum json_type type, struct json_object **out)
{
	return json_object_object_get_ex(o, name, out) &&
	       json_object_is_type(*out, type);
}

static int64_t load_number(struct json_object *o, const char *name)
{
	struct json_object *v;

	return load_get(o, name, json_type_int, &v) ?
	       json_object_get_int64(v) : -1;
}

/* A version, or -1: there is none, or it leaves no room for later ones. */
static int64_t load_version(struct json_object *o)
{
	int64_t version = load_number(o, "version");

	return version > 0 && version < INT64_MAX / 2 ? version : -1;
}

/* Two hex digits each, in place: their number, or -1. */
static int64_t load_unhex(char *text, size_t len)
{
	unsigned int byte;

	if (len % 2 || strspn(text, "0123456789abcdef") != len)
		return -1;
	for (size_t i = 0; i < len / 2; i++) {
		char two[3] = { text[2 * i], text[2 * i + 1], 0 };

		byte = strtoul(two, NULL, 16);
		text[i] = (char)byte;
	}
	return len / 2;
}

/* The value of a line, to be freed, and its length; -1: there is none. */
static int64_t load_value(struct json_object *o, char **out)
{
	struct json_object *v;
	bool hex = load_get(o, "hex", json_type_string, &v);
	int64_t len;

	if (!hex && !load_get(o, "value", json_type_string, &v))
		return -1;
	len = json_object_get_string_len(v);
	*out = malloc(len + 1);
	if (!*out)
		return -ENOMEM;
	memcpy(*out, json_object_get_string(v), len + 1);
	return hex ? load_unhex(*out, len) : len;
}

/* The deadline of a line's lease: 0 none, 1 it has run out. A clock that was
 * set back does not make it longer than it was at first. */
static int load_deadline(struct json_object *o, uint32_t *ttl_ms,
			  uint64_t *deadline_ns)
{
	int64_t ttl = load_number(o, "ttl_ms");
	int64_t left = load_number(o, "expires_ms") - mc_store_wall_ms();

	*ttl_ms = 0;
	*deadline_ns = 0;
	if (ttl == -1 && !json_object_object_get(o, "expires_ms"))
		return 0;
	if (ttl <= 0 || ttl > UINT32_MAX || load_number(o, "expires_ms") < 0)
		return -EBADMSG;
	left = mc_min(left, ttl);
	*ttl_ms = ttl;
	*deadline_ns = left > 0 ? mc_clock_ns() + (uint64_t)left * MC_MS : 1;
	return 0;
}

static int load_put(struct load_job *ld, struct json_object *o,
		    const char *key)
{
	int64_t version = load_version(o);
	char *value = NULL;
	int64_t len = load_value(o, &value);
	uint64_t deadline_ns;
	uint32_t ttl_ms;
	int r = load_deadline(o, &ttl_ms, &deadline_ns);

	if (!r)
		r = len == -ENOMEM ? -ENOMEM : len < 0 || version <= 0 ?
		    -EBADMSG : 0;
	if (!r)
		r = mc_store_put(ld->store, key, value, len, version, ttl_ms,
				 deadline_ns);
	free(value);
	return r;
}

/* A lease renewed, or a record deleted. */
static int load_other(struct load_job *ld, struct json_object *o,
		      const char *key)
{
	struct mc_store_record *rec = mc_store_find(ld->store, key);
	struct json_object *deleted;
	int64_t version = load_version(o);
	uint64_t deadline_ns;
	uint32_t ttl_ms;
	int r;

	if (load_get(o, "deleted", json_type_boolean, &deleted)) {
		if (!rec || version <= 0)
			return -EBADMSG;
		mc_store_del(ld->store, rec, version);
		return 0;
	}
	r = load_deadline(o, &ttl_ms, &deadline_ns);
	if (r < 0 || !rec || !json_object_object_get(o, "ttl_ms"))
		return -EBADMSG;
	return mc_store_lease(ld->store, rec, ttl_ms, deadline_ns);
}

static int load_record(struct load_job *ld, struct json_object *o)
{
	struct json_object *key;
	const char *name;

	if (!load_get(o, "key", json_type_string, &key))
		return -EBADMSG;
	name = json_object_get_string(key);
	if (mc_key_check(name, json_object_get_string_len(key)) < 0)
		return -EBADMSG;
	if (json_object_object_get(o, "value") ||
	    json_object_object_get(o, "hex"))
		return load_put(ld, o, name);
	return load_other(ld, o, name);
}

static int load_head(struct load_job *ld, struct json_object *o)
{
	int64_t format = load_number(o, "mooncake_registry");
	int64_t version = load_version(o);

	if (format < 1 || version < 0)
		return mc_err(-EBADMSG, "%.200s is not the state file of a "
			      "registry: it stays as it is", ld->path);
	if (format != MC_STATEFILE_FORMAT)
		return mc_err(-EBADMSG, "state file %.200s has format %" PRId64
			      ", this release knows %d", ld->path, format,
			      MC_STATEFILE_FORMAT);
	ld->store->version = mc_max(ld->store->version, (uint64_t)version);
	return 0;
}

static int load_line(struct load_job *ld, const char *line, size_t len)
{
	struct json_tokener *t = json_tokener_new();
	struct json_object *o = NULL;
	int r;

	if (!t)
		return mc_err(-ENOMEM, "out of memory");
	json_tokener_set_flags(t, JSON_TOKENER_STRICT);
	if (len < INT_MAX)
		o = json_tokener_parse_ex(t, line, len);
	if (!json_object_is_type(o, json_type_object) ||
	    json_tokener_get_error(t) != json_tokener_success)
		r = -EBADMSG;
	else if (ld->lines)
		r = load_record(ld, o);
	else
		r = load_head(ld, o);
	if (r == -ENOMEM)
		mc_err(r, "state file %.200s: out of memory", ld->path);
	else if (r < 0 && ld->lines)
		mc_err(r, "state file %.200s: line %" PRIu64 " is damaged: it "
		       "stays as it is; mend it or move it away", ld->path,
		       ld->lines + 1);
	else if (r < 0 && !o)
		mc_err(r, "%.200s is not the state file of a registry: it "
		       "stays as it is", ld->path);
	json_object_put(o);
	json_tokener_free(t);
	return r;
}

/* A last line without its end was being written when the server died. */
static int load_torn(struct load_job *ld, size_t len)
{
	if (!ld->lines)
		return mc_err(-EBADMSG, "%.200s is not the state file of a "
			      "registry: it stays as it is", ld->path);
	mc_log(MC_WARN, "registry", "state file %.200s: dropped the last "
	       "line, %zu bytes, which was cut short", ld->path, len);
	return 0;
}

static int load_file(struct load_job *ld, FILE *f)
{
	char *line = NULL;
	size_t size = 0;
	ssize_t n;
	int r = 0;

	while (!r && (errno = 0, n = getline(&line, &size, f)) > 0) {
		if (line[n - 1] != '\n') {
			r = load_torn(ld, n);
			break;
		}
		r = load_line(ld, line, n - 1);
		ld->lines++;
	}
	if (!r && (ferror(f) || errno == ENOMEM))
		r = mc_syserr(errno ? -errno : -EIO,
			      "cannot read state file %.200s", ld->path);
	free(line);
	return r;
}

int mc_statefile_load(int fd, const char *path, struct mc_store *s)
{
	struct load_job ld = { .store = s, .path = path };
	int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	FILE *f = copy < 0 ? NULL : fdopen(copy, "r");
	int r;

	if (!f) {
		r = mc_syserr(-errno, "state file %.200s", path);
		if (copy >= 0)
			close(copy);
		return r;
	}
	r = load_file(&ld, f);
	fclose(f);
	return r;
}
