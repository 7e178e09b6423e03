/*
 * public.c - the engine in profile v1, where it speaks the public Mooncake's
 * protocol too: to whom it is spoken, and what is said there. What travels on
 * its connections is in ../v1 and ../transport/v1.c.
 *
 * Such a peer has no epoch. Where it listens stands for one: who is restarted
 * listens elsewhere, unless by chance.
 */
#include "engine.h"

#include "../base/net.h"
#include "../registry/registry.h"
#include "../v1/frame.h"

#include <unistd.h>

enum {
	PUBLIC_PORTS = 100,		/* tried before giving up */
	PUBLIC_MEET_MS = 2000,		/* for a word on a connection */
};

/* ---- the profile ----------------------------------------------------- */

int public_profile(struct mc_engine *e)
{
	const char *p = e->opts.profile;

	if (!p || !p[0] || !strcmp(p, "native")) {
		if (e->opts.transports && engine_listed(e->opts.transports,
							"v1"))
			return mc_err(-EINVAL, "transport v1 is of profile "
				      "v1, which is not on");
		return 0;
	}
	if (strcmp(p, "v1") && strcmp(p, "v1,unauthenticated"))
		return mc_err(-EINVAL, "no profile is called '%s': there are "
			      "native, v1 and v1,unauthenticated", p);
	if (e->tls)
		return mc_err(-EINVAL, "profile v1 has no TLS, and this engine "
			      "has a certificate");
	if (e->key.len && !strcmp(p, "v1"))
		return mc_err(-EACCES, "profile v1 has no authentication, and "
			      "this engine has a cluster key: ask for "
			      "'v1,unauthenticated' to let anyone in");
	e->public = true;
	return 0;
}

/* Port 0 is one of those that the public one uses: firewalls know them. */
static int public_listen(struct mc_engine *e, const struct mc_net_name *name,
			 const char *unix_name)
{
	char addr[MC_ADDR_MAX];
	int r;

	for (int i = 0; i < PUBLIC_PORTS; i++) {
		r = mc_net_join(name->host, name->port ? name->port :
				mc_v1_port(), addr);
		if (!r)
			r = mc_server_open(&e->server, (void *)e, e->loops,
					   e->n_loops, addr, unix_name);
		if (r != -EADDRINUSE || name->port)
			break;
	}
	return r;
}

int public_serve(struct mc_engine *e, const char *listen,
		 const char *unix_name)
{
	struct mc_net_name name;
	int r;

	if (!e->public)
		return mc_server_open(&e->server, (void *)e, e->loops,
				      e->n_loops, listen, unix_name);
	r = mc_net_parse(listen, -1, &name);
	if (!r)
		r = public_listen(e, &name, unix_name);
	if (!r)
		r = mc_v1_server_open(&e->v1, (void *)e, e->loops, e->n_loops,
				      name.host);
	return r;
}

/* ---- what we say of ourselves ---------------------------------------- */

static void public_brief(struct mc_engine *e, struct mc_record *out)
{
	*out = (struct mc_record){ .epoch = e->epoch, .host_id = e->host_id };
	mc_copy(out->name, e->name);
	mc_copy(out->addr, e->addr);
	if (e->v1)
		out->data_port = mc_v1_server_port(e->v1);
}

/* Devices are named if rdma was asked for by name: a descriptor is of one
 * protocol, for the public one. */
static const struct engine_transport *public_device_transport(
		const struct mc_engine *e)
{
	const char *list = e->opts.transports;

	for (int i = 0; list && i < e->n_tr; i++)
		if (e->tr[i].t->v1_devices &&
		    engine_listed(list, e->tr[i].t->name))
			return &e->tr[i];
	return NULL;
}

/* Buffers that a device cannot reach are left out. */
static int public_keys(struct mc_engine *e, struct mc_record *out,
		       struct public_record *own)
{
	const struct engine_transport *tr = public_device_transport(e);
	struct mc_v1_device devs[MC_V1_DEVICES];
	uint32_t *key;
	uint64_t n = 0;

	if (!tr)
		return 0;
	out->n_devs = tr->t->v1_devices(tr->ctx, devs, MC_V1_DEVICES);
	out->devs = own->devs;
	for (int i = 0; i < out->n_devs; i++) {
		mc_copy(own->devs[i].name, devs[i].name);
		own->devs[i].lid = devs[i].lid;
		mc_v1_gid_encode(devs[i].gid, own->devs[i].gid);
	}
	own->keys = calloc(out->n_buffers * out->n_devs + 1, sizeof(*key));
	if (!own->keys)
		return mc_err(-ENOMEM, "out of memory");
	for (uint64_t i = 0; out->n_devs && i < out->n_buffers; i++) {
		bool has = true;

		key = own->keys + n * out->n_devs;
		for (int k = 0; k < out->n_devs; k++)
			has &= tr->t->v1_key(tr->ctx, &own->buffers[i],
					     devs[k].dev, &key[k]);
		if (has)
			own->buffers[n++] = own->buffers[i];
	}
	out->keys = own->keys;
	out->n_buffers = n;
	return 0;
}

