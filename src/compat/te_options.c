/*
 * te_options.c - from the public engine's arguments, and the MC_* variables
 * that it reads, to struct mc_options.
 *
 * Names: with P2PHANDSHAKE a segment is called by its address, host:port, where
 * the host is the caller's and the port is free. With a metadata server it is
 * called what the caller says, and its address is that of an interface.
 */
#include "te.h"

#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

enum {
	OPTIONS_PORT_MIN = 15000, OPTIONS_PORT_MAX = 17000,
	OPTIONS_LEGACY_PORT = 12001,
	OPTIONS_TIMEOUT_MIN = 5,	/* seconds, as the public engine */
};

/* ---- the environment ------------------------------------------------ */

bool te_env_on(const char *name)
{
	const char *v = getenv(name);

	return v && *v && strcmp(v, "0") && strcasecmp(v, "false") &&
	       strcasecmp(v, "no") && strcasecmp(v, "off");
}

long te_env_number(const char *name, long min, long max, long otherwise)
{
	const char *v = getenv(name);
	char *end;
	long n;

	if (!v || !*v)
		return otherwise;
	n = strtol(v, &end, 10);
	if (*end || n > max)
		return otherwise;
	return n < min ? min : n;
}

static const char *options_env(const char *name)
{
	const char *v = getenv(name);

	return v && *v ? v : NULL;
}

/* ---- names ---------------------------------------------------------- */

/* The host of "host", "host:port", "[v6]:port" or a bare IPv6 address; the port
 * is 0 where there is none. */
static void options_split(const char *name, char *host, size_t size, int *port)
{
	const char *colon = strrchr(name, ':');
	int n = strlen(name);

	*port = 0;
	if (name[0] == '[') {
		n = strcspn(++name, "]");
		colon = name[n] && name[n + 1] == ':' ? name + n + 1 : NULL;
	} else if (colon && strchr(name, ':') == colon) {
		n = colon - name;
	} else {
		colon = NULL;
	}
	if (colon)
		*port = atoi(colon + 1);
	snprintf(host, size, "%.*s", n, name);
}

static void options_join(char *out, size_t size, const char *host, int port)
{
	bool v6 = strchr(host, ':');

	snprintf(out, size, port < 0 ? "%s%s%s" : "%s%s%s:%d", v6 ? "[" : "",
		 host, v6 ? "]" : "", port);
}

int te_options_listen(struct te_options *o, int port)
{
	int n = snprintf(NULL, 0, "[%s]:%d", o->listen_host, port);

	if (n >= (int)sizeof(o->listen))
		return te_err(-EINVAL, "host '%.80s...' is too long",
			      o->listen_host);
	options_join(o->listen, sizeof(o->listen), o->listen_host, port);
	o->mc.listen = o->listen;
	return 0;
}

static bool options_is_address(const char *host)
{
	unsigned char a[sizeof(struct in6_addr)];

	return inet_pton(AF_INET, host, a) == 1 || strchr(host, ':');
}

/* Where to listen. A name leads to one address here and may lead to another
 * one elsewhere, so it means all of them. */
static void options_place(struct te_options *o, const struct te_config *c)
{
	const char *bind = options_env("MC_TCP_BIND_ADDRESS");
	bool legacy = te_env_on("MC_LEGACY_RPC_PORT_BINDING");
	const char *from = bind;
	int port;

	options_split(c->name, o->host, sizeof(o->host), &port);
	if (!from && (o->p2p || legacy) && options_is_address(o->host))
		from = o->host;
	if (from)
		snprintf(o->listen_host, sizeof(o->listen_host), "%s", from);
	if (legacy)
		o->port = port ? port : te_env_number("MC_HANDSHAKE_PORT", 1,
						      65535,
						      OPTIONS_LEGACY_PORT);
	if (o->p2p || legacy)
		from = o->host;
	if (from && *from && strcmp(from, "0.0.0.0") && strcmp(from, "::")) {
		options_join(o->advertise, sizeof(o->advertise), from, -1);
		o->mc.advertise = o->advertise;
	}
	o->port_min = te_env_number("MC_MIN_RPC_PORT", 1, 65535,
				    OPTIONS_PORT_MIN);
	o->port_max = te_env_number("MC_MAX_RPC_PORT", 1, 65535,
				    OPTIONS_PORT_MAX);
	if (o->port_max < o->port_min)
		o->port_max = o->port_min;
}

/* ---- the metadata server -------------------------------------------- */

static void options_encode(char *out, size_t size, const char *text)
{
	static const char plain[] = "-._~0123456789abcdefghijklmnopqrstuvwxyz"
				    "ABCDEFGHIJKLMNOPQRSTUVWXYZ";
	size_t n = 0;

	for (; *text && n + 4 < size; text++)
		n += snprintf(out + n, size - n, strchr(plain, *text) ? "%c" :
			      "%%%02X", (unsigned char)*text);
	out[n] = 0;
}

/* A redis URL of ours carries what the public engine takes from variables. */
static void options_redis(char *out, size_t size, const char *rest)
{
	const char *user = options_env("MC_REDIS_USERNAME");
	const char *password = options_env("MC_REDIS_PASSWORD");
	const char *db = options_env("MC_REDIS_DB_INDEX");
	char u[256] = "", p[256] = "";

	if (strchr(rest, '@'))
		password = NULL;
	if (strchr(rest, '/'))
		db = NULL;
	options_encode(u, sizeof(u), password && user ? user : "");
	options_encode(p, sizeof(p), password ? password : "");
	snprintf(out, size, "redis://%s%s%s%s%s%s%s", u, password ? ":" : "",
		 p, password ? "@" : "", rest, db ? "/" : "", db ? db : "");
}

