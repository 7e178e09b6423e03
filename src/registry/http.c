/*
 * http.c - the registry client for http servers, by libcurl.
 *
 * GET, PUT and DELETE of <url>?key=<key> as the public Mooncake's metadata
 * servers answer them: 200 is success, 404 no such key. What only our server
 * does (registryd.c) is in headers and parameters of ours:
 *
 *	Mooncake-Registry: 1	in every answer: the rest is understood
 *	Mooncake-TTL: ms	of a PUT: the record expires
 *	Mooncake-Version: n	in answers: the record's, or the server's
 *	If-Match: n		of PUT and DELETE: only if that is its version;
 *				0: only if there is none; 412 otherwise
 *	?prefix=p		GET: the keys that begin so, one a line
 *	&after=n&wait_ms=t	with it: changes since, see mc_change_next()
 *
 * A server without the first header would take a conditional PUT for a plain
 * one, so conditions are sent only to one that has shown it.
 */
#include "curl.h"
#include "registry.h"

#include "../base/err.h"
#include "../base/util.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

enum {
	HTTP_ESCAPED_MAX = 3 * MC_KEY_MAX + 1,
	HTTP_ANSWER_MAX = 256 << 20,	/* a list may be longer than a value */
	HTTP_EXPECT_MS = 300,		/* large values; some never answer */
};

struct http {
	CURL *curl;
	const struct mc_registry_times *times;
	char *base;			/* the URL, and '?' or '&' */
	char *shown;			/* the URL without a password */
	bool ours;			/* the last answer had our header */
	char escaped[HTTP_ESCAPED_MAX];
};

/* One request and what came of it. */
struct http_call {
	const char *what;		/* in messages: "get", "put" */
	const char *method;
	const char *key;		/* or the prefix */
	char query[64];			/* what follows the key */
	const void *body;
	size_t len;
	struct curl_slist *headers;
	int wait_ms;			/* the server's time, beyond ours */

	struct mc_registry_text *answer;
	struct mc_registry_text scrap;	/* the answer of whoever wants none */
	bool too_long;
	bool ours;
	uint64_t version;		/* 0: none was sent */
	long status;
	char why[CURL_ERROR_SIZE];
};

/* ---- open and close ---------------------------------------------------- */

static char *http_part(CURLU *u, CURLUPart part)
{
	char *s = NULL;

	return mc_curl.url_get(u, part, &s, 0) ? NULL : s;
}

/* How messages name the server: no user, no password, no query. */
static int http_show(CURLU *u, char **shown)
{
	char *scheme = http_part(u, CURLUPART_SCHEME);
	char *host = http_part(u, CURLUPART_HOST);
	char *port = http_part(u, CURLUPART_PORT);
	char *path = http_part(u, CURLUPART_PATH);
	int n = scheme && host && path ?
		asprintf(shown, "%s://%.100s%s%.5s%.80s", scheme, host,
			 port ? ":" : "", port ? port : "", path) : -1;

	mc_curl.free(scheme);
	mc_curl.free(host);
	mc_curl.free(port);
	mc_curl.free(path);
	return n < 0 ? mc_err(-ENOMEM, "out of memory") : 0;
}

/* "http://host:port" means the path that metadata servers have. */
static CURLUcode http_complete(CURLU *u, const char *url)
{
	CURLUcode r = mc_curl.url_set(u, CURLUPART_URL, url, 0);
	const char *host = strstr(url, "://") + 3;

	if (!r && !host[strcspn(host, "/?#")])
		r = mc_curl.url_set(u, CURLUPART_PATH, "/metadata", 0);
	return r ? r : mc_curl.url_set(u, CURLUPART_FRAGMENT, NULL, 0);
}

static int http_base(struct http *h, CURLU *u)
{
	char *full = http_part(u, CURLUPART_URL);
	int n = full ? asprintf(&h->base, "%s%c", full,
				strchr(full, '?') ? '&' : '?') : -1;

	mc_curl.free(full);
	if (n < 0) {
		h->base = NULL;
		return mc_err(-ENOMEM, "out of memory");
	}
	return 0;
}

