/* env.h - settings of the environment. */
#ifndef MC_BASE_ENV_H
#define MC_BASE_ENV_H

/* The whole number that @name has, or @otherwise if it is unset, empty, outside
 * of @min to @max, or no number. */
long mc_env_number(const char *name, long min, long max, long otherwise);

#endif
