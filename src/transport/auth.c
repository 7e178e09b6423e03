/* auth.c - the cluster key and the proofs of having it; see auth.h. */
#include "auth.h"

#include "../base/err.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

enum { AUTH_CONTEXT_MAX = 256 };

/* A version of its own: proofs of another protocol are no use here. */
static const char auth_label[] = "mooncake native 1";

/* Read up to @size bytes, as long as there are any. */
static ssize_t auth_read(int fd, uint8_t *buf, size_t size)
{
	size_t len = 0;

	while (len < size) {
		ssize_t r = read(fd, buf + len, size - len);

		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			return -errno;
		if (!r)
			break;
		len += r;
	}
	return len;
}

static ssize_t auth_read_file(const char *path, uint8_t *buf, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;
	ssize_t r;

	if (fd < 0)
		return mc_syserr(-errno, "cluster key %s", path);
	if (!fstat(fd, &st) && S_ISREG(st.st_mode) && st.st_mode & S_IROTH)
		mc_log(MC_WARN, "auth", "cluster key %s can be read by all "
		       "users: chmod 600 it", path);
	r = auth_read(fd, buf, size);
	close(fd);
	if (r < 0)
		return mc_syserr(r, "cluster key %s", path);
	return r;
}

/* Without the newline that editors leave at the end. */
static size_t auth_strip(const uint8_t *buf, size_t len)
{
	if (len && buf[len - 1] == '\n')
		len--;
	if (len && buf[len - 1] == '\r')
		len--;
	return len;
}

int mc_key_load(const char *path, struct mc_key *key)
{
	uint8_t buf[MC_KEY_FILE_MAX + 3];	/* newline, and one too many */
	struct mc_key k = { 0 };
	ssize_t len;
	int r = 0;

	if (!path)
		path = getenv("MOONCAKE_KEY_FILE");
	if (!path || (!path[0] && path == getenv("MOONCAKE_KEY_FILE"))) {
		*key = k;
		return 0;
	}
	len = auth_read_file(path, buf, sizeof(buf));
	if (len < 0)
		return len;
	len = auth_strip(buf, len);
	if (len < MC_KEY_FILE_MIN || len > MC_KEY_FILE_MAX)
		r = mc_err(-EINVAL, "cluster key %s: %s%zd bytes, expected %d "
			   "to %d", path,
			   len > MC_KEY_FILE_MAX ? "more than " : "",
			   len > MC_KEY_FILE_MAX ? (ssize_t)MC_KEY_FILE_MAX :
			   len, MC_KEY_FILE_MIN, MC_KEY_FILE_MAX);
	else if (!EVP_Digest(buf, len, k.data, &k.len, EVP_sha256(), NULL))
		r = mc_err(-EIO, "cluster key %s: no SHA-256 here", path);
	else
		*key = k;
	OPENSSL_cleanse(buf, sizeof(buf));
	OPENSSL_cleanse(&k, sizeof(k));
	return r;
}

void mc_auth_nonce(uint8_t nonce[MC_NONCE_LEN])
{
	ssize_t r;

	do
		r = getrandom(nonce, MC_NONCE_LEN, 0);
	while (r < 0 && errno == EINTR);
	/* A nonce that can be guessed would void the proofs. */
	if (r != MC_NONCE_LEN && RAND_bytes(nonce, MC_NONCE_LEN) != 1)
		abort();
}

int mc_auth_proof(const struct mc_key *key, const char *role,
		  const uint8_t nonce_c[MC_NONCE_LEN],
		  const uint8_t nonce_s[MC_NONCE_LEN],
		  const void *context, size_t len, uint8_t out[MC_PROOF_LEN])
{
	uint8_t msg[sizeof(auth_label) + 16 + 2 * MC_NONCE_LEN +
		    AUTH_CONTEXT_MAX];
	size_t n = sizeof(auth_label), role_len = strlen(role) + 1;
	unsigned out_len = 0;

	if (!key->len || role_len > 16 || len > AUTH_CONTEXT_MAX)
		goto fail;
	memcpy(msg, auth_label, n);
	memcpy(msg + n, role, role_len);
	n += role_len;
	memcpy(msg + n, nonce_c, MC_NONCE_LEN);
	n += MC_NONCE_LEN;
	memcpy(msg + n, nonce_s, MC_NONCE_LEN);
	n += MC_NONCE_LEN;
	if (len)
		memcpy(msg + n, context, len);
	n += len;
	if (HMAC(EVP_sha256(), key->data, sizeof(key->data), msg, n, out,
		 &out_len) && out_len == MC_PROOF_LEN)
		return 0;
fail:
	mc_auth_nonce(out);
	mc_auth_nonce(out + MC_NONCE_LEN);
	return mc_err(-EINVAL, "no proof of the cluster key can be made");
}

bool mc_auth_equal(const uint8_t a[MC_PROOF_LEN],
		   const uint8_t b[MC_PROOF_LEN])
{
	return !CRYPTO_memcmp(a, b, MC_PROOF_LEN);
}
