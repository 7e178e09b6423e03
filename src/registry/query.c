/*
 * query.c - the text that registry requests and answers are made of.
 */
#include "query.h"

#include <errno.h>
#include <string.h>

/* How many bytes the character at @s has, 0: it is not one. */
static size_t query_utf8_len(const uint8_t *s, size_t len)
{
	static const uint32_t least[] = { 0, 0, 0x80, 0x800, 0x10000 };
	size_t n = *s < 0x80 ? 1 : *s >> 5 == 6 ? 2 : *s >> 4 == 14 ? 3 :
		   *s >> 3 == 30 ? 4 : 0;
	uint32_t c;

	if (n < 2 || n > len)
		return n > len ? 0 : n;
	c = *s & (0x7f >> n);
	for (size_t i = 1; i < n; i++) {
		if (s[i] >> 6 != 2)
			return 0;
		c = c << 6 | (s[i] & 0x3f);
	}
	if (c < least[n] || c > 0x10ffff || (c >= 0xd800 && c < 0xe000))
		return 0;
	return n;
}

bool mc_utf8_ok(const char *text, size_t len)
{
	const uint8_t *s = (const uint8_t *)text;
	size_t n;

	for (; len; s += n, len -= n) {
		n = query_utf8_len(s, len);
		if (!n)
			return false;
	}
	return true;
}

int mc_key_check(const char *key, size_t len)
{
	size_t blank = 0;

	if (len > MC_KEY_MAX)
		return -E2BIG;
	for (size_t i = 0; i < len; i++) {
		if ((uint8_t)key[i] < 0x20 || key[i] == 0x7f)
			return -EINVAL;
		blank += key[i] == ' ';
	}
	return blank == len || !mc_utf8_ok(key, len) ? -EINVAL : 0;
}

static int query_hex(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Undo the encoding of [s, end); @space is what a '+' stands for. */
static ssize_t query_decode(const char *s, const char *end, char space,
			    char *out, size_t size)
{
	size_t n = 0;
	int hi, lo;

	for (; s < end; s++) {
		char c = *s == '+' ? space : *s;

		if (*s == '%') {
			if (end - s < 3)
				return -EINVAL;
			hi = query_hex(s[1]);
			lo = query_hex(s[2]);
			if (hi < 0 || lo < 0 || !(hi | lo))
				return -EINVAL;
			c = (char)(hi << 4 | lo);
			s += 2;
		}
		if (n + 1 >= size)
			return -E2BIG;
		out[n++] = c;
	}
	out[n] = 0;
	return n;
}

ssize_t mc_query_get(const char *query, const char *name, char *out,
		     size_t size)
{
	size_t len = strlen(name);

	while (query && *query) {
		const char *end = query + strcspn(query, "&");

		if (!strncmp(query, name, len) && query[len] == '=')
			return query_decode(query + len + 1, end, ' ', out,
					    size);
		query = *end ? end + 1 : end;
	}
	return -ENOENT;
}

ssize_t mc_percent_decode(const char *text, size_t len, char *out, size_t size)
{
	return query_decode(text, text + len, '+', out, size);
}

ssize_t mc_query_escape(const char *text, size_t len, char *out, size_t size)
{
	static const char plain[] = "abcdefghijklmnopqrstuvwxyz"
		"ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~";
	static const char hex[] = "0123456789ABCDEF";
	size_t n = 0;

	for (size_t i = 0; i < len; i++) {
		uint8_t c = text[i];

		if (n + 4 > size)
			return -E2BIG;
		if (c && strchr(plain, c)) {
			out[n++] = c;
			continue;
		}
		out[n++] = '%';
		out[n++] = hex[c >> 4];
		out[n++] = hex[c & 15];
	}
	if (n >= size)
		return -E2BIG;
	out[n] = 0;
	return n;
}

/* Digits of [s, end) to @out: how many, or -EINVAL past 64 bits. */
static ssize_t query_digits(const char *s, const char *end, uint64_t *out)
{
	const char *start = s;
	uint64_t n = 0;

	for (; s < end && *s >= '0' && *s <= '9'; s++)
		if (__builtin_mul_overflow(n, 10, &n) ||
		    __builtin_add_overflow(n, *s - '0', &n))
			return -EINVAL;
	*out = n;
	return s - start;
}

int mc_query_number(const char *text, uint64_t *out)
{
	const char *s = text + strspn(text, " \t");
	const char *end = s + strlen(s);
	uint64_t n = 0;

	while (end > s && strchr(" \t\r\n", end[-1]))
		end--;
	if (end - s >= 2 && *s == '"' && end[-1] == '"') {
		s++;
		end--;
	}
	if (s == end || query_digits(s, end, &n) != end - s)
		return -EINVAL;
	*out = n;
	return 0;
}

int mc_change_next(const char **text, size_t *len,
		   struct mc_registry_change *out)
{
	const char *s = *text;
	const char *end = *len ? memchr(s, '\n', *len) : NULL;
	struct mc_registry_change c;
	ssize_t n;

	if (!*len)
		return 0;
	if (!end)
		return -EBADMSG;
	n = query_digits(s, end, &c.version);
	if (n <= 0 || end - s < n + 6 || s[n] != ' ' || s[n + 4] != ' ')
		return -EBADMSG;
	c.deleted = !memcmp(s + n + 1, "del", 3);
	if (!c.deleted && memcmp(s + n + 1, "put", 3))
		return -EBADMSG;
	c.key = s + n + 5;
	c.len = end - c.key;
	*out = c;
	*len -= end + 1 - s;
	*text = end + 1;
	return 1;
}
