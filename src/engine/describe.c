/* describe.c - what an engine knows of a peer's buffers. */
#include "describe.h"

#include "engine.h"

struct desc *desc_new(uint64_t epoch, const struct mc_buffer_info *buf,
		      uint64_t n)
{
	struct desc *d = calloc(1, sizeof(*d) + n * sizeof(*buf));

	if (!d)
		return NULL;
	*d = (struct desc){ .refs = 1, .epoch = epoch, .n = n };
	for (uint64_t i = 0; i < n; i++) {
		d->buf[i] = buf[i];
		d->bytes += buf[i].len;
	}
	return d;
}

struct desc *desc_get_at(struct peer *p, bool *current)
{
	struct desc *d;

	pthread_mutex_lock(&p->lock);
	d = p->desc;
	if (d)
		__atomic_add_fetch(&d->refs, 1, __ATOMIC_RELAXED);
	*current = d && d->epoch == p->at.epoch;
	pthread_mutex_unlock(&p->lock);
	return d;
}

struct desc *desc_get(struct peer *p)
{
	bool current;

	return desc_get_at(p, &current);
}

void desc_put(struct desc *d)
{
	if (!d || __atomic_sub_fetch(&d->refs, 1, __ATOMIC_ACQ_REL))
		return;
	mc_matrix_put(d->matrix);
	free(d);
}

const struct mc_buffer_info *desc_find(const struct desc *d, uint64_t addr,
				       uint64_t len, uint64_t *hint)
{
	const struct mc_buffer_info *b;
	uint64_t lo = 0, hi = d->n;

	if (*hint < d->n && addr - d->buf[*hint].addr < d->buf[*hint].len) {
		b = &d->buf[*hint];
		return len <= b->len - (addr - b->addr) ? b : NULL;
	}
	while (lo < hi) {
		uint64_t mid = (lo + hi) / 2;

		if (d->buf[mid].addr <= addr)
			lo = mid + 1;
		else
			hi = mid;
	}
	if (!lo)
		return NULL;
	b = &d->buf[lo - 1];
	if (addr - b->addr >= b->len || len > b->len - (addr - b->addr))
		return NULL;
	*hint = lo - 1;
	return b;
}

static int desc_compare_id(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

static int desc_compare_addr(const void *a, const void *b)
{
	const struct mc_buffer_info *x = a, *y = b;

	return x->addr < y->addr ? -1 : x->addr > y->addr;
}

/* Everything a peer says is checked: sizes add up, strings end, and ranges
 * neither wrap nor overlap (desc_check()). */
static int desc_parse(const void *msg, uint32_t len, struct describe_head *h)
{
	uint64_t need, addrs;

	if (len < sizeof(*h))
		return mc_err(-EPROTO, "short descriptor");
	memcpy(h, msg, sizeof(*h));
	addrs = sizeof(*h) + h->n_add * (uint64_t)sizeof(struct mc_buffer_info)
		+ h->n_del * (uint64_t)sizeof(uint32_t);
	need = addrs + h->addrs_len + h->matrix_len;
	if (need != len || (h->addrs_len &&
			    ((const char *)msg)[addrs + h->addrs_len - 1]))
		return mc_err(-EPROTO, "malformed descriptor");
	return 0;
}

static void desc_addrs(const char *s, uint32_t len,
		       char addrs[4][MC_ADDR_MAX], int *n_addrs)
{
	*n_addrs = 0;
	for (uint32_t i = 0; i < len && *n_addrs < 4; i += strlen(s + i) + 1)
		mc_copy(addrs[(*n_addrs)++], s + i);
}

/* Merge two lists by address, leaving out what is gone or replaced. */
static void desc_fill(struct desc *d, const struct desc *old,
		      const struct mc_buffer_info *add, uint32_t n_add,
		      const uint32_t *del, uint32_t n_del)
{
	uint32_t k = 0;

	for (uint64_t i = 0; old && i < old->n; i++) {
		const struct mc_buffer_info *b = &old->buf[i];

		if (bsearch(&b->id, del, n_del, sizeof(*del), desc_compare_id))
			continue;
		while (k < n_add && add[k].addr < b->addr)
			d->buf[d->n++] = add[k++];
		if (k < n_add && add[k].addr == b->addr)
			continue;
		d->buf[d->n++] = *b;
	}
	while (k < n_add)
		d->buf[d->n++] = add[k++];
	for (uint64_t i = 0; i < d->n; i++) {
		d->buf[i].location[sizeof(d->buf[i].location) - 1] = 0;
		d->bytes += d->buf[i].len;
	}
}

/* It comes with the whole table, and never changes. */
static int desc_matrix(struct desc *d, const struct desc *old,
		       const char *json, uint32_t len)
{
	if (!len) {
		d->matrix = old ? mc_matrix_get(old->matrix) : NULL;
		return 0;
	}
	return mc_matrix_parse(&d->matrix, json, len) < 0 ?
	       mc_err(-EPROTO, "malformed descriptor: no matrix of devices") :
	       0;
}

/* By address, so that each ends before the next one begins. */
static int desc_check(const struct desc *d)
{
	for (uint64_t i = 0; i < d->n; i++) {
		const struct mc_buffer_info *b = &d->buf[i];

		if (!b->len || b->len - 1 > UINT64_MAX - b->addr ||
		    (i + 1 < d->n && b[1].addr - b->addr < b->len))
			return mc_err(-EPROTO, "malformed descriptor: buffer "
				      "%u at %#llx is empty, wraps or overlaps",
				      b->id, (long long)b->addr);
	}
	return 0;
}

int desc_merge(const struct desc *old, uint64_t epoch, const void *msg,
	       uint32_t len, struct desc **out, char addrs[4][MC_ADDR_MAX],
	       int *n_addrs)
{
	struct mc_buffer_info *add;
	struct describe_head h;
	const char *end;
	struct desc *d;
	uint32_t *del;
	int r = desc_parse(msg, len, &h);

	if (r < 0)
		return r;
	if (!h.since || (old && old->epoch != epoch))
		old = NULL;
	if (h.since && (!old || old->version != h.since))
		return mc_err(-EPROTO, "a descriptor since version %llu, which "
			      "was not asked for", (long long)h.since);
	d = calloc(1, sizeof(*d) + ((old ? old->n : 0) + h.n_add) *
		   sizeof(*add));
	add = malloc(h.n_add * sizeof(*add) + 1);
	del = malloc(h.n_del * sizeof(*del) + 1);
	if (!d || !add || !del) {
		free(d);
		r = mc_err(-ENOMEM, "out of memory");
		goto free_lists;
	}
	memcpy(add, (const char *)msg + sizeof(h), h.n_add * sizeof(*add));
	memcpy(del, (const char *)msg + sizeof(h) + h.n_add * sizeof(*add),
	       h.n_del * sizeof(*del));
	qsort(add, h.n_add, sizeof(*add), desc_compare_addr);
	qsort(del, h.n_del, sizeof(*del), desc_compare_id);
	*d = (struct desc){ .refs = 1, .epoch = epoch, .version = h.version };
	desc_fill(d, old, add, h.n_add, del, h.n_del);
	end = (const char *)msg + len - h.matrix_len;
	r = desc_check(d);
	if (!r)
		r = desc_matrix(d, old, end, h.matrix_len);
	if (r < 0) {
		free(d);
		goto free_lists;
	}
	desc_addrs(end - h.addrs_len, h.addrs_len, addrs, n_addrs);
	*out = d;
free_lists:
	free(add);
	free(del);
	return r;
}
