/*
 * etcd_link.c - requests to the members of an etcd cluster, by its JSON
 * gateway.
 *
 * A member that cannot be reached, that is frozen or without a leader, costs
 * its share of the time that is left, and the next one is asked. A request that
 * may have been done is sent again only where that does no harm, which for all
 * but a caller's own compare-and-swap is made sure of in etcd.c. (libcurl sends
 * one again by itself if its connection turns out to have been closed before.)
 */
#include "etcd_link.h"

#include "../base/clock.h"
#include "../base/err.h"
#include "../base/json.h"
#include "../base/util.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

enum {
	ELINK_PORT = 2379,
	ELINK_ANSWER_MAX = 256 << 20,
	ELINK_PAUSE_MS = 50,		/* between rounds without a leader, */
	ELINK_WORTH_MS = 150,		/* if so much is left after it */
	ELINK_POLL_MS = 1000,
};

/* ---- open and close ---------------------------------------------------- */

void mc_etcd_close(struct mc_etcd *e)
{
	if (!e)
		return;
	if (e->curl)
		mc_curl.easy_cleanup(e->curl);
	if (e->multi)
		mc_curl.multi_cleanup(e->multi);
	free(e->token);
	explicit_bzero(&e->url, sizeof(e->url));
	free(e);
}

static int elink_open(struct mc_etcd *e, const char *url)
{
	int r = mc_registry_url_parse(url, "etcd", ELINK_PORT, &e->url);

	if (r < 0)
		return r;
	if (e->url.path[0])
		return mc_err(-EINVAL, "registry %s: a path, of which etcd "
			      "has none: '%.40s'", e->url.shown, e->url.path);
	e->multi = mc_curl.multi_init();
	e->curl = mc_curl.easy_init();
	if (!e->multi || !e->curl)
		return mc_err(-ENOMEM, "out of memory");
	return 0;
}

int mc_etcd_open(struct mc_etcd **out, const char *url,
		 const struct mc_registry_times *times)
{
	struct mc_etcd *e;
	int r = mc_curl_load();

	if (r < 0)
		return r;
	e = calloc(1, sizeof(*e));
	if (!e)
		return mc_err(-ENOMEM, "out of memory");
	e->times = times;
	r = elink_open(e, url);
	if (r < 0) {
		mc_etcd_close(e);
		return r;
	}
	*out = e;
	return 0;
}

struct mc_etcd_op mc_etcd_begin(const struct mc_etcd *e, const char *what,
				const char *key)
{
	return (struct mc_etcd_op){
		.what = what, .key = key,
		.deadline_ns = mc_clock_ns() +
			       e->times->total_ms * (uint64_t)MC_MS,
	};
}

int mc_etcd_fail(const struct mc_etcd *e, const struct mc_etcd_op *op, int err,
		 const char *why)
{
	return mc_err(err, "registry %s: %s '%.80s': %s", e->url.shown,
		      op->what, op->key, why);
}

int mc_etcd_misread(const struct mc_etcd *e, const struct mc_etcd_op *op,
		    int err)
{
	return mc_etcd_fail(e, op, err, err == -ENOMEM ? "out of memory" :
			    "the answer is not of etcd");
}

static int elink_out_of_memory(struct mc_etcd_op *op)
{
	mc_copy(op->why, "out of memory");
	return -ENOMEM;
}

/* ---- one request to one member ----------------------------------------- */

/* Give line() the lines that have come. */
static void elink_lines(struct mc_etcd_op *op)
{
	const char *s = op->answer.data + op->parsed, *end;
	size_t left = op->answer.len - op->parsed;

	while (!op->ended && (end = memchr(s, '\n', left))) {
		op->ended = op->line(op, s, end - s);
		left -= end + 1 - s;
		s = end + 1;
	}
	op->parsed = s - op->answer.data;
}

static size_t elink_on_body(char *data, size_t size, size_t n, void *arg)
{
	struct mc_etcd_op *op = arg;

	n *= size;
	op->too_long = op->answer.len + n > ELINK_ANSWER_MAX;
	if (op->too_long || mc_registry_text_add(&op->answer, data, n) < 0)
		return 0;
	return n;
}

static struct curl_slist *elink_headers(const struct mc_etcd *e, bool login)
{
	/* Never wait for the server's word before sending a large value. */
	struct curl_slist *first = mc_curl.slist_append(NULL, "Expect:");
	struct curl_slist *list = first;
	char *line = NULL;

	if (list)
		list = mc_curl.slist_append(list, "Content-Type: "
					    "application/json");
	if (list && e->token && !login) {
		if (asprintf(&line, "Authorization: %s", e->token) < 0)
			line = NULL;
		list = line ? mc_curl.slist_append(list, line) : NULL;
		free(line);
	}
	if (!list && first)
		mc_curl.slist_free_all(first);
	return list;
}

static int elink_set(struct mc_etcd *e, struct mc_etcd_op *op,
		     struct curl_slist *headers)
{
	CURL *q = e->curl;
	int left = mc_clock_left_ms(op->until_ns, e->times->connect_ms);
	char url[MC_ADDR_MAX + 64];