int public_record(struct mc_engine *e, struct mc_record *out,
		  struct public_record *own)
{
	*own = (struct public_record){ 0 };
	public_brief(e, out);
	if (!e->v1)
		return 0;
	if (buffers_shared(e, &own->buffers, &out->n_buffers) < 0)
		return -ENOMEM;
	out->buffers = own->buffers;
	return public_keys(e, out, own);
}

void public_record_free(struct public_record *own)
{
	free(own->buffers);
	free(own->keys);
}

int mc_host_segment_json(struct mc_host *h, bool brief, char **json)
{
	struct public_record own = { 0 };
	struct mc_record record;
	int r = 0;

	if (brief)
		public_brief((void *)h, &record);
	else
		r = public_record((void *)h, &record, &own);
	if (!r)
		r = mc_record_encode(&record, json);
	public_record_free(&own);
	return r;
}

bool mc_host_stranger(struct mc_host *h, int fd, const void *first, uint32_t n)
{
	struct mc_engine *e = (void *)h;

	if (!e->v1 || mc_v1_frame_length(first) < 0)
		return false;
	mc_v1_server_take(e->v1, fd, first, n);
	return true;
}

/* ---- what others say of themselves ----------------------------------- */

/* Of a peer: its descriptor, and where its handshake port is. */
struct public_found {
	char *json;
	uint64_t len;
	char addr[MC_ADDR_MAX];
};

/* Has this engine a transport for its own kind? */
static bool public_is_native(const struct mc_engine *e)
{
	for (int i = 0; i < e->n_tr; i++)
		if (e->tr[i].t->strangers != MC_STRANGERS_ONLY)
			return true;
	return false;
}

/* Without a registry the name is the port, which is asked. One of ours is told
 * who we are, and then leaves its buffers out: it is asked for them natively;
 * the public one does not look. */
static int public_ask(struct peer *p, uint64_t deadline_ns,
		      struct public_found *f)
{
	struct mc_v1_call c = { .addr = f->addr, .type = MC_V1_METADATA,
				.json = "{}" };
	char *own = NULL;
	int r = 0;

	mc_copy(f->addr, p->at.name);
	if (public_is_native(p->e))
		r = mc_host_segment_json((void *)p->e, true, &own);
	if (r < 0)
		return r;
	if (own)
		c.json = own;
	r = mc_v1_ask(&c, deadline_ns);
	free(own);
	f->json = c.reply;
	f->len = c.reply_len;
	return r;
}

static int public_read(struct mc_registry *reg, const char *kind,
		       const char *name, char **json, uint64_t *len)
{
	char key[MC_RECORD_KEY_MAX];
	uint64_t version;
	int64_t n = mc_record_key(kind, name, key);

	if (!n)
		n = mc_registry_read(reg, key, json, &version);
	if (n < 0)
		return n;
	*len = n;
	return 0;
}

/* With one, the port is known to one of ours only if it speaks v1. */
static int public_lookup(struct peer *p, struct public_found *f)
{
	struct mc_registry *reg;
	char *place = NULL;
	uint64_t len = 0;
	int r = mc_registry_open(&reg, p->e->opts.registry);

	if (r < 0)
		return r;
	r = public_read(reg, "ram", p->at.name, &f->json, &f->len);
	if (!r && !public_read(reg, "rpc_meta", p->at.name, &place, &len))
		r = mc_v1_place_decode(place, len, f->addr);
	free(place);
	mc_registry_close(reg);
	return r;
}

/* Has this engine a transport for devices of such peers? */
static bool public_has_devices(const struct mc_engine *e)
{
	for (int i = 0; i < e->n_tr; i++)
		if (e->tr[i].t->strangers == MC_STRANGERS_TOO)
			return true;
	return false;
}

/* The port for data is at the host of the other one, unless it says else; "" if
 * it is reached by its devices alone. */
