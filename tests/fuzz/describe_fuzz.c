/*
 * describe_fuzz.c - libFuzzer target: any bytes as a peer's answers to
 * WIRE_DESCRIBE, one after the other.
 *
 * Each answer has its length in two bytes before it. What is taken is a list by
 * address in which every buffer can be found; what is not leaves the old one.
 */
#include "../../src/engine/describe.h"
#include "../../src/engine/engine.h"

#ifdef FUZZ_REPLAY
#include "replay.h"
#endif

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const struct desc *d)
{
	for (uint64_t i = 0; i < d->n; i++) {
		const struct mc_buffer_info *b = &d->buf[i], *found;
		uint64_t hint = d->n;

		if (!b->len || (i && b->addr - b[-1].addr < b[-1].len))
			abort();
		if (!memchr(b->location, 0, sizeof(b->location)))
			abort();
		found = desc_find(d, b->addr, b->len, &hint);
		if (found != b || hint != i)
			abort();
		/* Past the end; behind a single byte is the next one's. */
		if (b->len > 1 && desc_find(d, b->addr + 1, b->len, &hint))
			abort();
	}
}

static void check_addrs(char addrs[4][MC_ADDR_MAX], int n)
{
	if (n < 0 || n > 4)
		abort();
	for (int i = 0; i < n; i++)
		if (!memchr(addrs[i], 0, MC_ADDR_MAX))
			abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct desc *old = NULL, *d;
	char addrs[4][MC_ADDR_MAX];
	int n_addrs = 0;

	while (size >= 2) {
		uint32_t len = data[0] | data[1] << 8;
		uint8_t *msg;

		data += 2;
		size -= 2;
		len = mc_min(len, size);
		/* As it comes from a connection: of its size, with a zero. */
		msg = malloc(len + 1);
		if (!msg)
			break;
		memcpy(msg, data, len);
		msg[len] = 0;
		data += len;
		size -= len;
		if (!desc_merge(old, 1, msg, len, &d, addrs, &n_addrs)) {
			check(d);
			check_addrs(addrs, n_addrs);
			desc_put(old);
			old = d;
		}
		free(msg);
	}
	desc_put(old);
	return 0;
}
