/*
 * wire.h - the native protocol: what travels on a connection between engines.
 *
 * All integers are little endian, all structs are sent as they lie here. A
 * connection begins with
 *
 *   client  hello                 who I am, whom I expect (epoch), a nonce
 *   server  welcome               who I am, or why not; with a cluster key its
 *                                 nonce and proof
 *   client  proof (32 bytes)      only with a cluster key
 *   server  ready (8 bytes)       only with a cluster key: 0 or -EACCES
 *
 * and goes on with frames: a header, @n pieces (and after an odd number one
 * of zeros), @len bytes. A client may send any number of frames before the
 * first reply; the server answers data frames in order, control frames when it
 * can, each with a reply of the same id.
 * WIRE_DONE of a write says that its bytes are stored; of a read, its bytes
 * follow. The engine's epoch was agreed on in the hello and holds for the
 * connection; the buffer's epoch is its id, in each piece.
 */
#ifndef MC_WIRE_H
#define MC_WIRE_H

#include "auth.h"
#include "stream.h"
#include "transport.h"

enum {
	WIRE_MAGIC = 0x314e434d,	/* "MCN1" */
	WIRE_VERSION = 1,
	WIRE_PIECES = 1024,		/* in one frame */
	WIRE_CONTROL_MAX = 64 << 20,	/* bytes of a control frame or reply */
	WIRE_BUF = 32 << 10,		/* holds a header and its pieces */
	WIRE_AHEAD = 8 << 10,		/* payload read with a header */
};

enum wire_type { WIRE_WRITE = 1, WIRE_READ, WIRE_CONTROL, WIRE_DONE };

/* What a control frame asks; its bytes are that kind's own. */
enum wire_control {
	WIRE_PING,
	WIRE_FENCE,			/* u64 conn: close it, then answer */
	WIRE_DESCRIBE,			/* u64 version known: buffers since */
	WIRE_NOTIFY,			/* name, 0, message */
	WIRE_HANDSHAKE,			/* transport, 0, blob */
	WIRE_EVAL,			/* text */
};

enum { WIRE_KEY = 1 };			/* flag: a cluster key is in use */

struct wire_hello {
	uint32_t magic;
	uint16_t version, flags;
	uint64_t epoch;			/* the client's */
	uint64_t server_epoch;		/* expected; 0: any */
	uint8_t nonce[16];
	char name[MC_NAME_MAX];
};

struct wire_welcome {
	uint32_t magic;
	uint16_t version, flags;
	int32_t status;			/* 0, or why not: negative errno */
	uint32_t pad;
	uint64_t epoch, conn, host_id;
	uint8_t nonce[16], proof[32];
};

struct wire_ready {
	int32_t status;
	uint32_t pad;
};

struct wire_frame {
	uint8_t type, kind;		/* wire_type; wire_control if CONTROL */
	uint16_t n;			/* pieces after this header */
	int32_t status;			/* of DONE */
	uint64_t id;
	uint64_t len;			/* bytes after the pieces; of a READ,
					 * bytes asked for */
	uint64_t pad;
};

struct wire_piece {
	uint64_t addr;
	uint32_t len, id;
};

/* Bytes of a frame's pieces: zeros follow an odd one. A sender's kernel copies
 * what comes behind them to where they end, and a copy between places that
 * differ in their lowest five bits takes three to six times as long. */
static inline uint32_t wire_pieces_size(uint32_t n)
{
	return (n + n % 2) * sizeof(struct wire_piece);
}

/* A walk over the local side of pieces, as bytes arrive or leave. */
struct wire_span {
	const struct mc_piece *p;
	uint32_t n, i;
	uint32_t off;			/* into piece i */
	uint64_t left;
};

void wire_span_init(struct wire_span *s, const struct mc_piece *p, uint32_t n,
		    uint64_t len);
int wire_span_iov(const struct wire_span *s, struct iovec *iov, int max);
void wire_span_skip(struct wire_span *s, uint64_t len);

/* Bytes received and not yet looked at. */
struct wire_rx {
	uint8_t *buf;			/* WIRE_BUF bytes */
	uint32_t have, used;
	uint64_t total;			/* received in all */
	uint64_t looked_ns;		/* when the socket was whole; 0: who
					 * reads does not care */
	bool drained;			/* the last call left nothing: do not
					 * ask before the socket says so */
};

/* Have @want bytes at rx->buf + rx->used: 1 yes, 0 not yet, -errno. */
int wire_fill(struct wire_rx *rx, struct mc_stream *s, uint32_t want);

/* Receive into place: 1 the span is full, 0 not yet, -errno. */
int wire_recv_span(struct wire_rx *rx, struct mc_stream *s,
		   struct wire_span *span);

/* Drop @left bytes: as above. */
int wire_recv_skip(struct wire_rx *rx, struct mc_stream *s, uint64_t *left);

/* Lay out a header and its pieces at @buf (WIRE_BUF bytes): their length. */
uint32_t wire_pack(uint8_t *buf, const struct wire_frame *f,
		   const struct mc_piece *p);

/* Read @n pieces from @buf into @p, local ends unset; -EPROTO if their lengths
 * do not add up to @len. */
int wire_unpack(const uint8_t *buf, struct mc_piece *p, uint32_t n,
		uint64_t len);

/* Is the header one that a peer may send (as a request, or as a reply)? */
int wire_check(const struct wire_frame *f, bool reply);

/* Whom to dial and as whom. */
struct wire_dial {
	const char *addr;		/* host:port, or a unix name */
	bool is_unix;
	const char *dev;		/* local interface; NULL: any */
	const struct mc_key *key;
	struct mc_tls *tls;
	uint64_t epoch;			/* own */
	uint64_t peer_epoch;		/* expected; 0: any */
	const char *name;		/* own */
	uint64_t deadline_ns;
};

/* Connect and exchange hellos. -ESTALE: the peer has another epoch now, which
 * is in @w. Blocks until the deadline. */
int wire_connect(const struct wire_dial *d, struct mc_stream *s,
		 struct wire_welcome *w);

/* A control frame and its reply. */
struct wire_call {
	enum wire_control kind;
	const void *msg;
	uint32_t len;
	int status;			/* of the reply: 0 or -errno */
	void *reply;			/* malloc'd, ends with a zero */
	uint32_t reply_len;
	int fds[4], n_fds;		/* that came along, if @want_fds */
	bool want_fds;
	const int *stop;		/* give up once it is not 0; atomic */
	uint64_t epoch;			/* of whose reply it is */
};

/* Make the call on a connection that nobody else uses. Returns 0 when there is
 * a reply, whatever its status says (then with a message, if negative), or
 * -errno when the connection is of no more use. */
int wire_call(struct mc_stream *s, struct wire_call *c, uint64_t deadline_ns);
void wire_call_free(struct wire_call *c);

#endif