static int public_data_addr(const struct mc_engine *e,
			    const struct public_found *f,
			    const struct mc_v1_segment *s,
			    char addr[MC_ADDR_MAX])
{
	struct mc_net_name at;
	int r;

	if (!f->addr[0])
		return mc_err(-ENOENT, "segment '%s' has no rpc_meta: has its "
			      "engine ended?", s->name);
	r = mc_net_parse(f->addr, -1, &at);
	if (r < 0)
		return r;
	addr[0] = 0;
	if (!s->data_port && s->n_devs && public_has_devices(e))
		return 0;
	if (!s->tcp || !s->data_port)
		return mc_err(-EOPNOTSUPP, "segment '%s' is served by %s, not "
			      "by what this engine has", s->name,
			      s->protocol);
	return mc_net_join(s->data_host[0] ? s->data_host : at.host,
			   s->data_port, addr);
}

/* One of ours says it. */
static uint64_t public_epoch(const struct public_found *f, bool native,
			     const char *data_addr)
{
	uint64_t seed = mc_hash(f->addr, strlen(f->addr), 0);
	struct mc_record record;

	if (native && !mc_record_decode(f->json, f->len, &record))
		return record.epoch;
	return mc_hash(data_addr, strlen(data_addr), seed) | 1;
}

/* The keys are looked for by paths, which hold their locks. */
static void public_keep(struct peer *p, struct mc_v1_segment *s)
{
	struct mc_v1_segment old;

	pthread_mutex_lock(&p->v1_lock);
	old = p->v1;
	p->v1 = *s;
	pthread_mutex_unlock(&p->v1_lock);
	*s = old;
}

/* What was found holds from now on; @s is what was known before, then. */
static int public_install(struct peer *p, const struct public_found *f,
			  struct mc_v1_segment *s)
{
	char data_addr[MC_ADDR_MAX];
	struct desc *d, *old;
	uint64_t epoch, was;
	int r = public_data_addr(p->e, f, s, data_addr);

	if (r < 0)
		return r;
	epoch = public_epoch(f, s->native, data_addr);
	d = desc_new(epoch, s->buf, s->n);
	if (!d)
		return mc_err(-ENOMEM, "out of memory");
	d->matrix = mc_matrix_get(s->matrix);
	pthread_mutex_lock(&p->lock);
	was = p->at.epoch;
	p->at.epoch = epoch;
	p->at.v1_version = s->version;
	p->at.strange = true;
	mc_copy(p->at.addr, f->addr);
	mc_copy(p->at.v1_addr, data_addr);
	old = p->desc;
	p->desc = d;
	pthread_mutex_unlock(&p->lock);
	public_keep(p, s);
	desc_put(old);
	if (was && was != epoch) {
		mc_log(MC_INFO, "engine", "%s was restarted", p->at.name);
		rails_reset(p);
	}
	return 0;
}

/* One of ours: if it was not before, in its place, all is asked anew. */
static void public_native(struct peer *p)
{
	bool was;

	pthread_mutex_lock(&p->lock);
	was = p->at.strange;
	if (was) {
		p->at.strange = false;
		p->at.epoch = 0;
	}
	pthread_mutex_unlock(&p->lock);
	if (was)
		rails_reset(p);
}

int public_refresh(struct peer *p, uint64_t deadline_ns)
{
	struct public_found f = { 0 };
	struct mc_v1_segment s;
	struct mc_peer at = peer_at(p);
	int r;

	/* Once known as one of ours, it is asked as such. */
	if (at.epoch && !at.strange)
		return 1;
	if (publish_is_peer(p->e))
		r = public_ask(p, deadline_ns, &f);
	else
		r = public_lookup(p, &f);
	/* One of ours in the native profile hangs up on such a question. */
	if (r == -ECONNRESET && !at.strange)
		return 1;
	if (!r)
		r = mc_v1_segment_decode(f.json, f.len, &s);
	if (!r) {
		if (s.native && public_is_native(p->e))
			r = 1;
		else
			r = public_install(p, &f, &s);
		mc_v1_segment_free(&s);
	}
	free(f.json);
	if (r == 1)
		public_native(p);
	return r;
}

/* ---- calls ----------------------------------------------------------- */

static int public_notify(struct mc_v1_call *v, const struct wire_call *c,
			 uint64_t deadline_ns)
{
	const char *name = c->msg;
	uint32_t n = strlen(name) + 1, len;
	char answer[MC_NAME_MAX], *json, *msg = NULL;
	int r = mc_v1_notify_encode(name, name + n, c->len - n, &json);

	if (r < 0)
		return r;
	v->type = MC_V1_NOTIFY;
	v->json = json;
	r = mc_v1_ask(v, deadline_ns);
	free(json);
	if (r < 0)
		return r;
	r = mc_v1_notify_decode(v->reply, v->reply_len, answer, &msg, &len);
	if (!r && !len)
		r = mc_err(-EPROTO, "%s rejected the notification", v->addr);
	free(msg);
	free(v->reply);
	return r;
}

