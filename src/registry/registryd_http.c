/*
 * registryd_http.c - requests to our registry server, by evhttp. What they are
 * is in http.c. Paths do not matter, except that GET /health says OK.
 */
#include "registryd.h"

#include "../base/clock.h"
#include "../base/err.h"
#include "../base/util.h"

#include <errno.h>
#include <event2/buffer.h>
#include <event2/keyvalq_struct.h>
#include <event2/listener.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

enum {
	REQUEST_HEADERS_MAX = 4 * MC_KEY_MAX + 16384,
	REQUEST_IDLE_S = 120,		/* connections that say nothing */
	REQUEST_WAIT_MAX_MS = 60000,
	REQUEST_WAITERS_MAX = 10000,
	REQUEST_PAUSE_MS = 100,		/* when there are no descriptors */
	REQUEST_TTL_MAX_MS = 0x7fffffff,
};

/* What a request asks, taken apart. */
struct request {
	struct mc_registryd *d;
	struct evhttp_request *req;
	const char *query;
	char key[MC_KEY_MAX + 1];	/* or the prefix */
};

/* ---- answers ----------------------------------------------------------- */

static void request_answer(struct evhttp_request *req, int status,
			   uint64_t version, const void *body, size_t len)
{
	struct evkeyvalq *headers = evhttp_request_get_output_headers(req);
	struct evbuffer *out = evhttp_request_get_output_buffer(req);
	char text[24];

	snprintf(text, sizeof(text), "%" PRIu64, version);
	evhttp_add_header(headers, "Mooncake-Registry", "1");
	if (version)
		evhttp_add_header(headers, "Mooncake-Version", text);
	evhttp_add_header(headers, "Content-Type", status == 200 && len &&
			  strchr("{[\"", *(const char *)body) ?
			  "application/json" : "text/plain; charset=utf-8");
	if (evbuffer_add(out, body, len) < 0)
		status = 507;
	evhttp_send_reply(req, status, NULL, NULL);
}

static void request_say(struct request *q, int status, uint64_t version,
			const char *text)
{
	request_answer(q->req, status, version, text, strlen(text));
}

static void request_failed(struct request *q, int err, uint64_t version)
{
	switch (err) {
	case -ENOENT:
		request_say(q, 404, 0, "metadata not found");
		break;
	case -EAGAIN:
		request_say(q, 412, version, version ?
			    "the record has another version" :
			    "there is no such record");
		break;
	case -ESTALE:
		request_say(q, 410, q->d->store.version,
			    "the changes since then are forgotten: begin "
			    "again and list");
		break;
	case -ENOSPC:
		request_say(q, 507, 0, "the registry is full");
		break;
	case -ENOMEM:
		request_say(q, 507, 0, "the registry is out of memory");
		break;
	default:
		request_say(q, 500, 0, mc_errmsg());
	}
}

/* ---- parameters -------------------------------------------------------- */

static int request_bad(struct request *q, const char *why)
{
	request_say(q, 400, 0, why);
	return -EINVAL;
}

/* Fill in q->key from parameter @name: 0, or it has been answered. */
static int request_key(struct request *q, const char *name)
{
	ssize_t n = mc_query_get(q->query, name, q->key, sizeof(q->key));

	if (n == -E2BIG)
		return request_bad(q, "the key is longer than 4096 bytes");
	if (n == -EINVAL)
		return request_bad(q, "the key is not percent-encoded");
	if (n <= 0 && strcmp(name, "prefix"))
		return request_bad(q, "the key is missing or empty");
	if (n > 0 && mc_key_check(q->key, n) < 0)
		return request_bad(q, "the key is blank, not UTF-8, or has "
				   "control characters");
	return 0;
}

/* A number in a header: 1, 0 there is no such header, or it was answered. */
static int request_header(struct request *q, const char *name, uint64_t *out)
{
	const char *text = evhttp_find_header(
		evhttp_request_get_input_headers(q->req), name);

	if (!text)
		return 0;
	return mc_query_number(text, out) < 0 ?
	       request_bad(q, "a header of ours is not a number") : 1;
}

