/* addr.c - addresses as text, to and from; see net.h. */
#include "net.h"

#include "err.h"
#include "util.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <string.h>
#include <sys/un.h>

#define ADDR_EXPECTED "expected host:port, [v6]:port or :port"

struct addr_parts {
	const char *host;
	size_t len;
	const char *port;		/* NULL: none */
	bool v6;
};

/* Is it an IPv6 address, with or without a scope? */
static bool addr_is_v6(const char *s, size_t len)
{
	const char *scope = memchr(s, '%', len);
	size_t n = scope ? (size_t)(scope - s) : len;
	char text[INET6_ADDRSTRLEN];
	struct in6_addr a;

	if (n >= sizeof(text) || (scope && n + 1 == len))
		return false;
	memcpy(text, s, n);
	text[n] = 0;
	return inet_pton(AF_INET6, text, &a) == 1;
}

static int addr_split_brackets(const char *text, struct addr_parts *p)
{
	const char *end = strchr(text, ']');

	if (!end || (end[1] && end[1] != ':'))
		return mc_err(-EINVAL, "address '%.80s': %s", text,
			      ADDR_EXPECTED);
	p->host = text + 1;
	p->len = end - p->host;
	p->port = end[1] ? end + 2 : NULL;
	p->v6 = addr_is_v6(p->host, p->len);
	if (!p->v6)
		return mc_err(-EINVAL, "address '%.80s': what is in brackets "
			      "is not an IPv6 address", text);
	return 0;
}

static int addr_split(const char *text, struct addr_parts *p)
{
	const char *colon = strchr(text, ':');
	const char *scope = strchr(text, '%');

	if (text[0] == '[')
		return addr_split_brackets(text, p);
	/* A bare IPv6 address has colons of its own, its scope has none. */
	if (colon && strchr(colon + 1, ':')) {
		p->v6 = true;
		colon = scope ? strchr(scope, ':') : NULL;
	}
	p->host = text;
	p->len = colon ? (size_t)(colon - text) : strlen(text);
	p->port = colon ? colon + 1 : NULL;
	if (p->v6 && !addr_is_v6(p->host, p->len))
		return mc_err(-EINVAL, "address '%.80s': %s", text,
			      ADDR_EXPECTED);
	return 0;
}

static bool addr_host_ok(const struct addr_parts *p)
{
	const char *more = p->v6 ? "._-:%" : "._-";

	if (p->len >= MC_HOST_MAX)
		return false;
	for (size_t i = 0; i < p->len; i++)
		if (!isalnum((unsigned char)p->host[i]) &&
		    !memchr(more, p->host[i], strlen(more)))
			return false;
	return true;
}

/* -1: not a port. */
static int addr_port(const char *s)
{
	int port = 0;

	if (!*s || strlen(s) > 5)
		return -1;
	for (; *s; s++) {
		if (*s < '0' || *s > '9')
			return -1;
		port = port * 10 + *s - '0';
	}
	return port <= 65535 ? port : -1;
}

int mc_net_parse(const char *text, int default_port, struct mc_net_name *out)
{
	struct addr_parts p = { 0 };
	int port = default_port;
	int r;

	if (!text || !text[0])
		return mc_err(-EINVAL, "empty address: " ADDR_EXPECTED);
	r = addr_split(text, &p);
	if (r < 0)
		return r;
	if (!addr_host_ok(&p))
		return mc_err(-EINVAL, "address '%.80s': '%.*s' is not a "
			      "host: " ADDR_EXPECTED, text,
			      (int)mc_min(p.len, (size_t)80), p.host);
	if (p.port)
		port = addr_port(p.port);
	else if (port < 0 && p.v6)
		return mc_err(-EINVAL, "address '%.80s': no port: with one, "
			      "IPv6 is written [host]:port", text);
	else if (port < 0)
		return mc_err(-EINVAL, "address '%.80s': no port: "
			      ADDR_EXPECTED, text);
	if (port < 0)
		return mc_err(-EINVAL, "address '%.80s': port '%.20s' is not "
			      "a number from 0 to 65535", text, p.port);
	memcpy(out->host, p.host, p.len);
	out->host[p.len] = 0;
	out->port = port;
	return 0;
}

