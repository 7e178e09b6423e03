/* err.h - the error message of a thread, and log lines no caller would see. */
#ifndef MC_BASE_ERR_H
#define MC_BASE_ERR_H

#include <stdarg.h>

/* Write the thread's message and return @err (a negative errno). Called by the
 * function that decides the error; those above it only pass it on. */
int mc_err(int err, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

/* The same with ": <strerror>" appended. */
int mc_syserr(int err, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

enum mc_level { MC_ERROR, MC_WARN, MC_INFO, MC_DEBUG };

/* One line on stderr, "mooncake: tcp: ...", if MC_LOG (error, warn, info,
 * debug; default warn) admits @level. Only for what no caller will see. */
void mc_log(enum mc_level level, const char *area, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

#endif
