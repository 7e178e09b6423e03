/*
 * state_fuzz.c - libFuzzer target: any bytes as the state file of our registry
 * server, behind a good first line. What loads must hold together.
 */
#include "replay.h"

#include "../../src/registry/registryd_state.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static void check_store(struct mc_store *s)
{
	struct mc_registry_text names = { 0 };
	struct mc_store_record *rec, *next;
	uint64_t bytes = 0, last = 0;

	HASH_ITER(hh, s->records, rec, next) {
		bytes += rec->len + strlen(rec->key);
		if (rec->value[rec->len] || !rec->version ||
		    rec->version > s->version)
			abort();
	}
	if (bytes != s->bytes || mc_store_list(s, "", &names) < 0)
		abort();
	while ((rec = mc_store_next_lease(s))) {
		if (rec->deadline_ns < last)
			abort();
		last = rec->deadline_ns;
		mc_store_del(s, rec, s->version + 1);
	}
	free(names.data);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char head[] = "{\"mooncake_registry\":1,\"version\":1}\n";
	struct mc_store *s = malloc(sizeof(*s));
	int fd = memfd_create("state", MFD_CLOEXEC);
	int r;

	if (!s || fd < 0 || write(fd, head, strlen(head)) < 0 ||
	    write(fd, data, size) != (ssize_t)size || lseek(fd, 0, SEEK_SET))
		abort();
	mc_store_init(s, 0, 1 << 20);
	r = mc_statefile_load(fd, "state", s);
	if (!r)
		check_store(s);
	else if (r != -EBADMSG)
		abort();
	mc_store_fini(s);
	free(s);
	close(fd);
	return 0;
}
