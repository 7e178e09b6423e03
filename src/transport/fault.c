/*
 * fault.c - a decorator that makes things go wrong; see fault.h.
 *
 * What it does to a slice is decided when the slice is posted, by a generator
 * that starts from the seed: the same posts in the same order meet the same
 * faults.
 */
#include "fault.h"

#include "host.h"

#include "../base/clock.h"
#include "../base/err.h"
#include "../base/util.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

enum {
	FAULT_DELAY_NS = 30 * MC_MS,
	FAULT_STALL_NS = 700 * MC_MS,
};

/* A slice that is held back: for good if @until is UINT64_MAX. */
struct fault_held {
	struct mc_slice *s;
	uint64_t until_ns;
	bool fails;			/* then ends with -EIO; else posted */
	struct fault_held *next;
};

struct fault_transport {
	struct mc_transport t;
	const struct mc_transport *inner;
	void *ctx;
	struct mc_fault f;
	uint64_t state;			/* atomic: paths share it */
};

struct fault_path {
	struct mc_path base;
	struct fault_transport *ft;
	struct mc_path *inner;
	struct fault_held *held;
	uint64_t stall_ns;		/* until then nothing goes on */
};

static struct fault_path *fault_of(struct mc_path *p)
{
	return mc_container_of(p, struct fault_path, base);
}

/* ---- chance --------------------------------------------------------- */

static uint64_t fault_random(struct fault_transport *ft)
{
	uint64_t z = __atomic_add_fetch(&ft->state, 0x9e3779b97f4a7c15u,
					__ATOMIC_RELAXED);

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return z ^ z >> 31;
}

static bool fault_hits(struct fault_transport *ft, unsigned per_mille)
{
	return per_mille && fault_random(ft) % 1000 < per_mille;
}

static uint64_t fault_later(struct fault_transport *ft, uint64_t max_ns)
{
	return mc_clock_ns() + fault_random(ft) % max_ns;
}

/* ---- paths ---------------------------------------------------------- */

/* What the engine reads of the path is what the inner one says. */
static void fault_mirror(struct fault_path *p)
{
	p->base.events = p->inner->events;
	p->base.queued = p->inner->queued;
	p->base.progress = p->inner->progress;
	if (!p->inner->err || p->base.err)
		return;
	mc_copy(p->base.why, p->inner->why);
	__atomic_store_n(&p->base.err, p->inner->err, __ATOMIC_RELEASE);
}

static int fault_connect(void *ctx, const struct mc_peer *peer, int dev,
			 uint64_t deadline_ns, struct mc_path **out)
{
	struct fault_transport *ft = ctx;
	struct fault_path *p;
	int r;

	if (fault_hits(ft, ft->f.drop))
		return mc_err(-ETIMEDOUT, "%s: injected: the handshake was "
			      "dropped", peer->name);
	p = calloc(1, sizeof(*p));
	if (!p)
		return mc_err(-ENOMEM, "out of memory");
	r = ft->inner->connect(ft->ctx, peer, dev, deadline_ns, &p->inner);
	if (r < 0) {
		free(p);
		return r;
	}
	p->ft = ft;
	p->base.fd = p->inner->fd;
	p->base.notes = p->inner->notes;
	mc_copy(p->base.remote_dev, p->inner->remote_dev);
	pthread_mutex_init(&p->base.lock, NULL);
	fault_mirror(p);
	*out = &p->base;
	return 0;
}

static void fault_forget(struct fault_path *p)
{
	while (p->held) {
		struct fault_held *h = p->held;

		p->held = h->next;
		free(h);
	}
}

static void fault_abort(struct mc_path *base, uint64_t deadline_ns)
{
	struct fault_path *p = fault_of(base);

	fault_forget(p);
	if (p->ft->inner->abort)
		p->ft->inner->abort(p->inner, deadline_ns);
	fault_mirror(p);
}

static void fault_disconnect(struct mc_path *base)
{
	struct fault_path *p = fault_of(base);

	fault_forget(p);
	p->ft->inner->disconnect(p->inner);
	pthread_mutex_destroy(&p->base.lock);
	free(p);
}

/* ---- slices --------------------------------------------------------- */

static void fault_kill(struct fault_transport *ft)
{
	if (ft->f.pid > 0 && fault_hits(ft, ft->f.kill))
		kill(ft->f.pid, SIGKILL);
}

