/*
 * registry.c - registries by the scheme of their URL: checks what callers pass,
 * and hands it to the backend.
 */
#include "registry.h"

#include "../base/err.h"
#include "../base/util.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
	REGISTRY_TOTAL_MS = 3000,
	REGISTRY_CONNECT_MS = 1500,
};

struct mc_registry {
	const struct mc_registry_backend *backend;
	void *ctx;
	struct mc_registry_times times;
	struct mc_registry_text text;	/* of the last answer */
	const char *changes;		/* of it, those not taken yet */
	size_t changes_len;
};

static const struct mc_registry_backend *const registry_backends[] = {
	&mc_registry_http,
	&mc_registry_etcd,
	&mc_registry_redis,
};

int mc_registry_text_add(struct mc_registry_text *t, const void *data,
			 size_t len)
{
	size_t need = t->len + len + 1;
	size_t cap = mc_max(need, t->cap + t->cap / 2);
	char *grown;

	if (need > t->cap) {
		grown = realloc(t->data, cap);
		if (!grown)
			return -ENOMEM;
		t->data = grown;
		t->cap = cap;
	}
	if (len)
		memcpy(t->data + t->len, data, len);
	t->len += len;
	t->data[t->len] = 0;
	return 0;
}

static const struct mc_registry_backend *registry_find(const char *url,
						       size_t len)
{
	for (size_t i = 0; i < mc_array_len(registry_backends); i++) {
		const char *const *s = registry_backends[i]->schemes;

		for (; *s; s++)
			if (strlen(*s) == len && !strncasecmp(*s, url, len))
				return registry_backends[i];
	}
	return NULL;
}

static int registry_backend(const char *url,
			    const struct mc_registry_backend **out)
{
	const char *rest = url ? strstr(url, "://") : NULL;

	if (!url || !strcmp(url, "peer"))
		return mc_err(-EINVAL, "registry 'peer' keeps no records: "
			      "segments are asked from their engines; name a "
			      "server, as http://host:port/path");
	if (!rest || rest == url)
		return mc_err(-EINVAL, "registry '%.80s': expected peer, or a "
			      "server as http://host:port/path", url);
	*out = registry_find(url, rest - url);
	/* There may be a password in the rest of it. */
	if (!*out)
		return mc_err(-EINVAL, "registry: no backend for %.*s://, "
			      "there are http://, https://, etcd://, etcds://, "
			      "redis:// and rediss://",
			      (int)mc_min(rest - url, 20), url);
	return 0;
}

int mc_registry_open(struct mc_registry **out, const char *url)
{
	const struct mc_registry_backend *backend;
	struct mc_registry *r;
	int ret = registry_backend(url, &backend);

	if (ret < 0)
		return ret;
	r = calloc(1, sizeof(*r));
	if (!r)
		return mc_err(-ENOMEM, "out of memory");
	r->backend = backend;
	r->times.total_ms = REGISTRY_TOTAL_MS;
	r->times.connect_ms = REGISTRY_CONNECT_MS;
	ret = backend->open(&r->ctx, url, &r->times);
	if (ret < 0) {
		free(r);
		return ret;
	}
	*out = r;
	return 0;
}

void mc_registry_close(struct mc_registry *r)
{
	if (!r)
		return;
	r->backend->close(r->ctx);
	free(r->text.data);
	free(r);
}

void mc_registry_set_times(struct mc_registry *r, int total_ms, int connect_ms)
{
	if (total_ms > 0)
		r->times.total_ms = total_ms;
	if (connect_ms > 0)
		r->times.connect_ms = connect_ms;
}

static int registry_check_key(const char *key)
{
	size_t len = key ? strlen(key) : 0;

	if (!len)
		return mc_err(-EINVAL, "registry: empty key");
	if (len > MC_KEY_MAX)
		return mc_err(-EINVAL, "registry: key '%.40s...' has %zu "
			      "bytes, at most %d go", key, len, MC_KEY_MAX);
	if (mc_key_check(key, len) < 0)
		return mc_err(-EINVAL, "registry: key '%.80s' is blank, not "
			      "UTF-8, or has control characters", key);
	return 0;
}

static int registry_check_prefix(const char **prefix)
{
	if (!*prefix)
		*prefix = "";
	return **prefix ? registry_check_key(*prefix) : 0;
}

static int registry_check_value(const char *key, const char *value,
				uint64_t len, int ttl_ms)
{
	int r = registry_check_key(key);

	if (r < 0)
		return r;
	if (len && !value)
		return mc_err(-EINVAL, "registry: no value for '%.80s'", key);
	if (len > MC_VALUE_MAX)
		return mc_err(-EFBIG, "registry: value of '%.80s' has %llu "
			      "bytes, at most %d go", key,
			      (unsigned long long)len, MC_VALUE_MAX);
	if (ttl_ms < 0)
		return mc_err(-EINVAL, "registry: negative time to live for "
			      "'%.80s'", key);
	return 0;
}

