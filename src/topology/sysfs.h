/*
 * sysfs.h - reading /sys, or a copy of one: small files, directory listings,
 * numbers with units, and the PCI part of device paths.
 *
 * Absent and unreadable files are normal there, so nothing here writes a
 * message: results say "absent" or "unknown".
 */
#ifndef MC_TOPOLOGY_SYSFS_H
#define MC_TOPOLOGY_SYSFS_H

#include <stddef.h>
#include <stdint.h>

/* Names in the order of ls -v: mlx5_2 before mlx5_10; PCI functions by bus. */
struct sysfs_names {
	char (*name)[64];
	int n;
	int cap;
};

/* Join to @out of PATH_MAX bytes. -ENAMETOOLONG. */
int mc_sysfs_path(char *out, const char *dir, const char *name);

/* The first line of a file, without blanks at its ends. Its length or -errno;
 * @out is a string in any case. */
int mc_sysfs_text(const char *dir, const char *name, char *out, int size);

/* A decimal number or one with 0x in front; @absent if there is none. */
int64_t mc_sysfs_number(const char *dir, const char *name, int64_t absent);

/* Entries of a directory that are themselves directories or links, sorted.
 * An absent directory has none. -ENOMEM. */
int mc_sysfs_names(const char *dir, struct sysfs_names *out);
int mc_sysfs_names_add(struct sysfs_names *names, const char *name);
void mc_sysfs_names_sort(struct sysfs_names *names);	/* drops doubles too */
void mc_sysfs_names_fini(struct sysfs_names *names);

/* Thousandths of the number that @text begins with: "2.5 GT/s" is 2500. 0 if
 * there is none; at most 10^15. */
uint64_t mc_sysfs_milli(const char *text);

/* "100 Gb/sec (4X EDR)" in bytes per second, 0 if it is no such thing. */
uint64_t mc_sysfs_ib_rate(const char *text);

/* "32.0 GT/s PCIe" and a number of lanes in bytes per second, 0 if unknown. */
uint64_t mc_sysfs_pcie_rate(const char *speed, int64_t lanes);

/* Keep of a device path what is PCI: "pci0000:17/0000:17:01.0/0000:18:00.0".
 * The last part is the device's own function. "" if there is none. */
void mc_sysfs_pci_chain(const char *path, char *out, size_t size);

/* The function at the end of a chain, "" if it ends in none. */
const char *mc_sysfs_pci_function(const char *chain);

/* 0 same device, 1 below the same switch or bridge, 2 same root complex, -1
 * nothing in common. */
int mc_sysfs_pci_distance(const char *a, const char *b);

#endif
