/* auth_test.c - the cluster key and the proofs of having it; see auth.h. */
#include "../../src/transport/auth.h"

#include <mooncake.h>

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#include <openssl/evp.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char path[] = "/tmp/mooncake-auth-XXXXXX";

static void put_key(const void *data, size_t len, mode_t mode)
{
	int fd = open(path, O_WRONLY | O_TRUNC);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, data, len), len);
	assert_int_equal(fchmod(fd, mode), 0);
	close(fd);
}

static struct mc_key key_of(const char *text)
{
	struct mc_key key;

	put_key(text, strlen(text), 0600);
	if (mc_key_load(path, &key))
		fail_msg("%s", mc_errmsg());
	return key;
}

static void a_key_is_the_hash_of_its_file(void **state)
{
	struct mc_key key = key_of("0123456789abcdef");
	uint8_t hash[32];

	(void)state;
	EVP_Digest("0123456789abcdef", 16, hash, NULL, EVP_sha256(), NULL);
	assert_int_equal(key.len, 32);
	assert_memory_equal(key.data, hash, 32);
	key = key_of("0123456789abcdef\n");
	assert_memory_equal(key.data, hash, 32);
	key = key_of("0123456789abcdef\r\n");
	assert_memory_equal(key.data, hash, 32);
	key = key_of("0123456789abcdef\n\n");
	assert_memory_not_equal(key.data, hash, 32);
}

static void bad_keys_are_explained(void **state)
{
	char big[MC_KEY_FILE_MAX + 2];
	struct mc_key key = { .len = 7 };

	(void)state;
	put_key("0123456789abcde\n", 16, 0600);
	assert_int_equal(mc_key_load(path, &key), -EINVAL);
	assert_non_null(strstr(mc_errmsg(), path));
	assert_non_null(strstr(mc_errmsg(), "15 bytes, expected 16 to 4096"));
	assert_int_equal(key.len, 7);
	memset(big, 'a', sizeof(big));
	put_key(big, sizeof(big), 0600);
	assert_int_equal(mc_key_load(path, &key), -EINVAL);
	assert_non_null(strstr(mc_errmsg(), "more than 4096 bytes"));
	put_key(big, MC_KEY_FILE_MAX + 1, 0600);
	assert_int_equal(mc_key_load(path, &key), -EINVAL);
	big[MC_KEY_FILE_MAX] = '\n';
	put_key(big, MC_KEY_FILE_MAX + 1, 0600);
	assert_int_equal(mc_key_load(path, &key), 0);
	assert_int_equal(mc_key_load("/nowhere/key", &key), -ENOENT);
	assert_non_null(strstr(mc_errmsg(), "/nowhere/key: No such file"));
	assert_int_equal(mc_key_load("/", &key), -EISDIR);
}

static void the_environment_names_a_key(void **state)
{
	struct mc_key a = key_of("one key for this test"), b = { .len = 7 };

	(void)state;
	unsetenv("MOONCAKE_KEY_FILE");
	assert_int_equal(mc_key_load(NULL, &b), 0);
	assert_int_equal(b.len, 0);
	setenv("MOONCAKE_KEY_FILE", "", 1);
	assert_int_equal(mc_key_load(NULL, &b), 0);
	assert_int_equal(b.len, 0);
	setenv("MOONCAKE_KEY_FILE", path, 1);
	assert_int_equal(mc_key_load(NULL, &b), 0);
	assert_memory_equal(&a, &b, sizeof(a));
	unsetenv("MOONCAKE_KEY_FILE");
	assert_int_equal(mc_key_load("", &b), -ENOENT);
}

/* What loading the key writes to stderr. */
static void load_and_listen(char *out, size_t size)
{
	int p[2], old = dup(STDERR_FILENO);
	struct mc_key key;
	ssize_t n;

	assert_int_equal(pipe(p), 0);
	dup2(p[1], STDERR_FILENO);
	assert_int_equal(mc_key_load(path, &key), 0);
	dup2(old, STDERR_FILENO);
	close(old);
	close(p[1]);
	n = read(p[0], out, size - 1);
	out[n > 0 ? n : 0] = 0;
	close(p[0]);
}