static int options_metadata(struct te_options *o, const char *conn)
{
	if (!conn || !*conn)
		return te_err(-EINVAL, "no metadata server is named: give its "
			      "URL, or P2PHANDSHAKE for none");
	o->p2p = !strcmp(conn, "P2PHANDSHAKE");
	if (o->p2p)
		return 0;
	if (!strncmp(conn, "redis://", 8))
		options_redis(o->registry, sizeof(o->registry), conn + 8);
	else
		snprintf(o->registry, sizeof(o->registry), "%s%s",
			 strstr(conn, "://") ? "" : "etcd://", conn);
	o->mc.registry = o->registry;
	return 0;
}

/* ---- transports ----------------------------------------------------- */

/* Is there a device that RDMA can use now? The message says why not. */
static bool options_rdma(void)
{
	struct mc_rdma_info d[16];
	int n = te_mc(mc_rdma_list(d, 16));

	for (int i = 0; i < n; i++)
		if (d[i].up && d[i].gid[0])
			return true;
	if (n >= 0)
		te_err(0, "no RDMA device is up");
	return false;
}

int te_protocol(const char *protocol, char note[TE_WHY_MAX])
{
	bool forced = te_env_on("MC_FORCE_TCP");
	char why[TE_WHY_MAX] = "not known here";

	if (!protocol || !*protocol || !strcmp(protocol, "tcp"))
		return 0;
	if (!strcmp(protocol, "rdma")) {
		if (!forced && options_rdma())
			return 0;
		snprintf(why, sizeof(why), "%s", te_why());
	}
	if (!forced && !te_env_on("MOONCAKE_FALLBACK"))
		return te_err(-EOPNOTSUPP, "protocol '%s': %.200s; "
			      "MOONCAKE_FALLBACK=1 or MC_FORCE_TCP=1 in the "
			      "environment takes tcp and shared memory instead",
			      protocol, why);
	snprintf(note, TE_WHY_MAX, "protocol '%s': using tcp and shared memory "
		 "instead, as %s says", protocol, forced ? "MC_FORCE_TCP" :
		 "MOONCAKE_FALLBACK");
	return 0;
}

/* NULL: all. */
static const char *options_transports(const char *protocol, bool rdma)
{
	const char *list = options_env("MOONCAKE_TRANSPORTS");
	bool tcp = te_env_on("MC_FORCE_TCP") ||
		   (protocol && !strcmp(protocol, "tcp"));

	/* By name, so that it is what strangers are told of. */
	return list ? list : tcp ? "local,shm,tcp" :
	       rdma ? "local,shm,rdma,tcp" : NULL;
}

/* An interface, or a device for RDMA where that is spoken. */
static bool options_is_device(const char *name, bool rdma)
{
	char path[128];

	snprintf(path, sizeof(path), "/sys/class/infiniband/%.60s", name);
	return if_nametoindex(name) || (rdma && !access(path, F_OK));
}

/* Of the devices named, those that there are and that are of use: programs name
 * them for RDMA, and are then told to use tcp. */
static void options_devices(struct te_options *o, bool rdma,
			    const char *devices)
{
	char copy[256], *save = NULL;

	snprintf(copy, sizeof(copy), "%s", devices ? devices : "");
	for (char *w = strtok_r(copy, ", ", &save); w;
	     w = strtok_r(NULL, ", ", &save)) {
		size_t n = strlen(o->devices);

		if (options_is_device(w, rdma))
			snprintf(o->devices + n, sizeof(o->devices) - n,
				 "%s%s", n ? "," : "", w);
	}
	if (o->devices[0])
		o->mc.devices = o->devices;
}

/* The public protocol has no authentication: what keeps strangers out of this
 * process turns it off, unless the environment asks for it by name. */
static void options_profile(struct te_options *o, const char *protocol,
			    bool rdma)
{
	bool closed = options_env("MOONCAKE_KEY_FILE") ||
		      options_env("MOONCAKE_TLS_CERT");
	const char *profile = options_env("MOONCAKE_PROFILE");
	const char *list = options_transports(protocol, rdma);

	o->mc.profile = profile ? profile : closed ? "native" : "v1";
	if (!list)
		return;
	/* Who is held to tcp may talk to the public engine all the same. */
	snprintf(o->transports, sizeof(o->transports), "%s%s", list,
		 strcmp(o->mc.profile, "native") ? ",v1" : "");
	o->mc.transports = o->transports;
}

static int options_name(struct te_options *o, const char *name)
{
	if (o->p2p)
		return 0;
	if (!name[0] || strlen(name) >= MC_NAME_MAX)
		return te_err(-EINVAL, "local server name '%.80s': expected 1 "
			      "to %d bytes", name, MC_NAME_MAX - 1);
	o->mc.name = name;
	return 0;
}

int te_options(struct te_options *o, const struct te_config *c,
	       char note[TE_WHY_MAX])
{
	int r = options_metadata(o, c->metadata);
	long s = te_env_number("MC_TRANSFER_TIMEOUT", OPTIONS_TIMEOUT_MIN,
			       86400, 0);
	bool rdma = c->protocol && !strcmp(c->protocol, "rdma");

	if (!r)
		r = te_protocol(c->protocol, note);
	if (!r)
		r = options_name(o, c->name);
	if (r < 0)
		return r;
	options_place(o, c);
	options_devices(o, rdma, c->devices);
	/* What is used instead has been noted. */
	options_profile(o, c->protocol, rdma && !note[0]);
	/* Unset: a request lives for as long as something of it moves. */
	o->mc.timeout_ms = s * 1000;
	return 0;
}
