/*
 * v1_fuzz.c - libFuzzer target: any bytes as what a program of the public
 * Mooncake says. The first byte chooses.
 *
 *	0 (mod 4)  text: a descriptor, rpc_meta, a notification, a connection
 *	           of devices. What decodes is in order, and fits where it
 *	           is put.
 *	1          a connection to an engine's own port
 *	2          one to its port for data; small addresses become those of
 *	           what it offers
 *	3          what a server of data answers to our requests
 *
 * The engine goes on to answer others, and memory that it does not offer stays
 * as it was.
 */
#include "../../src/v1/frame.h"
#include "../../src/v1/segment.h"

#ifdef FUZZ_REPLAY
#include "replay.h"
#endif

#include "../../src/base/net.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { FUZZ_LEN = 64 << 10 };

static struct mc_engine *fuzz_engine;
static uint8_t *fuzz_offered, *fuzz_kept;
static char fuzz_data[MC_ADDR_MAX];
static uint64_t fuzz_hash;

static uint64_t fuzz_in_ms(int ms)
{
	return mc_now_ns() + ms * 1000000ull;
}

static void fuzz_probe(void)
{
	struct mc_v1_call c = { .addr = mc_engine_addr(fuzz_engine),
				.type = MC_V1_METADATA, .json = "{}" };
	struct mc_v1_segment s;

	if (mc_v1_ask(&c, fuzz_in_ms(5000)) < 0 ||
	    mc_v1_segment_decode(c.reply, c.reply_len, &s) < 0 || s.n != 2 ||
	    mc_net_join(s.data_host, s.data_port, fuzz_data) < 0 ||
	    mc_hash(fuzz_kept, FUZZ_LEN, 0) != fuzz_hash)
		abort();
	free(c.reply);
	mc_v1_segment_free(&s);
}

static void fuzz_start(void)
{
	struct mc_options o = { .transports = "v1", .workers = 1,
				.profile = "v1" };

	signal(SIGPIPE, SIG_IGN);
	unsetenv("MOONCAKE_KEY_FILE");
	if (mc_open(&fuzz_engine, &o) < 0)
		abort();
	fuzz_offered = aligned_alloc(4096, FUZZ_LEN);
	fuzz_kept = aligned_alloc(4096, FUZZ_LEN);
	if (!fuzz_offered || !fuzz_kept)
		abort();
	mc_fill(fuzz_kept, FUZZ_LEN, 1);
	fuzz_hash = mc_hash(fuzz_kept, FUZZ_LEN, 0);
	if (mc_buffer_reg(fuzz_engine, fuzz_offered, FUZZ_LEN, NULL,
			  MC_REMOTE_RW) < 0 ||
	    mc_buffer_reg(fuzz_engine, fuzz_kept, FUZZ_LEN, NULL,
			  MC_REMOTE_READ) < 0)
		abort();
	fuzz_probe();
}

/* ---- text ------------------------------------------------------------ */

static void fuzz_text(const char *text, size_t len)
{
	char addr[MC_ADDR_MAX], name[MC_NAME_MAX], *msg = NULL;
	struct mc_v1_segment s;
	struct mc_meeting m;
	uint32_t n, key;

	if (!mc_v1_segment_decode(text, len, &s)) {
		for (uint64_t i = 0; s.n_devs && i < s.n; i++)
			if (mc_v1_segment_key(&s, s.buf[i].id, s.n_devs - 1,
					      &key) && !key)
				abort();
		for (uint64_t i = 0; i + 1 < s.n; i++)
			if (s.buf[i + 1].addr - s.buf[i].addr <
			    s.buf[i].len)
				abort();
		mc_v1_segment_free(&s);
	}
	if (!mc_v1_meeting_decode(text, len, &m) &&
	    (m.n_qps > MC_V1_QPS || !memchr(m.why, 0, sizeof(m.why))))
		abort();
	if (!mc_v1_place_decode(text, len, addr) &&
	    strlen(addr) >= sizeof(addr))
		abort();
	if (!mc_v1_notify_decode(text, len, name, &msg, &n) && msg[n])
		abort();
	free(msg);
}

/* ---- clients --------------------------------------------------------- */

/* Headers follow each other at the distance that their sizes say. */
static void fuzz_aim(uint8_t *buf, size_t size)
{
	for (size_t at = 0; at + 24 <= size; ) {
		uint64_t n[2];

		memcpy(n, buf + at, sizeof(n));
		n[1] = n[1] < 2 * FUZZ_LEN ? n[1] + (uintptr_t)fuzz_offered :
		       n[1];
		memcpy(buf + at, n, sizeof(n));
		at += 24 + (buf[at + 16] & 1 ? n[0] < size ? n[0] : size : 0);
	}
}

