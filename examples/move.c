/* move.c - write 64 KiB into the memory of a serving node: move HOST:PORT */
#include <mooncake.h>

#include <stdio.h>

int main(int argc, char **argv)
{
	static char block[65536];
	struct mc_req req = {
		.op = MC_WRITE, .buf = block, .len = sizeof(block),
	};
	struct mc_buffer_info far = { 0 };
	struct mc_engine *e;

	if (argc < 2)
		return puts("usage: move HOST:PORT"), 2;
	if (mc_open(&e, NULL) < 0 ||
	    mc_buffer_reg(e, block, sizeof(block), NULL, MC_LOCAL) < 0 ||
	    (req.segment = mc_segment_open(e, argv[1], 1000)) < 0)
		return fprintf(stderr, "move: %s\n", mc_errmsg()), 1;
	for (int i = 0; mc_segment_list(e, req.segment, i, &far, 1) > 0; i++)
		if (far.access == MC_REMOTE_RW)
			break;
	req.remote = far.addr;
	if (mc_transfer(e, &req, 1, NULL, NULL) < 0)
		return fprintf(stderr, "move: %s\n", mc_errmsg()), 1;
	printf("%zu bytes are at %s#%#llx\n", sizeof(block), argv[1],
	       (unsigned long long)far.addr);
	mc_close(e);
}
