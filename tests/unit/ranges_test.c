/* ranges_test.c - the container of address ranges, against a plain array. */
#include "../../src/base/ranges.h"

#include "peer.h"

enum { SPACE = 40000 };

/* The model: which node covers each address of a small space. */
static struct mc_node *owner[SPACE];

static struct mc_node *model_clash(uint64_t addr, uint64_t len)
{
	for (uint64_t i = addr; i < addr + len && i < SPACE; i++)
		if (owner[i])
			return owner[i];
	return NULL;
}

static void model_set(struct mc_node *n, struct mc_node *to)
{
	for (uint64_t i = n->addr; i < n->addr + n->len; i++)
		owner[i] = to;
}

static void check_order(const struct mc_ranges *r)
{
	uint64_t i = 0, end = 0;
	struct mc_node *n;

	for (uint32_t k = 0; k < r->n; k++)
		for (uint32_t m = 0; (n = mc_ranges_in(r, k, m)); m++, i++) {
			assert_true(n->addr >= end);
			end = n->addr + n->len;
		}
	assert_int_equal(i, r->count);
	/* By index the same. */
	for (i = 0; i < r->count; i += 97) {
		n = mc_ranges_at(r, i);
		assert_ptr_equal(owner[n->addr], n);
	}
	assert_null(mc_ranges_at(r, r->count));
}

static void random_changes_match_the_model(void **state)
{
	uint64_t seed = 11;
	struct mc_ranges r = { 0 };
	struct mc_node *clash;
	int added = 0;

	(void)state;
	memset(owner, 0, sizeof(owner));
	assert_null(mc_ranges_find(&r, 0));
	for (int i = 0; i < 60000; i++) {
		uint64_t addr = rnd(&seed) % (SPACE - 20);
		/* Grows in the first half, shrinks in the second. */
		bool add = rnd(&seed) % 100 < (i < 30000 ? 80 : 20);
		struct mc_node *n;

		assert_ptr_equal(mc_ranges_find(&r, addr), owner[addr]);
		if (!add) {
			n = owner[addr];
			if (!n)
				continue;
			mc_ranges_del(&r, n);
			model_set(n, NULL);
			free(n);
			continue;
		}
		n = malloc(sizeof(*n));
		*n = (struct mc_node){ addr, 1 + rnd(&seed) % 6 };
		if (model_clash(n->addr, n->len)) {
			assert_int_equal(mc_ranges_add(&r, n, &clash),
					 -EEXIST);
			assert_true(clash->addr < n->addr + n->len &&
				    n->addr < clash->addr + clash->len);
			free(n);
			continue;
		}
		assert_int_equal(mc_ranges_add(&r, n, &clash), 0);
		model_set(n, n);
		added++;
		if (i % 1000 == 0)
			check_order(&r);
	}
	check_order(&r);
	assert_true(added > 10000);
	while (r.count) {
		struct mc_node *n = mc_ranges_at(&r, r.count / 2);

		mc_ranges_del(&r, n);
		free(n);
	}
	assert_int_equal(r.n, 0);
	mc_ranges_fini(&r);
}

/* Ascending, descending, and inside out. */
static void any_order_goes_in(void **state)
{
	enum { N = 5000 };
	static struct mc_node nodes[N];
	struct mc_node *clash;

	(void)state;
	for (int order = 0; order < 3; order++) {
		struct mc_ranges r = { 0 };

		for (int i = 0; i < N; i++) {
			int at = order == 0 ? i : order == 1 ? N - 1 - i :
				 i % 2 ? N / 2 + i / 2 : N / 2 - 1 - i / 2;

			nodes[at] = (struct mc_node){ at * 8ul, 8 };
			assert_int_equal(mc_ranges_add(&r, &nodes[at],
						       &clash), 0);
		}
		for (int i = 0; i < N; i++) {
			assert_ptr_equal(mc_ranges_at(&r, i), &nodes[i]);
			assert_ptr_equal(mc_ranges_find(&r, i * 8ul + 7),
					 &nodes[i]);
		}
		assert_null(mc_ranges_find(&r, N * 8ul));
		mc_ranges_fini(&r);
	}
}

static void the_ends_of_the_address_space_are_found(void **state)
{
	struct mc_node low = { 0, 16 }, high = { UINT64_MAX - 15, 15 };
	struct mc_node huge = { 1ull << 40, 1ull << 41 };
	struct mc_ranges r = { 0 };
	struct mc_node *clash;

	(void)state;
	assert_int_equal(mc_ranges_add(&r, &high, &clash), 0);
	assert_int_equal(mc_ranges_add(&r, &low, &clash), 0);
	assert_int_equal(mc_ranges_add(&r, &huge, &clash), 0);
	assert_ptr_equal(mc_ranges_find(&r, 0), &low);
	assert_ptr_equal(mc_ranges_find(&r, 15), &low);
	assert_null(mc_ranges_find(&r, 16));
	assert_ptr_equal(mc_ranges_find(&r, (1ull << 40) + (1ull << 41) - 1),
			 &huge);
	assert_null(mc_ranges_find(&r, (1ull << 40) + (1ull << 41)));
	assert_ptr_equal(mc_ranges_find(&r, UINT64_MAX - 1), &high);
	assert_null(mc_ranges_find(&r, UINT64_MAX));
	mc_ranges_fini(&r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(random_changes_match_the_model),
		cmocka_unit_test(any_order_goes_in),
		cmocka_unit_test(the_ends_of_the_address_space_are_found),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