/* An operation's answer goes to an empty text; the last one has ended. */
static struct mc_registry_text *registry_text(struct mc_registry *r)
{
	r->text.len = 0;
	r->changes_len = 0;
	return &r->text;
}

static int64_t registry_give(const struct mc_registry *r, char *out,
			     uint64_t size)
{
	uint64_t n = size && r->text.len >= size ? size - 1 : r->text.len;

	if (out && size) {
		if (n)
			memcpy(out, r->text.data, n);
		out[n] = 0;
	}
	return r->text.len;
}

/* A copy of the whole answer, for the caller to free. */
static int64_t registry_copy(const struct mc_registry *r, char **out)
{
	char *text = malloc(r->text.len + 1);

	if (!text)
		return mc_err(-ENOMEM, "out of memory");
	registry_give(r, text, r->text.len + 1);
	*out = text;
	return r->text.len;
}

static int registry_get(struct mc_registry *r, const char *key,
			uint64_t *version)
{
	uint64_t found = 0;
	int ret = registry_check_key(key);

	if (!ret)
		ret = r->backend->get(r->ctx, key, registry_text(r), &found);
	if (!ret && version)
		*version = found;
	return ret;
}

int64_t mc_registry_get(struct mc_registry *r, const char *key, char *out,
			uint64_t size, uint64_t *version)
{
	int ret = registry_get(r, key, version);

	return ret < 0 ? ret : registry_give(r, out, size);
}

int64_t mc_registry_read(struct mc_registry *r, const char *key, char **out,
			 uint64_t *version)
{
	int ret = registry_get(r, key, version);

	return ret < 0 ? ret : registry_copy(r, out);
}

int mc_registry_put(struct mc_registry *r, const char *key, const char *value,
		    uint64_t len, int ttl_ms)
{
	int ret = registry_check_value(key, value, len, ttl_ms);

	return ret < 0 ? ret :
	       r->backend->put(r->ctx, key, value, len, ttl_ms, NULL);
}

int mc_registry_cas(struct mc_registry *r, const char *key, const char *value,
		    uint64_t len, uint64_t version, int ttl_ms)
{
	int ret = registry_check_value(key, value, len, ttl_ms);

	return ret < 0 ? ret :
	       r->backend->put(r->ctx, key, value, len, ttl_ms, &version);
}

int mc_registry_del(struct mc_registry *r, const char *key)
{
	int ret = registry_check_key(key);

	return ret < 0 ? ret : r->backend->del(r->ctx, key, NULL);
}

int mc_registry_del_if(struct mc_registry *r, const char *key, uint64_t version)
{
	int ret = registry_check_key(key);

	return ret < 0 ? ret : r->backend->del(r->ctx, key, &version);
}

static int registry_list(struct mc_registry *r, const char *prefix)
{
	int ret = registry_check_prefix(&prefix);

	return ret < 0 ? ret :
	       r->backend->list(r->ctx, prefix, registry_text(r));
}

int64_t mc_registry_list(struct mc_registry *r, const char *prefix, char *out,
			 uint64_t size)
{
	int ret = registry_list(r, prefix);

	return ret < 0 ? ret : registry_give(r, out, size);
}

int64_t mc_registry_names(struct mc_registry *r, const char *prefix,
			  char **out)
{
	int ret = registry_list(r, prefix);

	return ret < 0 ? ret : registry_copy(r, out);
}

int mc_registry_watch(struct mc_registry *r, const char *prefix,
		      uint64_t *version, int wait_ms)
{
	struct mc_registry_change c;
	struct mc_registry_text *t = registry_text(r);
	const char *s;
	size_t len;
	int n = 0, ret = registry_check_prefix(&prefix);

	if (!ret)
		ret = r->backend->watch(r->ctx, prefix, version,
					wait_ms > 0 ? wait_ms : 0, t);
	if (ret < 0)
		return ret;
	s = t->data;
	len = t->len;
	while ((ret = mc_change_next(&s, &len, &c)) > 0)
		n++;
	if (ret < 0)
		return mc_err(ret, "registry: watching '%.80s': line %d of "
			      "the answer is not a change", prefix, n + 1);
	r->changes = t->data;
	r->changes_len = t->len;
	return n;
}

int mc_registry_change(struct mc_registry *r, struct mc_registry_change *out)
{
	return mc_change_next(&r->changes, &r->changes_len, out);
}
