/*
 * peer.h - two engines for a test: the near one, in this process, makes the
 * requests, and the far one serves them, in this process or in a child.
 *
 * What a test does to the far side it does by far_*(), which work alike for
 * both. Far memory is looked at behind the engines' backs, so it is not an
 * engine that says what another one stored.
 *
 * Children are made by a helper process that is forked before there is any
 * thread: a program that uses peers calls peer_start() first in main().
 */
#ifndef MC_TESTS_PEER_H
#define MC_TESTS_PEER_H

#include <mooncake.h>

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>

/* How the two ends reach each other: each case runs for each of these. */
struct setup {
	const char *name;
	const char *transports;
	const char *listen;
	const char *profile;
	bool same;			/* an engine opens its own segment */
	bool child;			/* the far engine is another process */
	bool foreign;			/* memory registered, not allocated */
	bool key, tls;
	int streams;
};

extern const struct setup setups[];
extern const int n_setups;

struct far {
	const struct setup *s;
	struct mc_engine *e;		/* NULL: in a child */
	bool borrowed;			/* @e is the near engine */
	int fd;				/* to the child; -1 */
	pid_t pid;
	char name[MC_NAME_MAX];
	uint64_t epoch;
};

/* A near and a far engine, connected, with @len bytes of memory each. */
struct pair {
	const struct setup *s;
	struct mc_engine *e;
	struct far far;
	int seg;
	uint8_t *near;
	uint64_t remote;		/* the far memory's address */
	uint64_t len;
};

typedef void case_fn(struct pair *p);

struct unit_case {
	const char *name;
	case_fn *fn;
	uint64_t len;			/* of memory; 0: 1 MiB */
};

/* Run each case for each setup, and then the @n_more tests of @more. */
int run_cases(const char *name, const struct unit_case *cases, int n,
	      const struct CMUnitTest *more, int n_more);

/* Files and helper process; peer_stop() at the end returns its argument. */
void peer_start(void);
int peer_stop(int status);

/* The path of a file of the test's own, in a folder that goes with it. */
const char *peer_file(const char *name);

/* Options of either end; the strings live as long as the program. */
struct mc_options setup_options(const struct setup *s);
const struct setup *setup_named(const char *name);

/* The environment's MC_SETUP names no other, and what it needs is there. */
bool setup_wanted(const struct setup *s);

/* Fail the test with the engine's message if @r is negative. */
#define ok(r) ok_at((r), __FILE__, __LINE__)
int64_t ok_at(int64_t r, const char *file, int line);

/* @r is the error, and the message has @word in it. */
#define refused(r, err, word) \
	refused_at((r), (err), (word), __FILE__, __LINE__)
void refused_at(int64_t r, int err, const char *word, const char *file,
		int line);

void pair_open(struct pair *p, const struct setup *s, uint64_t len);
void pair_close(struct pair *p);

/* Memory on the near side, as the setup has it, zeroed. */
void *near_alloc(struct pair *p, uint64_t len, unsigned access);
void near_free(struct pair *p, void *addr);

/* ---- the far side ----------------------------------------------- */

void far_open(struct far *f, const struct setup *s, const char *listen);
void far_close(struct far *f);		/* the engine, in good order */
void far_end(struct far *f);		/* and its process, if it has one */

/* Memory that peers may reach by @access; far_drop() takes it back (the bytes
 * of foreign memory stay where they are, to be looked at). */
uint64_t far_alloc(struct far *f, uint64_t len, unsigned access);
uint64_t far_malloc(struct far *f, uint64_t len);
int far_reg(struct far *f, uint64_t addr, uint64_t len, unsigned access);
int far_drop(struct far *f, uint64_t addr);

/* Bytes, without any engine. */
void far_read(struct far *f, uint64_t addr, void *out, uint64_t len);
void far_write(struct far *f, uint64_t addr, const void *in, uint64_t len);
void far_fill(struct far *f, uint64_t addr, uint64_t len, uint64_t seed);
uint64_t far_hash(struct far *f, uint64_t addr, uint64_t len);

/* Wait up to @timeout_ms for a notification: its name and message go to @name
 * and @msg (256 bytes each), and to @hash that of @len bytes at @addr as they
 * were the moment it arrived. 1 or 0. */
int far_notified(struct far *f, int timeout_ms, uint64_t addr, uint64_t len,
		 char *name, char *msg, uint64_t *hash);
struct mc_stats far_stats(struct far *f);

/* ---- small things ----------------------------------------------- */

struct mc_req req_of(const struct pair *p, enum mc_op op, uint64_t near_off,
		     uint64_t far_off, uint64_t len);
double seconds(void);
void sleep_ms(int ms);

/* A generator of the test's own: the same numbers for a seed everywhere. */
uint64_t rnd(uint64_t *state);

#endif
