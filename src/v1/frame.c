/* frame.c - the public Mooncake's handshake frames; see frame.h. */
#include "frame.h"

#include "../base/env.h"
#include "../base/err.h"
#include "../base/net.h"
#include "../base/util.h"
#include "../transport/stream.h"

#include <endian.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
	V1FRAME_MAX = 1 << 20,
	V1FRAME_CAP = 128 << 20,
};

uint64_t mc_v1_frame_max(void)
{
	long n = mc_env_number("MC_HANDSHAKE_MAX_LENGTH", 1, LONG_MAX,
			       V1FRAME_MAX);

	return mc_min(n, (long)V1FRAME_CAP);
}

int64_t mc_v1_frame_length(const uint8_t first[MC_V1_FRAME_FIRST])
{
	uint64_t len;

	memcpy(&len, first, sizeof(len));
	len = le64toh(len);
	if (!len || len > mc_v1_frame_max())
		return mc_err(-EPROTO, "a handshake frame of %llu bytes",
			      (unsigned long long)len);
	return len;
}

enum mc_v1_type mc_v1_frame_open(const uint8_t *body, uint64_t len,
				 const char **json, uint64_t *json_len)
{
	bool typed = body[0] <= MC_V1_PROBE;

	*json = (const char *)body + typed;
	*json_len = len - typed;
	return typed ? body[0] : MC_V1_OLD;
}

uint32_t mc_v1_frame_head(uint8_t out[MC_V1_FRAME_HEAD], enum mc_v1_type type,
			  uint64_t json_len)
{
	bool typed = type != MC_V1_OLD;
	uint64_t len = htole64(json_len + typed);

	memcpy(out, &len, sizeof(len));
	out[8] = type;
	return 8 + typed;
}

int mc_v1_frame_send(struct mc_stream *s, enum mc_v1_type type,
		     const char *json, uint64_t deadline_ns)
{
	size_t len = strlen(json), n;
	uint8_t *frame = malloc(MC_V1_FRAME_HEAD + len);
	int r;

	if (!frame)
		return mc_err(-ENOMEM, "out of memory");
	n = mc_v1_frame_head(frame, type, len);
	memcpy(frame + n, json, len);
	r = mc_stream_write_full(s, frame, n + len, deadline_ns);
	free(frame);
	return r;
}

static int v1frame_recv(struct mc_stream *s, struct mc_v1_call *c,
			uint64_t deadline_ns)
{
	uint8_t first[MC_V1_FRAME_FIRST];
	enum mc_v1_type type;
	const char *json;
	uint8_t *body;
	int64_t len;
	int r = mc_stream_read_full(s, first, sizeof(first), deadline_ns);

	if (r < 0)
		return r;
	len = mc_v1_frame_length(first);
	if (len < 0)
		return len;
	body = malloc(len + 1);
	if (!body)
		return mc_err(-ENOMEM, "out of memory");
	r = mc_stream_read_full(s, body, len, deadline_ns);
	if (r < 0) {
		free(body);
		return r;
	}
	type = mc_v1_frame_open(body, len, &json, &c->reply_len);
	memmove(body, json, c->reply_len);
	body[c->reply_len] = 0;
	c->reply = (char *)body;
	if (type == c->type || type == MC_V1_OLD)
		return 0;
	free(c->reply);
	c->reply = NULL;
	return mc_err(-EPROTO, "%s answers a frame of type %d with one of "
		      "type %d", c->addr, c->type, type);
}

int mc_v1_ask(struct mc_v1_call *c, uint64_t deadline_ns)
{
	struct mc_stream s;
	int fd, r = mc_net_connect(c->addr, NULL, deadline_ns, &fd);

	c->reply = NULL;
	if (r < 0)
		return r;
	r = mc_stream_init(&s, fd, NULL, false);
	if (r < 0) {
		close(fd);
		return r;
	}
	s.stop = c->stop;
	r = mc_v1_frame_send(&s, c->type, c->json, deadline_ns);
	if (!r)
		r = v1frame_recv(&s, c, deadline_ns);
	mc_stream_fini(&s);
	return r;
}
