/*
 * cuda_test.c - memory of GPUs as dma-bufs, with a driver's library that stands
 * in for CUDA's: made by the compiler, and put where the real one is looked
 * for. It takes what the real one takes, and nothing else.
 */
#include "../../src/transport/cuda.h"
#include "../../src/base/err.h"

#include <mooncake.h>

#include <dlfcn.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

enum { PAGE = 4096, FROM = 0x10000, LEN = 16 * PAGE };

static const char driver[] =
	"#define _GNU_SOURCE\n"
	"#include <stddef.h>\n"
	"#include <sys/mman.h>\n"
	"#include <unistd.h>\n"
	"int cuda_refuses;\n"
	"static int outside(unsigned long long at, size_t n)\n"
	"{ return at < 0x10000 || at + n > 0x10000 + 16 * 4096; }\n"
	"int cuPointerGetAttribute(void *out, int what,\n"
	"			  unsigned long long at)\n"
	"{ if ((what != 2 && what != 9) || outside(at, 1)) return 1;\n"
	"  *(unsigned *)out = what == 9 ? 3 : 2; return 0; }\n"
	"int cuMemGetHandleForAddressRange(void *out,\n"
	"	unsigned long long at, size_t n, int kind,\n"
	"	unsigned long long flags)\n"
	"{ int fd; if (cuda_refuses) return 801;\n"
	"  if (at % 4096 || n % 4096 || !n || outside(at, n) ||\n"
	"      kind != 1 || flags) return 1;\n"
	"  fd = memfd_create(\"gpu\", 0); ftruncate(fd, n);\n"
	"  *(int *)out = fd; return fd < 0; }\n"
	"int cuGetErrorName(int code, const char **name)\n"
	"{ if (code != 801) return 1;\n"
	"  *name = \"CUDA_ERROR_NOT_SUPPORTED\"; return 0; }\n";

static bool loaded(void)
{
	void *lib = dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD);

	if (lib)
		dlclose(lib);
	return lib;
}

/* A driver that is installed is not loaded for those who do not use it. */
static void the_driver_is_not_loaded_from_here(void **state)
{
	uint64_t base;

	(void)state;
	assert_false(loaded());
	assert_int_equal(mc_cuda_dmabuf(FROM, PAGE, &base), -ENOENT);
	assert_false(loaded());
}

static int use_driver(void **state)
{
	*state = dlopen("libcuda.so.1", RTLD_NOW);
	return *state ? 0 : -1;
}

static int leave_driver(void **state)
{
	return dlclose(*state);
}

static uint64_t bytes_of(int fd)
{
	struct stat st;

	assert_int_equal(fstat(fd, &st), 0);
	return st.st_size;
}

static void other_memory_is_left_alone(void **state)
{
	uint64_t base;

	(void)state;
	assert_int_equal(mc_cuda_dmabuf((uintptr_t)&base, 8, &base),
			 -ENOENT);
}

static void which_gpu_it_is_is_known(void **state)
{
	(void)state;
	assert_int_equal(mc_cuda_device(FROM + LEN - 1), 3);
	assert_int_equal(mc_cuda_device(FROM + LEN), -1);
}

/* The CPU would not get far with it. */
static void without_rdma_it_is_not_registered(void **state)
{
	struct mc_options o = { .transports = "tcp" };
	struct mc_engine *e;

	(void)state;
	assert_int_equal(mc_open(&e, &o), 0);
	assert_int_equal(mc_buffer_reg(e, (void *)FROM, LEN, NULL,
				       MC_REMOTE_RW), -EOPNOTSUPP);
	assert_non_null(strstr(mc_errmsg(), "cuda:3"));
	assert_non_null(strstr(mc_errmsg(), "rdma"));
	mc_close(e);
}

static void whole_pages_are_asked_for(void **state)
{
	static const struct { uint64_t addr, len, base, bytes; } cases[] = {
		{ FROM, PAGE, FROM, PAGE },
		{ FROM, LEN, FROM, LEN },
		{ FROM + 100, 8, FROM, PAGE },
		{ FROM + 100, PAGE, FROM, 2 * PAGE },
		{ FROM + PAGE - 1, 2, FROM, 2 * PAGE },
		{ FROM + 3 * PAGE + 1, PAGE - 1, FROM + 3 * PAGE, PAGE },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		uint64_t base = 0;
		int fd = mc_cuda_dmabuf(cases[i].addr, cases[i].len, &base);

		assert_true(fd >= 0);
		assert_int_equal(base, cases[i].base);
		assert_int_equal(bytes_of(fd), cases[i].bytes);
		close(fd);
	}
}

static void a_refusal_is_told_in_the_words_of_the_driver(void **state)
{
	int *refuses = dlsym(*state, "cuda_refuses");
	uint64_t base;

	assert_non_null(refuses);
	*refuses = 1;
	assert_int_equal(mc_cuda_dmabuf(FROM, PAGE, &base), -EOPNOTSUPP);
	assert_non_null(strstr(mc_errmsg(), "CUDA_ERROR_NOT_SUPPORTED (801)"));
	*refuses = 0;
	/* Not all of it is there; the stand-in has no name for that. */
	assert_int_equal(mc_cuda_dmabuf(FROM, LEN + 1, &base),
			 -EOPNOTSUPP);
	assert_non_null(strstr(mc_errmsg(), "error (1)"));
}

/* Where libraries are looked for is settled when a program starts. */
static int start_again(const char *self)
{
	char dir[] = "/tmp/cuda_test.XXXXXX", cmd[200];
	FILE *cc;

	if (!mkdtemp(dir))
		return 1;
	snprintf(cmd, sizeof(cmd), "cc -shared -fPIC -w -o %s/libcuda.so.1 "
		 "-Wl,-soname,libcuda.so.1 -x c -", dir);
	cc = popen(cmd, "w");
	if (!cc || fputs(driver, cc) < 0 || pclose(cc))
		return 1;
	setenv("LD_LIBRARY_PATH", dir, 1);
	setenv("CUDA_TEST_DIR", dir, 1);
	execl("/proc/self/exe", self, NULL);
	return 1;
}

static int clean_up(void **state)
{
	char path[200];

	(void)state;
	snprintf(path, sizeof(path), "%s/libcuda.so.1",
		 getenv("CUDA_TEST_DIR"));
	unlink(path);
	return rmdir(getenv("CUDA_TEST_DIR"));
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_driver_is_not_loaded_from_here),
		cmocka_unit_test_setup_teardown(other_memory_is_left_alone,
						use_driver, leave_driver),
		cmocka_unit_test_setup_teardown(which_gpu_it_is_is_known,
						use_driver, leave_driver),
		cmocka_unit_test_setup_teardown(
			without_rdma_it_is_not_registered,
			use_driver, leave_driver),
		cmocka_unit_test_setup_teardown(whole_pages_are_asked_for,
						use_driver, leave_driver),
		cmocka_unit_test_setup_teardown(
			a_refusal_is_told_in_the_words_of_the_driver,
			use_driver, leave_driver),
	};

	(void)argc;
	if (!getenv("CUDA_TEST_DIR"))
		return start_again(argv[0]);
	return cmocka_run_group_tests_name("cuda", tests, NULL, clean_up);
}
