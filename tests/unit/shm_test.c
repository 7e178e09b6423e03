/*
 * shm_test.c - the shm and local transports: between two engines of this
 * process, and between this and another that may stop, die or lie.
 */
#include "shm_host.h"

/* ---- memory ---------------------------------------------------------- */

static void memory_keeps_its_size(void **state)
{
	uint64_t mapped;
	void *addr = NULL, *other;
	int fd = -1;

	(void)state;
	assert_int_equal(mc_memfd_alloc(0, 0, -1, &addr, &mapped, &fd),
			 -EINVAL);
	assert_int_equal(mc_memfd_alloc(1ull << 62, 0, -1, &addr, &mapped,
					&fd), -ENOMEM);
	assert_int_equal(mc_memfd_alloc(4096, 0, 1000, &addr, &mapped, &fd),
			 -EINVAL);
	assert_int_equal(mc_memfd_alloc(3 * MIB + 1, MC_ALLOC_HUGE |
					MC_ALLOC_POPULATE, 0, &addr, &mapped,
					&fd), 0);
	assert_in_range(mapped, 3 * MIB + 1, 4 * MIB);
	assert_true(mc_memfd_check(fd, mapped) > 0);
	assert_int_equal(mc_memfd_check(fd, mapped + 1), -EPROTO);
	assert_int_equal(ftruncate(fd, 4096), -1);
	assert_int_equal(ftruncate(fd, 2 * mapped), -1);
	other = mmap(NULL, mapped, PROT_READ, MAP_SHARED, fd, 0);
	((char *)addr)[3 * MIB] = 'x';
	assert_int_equal(((char *)other)[3 * MIB], 'x');
	mc_memfd_discard(fd, mapped);
	assert_int_equal(((char *)other)[3 * MIB], 0);
	munmap(other, mapped);
	mc_memfd_free(addr, mapped, fd);
	mc_memfd_free(NULL, 0, -1);
}

/* ---- local ----------------------------------------------------------- */

static void local_checks_and_moves(void **state)
{
	struct mc_host h = { .name = "me", .epoch = 5 };
	struct mc_peer self = peer_of(&h), other = { .epoch = 6 };
	char mem[8192] = "", *data = malloc(3 * MIB), *big = malloc(3 * MIB);
	struct mc_buffer_info b = { .addr = (uintptr_t)mem, .len = 4096,
				    .id = 1, .access = MC_REMOTE_RW };
	struct mc_buffer_info ro = { .addr = (uintptr_t)mem + 4096,
				     .len = 4096, .id = 2,
				     .access = MC_REMOTE_READ };
	struct mc_buffer_info l = { .addr = (uintptr_t)big, .len = 3 * MIB,
				    .id = 3, .access = MC_REMOTE_WRITE };
	struct mc_path *p;
	void *ctx = NULL;

	(void)state;
	memset(data, 'x', 3 * MIB);
	assert_int_equal(tested_local.open(&ctx, &h, NULL), 0);
	assert_int_equal(tested_local.connect(ctx, &other, 0, 0, &p),
			 -EOPNOTSUPP);
	assert_int_equal(tested_local.connect(ctx, &self, 0, 0, &p), 0);
	p->transport = &tested_local;
	assert_int_equal(tested_local.reg(ctx, &b, -1, 0), 0);
	assert_int_equal(tested_local.reg(ctx, &ro, -1, 0), 0);
	assert_int_equal(tested_local.reg(ctx, &l, -1, 0), 0);
	assert_int_equal(copy_one(p, MC_WRITE, data, &b, 1, 4095), 0);
	assert_memory_equal(mem + 1, data, 4095);
	assert_int_equal(mem[0] | mem[4096], 0);
	assert_int_equal(copy_one(p, MC_WRITE, data, &b, 1, 4096), -EFAULT);
	assert_int_equal(copy_one(p, MC_WRITE, data, &b, -1, 1), -EFAULT);
	assert_int_equal(copy_one(p, MC_WRITE, data, &ro, 0, 1), -EACCES);
	assert_int_equal(copy_one(p, MC_READ, data, &ro, 0, 4096), 0);
	assert_int_equal(copy_one(p, MC_WRITE, data, &l, 0, 3 * MIB), 0);
	assert_memory_equal(big, data, 3 * MIB);
	assert_int_equal(copy_one(p, MC_READ, data, &l, 0, 1), -EACCES);
	assert_int_equal(tested_local.unreg(ctx, &b), 0);
	assert_int_equal(copy_one(p, MC_WRITE, data, &b, 0, 1), -ESTALE);
	tested_local.abort(p, 0);
	assert_int_equal(copy_one(p, MC_WRITE, data, &l, 0, 1), -ESHUTDOWN);
	tested_local.disconnect(p);
	tested_local.close(ctx);
	free(data);
	free(big);
}

