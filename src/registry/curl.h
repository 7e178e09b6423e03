/*
 * curl.h - libcurl, loaded when it is first needed: an engine with the peer
 * registry starts in half the time and memory without it.
 */
#ifndef MC_REGISTRY_CURL_H
#define MC_REGISTRY_CURL_H

#include <curl/curl.h>
#include <stdbool.h>

#define MC_CURL_FUNCTIONS(X) \
	X(global_init) X(free) X(url) X(url_cleanup) X(url_get) X(url_set) \
	X(easy_init) X(easy_cleanup) X(easy_reset) X(easy_setopt) \
	X(easy_getinfo) X(easy_perform) X(easy_strerror) \
	X(slist_append) X(slist_free_all)

#define MC_CURL_FIELD(name) __typeof__(curl_##name) *name;

struct mc_curl {
	MC_CURL_FUNCTIONS(MC_CURL_FIELD)
};

/* Filled by mc_curl_load(), which every user calls first: 0, or -EOPNOTSUPP
 * with the reason. */
extern struct mc_curl mc_curl;
int mc_curl_load(void);

#endif
