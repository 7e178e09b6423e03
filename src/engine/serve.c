/*
 * serve.c - what peers ask of an engine other than to read and write its
 * memory: its descriptor, transports' handshakes, notifications, and text to
 * evaluate.
 */
#include "engine.h"

#include <unistd.h>

enum { SERVE_QUESTIONS = 64 };

/* Make mc_engine_fd() readable. Under the lock of what it announces, so that
 * who takes the last of it cannot miss the next. */
void engine_signal(struct mc_engine *e)
{
	uint64_t one = 1;

	if (__atomic_exchange_n(&e->signaled, true, __ATOMIC_ACQ_REL))
		return;
	if (write(e->fd, &one, sizeof(one)) < 0)
		return;
}

void engine_unsignal(struct mc_engine *e)
{
	uint64_t n;

	if (!__atomic_load_n(&e->signaled, __ATOMIC_ACQUIRE))
		return;
	if (read(e->fd, &n, sizeof(n)) < 0)
		return;
	__atomic_store_n(&e->signaled, false, __ATOMIC_RELEASE);
	/* What came in between would have found it signaled. */
	pthread_mutex_lock(&e->batch_lock);
	if (e->completed)
		engine_signal(e);
	pthread_mutex_unlock(&e->batch_lock);
	pthread_mutex_lock(&e->serving.lock);
	if (e->serving.notes || e->serving.waiting)
		engine_signal(e);
	pthread_mutex_unlock(&e->serving.lock);
}

static void serve_answer(struct mc_engine *e, uint64_t conn, uint64_t id,
			 int status, const void *data, uint32_t len)
{
	mc_server_reply(e->server, conn, id, status, data, len, NULL, 0);
}

static void serve_refuse_control(struct mc_engine *e, uint64_t conn,
				 uint64_t id, int status)
{
	const char *why = mc_errmsg();

	serve_answer(e, conn, id, status, why, strlen(why));
}

/* ---- descriptor ----------------------------------------------------- */

static void serve_describe(struct mc_engine *e, uint64_t conn, uint64_t id,
			   const void *msg, uint32_t len)
{
	uint64_t since = 0;
	uint32_t n;
	void *out;
	int r;

	if (len == sizeof(since))
		memcpy(&since, msg, sizeof(since));
	r = buffers_describe(e, since, &out, &n);
	if (r < 0) {
		serve_refuse_control(e, conn, id, r);
		return;
	}
	serve_answer(e, conn, id, 0, out, n);
	free(out);
}

/* ---- handshakes: on a task, they may block -------------------------- */

struct handshake {
	struct mc_engine *e;
	uint64_t conn, id;
	char transport[32];
	struct mc_blob hello;
};

static const struct engine_transport *serve_transport(struct mc_engine *e,
						      const char *name)
{
	for (int i = 0; i < e->n_tr; i++)
		if (!strcmp(e->tr[i].t->name, name))
			return &e->tr[i];
	return NULL;
}

static void handshake_task(void *arg)
{
	struct handshake *h = arg;
	const struct engine_transport *tr;
	struct mc_blob reply = { 0 };
	int fds[MC_HOST_FDS], n_fds = 0, r;

	tr = serve_transport(h->e, h->transport);
	if (!tr || !tr->t->accept)
		r = mc_err(-EOPNOTSUPP, "transport %s is off there",
			   h->transport);
	else
		r = tr->t->accept(tr->ctx, h->conn, &h->hello, &reply, fds,
				  &n_fds);
	if (r < 0)
		serve_refuse_control(h->e, h->conn, h->id, r);
	else
		mc_server_reply(h->e->server, h->conn, h->id, 0, reply.data,
				reply.len, fds, n_fds);
	for (int i = 0; i < n_fds; i++)
		close(fds[i]);
	free(h);
}