static int http_address(struct http *h, const char *url)
{
	CURLU *u = mc_curl.url();
	CURLUcode c;
	int r;

	if (!u)
		return mc_err(-ENOMEM, "out of memory");
	c = http_complete(u, url);
	/* The URL may hold a password and is not repeated here. */
	if (c == CURLUE_OUT_OF_MEMORY)
		r = mc_err(-ENOMEM, "out of memory");
	else if (c)
		r = mc_err(-EINVAL, "registry: malformed URL, expected "
			   "http://host:port/path");
	else
		r = http_show(u, &h->shown);
	if (!r)
		r = http_base(h, u);
	mc_curl.url_cleanup(u);
	return r;
}

static void http_close(void *ctx)
{
	struct http *h = ctx;

	if (!h)
		return;
	mc_curl.easy_cleanup(h->curl);
	free(h->base);
	free(h->shown);
	free(h);
}

static int http_open(void **ctx, const char *url,
		     const struct mc_registry_times *times)
{
	struct http *h;
	int r = mc_curl_load();

	if (r < 0)
		return r;
	h = calloc(1, sizeof(*h));
	if (!h)
		return mc_err(-ENOMEM, "out of memory");
	h->times = times;
	r = http_address(h, url);
	if (!r) {
		h->curl = mc_curl.easy_init();
		if (!h->curl)
			r = mc_err(-ENOMEM, "out of memory");
	}
	if (r < 0) {
		http_close(h);
		return r;
	}
	*ctx = h;
	return 0;
}

/* ---- one request ------------------------------------------------------- */

static size_t http_on_body(char *data, size_t size, size_t n, void *arg)
{
	struct http_call *c = arg;

	n *= size;
	if (c->answer->len + n > HTTP_ANSWER_MAX) {
		c->too_long = true;
		return 0;
	}
	return mc_registry_text_add(c->answer, data, n) < 0 ? 0 : n;
}

/* The value of header @name if @line, without a final zero, is it. */
static bool http_header(const char *line, size_t len, const char *name,
			uint64_t *out)
{
	size_t n = strlen(name);
	char value[32];

	if (len <= n || strncasecmp(line, name, n) || line[n] != ':')
		return false;
	len = mc_min(len - n - 1, sizeof(value) - 1);
	memcpy(value, line + n + 1, len);
	value[len] = 0;
	return !mc_query_number(value, out);
}

static size_t http_on_header(char *line, size_t size, size_t n, void *arg)
{
	struct http_call *c = arg;
	uint64_t value;

	n *= size;
	if (n > 5 && !strncmp(line, "HTTP/", 5)) {
		c->ours = false;	/* "100 Continue" came before */
		c->version = 0;
	} else if (http_header(line, n, "Mooncake-Version", &value)) {
		c->version = value;
	} else if (http_header(line, n, "Mooncake-Registry", &value)) {
		c->ours = value >= 1;
	}
	return n;
}

static int http_out_of_memory(struct http *h, struct http_call *c)
{
	return mc_err(-ENOMEM, "registry %s: %s '%.80s': out of memory",
		      h->shown, c->what, c->key);
}

static int http_add_header(struct http *h, struct http_call *c,
			   const char *name, uint64_t value)
{
	struct curl_slist *grown;
	char line[64];

	snprintf(line, sizeof(line), "%s: %" PRIu64, name, value);
	grown = mc_curl.slist_append(c->headers, line);
	if (!grown)
		return http_out_of_memory(h, c);
	c->headers = grown;
	return 0;
}

static int http_failed(struct http *h, struct http_call *c, CURLcode code)
{
	if (code == CURLE_WRITE_ERROR && c->too_long)
		return mc_err(-EFBIG, "registry %s: %s '%.80s': the answer is "
			      "longer than %d bytes", h->shown, c->what, c->key,
			      HTTP_ANSWER_MAX);
	if (code == CURLE_WRITE_ERROR)
		return http_out_of_memory(h, c);
	return mc_err(mc_curl_errno(h->curl, code),
		      "registry %s: %s '%.80s': %s", h->shown, c->what, c->key,
		      c->why[0] ? c->why : mc_curl.easy_strerror(code));
}

