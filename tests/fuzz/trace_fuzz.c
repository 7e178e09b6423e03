/*
 * trace_fuzz.c - libFuzzer target: any bytes as a trace.
 *
 * A first byte below a blank sets block size and format, else the reader finds
 * out by itself. What it accepts must hold what mooncake.h says of a request,
 * and going back must read the same again.
 */
#include <mooncake.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const formats[] = {
	NULL, "mooncake", "qwen", "azure", "burstgpt",
};

static uint64_t read_all(struct mc_trace *t)
{
	struct mc_trace_req req;
	uint64_t sum = 0, last = 0;
	int r;

	while ((r = mc_trace_next(t, &req)) == 1 || r == -EINVAL) {
		if (r < 0)
			continue;
		if (req.at_ns < last || !req.n_blocks != !req.blocks)
			abort();
		if (req.at_ns > INT64_MAX || !req.block_tokens)
			abort();
		if ((uint64_t)req.n_blocks * req.block_tokens >=
		    (uint64_t)req.input_tokens + req.block_tokens)
			abort();
		last = req.at_ns;
		sum = sum * 31 + req.line + req.at_ns + req.output_tokens;
		for (uint32_t i = 0; i < req.n_blocks; i++)
			sum = sum * 31 + req.blocks[i];
	}
	return sum;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct mc_trace_options opts = { 0 };
	struct mc_trace *t;
	char path[32];
	uint64_t sum;
	int fd;

	if (size && data[0] < ' ') {
		opts.block_tokens = data[0];
		opts.format = formats[data[0] % 5];
		data++;
		size--;
	}
	fd = memfd_create("trace", MFD_CLOEXEC);
	if (fd < 0 || write(fd, data, size) != (ssize_t)size)
		abort();
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	if (mc_trace_open(&t, path, &opts) < 0)
		abort();
	sum = read_all(t);
	if (mc_trace_rewind(t) < 0 || read_all(t) != sum)
		abort();
	mc_trace_close(t);
	close(fd);
	return 0;
}
