/*
 * matrix.h - which network devices memory at a place is to use: for each
 * location the first choice, then the others.
 *
 *	{"cpu:0": [["mlx5_0"], ["mlx5_1"]], "cuda:0": [["mlx5_1"], ["mlx5_0"]]}
 *
 * as the public Mooncake writes it. An engine makes it of what it finds in
 * /sys, or takes it from its options; peers get it with the segment. Never
 * changed once it is shared.
 */
#ifndef MC_TOPOLOGY_MATRIX_H
#define MC_TOPOLOGY_MATRIX_H

#include <mooncake.h>

enum {
	MATRIX_PLACES = 64,		/* so that they fit a mask of 64 bits */
	MATRIX_DEVS = 64,		/* at one of them */
	MATRIX_JSON_MAX = 64 << 10,
};

struct mc_matrix;

struct mc_matrix *mc_matrix_new(void);	/* NULL: no memory */
struct mc_matrix *mc_matrix_get(struct mc_matrix *m);
void mc_matrix_put(struct mc_matrix *m);

/* Add what @t says of devices @names: those nearest to a GPU or a NUMA node are
 * the first choice there, if any of them is up those that are up. -ENOMEM. */
int mc_matrix_add(struct mc_matrix *m, const struct mc_topology *t,
		  char names[][32], int n);

/* From JSON; -EBADMSG it is no such matrix. */
int mc_matrix_parse(struct mc_matrix **out, const char *json, size_t len);

/* From an option: JSON, which begins with a brace, or the name of a file. */
int mc_matrix_read(struct mc_matrix **out, const char *text);

/* As JSON, which the caller frees; NULL: no memory. */
char *mc_matrix_json(const struct mc_matrix *m);

/* For users: its length, and as much of it as @out takes. */
int64_t mc_matrix_give(const struct mc_matrix *m, char *out, uint64_t size);

/* The number of @location, or of "*", or -1: it is not in there. "gpu:1" is
 * another word for "cuda:1". NULL has no places. */
int mc_matrix_place(const struct mc_matrix *m, const char *location);

/* 0 the first choice at @place, 1 the second, -1 it does not say. */
int mc_matrix_rank(const struct mc_matrix *m, int place, const char *device);

/* One of the first choices at @place, "" if it does not say. */
const char *mc_matrix_first(const struct mc_matrix *m, int place,
			    uint32_t turn);

#endif
