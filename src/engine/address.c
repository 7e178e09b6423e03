/*
 * address.c - under which addresses peers reach an engine: the one it is known
 * by, and one for each interface that its options name.
 */
#include "engine.h"

#include "../base/net.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>

/* The address as text, "" for what other hosts cannot reach. */
static void address_text(const struct ifaddrs *i, char *out, size_t size)
{
	struct sockaddr_in *v4 = (void *)i->ifa_addr;
	struct sockaddr_in6 *v6 = (void *)i->ifa_addr;

	out[0] = 0;
	if (!i->ifa_addr || !(i->ifa_flags & IFF_UP))
		return;
	if (v4->sin_family == AF_INET)
		inet_ntop(AF_INET, &v4->sin_addr, out, size);
	else if (v4->sin_family == AF_INET6 &&
		 !IN6_IS_ADDR_LINKLOCAL(&v6->sin6_addr))
		inet_ntop(AF_INET6, &v6->sin6_addr, out, size);
}

/* How good an address is to be known by: 0 not at all. */
static int address_rank(const struct mc_engine *e, const struct ifaddrs *i)
{
	const char *devices = e->opts.devices;
	int rank = 1;

	if (devices && engine_listed(devices, i->ifa_name))
		rank += 4;
	if (!(i->ifa_flags & IFF_LOOPBACK))
		rank += 2;
	return rank + (i->ifa_addr->sa_family == AF_INET);
}

/* A socket that listens everywhere has no address to tell: take the best one
 * of the interfaces. */
static void address_choose(struct mc_engine *e, char *host, size_t size)
{
	struct ifaddrs *all, *i;
	char text[INET6_ADDRSTRLEN];
	int best = 0;

	mc_copy_to(host, size, "127.0.0.1");
	if (getifaddrs(&all) < 0)
		return;
	for (i = all; i; i = i->ifa_next) {
		address_text(i, text, sizeof(text));
		if (!text[0] || address_rank(e, i) <= best)
			continue;
		best = address_rank(e, i);
		mc_copy_to(host, size, text);
	}
	freeifaddrs(all);
}

static bool address_is_any(const char *host)
{
	return !host[0] || !strcmp(host, "::") || !strcmp(host, "0.0.0.0");
}

/* What peers are told: the advertised host, with our port if it has none. */
int engine_address(struct mc_engine *e)
{
	struct mc_net_name actual, name;
	int r = mc_net_parse(mc_server_addr(e->server), 0, &actual);

	if (r < 0)
		return r;
	name = actual;
	if (e->opts.advertise)
		r = mc_net_parse(e->opts.advertise, actual.port, &name);
	else if (address_is_any(actual.host))
		address_choose(e, name.host, sizeof(name.host));
	return r < 0 ? r : mc_net_join(name.host, name.port, e->addr);
}

/* The addresses of the interfaces named in the options, for peers that want
 * a rail to each. */
void engine_devices(struct mc_engine *e)
{
	struct ifaddrs *all, *i;
	struct mc_net_name own;
	char host[INET6_ADDRSTRLEN], addr[MC_ADDR_MAX];

	if (!e->opts.devices || getifaddrs(&all) < 0)
		return;
	mc_net_parse(e->addr, 0, &own);
	for (i = all; i; i = i->ifa_next) {
		size_t n;

		address_text(i, host, sizeof(host));
		if (!host[0] || i->ifa_addr->sa_family != AF_INET ||
		    !engine_listed(e->opts.devices, i->ifa_name) ||
		    mc_net_join(host, own.port, addr) < 0)
			continue;
		n = strlen(addr) + 1;
		if (e->addrs_len + n > sizeof(e->addrs))
			break;
		memcpy(e->addrs + e->addrs_len, addr, n);
		e->addrs_len += n;
	}
	freeifaddrs(all);
}