	snprintf(url, sizeof(url), "http%s://%s/v3/%s", e->url.tls ? "s" : "",
		 e->url.hosts[e->at], op->path);
	mc_curl.easy_reset(q);
	mc_curl_prepare(q, op->curl_why);
	mc_curl_tls(q, &e->url);
	mc_curl.easy_setopt(q, CURLOPT_HTTP_VERSION,
			    (long)CURL_HTTP_VERSION_1_1);
	mc_curl.easy_setopt(q, CURLOPT_HTTPHEADER, headers);
	mc_curl.easy_setopt(q, CURLOPT_POSTFIELDSIZE_LARGE,
			    (curl_off_t)strlen(op->body));
	mc_curl.easy_setopt(q, CURLOPT_POSTFIELDS, op->body);
	mc_curl.easy_setopt(q, CURLOPT_WRITEFUNCTION, elink_on_body);
	mc_curl.easy_setopt(q, CURLOPT_WRITEDATA, op);
	mc_curl.easy_setopt(q, CURLOPT_CONNECTTIMEOUT_MS,
			    (long)mc_max(left, 1));
	return mc_curl.easy_setopt(q, CURLOPT_URL, url) ?
	       elink_out_of_memory(op) : 0;
}

static long elink_status(const struct mc_etcd *e)
{
	long status = 0;

	mc_curl.easy_getinfo(e->curl, CURLINFO_RESPONSE_CODE, &status);
	return status;
}

/* Move the handle's transfer on until it ends, line() has enough, or the time
 * is over; the answer may be the beginning of one. */
static CURLcode elink_drive(struct mc_etcd *e, struct mc_etcd_op *op)
{
	struct CURLMsg *m;
	int running = 1, left, ms;

	for (;;) {
		if (mc_curl.multi_perform(e->multi, &running))
			return CURLE_FAILED_INIT;
		if (op->line && op->answer.len && elink_status(e) == 200)
			elink_lines(op);
		if (op->ended)
			return CURLE_OK;
		if (!running)
			break;
		ms = mc_clock_left_ms(op->until_ns, ELINK_POLL_MS);
		if (!ms)
			return op->begun ? CURLE_OK : CURLE_OPERATION_TIMEDOUT;
		if (mc_curl.multi_poll(e->multi, NULL, 0, ms, NULL))
			return CURLE_FAILED_INIT;
	}
	m = mc_curl.multi_info_read(e->multi, &left);
	if (!m || m->msg != CURLMSG_DONE)
		return CURLE_FAILED_INIT;
	/* The end of a stream is for line() to say. */
	return m->data.result == CURLE_OK && op->begun ? CURLE_PARTIAL_FILE :
	       m->data.result;
}

/* Why there was no whole answer, and whether the member may have got the
 * request all the same. */
static int elink_broken(struct mc_etcd *e, struct mc_etcd_op *op,
			CURLcode code)
{
	curl_off_t sent_us = 0;

	if (code == CURLE_WRITE_ERROR && op->too_long) {
		snprintf(op->why, sizeof(op->why), "the answer is longer than "
			 "%d bytes", ELINK_ANSWER_MAX);
		return -EFBIG;
	}
	if (code == CURLE_WRITE_ERROR)
		return elink_out_of_memory(op);
	mc_curl.easy_getinfo(e->curl, CURLINFO_PRETRANSFER_TIME_T, &sent_us);
	op->lost = true;
	op->doubt |= op->writes && sent_us > 0;
	if (code == CURLE_OPERATION_TIMEDOUT)
		mc_copy(op->why, sent_us ? "no answer in time" :
			"no connection in time");
	else
		mc_copy(op->why, op->curl_why[0] ? op->curl_why :
			mc_curl.easy_strerror(code));
	return mc_curl_errno(e->curl, code);
}

static int elink_send(struct mc_etcd *e, struct mc_etcd_op *op, bool login)
{
	struct curl_slist *headers = elink_headers(e, login);
	CURLcode code = CURLE_FAILED_INIT;
	int r = headers ? elink_set(e, op, headers) : elink_out_of_memory(op);

	op->answer.len = op->parsed = 0;
	op->ended = 0;
	op->lost = op->begun = false;
	if (!r && !mc_curl.multi_add_handle(e->multi, e->curl)) {
		code = elink_drive(e, op);
		mc_curl.multi_remove_handle(e->multi, e->curl);
	}
	mc_curl.slist_free_all(headers);
	if (r < 0)
		return r;
	if (code)
		return elink_broken(e, op, code);
	if (op->ended)
		return mc_min(op->ended, 0);
	return elink_status(e) == 200 ? 0 :
	       mc_etcd_refusal(op->answer.len ? op->answer.data : "",
			       op->answer.len, elink_status(e), op->why);
}

/* ---- users ------------------------------------------------------------- */

