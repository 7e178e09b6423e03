/*
 * options_fuzz.c - libFuzzer target: any text as an option of mc_open().
 *
 * The first byte says which. An engine that opens closes again; one that does
 * not says why. (Those that name files or registries are not tried.)
 */
#include "../../src/transport/fault.h"

#ifdef FUZZ_REPLAY
#include "replay.h"
#endif

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void try_fault(const char *text)
{
	struct mc_fault f;

	if (mc_fault_parse(text, &f) < 0) {
		if (!mc_errmsg()[0])
			abort();
		return;
	}
	if (f.delay > 1000 || f.fail > 1000 || f.lose > 1000 ||
	    f.stall > 1000 || f.reorder > 1000 || f.drop > 1000 ||
	    f.kill > 1000 || f.pid < 0)
		abort();
}

/* Names would be looked up, which takes its time and asks others. */
static bool is_numeric(const char *text)
{
	return text[strspn(text, "0123456789.:[]abcdefABCDEF%")] == 0;
}

static void try_open(const struct mc_options *o)
{
	struct mc_engine *e;

	if (mc_open(&e, o) < 0) {
		if (!mc_errmsg()[0])
			abort();
		return;
	}
	if (strlen(mc_engine_name(e)) >= MC_NAME_MAX ||
	    strlen(mc_engine_addr(e)) >= MC_ADDR_MAX)
		abort();
	mc_close(e);
}

static void try_text(int which, const char *text)
{
	struct mc_options o = { .transports = "tcp", .workers = 1 };

	switch (which % 6) {
	case 0:
		try_fault(text);
		return;
	case 1:
		o.transports = text;
		break;
	case 2:
		o.devices = text;
		break;
	case 3:
		o.name = text;
		break;
	case 4:
		o.advertise = text;
		break;
	case 5:
		if (!is_numeric(text))
			return;
		o.listen = text;
		break;
	}
	try_open(&o);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text;

	if (!size)
		return 0;
	text = malloc(size);
	if (!text)
		return 0;
	memcpy(text, data + 1, size - 1);
	text[size - 1] = 0;
	try_text(data[0], text);
	free(text);
	return 0;
}
