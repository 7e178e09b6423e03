/*
 * etcd_link.h - requests to the members of an etcd cluster: the one that
 * answered last is asked, and the others after it if it does not.
 */
#ifndef MC_REGISTRY_ETCD_LINK_H
#define MC_REGISTRY_ETCD_LINK_H

#include "curl.h"
#include "etcd_text.h"

struct mc_etcd {
	struct mc_registry_url url;
	const struct mc_registry_times *times;
	CURLM *multi;			/* keeps the connections */
	CURL *curl;
	int at;				/* which member is asked first */
	char *token;			/* of a user; NULL: not logged in */
};

/* An operation, which may take several requests. The caller sets the first
 * part and frees the answer. */
struct mc_etcd_op {
	const char *what;		/* in messages: "get", "put" */
	const char *key;
	uint64_t deadline_ns;
	bool writes;			/* the request changes something, */
	bool once;			/* and may not be sent twice */

	/* Of a stream: takes a line. Positive: it was the last, 0: go on,
	 * -errno: as if the member had said so, with its reason in why. It may
	 * move both deadlines. */
	int (*line)(struct mc_etcd_op *op, const char *line, size_t len);

	struct mc_registry_text answer;
	char why[160];			/* of the last member */
	uint64_t until_ns;		/* this member's part of the time */
	bool lost;			/* it did not answer */
	bool doubt;			/* a write of it may be done yet */

	/* Of one request. */
	const char *path, *body;
	size_t parsed;			/* of the answer, by line() */
	int ended;			/* what line() said, if not 0 */
	bool begun;			/* line() has seen the stream go: that
					 * its time is over is no failure */
	bool too_long;
	char curl_why[CURL_ERROR_SIZE];
};

int mc_etcd_open(struct mc_etcd **out, const char *url,
		 const struct mc_registry_times *times);
void mc_etcd_close(struct mc_etcd *e);

/* An operation that begins now. */
struct mc_etcd_op mc_etcd_begin(const struct mc_etcd *e, const char *what,
				const char *key);

/* POST @body to /v3/@path. 0 and the answer's text, or the -errno of the last
 * member's refusal or failure, with a message that names all. */
int mc_etcd_post(struct mc_etcd *e, struct mc_etcd_op *op, const char *path,
		 const char *body);

/* The same, with the answer as an object: json_object_put() frees it. */
int mc_etcd_ask(struct mc_etcd *e, struct mc_etcd_op *op, const char *path,
		const char *body, struct json_object **answer);

/* The message of an operation: "registry URL: what 'key': why". */
int mc_etcd_fail(const struct mc_etcd *e, const struct mc_etcd_op *op, int err,
		 const char *why);

/* The same for an answer that could not be read: -ENOMEM, -EBADMSG. */
int mc_etcd_misread(const struct mc_etcd *e, const struct mc_etcd_op *op,
		    int err);

/* As a backend's (etcd_watch.c). */
int mc_etcd_watch(struct mc_etcd *e, const char *prefix, uint64_t *version,
		  int wait_ms, struct mc_registry_text *out);

#endif
