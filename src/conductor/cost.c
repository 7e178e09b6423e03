/*
 * cost.c - how long an instance computes; mooncake.h has the formulas.
 *
 * Where the coefficients come from is the business of mooncake.costs.
 */
#include <mooncake.h>
#include "../base/util.h"

double mc_cost_prefill_s(const struct mc_cost *c, double tokens,
			 double prefix)
{
	/* (p + n)^2 - p^2, without the difference of two large squares. */
	double pairs = tokens * (tokens + 2 * prefix);

	return c->prefill_s + tokens * c->prefill_token_s +
	       pairs * c->prefill_pair_s;
}

double mc_cost_decode_s(const struct mc_cost *c, double sequences,
			double context_tokens)
{
	return mc_max(c->decode_s, sequences * c->prefill_token_s) +
	       sequences * c->decode_seq_s +
	       context_tokens * c->decode_token_s;
}
