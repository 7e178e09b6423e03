/*
 * transfer_engine_c.c - the functions of the public C interface: arguments in,
 * public numbers out, a line to stderr for what failed.
 */
#include "te.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ABI_REQS = 64 };			/* converted without an allocation */

/* ---- results -------------------------------------------------------- */

static int abi_code(const char *function, int r)
{
	if (r < 0)
		te_log(function, te_why());
	return r < 0 ? te_code(r) : r;
}

static int abi_status(const char *function, int r)
{
	if (r < 0)
		te_log(function, te_why());
	return r < 0 ? te_status_code(r) : 0;
}

/* ---- engines -------------------------------------------------------- */

transfer_engine_t createTransferEngine(const char *metadata_conn_string,
				       const char *local_server_name,
				       const char *ip_or_host_name,
				       uint64_t rpc_port, int auto_discover)
{
	struct te_config c = { .metadata = metadata_conn_string,
			       .name = local_server_name };
	struct te_engine *te;
	char legacy[512];

	(void)auto_discover;
	if (te_env_on("MC_LEGACY_RPC_PORT_BINDING") && ip_or_host_name &&
	    *ip_or_host_name && local_server_name &&
	    !strchr(local_server_name, ':')) {
		snprintf(legacy, sizeof(legacy), "%s:%d", local_server_name,
			 (int)(rpc_port & 0xffff));
		c.name = legacy;
	}
	if (te_open(&te, &c) < 0) {
		te_log("createTransferEngine", te_why());
		return NULL;
	}
	return te;
}

void destroyTransferEngine(transfer_engine_t engine)
{
	te_destroy(engine);
}

int discoverTopology(transfer_engine_t engine)
{
	int r = te_enter(engine);

	if (!r)
		te_leave(engine);
	return abi_code("discoverTopology", r);
}

int getLocalIpAndPort(transfer_engine_t engine, char *buf_out, size_t buf_len)
{
	struct te_engine *te = engine;
	int r = te_enter(te);

	if (buf_out && buf_len)
		buf_out[0] = 0;
	if (r < 0)
		return abi_code("getLocalIpAndPort", r);
	if (buf_out && buf_len)
		snprintf(buf_out, buf_len, "%s", mc_engine_addr(te->mc));
	te_leave(te);
	return 0;
}

transport_t installTransport(transfer_engine_t engine, const char *proto,
			     void **args)
{
	struct te_engine *te = engine;
	char note[TE_WHY_MAX] = "";
	int r = te_enter(te);

	(void)args;
	if (!r) {
		r = te_protocol(proto, note);
		te_leave(te);
	}
	if (note[0])
		te_log("installTransport", note);
	if (r < 0)
		te_log("installTransport", te_why());
	return r < 0 ? NULL : te;
}

int uninstallTransport(transfer_engine_t engine, const char *proto)
{
	(void)engine;
	(void)proto;
	return 0;
}

void enableGracefulShutdown(transfer_engine_t engine)
{
	int r = te_enter(engine);

	if (!r) {
		r = te_graceful(engine);
		te_leave(engine);
	}
	abi_code("enableGracefulShutdown", r);
}

/* ---- segments ------------------------------------------------------- */

static segment_id_t abi_open(struct te_engine *te, const char *name,
			     bool fresh, const char *function)
{
	int id, ask, r = te_enter(te);

	if (r < 0)
		return abi_code(function, r);
	id = te_segment_open(te, name);
	if (fresh && id > 0) {
		ask = te_mc(mc_segment_list(te->mc, id - 1, 0, NULL, 0));
		if (ask < 0)
			id = ask;
	}
	te_leave(te);
	/* No such name is an error of the metadata. */
	return abi_code(function, id == -ENOENT ? -EBADF : id);
}

segment_id_t openSegment(transfer_engine_t engine, const char *segment_name)
{
	return abi_open(engine, segment_name, false, "openSegment");
}

segment_id_t openSegmentNoCache(transfer_engine_t engine,
				const char *segment_name)
{
	return abi_open(engine, segment_name, true, "openSegmentNoCache");
}

int closeSegment(transfer_engine_t engine, segment_id_t segment_id)
{
	(void)engine;
	(void)segment_id;
	return 0;
}

int warmupEfaSegment(transfer_engine_t engine, const char *segment_name)
{
	(void)engine;
	(void)segment_name;
	return 0;
}

int removeLocalSegment(transfer_engine_t engine, const char *segment_name)
{
	struct te_engine *te = engine;
	int r = te_enter(te);

	if (r < 0)
		return abi_code("removeLocalSegment", r);
	if (!segment_name || strcmp(segment_name, mc_engine_name(te->mc)))
		r = te_err(-EINVAL, "'%s' is not the segment of this engine",
			   segment_name ? segment_name : "");
	te_leave(te);
	return abi_code("removeLocalSegment", r);
}