static void a_key_for_all_to_read_gets_a_warning(void **state)
{
	char said[512];

	(void)state;
	unsetenv("MC_LOG");
	put_key("0123456789abcdef", 16, 0644);
	load_and_listen(said, sizeof(said));
	assert_non_null(strstr(said, "can be read by all"));
	put_key("0123456789abcdef", 16, 0640);
	load_and_listen(said, sizeof(said));
	assert_string_equal(said, "");
}

static void a_proof_is_what_is_documented(void **state)
{
	struct mc_key key = key_of("0123456789abcdef");
	uint8_t nonce_c[16], nonce_s[16], proof[32], expected[64];
	uint8_t msg[128] = "mooncake native 1\0server";
	size_t n = 18 + 7, len = sizeof(expected);

	(void)state;
	mc_auth_nonce(nonce_c);
	mc_auth_nonce(nonce_s);
	assert_memory_not_equal(nonce_c, nonce_s, 16);
	memcpy(msg + n, nonce_c, 16);
	memcpy(msg + n + 16, nonce_s, 16);
	memcpy(msg + n + 32, "context", 7);
	assert_int_equal(mc_auth_proof(&key, "server", nonce_c, nonce_s,
				       "context", 7, proof), 0);
	assert_non_null(EVP_Q_mac(NULL, "HMAC", NULL, "SHA256", NULL, key.data,
				  32, msg, n + 39, expected, len, &len));
	assert_int_equal(len, 32);
	assert_true(mc_auth_equal(proof, expected));
}

/* Change one thing at a time: nobody else's proof fits. */
static void a_proof_fits_one_place(void **state)
{
	struct mc_key key = key_of("0123456789abcdef");
	struct mc_key other = key_of("0123456789abcdeF");
	uint8_t a[16] = { 1 }, b[16] = { 2 }, want[32], got[5][32];

	(void)state;
	mc_auth_proof(&key, "server", a, b, "context", 7, want);
	mc_auth_proof(&key, "client", a, b, "context", 7, got[0]);
	mc_auth_proof(&key, "server", b, a, "context", 7, got[1]);
	mc_auth_proof(&key, "server", a, b, "contexu", 7, got[2]);
	mc_auth_proof(&key, "server", a, b, "context", 6, got[3]);
	mc_auth_proof(&other, "server", a, b, "context", 7, got[4]);
	for (int i = 0; i < 5; i++)
		assert_false(mc_auth_equal(want, got[i]));
	for (int i = 0; i < 32; i++) {
		memcpy(got[0], want, 32);
		assert_true(mc_auth_equal(want, got[0]));
		got[0][i] ^= 1 << (i % 8);
		assert_false(mc_auth_equal(want, got[0]));
	}
}

static void no_key_proves_nothing(void **state)
{
	struct mc_key none = { 0 };
	uint8_t a[16] = { 0 }, one[32], two[32];

	(void)state;
	assert_int_equal(mc_auth_proof(&none, "client", a, a, NULL, 0, one),
			 -EINVAL);
	assert_int_equal(mc_auth_proof(&none, "client", a, a, NULL, 0, two),
			 -EINVAL);
	assert_false(mc_auth_equal(one, two));
}

static int make_file(void **state)
{
	int fd = mkstemp(path);

	(void)state;
	return fd < 0 ? -1 : close(fd);
}

static int remove_file(void **state)
{
	(void)state;
	return unlink(path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_key_is_the_hash_of_its_file),
		cmocka_unit_test(bad_keys_are_explained),
		cmocka_unit_test(the_environment_names_a_key),
		cmocka_unit_test(a_key_for_all_to_read_gets_a_warning),
		cmocka_unit_test(a_proof_is_what_is_documented),
		cmocka_unit_test(a_proof_fits_one_place),
		cmocka_unit_test(no_key_proves_nothing),
	};

	return cmocka_run_group_tests(tests, make_file, remove_file);
}
