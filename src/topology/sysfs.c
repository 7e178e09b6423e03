/* sysfs.c - reading /sys: small files, listings, numbers and PCI paths. */
#include "sysfs.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SYSFS_MILLI_MAX 1000000000000000u

int mc_sysfs_path(char *out, const char *dir, const char *name)
{
	int n = snprintf(out, PATH_MAX, "%s/%s", dir, name);

	return n < 0 || n >= PATH_MAX ? -ENAMETOOLONG : 0;
}

int mc_sysfs_text(const char *dir, const char *name, char *out, int size)
{
	char path[PATH_MAX];
	char *line = out;
	int fd, r;

	out[0] = 0;
	r = mc_sysfs_path(path, dir, name);
	if (r < 0)
		return r;
	/* A copy of /sys may have anything under the name, a fifo too. */
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return -errno;
	r = read(fd, out, size - 1);
	if (r < 0) {
		r = -errno;
		close(fd);
		out[0] = 0;
		return r;
	}
	close(fd);
	out[r] = 0;
	while (*line == ' ' || *line == '\t')
		line++;
	r = strcspn(line, "\r\n");
	while (r > 0 && isspace((unsigned char)line[r - 1]))
		r--;
	memmove(out, line, r);
	out[r] = 0;
	return r;
}

int64_t mc_sysfs_number(const char *dir, const char *name, int64_t absent)
{
	char text[64];
	char *end;
	int64_t v;

	if (mc_sysfs_text(dir, name, text, sizeof(text)) <= 0)
		return absent;
	errno = 0;
	v = strtoll(text, &end, text[0] == '0' && text[1] == 'x' ? 16 : 10);
	return errno || end == text || *end ? absent : v;
}

int mc_sysfs_names_add(struct sysfs_names *names, const char *name)
{
	if (names->n == names->cap) {
		int cap = names->cap ? names->cap * 2 : 16;
		void *p = realloc(names->name, cap * sizeof(*names->name));

		if (!p)
			return -ENOMEM;
		names->name = p;
		names->cap = cap;
	}
	snprintf(names->name[names->n++], sizeof(*names->name), "%s", name);
	return 0;
}

static size_t sysfs_hex(const char *s, size_t n)
{
	size_t i = 0;

	while (i < n && isxdigit((unsigned char)s[i]))
		i++;
	return i;
}

/* "pci" domain ":" bus, domains of five digits and more are behind a volume
 * management device. */
static bool sysfs_is_root(const char *s, size_t n)
{
	size_t k;

	if (n < 10 || n > 14 || memcmp(s, "pci", 3))
		return false;
	k = 3 + sysfs_hex(s + 3, n - 3);
	return k + 3 == n && s[k] == ':' && sysfs_hex(s + k + 1, 2) == 2;
}

/* domain ":" bus ":" device "." function */
static bool sysfs_is_function(const char *s, size_t n)
{
	size_t k = sysfs_hex(s, n);

	return k >= 4 && k <= 8 && k + 8 == n && s[k] == ':' &&
	       sysfs_hex(s + k + 1, 2) == 2 && s[k + 3] == ':' &&
	       sysfs_hex(s + k + 4, 2) == 2 && s[k + 6] == '.' &&
	       s[k + 7] >= '0' && s[k + 7] <= '7';
}

/* PCI functions are in hex: what is 8b comes after what is 73. */
static int sysfs_name_order(const void *a, const void *b)
{
	return sysfs_is_function(a, strlen(a)) &&
	       sysfs_is_function(b, strlen(b)) ? strcmp(a, b) :
	       strverscmp(a, b);
}

void mc_sysfs_names_sort(struct sysfs_names *names)
{
	int n = 0;

	if (!names->n)
		return;
	qsort(names->name, names->n, sizeof(*names->name), sysfs_name_order);
	for (int i = 1; i < names->n; i++) {
		if (!strcmp(names->name[n], names->name[i]))
			continue;
		if (++n != i)
			memcpy(names->name[n], names->name[i],
			       sizeof(*names->name));
	}
	names->n = n + 1;
}

void mc_sysfs_names_fini(struct sysfs_names *names)
{
	free(names->name);
	memset(names, 0, sizeof(*names));
}

