/*
 * registryd_state.c - the file in which our registry server keeps its records.
 *
 *	{"mooncake_registry":1,"version":5}
 *	{"key":"a","value":"text","version":6}
 *	{"key":"b","hex":"00ff","version":7,"ttl_ms":5000,"expires_ms":17e11}
 *	{"key":"b","ttl_ms":5000,"expires_ms":17e11}
 *	{"key":"a","deleted":true,"version":8}
 *
 * The last two renew a lease and delete a record. Values that are not UTF-8 are
 * in "hex". Expiry is wall clock time, so that a lease also runs out while no
 * server runs.
 */
#include "registryd_state.h"

#include "../base/clock.h"
#include "../base/err.h"
#include "../base/json.h"
#include "../base/util.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
	STATE_SPARE_LINES = 1000,	/* out of date ones: not worth it yet */
	STATE_OPEN_TRIES = 10,
};

struct mc_statefile {
	struct mc_store *store;
	char path[PATH_MAX];
	int fd;
	uint64_t size;			/* of the good part of the file */
	uint64_t lines;
	uint64_t shorten_at;		/* lines */
	bool dirty;
	bool broken;			/* a bad line is stuck at its end */
};

/* ---- writing lines ----------------------------------------------------- */

static int state_add_hex(struct json_object *o, const char *value, size_t len)
{
	static const char hex[] = "0123456789abcdef";
	char *text = malloc(2 * len + 1);
	int r;

	if (!text)
		return -ENOMEM;
	for (size_t i = 0; i < len; i++) {
		text[2 * i] = hex[(uint8_t)value[i] >> 4];
		text[2 * i + 1] = hex[value[i] & 15];
	}
	r = mc_json_add(o, "hex", json_object_new_string_len(text, 2 * len));
	free(text);
	return r;
}

static int state_add_value(struct json_object *o, const char *value, size_t len)
{
	if (!mc_utf8_ok(value, len))
		return state_add_hex(o, value, len);
	return mc_json_add(o, "value", json_object_new_string_len(value, len));
}

static int state_add_lease(struct json_object *o, uint32_t ttl_ms,
			   int64_t left_ms)
{
	int r = mc_json_add(o, "ttl_ms", json_object_new_int64(ttl_ms));

	return r ? r : mc_json_add(o, "expires_ms", json_object_new_int64(
					 mc_store_wall_ms() + left_ms));
}

/* An object that has @key; finish it by state_line(). */
static struct json_object *state_begin(const char *key)
{
	struct json_object *o = json_object_new_object();

	if (o && mc_json_add(o, "key", json_object_new_string(key)) < 0) {
		json_object_put(o);
		o = NULL;
	}
	return o;
}

/* Give @o away as a line; @r is an error so far. */
static int state_line(struct json_object *o, int r,
		      struct mc_registry_text *out)
{
	size_t len;
	const char *text = NULL;

	if (o && !r)
		text = json_object_to_json_string_length(
			o, JSON_C_TO_STRING_PLAIN |
			JSON_C_TO_STRING_NOSLASHESCAPE, &len);
	r = text ? mc_registry_text_add(out, text, len) : -ENOMEM;
	if (!r)
		r = mc_registry_text_add(out, "\n", 1);
	json_object_put(o);
	return r;
}

static int state_put_line(const char *key, const char *value, size_t len,
			  uint64_t version, uint32_t ttl_ms, int64_t left_ms,
			  struct mc_registry_text *out)
{
	struct json_object *o = state_begin(key);
	int r = o ? state_add_value(o, value, len) : -ENOMEM;

	if (!r)
		r = mc_json_add(o, "version", json_object_new_int64(version));
	if (!r && ttl_ms)
		r = state_add_lease(o, ttl_ms, left_ms);
	return state_line(o, r, out);
}

