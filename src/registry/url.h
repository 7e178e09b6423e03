/*
 * url.h - the URL of a registry whose servers are named one by one:
 *
 *	scheme://[[user]:password@]host[:port][,host[:port]...][/path][?options]
 *
 * User, password, path and options may be percent-encoded, and must be where
 * they have signs that mean something here. The options are PEM files for TLS:
 * cacert, who signs the server's certificate (without it, whom the system
 * trusts), and cert and key, which we show.
 */
#ifndef MC_REGISTRY_URL_H
#define MC_REGISTRY_URL_H

#include <mooncake.h>

enum {
	MC_URL_HOSTS = 16,		/* most servers in one URL */
	MC_URL_PART = 512,		/* longest part, with its final zero */
};

struct mc_registry_url {
	char hosts[MC_URL_HOSTS][MC_ADDR_MAX];	/* "host:port" */
	int n_hosts;
	char user[MC_URL_PART];		/* "": none, and so below */
	char password[MC_URL_PART];
	char path[MC_URL_PART];		/* without the slash before it */
	char cacert[MC_URL_PART];
	char cert[MC_URL_PART];
	char key[MC_URL_PART];
	bool tls;			/* the scheme ends with an s for it */
	char shown[MC_WHY_MAX / 2];	/* for messages: no password */
};

/* Take @url apart. It may hold a password, so messages do not repeat it.
 * -EINVAL: it is not one. @plain is the scheme that is without TLS. */
int mc_registry_url_parse(const char *url, const char *plain, int default_port,
			  struct mc_registry_url *out);

#endif
