/*
 * net_fuzz.c - libFuzzer target: any text as an address.
 *
 * What is taken has a host and a port in range, and reads the same once it is
 * put together again.
 */
#include "../../src/base/net.h"

#ifdef FUZZ_REPLAY
#include "replay.h"
#endif

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const char *text, int default_port)
{
	struct mc_net_name name, again;
	char joined[MC_ADDR_MAX];

	if (mc_net_parse(text, default_port, &name) < 0) {
		if (!mc_errmsg()[0])
			abort();
		return;
	}
	if (strlen(name.host) >= MC_HOST_MAX || name.port < 0 ||
	    name.port > 65535 || strpbrk(name.host, "[] /"))
		abort();
	if (mc_net_join(name.host, name.port, joined) < 0)
		return;
	if (mc_net_parse(joined, -1, &again) < 0 ||
	    strcmp(again.host, name.host) || again.port != name.port)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = malloc(size + 1);

	if (!text)
		return 0;
	if (size)
		memcpy(text, data, size);
	text[size] = 0;
	check(text, -1);
	check(text, 12345);
	free(text);
	return 0;
}