/* A number in the query: as request_header(). */
static int request_number(struct request *q, const char *name, uint64_t *out)
{
	char text[32];
	ssize_t n = mc_query_get(q->query, name, text, sizeof(text));

	if (n == -ENOENT)
		return 0;
	return n < 0 || mc_query_number(text, out) < 0 ?
	       request_bad(q, "a parameter is not a number") : 1;
}

/* ---- watching ---------------------------------------------------------- */

static void watch_free(struct mc_registryd_waiter *w)
{
	DL_DELETE(w->d->waiters, w);
	w->d->n_waiters--;
	if (w->timer)
		event_free(w->timer);
	free(w->prefix);
	free(w);
}

/* Answer with the changes there are. */
static void watch_answer(struct mc_registryd_waiter *w)
{
	struct request q = { .d = w->d, .req = w->req };
	struct mc_registry_text out = { 0 };
	int n = mc_store_changes(&w->d->store, w->prefix, w->after, &out);

	if (n < 0)
		request_failed(&q, n, 0);
	else
		request_answer(w->req, 200, w->d->store.version,
			       out.len ? out.data : "", out.len);
	free(out.data);
	watch_free(w);
}

static void watch_on_timer(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	watch_answer(arg);
}

void mc_registryd_wake(struct mc_registryd *d, const char *key)
{
	struct mc_registryd_waiter *w, *next;

	DL_FOREACH_SAFE(d->waiters, w, next)
		if (!key || !strncmp(key, w->prefix, strlen(w->prefix)))
			watch_answer(w);
}

static int watch_add(struct request *q, uint64_t after, uint64_t wait_ms)
{
	struct timeval t = { wait_ms / 1000, wait_ms % 1000 * 1000 };
	struct mc_registryd_waiter *w = calloc(1, sizeof(*w));

	if (!w)
		return -ENOMEM;
	w->d = q->d;
	w->req = q->req;
	w->after = after;
	w->prefix = strdup(q->key);
	w->timer = evtimer_new(q->d->base, watch_on_timer, w);
	DL_APPEND(q->d->waiters, w);
	q->d->n_waiters++;
	if (!w->prefix || !w->timer || evtimer_add(w->timer, &t) < 0) {
		watch_free(w);
		return -ENOMEM;
	}
	return 0;
}

static void request_watch(struct request *q, uint64_t after)
{
	struct mc_registry_text out = { 0 };
	struct mc_store *s = &q->d->store;
	uint64_t wait_ms = 0;
	int n;

	if (request_number(q, "wait_ms", &wait_ms) < 0)
		return;
	if (!after) {
		request_say(q, 200, s->version, "");
		return;
	}
	n = mc_store_changes(s, q->key, after, &out);
	if (!n && wait_ms && q->d->n_waiters < REQUEST_WAITERS_MAX) {
		n = watch_add(q, after, mc_min(wait_ms, REQUEST_WAIT_MAX_MS));
		if (!n)
			return;
	}
	if (n < 0)
		request_failed(q, n, 0);
	else if (!n && wait_ms)
		request_say(q, 503, 0, "too many watchers");
	else
		request_answer(q->req, 200, s->version,
			       out.len ? out.data : "", out.len);
	free(out.data);
}

/* ---- methods ----------------------------------------------------------- */

static void request_list(struct request *q)
{
	struct mc_registry_text out = { 0 };
	uint64_t after;
	int r;

	if (request_key(q, "prefix") < 0)
		return;
	r = request_number(q, "after", &after);
	if (r > 0)
		request_watch(q, after);
	if (r)
		return;
	r = mc_store_list(&q->d->store, q->key, &out);
	if (r < 0)
		request_failed(q, r, 0);
	else
		request_answer(q->req, 200, q->d->store.version,
			       out.len ? out.data : "", out.len);
	free(out.data);
}

static bool request_is_health(struct request *q)
{
	const char *path = evhttp_uri_get_path(
		evhttp_request_get_evhttp_uri(q->req));

	return !q->query && path && !strcmp(path, "/health");
}

