/*
 * etcd_text.h - the text that etcd's JSON gateway takes and gives. Pure
 * functions over untrusted text; they return 0 or what they say, or -EBADMSG it
 * is not such a text, -ENOMEM, and set no message.
 *
 * Keys and values are in base64, and numbers of 64 bits are strings. A member
 * that is zero, empty or false is left out.
 */
#ifndef MC_REGISTRY_ETCD_TEXT_H
#define MC_REGISTRY_ETCD_TEXT_H

#include "registry.h"

#include <json-c/json.h>

/* In base64, to be freed; NULL: out of memory. */
char *mc_base64(const void *data, size_t len);

/* The members "key" and "range_end" for all keys that begin with @prefix, to be
 * freed; NULL: out of memory. */
char *mc_etcd_range(const char *prefix);

/* A whole answer: json_object_put() frees it. */
int mc_etcd_parse(const char *text, size_t len, struct json_object **out);

/* A number of @o, 0 if it has none of that name. */
uint64_t mc_etcd_number(struct json_object *o, const char *name);

/* How often the store has changed, by the header that all answers have. */
uint64_t mc_etcd_revision(struct json_object *answer);

struct mc_etcd_record {
	uint64_t revision;		/* of its last change; 0: no record */
	uint64_t lease;			/* 0: it has none */
};

/* The record that a range's answer has, its value added to @value. */
int mc_etcd_record(struct json_object *answer, struct mc_etcd_record *out,
		   struct mc_registry_text *value);

/* The names in a range's answer, one a line. Those that are not keys of ours
 * (mc_key_check()) are left out. */
int mc_etcd_names(struct json_object *answer, struct mc_registry_text *out);

/* What an answer with an HTTP status other than 200 means, as -errno:
 * -EKEYEXPIRED the token is out of date, -EBUSY later or elsewhere it may be
 * done. @why is the server's word, or "HTTP 500". */
int mc_etcd_refusal(const char *text, size_t len, long status, char why[160]);

/* One line of a watch. */
struct mc_etcd_news {
	uint64_t revision;		/* of the store */
	uint64_t last;			/* of the latest of the changes; 0 */
	bool created;			/* the watch has begun */
	bool compacted;			/* what it asked for is forgotten */
	bool ended;			/* there is nothing more to come */
};

/* @why as above if it ended; changes are added as mc_change_next() reads
 * them. */
int mc_etcd_news(const char *line, size_t len, struct mc_etcd_news *out,
		 struct mc_registry_text *changes, char why[160]);

#endif
