/*
 * fault.h - a decorator over any transport that makes things go wrong, driven
 * by a seed, for tests: mc_options.fault.
 */
#ifndef MC_FAULT_H
#define MC_FAULT_H

#include "transport.h"

/* How often, in per mille of slices (drop: of connects). */
struct mc_fault {
	uint64_t seed;
	unsigned delay;			/* held back for up to 30 ms */
	unsigned fail;			/* ended with -EIO, nothing moved */
	unsigned lose;			/* taken and never heard of again */
	unsigned stall;			/* the path stops for up to 700 ms */
	unsigned reorder;		/* ended after those posted later */
	unsigned drop;			/* the handshake is not answered */
	unsigned kill;			/* SIGKILL to process @pid */
	int pid;
};

/* "seed=7,delay=10,fail=5": the fields above. -EINVAL names the bad one. */
int mc_fault_parse(const char *spec, struct mc_fault *out);

/* @inner with faults: a transport of the same name whose context holds that of
 * @inner. Ends with its close(). */
int mc_fault_wrap(const struct mc_transport *inner, const struct mc_fault *f,
		  const struct mc_transport **out);

#endif
