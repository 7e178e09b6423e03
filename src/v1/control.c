/*
 * control.c - handshake frames, served: who we are, notifications, probes. One
 * of each connection, as the public Mooncake does; then the other end hangs up.
 * Its own port serves one connection at a time, and a slow one delays all;
 * ours serves them side by side.
 */
#include "conn.h"

#include "frame.h"
#include "segment.h"

#include "../base/err.h"
#include "../base/util.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

enum { V1CTL_GROW = 64 << 10 };

static char *v1ctl_notified(struct v1_conn *c, const char *json, uint64_t len)
{
	char name[MC_NAME_MAX], *msg = NULL;
	uint32_t msg_len = 0;
	int r = mc_v1_notify_decode(json, len, name, &msg, &msg_len);

	if (!r)
		r = mc_host_notified(v1serve_host(c), c->s.peer, name, msg,
				     msg_len);
	free(msg);
	if (r < 0)
		mc_log(MC_INFO, "v1", "%s: notification refused: %s",
		       c->s.peer, mc_errmsg());
	return strdup(r < 0 ? "{\"name\":\"\",\"notify_msg\":\"\"}\n" :
		      "{\"name\":\"\",\"notify_msg\":\"success\"}\n");
}

/* One of ours that asks only wants to know that we are, too. */
static char *v1ctl_segment(struct v1_conn *c, const char *json, uint64_t len)
{
	bool ours = memmem(json, len, "\"mooncake_native\"", 17);
	char *reply = NULL;

	if (mc_host_segment_json(v1serve_host(c), ours, &reply) < 0)
		mc_log(MC_WARN, "v1", "%s", mc_errmsg());
	else if (strlen(reply) >= mc_v1_frame_max())
		mc_log(MC_WARN, "v1", "%s: a descriptor of %zu bytes is longer "
		       "than others take: raise MC_HANDSHAKE_MAX_LENGTH, here "
		       "and there", c->s.peer, strlen(reply));
	return reply;
}

/* Connecting devices takes time, which is not a worker's: the connection goes
 * to a task, and ends here. */
static int v1ctl_meet(struct v1_conn *c, bool old, const char *json,
		      uint64_t len)
{
	int fd = fcntl(c->s.fd, F_DUPFD_CLOEXEC, 0);

	if (fd < 0)
		return mc_syserr(-errno, "%s", c->s.peer);
	mc_host_v1_meet(v1serve_host(c), fd, old, json, len);
	return mc_err(-ECONNRESET, "%s: handed on", c->s.peer);
}

/* The reply as JSON, malloc'd. */
static char *v1ctl_answer(struct v1_conn *c, enum mc_v1_type type,
			  const char *json, uint64_t len)
{
	switch (type) {
	case MC_V1_METADATA:
		return v1ctl_segment(c, json, len);
	case MC_V1_NOTIFY:
		return v1ctl_notified(c, json, len);
	case MC_V1_PROBE:
		return strdup("{\"status\":\"success\"}\n");
	default:
		return NULL;
	}
}

static int v1ctl_serve(struct v1_conn *c)
{
	const char *json;
	uint64_t len;
	enum mc_v1_type type = mc_v1_frame_open(c->body, c->body_len, &json,
						&len);
	char *reply;

	if (type == MC_V1_CONNECTION || type == MC_V1_OLD)
		return v1ctl_meet(c, type == MC_V1_OLD, json, len);
	reply = v1ctl_answer(c, type, json, len);
	free(c->body);
	c->body = (uint8_t *)reply;
	if (!reply)
		return mc_err(-ENOMEM, "out of memory");
	c->out_len = mc_v1_frame_head(c->out, type, strlen(reply));
	v1serve_span(c, reply, strlen(reply));
	c->state = V1_ANSWER;
	return 1;
}

/* Room as bytes come: a length alone takes none. */
static int v1ctl_room(struct v1_conn *c)
{
	uint64_t want = mc_min(c->body_len, c->body_have + V1CTL_GROW);
	uint8_t *grown;

	if (c->body_cap > c->body_have)
		return 0;
	want = mc_max(want, mc_min(c->body_len, 2 * c->body_cap));
	grown = realloc(c->body, want);
	if (!grown)
		return mc_err(-ENOMEM, "out of memory");
	c->body = grown;
	c->body_cap = want;
	return 0;
}

static int v1ctl_body(struct v1_conn *c)
{
	while (c->body_have < c->body_len) {
		uint64_t n;
		int r = v1ctl_room(c);

		if (!r)
			r = wire_fill(&c->rx, &c->s, 1);
		if (r <= 0)
			return r;
		n = mc_min(c->body_cap - c->body_have,
			   (uint64_t)(c->rx.have - c->rx.used));
		memcpy(c->body + c->body_have, c->rx.buf + c->rx.used, n);
		c->body_have += n;
		c->rx.used += n;
	}
	return v1ctl_serve(c);
}

int v1ctl_step(struct v1_conn *c)
{
	int64_t len;
	int r;

	if (c->state == V1_BODY)
		return v1ctl_body(c);
	r = wire_fill(&c->rx, &c->s, MC_V1_FRAME_FIRST);
	if (r <= 0)
		return r;
	len = mc_v1_frame_length(c->rx.buf + c->rx.used);
	if (len < 0)
		return len;
	c->rx.used += MC_V1_FRAME_FIRST;
	c->body_len = len;
	c->state = V1_BODY;
	return 1;
}
