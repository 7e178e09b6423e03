/*
 * data.c - the public data plane, served. A request is 24 bytes: size, address
 * (u64 each), an operation, and seven bytes that mean nothing.
 *
 *	version 1  a write is followed by its bytes, and not answered; a read is
 *	           answered by its bytes. What is refused ends the connection.
 *	version 2  (bit 7 of the operation) a status comes first, or after the
 *	           last byte of a write has been stored.
 *
 * Requests of a connection are served one after the other, so that a client
 * may send any number ahead.
 */
#include "conn.h"

#include "../base/err.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

enum {
	V1DATA_ACKED = 0x80,		/* in the operation: version 2 */
	V1DATA_OK = 0,
	V1DATA_REJECTED = 1,
};

static void v1data_put_status(uint8_t *out, uint32_t code)
{
	uint64_t status = htole64(0x4d43545600000000u | code);

	memcpy(out, &status, V1_STATUS);
}

static void v1data_status(struct v1_conn *c, uint32_t code)
{
	v1data_put_status(c->out + c->out_len, code);
	c->out_len += V1_STATUS;
}

void v1data_ok(uint8_t *out)
{
	v1data_put_status(out, V1DATA_OK);
}

/* A client of version 2 hears why, if it reads: hanging up while its bytes
 * come would reset the connection, and with it what we sent. */
static int v1data_reject(struct v1_conn *c)
{
	if (!c->acked)
		return mc_err(-EPROTO, "%s: %s of %llu bytes at %#llx refused",
			      c->s.peer, c->op == MC_READ ? "read" : "write",
			      (long long)c->len, (long long)c->addr);
	v1data_status(c, V1DATA_REJECTED);
	c->state = V1_ANSWER;
	return 1;
}

static int v1data_begin(struct v1_conn *c)
{
	int r = mc_host_admit_range(v1serve_host(c), c->op, c->addr, c->len);

	if (r < 0)
		return v1data_reject(c);
	v1serve_span(c, (void *)c->addr, c->len);
	c->state = c->op == MC_READ ? V1_SEND : V1_STORE;
	if (c->op == MC_READ && c->acked)
		v1data_status(c, V1DATA_OK);
	return 1;
}

static int v1data_request(struct v1_conn *c)
{
	const uint8_t *head;
	uint64_t n[2];
	uint8_t op;
	int r = wire_fill(&c->rx, &c->s, V1_HEAD);

	if (r <= 0)
		return r;
	head = c->rx.buf + c->rx.used;
	memcpy(n, head, sizeof(n));
	op = head[16];
	c->rx.used += V1_HEAD;
	c->len = le64toh(n[0]);
	c->addr = le64toh(n[1]);
	c->acked = op & V1DATA_ACKED;
	op &= ~V1DATA_ACKED;
	if (op > 1)
		return mc_err(-EPROTO, "%s: operation %u", c->s.peer, op);
	c->op = op ? MC_WRITE : MC_READ;
	return v1data_begin(c);
}

static int v1data_store(struct v1_conn *c)
{
	int r;

	do {
		r = wire_recv_span(&c->rx, &c->s, &c->span);
		if (r <= 0)
			return r;
	} while (v1serve_span_next(c));
	if (c->acked)
		v1data_status(c, V1DATA_OK);
	mc_host_served(v1serve_host(c), MC_WRITE, c->len);
	c->state = V1_REQUEST;
	return 1;
}

/* The memory was taken back meanwhile. */
static int v1data_skip(struct v1_conn *c)
{
	int r = wire_recv_skip(&c->rx, &c->s, &c->more);

	return r == 1 ? v1data_reject(c) : r;
}

int v1data_step(struct v1_conn *c)
{
	switch (c->state) {
	case V1_REQUEST:
		return v1data_request(c);
	case V1_STORE:
		return v1data_store(c);
	case V1_SKIP:
		return v1data_skip(c);
	default:
		return -EPROTO;
	}
}

void v1data_sent(struct v1_conn *c)
{
	if (c->state != V1_SEND)
		return;
	mc_host_served(v1serve_host(c), MC_READ, c->len);
	c->state = V1_REQUEST;
}
