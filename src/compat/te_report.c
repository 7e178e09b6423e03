/* te_report.c - what there is, as the public interface tells it: the load of
 * network devices, links to peers, the topology. */
#include "te.h"

#include <errno.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { REPORT_RAILS = 64 };		/* read at once */

/* ---- network devices ------------------------------------------------ */

static nic_load_stat_t *report_nic(nic_load_stat_t *all, size_t *n,
				   const char *name)
{
	for (size_t i = 0; i < *n; i++)
		if (!strcmp(all[i].device_name, name))
			return &all[i];
	all += (*n)++;
	memset(all, 0, sizeof(*all));
	snprintf(all->device_name, sizeof(all->device_name), "%s", name);
	return all;
}

/* The sum over the rails that begin at a device. */
int te_nic_stats(struct te_engine *te, nic_load_stat_t *stats, size_t *count)
{
	nic_load_stat_t all[REPORT_RAILS];
	struct mc_rail_info *rails = malloc(REPORT_RAILS * sizeof(*rails));
	size_t n = 0, cap = *count;
	int got, skip = 0;

	if (!rails)
		return te_err(-ENOMEM, "out of memory");
	do {
		got = mc_rail_list(te->mc, skip, rails, REPORT_RAILS);
		for (int i = 0; i < got && n < REPORT_RAILS; i++) {
			nic_load_stat_t *s;

			if (strcmp(rails[i].transport, "tcp"))
				continue;
			s = report_nic(all, &n, rails[i].local_dev);
			s->inflight_bytes += rails[i].inflight;
			s->ewma_bandwidth_bps += rails[i].bw * 8;
		}
		skip += got;
	} while (got == REPORT_RAILS);
	free(rails);
	for (size_t i = 0; i < n && i < cap; i++)
		stats[i] = all[i];
	*count = n;
	return 0;
}

/* ---- links ---------------------------------------------------------- */

static const char *const report_states[] = {
	[MC_RAIL_NEW] = "new", [MC_RAIL_UP] = "up",
	[MC_RAIL_QUARANTINED] = "quarantined", [MC_RAIL_ABSENT] = "absent",
};

static struct json_object *report_rail(const struct mc_rail_info *r)
{
	struct json_object *o = json_object_new_object();

	json_object_object_add(o, "peer", json_object_new_string(r->peer));
	json_object_object_add(o, "transport",
			       json_object_new_string(r->transport));
	json_object_object_add(o, "local_device",
			       json_object_new_string(r->local_dev));
	json_object_object_add(o, "remote_device",
			       json_object_new_string(r->remote_dev));
	json_object_object_add(o, "state", json_object_new_string(
			       report_states[r->state]));
	json_object_object_add(o, "bytes_read",
			       json_object_new_int64(r->bytes_read));
	json_object_object_add(o, "bytes_written",
			       json_object_new_int64(r->bytes_written));
	json_object_object_add(o, "why", json_object_new_string(r->why));
	return o;
}

static void report_line(FILE *f, const struct mc_rail_info *r)
{
	fprintf(f, "  %s  %s  %s -> %s  %s, read %llu, written %llu%s%s\n",
		r->peer, r->transport, r->local_dev, r->remote_dev,
		report_states[r->state], (unsigned long long)r->bytes_read,
		(unsigned long long)r->bytes_written, r->why[0] ? ": " : "",
		r->why);
}

int te_links(struct te_engine *te, char *out, size_t size, bool json)
{
	struct mc_rail_info *r = malloc(sizeof(*r));
	struct json_object *o = json_object_new_object();
	struct json_object *links = json_object_new_array();
	FILE *f = fmemopen(out, size, "w");

	if (!r || !o || !links || !f) {
		if (f)
			fclose(f);
		free(r);
		return te_err(-ENOMEM, "out of memory");
	}
	if (!json)
		fprintf(f, "%s at %s\n", mc_engine_name(te->mc),
			mc_engine_addr(te->mc));
	for (int i = 0; mc_rail_list(te->mc, i, r, 1) > 0; i++)
		if (json)
			json_object_array_add(links, report_rail(r));
		else
			report_line(f, r);
	json_object_object_add(o, "name", json_object_new_string(
			       mc_engine_name(te->mc)));
	json_object_object_add(o, "address", json_object_new_string(
			       mc_engine_addr(te->mc)));
	json_object_object_add(o, "links", links);
	if (json)
		fputs(json_object_to_json_string_ext(o,
		      JSON_C_TO_STRING_NOSLASHESCAPE), f);
	fclose(f);
	out[size - 1] = 0;
	json_object_put(o);
	free(r);
	return 0;
}

/* ---- topology ------------------------------------------------------- */

static bool report_listed(const char *list, const char *name)
{
	const char *at = list && *list ? strstr(list, name) : NULL;
	size_t n = strlen(name);

	return !list || !*list ||
	       (at && (at == list || at[-1] == ',') &&
		(!at[n] || at[n] == ','));
}

/* {"cpu:0": [[preferred], [others]], ...}; the caller frees it. The devices are
 * those for RDMA, as the public engine has it. */
char *te_topology(const char *devices)
{
	struct mc_device_info d;
	struct mc_topology *t;
	char list[1024] = "";
	char *text = NULL;
	int64_t len;

	if (te_mc(mc_topology_open(&t, NULL)) < 0)
		return NULL;
	for (int i = 0; i < mc_topology_count(t); i++)
		if (!mc_topology_device(t, i, &d) && !strcmp(d.kind, "rdma") &&
		    report_listed(devices, d.name) &&
		    strlen(list) + strlen(d.name) + 2 < sizeof(list)) {
			strcat(list, d.name);
			strcat(list, ",");
		}
	len = te_mc(mc_topology_matrix(t, list, NULL, 0));
	if (len >= 0)
		text = malloc(len + 1);
	if (text)
		mc_topology_matrix(t, list, text, len + 1);
	else if (len >= 0)
		te_err(-ENOMEM, "out of memory");
	mc_topology_close(t);
	return text;
}