static void fault_hold(struct fault_path *p, struct mc_slice *s,
		       uint64_t until_ns, bool fails)
{
	struct fault_held *h = malloc(sizeof(*h));

	if (!h)
		return;			/* lost, which it is here to be */
	*h = (struct fault_held){ s, until_ns, fails, p->held };
	p->held = h;
}

static void fault_post_one(struct fault_path *p, struct mc_slice *s)
{
	struct fault_transport *ft = p->ft;

	fault_kill(ft);
	if (fault_hits(ft, ft->f.stall))
		p->stall_ns = fault_later(ft, FAULT_STALL_NS);
	if (fault_hits(ft, ft->f.lose))
		fault_hold(p, s, UINT64_MAX, false);
	else if (fault_hits(ft, ft->f.fail))
		fault_hold(p, s, 0, true);
	else if (fault_hits(ft, ft->f.delay) ||
		 mc_clock_ns() < p->stall_ns)
		fault_hold(p, s, fault_later(ft, FAULT_DELAY_NS), false);
	else
		ft->inner->post(p->inner, &s, 1);
}

static int fault_post(struct mc_path *base, struct mc_slice *const *slices,
		      int n)
{
	struct fault_path *p = fault_of(base);

	if (base->err)
		return 0;
	for (int i = 0; i < n; i++)
		fault_post_one(p, slices[i]);
	fault_mirror(p);
	return n;
}

/* Those whose time has come go their way. */
static int fault_release(struct fault_path *p, struct mc_slice **out, int max)
{
	uint64_t now = mc_clock_ns();
	struct fault_held **at = &p->held;
	int n = 0;

	while (*at && n < max) {
		struct fault_held *h = *at;

		if (h->until_ns > now) {
			at = &h->next;
			continue;
		}
		*at = h->next;
		if (h->fails) {
			h->s->err = h->s->op == MC_NOTE ? -EAGAIN : -EIO;
			snprintf(h->s->why, MC_WHY_MAX, "injected failure");
			out[n++] = h->s;
		} else {
			p->ft->inner->post(p->inner, &h->s, 1);
		}
		free(h);
	}
	return n;
}

static void fault_shuffle(struct fault_transport *ft, struct mc_slice **s,
			  int n)
{
	for (int i = n - 1; i > 0; i--) {
		int k = fault_random(ft) % (i + 1);
		struct mc_slice *t = s[i];

		s[i] = s[k];
		s[k] = t;
	}
}

static int fault_poll(struct mc_path *base, struct mc_slice **out, int max)
{
	struct fault_path *p = fault_of(base);
	int n;

	if (base->err || mc_clock_ns() < p->stall_ns)
		return 0;
	n = fault_release(p, out, max);
	n += p->ft->inner->poll(p->inner, out + n, max - n);
	if (n > 1 && fault_hits(p->ft, p->ft->f.reorder))
		fault_shuffle(p->ft, out, n);
	fault_mirror(p);
	return n;
}

static int fault_copy(struct mc_path *base, enum mc_op op,
		      const struct mc_piece *pieces, uint32_t n)
{
	struct fault_path *p = fault_of(base);
	struct fault_transport *ft = p->ft;
	int r;

	fault_kill(ft);
	if (fault_hits(ft, ft->f.delay))
		usleep(fault_random(ft) % FAULT_DELAY_NS / 1000);
	if (fault_hits(ft, ft->f.fail))
		return mc_err(-EIO, "injected failure");
	if (fault_hits(ft, ft->f.lose))
		return mc_err(-EHOSTDOWN, "injected: the peer is lost");
	r = ft->inner->copy(p->inner, op, pieces, n);
	if (r < 0) {
		/* Many threads copy at once, without the lock. */
		pthread_mutex_lock(&base->lock);
		fault_mirror(p);
		pthread_mutex_unlock(&base->lock);
	}
	return r;
}

/* ---- the rest passes through ---------------------------------------- */

static int fault_open(void **ctx, struct mc_host *host,
		      const struct mc_options *opts)
{
	struct fault_transport *ft = *ctx;
	int r = ft->inner->open ? ft->inner->open(&ft->ctx, host, opts) : 0;

	/* What did not open is not closed. */
	if (r < 0)
		free(ft);
	return r;
}

static void fault_close(void *ctx)
{
	struct fault_transport *ft = ctx;

	if (ft->inner->close)
		ft->inner->close(ft->ctx);
	free(ft);
}

static int fault_devices(void *ctx, char names[][32], int max)
{
	struct fault_transport *ft = ctx;

	return ft->inner->devices(ft->ctx, names, max);
}

