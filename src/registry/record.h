/*
 * record.h - the segment record that an engine publishes: a segment descriptor
 * in the form of the public Mooncake (key "mooncake/ram/NAME"), with what our
 * own peers need in an extra member "mooncake_native" that others ignore:
 *
 *	{"name": "node1", "protocol": "tcp", "tcp_data_port": 0,
 *	 "buffers": [], "mooncake_native": {"version": 1,
 *	  "addr": "10.0.0.1:7000", "epoch": "<hex>", "host_id": "<hex>"}}
 *
 * Buffers are asked from the engine itself, so the list stays empty.
 */
#ifndef MC_RECORD_H
#define MC_RECORD_H

#include <mooncake.h>

struct mc_record {
	char name[MC_NAME_MAX];
	char addr[MC_ADDR_MAX];
	uint64_t epoch;
	uint64_t host_id;
};

/* The record as JSON, malloc'd. */
int mc_record_encode(const struct mc_record *r, char **json);

/* -EPROTO: malformed, and how. -EOPNOTSUPP: well formed, but of an engine that
 * does not speak the native protocol. */
int mc_record_decode(const char *json, size_t len, struct mc_record *r);

int mc_record_publish(struct mc_registry *reg, const struct mc_record *r,
		      int ttl_ms);
int mc_record_fetch(struct mc_registry *reg, const char *name,
		    struct mc_record *out);

/* Delete the record if it still is that of @epoch: a newer incarnation's is
 * left alone. */
int mc_record_withdraw(struct mc_registry *reg, const char *name,
		       uint64_t epoch);

#endif