static void serve_handshake(struct mc_engine *e, uint64_t conn, uint64_t id,
			    const char *msg, uint32_t len)
{
	uint32_t n = strnlen(msg, len) + 1;
	struct handshake *h = calloc(1, sizeof(*h));

	if (!h || n > len || n > sizeof(h->transport) ||
	    len - n > MC_BLOB_MAX) {
		free(h);
		mc_err(-EPROTO, "malformed handshake");
		serve_refuse_control(e, conn, id, -EPROTO);
		return;
	}
	h->e = e;
	h->conn = conn;
	h->id = id;
	mc_copy(h->transport, msg);
	h->hello.len = len - n;
	memcpy(h->hello.data, msg + n, len - n);
	/* Once it is set, the tasks may be gone: see engine_stop(). */
	if (__atomic_load_n(&e->closing, __ATOMIC_ACQUIRE) ||
	    mc_tasks_run(&e->slow, handshake_task, h) < 0) {
		free(h);
		mc_err(-ESHUTDOWN, "the engine is closing");
		serve_refuse_control(e, conn, id, -ESHUTDOWN);
	}
}

/* ---- notifications -------------------------------------------------- */

static struct note *note_new(const char *from, const char *name,
			     const void *msg, uint32_t len)
{
	struct note *note = NULL;
	char *copy;

	if (strlen(name) >= MC_NAME_MAX || len > MC_NOTIFY_MAX) {
		mc_err(-EPROTO, "malformed notification");
		return NULL;
	}
	note = calloc(1, sizeof(*note));
	copy = malloc(len + 1);
	if (!note || !copy) {
		free(note);
		free(copy);
		mc_err(-ENOMEM, "out of memory");
		return NULL;
	}
	memcpy(copy, msg, len);
	copy[len] = 0;
	mc_copy(note->n.from, from);
	mc_copy(note->n.name, name);
	note->n.len = len;
	note->n.msg = copy;
	return note;
}

int mc_host_notified(struct mc_host *h, const char *from, const char *name,
		     const void *msg, uint32_t len)
{
	struct mc_engine *e = (void *)h;
	struct serving *s = &e->serving;
	struct note *note = note_new(from, name, msg, len);
	bool full;

	if (!note)
		return -EPROTO;
	pthread_mutex_lock(&s->lock);
	full = s->n_notes >= ENGINE_NOTES;
	if (!full) {
		*s->notes_tail = note;
		s->notes_tail = &note->next;
		s->n_notes++;
		engine_signal(e);
		pthread_cond_broadcast(&s->asked);
	}
	pthread_mutex_unlock(&s->lock);
	if (!full)
		return 0;
	mc_notify_free(&note->n);
	free(note);
	return mc_err(-ENOBUFS, "%d notifications wait there for someone to "
		      "take them", ENGINE_NOTES);
}

static void serve_notify(struct mc_engine *e, uint64_t conn, uint64_t id,
			 const char *from, const char *msg, uint32_t len)
{
	uint32_t n = strnlen(msg, len) + 1;
	int r = n > len ? mc_err(-EPROTO, "malformed notification") :
		mc_host_notified((void *)e, from, msg, msg + n, len - n);

	if (r < 0)
		serve_refuse_control(e, conn, id, r);
	else
		serve_answer(e, conn, id, 0, NULL, 0);
}

int mc_notify_send(struct mc_engine *e, int segment, const char *name,
		   const void *msg, uint32_t len, int timeout_ms)
{
	struct mc_batch_opts o = {
		.timeout_ms = timeout_ms, .notify_segment = segment,
		.notify_name = name, .notify_msg = msg, .notify_len = len,
	};

	if (!name)
		return mc_err(-EINVAL, "a notification has a name");
	return mc_transfer(e, NULL, 0, &o, NULL);
}

int mc_notify_next(struct mc_engine *e, struct mc_notify *out)
{
	struct serving *s = &e->serving;
	int r = engine_check(e);
	struct note *note;

	if (r < 0)
		return r;
	pthread_mutex_lock(&s->lock);
	note = s->notes;
	if (note) {
		s->notes = note->next;
		if (!s->notes)
			s->notes_tail = &s->notes;
		s->n_notes--;
	}
	pthread_mutex_unlock(&s->lock);
	if (!note) {
		engine_unsignal(e);
		return 0;
	}
	*out = note->n;
	free(note);
	return 1;
}

