/*
 * segment.h - what the public Mooncake writes about a segment, read: its
 * descriptor and where its handshake port is. Our own are written by
 * ../registry/record.h.
 */
#ifndef MC_V1_SEGMENT_H
#define MC_V1_SEGMENT_H

#include "../topology/matrix.h"
#include "../transport/transport.h"

struct mc_v1_segment {
	char name[MC_NAME_MAX];
	char protocol[80];		/* as "rdma,tcp" */
	bool tcp, rdma;			/* are among them */
	bool native;			/* of one of our engines */
	char data_host[MC_ADDR_MAX];	/* "": that of the handshake port */
	int data_port, version;		/* of the data plane and its framing */
	uint64_t n;
	struct mc_buffer_info *buf;	/* reachable by tcp or rdma; by
					 * address, none overlaps */
	int n_devs;			/* for rdma */
	struct mc_v1_device devs[MC_V1_DEVICES];
	uint32_t *rkeys;		/* of each buffer for each device: 0 by
					 * tcp alone */
	struct mc_matrix *matrix;	/* of the devices; NULL */
};

/* -EBADMSG: it is not a descriptor, or one that the public decoder would
 * reject as well. Members and protocols that are not known are passed over.
 * The caller gives it to mc_v1_segment_free(). */
int mc_v1_segment_decode(const char *json, size_t len,
			 struct mc_v1_segment *out);
void mc_v1_segment_free(struct mc_v1_segment *s);

/* The key of buffer @id for the device: false if it has none. */
bool mc_v1_segment_key(const struct mc_v1_segment *s, uint32_t id, int dev,
		       uint32_t *rkey);

/* What two engines tell each other of their devices. The caller frees
 * @json. */
int mc_v1_meeting_encode(const struct mc_meeting *m, char **json);
int mc_v1_meeting_decode(const char *json, size_t len, struct mc_meeting *m);

/* A GID as descriptors have it: 16 bytes in hex, with colons. */
void mc_v1_gid_encode(const uint8_t gid[16], char text[48]);

/* The value of rpc_meta: "host:port". */
int mc_v1_place_decode(const char *json, size_t len, char addr[MC_ADDR_MAX]);
int mc_v1_place_encode(const char *addr, char *json, size_t size);

/* A notification, or the answer to one, whose message is empty if it was
 * rejected. Of the first the caller frees @json, of the second @msg. */
int mc_v1_notify_encode(const char *name, const void *msg, uint32_t len,
			char **json);
int mc_v1_notify_decode(const char *json, size_t len, char name[MC_NAME_MAX],
			char **msg, uint32_t *msg_len);

#endif