/* ---- two engines, one process ---------------------------------------- */

static void moves_every_size(void **state)
{
	static const uint32_t sizes[] = { 0, 1, 4095, 4096, 4097, MIB - 1, MIB,
					  MIB + 1, 5 * MIB + 3 };
	struct two *t = *state;
	char *data = malloc(8 * MIB), *back = malloc(8 * MIB);

	mc_fill(data, 8 * MIB, 1);
	for (int kind = 0; kind < 2; kind++) {
		struct mc_buffer_info b = (kind ? reg_plain : reg_alloc)
					  (&t->b, 8 * MIB, MC_REMOTE_RW);
		uint8_t *mem = (void *)b.addr;

		for (unsigned i = 0; i < mc_array_len(sizes); i++) {
			uint32_t n = sizes[i];

			memset(mem, 0, 8 * MIB);
			memset(back, 0, n + 1);
			assert_int_equal(copy_one(t->path, MC_WRITE, data, &b,
						  13, n), 0);
			assert_memory_equal(mem + 13, data, n);
			assert_int_equal(mem[12] | mem[13 + n], 0);
			assert_int_equal(copy_one(t->path, MC_READ, back, &b,
						  13, n), 0);
			assert_memory_equal(back, data, n);
			assert_int_equal(back[n], 0);
		}
	}
	assert_int_equal(t->a.asked, 3);
	free(data);
	free(back);
}

/* Pieces of many buffers of both kinds, shuffled, in one call. */
static void mixes_both_kinds(void **state)
{
	enum { N = 3000, B = 24 };
	struct two *t = *state;
	struct mc_buffer_info b[B];
	struct mc_piece *pc = calloc(N, sizeof(*pc));
	char *data = malloc(N * 64);

	mc_fill(data, N * 64, 2);
	for (int i = 0; i < B; i++)
		b[i] = (i % 5 < 2 ? reg_plain : reg_alloc)(&t->b, N * 64,
							    MC_REMOTE_RW);
	for (uint32_t i = 0; i < N; i++)
		pc[i] = (struct mc_piece){ data + i * 64,
			b[i / 7 % B].addr + i * 64, i % 65, b[i / 7 % B].id };
	assert_int_equal(tested_shm.copy(t->path, MC_WRITE, pc, N), 0);
	for (uint32_t i = 0; i < N; i++)
		assert_memory_equal((void *)pc[i].remote, data + i * 64,
				    i % 65);
	free(pc);
	free(data);
}