int syncSegmentCache(transfer_engine_t engine)
{
	struct te_engine *te = engine;
	int r = te_enter(te);

	if (r < 0)
		return abi_code("syncSegmentCache", r);
	for (int i = 0; i < te->n_segments; i++) {
		int ask = te_mc(mc_segment_list(te->mc, i, 0, NULL, 0));

		if (ask < 0 && !r)
			r = ask;
	}
	te_leave(te);
	return abi_code("syncSegmentCache", r);
}

/* ---- memory --------------------------------------------------------- */

int registerLocalMemory(transfer_engine_t engine, void *addr, size_t length,
			const char *location, int remote_accessible)
{
	int r = te_enter(engine);

	if (!r) {
		r = te_register(engine, addr, length, location,
				remote_accessible);
		te_leave(engine);
	}
	return abi_code("registerLocalMemory", r);
}

int unregisterLocalMemory(transfer_engine_t engine, void *addr)
{
	struct te_engine *te = engine;
	int r = te_enter(te);

	if (!r) {
		r = te_mc(mc_buffer_unreg(te->mc, addr));
		te_leave(te);
	}
	return abi_code("unregisterLocalMemory", r);
}

int registerLocalMemoryBatch(transfer_engine_t engine,
			     buffer_entry_t *buffer_list, size_t buffer_len,
			     const char *location)
{
	struct te_engine *te = engine;
	int r = te_enter(te);
	size_t i = 0;

	if (r < 0)
		return abi_code("registerLocalMemoryBatch", r);
	while (!r && i < buffer_len) {
		r = te_register(te, buffer_list[i].addr,
				buffer_list[i].length, location, true);
		i += !r;
	}
	while (r < 0 && i)
		mc_buffer_unreg(te->mc, buffer_list[--i].addr);
	te_leave(te);
	return abi_code("registerLocalMemoryBatch", r);
}

int unregisterLocalMemoryBatch(transfer_engine_t engine, void **addr_list,
			       size_t addr_len)
{
	struct te_engine *te = engine;
	int r = te_enter(te);

	if (r < 0)
		return abi_code("unregisterLocalMemoryBatch", r);
	for (size_t i = 0; i < addr_len; i++) {
		int one = mc_buffer_unreg(te->mc, addr_list[i]);

		if (one < 0 && !r)
			r = te_mc(one);
	}
	te_leave(te);
	return abi_code("unregisterLocalMemoryBatch", r);
}

/* ---- transfers ------------------------------------------------------ */

batch_id_t allocateBatchID(transfer_engine_t engine, size_t batch_size)
{
	uint64_t id = INVALID_BATCH;

	if (!te_enter(engine)) {
		id = te_batch_alloc(engine, batch_size);
		te_leave(engine);
	}
	if (id == INVALID_BATCH)
		te_log("allocateBatchID", te_why());
	return id;
}

static int abi_request(struct te_engine *te, const struct transfer_request *t,
		       struct mc_req *q)
{
	int segment = te_segment(te, t->target_id);

	if (segment < 0)
		return segment;
	if (t->opcode != OPCODE_READ && t->opcode != OPCODE_WRITE)
		return te_err(-EINVAL, "%d is no opcode", t->opcode);
	*q = (struct mc_req){
		.op = t->opcode == OPCODE_READ ? MC_READ : MC_WRITE,
		.segment = segment, .buf = t->source,
		.remote = t->target_offset, .len = t->length,
	};
	return 0;
}

static int abi_submit(struct te_engine *te, uint64_t id,
		      const struct transfer_request *t, size_t n,
		      const notify_msg_t *msg)
{
	struct mc_req few[ABI_REQS], *reqs = few;
	struct mc_batch_opts o = { 0 };
	int r = n > INT32_MAX || (n && !t) || (msg && !n) ?
		te_err(-EINVAL, "no requests") : 0;

	if (!r && n > ABI_REQS)
		reqs = malloc(n * sizeof(*reqs));
	if (!r && !reqs)
		r = te_err(-ENOMEM, "out of memory");
	for (size_t i = 0; !r && i < n; i++)
		r = abi_request(te, &t[i], &reqs[i]);
	if (!r && msg) {
		o.notify_segment = reqs[0].segment;
		o.notify_name = msg->name ? msg->name : "";
		o.notify_msg = msg->msg;
		o.notify_len = msg->msg ? strlen(msg->msg) : 0;
	}
	if (!r)
		r = te_batch_submit(te, id, reqs, n, msg ? &o : NULL);
	if (reqs != few)
		free(reqs);
	return r;
}

