/*
 * registries.h - real registry servers for tests: ours, etcd and redis, each in
 * a process of its own, at a port of its own, with its data in a folder that
 * goes with it.
 *
 * A program that uses them gives registries_main() its arguments first: ours is
 * such a program again.
 */
#ifndef MC_TESTS_REGISTRIES_H
#define MC_TESTS_REGISTRIES_H

#include "../../src/registry/registry.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>

/* What differs between registries, as far as their tests must know. */
enum { SERVER_ARGS = 24 };

struct kind {
	const char *name;
	const char *scheme;		/* of its URLs */
	int lease_ms;			/* a short lease */
	int late_ms;			/* what runs out may go so much later */
	int wake_ms;			/* a watch sees a change by then */
	size_t value_max;		/* a value that it takes */
	const char *more[4];		/* arguments of the server */
};

extern const struct kind kinds[];
extern const int n_kinds;

struct server {
	const struct kind *kind;
	pid_t pid;			/* 0: it does not run */
	int port, peer_port;
	char dir[64];
	char addr[MC_ADDR_MAX];
	char url[400];			/* to reach it by */
	const char *more[SERVER_ARGS];	/* further arguments; ends with NULL */
};

/* Serve and never return if the arguments are those of our own server. */
void registries_main(int argc, char **argv);

/* Fill in all but more: ports that are free, an empty folder. */
void server_init(struct server *s, const struct kind *kind);

/* Start it, and wait until it answers at its URL. Again: with the data there
 * is, which survive being killed in http and etcd. */
void server_start(struct server *s);
void server_launch(struct server *s);	/* only the first half of it */
void server_kill(struct server *s);	/* by SIGKILL */
void server_wipe(struct server *s);	/* its data */
void server_end(struct server *s);	/* also its folder */

/* <dir>/<name>.crt and .key, for its address. */
void server_certify(const struct server *s, const char *name);

/* One with no further arguments, ready. */
void server_open(struct server *s, const struct kind *kind);
const struct kind *kind_named(const char *name);

struct mc_registry *registry_open(const char *url);
int64_t registry_get(struct mc_registry *r, const char *key, char *out,
		     size_t size);

/* Fail the test with the message if @r is negative; if it is not @err, or the
 * message does not say all of @text, parts of which '|' separates. */
void assert_ok(int64_t r);
void assert_says(const char *text);
void assert_fails(int64_t r, int err, const char *text);

/* Run @n tests for each of the @n_first kinds (after those that differ come
 * variants), each name with the kind's before it. */
enum { KINDS_THAT_DIFFER = 3 };

int run_for_kinds(int n_first, const struct CMUnitTest *tests, int n,
		  int (*setup)(void **), int (*teardown)(void **));

/* The kind of the test that runs. */
extern const struct kind *kind;

/* Run a command of the shell, which must end with 0. */
void shell(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#endif
