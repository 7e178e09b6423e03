/*
 * cuda.h - memory of GPUs: whose it is, and a way for devices to reach it. The
 * driver's library is used where the process has loaded it, and never loaded.
 */
#ifndef MC_CUDA_H
#define MC_CUDA_H

#include <stdint.h>

/* The GPU that has the memory at @addr, or -1: the CPU's, or not known. */
int mc_cuda_device(uint64_t addr);

/* A descriptor of the CUDA memory at [addr, addr+len), the caller's to close;
 * @base is the address that it begins with. -ENOENT: it is not CUDA's; another
 * error: it is, and there can be no descriptor. */
int mc_cuda_dmabuf(uint64_t addr, uint64_t len, uint64_t *base);

#endif