int mc_sysfs_names(const char *dir, struct sysfs_names *out)
{
	DIR *d = opendir(dir);
	struct dirent *e;
	int r = 0;

	memset(out, 0, sizeof(*out));
	if (!d)
		return 0;
	while (!r && (e = readdir(d))) {
		if (e->d_name[0] == '.' || e->d_type == DT_REG ||
		    strlen(e->d_name) >= sizeof(*out->name))
			continue;
		r = mc_sysfs_names_add(out, e->d_name);
	}
	closedir(d);
	if (r < 0)
		mc_sysfs_names_fini(out);
	else
		mc_sysfs_names_sort(out);
	return r;
}

/* Not strtod(): its decimal point follows the locale, and it takes "inf". */
uint64_t mc_sysfs_milli(const char *text)
{
	uint64_t v = 0;
	int digits = 3;

	if (!isdigit((unsigned char)*text))
		return 0;
	while (isdigit((unsigned char)*text) && v < SYSFS_MILLI_MAX)
		v = v * 10 + (*text++ - '0');
	if (*text == '.')
		text++;
	while (digits > 0 && v < SYSFS_MILLI_MAX) {
		v *= 10;
		if (isdigit((unsigned char)*text))
			v += *text++ - '0';
		digits--;
	}
	return v < SYSFS_MILLI_MAX ? v : SYSFS_MILLI_MAX;
}

/* Is @text a number, a blank and @unit? */
static bool sysfs_has_unit(const char *text, const char *unit)
{
	size_t n = strspn(text, "0123456789.");

	return text[n] == ' ' && !strncmp(text + n + 1, unit, strlen(unit));
}

uint64_t mc_sysfs_ib_rate(const char *text)
{
	uint64_t v = mc_sysfs_milli(text);

	/* Above any link there will be: a damaged file. */
	if (!sysfs_has_unit(text, "Gb/sec") || v > 1000000000)
		return 0;
	return v * 1000000 / 8;
}

uint64_t mc_sysfs_pcie_rate(const char *speed, int64_t lanes)
{
	uint64_t v = mc_sysfs_milli(speed);

	if (!sysfs_has_unit(speed, "GT/s") || v > 1000000 ||
	    lanes < 1 || lanes > 32)
		return 0;
	v = v * 1000000 / 8 * lanes;
	/* Line codes: 8b/10b to 5 GT/s, 128b/130b to 32, then flits of 256
	 * bytes with 242 of payload. */
	if (v <= 5000ull * 1000000 / 8 * lanes)
		return v / 10 * 8;
	if (v < 64000ull * 1000000 / 8 * lanes)
		return v / 130 * 128;
	return v / 256 * 242;
}

void mc_sysfs_pci_chain(const char *path, char *out, size_t size)
{
	size_t len = 0;

	while (*path) {
		size_t n = strcspn(path, "/");

		if (sysfs_is_root(path, n) ||
		    (len && sysfs_is_function(path, n))) {
			if (len + n + 2 > size) {
				len = 0;
				break;
			}
			if (len)
				out[len++] = '/';
			memcpy(out + len, path, n);
			len += n;
		}
		path += n + strspn(path + n, "/");
	}
	out[len] = 0;
}

const char *mc_sysfs_pci_function(const char *chain)
{
	const char *last = strrchr(chain, '/');

	if (last && sysfs_is_function(last + 1, strlen(last + 1)))
		return last + 1;
	return "";
}

int mc_sysfs_pci_distance(const char *a, const char *b)
{
	int d = -1;

	for (;;) {
		size_t n = strcspn(a, "/");
		size_t m = strcspn(b, "/");

		if (n != m || memcmp(a, b, n)) {
			/* The ports of one card differ in the function. */
			if (n == m && !a[n] && !b[n] &&
			    sysfs_is_function(a, n) && !memcmp(a, b, n - 1))
				return 0;
			return d;
		}
		if (!n)
			return d;
		if (!a[n] && !b[n])
			return sysfs_is_function(a, n) ? 0 : 2;
		if (!a[n] || !b[n])
			return sysfs_is_function(a, n) ? 1 : 2;
		/* A root in the middle: its parts share no link above it. */
		d = sysfs_is_root(a, n) ? 2 : 1;
		a += n + 1;
		b += n + 1;
	}
}
