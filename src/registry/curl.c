/* curl.c - libcurl, loaded when it is first needed; see curl.h. */
#include "curl.h"

#include "../base/err.h"

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>

static pthread_once_t curl_once = PTHREAD_ONCE_INIT;
static struct mc_curl curl_functions;
static char curl_why[128];

#define CURL_LOAD(name) \
	curl_functions.name = dlsym(lib, "curl_" #name); \
	missing |= !curl_functions.name;

static void curl_load(void)
{
	void *lib = dlopen("libcurl.so.4", RTLD_NOW);
	bool missing = false;
	CURLcode code;

	if (!lib) {
		snprintf(curl_why, sizeof(curl_why), "%s (install libcurl4)",
			 dlerror());
		return;
	}
	MC_CURL_FUNCTIONS(CURL_LOAD)
	if (missing) {
		snprintf(curl_why, sizeof(curl_why), "libcurl.so.4 is older "
			 "than 7.62");
		return;
	}
	code = curl_functions.global_init(CURL_GLOBAL_DEFAULT);
	if (code)
		snprintf(curl_why, sizeof(curl_why), "libcurl does not start: "
			 "%s", curl_functions.easy_strerror(code));
}

const struct mc_curl *mc_curl_get(void)
{
	pthread_once(&curl_once, curl_load);
	if (!curl_why[0])
		return &curl_functions;
	mc_err(-EOPNOTSUPP, "registry: %s", curl_why);
	return NULL;
}