int mc_net_join(const char *host, int port, char out[MC_ADDR_MAX])
{
	bool v6 = strchr(host, ':');
	int n = snprintf(out, MC_ADDR_MAX, "%s%s%s:%d", v6 ? "[" : "", host,
			 v6 ? "]" : "", port);

	if (n >= MC_ADDR_MAX)
		return mc_err(-EINVAL, "address '%.80s...' is longer than %d "
			      "characters", host, MC_ADDR_MAX - 1);
	return 0;
}

static void addr_format_v6(const struct sockaddr_in6 *sa, char *out)
{
	char text[INET6_ADDRSTRLEN] = "", scope[IF_NAMESIZE + 1] = "";

	if (IN6_IS_ADDR_V4MAPPED(&sa->sin6_addr)) {
		inet_ntop(AF_INET, sa->sin6_addr.s6_addr + 12, text,
			  sizeof(text));
		snprintf(out, MC_ADDR_MAX, "%s:%d", text,
			 ntohs(sa->sin6_port));
		return;
	}
	inet_ntop(AF_INET6, &sa->sin6_addr, text, sizeof(text));
	if (sa->sin6_scope_id) {
		scope[0] = '%';
		/* The interface may be gone: then its number. */
		if (!if_indextoname(sa->sin6_scope_id, scope + 1))
			snprintf(scope + 1, IF_NAMESIZE, "%u",
				 sa->sin6_scope_id);
	}
	snprintf(out, MC_ADDR_MAX, "[%s%s]:%d", text, scope,
		 ntohs(sa->sin6_port));
}

static void addr_format_unix(const struct sockaddr_un *sa, socklen_t len,
			     char *out)
{
	int n = (int)len - (int)offsetof(struct sockaddr_un, sun_path);

	if (n > 1 && !sa->sun_path[0])
		snprintf(out, MC_ADDR_MAX, "unix:@%.*s", mc_min(n - 1, 70),
			 sa->sun_path + 1);
	else if (n > 0)
		snprintf(out, MC_ADDR_MAX, "unix:%.*s", mc_min(n, 70),
			 sa->sun_path);
	else
		snprintf(out, MC_ADDR_MAX, "unix:");
}

void mc_net_format(const struct sockaddr *sa, socklen_t len,
		   char out[MC_ADDR_MAX])
{
	const struct sockaddr_in *v4 = (const void *)sa;
	char text[INET_ADDRSTRLEN] = "";

	switch (sa->sa_family) {
	case AF_INET:
		inet_ntop(AF_INET, &v4->sin_addr, text, sizeof(text));
		snprintf(out, MC_ADDR_MAX, "%s:%d", text, ntohs(v4->sin_port));
		return;
	case AF_INET6:
		addr_format_v6((const void *)sa, out);
		return;
	case AF_UNIX:
		addr_format_unix((const void *)sa, len, out);
		return;
	}
	snprintf(out, MC_ADDR_MAX, "family %d", sa->sa_family);
}

void mc_net_local_name(int fd, char out[MC_ADDR_MAX])
{
	struct sockaddr_storage ss = { 0 };
	socklen_t len = sizeof(ss);

	out[0] = 0;
	if (!getsockname(fd, (struct sockaddr *)&ss, &len))
		mc_net_format((struct sockaddr *)&ss, len, out);
}

void mc_net_peer_name(int fd, char out[MC_ADDR_MAX])
{
	struct sockaddr_storage ss = { 0 };
	socklen_t len = sizeof(ss);

	if (getpeername(fd, (struct sockaddr *)&ss, &len))
		snprintf(out, MC_ADDR_MAX, "the peer");
	else if (ss.ss_family == AF_UNIX)
		snprintf(out, MC_ADDR_MAX, "process %d", mc_net_peer_pid(fd));
	else
		mc_net_format((struct sockaddr *)&ss, len, out);
}