static int fault_reg(void *ctx, const struct mc_buffer_info *b, int fd,
		     uint64_t offset)
{
	struct fault_transport *ft = ctx;

	return ft->inner->reg(ft->ctx, b, fd, offset);
}

static int fault_unreg(void *ctx, const struct mc_buffer_info *b)
{
	struct fault_transport *ft = ctx;

	return ft->inner->unreg(ft->ctx, b);
}

static int fault_accept(void *ctx, uint64_t conn, const struct mc_blob *hello,
			struct mc_blob *reply, int *fds, int *n_fds)
{
	struct fault_transport *ft = ctx;

	return ft->inner->accept(ft->ctx, conn, hello, reply, fds, n_fds);
}

static void fault_gone(void *ctx, uint64_t conn)
{
	struct fault_transport *ft = ctx;

	ft->inner->gone(ft->ctx, conn);
}

int mc_fault_wrap(const struct mc_transport *inner, const struct mc_fault *f,
		  const struct mc_transport **out)
{
	struct fault_transport *ft = calloc(1, sizeof(*ft));

	if (!ft)
		return mc_err(-ENOMEM, "out of memory");
	ft->inner = inner;
	ft->f = *f;
	ft->state = f->seed;
	ft->t = (struct mc_transport){
		.name = inner->name,
		.strangers = inner->strangers,
		.gpu = inner->gpu,
		.open = fault_open,
		.close = fault_close,
		.devices = inner->devices ? fault_devices : NULL,
		.reg = inner->reg ? fault_reg : NULL,
		.unreg = inner->unreg ? fault_unreg : NULL,
		.connect = fault_connect,
		.accept = inner->accept ? fault_accept : NULL,
		.gone = inner->gone ? fault_gone : NULL,
		.abort = fault_abort,
		.disconnect = fault_disconnect,
		.copy = inner->copy ? fault_copy : NULL,
		.post = inner->post ? fault_post : NULL,
		.poll = inner->poll ? fault_poll : NULL,
	};
	*out = &ft->t;
	return 0;
}

/* ---- the option ----------------------------------------------------- */

struct fault_field {
	const char *name;
	unsigned *value;
};

/* Decimal digits up to @max and nothing else. */
static bool fault_number(const char *s, uint64_t max, uint64_t *out)
{
	*out = 0;
	if (!*s)
		return false;
	for (; *s; s++) {
		uint64_t digit = *s - '0';

		if (digit > 9 || *out > (max - digit) / 10)
			return false;
		*out = *out * 10 + digit;
	}
	return true;
}

static int fault_set(const struct fault_field *fields, struct mc_fault *out,
		     const char *name, const char *value)
{
	bool seed = !strcmp(name, "seed"), pid = !strcmp(name, "pid");
	uint64_t n, max = seed ? UINT64_MAX : pid ? INT32_MAX : 1000;

	while (!seed && !pid && fields->name && strcmp(fields->name, name))
		fields++;
	if (!seed && !pid && !fields->name)
		return mc_err(-EINVAL, "no fault is called '%s'", name);
	if (!fault_number(value, max, &n))
		return mc_err(-EINVAL, "fault %s: '%s' is no number up to "
			      "%llu", name, value, (long long)max);
	if (seed)
		out->seed = n;
	else if (pid)
		out->pid = n;
	else
		*fields->value = n;
	return 0;
}

int mc_fault_parse(const char *spec, struct mc_fault *out)
{
	const struct fault_field fields[] = {
		{ "delay", &out->delay }, { "fail", &out->fail },
		{ "lose", &out->lose }, { "stall", &out->stall },
		{ "reorder", &out->reorder }, { "drop", &out->drop },
		{ "kill", &out->kill }, { NULL, NULL },
	};
	char copy[256], *save = NULL, *word;

	*out = (struct mc_fault){ .seed = 1 };
	if (strlen(spec) >= sizeof(copy))
		return mc_err(-EINVAL, "faults in more than %d bytes",
			      (int)sizeof(copy) - 1);
	mc_copy(copy, spec);
	for (word = strtok_r(copy, ", ", &save); word;
	     word = strtok_r(NULL, ", ", &save)) {
		char *value = strchr(word, '=');
		int r;

		if (!value)
			return mc_err(-EINVAL, "fault '%s' has no value", word);
		*value++ = 0;
		r = fault_set(fields, out, word, value);
		if (r < 0)
			return r;
	}
	return 0;
}
