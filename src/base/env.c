/* env.c - settings of the environment. */
#include "env.h"

#include <errno.h>
#include <stdlib.h>

long mc_env_number(const char *name, long min, long max, long otherwise)
{
	const char *text = getenv(name);
	char *end;
	long v;

	if (!text || !text[0])
		return otherwise;
	errno = 0;
	v = strtol(text, &end, 10);
	return errno || *end || v < min || v > max ? otherwise : v;
}
