/*
 * cuda.c - memory of GPUs: which GPU has it, and its dma-buf, which an RDMA
 * device can be told to read and write without help of a kernel module of the
 * GPU's.
 *
 * The driver's library is never loaded from here. A process that has CUDA
 * memory has loaded it, and one that has not is spared its threads and memory.
 * Its functions are few and their signatures fixed, so they stand here and no
 * headers of CUDA's are needed.
 */
#include "cuda.h"

#include "../base/err.h"

#include <dlfcn.h>
#include <errno.h>
#include <link.h>
#include <stdbool.h>
#include <stddef.h>
#include <unistd.h>

enum {
	CUDA_OK = 0,
	CUDA_ATTRIBUTE_MEMORY_TYPE = 2,
	CUDA_ATTRIBUTE_DEVICE = 9,
	CUDA_MEMORY_DEVICE = 2,
	CUDA_HANDLE_DMA_BUF_FD = 1,
};

struct cuda_lib {
	void *lib;
	int (*attribute)(void *out, int what, uint64_t ptr);
	int (*handle)(void *out, uint64_t ptr, size_t len, int kind,
		      unsigned long long flags);
	int (*error)(int code, const char **name);
};

static int cuda_count(struct dl_phdr_info *info, size_t size, void *out)
{
	(void)size;
	*(uint64_t *)out = info->dlpi_adds;
	return 1;			/* the first one is enough */
}

/* Asked each time, as the process may load it late; but to look for what is not
 * there costs hundreds of microseconds, so only if anything was loaded since it
 * was not. */
static bool cuda_open(struct cuda_lib *l)
{
	static uint64_t absent;		/* so many loads, and not it; atomic */
	uint64_t loads = 0;

	dl_iterate_phdr(cuda_count, &loads);
	if (loads == __atomic_load_n(&absent, __ATOMIC_RELAXED))
		return false;
	l->lib = dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD);
	if (!l->lib) {
		__atomic_store_n(&absent, loads, __ATOMIC_RELAXED);
		return false;
	}
	l->attribute = dlsym(l->lib, "cuPointerGetAttribute");
	l->handle = dlsym(l->lib, "cuMemGetHandleForAddressRange");
	l->error = dlsym(l->lib, "cuGetErrorName");
	return true;
}

static bool cuda_owns(const struct cuda_lib *l, uint64_t addr)
{
	unsigned type = 0;

	return l->attribute &&
	       l->attribute(&type, CUDA_ATTRIBUTE_MEMORY_TYPE, addr) ==
	       CUDA_OK && type == CUDA_MEMORY_DEVICE;
}

int mc_cuda_device(uint64_t addr)
{
	struct cuda_lib l = { 0 };
	int device = -1;

	if (!cuda_open(&l))
		return -1;
	if (cuda_owns(&l, addr) &&
	    l.attribute(&device, CUDA_ATTRIBUTE_DEVICE, addr) != CUDA_OK)
		device = 0;
	dlclose(l.lib);
	return device;
}

/* The driver takes whole pages of the host's. */
static int cuda_dmabuf(const struct cuda_lib *l, uint64_t addr, uint64_t len,
		       uint64_t *base)
{
	uint64_t page = sysconf(_SC_PAGESIZE);
	uint64_t end = (addr + len + page - 1) & ~(page - 1);
	const char *why = "error";
	int r, fd = -1;

	if (!l->handle)
		return mc_err(-EOPNOTSUPP, "the CUDA driver is older than "
			      "11.7");
	*base = addr & ~(page - 1);
	r = l->handle(&fd, *base, end - *base, CUDA_HANDLE_DMA_BUF_FD, 0);
	if (r == CUDA_OK && fd >= 0)
		return fd;
	if (l->error)
		l->error(r, &why);
	return mc_err(-EOPNOTSUPP, "cuMemGetHandleForAddressRange: %s (%d)",
		      why ? why : "error", r);
}

int mc_cuda_dmabuf(uint64_t addr, uint64_t len, uint64_t *base)
{
	struct cuda_lib l = { 0 };
	int r = -ENOENT;

	if (!cuda_open(&l))
		return r;
	if (cuda_owns(&l, addr))
		r = cuda_dmabuf(&l, addr, len, base);
	dlclose(l.lib);
	return r;
}
