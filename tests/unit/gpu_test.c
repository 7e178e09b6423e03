/*
 * gpu_test.c - memory of a real GPU as dma-bufs, where there is a CUDA driver
 * and a GPU; cuda_test.c has a stand-in for both. What the driver cannot do on
 * a machine is told in its words, and that is checked too.
 */
#include "../../src/transport/cuda.h"
#include "../../src/base/err.h"

#include <mooncake.h>

#include <dlfcn.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

enum { PAGE = 4096, LEN = 4 << 20, DMA_BUF_SUPPORTED = 124 };

static struct {
	void *lib, *context;
	int device;
	uint64_t addr;			/* LEN bytes of the GPU's */
	int supported;			/* the driver gives dma-bufs of it */
} gpu;

/* A function of the driver's, by its exported name and what it takes. */
#define CUDA(name, types, ...) \
	((int (*) types)dlsym(gpu.lib, #name))(__VA_ARGS__)

static int open_gpu(void **state)
{
	(void)state;
	gpu.lib = dlopen("libcuda.so.1", RTLD_NOW);
	if (!gpu.lib || CUDA(cuInit, (unsigned), 0))
		return 0;
	if (CUDA(cuDeviceGet, (int *, int), &gpu.device, 0) ||
	    CUDA(cuDevicePrimaryCtxRetain, (void **, int), &gpu.context,
		 gpu.device) ||
	    CUDA(cuCtxSetCurrent, (void *), gpu.context) ||
	    CUDA(cuMemAlloc_v2, (uint64_t *, size_t), &gpu.addr, LEN))
		return -1;
	return CUDA(cuDeviceGetAttribute, (int *, int, int), &gpu.supported,
		    DMA_BUF_SUPPORTED, gpu.device);
}

static int close_gpu(void **state)
{
	(void)state;
	if (gpu.addr)
		CUDA(cuMemFree_v2, (uint64_t), gpu.addr);
	return 0;
}

static void need_gpu(void)
{
	if (gpu.addr)
		return;
	print_message("no %s: skipped\n", gpu.lib ? "GPU" : "CUDA driver");
	skip();
}

static void memory_of_a_gpu_is_known_from_other_memory(void **state)
{
	uint64_t base;
	int fd;

	(void)state;
	need_gpu();
	assert_int_equal(mc_cuda_dmabuf((uintptr_t)&base, 8, &base),
			 -ENOENT);
	fd = mc_cuda_dmabuf(gpu.addr, LEN, &base);
	assert_int_not_equal(fd, -ENOENT);
	assert_int_equal(mc_cuda_device(gpu.addr), gpu.device);
	assert_int_equal(mc_cuda_device((uintptr_t)&base), -1);
	if (fd >= 0)
		close(fd);
}

static void a_buffer_is_a_dmabuf_of_whole_pages(void **state)
{
	static const struct { uint64_t off, len, base, bytes; } cases[] = {
		{ 0, LEN, 0, LEN },
		{ 0, PAGE, 0, PAGE },
		{ 100, 8, 0, PAGE },
		{ PAGE - 1, 2, 0, 2 * PAGE },
		{ LEN - PAGE + 1, PAGE - 1, LEN - PAGE, PAGE },
	};

	(void)state;
	need_gpu();
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		uint64_t base = 0;
		int fd = mc_cuda_dmabuf(gpu.addr + cases[i].off,
					cases[i].len, &base);

		if (!gpu.supported) {
			assert_int_equal(fd, -EOPNOTSUPP);
			assert_non_null(strstr(mc_errmsg(), "CUDA_ERROR"));
			continue;
		}
		if (fd < 0)
			fail_msg("%s", mc_errmsg());
		assert_int_equal(base, gpu.addr + cases[i].base);
		assert_int_equal(lseek(fd, 0, SEEK_END), cases[i].bytes);
		close(fd);
	}
	print_message("dma-bufs: %s\n", gpu.supported ? "given" :
		      mc_errmsg());
}

static void what_is_past_the_end_is_refused(void **state)
{
	uint64_t base;

	(void)state;
	need_gpu();
	assert_int_equal(mc_cuda_dmabuf(gpu.addr, 1ull << 40, &base),
			 -EOPNOTSUPP);
	assert_non_null(strstr(mc_errmsg(), "CUDA_ERROR"));
}

/* Where no rdma is, as on most machines that have a GPU and run this. */
static void what_cannot_be_moved_is_not_registered(void **state)
{
	struct mc_options o = { .transports = "tcp" };
	struct mc_engine *e;

	(void)state;
	need_gpu();
	assert_int_equal(mc_open(&e, &o), 0);
	assert_int_equal(mc_buffer_reg(e, (void *)gpu.addr, LEN, NULL,
				       MC_REMOTE_RW), -EOPNOTSUPP);
	assert_non_null(strstr(mc_errmsg(), "rdma"));
	mc_close(e);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(memory_of_a_gpu_is_known_from_other_memory),
		cmocka_unit_test(a_buffer_is_a_dmabuf_of_whole_pages),
		cmocka_unit_test(what_is_past_the_end_is_refused),
		cmocka_unit_test(what_cannot_be_moved_is_not_registered),
	};

	return cmocka_run_group_tests_name("gpu", tests, open_gpu, close_gpu);
}
