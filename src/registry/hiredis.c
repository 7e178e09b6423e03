/* hiredis.c - hiredis, loaded when it is first needed; see hiredis.h. */
#include "hiredis.h"

#include "../base/err.h"

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>

static pthread_once_t hiredis_once = PTHREAD_ONCE_INIT;
struct mc_hiredis mc_hiredis;
static char hiredis_why[160];

enum { HIREDIS_ARRAY_MAX = 1 << 20 };	/* elements */

#if HIREDIS_MAJOR < 1
typedef int hiredis_count;
#else
typedef size_t hiredis_count;
#endif

static redisReplyObjectFunctions hiredis_objects;
static void *(*hiredis_array)(const redisReadTask *task, hiredis_count n);

static void *hiredis_small_array(const redisReadTask *task, hiredis_count n)
{
	return n <= HIREDIS_ARRAY_MAX ? hiredis_array(task, n) : NULL;
}

/* All replies are made as by default, but for arrays. */
static void hiredis_limit(void)
{
	redisReader *reader = mc_hiredis.redisReaderCreate();

	if (!reader) {
		snprintf(hiredis_why, sizeof(hiredis_why), "out of memory");
		return;
	}
	hiredis_objects = *reader->fn;
	hiredis_array = hiredis_objects.createArray;
	hiredis_objects.createArray = hiredis_small_array;
	mc_hiredis.redisReaderFree(reader);
}

redisReader *mc_hiredis_reader(void)
{
	redisReader *reader = mc_hiredis.redisReaderCreate();

	if (reader)
		reader->fn = &hiredis_objects;
	return reader;
}

/* The layout of a reply is that of the headers we were built with. */
#define HIREDIS_TEXT(soname) #soname
#define HIREDIS_FILE(soname) "libhiredis.so." HIREDIS_TEXT(soname)

#define HIREDIS_LOAD(name) \
	mc_hiredis.name = dlsym(lib, #name); \
	missing |= !mc_hiredis.name;

static void hiredis_load_once(void)
{
	void *lib = dlopen(HIREDIS_FILE(HIREDIS_SONAME), RTLD_NOW);
	bool missing = false;

	if (!lib) {
		snprintf(hiredis_why, sizeof(hiredis_why), "%s (install "
			 "hiredis)", dlerror());
		return;
	}
	MC_HIREDIS_FUNCTIONS(HIREDIS_LOAD)
	if (missing)
		snprintf(hiredis_why, sizeof(hiredis_why), "%s is not hiredis",
			 HIREDIS_FILE(HIREDIS_SONAME));
	else
		hiredis_limit();
}

int mc_hiredis_load(void)
{
	pthread_once(&hiredis_once, hiredis_load_once);
	return hiredis_why[0] ? mc_err(-EOPNOTSUPP, "registry: %s",
				       hiredis_why) : 0;
}