static void request_get(struct request *q)
{
	struct mc_store_record *rec;
	char one[2];

	if (request_is_health(q)) {
		request_say(q, 200, 0, "OK");
		return;
	}
	if (mc_query_get(q->query, "prefix", one, sizeof(one)) != -ENOENT) {
		request_list(q);
		return;
	}
	if (request_key(q, "key") < 0)
		return;
	rec = mc_store_find(&q->d->store, q->key);
	if (rec)
		request_answer(q->req, 200, rec->version, rec->value, rec->len);
	else
		request_failed(q, -ENOENT, 0);
}

static void request_put(struct request *q)
{
	struct evbuffer *in = evhttp_request_get_input_buffer(q->req);
	size_t len = evbuffer_get_length(in);
	uint64_t ttl_ms = 0, version = 0, out = 0;
	int conditional, r;

	if (request_key(q, "key") < 0 ||
	    request_header(q, "Mooncake-TTL", &ttl_ms) < 0)
		return;
	conditional = request_header(q, "If-Match", &version);
	if (conditional < 0)
		return;
	if (ttl_ms > REQUEST_TTL_MAX_MS) {
		request_bad(q, "the time to live is over 24 days");
		return;
	}
	if (len && !evbuffer_pullup(in, -1)) {
		request_failed(q, -ENOMEM, 0);
		return;
	}
	r = mc_registryd_put(q->d, q->key, len ? (char *)evbuffer_pullup(
				     in, -1) : "", len, ttl_ms,
			     conditional ? &version : NULL, &out);
	if (r < 0)
		request_failed(q, r, out);
	else
		request_say(q, 200, out, "metadata updated");
}

static void request_delete(struct request *q)
{
	uint64_t version = 0, out = 0;
	int conditional, r;

	if (request_key(q, "key") < 0)
		return;
	conditional = request_header(q, "If-Match", &version);
	if (conditional < 0)
		return;
	r = mc_registryd_del(q->d, q->key, conditional ? &version : NULL, &out);
	if (r < 0)
		request_failed(q, r, out);
	else
		request_say(q, 200, out, "metadata deleted");
}

static void request_on(struct evhttp_request *req, void *arg)
{
	struct request q = { .d = arg, .req = req };

	q.query = evhttp_uri_get_query(evhttp_request_get_evhttp_uri(req));
	mc_registryd_expire(q.d);	/* the timer may be a little late */
	switch (evhttp_request_get_command(req)) {
	case EVHTTP_REQ_PUT:
		request_put(&q);
		break;
	case EVHTTP_REQ_DELETE:
		request_delete(&q);
		break;
	default:
		request_get(&q);
	}
}

/* ---- the socket -------------------------------------------------------- */

static void request_on_resume(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	evconnlistener_enable(arg);
}

/* Out of descriptors: look again in a while, not in a loop. */
static void request_on_accept_error(struct evconnlistener *l, void *arg)
{
	struct timeval t = { 0, REQUEST_PAUSE_MS * 1000 };

	(void)arg;
	mc_log(MC_WARN, "registry", "cannot accept connections: %s",
	       strerror(errno));
	if (!event_base_once(evconnlistener_get_base(l), -1, EV_TIMEOUT,
			     request_on_resume, l, &t))
		evconnlistener_disable(l);
}

int mc_registryd_serve(struct mc_registryd *d, int fd)
{
	struct evhttp_bound_socket *s;

	d->http = evhttp_new(d->base);
	if (!d->http)
		return mc_err(-ENOMEM, "out of memory");
	evhttp_set_allowed_methods(d->http, EVHTTP_REQ_GET | EVHTTP_REQ_HEAD |
				   EVHTTP_REQ_PUT | EVHTTP_REQ_DELETE);
	evhttp_set_max_headers_size(d->http, REQUEST_HEADERS_MAX);
	evhttp_set_max_body_size(d->http, MC_VALUE_MAX);
	evhttp_set_timeout(d->http, REQUEST_IDLE_S);
	evhttp_set_gencb(d->http, request_on, d);
	s = evhttp_accept_socket_with_handle(d->http, fd);
	if (!s)
		return mc_err(-ENOMEM, "registry server: cannot serve at %s",
			      d->addr);
	evconnlistener_set_error_cb(evhttp_bound_socket_get_listener(s),
				    request_on_accept_error);
	return 0;
}
