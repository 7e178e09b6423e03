/*
 * etcd_watch.c - changes under a prefix, as etcd streams them.
 *
 * Each call is a watch of its own from the revision after the one that was seen
 * last, ended with the first changes: etcd keeps the history, we keep nothing.
 */
#include "etcd_link.h"

#include "../base/clock.h"
#include "../base/err.h"
#include "../base/util.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

enum {
	/* A member sends what has been only on its next beat, each 100 ms. */
	EWATCH_CATCH_UP_MS = 500,
	EWATCH_BEHIND_TRIES = 5,
};

struct ewatch {
	struct mc_etcd_op op;
	const struct mc_etcd *e;
	struct mc_registry_text *out;
	uint64_t version;		/* seen last */
	uint64_t end_ns;		/* of waiting */
	bool behind;			/* the member knows of less than that */
};

static int ewatch_begun(struct ewatch *w, const struct mc_etcd_news *n)
{
	uint64_t now = mc_clock_ns(), end = w->end_ns;

	w->behind = n->revision < w->version;
	if (w->behind || (n->revision == w->version && end <= now))
		return 1;
	if (n->revision > w->version)
		end = mc_max(end, now + EWATCH_CATCH_UP_MS * (uint64_t)MC_MS);
	w->op.begun = true;
	w->op.until_ns = end;
	w->op.deadline_ns = end + w->e->times->total_ms * (uint64_t)MC_MS;
	return 0;
}

static int ewatch_line(struct mc_etcd_op *op, const char *line, size_t len)
{
	struct ewatch *w = mc_container_of(op, struct ewatch, op);
	struct mc_etcd_news n;
	int r = mc_etcd_news(line, len, &n, w->out, op->why);

	if (r == -EBADMSG || r == -ENOMEM)
		mc_copy(op->why, r == -ENOMEM ? "out of memory" :
			"the answer is not of etcd");
	if (r < 0)
		return r;
	if (n.compacted) {
		mc_copy(op->why, "these changes are forgotten");
		return -ESTALE;
	}
	if (n.ended)
		return -EBUSY;
	if (n.last) {
		w->version = n.last;
		return 1;
	}
	return n.created ? ewatch_begun(w, &n) : 0;
}

/* How often the store has changed, as most members know it. */
static int ewatch_revision(struct mc_etcd *e, struct mc_etcd_op *op,
			   const char *range, uint64_t *out)
{
	struct json_object *answer;
	char *body;
	int r;

	if (asprintf(&body, "{%s,\"count_only\":true}", range) < 0)
		return mc_etcd_misread(e, op, -ENOMEM);
	r = mc_etcd_ask(e, op, "kv/range", body, &answer);
	free(body);
	if (r < 0)
		return r;
	*out = mc_etcd_revision(answer);
	json_object_put(answer);
	return *out ? 0 : mc_etcd_misread(e, op, -EBADMSG);
}

static int ewatch_stream(struct mc_etcd *e, struct ewatch *w, const char *range)
{
	char *body;
	int r;

	if (asprintf(&body, "{\"create_request\":{%s,\"start_revision\":\"%"
		     PRIu64 "\"}}", range, w->version + 1) < 0)
		return mc_etcd_misread(e, &w->op, -ENOMEM);
	w->op.line = ewatch_line;
	r = mc_etcd_post(e, &w->op, "watch", body);
	w->op.line = NULL;
	free(body);
	return r;
}

/* A member may be behind the one that was asked before; a store that knows of
 * less than was seen is another one, or was set back. */
static int ewatch_run(struct mc_etcd *e, struct ewatch *w, const char *range)
{
	uint64_t revision = 0;
	int r;

	for (int i = 0; i < EWATCH_BEHIND_TRIES; i++) {
		r = ewatch_stream(e, w, range);
		if (r < 0 || !w->behind)
			return r;
		r = ewatch_revision(e, &w->op, range, &revision);
		if (r < 0)
			return r;
		if (revision < w->version)
			return mc_etcd_fail(e, &w->op, -ESTALE, "the server "
					    "has begun anew, and these changes "
					    "are forgotten");
	}
	return mc_etcd_fail(e, &w->op, -EBUSY, "the member stays behind");
}

int mc_etcd_watch(struct mc_etcd *e, const char *prefix, uint64_t *version,
		  int wait_ms, struct mc_registry_text *out)
{
	struct ewatch w = {
		.op = mc_etcd_begin(e, "watch", prefix), .e = e, .out = out,
		.version = *version,
		.end_ns = mc_clock_ns() + wait_ms * (uint64_t)MC_MS,
	};
	char *range = mc_etcd_range(prefix);
	int r;

	if (!range)
		return mc_etcd_misread(e, &w.op, -ENOMEM);
	r = w.version ? ewatch_run(e, &w, range) :
	    ewatch_revision(e, &w.op, range, &w.version);
	if (!r)
		*version = w.version;
	free(w.op.answer.data);
	free(range);
	return r;
}