void mc_notify_free(struct mc_notify *n)
{
	if (!n)
		return;
	free((void *)n->msg);
	n->msg = NULL;
}

/* ---- text to evaluate ----------------------------------------------- */

int mc_eval_allow(struct mc_engine *e, bool on)
{
	int r = engine_check(e);

	if (r < 0)
		return r;
	if (on && !e->key.len)
		return mc_err(-EPERM, "text from peers is evaluated only with "
			      "a cluster key: set MOONCAKE_KEY_FILE");
	pthread_mutex_lock(&e->serving.lock);
	e->serving.eval = on;
	pthread_mutex_unlock(&e->serving.lock);
	return 0;
}

static void serve_refuse_eval(struct mc_engine *e, uint64_t conn, uint64_t id,
			      bool allowed)
{
	int r = allowed ? mc_err(-EBUSY, "%d texts wait there already",
				 SERVE_QUESTIONS) :
		mc_err(-EPERM, "that node was not started with --allow-repl");

	serve_refuse_control(e, conn, id, r);
}

static void serve_eval(struct mc_engine *e, uint64_t conn, uint64_t id,
		       const char *from, const char *msg, uint32_t len)
{
	struct serving *s = &e->serving;
	struct question *q = NULL;
	bool allowed, full;

	pthread_mutex_lock(&s->lock);
	allowed = s->eval;
	full = s->n_waiting >= SERVE_QUESTIONS;
	pthread_mutex_unlock(&s->lock);
	if (allowed && !full)
		q = calloc(1, sizeof(*q) + len + 1);
	if (!q) {
		serve_refuse_eval(e, conn, id, allowed);
		return;
	}
	memcpy(q->text, msg, len);
	q->conn = conn;
	q->frame = id;
	q->q.len = len;
	q->q.text = q->text;
	mc_copy(q->q.from, from);
	pthread_mutex_lock(&s->lock);
	q->q.id = ++s->last_question;
	*s->waiting_tail = q;
	s->waiting_tail = &q->next;
	s->n_waiting++;
	engine_signal(e);
	pthread_cond_broadcast(&s->asked);
	pthread_mutex_unlock(&s->lock);
}

/* Who asked has gone: nobody waits for the answer. */
static void questions_forget(struct mc_engine *e, uint64_t conn)
{
	struct serving *s = &e->serving;
	struct question **at = &s->waiting;

	pthread_mutex_lock(&s->lock);
	while (*at) {
		struct question *q = *at;

		if (q->conn != conn) {
			at = &q->next;
			continue;
		}
		*at = q->next;
		s->n_waiting--;
		free(q);
	}
	s->waiting_tail = at;
	pthread_mutex_unlock(&s->lock);
}

int mc_eval_next(struct mc_engine *e, int timeout_ms, struct mc_eval *out)
{
	uint64_t until = mc_clock_ns() + (uint64_t)timeout_ms * MC_MS;
	struct timespec t = { until / 1000000000u, until % 1000000000u };
	struct serving *s = &e->serving;
	struct question *q;
	int r = engine_check(e);

	if (r < 0)
		return r;
	pthread_mutex_lock(&s->lock);
	while (!s->waiting && timeout_ms &&
	       !pthread_cond_clockwait(&s->asked, &s->lock, CLOCK_MONOTONIC,
				       &t) && !s->notes)
		;
	q = s->waiting;
	if (q) {
		s->waiting = q->next;
		s->n_waiting--;
		if (!s->waiting)
			s->waiting_tail = &s->waiting;
		q->next = s->answering;
		s->answering = q;
		*out = q->q;
	}
	pthread_mutex_unlock(&s->lock);
	if (!q)
		engine_unsignal(e);
	return !!q;
}

