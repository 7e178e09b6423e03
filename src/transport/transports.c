/* transports.c - the transports there are, best first. */
#include "transport.h"

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
