/* transports.c - the transports there are, and what their paths share. */
#include "transport.h"

#include "../base/util.h"

extern const struct mc_transport mc_local_transport;
extern const struct mc_transport mc_shm_transport;
extern const struct mc_transport mc_rdma_transport;
extern const struct mc_transport mc_tcp_transport;
extern const struct mc_transport mc_v1_transport;

const struct mc_transport *const mc_transports[] = {
	&mc_local_transport,
	&mc_shm_transport,
	&mc_rdma_transport,
	&mc_tcp_transport,
	&mc_v1_transport,
	NULL,
};

void mc_path_fail(struct mc_path *path, int err)
{
	if (path->err)
		return;
	mc_copy(path->why, mc_errmsg());
	/* Others look at this without the lock. */
	__atomic_store_n(&path->err, err, __ATOMIC_RELEASE);
}
