/* curl.c - libcurl, loaded when it is first needed; see curl.h. */
#include "curl.h"

#include "../base/err.h"

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>

static pthread_once_t curl_once = PTHREAD_ONCE_INIT;
struct mc_curl mc_curl;
static char curl_why[128];

#define CURL_LOAD(name) \
	mc_curl.name = dlsym(lib, "curl_" #name); \
	missing |= !mc_curl.name;

static void curl_load_once(void)
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
	code = mc_curl.global_init(CURL_GLOBAL_DEFAULT);
	if (code)
		snprintf(curl_why, sizeof(curl_why), "libcurl does not start: "
			 "%s", mc_curl.easy_strerror(code));
}

int mc_curl_load(void)
{
	pthread_once(&curl_once, curl_load_once);
	return curl_why[0] ? mc_err(-EOPNOTSUPP, "registry: %s", curl_why) : 0;
}