static int state_write(int fd, const char *data, size_t len, uint64_t at)
{
	while (len) {
		ssize_t n = pwrite(fd, data, len, at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		data += n;
		len -= n;
		at += n;
	}
	return 0;
}

/* Add @line, which was made with the outcome @r, and free it. */
static int state_append(struct mc_statefile *st, struct mc_registry_text *line,
			int r)
{
	if (r < 0)
		mc_err(r, "out of memory");
	else if (st->broken)
		r = mc_err(-EIO, "state file %.200s: an earlier write failed "
			   "half-way", st->path);
	else
		r = state_write(st->fd, line->data, line->len, st->size);
	if (r < 0 && r != -ENOMEM && !st->broken) {
		mc_syserr(r, "cannot write state file %.200s", st->path);
		st->broken = ftruncate(st->fd, st->size) < 0;
	}
	if (!r) {
		st->size += line->len;
		st->lines++;
		st->dirty = true;
	}
	free(line->data);
	return r;
}

int mc_statefile_put(struct mc_statefile *st, const char *key,
		     const char *value, size_t len, uint64_t version,
		     uint32_t ttl_ms)
{
	struct mc_registry_text line = { 0 };
	int r = state_put_line(key, value, len, version, ttl_ms, ttl_ms, &line);

	return state_append(st, &line, r);
}

int mc_statefile_lease(struct mc_statefile *st, const char *key,
		       uint32_t ttl_ms)
{
	struct mc_registry_text line = { 0 };
	struct json_object *o = state_begin(key);
	int r = o ? state_add_lease(o, ttl_ms, ttl_ms) : -ENOMEM;

	return state_append(st, &line, state_line(o, r, &line));
}

int mc_statefile_del(struct mc_statefile *st, const char *key, uint64_t version)
{
	struct mc_registry_text line = { 0 };
	struct json_object *o = state_begin(key);
	int r = o ? mc_json_add(o, "deleted", json_object_new_boolean(1)) :
		-ENOMEM;

	if (!r)
		r = mc_json_add(o, "version", json_object_new_int64(version));
	return state_append(st, &line, state_line(o, r, &line));
}

/* ---- the short form ---------------------------------------------------- */

static int64_t state_left_ms(const struct mc_store_record *rec)
{
	int64_t left = (int64_t)(rec->deadline_ns - mc_clock_ns()) / MC_MS;

	return rec->deadline_ns ? mc_max(left, 0) : 0;
}

/* Write all records to @fd: returns how many lines, *size is how long. */
static int64_t state_write_all(struct mc_statefile *st, int fd, uint64_t *size)
{
	struct mc_registry_text line = { 0 };
	struct mc_store_record *rec, *next;
	char head[80];
	int n = snprintf(head, sizeof(head), "{\"mooncake_registry\":%d,"
			 "\"version\":%" PRIu64 "}\n", MC_STATEFILE_FORMAT,
			 st->store->version);
	int r = mc_registry_text_add(&line, head, n);
	int64_t lines = 1;

	*size = 0;
	HASH_ITER(hh, st->store->records, rec, next) {
		if (!r)
			r = state_put_line(rec->key, rec->value, rec->len,
					   rec->version, rec->ttl_ms,
					   state_left_ms(rec), &line);
		if (!r && line.len > 65536) {
			r = state_write(fd, line.data, line.len, *size);
			*size += line.len;
			line.len = 0;
		}
		lines++;
	}
	if (!r)
		r = state_write(fd, line.data, line.len, *size);
	*size += line.len;
	free(line.data);
	return r < 0 ? r : lines;
}

/* The new name is on the disk when its directory is. */
static int state_sync_dir(const char *path)
{
	char copy[PATH_MAX];
	int fd, r;

	mc_copy(copy, path);
	fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	/* Some file systems cannot, and need not. */
	r = fsync(fd) < 0 && errno != EINVAL ? -errno : 0;
	close(fd);
	return r;
}

/* Make the file at @path whole, locked before it has its name. */
static int64_t state_make(struct mc_statefile *st, const char *path, int *fd,
			  uint64_t *size)
{
	struct stat old;
	int64_t lines;

	*fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (*fd < 0)
		return -errno;
	if (flock(*fd, LOCK_EX | LOCK_NB) < 0 || fstat(st->fd, &old) < 0 ||
	    fchmod(*fd, old.st_mode & 07777) < 0)
		return -errno;
	lines = state_write_all(st, *fd, size);
	if (lines > 0 && fsync(*fd) < 0)
		lines = -errno;
	if (lines > 0 && rename(path, st->path) < 0)
		lines = -errno;
	return lines;
}

static int state_shorten(struct mc_statefile *st)
{
	char path[PATH_MAX + 8];
	uint64_t size = 0;
	int64_t lines;
	int fd = -1, r;

	snprintf(path, sizeof(path), "%s.new", st->path);
	lines = state_make(st, path, &fd, &size);
	if (lines < 0) {
		if (fd >= 0) {
			close(fd);
			unlink(path);
		}
		return mc_syserr(lines, "cannot write state file %.200s", path);
	}
	close(st->fd);
	st->fd = fd;
	st->size = size;
	st->lines = lines;
	st->broken = false;
	r = state_sync_dir(st->path);
	st->dirty = r < 0;
	return r < 0 ? mc_syserr(r, "state file %.200s: its directory",
				 st->path) : 0;
}

static void state_plan(struct mc_statefile *st)
{
	st->shorten_at = 4 * st->lines + STATE_SPARE_LINES;
}

bool mc_statefile_dirty(const struct mc_statefile *st)
{
	return st->dirty || st->broken;
}

void mc_statefile_sync(struct mc_statefile *st)
{
	if (st->broken || st->lines >= st->shorten_at) {
		if (state_shorten(st) < 0)
			mc_log(MC_ERROR, "registry", "%s", mc_errmsg());
		state_plan(st);
	}
	if (!st->dirty)
		return;
	if (fdatasync(st->fd) < 0)
		mc_log(MC_ERROR, "registry", "state file %.200s: %s", st->path,
		       strerror(errno));
	st->dirty = false;
}

/* ---- open and close ---------------------------------------------------- */

/* The file that has the path's name, not one that was replaced between opening
 * and locking it: 1, 0 try again, or an error. */
static int state_lock(struct mc_statefile *st)
{
	struct stat by_fd, by_name;

	st->fd = open(st->path, O_RDWR | O_CREAT | O_CLOEXEC | O_NONBLOCK,
		      0644);
	if (st->fd < 0)
		return mc_syserr(-errno, "cannot open state file %.200s",
				 st->path);
	if (fstat(st->fd, &by_fd) < 0 || !S_ISREG(by_fd.st_mode))
		return mc_err(-EINVAL, "state file %.200s is not a file",
			      st->path);
	if (flock(st->fd, LOCK_EX | LOCK_NB) < 0)
		return errno == EWOULDBLOCK ?
		       mc_err(-EBUSY, "state file %.200s is in use by another "
			      "registry server", st->path) :
		       mc_syserr(-errno, "cannot lock state file %.200s",
				 st->path);
	if (!stat(st->path, &by_name) && by_name.st_ino == by_fd.st_ino &&
	    by_name.st_dev == by_fd.st_dev) {
		st->size = by_fd.st_size;
		return 1;
	}
	close(st->fd);
	st->fd = -1;
	return 0;
}

static int state_start(struct mc_statefile *st)
{
	int r = 0;

	for (int i = 0; i < STATE_OPEN_TRIES && !r; i++)
		r = state_lock(st);
	if (!r)
		r = mc_err(-EBUSY, "state file %.200s keeps being replaced",
			   st->path);
	if (r > 0)
		r = st->size ? mc_statefile_load(st->fd, st->path,
						 st->store) : 0;
	if (r < 0)
		return r;
	/* Changes of an earlier server cannot be asked for any more. */
	st->store->forgotten = st->store->version;
	r = state_shorten(st);
	state_plan(st);
	return r;
}

static void state_free(struct mc_statefile *st)
{
	if (st->fd >= 0)
		close(st->fd);
	free(st);
}

int mc_statefile_open(struct mc_statefile **out, const char *path,
		      struct mc_store *s)
{
	struct mc_statefile *st = calloc(1, sizeof(*st));
	int r;

	if (!st)
		return mc_err(-ENOMEM, "out of memory");
	st->store = s;
	st->fd = -1;
	/* A link stays one: what it points to is replaced. */
	if (!realpath(path, st->path))
		mc_copy(st->path, path);
	if (strlen(path) >= PATH_MAX - 8)
		r = mc_err(-ENAMETOOLONG, "state file %.80s...: long name",
			   path);
	else
		r = state_start(st);
	if (r < 0) {
		state_free(st);
		return r;
	}
	*out = st;
	return 0;
}

void mc_statefile_close(struct mc_statefile *st)
{
	if (!st)
		return;
	mc_statefile_sync(st);
	state_free(st);
}
