/*
 * redis_link.c - a connection to a redis server, and commands on it.
 */
#include "redis_link.h"

#include "../base/clock.h"
#include "../base/err.h"
#include "../base/net.h"
#include "../base/util.h"

#include <errno.h>
#include <poll.h>
#include <unistd.h>

enum {
	RLINK_REPLY_MAX = 256 << 20,
	RLINK_PAUSE_MS = 50,		/* while the server is busy, */
	RLINK_WORTH_MS = 150,		/* if so much is left after it */
	RLINK_READ = 16384,
};

void mc_redis_init(struct mc_redis *l, const struct mc_registry_url *url,
		   const struct mc_registry_times *times)
{
	*l = (struct mc_redis){ .url = url, .times = times };
}

void mc_redis_close(struct mc_redis *l)
{
	if (l->curl)
		mc_curl.easy_cleanup(l->curl);
	if (l->reader)
		mc_hiredis.redisReaderFree(l->reader);
	l->curl = NULL;
	l->reader = NULL;
}

struct mc_redis_op mc_redis_begin(const struct mc_redis *l, const char *what,
				  const char *key)
{
	return (struct mc_redis_op){
		.what = what, .key = key,
		.deadline_ns = mc_clock_ns() +
			       l->times->total_ms * (uint64_t)MC_MS,
	};
}

int mc_redis_fail(const struct mc_redis *l, const struct mc_redis_op *op,
		  int err, const char *why)
{
	return mc_err(err, "registry %s: %s '%.80s': %.160s", l->url->shown,
		      op->what, op->key, why);
}

/* Nothing more can be made of this connection. */
static int rlink_lost(struct mc_redis *l, struct mc_redis_op *op, int err,
		      const char *why)
{
	char copy[CURL_ERROR_SIZE];

	mc_copy(copy, why);
	mc_redis_close(l);
	return mc_redis_fail(l, op, err, copy);
}

static int rlink_broken(struct mc_redis *l, struct mc_redis_op *op,
			CURLcode code)
{
	return rlink_lost(l, op, mc_curl_errno(l->curl, code), l->curl_why[0] ?
			  l->curl_why : mc_curl.easy_strerror(code));
}

/* ---- bytes ------------------------------------------------------------- */

/* Wait for the socket. */
static int rlink_wait(struct mc_redis *l, struct mc_redis_op *op, short events)
{
	curl_socket_t fd = CURL_SOCKET_BAD;

	mc_curl.easy_getinfo(l->curl, CURLINFO_ACTIVESOCKET, &fd);
	return fd == CURL_SOCKET_BAD ?
	       rlink_lost(l, op, -ECONNRESET, "the connection is lost") :
	       mc_net_wait(fd, events, op->deadline_ns);
}

static int rlink_send(struct mc_redis *l, struct mc_redis_op *op,
		      const char *data, size_t len)
{
	CURLcode code;
	size_t n;
	int r;

	while (len) {
		n = 0;
		code = mc_curl.easy_send(l->curl, data, len, &n);
		if (code && code != CURLE_AGAIN)
			return rlink_broken(l, op, code);
		data += n;
		len -= n;
		r = code ? rlink_wait(l, op, POLLOUT) : 0;
		if (r == -ETIMEDOUT)
			return rlink_lost(l, op, r, "the server does not take "
					  "what is sent to it");
		if (r < 0)
			return r;
	}
	return 0;
}

/* Give the reader what there is: 1, 0 nothing. */
static int rlink_feed(struct mc_redis *l, struct mc_redis_op *op)
{
	char buf[RLINK_READ];
	size_t n = 0;
	CURLcode code = mc_curl.easy_recv(l->curl, buf, sizeof(buf), &n);

	if (code == CURLE_AGAIN)
		return 0;
	if (code)
		return rlink_broken(l, op, code);
	if (!n)
		return rlink_lost(l, op, -ECONNRESET, "the server has closed "
				  "the connection");
	if (mc_hiredis.redisReaderFeed(l->reader, buf, n) != REDIS_OK)
		return rlink_lost(l, op, -ENOMEM, "out of memory");
	if (l->reader->len > RLINK_REPLY_MAX)
		return rlink_lost(l, op, -EFBIG, "the answer is too long");
	return 1;
}

/* A whole reply: 1, 0 none until the deadline. */
static int rlink_reply(struct mc_redis *l, struct mc_redis_op *op,
		       redisReply **reply)
{
	void *got = NULL;
	int r;

	for (;;) {
		if (mc_hiredis.redisReaderGetReply(l->reader, &got) != REDIS_OK)
			return rlink_lost(l, op, -EPROTO, l->reader->errstr);
		if (got)
			break;
		r = rlink_feed(l, op);
		if (!r) {
			r = rlink_wait(l, op, POLLIN);
			if (r == -ETIMEDOUT)
				return 0;
		}
		if (r < 0)
			return r;
	}
	*reply = got;
	return 1;
}

