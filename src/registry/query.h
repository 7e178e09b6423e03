/*
 * query.h - the text that registry requests and answers are made of: keys,
 * query strings, numbers in headers, lines of changes. Pure functions over
 * untrusted text, for client and server both; none sets a message.
 */
#ifndef MC_REGISTRY_QUERY_H
#define MC_REGISTRY_QUERY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum {
	MC_KEY_MAX = 4096,		/* longest key in bytes */
	MC_VALUE_MAX = 64 << 20,	/* longest value */
};

/* Is it UTF-8, without surrogates and overlong forms? */
bool mc_utf8_ok(const char *text, size_t len);

/* 0, or what is wrong with a key: -EINVAL it is empty, blank, not UTF-8 or has
 * control characters (names are listed one a line), -E2BIG it is too long. */
int mc_key_check(const char *key, size_t len);

/* Find parameter @name in @query ("a=b&c=d", NULL: empty) and undo its percent
 * encoding, '+' being a space. Returns its length, with a final zero in @out of
 * @size bytes; -ENOENT it is missing, -EINVAL the encoding is broken or holds
 * a zero, -E2BIG it does not fit. */
ssize_t mc_query_get(const char *query, const char *name, char *out,
		     size_t size);

/* Undo the percent encoding of @len bytes, in which '+' is itself; results as
 * above. */
ssize_t mc_percent_decode(const char *text, size_t len, char *out, size_t size);

/* Percent-encode what is not a letter, a digit or one of "-._~". Returns the
 * length; -E2BIG if @size is too small (3 * len + 1 always does). */
ssize_t mc_query_escape(const char *text, size_t len, char *out, size_t size);

/* A decimal number, with blanks around it and with quotes as of an ETag.
 * -EINVAL: it is not one, or has more than 64 bits. */
int mc_query_number(const char *text, uint64_t *out);

/* A record was put or has gone (deleted, expired). */
struct mc_registry_change {
	uint64_t version;
	bool deleted;
	const char *key;		/* not ended by a zero */
	size_t len;
};

/* Take the line "version put|del key" at *text, *len bytes long, and step over
 * it. 1, 0 at the end, -EBADMSG: it is not such a line. */
int mc_change_next(const char **text, size_t *len,
		   struct mc_registry_change *out);

#endif