int submitTransfer(transfer_engine_t engine, batch_id_t batch_id,
		   struct transfer_request *entries, size_t count)
{
	int r = te_enter(engine);

	if (!r) {
		r = abi_submit(engine, batch_id, entries, count, NULL);
		te_leave(engine);
	}
	return abi_status("submitTransfer", r);
}

int submitTransferWithNotify(transfer_engine_t engine, batch_id_t batch_id,
			     struct transfer_request *entries, size_t count,
			     notify_msg_t notify_msg)
{
	int r = te_enter(engine);

	if (!r) {
		r = abi_submit(engine, batch_id, entries, count, &notify_msg);
		te_leave(engine);
	}
	return abi_status("submitTransferWithNotify", r);
}

int getTransferStatus(transfer_engine_t engine, batch_id_t batch_id,
		      size_t task_id, struct transfer_status *status)
{
	int r = te_enter(engine);

	if (!r) {
		r = status ? te_batch_status(engine, batch_id, task_id,
					     status) :
		    te_err(-EINVAL, "nowhere to put the status");
		te_leave(engine);
	}
	if (!r && status->status == STATUS_FAILED)
		te_log("transfer failed", te_why());
	return abi_status("getTransferStatus", r);
}

int freeBatchID(transfer_engine_t engine, batch_id_t batch_id)
{
	int r = te_enter(engine);

	if (!r) {
		r = te_batch_free(engine, batch_id);
		te_leave(engine);
	}
	/* Asking whether it is done is no failure. */
	return r == -EBUSY ? te_status_code(r) : abi_status("freeBatchID", r);
}

/* ---- notifications -------------------------------------------------- */

static char *abi_dup(const void *text, size_t len)
{
	char *s = malloc(len + 1);

	if (s) {
		memcpy(s, text, len);
		s[len] = 0;
	}
	return s;
}

static int abi_next(struct te_engine *te, notify_msg_t **list, int n)
{
	struct mc_notify note;
	notify_msg_t *grown;

	/* Room first: what has been taken cannot be put back. */
	grown = realloc(*list, (n + 1) * sizeof(**list));
	if (!grown)
		return 0;
	*list = grown;
	if (mc_notify_next(te->mc, &note) <= 0)
		return 0;
	grown[n].name = abi_dup(note.name, strlen(note.name));
	grown[n].msg = abi_dup(note.msg, note.len);
	mc_notify_free(&note);
	return 1;
}

notify_msg_t *getNotifsFromEngine(transfer_engine_t engine, int *size)
{
	notify_msg_t *list = NULL;
	int n = 0;

	if (size)
		*size = 0;
	if (!size || te_enter(engine) < 0)
		return NULL;
	while (abi_next(engine, &list, n))
		n++;
	te_leave(engine);
	if (!n) {
		free(list);
		list = NULL;
	}
	*size = n;
	return list;
}

int freeNotifsMsgBuf(notify_msg_t *msg, int size)
{
	for (int i = 0; msg && i < size; i++) {
		free(msg[i].name);
		free(msg[i].msg);
	}
	free(msg);
	return 0;
}

int genNotifyInEngine(transfer_engine_t engine, uint64_t target_id,
		      notify_msg_t notify_msg)
{
	struct te_engine *te = engine;
	const char *msg = notify_msg.msg ? notify_msg.msg : "";
	int r = te_enter(te);

	if (r < 0)
		return abi_code("genNotifyInEngine", r);
	r = te_segment(te, target_id > INT32_MAX ? -1 : (int64_t)target_id);
	if (r >= 0)
		r = te_mc(mc_notify_send(te->mc, r, notify_msg.name ?
					 notify_msg.name : "", msg,
					 strlen(msg), te->timeout_ms));
	te_leave(te);
	return abi_code("genNotifyInEngine", r);
}

/* ---- what there is -------------------------------------------------- */

int getNicLoadStats(transfer_engine_t engine, nic_load_stat_t *stats,
		    size_t *count)
{
	int r;

	if (!engine || !count || (*count && !stats))
		return -1;
	r = te_enter(engine);
	if (!r) {
		r = te_nic_stats(engine, stats, count);
		te_leave(engine);
	}
	return abi_status("getNicLoadStats", r);
}

int showLinks(transfer_engine_t engine, char *buf_out, size_t buf_len,
	      int json)
{
	int r;

	if (!engine || !buf_out || !buf_len)
		return -1;
	buf_out[0] = 0;
	r = te_enter(engine);
	if (!r) {
		r = te_links(engine, buf_out, buf_len, json);
		te_leave(engine);
	}
	return abi_code("showLinks", r);
}
