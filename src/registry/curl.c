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
			 "than 7.66");
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

void mc_curl_prepare(CURL *q, char why[CURL_ERROR_SIZE])
{
	why[0] = 0;
	mc_curl.easy_setopt(q, CURLOPT_ERRORBUFFER, why);
	mc_curl.easy_setopt(q, CURLOPT_USERAGENT, "mooncake");
	/* No signals in other people's processes, and no proxy from the
	 * environment between the nodes of a cluster. */
	mc_curl.easy_setopt(q, CURLOPT_NOSIGNAL, 1L);
	mc_curl.easy_setopt(q, CURLOPT_NOPROXY, "*");
#if LIBCURL_VERSION_NUM >= 0x075700
	/* A deadline is kept even if a name server does not answer. */
	mc_curl.easy_setopt(q, CURLOPT_QUICK_EXIT, 1L);
#endif
}

void mc_curl_tls(CURL *q, const struct mc_registry_url *u)
{
	if (u->cacert[0])
		mc_curl.easy_setopt(q, CURLOPT_CAINFO, u->cacert);
	if (u->cert[0]) {
		mc_curl.easy_setopt(q, CURLOPT_SSLCERT, u->cert);
		mc_curl.easy_setopt(q, CURLOPT_SSLKEY, u->key);
	}
}

int mc_curl_errno(CURL *q, CURLcode code)
{
	long os_errno = 0;

	switch (code) {
	case CURLE_COULDNT_RESOLVE_HOST:
		return -EHOSTUNREACH;
	case CURLE_COULDNT_CONNECT:
		mc_curl.easy_getinfo(q, CURLINFO_OS_ERRNO, &os_errno);
		return os_errno ? -os_errno : -ECONNREFUSED;
	case CURLE_OPERATION_TIMEDOUT:
		return -ETIMEDOUT;
	case CURLE_GOT_NOTHING:
	case CURLE_RECV_ERROR:
	case CURLE_SEND_ERROR:
	case CURLE_PARTIAL_FILE:
		return -ECONNRESET;
	case CURLE_PEER_FAILED_VERIFICATION:
	case CURLE_SSL_CERTPROBLEM:
	case CURLE_SSL_CACERT_BADFILE:
		return -EACCES;
	case CURLE_URL_MALFORMAT:
		return -EINVAL;
	case CURLE_OUT_OF_MEMORY:
		return -ENOMEM;
	default:
		return -EPROTO;
	}
}
