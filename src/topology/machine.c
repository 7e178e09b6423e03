/* machine.c - what the engine asks of the machine it runs on. */
#include "topology.h"

#include "../base/err.h"

#include <mooncake.h>

#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum {
	MACHINE_BY_ADDR = 2,		/* MPOL_F_ADDR of get_mempolicy() */
	MACHINE_MASK = 1024,		/* bits, at least as the kernel has */
	MACHINE_WORD = 8 * sizeof(long),
};

/* The one node that the policy of memory at @addr names, or -1. */
static int machine_policy_node(const void *addr)
{
	unsigned long mask[MACHINE_MASK / MACHINE_WORD] = { 0 };
	int mode, node = -1;

	if (syscall(SYS_get_mempolicy, &mode, mask, MACHINE_MASK, addr,
		    MACHINE_BY_ADDR) < 0)
		return -1;
	for (int i = 0; i < MACHINE_MASK; i++) {
		if (!(mask[i / MACHINE_WORD] >> (i % MACHINE_WORD) & 1))
			continue;
		if (node >= 0)
			return -1;
		node = i;
	}
	return node;
}

int mc_topology_memory_node(const void *addr)
{
	/* Unlike get_mempolicy(), move_pages() does not fault the page in, nor
	 * take the zero page for one of the caller's. */
	uintptr_t mask = sysconf(_SC_PAGESIZE) - 1;
	void *page = (void *)((uintptr_t)addr & ~mask);
	int status = -1;

	if (syscall(SYS_move_pages, 0, 1ul, &page, NULL, &status, 0) == 0 &&
	    status >= 0)
		return status;
	return machine_policy_node(page);
}

static bool machine_routable(const struct sockaddr *sa)
{
	if (!sa)
		return false;
	if (sa->sa_family == AF_INET)
		return true;
	return sa->sa_family == AF_INET6 && !IN6_IS_ADDR_LINKLOCAL(
		&((const struct sockaddr_in6 *)sa)->sin6_addr);
}

static bool machine_has(char names[][32], int n, const char *name)
{
	for (int i = 0; i < n; i++)
		if (!strcmp(names[i], name))
			return true;
	return false;
}

int mc_topology_interfaces(char names[][32], int max)
{
	const unsigned want = IFF_UP | IFF_RUNNING;
	struct ifaddrs *ifs;
	int n = 0;

	if (getifaddrs(&ifs) < 0)
		return mc_syserr(-errno, "list of network interfaces");
	for (struct ifaddrs *i = ifs; i && n < max; i = i->ifa_next) {
		/* "eth0:1" is a label of an address of eth0. */
		int len = strcspn(i->ifa_name, ":");
		char name[IFNAMSIZ];

		if ((i->ifa_flags & want) != want ||
		    i->ifa_flags & IFF_LOOPBACK ||
		    !machine_routable(i->ifa_addr))
			continue;
		snprintf(name, sizeof(name), "%.*s", len, i->ifa_name);
		if (!machine_has(names, n, name))
			strcpy(names[n++], name);
	}
	freeifaddrs(ifs);
	return n;
}

static bool machine_append(char *text, size_t size, const char *ns)
{
	size_t len = strlen(text);
	ssize_t r = readlink(ns, text + len, size - len - 1);

	if (r <= 0)
		return false;
	text[len + r] = 0;
	return true;
}

uint64_t mc_topology_host_id(void)
{
	char text[256];
	int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
	ssize_t r;

	if (fd < 0)
		return 0;
	r = read(fd, text, 64);
	close(fd);
	if (r <= 0)
		return 0;
	text[r] = 0;
	if (!machine_append(text, sizeof(text), "/proc/self/ns/net") ||
	    !machine_append(text, sizeof(text), "/proc/self/ns/pid"))
		return 0;
	return mc_hash(text, strlen(text), 0);
}
