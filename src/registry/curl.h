/*
 * curl.h - libcurl, loaded when it is first needed: an engine with the peer
 * registry starts in half the time and memory without it.
 */
#ifndef MC_REGISTRY_CURL_H
#define MC_REGISTRY_CURL_H

#include "url.h"

#include <curl/curl.h>
#include <stdbool.h>

#define MC_CURL_FUNCTIONS(X) \
	X(global_init) X(free) X(url) X(url_cleanup) X(url_get) X(url_set) \
	X(easy_init) X(easy_cleanup) X(easy_reset) X(easy_setopt) \
	X(easy_getinfo) X(easy_perform) X(easy_strerror) \
	X(easy_send) X(easy_recv) \
	X(multi_init) X(multi_cleanup) X(multi_add_handle) \
	X(multi_remove_handle) X(multi_perform) X(multi_poll) \
	X(multi_info_read) X(slist_append) X(slist_free_all)

#define MC_CURL_FIELD(name) __typeof__(curl_##name) *name;

struct mc_curl {
	MC_CURL_FUNCTIONS(MC_CURL_FIELD)
};

/* Filled by mc_curl_load(), which every user calls first: 0, or -EOPNOTSUPP
 * with the reason. */
extern struct mc_curl mc_curl;
int mc_curl_load(void);

/* Options that all our handles have; @why gets what went wrong. */
void mc_curl_prepare(CURL *q, char why[CURL_ERROR_SIZE]);

/* The PEM files of a URL; "": none. */
void mc_curl_tls(CURL *q, const struct mc_registry_url *u);

/* What it means, as -errno, that a transfer ended without an answer. */
int mc_curl_errno(CURL *q, CURLcode code);

#endif