int mc_eval_reply(struct mc_engine *e, uint64_t id, int status,
		  const char *text, uint32_t len)
{
	struct serving *s = &e->serving;
	struct question **at, *q;
	int r = engine_check(e);

	if (r < 0)
		return r;
	pthread_mutex_lock(&s->lock);
	for (at = &s->answering; *at && (*at)->q.id != id; at = &(*at)->next)
		;
	q = *at;
	if (q)
		*at = q->next;
	pthread_mutex_unlock(&s->lock);
	if (!q)
		return mc_err(-ENOENT, "no text %llu waits for an answer",
			      (long long)id);
	serve_answer(e, q->conn, q->frame, status, text, len);
	free(q);
	return 0;
}

int64_t mc_eval_send(struct mc_engine *e, int segment, const char *text,
		     uint32_t len, int timeout_ms, char *out, uint32_t size)
{
	struct wire_call c = { .kind = WIRE_EVAL, .msg = text, .len = len };
	struct peer *p;
	int64_t n;
	int r = peer_need(e, segment, &p);

	if (r < 0)
		return r;
	r = peer_call(p, &c, false, engine_deadline(e, timeout_ms));
	peer_drop(p);
	if (r < 0) {
		wire_call_free(&c);
		return r;
	}
	n = c.reply_len;
	if (size) {
		memcpy(out, c.reply, mc_min((uint64_t)n, size - 1ul));
		out[mc_min((uint64_t)n, size - 1ul)] = 0;
	}
	wire_call_free(&c);
	return n;
}

/* ---- who is connected ----------------------------------------------- */

int mc_connection_list(struct mc_engine *e, int skip,
		       struct mc_connection_info *out, int max)
{
	int r = engine_check(e);

	if (r < 0 || !e->server)
		return r;
	return mc_server_list(e->server, skip, out, max);
}

/* ---- dispatch ------------------------------------------------------- */

void mc_host_control(struct mc_host *h, uint64_t conn, const char *from,
		     int kind, uint64_t id, const void *msg, uint32_t len)
{
	struct mc_engine *e = (void *)h;

	switch (kind) {
	case WIRE_PING:
		serve_answer(e, conn, id, 0, NULL, 0);
		return;
	case WIRE_DESCRIBE:
		serve_describe(e, conn, id, msg, len);
		return;
	case WIRE_NOTIFY:
		serve_notify(e, conn, id, from, msg, len);
		return;
	case WIRE_HANDSHAKE:
		serve_handshake(e, conn, id, msg, len);
		return;
	case WIRE_EVAL:
		serve_eval(e, conn, id, from, msg, len);
		return;
	}
	mc_err(-EOPNOTSUPP, "unknown request %d: a newer peer?", kind);
	serve_refuse_control(e, conn, id, -EOPNOTSUPP);
}

void mc_host_gone(struct mc_host *h, uint64_t conn)
{
	struct mc_engine *e = (void *)h;

	questions_forget(e, conn);
	for (int i = 0; i < e->n_tr; i++)
		if (e->tr[i].t->gone)
			e->tr[i].t->gone(e->tr[i].ctx, conn);
}

void serving_init(struct mc_engine *e)
{
	struct serving *s = &e->serving;

	pthread_mutex_init(&s->lock, NULL);
	pthread_cond_init(&s->asked, NULL);
	s->notes_tail = &s->notes;
	s->waiting_tail = &s->waiting;
}

static void questions_free(struct question *q)
{
	while (q) {
		struct question *next = q->next;

		free(q);
		q = next;
	}
}

void serving_fini(struct mc_engine *e)
{
	struct mc_notify n;

	while (mc_notify_next(e, &n) > 0)
		mc_notify_free(&n);
	questions_free(e->serving.waiting);
	questions_free(e->serving.answering);
	pthread_mutex_destroy(&e->serving.lock);
	pthread_cond_destroy(&e->serving.asked);
}