static void refuses_what_is_not_admitted(void **state)
{
	struct two *t = *state;
	struct mc_buffer_info ro = reg_alloc(&t->b, MIB, MC_REMOTE_READ);
	struct mc_buffer_info wo = reg_plain(&t->b, MIB, MC_REMOTE_WRITE);
	struct mc_buffer_info own = reg_alloc(&t->b, MIB, MC_LOCAL);
	struct shm_path *p = mc_container_of(t->path, struct shm_path, base);
	struct shm_map *m;
	char c = 1;

	assert_int_equal(copy_one(t->path, MC_READ, &c, &ro, MIB - 1, 1), 0);
	assert_int_equal(c, 0);
	assert_int_equal(copy_one(t->path, MC_WRITE, &c, &ro, 0, 1), -EACCES);
	assert_int_equal(copy_one(t->path, MC_READ, &c, &wo, 0, 1), -EACCES);
	assert_int_equal(copy_one(t->path, MC_READ, &c, &own, 0, 1), -ESTALE);
	assert_int_equal(copy_one(t->path, MC_READ, &c, &ro, MIB, 1), -EFAULT);
	assert_int_equal(copy_one(t->path, MC_READ, &c, &ro, MIB - 1, 2),
			 -EFAULT);
	assert_int_equal(copy_one(t->path, MC_READ, &c, &ro, -1, 1), -EFAULT);
	assert_int_equal(copy_one(t->path, MC_WRITE, &c, &wo, 0, UINT32_MAX),
			 -EFAULT);
	/* Not even by force: the kernel holds the seal. */
	m = mc_ids_find(&p->maps, ro.id);
	assert_int_equal(mprotect(m->base, m->base_len, PROT_WRITE), -1);
	assert_int_equal(mprotect((void *)p->control, 4096, PROT_WRITE), -1);
}

static void refuses_what_was_taken_back(void **state)
{
	struct two *t = *state;
	char c = 1;

	for (int kind = 0; kind < 2; kind++) {
		struct mc_buffer_info b = (kind ? reg_plain : reg_alloc)
					  (&t->b, 4096, MC_REMOTE_RW);

		assert_int_equal(copy_one(t->path, MC_WRITE, &c, &b, 0, 1), 0);
		assert_int_equal(tested_shm.unreg(t->b.ctx, &b), 0);
		for (int i = 0; i < 3; i++)
			assert_int_equal(copy_one(t->path, MC_WRITE, &c, &b, 0,
						  1), -ESTALE);
		assert_non_null(strstr(mc_errmsg(), "shm: b: buffer"));
		/* The same memory under a new id. */
		b = reg_memory(&t->b, (void *)b.addr, 4096, MC_REMOTE_RW, -1);
		assert_int_equal(copy_one(t->path, MC_WRITE, &c, &b, 0, 1), 0);
	}
}

static void unmaps_what_was_taken_back(void **state)
{
	enum { N = 300 };
	struct two *t = *state;
	struct shm_path *p = mc_container_of(t->path, struct shm_path, base);
	char c = 1;

	for (int i = 0; i < N; i++) {
		struct mc_buffer_info b = reg_memory(&t->b, &c, 1,
						     MC_REMOTE_RW, -1);
		char got;

		assert_int_equal(copy_one(t->path, MC_READ, &got, &b, 0, 1), 0);
		assert_int_equal(tested_shm.unreg(t->b.ctx, &b), 0);
	}
	assert_in_range(p->maps.n, 1, 64);
	assert_in_range(((struct shm_ctx *)t->b.ctx)->next_gen, 1, 1);
}

static void registers_many(void **state)
{
	enum { N = 100000 };
	struct two *t = *state;
	char *mem = calloc(1, N), c = 5;
	struct mc_buffer_info b = { .len = 1, .access = MC_REMOTE_RW };

	for (uint32_t i = 1; i <= N; i++) {
		b.addr = (uintptr_t)mem + i - 1;
		b.id = i;
		assert_int_equal(tested_shm.reg(t->b.ctx, &b, -1, 0), 0);
	}
	for (uint32_t i = 1; i <= N; i += 99) {
		b.addr = (uintptr_t)mem + i - 1;
		b.id = i;
		assert_int_equal(copy_one(t->path, MC_WRITE, &c, &b, 0, 1), 0);
	}
	for (uint32_t i = 1; i <= N; i++) {
		b.id = i;
		assert_int_equal(tested_shm.unreg(t->b.ctx, &b), 0);
		assert_int_equal(mem[i - 1], i % 99 == 1 ? 5 : 0);
	}
	free(mem);
}

