/*
 * auth.h - the cluster key, and how two engines prove to each other that they
 * have it without sending it.
 *
 *   client -> server   nonce_c
 *   server -> client   nonce_s, HMAC(key, "server", nonce_c, nonce_s, context)
 *   client -> server   HMAC(key, "client", nonce_c, nonce_s, context)
 *
 * HMAC is HMAC-SHA256 over a fixed label, the role and a zero byte, both
 * nonces, and the context. Each side checks the other's proof before it does
 * anything else for it. Nonces are 16 random bytes, new for every connection,
 * so that no recorded proof serves again; the role is in the proof, so that
 * none can be sent back to who made it; the context is what else both sides
 * have to agree on (the epochs of the two engines).
 *
 * This is for connections whose two ends are trusted once they are open. It
 * does not encrypt, and does not stop who can change packets on the way from
 * taking a connection over after the proofs: for that there is TLS.
 */
#ifndef MC_AUTH_H
#define MC_AUTH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	MC_NONCE_LEN = 16,
	MC_PROOF_LEN = 32,
	MC_KEY_FILE_MIN = 16,		/* bytes, without the last newline */
	MC_KEY_FILE_MAX = 4096,
};

struct mc_key {
	uint32_t len;			/* 0: there is none */
	uint8_t data[32];		/* SHA-256 of the file's bytes */
};

/* Read the key from file @path; NULL: from $MOONCAKE_KEY_FILE, or none if that
 * is unset or empty. The newline at its end does not count. -EINVAL: too short
 * or too long. A file that all may read gets a warning in the log. */
int mc_key_load(const char *path, struct mc_key *key);

void mc_auth_nonce(uint8_t nonce[MC_NONCE_LEN]);

/* @role is "client" or "server": whose proof this is. Should the computation
 * fail, @out is noise that equals no proof, and the result is negative. */
int mc_auth_proof(const struct mc_key *key, const char *role,
		  const uint8_t nonce_c[MC_NONCE_LEN],
		  const uint8_t nonce_s[MC_NONCE_LEN],
		  const void *context, size_t len, uint8_t out[MC_PROOF_LEN]);

/* In a time that does not tell where they differ. */
bool mc_auth_equal(const uint8_t a[MC_PROOF_LEN],
		   const uint8_t b[MC_PROOF_LEN]);

#endif
