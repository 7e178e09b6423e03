/*
 * verbs.h - libibverbs, loaded when it is first needed, and what is to be known
 * of RDMA devices before any connection: which there are, what their port is
 * like, and its GIDs in order of worth.
 */
#ifndef MC_VERBS_H
#define MC_VERBS_H

#include <infiniband/verbs.h>
#include <stdbool.h>
#include <stdint.h>

/* What the library exports. The rest of verbs.h is inline: it calls through
 * the context. */
#define MC_VERBS_FUNCTIONS(X) \
	X(get_device_list) X(free_device_list) X(get_device_name) \
	X(open_device) X(close_device) X(query_device) \
	X(alloc_pd) X(dealloc_pd) X(reg_mr_iova2) X(dereg_mr) \
	X(create_comp_channel) X(destroy_comp_channel) \
	X(create_cq) X(destroy_cq) X(get_cq_event) X(ack_cq_events) \
	X(create_qp) X(modify_qp) X(destroy_qp) \
	X(get_async_event) X(ack_async_event) \
	X(wc_status_str) X(event_type_str) X(fork_init)

#define MC_VERBS_FIELD(name) __typeof__(ibv_##name) *name;

struct mc_verbs {
	MC_VERBS_FUNCTIONS(MC_VERBS_FIELD)
	__typeof__(_ibv_query_gid_table) *query_gid_table;
	/* NULL if the library is older than that. */
	__typeof__(ibv_reg_dmabuf_mr) *reg_dmabuf_mr;
};

/* Filled by mc_verbs_load(), which every user calls first: 0, or -EOPNOTSUPP
 * with the reason. */
extern struct mc_verbs mc_verbs;
int mc_verbs_load(void);

enum {
	VERBS_DEVS = 16,
	VERBS_GIDS = 4,			/* the best of a port */
	VERBS_GID_TEXT = 48,
};

struct verbs_gid {
	union ibv_gid gid;
	int index;
	int rank;			/* smaller is better */
};

/* A port as it is now. */
struct verbs_port {
	uint8_t num;
	bool up, ethernet;
	int mtu;			/* bytes */
	uint16_t lid;
	uint64_t bw;			/* bytes per second */
	struct verbs_gid gids[VERBS_GIDS];
	int n_gids;
};

struct verbs_dev {
	char name[32];
	struct ibv_context *ctx;
	struct ibv_device_attr attr;
	uint8_t port;			/* the one in use */
};

/* Open the devices named in @list, or all if it names none of them or is NULL:
 * how many, or -EOPNOTSUPP with the reason why there are none. */
int mc_verbs_open(struct verbs_dev *out, int max, const char *list);
void mc_verbs_close(struct verbs_dev *d);

/* Ask for the state of the device's port. -errno with a message, one of them
 * if MC_GID_INDEX names a GID that is not there. */
int mc_verbs_port(const struct verbs_dev *d, struct verbs_port *out);

/* Can peers read and write memory of the device that is not pinned? */
bool mc_verbs_on_demand(const struct verbs_dev *d);

/* Is this the name of an RDMA device of this machine? Needs no library. */
bool mc_verbs_is_device(const char *name);

/* The worth of a GID for reaching other hosts, smaller is better: @type as
 * verbs has it, @ndev the interface it belongs to, "" for none. Negative: of
 * no use. */
int mc_verbs_gid_rank(const uint8_t raw[16], int type, const char *ndev);

/* Do these two belong to one subnet, as far as they tell? */
bool mc_verbs_gid_near(const uint8_t a[16], const uint8_t b[16]);

/* The first of the port's GIDs that suits @far: of its subnet if @near, else
 * one of its kind will do; -1: none. */
int mc_verbs_port_gid(const struct verbs_port *p, const uint8_t far[16],
		      bool near);
void mc_verbs_gid_text(const uint8_t raw[16], char out[VERBS_GID_TEXT]);

#endif