static void says_what_is_out_of_reach(void **state)
{
	struct two *t = *state;
	struct shm_path *p = mc_container_of(t->path, struct shm_path, base);
	void *hole = mmap(NULL, 8192, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct mc_buffer_info b = reg_memory(&t->b, hole, 8192, MC_REMOTE_RW,
					     -1);
	char c[8192];

	munmap((char *)hole + 4096, 4096);
	assert_int_equal(copy_one(t->path, MC_WRITE, c, &b, 0, 4096), 0);
	assert_int_equal(copy_one(t->path, MC_WRITE, c, &b, 0, 8192), -EFAULT);
	assert_non_null(strstr(mc_errmsg(), "shm: b: no memory at 0x"));
	p->cma.pid = 0;
	snprintf(p->cma.why, sizeof(p->cma.why), "because");
	assert_int_equal(copy_one(t->path, MC_WRITE, c, &b, 0, 1),
			 -EOPNOTSUPP);
	assert_non_null(strstr(mc_errmsg(), "cannot be reached: because"));
	munmap(hole, 4096);
}

static void connects_to_its_host_only(void **state)
{
	struct two *t = *state;
	struct mc_peer peer = peer_of(&t->b);
	struct mc_path *path;

	peer.host_id = 8;
	assert_int_equal(tested_shm.connect(t->a.ctx, &peer, 0, 0, &path),
			 -EOPNOTSUPP);
	assert_string_equal(mc_errmsg(), "shm: b is not on this host");
	peer = peer_of(&t->b);
	peer.epoch = 3;
	assert_int_equal(tested_shm.connect(t->a.ctx, &peer, 0, 0, &path),
			 -ESTALE);
	peer = peer_of(&t->a);
	assert_int_equal(tested_shm.connect(t->a.ctx, &peer, 0, 0, &path),
			 -EOPNOTSUPP);
}

static void ends_with_the_engine(void **state)
{
	struct two *t = *state;
	struct mc_buffer_info b = reg_alloc(&t->b, MIB, MC_REMOTE_RW);
	char c = 1;

	assert_int_equal(copy_one(t->path, MC_WRITE, &c, &b, 0, 1), 0);
	tested_shm.close(t->b.ctx);
	t->b.ctx = NULL;
	assert_int_equal(copy_one(t->path, MC_WRITE, &c, &b, 0, 1),
			 -EHOSTDOWN);
	assert_string_equal(mc_errmsg(), "shm: b: its engine was closed");
}

static void ends_with_the_connection(void **state)
{
	struct two *t = *state;
	struct shm_ctx *s = t->b.ctx;
	struct mc_buffer_info b = reg_alloc(&t->b, MIB, MC_REMOTE_RW);
	char c = 1;

	assert_int_equal(copy_one(t->path, MC_WRITE, &c, &b, 0, 1), 0);
	assert_int_equal(s->n_attached, 1);
	tested_shm.gone(t->b.ctx, CONN + 1);
	assert_int_equal(s->n_attached, 1);
	tested_shm.gone(t->b.ctx, CONN);
	assert_int_equal(s->n_attached, 0);
	assert_int_equal(copy_one(t->path, MC_WRITE, &c, &b, 0, 1),
			 -EHOSTDOWN);
	/* The next path, which is then given up, leaves nothing behind. */
	for (int i = 0; i < 3; i++) {
		tested_shm.disconnect(t->path);
		t->path = join(&t->a, &t->b);
		assert_int_equal(s->n_attached, 1);
		assert_int_equal(copy_one(t->path, MC_WRITE, &c, &b, 0, 1), 0);
	}
	tested_shm.abort(t->path, 0);
	assert_int_equal(copy_one(t->path, MC_WRITE, &c, &b, 0, 1),
			 -ESHUTDOWN);
}

/* ---- threads --------------------------------------------------------- */

enum { RACERS = 3, RACE = MIB + 65536 };

/* Each writes a part of the buffer of its own. */
struct racer {
	struct mc_path *path;
	uint64_t addr;
	const uint32_t *id;		/* atomic; 0: stop */
	uint64_t copied;
};

static void *race(void *arg)
{
	struct racer *c = arg;
	char *data = malloc(RACE);
	uint32_t id;

	memset(data, 'r', RACE);
	while ((id = __atomic_load_n(c->id, __ATOMIC_RELAXED))) {
		struct mc_piece pc[2] = { { data, c->addr, RACE - 64, id },
			{ data, c->addr + RACE - 64, 64, id } };
		int r = tested_shm.copy(c->path, MC_WRITE, pc, 2);

		c->copied += !r;
		if (r && r != -ESTALE)
			break;
	}
	free(data);
	return NULL;
}

/* Take the buffer back, look if anything still arrives, and offer it again. */
static void race_unreg(struct mc_host *h, struct mc_buffer_info *b, int fd,
		       uint32_t *id)
{
	uint8_t *mem = (void *)b->addr;

	for (int i = 0; i < 25; i++) {
		usleep(2000);
		assert_int_equal(tested_shm.unreg(h->ctx, b), 0);
		memset(mem, 'm', b->len);
		usleep(300);
		assert_memory_equal(mem, mem + 1, b->len - 1);
		*b = reg_memory(h, mem, b->len, MC_REMOTE_RW, fd);
		__atomic_store_n(id, b->id, __ATOMIC_RELAXED);
	}
	__atomic_store_n(id, 0, __ATOMIC_RELAXED);
}

static void nothing_is_written_after_unreg(void **state)
{
	struct two *t = *state;
	struct shm_ctx *s = t->b.ctx;

	for (int kind = 0; kind < 2; kind++) {
		struct mc_buffer_info b = (kind ? reg_plain : reg_alloc)
				(&t->b, RACERS * RACE, MC_REMOTE_RW);
		struct shm_buffer *own = mc_ids_find(&s->ids, b.id);
		struct racer c[RACERS];
		pthread_t threads[RACERS];
		uint64_t copied = 0;
		uint32_t id = b.id;

		for (int i = 0; i < RACERS; i++) {
			c[i] = (struct racer){ t->path, b.addr + i * RACE, &id,
					       0 };
			pthread_create(&threads[i], NULL, race, &c[i]);
		}
		race_unreg(&t->b, &b, own->fd, &id);
		for (int i = 0; i < RACERS; i++) {
			pthread_join(threads[i], NULL);
			copied += c[i].copied;
		}
		assert_true(copied > 0);
		tested_shm.unreg(t->b.ctx, &b);
	}
}

/* ---- lies ------------------------------------------------------------ */

static unsigned lie_seed;
static int lie_fd = -1;

static void lie_spoil(struct mc_blob *reply, int *fds)
{
	(void)fds;
	for (int i = rand_r(&lie_seed) % 4; i >= 0; i--)
		reply->data[rand_r(&lie_seed) % reply->len] =
			rand_r(&lie_seed);
	if (rand_r(&lie_seed) % 8 == 0)
		reply->len = rand_r(&lie_seed) % MC_BLOB_MAX;
}

static void survives_answers_of_any_kind(void **state)
{
	struct two *t = *state;
	struct mc_buffer_info b[6];
	struct mc_peer peer = peer_of(&t->b);
	char data[64];

	for (int i = 0; i < 6; i++)
		b[i] = (i % 2 ? reg_plain : reg_alloc)(&t->b, 4096,
						       MC_REMOTE_READ);
	t->a.spoil = lie_spoil;
	for (lie_seed = 1; lie_seed < 400; lie_seed++) {
		unsigned seed = lie_seed;
		struct mc_path *path;

		if (!tested_shm.connect(t->a.ctx, &peer, 0, 0, &path)) {
			for (int i = 0; i < 6; i++)
				copy_one(path, MC_READ, data, &b[i], 5, 64);
			tested_shm.disconnect(path);
		}
		lie_seed = seed;
	}
	t->a.spoil = NULL;
}

static void lie_shrinks(struct mc_blob *reply, int *fds)
{
	(void)reply;
	close(fds[0]);
	fds[0] = dup(lie_fd);
}

static void maps_nothing_that_may_shrink(void **state)
{
	struct two *t = *state;
	struct shm_path *p = mc_container_of(t->path, struct shm_path, base);
	struct mc_buffer_info b = reg_alloc(&t->b, 4096, MC_REMOTE_RW);
	struct mc_peer peer = peer_of(&t->b);
	struct mc_path *path;
	struct shm_map *m;
	char c = 3;

	lie_fd = memfd_create("loose", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	assert_int_equal(ftruncate(lie_fd, 64 * MIB), 0);
	t->a.spoil = lie_shrinks;
	assert_int_equal(tested_shm.connect(t->a.ctx, &peer, 0, 0, &path),
			 -EPROTO);
	/* A buffer is then reached the other way. */
	assert_int_equal(copy_one(t->path, MC_WRITE, &c, &b, 0, 1), 0);
	m = mc_ids_find(&p->maps, b.id);
	assert_null(m->mem);
	t->a.spoil = NULL;
	close(lie_fd);
}

static void lie_born_later(struct mc_blob *reply, int *fds)
{
	(void)fds;
	reply->data[offsetof(struct shm_attached, start)]++;
}

static void lie_other_word(struct mc_blob *reply, int *fds)
{
	(void)fds;
	reply->data[offsetof(struct shm_attached, probe)]++;
}

static void trusts_no_pid_without_proof(void **state)
{
	struct two *t = *state;
	struct mc_buffer_info b = reg_plain(&t->b, 4096, MC_REMOTE_RW);
	char c = 3;

	for (int i = 0; i < 2; i++) {
		tested_shm.disconnect(t->path);
		t->a.spoil = i ? lie_born_later : lie_other_word;
		t->path = join(&t->a, &t->b);
		t->a.spoil = NULL;
		assert_int_equal(copy_one(t->path, MC_WRITE, &c, &b, 0, 1),
				 -EOPNOTSUPP);
		assert_non_null(strstr(mc_errmsg(), "not the one that"));
	}
}

/* ---- two processes --------------------------------------------------- */

static void moves_between_processes(void **state)
{
	struct pair *t = *state;
	struct mc_path *path = join(&t->h, &t->child);
	char *data = malloc(3 * MIB);

	for (int kind = ALLOC; kind <= PLAIN; kind++) {
		struct mc_buffer_info b = ask_buffer(t, kind, 3 * MIB,
						     MC_REMOTE_RW);

		memset(data, 'p', 3 * MIB);
		assert_int_equal(copy_one(path, MC_WRITE, data, &b, 0,
					  3 * MIB), 0);
		assert_int_equal(ask(t, CHECK, b.addr, b.len, 'p').r, 0);
		ask(t, FILL, b.addr, b.len, 'q');
		assert_int_equal(copy_one(path, MC_READ, data, &b, 7, MIB), 0);
		assert_int_equal(data[0] + data[MIB - 1], 'q' * 2);
		assert_int_equal(ask(t, UNREG, b.addr, 0, b.id).r, 0);
		assert_int_equal(copy_one(path, MC_READ, data, &b, 7, MIB),
				 -ESTALE);
	}
	ask(t, CLOSE, 0, 0, 0);
	assert_int_equal(copy_one(path, MC_READ, data, &(struct mc_buffer_info){
				  .addr = 1, .id = 1 }, 0, 1), -EHOSTDOWN);
	tested_shm.disconnect(path);
	free(data);
}

static void notices_a_killed_peer(void **state)
{
	struct pair *t = *state;
	char *data = calloc(1, MIB);

	for (int kind = ALLOC; kind <= PLAIN; kind++) {
		struct mc_path *path = join(&t->h, &t->child);
		struct mc_buffer_info b = ask_buffer(t, kind, MIB,
						     MC_REMOTE_RW);
		uint64_t start;
		int r;

		assert_int_equal(copy_one(path, MC_WRITE, data, &b, 0, MIB),
				 0);
		kill(t->h.pid, SIGKILL);
		start = mc_clock_ns();
		do {
			r = copy_one(path, MC_WRITE, data, &b, 0, 4096);
		} while (!r && mc_clock_ns() - start < 1000 * MC_MS);
		assert_int_equal(r, -EHOSTDOWN);
		assert_string_equal(mc_errmsg(),
				    "shm: child: its process has ended");
		assert_true(mc_clock_ns() - start < 200 * MC_MS);
		tested_shm.disconnect(path);
		pair_teardown(state);
		pair_setup(state);
		t = *state;
	}
	free(data);
}

/* The peer stands in the middle of a copy, and then goes on or dies. */
static void unreg_waits_for_a_stopped_peer(void **state)
{
	struct pair *t = *state;
	struct mc_buffer_info b = reg_alloc(&t->h, MIB, MC_REMOTE_RW);
	struct mc_buffer_info b2 = reg_alloc(&t->h, MIB, MC_REMOTE_RW);
	char who[64];
	uint64_t start;

	ask(t, CONNECT, 0, 0, 0);
	assert_int_equal(ask(t, COPY, b.addr, MIB, b.id).r, 0);
	assert_int_equal(((char *)b.addr)[MIB - 1], 'c');
	assert_int_equal(ask(t, STOP_INSIDE, 0, 0, 0).r, 0);
	start = mc_clock_ns();
	assert_int_equal(tested_shm.unreg(t->h.ctx, &b), -EBUSY);
	assert_in_range(mc_clock_ns() - start, 900 * MC_MS, 1400 * MC_MS);
	snprintf(who, sizeof(who), "child (process %d) is stopped", t->h.pid);
	assert_non_null(strstr(mc_errmsg(), who));
	kill(t->h.pid, SIGCONT);
	assert_int_equal(ask(t, LEAVE, 0, 0, 0).r, 0);
	/* It stayed registered. */
	assert_int_equal(ask(t, COPY, b.addr, MIB, b.id).r, 0);
	assert_int_equal(tested_shm.unreg(t->h.ctx, &b), 0);
	assert_int_equal(ask(t, COPY, b.addr, MIB, b.id).r, -ESTALE);
	assert_int_equal(ask(t, STOP_INSIDE, 0, 0, 0).r, 0);
	tested_shm.gone(t->h.ctx, CONN);
	assert_int_equal(((struct shm_ctx *)t->h.ctx)->n_attached, 1);
	kill(t->h.pid, SIGKILL);
	start = mc_clock_ns();
	assert_int_equal(tested_shm.unreg(t->h.ctx, &b2), 0);
	assert_true(mc_clock_ns() - start < 500 * MC_MS);
}

int main(void)
{
#define TWO(f) cmocka_unit_test_setup_teardown(f, two_setup, two_teardown)
#define PAIR(f) cmocka_unit_test_setup_teardown(f, pair_setup, pair_teardown)
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(memory_keeps_its_size),
		cmocka_unit_test(local_checks_and_moves),
		PAIR(moves_between_processes),
		PAIR(notices_a_killed_peer),
		PAIR(unreg_waits_for_a_stopped_peer),
		TWO(moves_every_size),
		TWO(mixes_both_kinds),
		TWO(refuses_what_is_not_admitted),
		TWO(refuses_what_was_taken_back),
		TWO(unmaps_what_was_taken_back),
		TWO(registers_many),
		TWO(says_what_is_out_of_reach),
		TWO(connects_to_its_host_only),
		TWO(ends_with_the_engine),
		TWO(ends_with_the_connection),
		TWO(nothing_is_written_after_unreg),
		TWO(survives_answers_of_any_kind),
		TWO(maps_nothing_that_may_shrink),
		TWO(trusts_no_pid_without_proof),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
