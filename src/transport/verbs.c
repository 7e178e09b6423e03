/*
 * verbs.c - libibverbs by dlopen, and the devices that it finds; see verbs.h.
 *
 * What the public Mooncake's environment says holds here too: MC_IB_PORT,
 * MC_MTU and MC_GID_INDEX (or NCCL_IB_GID_INDEX).
 */
#include "verbs.h"

#include "../base/env.h"
#include "../base/err.h"
#include "../base/util.h"

#include <mooncake.h>

#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

enum { VERBS_TABLE = 256 };		/* GIDs looked at */

static pthread_once_t verbs_once = PTHREAD_ONCE_INIT;
struct mc_verbs mc_verbs;
static char verbs_why[160];

#define VERBS_LOAD(name) \
	mc_verbs.name = dlsym(lib, "ibv_" #name); \
	missing = mc_verbs.name ? missing : "ibv_" #name;

static void verbs_load_once(void)
{
	void *lib = dlopen("libibverbs.so.1", RTLD_NOW);
	const char *missing = NULL;

	if (!lib) {
		snprintf(verbs_why, sizeof(verbs_why), "%s (install "
			 "libibverbs1 and ibverbs-providers)", dlerror());
		return;
	}
	MC_VERBS_FUNCTIONS(VERBS_LOAD)
	mc_verbs.query_gid_table = dlsym(lib, "_ibv_query_gid_table");
	if (!mc_verbs.query_gid_table)
		missing = "ibv_query_gid_table";
	mc_verbs.reg_dmabuf_mr = dlsym(lib, "ibv_reg_dmabuf_mr");
	if (missing)
		snprintf(verbs_why, sizeof(verbs_why), "libibverbs.so.1 has "
			 "no %s: it is older than rdma-core 32", missing);
	else
		/* A no-op where the kernel copies pinned pages on fork. */
		mc_verbs.fork_init();
}

int mc_verbs_load(void)
{
	pthread_once(&verbs_once, verbs_load_once);
	return verbs_why[0] ? mc_err(-EOPNOTSUPP, "%s", verbs_why) : 0;
}

/* ---- GIDs ----------------------------------------------------------- */

static bool verbs_gid_is_v4(const uint8_t raw[16])
{
	static const uint8_t head[12] = { [10] = 0xff, [11] = 0xff };

	return !memcmp(raw, head, sizeof(head));
}

/* Interfaces of containers' overlay networks: not what hosts meet on. */
static bool verbs_overlay(const char *ndev)
{
	static const char *const names[] = { "flannel", "cni", "calico",
					     "vxlan", "docker", "tunl0" };

	for (size_t i = 0; i < mc_array_len(names); i++)
		if (!strncmp(ndev, names[i], strlen(names[i])))
			return true;
	return false;
}

static bool verbs_private(const uint8_t v4[4])
{
	return v4[0] == 10 || (v4[0] == 172 && (v4[1] & 0xf0) == 16) ||
	       (v4[0] == 100 && (v4[1] & 0xc0) == 64);
}

int mc_verbs_gid_rank(const uint8_t raw[16], int type, const char *ndev)
{
	static const uint8_t zero[16];
	bool v4 = verbs_gid_is_v4(raw), net = ndev[0], degraded;
	int class;

	if (!memcmp(raw, zero, 16) || type == IBV_GID_TYPE_ROCE_V1)
		return -1;
	if (type == IBV_GID_TYPE_IB)
		return 0;
	degraded = verbs_overlay(ndev) ||
		   (raw[0] == 0xfe && (raw[1] & 0xc0) == 0x80) ||
		   (v4 && raw[12] == 169 && raw[13] == 254);
	if (degraded)
		class = net ? 3 : 5;
	else if (v4 && verbs_private(raw + 12))
		class = net ? 2 : 4;
	else
		class = net ? 0 : 1;
	return 2 * class + !v4;
}

bool mc_verbs_gid_near(const uint8_t a[16], const uint8_t b[16])
{
	bool v4 = verbs_gid_is_v4(a);

	/* A /24, or a subnet of InfiniBand or IPv6. */
	return v4 == verbs_gid_is_v4(b) && !memcmp(a, b, v4 ? 15 : 8);
}

int mc_verbs_port_gid(const struct verbs_port *p, const uint8_t far[16],
		      bool near)
{
	for (int i = 0; i < p->n_gids; i++) {
		const uint8_t *g = p->gids[i].gid.raw;

		if (mc_verbs_gid_near(far, g) || (!near && !memcmp(far, g, 2)))
			return i;
	}
	return -1;
}

void mc_verbs_gid_text(const uint8_t raw[16], char out[VERBS_GID_TEXT])
{
	bool v4 = verbs_gid_is_v4(raw);

	inet_ntop(v4 ? AF_INET : AF_INET6, v4 ? raw + 12 : raw, out,
		  VERBS_GID_TEXT);
}

/* Keep the best, in order; equals as they come. */
static void verbs_gid_add(struct verbs_port *p, const struct verbs_gid *g)
{
	int at = p->n_gids;

	while (at > 0 && p->gids[at - 1].rank > g->rank)
		at--;
	if (at == VERBS_GIDS)
		return;
	p->n_gids = mc_min(p->n_gids + 1, VERBS_GIDS);
	memmove(&p->gids[at + 1], &p->gids[at],
		(p->n_gids - at - 1) * sizeof(*g));
	p->gids[at] = *g;
}

static void verbs_gid_consider(struct verbs_port *p,
			       const struct ibv_gid_entry *e, int only)
{
	struct verbs_gid g = { .gid = e->gid, .index = e->gid_index };
	char ndev[IF_NAMESIZE] = "";

	if (e->port_num != p->num || (only >= 0 && g.index != only))
		return;
	if (e->ndev_ifindex && !if_indextoname(e->ndev_ifindex, ndev))
		ndev[0] = 0;
	g.rank = mc_verbs_gid_rank(e->gid.raw, e->gid_type, ndev);
	/* Who asks for one by its index gets it, whatever it is. */
	if (g.rank >= 0 || only >= 0)
		verbs_gid_add(p, &g);
}

static int verbs_gids(const struct verbs_dev *d, struct verbs_port *p)
{
	struct ibv_gid_entry *e = calloc(VERBS_TABLE, sizeof(*e));
	int only = mc_env_number("MC_GID_INDEX", 0, 65535,
				mc_env_number("NCCL_IB_GID_INDEX", 0, 65535,
					     -1));
	ssize_t n;

	if (!e)
		return mc_err(-ENOMEM, "out of memory");
	n = mc_verbs.query_gid_table(d->ctx, e, VERBS_TABLE, 0, sizeof(*e));
	for (ssize_t i = 0; i < n; i++)
		verbs_gid_consider(p, &e[i], only);
	free(e);
	if (n < 0)
		return mc_syserr(n, "%s: reading its GIDs", d->name);
	if (p->n_gids)
		return 0;
	if (only >= 0)
		return mc_err(-ENODEV, "%s port %d has no GID %d, which "
			      "MC_GID_INDEX asks for", d->name, p->num, only);
	return mc_err(-EADDRNOTAVAIL, "%s port %d has no usable GID: its "
		      "interface needs an address", d->name, p->num);
}

/* ---- ports ---------------------------------------------------------- */

static int verbs_query_port(struct ibv_context *ctx, uint8_t num,
			    struct ibv_port_attr *out)
{
	struct verbs_context *v = verbs_get_ctx_op(ctx, query_port);

	memset(out, 0, sizeof(*out));
	return v ? v->query_port(ctx, num, out, sizeof(*out)) : EOPNOTSUPP;
}

/* Lanes and the rate of each, as the InfiniBand specification numbers them. */
static uint64_t verbs_bw(const struct ibv_port_attr *a)
{
	static const struct { int code, mbps; } speeds[] = {
		{ 1, 2500 }, { 2, 5000 }, { 4, 10000 }, { 8, 10000 },
		{ 16, 14000 }, { 32, 25000 }, { 64, 50000 }, { 128, 100000 },
	};
	uint64_t mbps = 0;
	int lanes = a->active_width == 2 ? 4 : a->active_width == 4 ? 8 :
		    a->active_width == 8 ? 12 : a->active_width == 16 ? 2 : 1;

	for (size_t i = 0; i < mc_array_len(speeds); i++)
		if (speeds[i].code == a->active_speed)
			mbps = speeds[i].mbps;
	return mbps * lanes * 125000;
}

int mc_verbs_port(const struct verbs_dev *d, struct verbs_port *out)
{
	struct ibv_port_attr a;
	int r = verbs_query_port(d->ctx, d->port, &a);

	if (r)
		return mc_syserr(-r, "%s port %d", d->name, d->port);
	*out = (struct verbs_port){
		.num = d->port, .up = a.state == IBV_PORT_ACTIVE,
		.ethernet = a.link_layer == IBV_LINK_LAYER_ETHERNET,
		.mtu = mc_env_number("MC_MTU", 256, 4096, 4096),
		.lid = a.lid, .bw = verbs_bw(&a),
	};
	out->mtu = mc_min(out->mtu, 128 << a.active_mtu);
	return verbs_gids(d, out);
}

/* The port that the environment names, or the first that is up. */
static uint8_t verbs_choose_port(struct ibv_context *ctx, int n)
{
	struct ibv_port_attr a;
	int num = mc_env_number("MC_IB_PORT", 1, n, 0);

	for (int i = 1; !num && i <= n; i++)
		if (!verbs_query_port(ctx, i, &a) &&
		    a.state == IBV_PORT_ACTIVE)
			num = i;
	return num ? num : 1;
}

/* ---- devices -------------------------------------------------------- */

bool mc_verbs_is_device(const char *name)
{
	char path[96];

	if (!name[0] || name[0] == '.' || strchr(name, '/'))
		return false;
	snprintf(path, sizeof(path), "/sys/class/infiniband/%.60s", name);
	return !access(path, F_OK);
}

static bool verbs_listed(const char *list, const char *name)
{
	size_t n = strlen(name);

	for (const char *at = list; (at = strstr(at, name)); at += n)
		if ((at == list || strchr(", ", at[-1])) &&
		    (!at[n] || strchr(", ", at[n])))
			return true;
	return false;
}

/* Does the list speak of RDMA devices at all? */
static bool verbs_chosen(const char *list, struct ibv_device **devs, int n)
{
	for (int i = 0; list && i < n; i++)
		if (verbs_listed(list, mc_verbs.get_device_name(devs[i])))
			return true;
	return false;
}

static int verbs_open_one(struct ibv_device *dev, struct verbs_dev *out)
{
	const char *name = mc_verbs.get_device_name(dev);
	struct ibv_context *ctx = mc_verbs.open_device(dev);
	int r;

	if (!ctx)
		return mc_syserr(errno ? -errno : -EIO, "%s cannot be opened",
				 name);
	memset(out, 0, sizeof(*out));
	mc_copy(out->name, name);
	r = mc_verbs.query_device(ctx, &out->attr);
	if (r) {
		mc_verbs.close_device(ctx);
		return mc_syserr(-r, "%s", name);
	}
	/* Its events are looked at, not waited for. */
	fcntl(ctx->async_fd, F_SETFL,
	      fcntl(ctx->async_fd, F_GETFL) | O_NONBLOCK);
	out->ctx = ctx;
	out->port = verbs_choose_port(ctx, out->attr.phys_port_cnt);
	return 0;
}

int mc_verbs_open(struct verbs_dev *out, int max, const char *list)
{
	struct ibv_device **devs;
	int total = 0, n = 0, r = mc_verbs_load();
	bool chosen;

	if (r < 0)
		return r;
	devs = mc_verbs.get_device_list(&total);
	if (!devs || !total) {
		if (devs)
			mc_verbs.free_device_list(devs);
		return mc_err(-EOPNOTSUPP, "this machine has no RDMA device");
	}
	chosen = verbs_chosen(list, devs, total);
	for (int i = 0; i < total && n < max; i++) {
		if (chosen && !verbs_listed(list,
					    mc_verbs.get_device_name(devs[i])))
			continue;
		r = verbs_open_one(devs[i], &out[n]);
		if (r < 0)
			mc_log(MC_INFO, "rdma", "%s", mc_errmsg());
		else
			n++;
	}
	mc_verbs.free_device_list(devs);
	return n ? n : mc_err(-EOPNOTSUPP, "%s", mc_errmsg());
}

void mc_verbs_close(struct verbs_dev *d)
{
	if (d->ctx)
		mc_verbs.close_device(d->ctx);
	d->ctx = NULL;
}

bool mc_verbs_on_demand(const struct verbs_dev *d)
{
	const uint32_t need = IBV_ODP_SUPPORT_READ | IBV_ODP_SUPPORT_WRITE;
	struct verbs_context *v = verbs_get_ctx_op(d->ctx, query_device_ex);
	struct ibv_device_attr_ex a = { 0 };

	return v && !v->query_device_ex(d->ctx, NULL, &a, sizeof(a)) &&
	       a.odp_caps.general_caps & IBV_ODP_SUPPORT &&
	       (a.odp_caps.per_transport_caps.rc_odp_caps & need) == need;
}

/* ---- for users ------------------------------------------------------ */

static void verbs_info(const struct verbs_dev *d, struct mc_rdma_info *out)
{
	struct verbs_port p = { 0 };
	int r = mc_verbs_port(d, &p);

	*out = (struct mc_rdma_info){
		.port = d->port, .up = p.up, .mtu = p.mtu, .bw = p.bw,
		.gid_index = r < 0 ? -1 : p.gids[0].index,
	};
	mc_copy(out->name, d->name);
	mc_copy(out->link, p.ethernet ? "RoCE" : "InfiniBand");
	if (r < 0)
		mc_copy(out->why, mc_errmsg());
	else
		mc_verbs_gid_text(p.gids[0].gid.raw, out->gid);
}

int mc_rdma_list(struct mc_rdma_info *out, int max)
{
	struct verbs_dev devs[VERBS_DEVS];
	int n = mc_verbs_open(devs, mc_min(max, VERBS_DEVS), NULL);

	for (int i = 0; i < n; i++) {
		verbs_info(&devs[i], &out[i]);
		mc_verbs_close(&devs[i]);
	}
	return n;
}
