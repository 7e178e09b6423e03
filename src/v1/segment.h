/*
 * segment.h - what the public Mooncake writes about a segment, read: its
 * descriptor and where its handshake port is. Our own are written by
 * ../registry/record.h.
 */
#ifndef MC_V1_SEGMENT_H
#define MC_V1_SEGMENT_H

#include <mooncake.h>

struct mc_v1_segment {
	char name[MC_NAME_MAX];
	char protocol[80];		/* as "rdma,tcp" */
	bool tcp;			/* is one of them */
	bool native;			/* of one of our engines */
	char data_host[MC_ADDR_MAX];	/* "": that of the handshake port */
	int data_port, version;		/* of the data plane and its framing */
	uint64_t n;
	struct mc_buffer_info *buf;	/* reachable by tcp; by address, none
					 * overlaps, ids count from 1 */
};

/* -EBADMSG: it is not a descriptor, or one that the public decoder would
 * reject as well. Members and protocols that are not known are passed over.
 * The caller gives it to mc_v1_segment_free(). */
int mc_v1_segment_decode(const char *json, size_t len,
			 struct mc_v1_segment *out);
void mc_v1_segment_free(struct mc_v1_segment *s);

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