int public_call(struct peer *p, struct wire_call *c, uint64_t deadline_ns)
{
	struct mc_peer at = peer_at(p);
	struct mc_v1_call v = { .addr = at.addr, .type = MC_V1_PROBE,
				.json = "{}", .stop = c->stop };
	int r;

	switch (c->kind) {
	case WIRE_NOTIFY:
		return public_notify(&v, c, deadline_ns);
	case WIRE_PING:
		r = mc_v1_ask(&v, deadline_ns);
		free(v.reply);
		return r;
	default:
		return mc_err(-EOPNOTSUPP, "%s speaks only the public "
			      "protocol, which has no such request", at.name);
	}
}

/* ---- connections of devices ------------------------------------------ */

int mc_host_v1_devices(struct mc_host *h, const struct mc_peer *at,
		       struct mc_v1_device out[MC_V1_DEVICES])
{
	struct peer *p = at->engine;
	int n;

	(void)h;
	pthread_mutex_lock(&p->v1_lock);
	n = p->v1.n_devs;
	memcpy(out, p->v1.devs, n * sizeof(*out));
	pthread_mutex_unlock(&p->v1_lock);
	return n;
}

bool mc_host_v1_key(struct mc_host *h, const struct mc_peer *at, uint32_t id,
		    int dev, uint32_t *rkey)
{
	struct peer *p = at->engine;
	bool found;

	(void)h;
	pthread_mutex_lock(&p->v1_lock);
	found = mc_v1_segment_key(&p->v1, id, dev, rkey);
	pthread_mutex_unlock(&p->v1_lock);
	return found;
}

int mc_host_v1_ask(struct mc_host *h, const struct mc_peer *at,
		   const struct mc_meeting *asked, struct mc_meeting *reply,
		   uint64_t deadline_ns)
{
	struct mc_v1_call c = { .addr = at->addr, .type = MC_V1_CONNECTION };
	char *json;
	int r = mc_v1_meeting_encode(asked, &json);

	(void)h;
	if (r < 0)
		return r;
	c.json = json;
	r = mc_v1_ask(&c, deadline_ns);
	if (!r)
		r = mc_v1_meeting_decode(c.reply, c.reply_len, reply);
	free(c.reply);
	free(json);
	return r;
}

struct public_meeting {
	struct mc_engine *e;
	int fd;
	bool old;
	size_t len;
	char json[];
};

static char *public_met(struct public_meeting *m)
{
	const struct engine_transport *tr = public_device_transport(m->e);
	struct mc_meeting asked, reply = { 0 };
	char *json = NULL;

	if (mc_v1_meeting_decode(m->json, m->len, &asked) < 0)
		mc_copy(reply.why, mc_errmsg());
	else if (!tr)
		mc_copy(reply.why, "this engine serves no devices: use tcp");
	else
		tr->t->v1_accept(tr->ctx, &asked, &reply);
	if (reply.why[0])
		mc_log(MC_INFO, "v1", "connection of %s refused: %s",
		       asked.from, reply.why);
	mc_v1_meeting_encode(&reply, &json);
	return json;
}

/* Say it, and wait for the other end to hang up: it does once it has read. */
static void public_meet_task(void *arg)
{
	struct public_meeting *m = arg;
	uint64_t until = mc_clock_ns() + PUBLIC_MEET_MS * (uint64_t)MC_MS;
	struct mc_stream s;
	char *json = public_met(m), byte;

	if (json && !mc_stream_init(&s, m->fd, NULL, true)) {
		if (!mc_v1_frame_send(&s, m->old ? MC_V1_OLD :
				      MC_V1_CONNECTION, json, until))
			mc_stream_read_full(&s, &byte, 1, until);
		mc_stream_fini(&s);
	} else {
		close(m->fd);
	}
	free(json);
	free(m);
}

void mc_host_v1_meet(struct mc_host *h, int fd, bool old, const char *json,
		     size_t len)
{
	struct mc_engine *e = (void *)h;
	struct public_meeting *m = malloc(sizeof(*m) + len);

	if (m) {
		*m = (struct public_meeting){ e, fd, old, len };
		memcpy(m->json, json, len);
	}
	/* Once it is set, the tasks may be gone: see engine_stop(). */
	if (m && !__atomic_load_n(&e->closing, __ATOMIC_ACQUIRE) &&
	    !mc_tasks_run(&e->slow, public_meet_task, m))
		return;
	close(fd);
	free(m);
}
