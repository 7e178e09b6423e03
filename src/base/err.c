/* err.c - the error message of a thread, and log lines no caller would see. */
#include "err.h"

#include <mooncake.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static __thread char message[MC_WHY_MAX * 2];

const char *mc_errmsg(void)
{
	return message[0] ? message : "no error";
}

int mc_err(int err, const char *fmt, ...)
{
	char text[sizeof(message)];
	va_list ap;

	/* A message may quote the one before it. */
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	memcpy(message, text, sizeof(message));
	return err;
}

int mc_syserr(int err, const char *fmt, ...)
{
	char text[sizeof(message)];
	char why[128] = "";
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	return mc_err(err, "%s: %s", text,
		      strerror_r(-err, why, sizeof(why)));
}

static enum mc_level level_of(const char *name)
{
	static const char *const names[] = { "error", "warn", "info", "debug" };

	for (int i = 0; name && i < 4; i++)
		if (!strcmp(name, names[i]))
			return i;
	return MC_WARN;
}

void mc_log(enum mc_level level, const char *area, const char *fmt, ...)
{
	char line[512];
	int n;
	va_list ap;

	if (level > level_of(getenv("MC_LOG")))
		return;
	n = snprintf(line, sizeof(line), "mooncake: %s: ", area);
	va_start(ap, fmt);
	n += vsnprintf(line + n, sizeof(line) - n - 1, fmt, ap);
	va_end(ap);
	if (n > (int)sizeof(line) - 2)
		n = sizeof(line) - 2;
	line[n++] = '\n';
	if (write(STDERR_FILENO, line, n) < 0)
		return;
}
