/*
 * frame.h - how the public Mooncake's handshake port speaks: one frame there,
 * one frame back, then the connection ends.
 *
 * A frame is its length (u64, little endian), a byte that says what it is, and
 * JSON; the length counts the byte. Old programs leave the byte away: a first
 * byte that is no type belongs to the JSON then, and it is a connection that is
 * asked for.
 */
#ifndef MC_V1_FRAME_H
#define MC_V1_FRAME_H

#include <mooncake.h>

enum mc_v1_type {
	MC_V1_CONNECTION,		/* of devices we do not have */
	MC_V1_METADATA,			/* the descriptor, without a registry */
	MC_V1_NOTIFY,
	MC_V1_PROBE,
	MC_V1_OLD = 0xff,		/* no byte on the wire */
};

enum {
	MC_V1_FRAME_HEAD = 9,
	MC_V1_FRAME_FIRST = 8,		/* bytes that tell a frame */
};

/* The longest frame that is taken: MC_HANDSHAKE_MAX_LENGTH, or 1 MiB. */
uint64_t mc_v1_frame_max(void);

/* Of a frame's first eight bytes: the length, or -EPROTO for one that is
 * absurd, such as other protocols' greetings. */
int64_t mc_v1_frame_length(const uint8_t first[MC_V1_FRAME_FIRST]);

/* What a frame of @len bytes after its length is, and its JSON. */
enum mc_v1_type mc_v1_frame_open(const uint8_t *body, uint64_t len,
				 const char **json, uint64_t *json_len);

/* The head of a frame with so much JSON: how many bytes it has. */
uint32_t mc_v1_frame_head(uint8_t out[MC_V1_FRAME_HEAD], enum mc_v1_type type,
			  uint64_t json_len);

/* Send one with so much text, in one piece. Blocks until the deadline. */
struct mc_stream;
int mc_v1_frame_send(struct mc_stream *s, enum mc_v1_type type,
		     const char *json, uint64_t deadline_ns);

struct mc_v1_call {
	const char *addr;		/* the handshake port */
	enum mc_v1_type type;
	const char *json;
	const int *stop;		/* give up once it is not 0; atomic */
	char *reply;			/* JSON, ends with a zero; the caller
					 * frees it */
	uint64_t reply_len;
};

/* Connect, ask, and hang up. Blocks until the deadline. */
int mc_v1_ask(struct mc_v1_call *c, uint64_t deadline_ns);

#endif
