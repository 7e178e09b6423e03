/* json.h - what everyone who makes JSON needs of json-c. */
#ifndef MC_BASE_JSON_H
#define MC_BASE_JSON_H

#include <errno.h>
#include <json-c/json.h>

/* Give @value away to @o. -ENOMEM: it could not be made, or taken. */
static inline int mc_json_add(struct json_object *o, const char *name,
			      struct json_object *value)
{
	if (value && !json_object_object_add(o, name, value))
		return 0;
	json_object_put(value);
	return -ENOMEM;
}

#endif
