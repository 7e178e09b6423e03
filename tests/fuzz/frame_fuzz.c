/*
 * frame_fuzz.c - libFuzzer target: any bytes as what a client, or a server,
 * says on a connection of the native protocol.
 *
 * The first byte chooses. Odd: the bytes go to an engine's own server, past a
 * hello of ours (or in place of one), through its port; it must go on to
 * answer others, and memory that it does not offer stays as it was. Even: they
 * are a server's answers to wire_connect() and wire_call().
 */
#include "../../src/transport/wire.h"

#ifdef FUZZ_REPLAY
#include "replay.h"
#endif

#include "../../src/base/net.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { FUZZ_LEN = 64 << 10 };

static struct mc_engine *fuzz_engine;
static uint8_t *fuzz_offered, *fuzz_kept;
static uint64_t fuzz_hash;

static uint64_t fuzz_in_ms(int ms)
{
	return mc_now_ns() + ms * 1000000ull;
}

/* Memory lies where inputs of a corpus can name it; its id is 1. */
static void fuzz_start(void)
{
	struct mc_options o = { .transports = "tcp", .workers = 1 };

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
}

/* Offsets in what is offered, small numbers, become addresses of it. */
static void fuzz_aim(uint8_t *buf, size_t size)
{
	struct wire_frame f;

	for (size_t at = 0; at + sizeof(f) <= size; ) {
		memcpy(&f, buf + at, sizeof(f));
		at += sizeof(f);
		for (int i = 0; i < f.n && at + 16 <= size; i++, at += 16) {
			uint64_t addr;

			memcpy(&addr, buf + at, 8);
			if (addr < 2 * FUZZ_LEN)
				addr += (uintptr_t)fuzz_offered;
			memcpy(buf + at, &addr, 8);
		}
		if (f.type == WIRE_WRITE || f.type == WIRE_CONTROL)
			at += f.len < size ? f.len : size;
	}
}

static void fuzz_drain(int fd)
{
	struct pollfd f = { fd, POLLIN, 0 };
	char buf[65536];

	while (poll(&f, 1, 2000) > 0 && read(fd, buf, sizeof(buf)) > 0)
		;
}

/* The server closes when our half is, once it has done what it was told. */
static void fuzz_server(uint8_t *data, size_t size, bool greets)
{
	struct wire_dial d = { .addr = mc_engine_addr(fuzz_engine),
			       .epoch = 7, .name = "fuzz",
			       .deadline_ns = fuzz_in_ms(5000) };
	struct wire_call c = { .kind = WIRE_PING };
	struct wire_welcome w;
	struct mc_stream s;
	int fd;

	if (greets) {
		if (wire_connect(&d, &s, &w) < 0)
			abort();
		fuzz_aim(data, size);
		fd = s.fd;
	} else if (mc_net_connect(d.addr, NULL, d.deadline_ns, &fd) < 0) {
		abort();
	}
	if (send(fd, data, size, MSG_NOSIGNAL) >= 0)
		shutdown(fd, SHUT_WR);
	fuzz_drain(fd);
	close(fd);
	if (wire_connect(&d, &s, &w) < 0 ||
	    wire_call(&s, &c, d.deadline_ns) < 0)
		abort();
	wire_call_free(&c);
	mc_stream_fini(&s);
	if (mc_hash(fuzz_kept, FUZZ_LEN, 0) != fuzz_hash)
		abort();
}

/* ---- the other side ------------------------------------------------- */

struct fuzz_peer {
	int listen_fd;
	const uint8_t *data;
	size_t size;
};

static void *fuzz_answer(void *arg)
{
	struct fuzz_peer *p = arg;
	struct pollfd f = { p->listen_fd, POLLIN, 0 };
	char buf[1024];
	int fd;

	if (poll(&f, 1, 5000) < 1)
		abort();
	fd = accept(p->listen_fd, NULL, NULL);
	if (read(fd, buf, sizeof(struct wire_hello)) > 0 &&
	    send(fd, p->data, p->size, MSG_NOSIGNAL) >= 0)
		shutdown(fd, SHUT_WR);
	fuzz_drain(fd);
	close(fd);
	return NULL;
}

static void fuzz_client(const uint8_t *data, size_t size, bool keyed)
{
	struct mc_key key = { .len = keyed ? 32 : 0 };
	struct wire_call c = { .kind = WIRE_PING };
	struct fuzz_peer p = { -1, data, size };
	char addr[MC_ADDR_MAX];
	struct wire_welcome w;
	struct mc_stream s;
	struct wire_dial d = { .addr = addr, .key = &key, .epoch = 7,
			       .name = "fuzz",
			       .deadline_ns = fuzz_in_ms(3000) };
	pthread_t t;

	if (mc_net_listen("127.0.0.1:0", &p.listen_fd, addr) < 0)
		abort();
	if (pthread_create(&t, NULL, fuzz_answer, &p))
		abort();
	if (!wire_connect(&d, &s, &w)) {
		if (!wire_call(&s, &c, d.deadline_ns) && c.status > 0)
			abort();
		wire_call_free(&c);
		mc_stream_fini(&s);
	}
	pthread_join(t, NULL);
	close(p.listen_fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t *copy;

	if (!size || size > 1 << 20)
		return 0;
	if (!fuzz_engine)
		fuzz_start();
	copy = malloc(size);
	if (!copy)
		return 0;
	memcpy(copy, data, size);
	if (data[0] & 1)
		fuzz_server(copy + 1, size - 1, data[0] & 2);
	else
		fuzz_client(copy + 1, size - 1, data[0] & 2);
	free(copy);
	return 0;
}
