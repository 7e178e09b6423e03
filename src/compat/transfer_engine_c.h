/*
 * transfer_engine_c.h - the C interface of the public Mooncake, answered by
 * libtransfer_engine.so of this tree. Programs written for it compile, link and
 * run; names, types, layouts and return codes are theirs to rely on.
 *
 * Return codes: functions on engines, segments and memory give 0 or a negative
 * number, functions on batches 0 or a positive one; te_error.c has the numbers.
 * A failure is also a line on stderr that says why. NULL for an engine, and ids
 * that are none, are refused, not followed. Strings passed in are copied.
 */
#ifndef TRANSFER_ENGINE_C_H
#define TRANSFER_ENGINE_C_H

#include <stddef.h>
#include <stdint.h>

#pragma GCC visibility push(default)
#ifdef __cplusplus
extern "C" {
#endif

#define segment_handle_t int32_t
#define segment_id_t int32_t
#define batch_id_t uint64_t
#define LOCAL_SEGMENT 0			/* the memory of the engine itself */
#define INVALID_BATCH UINT64_MAX

#define OPCODE_READ 0			/* remote to local */
#define OPCODE_WRITE 1			/* local to remote */

#define STATUS_WAITING 0
#define STATUS_PENDING 1
#define STATUS_INVALID 2
#define STATUS_CANCELED 3
#define STATUS_COMPLETED 4
#define STATUS_TIMEOUT 5
#define STATUS_FAILED 6

typedef void *transfer_engine_t;
typedef void *transport_t;

/* @target_offset is an address in the memory of the target. */
struct transfer_request {
	int opcode;
	void *source;
	segment_id_t target_id;
	uint64_t target_offset;
	uint64_t length;
};
typedef struct transfer_request transfer_request_t;

struct transfer_status {
	int status;
	uint64_t transferred_bytes;
};
typedef struct transfer_status transfer_status_t;

struct notify_msg {
	char *name;			/* shorter than 128 bytes */
	char *msg;			/* at most 64 KiB */
};
typedef struct notify_msg notify_msg_t;

struct buffer_entry {
	void *addr;
	size_t length;
};
typedef struct buffer_entry buffer_entry_t;

struct nic_load_stat {
	char device_name[64];
	uint64_t inflight_bytes;
	double ewma_bandwidth_bps;
};
typedef struct nic_load_stat nic_load_stat_t;

/* Of no function; programs may mention it. */
struct segment_desc {
	int type;
	union {
		struct {
			void *addr;
			uint64_t size;
			const char *location;
		} rdma;
		struct {
			const char *file_path;
			const char *subsystem_name;
			const char *proto;
			const char *ip;
			uint64_t port;
		} nvmeof;
	} desc_;
};
typedef struct segment_desc segment_desc_t;

/* ---- engines ----------------------------------------------------------- */

/* @metadata_conn_string: "P2PHANDSHAKE", or where names are kept: http://,
 * https://, etcd:// (also without scheme), redis://. With P2PHANDSHAKE the host
 * of @local_server_name is where peers reach us, at a free port, and
 * getLocalIpAndPort() is what they open. The next two count only with
 * MC_LEGACY_RPC_PORT_BINDING in the environment. All transports of this machine
 * are there whatever @auto_discover says. NULL on failure. */
transfer_engine_t createTransferEngine(const char *metadata_conn_string,
				       const char *local_server_name,
				       const char *ip_or_host_name,
				       uint64_t rpc_port, int auto_discover);

/* Cancels what is in flight; batches that were not freed go too. */
void destroyTransferEngine(transfer_engine_t engine);

int discoverTopology(transfer_engine_t engine);

/* "host:port"; @buf_out ends with a zero even if it is cut short. */
int getLocalIpAndPort(transfer_engine_t engine, char *buf_out, size_t buf_len);

/* Says whether @proto can be used here: NULL if not. */
transport_t installTransport(transfer_engine_t engine, const char *proto,
			     void **args);
int uninstallTransport(transfer_engine_t engine, const char *proto);

/* On SIGTERM and SIGINT the engine is closed, which withdraws its name, before
 * the signal does what it would have done. */
void enableGracefulShutdown(transfer_engine_t engine);

/* ---- segments ---------------------------------------------------------- */

/* An id of 0 or more, or a negative number. */
segment_id_t openSegment(transfer_engine_t engine, const char *segment_name);

/* The same, after asking the peer for its buffers. */
segment_id_t openSegmentNoCache(transfer_engine_t engine,
				const char *segment_name);

/* Does nothing: ids are shared by all who have opened the name. */
int closeSegment(transfer_engine_t engine, segment_id_t segment_id);
int warmupEfaSegment(transfer_engine_t engine, const char *segment_name);

/* Does nothing for our own name: it is withdrawn when the engine goes. */
int removeLocalSegment(transfer_engine_t engine, const char *segment_name);

/* Ask all open segments for their buffers. */
int syncSegmentCache(transfer_engine_t engine);

/* ---- memory ------------------------------------------------------------ */

/* -7: it overlaps memory that is registered. */
int registerLocalMemory(transfer_engine_t engine, void *addr, size_t length,
			const char *location, int remote_accessible);

/* -3: no registered memory begins there. When it returns 0, no one touches it
 * any more. */
int unregisterLocalMemory(transfer_engine_t engine, void *addr);

/* All or none. */
int registerLocalMemoryBatch(transfer_engine_t engine,
			     buffer_entry_t *buffer_list, size_t buffer_len,
			     const char *location);

/* Goes on after an error, and returns the first one. */
int unregisterLocalMemoryBatch(transfer_engine_t engine, void **addr_list,
			       size_t addr_len);

/* ---- transfers --------------------------------------------------------- */

/* A batch for up to @batch_size requests; INVALID_BATCH on failure. */
batch_id_t allocateBatchID(transfer_engine_t engine, size_t batch_size);

/* May be called repeatedly for one batch: requests are numbered on. What is
 * wrong with a request itself shows in its status. */
int submitTransfer(transfer_engine_t engine, batch_id_t batch_id,
		   struct transfer_request *entries, size_t count);

/* The target of the first request gets the message, once, after the bytes of
 * all that the batch has so far, whether someone asks for the status or not;
 * if a request fails, it gets none. Waits for what was submitted before. */
int submitTransferWithNotify(transfer_engine_t engine, batch_id_t batch_id,
			     struct transfer_request *entries, size_t count,
			     notify_msg_t notify_msg);

/* STATUS_PENDING, STATUS_COMPLETED or, for whatever went wrong, STATUS_FAILED:
 * then no one touches the memory of the request any more. */
int getTransferStatus(transfer_engine_t engine, batch_id_t batch_id,
		      size_t task_id, struct transfer_status *status);

/* 4 while a request has no outcome. */
int freeBatchID(transfer_engine_t engine, batch_id_t batch_id);

/* ---- notifications ----------------------------------------------------- */

/* All that have come, to be freed by freeNotifsMsgBuf(); NULL if none. */
notify_msg_t *getNotifsFromEngine(transfer_engine_t engine, int *size);
int freeNotifsMsgBuf(notify_msg_t *msg, int size);
int genNotifyInEngine(transfer_engine_t engine, uint64_t target_id,
		      notify_msg_t notify_msg);

/* ---- what there is ----------------------------------------------------- */

/* @count is how many fit, and then how many there are. */
int getNicLoadStats(transfer_engine_t engine, nic_load_stat_t *stats,
		    size_t *count);

/* Peers and the rails to them, as a table or as JSON, cut to the buffer. */
int showLinks(transfer_engine_t engine, char *buf_out, size_t buf_len,
	      int json);

#ifdef __cplusplus
}
#endif
#pragma GCC visibility pop
#endif
