/* te_error.c - the thread's message, the public numbers, the log. */
#include "te.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static __thread char te_message[TE_WHY_MAX];

const char *te_why(void)
{
	return te_message[0] ? te_message : "no error";
}

int te_err(int err, const char *fmt, ...)
{
	char text[TE_WHY_MAX];
	va_list ap;

	/* A message may quote the one before it. */
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	memcpy(te_message, text, sizeof(text));
	return err;
}

int64_t te_mc(int64_t err)
{
	if (err < 0)
		snprintf(te_message, sizeof(te_message), "%s", mc_errmsg());
	return err;
}

/* error.h and common/base/status.h of the public engine have these numbers;
 * they are equal but for the sign and one value. */
int te_code(int err)
{
	switch (-err) {
	case 0: return 0;
	case EINVAL: case EMSGSIZE: return -1;
	case ENOBUFS: case EAGAIN: return -2;
	case ENOENT: case EFAULT: return -3;
	case EBUSY: return -4;
	case ENODEV: return -6;
	case EEXIST: return -7;
	case ECONNREFUSED: case ECONNRESET: case ETIMEDOUT: case EPIPE:
	case EHOSTUNREACH: case ENETUNREACH: case EADDRINUSE:
	case EADDRNOTAVAIL: return -102;
	case EACCES: case EPERM: case EPROTO: case EBADMSG: return -104;
	case ESTALE: return -201;
	case ESHUTDOWN: case ECANCELED: return -202;
	case ENOMEM: return -302;
	case ENOSYS: case EOPNOTSUPP: return -303;
	default: return -200;
	}
}

int te_status_code(int err)
{
	int code = -te_code(err);

	return code == 303 ? 999 : code;
}

void te_log(const char *what, const char *why)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	static char last[TE_WHY_MAX + 64];
	static uint64_t when;
	char line[sizeof(last)];
	uint64_t now = mc_now_ns();
	bool again;
	int n = snprintf(line, sizeof(line) - 1, "mooncake: %s: %s", what,
			 why);

	if (n > (int)sizeof(line) - 2)
		n = sizeof(line) - 2;
	/* Some callers try the same thing in a loop. */
	pthread_mutex_lock(&lock);
	again = !strcmp(line, last) && now - when < 1000000000ull;
	if (!again) {
		snprintf(last, sizeof(last), "%s", line);
		when = now;
	}
	pthread_mutex_unlock(&lock);
	line[n++] = '\n';
	if (!again && write(STDERR_FILENO, line, n) < 0)
		return;
}
