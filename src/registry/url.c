/*
 * url.c - the URL of a registry whose servers are named one by one.
 */
#include "url.h"

#include "query.h"

#include "../base/err.h"
#include "../base/net.h"
#include "../base/util.h"

#include <errno.h>
#include <strings.h>

/* Undo the percent encoding of @len bytes; @what is for the message. */
static int url_part(const char *text, size_t len, const char *what,
		    char out[MC_URL_PART])
{
	ssize_t n = mc_percent_decode(text, len, out, MC_URL_PART);

	if (n == -E2BIG)
		return mc_err(-EINVAL, "registry URL: the %s is longer than %d "
			      "bytes", what, MC_URL_PART - 1);
	if (n < 0)
		return mc_err(-EINVAL, "registry URL: the percent encoding of "
			      "the %s is broken", what);
	return 0;
}

/* "user:password"; a password alone is ":password". */
static int url_login(struct mc_registry_url *u, const char *text, size_t len)
{
	const char *colon = memchr(text, ':', len);
	size_t n = colon ? (size_t)(colon - text) : len;
	int r = url_part(text, n, "user", u->user);

	if (!r && colon)
		r = url_part(colon + 1, len - n - 1, "password", u->password);
	return r;
}

static int url_host(struct mc_registry_url *u, const char *text, size_t len,
		    int default_port)
{
	struct mc_net_name name;
	char host[MC_ADDR_MAX];
	int r;

	if (u->n_hosts == MC_URL_HOSTS)
		return mc_err(-EINVAL, "registry URL: more than %d servers",
			      MC_URL_HOSTS);
	if (!len || len >= sizeof(host))
		return mc_err(-EINVAL, "registry URL: a server is missing, or "
			      "its name too long: expected host:port");
	memcpy(host, text, len);
	host[len] = 0;
	r = mc_net_parse(host, default_port, &name);
	if (r < 0)
		return r;
	if (!name.host[0] || !name.port)
		return mc_err(-EINVAL, "registry URL: '%s' does not say where "
			      "the server is: expected host:port", host);
	return mc_net_join(name.host, name.port, u->hosts[u->n_hosts++]);
}

static int url_hosts(struct mc_registry_url *u, const char *text, size_t len,
		     int default_port)
{
	const char *end = text + len;
	int r;

	/* The public engine's lists have either sign between two. */
	for (;;) {
		size_t n = strcspn(text, ",;");

		n = mc_min(n, (size_t)(end - text));
		r = url_host(u, text, n, default_port);
		if (r < 0 || text + n == end)
			return r;
		text += n + 1;
	}
}

static int url_option(struct mc_registry_url *u, const char *text, size_t len)
{
	const struct {
		const char *name;
		char *out;
	} known[] = {
		{ "cacert=", u->cacert },
		{ "cert=", u->cert },
		{ "key=", u->key },
	};

	for (size_t i = 0; i < mc_array_len(known); i++) {
		size_t n = strlen(known[i].name);

		if (len >= n && !strncmp(text, known[i].name, n))
			return url_part(text + n, len - n, "name of a file",
					known[i].out);
	}
	return mc_err(-EINVAL, "registry URL: unknown option '%.*s': there are "
		      "cacert, cert and key", (int)mc_min(len, (size_t)20),
		      text);
}

static int url_options(struct mc_registry_url *u, const char *text)
{
	int r = 0;

	while (*text && !r) {
		size_t n = strcspn(text, "&");

		r = url_option(u, text, n);
		text += n + (text[n] == '&');
	}
	if (!r && (u->cacert[0] || u->cert[0] || u->key[0]) && !u->tls)
		r = mc_err(-EINVAL, "registry URL: certificates are for TLS, "
			   "which another scheme turns on: etcds, rediss");
	if (!r && !u->cert[0] != !u->key[0])
		r = mc_err(-EINVAL, "registry URL: cert and key go together");
	return r;
}

/* As many servers as fit; more are "...". */
static void url_show(struct mc_registry_url *u, const char *scheme, size_t len)
{
	size_t n = snprintf(u->shown, sizeof(u->shown), "%.*s://", (int)len,
			    scheme);

	for (int i = 0; i < u->n_hosts; i++) {
		if (n + strlen(u->hosts[i]) + 5 > sizeof(u->shown)) {
			strcpy(u->shown + n, "...");
			return;
		}
		n += sprintf(u->shown + n, "%s%s", i ? "," : "", u->hosts[i]);
	}
}

/* The scheme's length; 0: it is neither @plain nor that with an s. */
static size_t url_scheme(const char *url, const char *plain)
{
	size_t n = strlen(plain);

	if (strncasecmp(url, plain, n))
		return 0;
	n += (url[n] | 0x20) == 's';
	return strncmp(url + n, "://", 3) ? 0 : n;
}

/* What is between the scheme and the path. */
static int url_authority(struct mc_registry_url *u, const char *text,
			 size_t len, int default_port)
{
	const char *at = memrchr(text, '@', len);
	const char *hosts = at ? at + 1 : text;
	int r = at ? url_login(u, text, at - text) : 0;

	return r < 0 ? r :
	       url_hosts(u, hosts, text + len - hosts, default_port);
}

static int url_path(struct mc_registry_url *u, const char *text)
{
	size_t n = strcspn(text, "?#");
	int r = *text == '/' ? url_part(text + 1, n - 1, "path", u->path) : 0;

	if (r < 0)
		return r;
	if (strchr(text, '#'))
		return mc_err(-EINVAL, "registry URL: it has no fragment; a # "
			      "is written %%23");
	return url_options(u, text[n] ? text + n + 1 : "");
}

int mc_registry_url_parse(const char *url, const char *plain, int default_port,
			  struct mc_registry_url *u)
{
	size_t scheme = url_scheme(url, plain);
	const char *rest = url + scheme + 3;
	int r;

	memset(u, 0, sizeof(*u));
	if (!scheme)
		return mc_err(-EINVAL, "registry URL: expected %s://host:port",
			      plain);
	u->tls = scheme > strlen(plain);
	r = url_authority(u, rest, strcspn(rest, "/?#"), default_port);
	if (!r)
		r = url_path(u, rest + strcspn(rest, "/?#"));
	if (!r)
		url_show(u, url, scheme);
	return r;
}