static int http_status_errno(long status)
{
	switch (status) {
	case 404:
		return -ENOENT;
	case 412:
		return -EAGAIN;
	case 410:
		return -ESTALE;
	case 400:
	case 414:
	case 431:
		return -EINVAL;
	case 401:
	case 403:
		return -EACCES;
	case 405:
	case 501:
		return -EOPNOTSUPP;
	case 408:
	case 504:
		return -ETIMEDOUT;
	case 413:
		return -EFBIG;
	case 429:
	case 503:
		return -EBUSY;
	case 507:
		return -ENOSPC;
	default:
		return -EREMOTEIO;
	}
}

/* The first line of an answer, as far as it is one to show to people. */
static void http_reason(const struct mc_registry_text *t, char out[100])
{
	size_t n = 0;

	while (n < t->len && n < 99 && (uint8_t)t->data[n] >= 0x20 &&
	       t->data[n] != '<')
		n++;
	if (n)
		memcpy(out, t->data, n);
	out[n] = 0;
}

static int http_refused(struct http *h, struct http_call *c)
{
	char reason[100];

	http_reason(c->answer, reason);
	return mc_err(http_status_errno(c->status),
		      "registry %s: %s '%.80s': %s%sHTTP %ld%s", h->shown,
		      c->what, c->key, reason, reason[0] ? " (" : "", c->status,
		      reason[0] ? ")" : "");
}

static int http_set_url(struct http *h, struct http_call *c)
{
	char *url = NULL;
	CURLcode r;

	mc_query_escape(c->key, strlen(c->key), h->escaped, sizeof(h->escaped));
	if (asprintf(&url, "%s%s%s%s", h->base,
		     !strcmp(c->what, "list") || !strcmp(c->what, "watch") ?
		     "prefix=" : "key=", h->escaped, c->query) < 0)
		return http_out_of_memory(h, c);
	r = mc_curl.easy_setopt(h->curl, CURLOPT_URL, url);
	free(url);
	return r ? http_out_of_memory(h, c) : 0;
}

static void http_set_options(struct http *h, struct http_call *c)
{
	CURL *q = h->curl;

	mc_curl_prepare(q, c->why);
	mc_curl.easy_setopt(q, CURLOPT_CUSTOMREQUEST, c->method);
	if (c->body) {
		mc_curl.easy_setopt(q, CURLOPT_POSTFIELDSIZE_LARGE,
				 (curl_off_t)c->len);
		mc_curl.easy_setopt(q, CURLOPT_POSTFIELDS, c->body);
		mc_curl.easy_setopt(q, CURLOPT_EXPECT_100_TIMEOUT_MS,
				 (long)HTTP_EXPECT_MS);
	}
	mc_curl.easy_setopt(q, CURLOPT_HTTPHEADER, c->headers);
	mc_curl.easy_setopt(q, CURLOPT_WRITEFUNCTION, http_on_body);
	mc_curl.easy_setopt(q, CURLOPT_WRITEDATA, c);
	mc_curl.easy_setopt(q, CURLOPT_HEADERFUNCTION, http_on_header);
	mc_curl.easy_setopt(q, CURLOPT_HEADERDATA, c);
	mc_curl.easy_setopt(q, CURLOPT_CONNECTTIMEOUT_MS,
			 (long)h->times->connect_ms);
	mc_curl.easy_setopt(q, CURLOPT_TIMEOUT_MS,
			 (long)h->times->total_ms + c->wait_ms);
}

static int http_send(struct http *h, struct http_call *c)
{
	CURLcode code;
	int r;

	mc_curl.easy_reset(h->curl);	/* connections stay open */
	r = http_set_url(h, c);
	if (r < 0)
		return r;
	http_set_options(h, c);
	code = mc_curl.easy_perform(h->curl);
	h->ours = !code && c->ours;
	if (code)
		return http_failed(h, c, code);
	mc_curl.easy_getinfo(h->curl, CURLINFO_RESPONSE_CODE, &c->status);
	return c->status == 200 ? 0 : http_refused(h, c);
}