static void fuzz_say(const char *addr, const uint8_t *data, size_t size)
{
	struct pollfd p = { .events = POLLIN };
	char rest[4096];
	int fd;

	if (mc_net_connect(addr, NULL, fuzz_in_ms(5000), &fd) < 0)
		abort();
	p.fd = fd;
	if (send(fd, data, size, 0) > 0)
		shutdown(fd, SHUT_WR);
	while (poll(&p, 1, 1000) > 0 && recv(fd, rest, sizeof(rest), 0) > 0)
		;
	close(fd);
}

/* ---- a server -------------------------------------------------------- */

struct fuzz_server {
	int handshake, data;
	const uint8_t *say;
	size_t len;
	char addr[MC_ADDR_MAX];
	bool stop;
};

static void fuzz_describe(struct fuzz_server *f, int fd)
{
	char json[400], frame[420];
	struct sockaddr_in at;
	socklen_t len = sizeof(at);
	int n;

	getsockname(f->data, (void *)&at, &len);
	n = snprintf(json, sizeof(json), "{\"name\":\"x\",\"protocol\":"
		     "\"tcp\",\"tcp_data_port\":%d,\"tcp_proto_version\":%d,"
		     "\"buffers\":[{\"name\":\"x\",\"addr\":4096,"
		     "\"length\":65536}]}", ntohs(at.sin_port),
		     1 + (int)(f->len & 1));
	memcpy(frame + mc_v1_frame_head((void *)frame, MC_V1_METADATA, n),
	       json, n);
	if (send(fd, frame, n + 9, 0) < 0)
		return;
}

static void *fuzz_serve(void *arg)
{
	struct fuzz_server *f = arg;
	char in[8192];

	while (!__atomic_load_n(&f->stop, __ATOMIC_ACQUIRE)) {
		struct pollfd p[2] = { { f->handshake, POLLIN, 0 },
				       { f->data, POLLIN, 0 } };
		int fd = -1;

		if (poll(p, 2, 5) > 0)
			fd = accept(p[p[1].revents != 0].fd, NULL, NULL);
		if (fd < 0)
			continue;
		if (!p[1].revents) {
			fuzz_describe(f, fd);
		} else if (recv(fd, in, sizeof(in), 0) >= 0 && f->len &&
			   send(fd, f->say, f->len, 0) > 0) {
			shutdown(fd, SHUT_WR);
			p[1] = (struct pollfd){ fd, POLLIN, 0 };
			while (poll(&p[1], 1, 50) > 0 &&
			       recv(fd, in, sizeof(in), 0) > 0)
				;
		}
		close(fd);
	}
	return NULL;
}

static void fuzz_answers(const uint8_t *data, size_t size)
{
	struct fuzz_server f = { .say = data, .len = size };
	struct mc_batch_opts o = { .timeout_ms = 100 };
	char at[MC_ADDR_MAX];
	pthread_t t;
	int seg;

	if (mc_net_listen("127.0.0.1:0", &f.handshake, f.addr) < 0 ||
	    mc_net_listen("127.0.0.1:0", &f.data, at) < 0 ||
	    pthread_create(&t, NULL, fuzz_serve, &f))
		abort();
	seg = mc_segment_open(fuzz_engine, f.addr, 1000);
	if (seg >= 0) {
		struct mc_req q[2] = {
			{ .op = MC_READ, .segment = seg, .buf = fuzz_offered,
			  .remote = 4096, .len = 16 },
			{ .op = size & 2 ? MC_WRITE : MC_READ, .segment = seg,
			  .buf = fuzz_offered + 64, .remote = 8192,
			  .len = 8 },
		};

		mc_transfer(fuzz_engine, q, 2, &o, NULL);
		mc_segment_close(fuzz_engine, seg);
	}
	__atomic_store_n(&f.stop, true, __ATOMIC_RELEASE);
	pthread_join(t, NULL);
	close(f.handshake);
	close(f.data);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t *copy;

	if (!fuzz_engine)
		fuzz_start();
	if (!size || size > 64 << 10)
		return 0;
	/* No more than there is, for who reads beyond it. */
	copy = malloc(size);
	memcpy(copy, data + 1, size - 1);
	switch (data[0] % 4) {
	case 0:
		fuzz_text((char *)copy, size - 1);
		break;
	case 1:
		fuzz_say(mc_engine_addr(fuzz_engine), copy, size - 1);
		fuzz_probe();
		break;
	case 2:
		fuzz_aim(copy, size - 1);
		fuzz_say(fuzz_data, copy, size - 1);
		fuzz_probe();
		break;
	case 3:
		fuzz_answers(copy, size - 1);
		fuzz_probe();
		break;
	}
	free(copy);
	return 0;
}