/* ---- connecting -------------------------------------------------------- */

/* One command and its reply, on a connection that is there. */
static int rlink_ask(struct mc_redis *l, struct mc_redis_op *op, int argc,
		     const char *const *argv, const size_t *lens,
		     redisReply **out)
{
	redisReply *reply;
	char *text, why[160];
	int n = mc_hiredis.redisFormatCommandArgv(&text, argc,
						  (const char **)argv, lens);
	int r;

	if (n < 0)
		return mc_redis_fail(l, op, -ENOMEM, "out of memory");
	r = rlink_send(l, op, text, n);
	mc_hiredis.redisFreeCommand(text);
	if (!r) {
		r = rlink_reply(l, op, &reply);
		if (!r)
			return rlink_lost(l, op, -ETIMEDOUT,
					  "no answer in time");
	}
	if (r < 0)
		return r;
	if (reply->type != REDIS_REPLY_ERROR) {
		*out = reply;
		return 0;
	}
	mc_copy(why, reply->str);
	mc_hiredis.freeReplyObject(reply);
	return mc_redis_fail(l, op, mc_redis_refusal(why), why);
}

/* A command of the beginning, whose reply says no more than that it worked. */
static int rlink_tell(struct mc_redis *l, struct mc_redis_op *op, int argc,
		      const char *const *argv)
{
	redisReply *reply;
	int r = rlink_ask(l, op, argc, argv, NULL, &reply);

	if (!r)
		mc_hiredis.freeReplyObject(reply);
	return r;
}

static int rlink_login(struct mc_redis *l, struct mc_redis_op *op)
{
	const char *auth[] = { "AUTH", l->url->user, l->url->password };
	const char *select[] = { "SELECT", l->url->path };
	int r = 0;

	if (l->url->user[0]) {
		r = rlink_tell(l, op, 3, auth);
	} else if (l->url->password[0]) {
		auth[1] = l->url->password;
		r = rlink_tell(l, op, 2, auth);
	}
	if (!r && l->url->path[0])
		r = rlink_tell(l, op, 2, select);
	return r;
}

static void rlink_set(struct mc_redis *l, struct mc_redis_op *op)
{
	CURL *q = l->curl;
	int left = mc_clock_left_ms(op->deadline_ns, l->times->connect_ms);
	char url[MC_ADDR_MAX + 16];

	snprintf(url, sizeof(url), "http%s://%s", l->url->tls ? "s" : "",
		 l->url->hosts[0]);
	mc_curl_prepare(q, l->curl_why);
	mc_curl_tls(q, l->url);
	mc_curl.easy_setopt(q, CURLOPT_URL, url);
	mc_curl.easy_setopt(q, CURLOPT_CONNECT_ONLY, 1L);
	mc_curl.easy_setopt(q, CURLOPT_SSL_ENABLE_ALPN, 0L);
	mc_curl.easy_setopt(q, CURLOPT_TCP_KEEPALIVE, 1L);
	mc_curl.easy_setopt(q, CURLOPT_TIMEOUT_MS, (long)mc_max(left, 1));
}

static int rlink_connect(struct mc_redis *l, struct mc_redis_op *op)
{
	CURLcode code;
	int r;

	l->curl = mc_curl.easy_init();
	l->reader = mc_hiredis_reader();
	if (!l->curl || !l->reader)
		return rlink_lost(l, op, -ENOMEM, "out of memory");
	rlink_set(l, op);
	code = mc_curl.easy_perform(l->curl);
	if (code)
		return rlink_broken(l, op, code);
	r = rlink_login(l, op);
	if (r < 0)
		mc_redis_close(l);	/* not half logged in */
	return r;
}

/* A connection that the server has closed meanwhile is of no use, and one that
 * has said something unasked is not understood. */
static bool rlink_is_fresh(struct mc_redis *l)
{
	char c;
	size_t n;

	return l->curl && mc_curl.easy_recv(l->curl, &c, 1, &n) == CURLE_AGAIN;
}

/* ---- for others -------------------------------------------------------- */

int mc_redis_ask(struct mc_redis *l, struct mc_redis_op *op, int argc,
		 const char *const *argv, const size_t *lens,
		 redisReply **reply)
{
	int r;

	for (;;) {
		if (l->curl && !rlink_is_fresh(l))
			mc_redis_close(l);
		r = l->curl ? 0 : rlink_connect(l, op);
		if (!r)
			r = rlink_ask(l, op, argc, argv, lens, reply);
		if (r != -EBUSY || mc_clock_left_ms(op->deadline_ns, 1000) <
		    RLINK_PAUSE_MS + RLINK_WORTH_MS)
			return r;
		usleep(RLINK_PAUSE_MS * 1000);
	}
}

int mc_redis_next(struct mc_redis *l, struct mc_redis_op *op,
		  redisReply **reply)
{
	return l->curl ? rlink_reply(l, op, reply) :
	       mc_redis_fail(l, op, -ECONNRESET, "there is no connection");
}