static int http_call(struct http *h, struct http_call *c)
{
	int r;

	if (!c->answer)
		c->answer = &c->scrap;
	r = http_send(h, c);
	mc_curl.slist_free_all(c->headers);
	free(c->scrap.data);
	c->headers = NULL;
	c->scrap = (struct mc_registry_text){ 0 };
	return r;
}

/* ---- the backend ------------------------------------------------------- */

static int http_not_ours(struct http *h, const char *what, const char *key)
{
	return mc_err(-EOPNOTSUPP, "registry %s: %s '%.80s': the server has "
		      "only get, put and delete: use `mooncake serve "
		      "--registry`", h->shown, what, key);
}

/* Has this server shown that it knows conditions? Ask it once if not. */
static int http_need_ours(struct http *h, const char *what, const char *key)
{
	struct http_call c = { .what = what, .method = "GET", .key = key };
	int r;

	if (h->ours)
		return 0;
	r = http_call(h, &c);
	if (h->ours)
		return 0;
	return r < 0 && !c.status ? r : http_not_ours(h, what, key);
}

static int http_get(void *ctx, const char *key, struct mc_registry_text *out,
		    uint64_t *version)
{
	struct http_call c = {
		.what = "get", .method = "GET", .key = key, .answer = out,
	};
	int r = http_call(ctx, &c);

	if (!r)
		*version = c.ours ? c.version : 0;
	return r;
}

/* PUT and DELETE, on condition if @version is given. */
static int http_change(struct http *h, struct http_call *c, int ttl_ms,
		       const uint64_t *version)
{
	int r = version ? http_need_ours(h, c->what, c->key) : 0;

	if (!r && version)
		r = http_add_header(h, c, "If-Match", *version);
	if (!r && ttl_ms)
		r = http_add_header(h, c, "Mooncake-TTL", ttl_ms);
	if (r < 0) {
		mc_curl.slist_free_all(c->headers);
		return r;
	}
	r = http_call(h, c);
	/* Another server has taken the place of ours since it was asked. */
	if (!r && version && !h->ours)
		return http_not_ours(h, c->what, c->key);
	return r;
}

static int http_put(void *ctx, const char *key, const void *value, size_t len,
		    int ttl_ms, const uint64_t *version)
{
	struct http_call c = {
		.what = version ? "cas" : "put", .method = "PUT", .key = key,
		.body = len ? value : "", .len = len,
	};

	c.headers = mc_curl.slist_append(NULL, "Content-Type: "
					    "application/json");
	if (!c.headers)
		return http_out_of_memory(ctx, &c);
	return http_change(ctx, &c, ttl_ms, version);
}

static int http_del(void *ctx, const char *key, const uint64_t *version)
{
	struct http_call c = { .what = "delete", .method = "DELETE",
			       .key = key };

	return http_change(ctx, &c, 0, version);
}

/* GET of a prefix: a server that is not ours finds no key in that. */
static int http_query(struct http *h, struct http_call *c)
{
	int r = http_call(h, c);

	if (c->status && !h->ours && c->status < 500 && c->status != 401 &&
	    c->status != 403)
		return http_not_ours(h, c->what, c->key);
	return r;
}

static int http_list(void *ctx, const char *prefix,
		     struct mc_registry_text *out)
{
	struct http_call c = {
		.what = "list", .method = "GET", .key = prefix, .answer = out,
	};

	return http_query(ctx, &c);
}

static int http_watch(void *ctx, const char *prefix, uint64_t *version,
		      int wait_ms, struct mc_registry_text *out)
{
	struct http_call c = {
		.what = "watch", .method = "GET", .key = prefix,
		.answer = out, .wait_ms = wait_ms,
	};
	int r;

	snprintf(c.query, sizeof(c.query), "&after=%" PRIu64 "&wait_ms=%d",
		 *version, wait_ms);
	r = http_query(ctx, &c);
	if (!r)
		*version = c.version;
	return r;
}

static const char *const http_schemes[] = { "http", "https", NULL };

const struct mc_registry_backend mc_registry_http = {
	.schemes = http_schemes,
	.open = http_open,
	.close = http_close,
	.get = http_get,
	.put = http_put,
	.del = http_del,
	.list = http_list,
	.watch = http_watch,
};