static int elink_login_body(const struct mc_etcd *e, char **body)
{
	struct json_object *o = json_object_new_object();
	const char *text = NULL;

	if (o && !mc_json_add(o, "name", json_object_new_string(e->url.user)) &&
	    !mc_json_add(o, "password",
			 json_object_new_string(e->url.password)))
		text = json_object_to_json_string(o);
	*body = text ? strdup(text) : NULL;
	json_object_put(o);
	return *body ? 0 : -ENOMEM;
}

static int elink_take_token(struct mc_etcd *e, struct mc_etcd_op *op)
{
	struct json_object *o = NULL, *token = NULL;
	int r = mc_etcd_parse(op->answer.data, op->answer.len, &o);

	if (!r && json_object_object_get_ex(o, "token", &token) &&
	    json_object_is_type(token, json_type_string)) {
		e->token = strdup(json_object_get_string(token));
		r = e->token ? 0 : elink_out_of_memory(op);
	} else {
		mc_copy(op->why, "the answer to a login has no token");
		r = -EBADMSG;
	}
	json_object_put(o);
	return r;
}

/* Get a token; it is good for some minutes of not being used. */
static int elink_login(struct mc_etcd *e, struct mc_etcd_op *op)
{
	struct mc_etcd_op in = { .until_ns = op->until_ns };
	char *body;
	int r = elink_login_body(e, &body);

	free(e->token);
	e->token = NULL;
	if (r < 0)
		return elink_out_of_memory(op);
	in.path = "auth/authenticate";
	in.body = body;
	r = elink_send(e, &in, true);
	if (!r)
		r = elink_take_token(e, &in);
	op->lost = in.lost;
	if (r < 0)
		snprintf(op->why, sizeof(op->why), "login of '%.40s': %.100s",
			 e->url.user, in.why);
	if (in.answer.data)
		explicit_bzero(in.answer.data, in.answer.len);
	explicit_bzero(body, strlen(body));
	free(in.answer.data);
	free(body);
	return r;
}

/* A server that was restarted has forgotten its tokens. */
static int elink_try(struct mc_etcd *e, struct mc_etcd_op *op)
{
	bool user = e->url.user[0];
	int r = user && !e->token ? elink_login(e, op) : 0;

	if (!r)
		r = elink_send(e, op, false);
	if (r == -EKEYEXPIRED && user)
		r = elink_login(e, op);
	else
		return r == -EKEYEXPIRED ? -EACCES : r;
	return r < 0 ? r : elink_send(e, op, false);
}

/* ---- one member after another ------------------------------------------ */

/* What is left of the time, fairly among the members not tried yet. */
static void elink_share(const struct mc_etcd *e, struct mc_etcd_op *op,
			int tried)
{
	uint64_t now = mc_clock_ns();
	uint64_t left = op->deadline_ns > now ? op->deadline_ns - now : 0;
	int members = mc_max(e->url.n_hosts - tried, 1);

	op->until_ns = now + left / members;
}

static void elink_note(const struct mc_etcd *e, struct mc_etcd_op *op,
		       struct mc_registry_text *all)
{
	char line[MC_ADDR_MAX + sizeof(op->why) + 8];

	snprintf(line, sizeof(line), "%s%s: %s", all->len ? "; " : "",
		 e->url.hosts[e->at], op->why);
	mc_registry_text_add(all, line, strlen(line));
}

/* Ask the members in turn until one answers, or refuses for good. What the
 * last round of them said is in @all. */
static int elink_round(struct mc_etcd *e, struct mc_etcd_op *op,
		       struct mc_registry_text *all)
{
	int n = e->url.n_hosts, r = -ETIMEDOUT;

	all->len = 0;
	for (int tried = 0; tried < n; tried++) {
		elink_share(e, op, tried);
		r = elink_try(e, op);
		if (!op->lost && r != -EBUSY)
			return r;
		op->doubt |= op->writes && !op->lost;
		elink_note(e, op, all);
		e->at = (e->at + 1) % n;
		if (op->once && (op->doubt || !op->lost))
			break;
	}
	return r;
}

int mc_etcd_post(struct mc_etcd *e, struct mc_etcd_op *op, const char *path,
		 const char *body)
{
	struct mc_registry_text all = { 0 };
	int r;

	op->path = path;
	op->body = body;
	for (;;) {
		r = elink_round(e, op, &all);
		if (r != -EBUSY || op->once ||
		    mc_clock_left_ms(op->deadline_ns, 1000) <
		    ELINK_PAUSE_MS + ELINK_WORTH_MS)
			break;
		usleep(ELINK_PAUSE_MS * 1000);
	}
	if (r < 0)
		mc_etcd_fail(e, op, r, e->url.n_hosts > 1 && all.len ?
			     all.data : op->why);
	free(all.data);
	return r;
}

int mc_etcd_ask(struct mc_etcd *e, struct mc_etcd_op *op, const char *path,
		const char *body, struct json_object **answer)
{
	int r = mc_etcd_post(e, op, path, body);

	if (r < 0)
		return r;
	r = mc_etcd_parse(op->answer.len ? op->answer.data : "",
			  op->answer.len, answer);
	return r < 0 ? mc_etcd_misread(e, op, r) : 0;
}
