/*
 * record.h - the record under which an engine is found in a registry.
 *
 * It has the form of a segment descriptor of the public Mooncake, so that its
 * programs can read it, and names buffers only where they are served
 * (../v1/server.h); who and where we are is in a member of our own, which they
 * pass over. Our peers ask the engine itself for its buffers.
 */
#ifndef MC_REGISTRY_RECORD_H
#define MC_REGISTRY_RECORD_H

#include <mooncake.h>

/* An RDMA device, as the public Mooncake describes it. */
struct mc_record_dev {
	char name[32];
	uint16_t lid;
	char gid[48];			/* 16 bytes in hex, with colons */
};

struct mc_record {
	char name[MC_NAME_MAX];		/* of the segment */
	char addr[MC_ADDR_MAX];		/* of its engine's listener */
	uint64_t epoch;
	uint64_t host_id;
	/* For programs of the public Mooncake; decoding leaves them alone. */
	int data_port;			/* of its data plane; 0: not served */
	const struct mc_buffer_info *buffers;
	uint64_t n_buffers;
	const struct mc_record_dev *devs;
	int n_devs;			/* 0: served by tcp */
	const uint32_t *keys;		/* of each buffer for each device */
};

/* As JSON text, which the caller frees. */
int mc_record_encode(const struct mc_record *r, char **json);

/* -EBADMSG the text is not a segment descriptor, -EPROTONOSUPPORT it is one,
 * but not of an engine we can talk to. */
int mc_record_decode(const char *json, size_t len, struct mc_record *r);

/* Publish the record, or renew its lease. */
int mc_record_publish(struct mc_registry *reg, const struct mc_record *r,
		      int ttl_ms);

/* Who serves segment @name? -ENOENT no one. */
int mc_record_fetch(struct mc_registry *reg, const char *name,
		    struct mc_record *r);

/* The key of something of @name, "ram" or "rpc_meta": within the cluster that
 * MC_METADATA_CLUSTER_ID names, as the public Mooncake has it. */
enum { MC_RECORD_KEY_MAX = 2 * MC_NAME_MAX + 32 };
int mc_record_key(const char *kind, const char *name,
		  char key[MC_RECORD_KEY_MAX]);

/* Take the record back, unless another epoch has replaced it (-ESTALE). */
int mc_record_withdraw(struct mc_registry *reg, const char *name,
		       uint64_t epoch);

#endif
