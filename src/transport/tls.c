/*
 * tls.c - TLS 1.3 on a stream, by OpenSSL; see tls.h.
 *
 * OpenSSL reads and writes the socket through a BIO of ours: it raises no
 * SIGPIPE, and keeps the errno of a failure where we find it.
 */
#include "tls.h"

#include "../base/err.h"
#include "../base/util.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/ssl.h>

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum {
	TLS_RECORD = SSL3_RT_MAX_PLAIN_LENGTH,
	TLS_AHEAD = 4 * SSL3_RT_MAX_ENCRYPTED_LENGTH,
	TLS_DRAIN = 64,			/* kilobytes */
};

struct mc_tls {
	SSL_CTX *ctx;
	BIO_METHOD *bio;
};

struct mc_stream_tls {
	SSL *ssl;
	int fd;
	int io_err;			/* of the socket: negative errno */
	bool refused;			/* the handshake failed */
	bool drained;			/* the last read found too little */
	uint32_t tried;			/* bytes of a write to be repeated */
	int err;			/* held back behind bytes, with why */
	char *why;
	char subject[100];		/* of a certificate not accepted */
	uint8_t record[TLS_RECORD];	/* where small ranges are gathered */
};

/* A walk over the ranges of a write, a record at a time. */
struct tls_cursor {
	const struct iovec *iov;
	int n;
	size_t off;			/* into iov[0] */
};

/* ---- errors --------------------------------------------------------- */

/* Alerts by which the peer turns our certificate down. */
static bool tls_is_refusal(int reason)
{
	switch (reason - SSL_AD_REASON_OFFSET) {
	case SSL_AD_NO_CERTIFICATE:
	case SSL_AD_BAD_CERTIFICATE:
	case SSL_AD_UNSUPPORTED_CERTIFICATE:
	case SSL_AD_CERTIFICATE_REVOKED:
	case SSL_AD_CERTIFICATE_EXPIRED:
	case SSL_AD_CERTIFICATE_UNKNOWN:
	case SSL_AD_UNKNOWN_CA:
	case SSL_AD_ACCESS_DENIED:
	case TLS13_AD_CERTIFICATE_REQUIRED:
		return true;
	}
	return false;
}

/* What OpenSSL calls a protocol error. */
static int tls_broken(const struct mc_stream *s)
{
	SSL *ssl = s->tls->ssl;
	unsigned long e = ERR_peek_error();
	int reason = ERR_GET_REASON(e);
	const char *text = ERR_reason_error_string(e);
	long verdict = SSL_get_verify_result(ssl);

	if (reason == SSL_R_UNEXPECTED_EOF_WHILE_READING)
		return mc_stream_closed(s);
	if (reason == SSL_R_CERTIFICATE_VERIFY_FAILED)
		return mc_err(-EACCES, "%s: its certificate %s is not "
			      "accepted: %s", s->peer, s->tls->subject,
			      X509_verify_cert_error_string(verdict));
	if (reason == SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE)
		return mc_err(-EACCES, "%s: shows no certificate", s->peer);
	if (tls_is_refusal(reason))
		return mc_err(-EACCES, "%s: does not accept our certificate: "
			      "%s", s->peer, text ? text : "alert");
	if (!SSL_is_init_finished(ssl))
		return mc_err(-EPROTO, "%s: does not speak TLS 1.3: %s",
			      s->peer, text ? text : "handshake failed");
	return mc_err(-EPROTO, "%s: TLS: %s", s->peer,
		      text ? text : "protocol error");
}

/* After an SSL_ function did not succeed: 0 it wants the socket, -errno. */
static int tls_error(struct mc_stream *s, int r)
{
	struct mc_stream_tls *t = s->tls;

	switch (SSL_get_error(t->ssl, r)) {
	case SSL_ERROR_WANT_READ:
		s->want = POLLIN;
		return 0;
	case SSL_ERROR_WANT_WRITE:
		s->want = POLLOUT;
		return 0;
	case SSL_ERROR_ZERO_RETURN:
		return mc_stream_closed(s);
	case SSL_ERROR_SYSCALL:
		return t->io_err ? mc_stream_failed(s, t->io_err) :
		       mc_stream_closed(s);
	}
	return tls_broken(s);
}

/* ---- the socket under OpenSSL --------------------------------------- */

static int tls_bio_done(BIO *b, struct mc_stream_tls *t, ssize_t r,
			int retry, size_t *done)
{
	if (r > 0) {
		*done = r;
		return 1;
	}
	*done = 0;
	if (r < 0 && errno == EAGAIN)
		BIO_set_flags(b, retry | BIO_FLAGS_SHOULD_RETRY);
	else if (r < 0)
		t->io_err = -errno;
	return 0;
}

static int tls_bio_read(BIO *b, char *buf, size_t len, size_t *done)
{
	struct mc_stream_tls *t = BIO_get_data(b);
	ssize_t r;

	BIO_clear_retry_flags(b);
	do
		r = recv(t->fd, buf, len, MSG_DONTWAIT);
	while (r < 0 && errno == EINTR);
	if (!r)
		BIO_set_flags(b, BIO_FLAGS_IN_EOF);
	return tls_bio_done(b, t, r, BIO_FLAGS_READ, done);
}

static int tls_bio_write(BIO *b, const char *buf, size_t len, size_t *done)
{
	struct mc_stream_tls *t = BIO_get_data(b);
	ssize_t r;

	BIO_clear_retry_flags(b);
	do
		r = send(t->fd, buf, len, MSG_NOSIGNAL | MSG_DONTWAIT);
	while (r < 0 && errno == EINTR);
	return tls_bio_done(b, t, r, BIO_FLAGS_WRITE, done);
}

static long tls_bio_ctrl(BIO *b, int cmd, long num, void *ptr)
{
	(void)num;
	(void)ptr;
	if (cmd == BIO_CTRL_EOF)
		return BIO_test_flags(b, BIO_FLAGS_IN_EOF) != 0;
	return cmd == BIO_CTRL_FLUSH;
}

static BIO_METHOD *tls_bio_method(void)
{
	BIO_METHOD *m = BIO_meth_new(BIO_get_new_index() |
				     BIO_TYPE_SOURCE_SINK, "mooncake");

	if (!m)
		return NULL;
	BIO_meth_set_read_ex(m, tls_bio_read);
	BIO_meth_set_write_ex(m, tls_bio_write);
	BIO_meth_set_ctrl(m, tls_bio_ctrl);
	return m;
}

/* ---- certificates --------------------------------------------------- */

/* An encrypted key would otherwise have OpenSSL ask at the terminal. */
static int tls_no_password(char *buf, int size, int writing, void *arg)
{
	(void)buf;
	(void)size;
	(void)writing;
	(void)arg;
	return -1;
}

static int tls_pem_failed(const char *what, const char *path)
{
	unsigned long e = ERR_peek_error();
	const char *text = ERR_reason_error_string(e);

	/* A file that cannot be opened is an errno to OpenSSL. */
	if (ERR_SYSTEM_ERROR(e))
		return mc_syserr(-ERR_GET_REASON(e), "TLS %s %s", what, path);
	return mc_err(-EINVAL, "TLS %s %s: %s (expected an unencrypted PEM "
		      "file)", what, path, text ? text : "not usable");
}

static int tls_load(SSL_CTX *ctx, const char *cert, const char *key,
		    const char *ca)
{
	ERR_clear_error();
	SSL_CTX_set_default_passwd_cb(ctx, tls_no_password);
	if (SSL_CTX_use_certificate_chain_file(ctx, cert) != 1)
		return tls_pem_failed("certificate", cert);
	if (SSL_CTX_use_PrivateKey_file(ctx, key, SSL_FILETYPE_PEM) != 1) {
		/* Which it checks against the certificate. */
		if (ERR_GET_LIB(ERR_peek_error()) == ERR_LIB_X509)
			return mc_err(-EINVAL, "TLS key %s is not that of "
				      "certificate %s", key, cert);
		if (key == cert)
			return mc_err(-EINVAL, "%s holds no private key: name "
				      "its file as the TLS key", cert);
		return tls_pem_failed("key", key);
	}
	if (SSL_CTX_load_verify_locations(ctx, ca, NULL) != 1)
		return tls_pem_failed("authority", ca);
	return 0;
}

/* Whose certificate fails is known here only. */
static int tls_verified(int ok, X509_STORE_CTX *store)
{
	SSL *ssl = X509_STORE_CTX_get_ex_data(store,
				SSL_get_ex_data_X509_STORE_CTX_idx());
	struct mc_stream_tls *t = SSL_get_app_data(ssl);
	X509 *cert = X509_STORE_CTX_get_current_cert(store);

	if (!ok && cert)
		X509_NAME_oneline(X509_get_subject_name(cert), t->subject,
				  sizeof(t->subject));
	return ok;
}

static void tls_setup(SSL_CTX *ctx)
{
	SSL_CTX_set_min_proto_version(ctx, TLS1_3_VERSION);
	SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER |
			   SSL_VERIFY_FAIL_IF_NO_PEER_CERT, tls_verified);
	/* A certificate may vouch for itself, without being an authority. */
	X509_VERIFY_PARAM_set_flags(SSL_CTX_get0_param(ctx),
				    X509_V_FLAG_PARTIAL_CHAIN);
	SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE |
			 SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
			 SSL_MODE_RELEASE_BUFFERS);
	/* No resumption, so every connection proves its certificate. */
	SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
	SSL_CTX_set_num_tickets(ctx, 0);
	SSL_CTX_set_quiet_shutdown(ctx, 1);
	SSL_CTX_set_read_ahead(ctx, 1);
	SSL_CTX_set_default_read_buffer_len(ctx, TLS_AHEAD);
}

int mc_tls_open(struct mc_tls **out, const char *cert, const char *key,
		const char *ca)
{
	struct mc_tls *t;
	int r;

	*out = NULL;
	if (!cert && (key || ca))
		return mc_err(-EINVAL, "a TLS key or authority, but no "
			      "certificate");
	if (!cert)
		return 0;
	t = calloc(1, sizeof(*t));
	if (!t)
		return mc_err(-ENOMEM, "out of memory");
	t->ctx = SSL_CTX_new(TLS_method());
	t->bio = tls_bio_method();
	r = t->ctx && t->bio ? 0 : mc_err(-ENOMEM, "OpenSSL does not start");
	if (!r) {
		tls_setup(t->ctx);
		r = tls_load(t->ctx, cert, key ? key : cert, ca ? ca : cert);
	}
	ERR_clear_error();
	if (r < 0)
		mc_tls_close(t);
	else
		*out = t;
	return r;
}

void mc_tls_close(struct mc_tls *tls)
{
	if (!tls)
		return;
	SSL_CTX_free(tls->ctx);
	BIO_meth_free(tls->bio);
	free(tls);
}

/* ---- handshake ------------------------------------------------------ */

/* Closing with bytes unread sends a reset, which would overtake the alert that
 * tells the peer why its handshake failed. */
static void tls_drain(int fd)
{
	char buf[1024];

	shutdown(fd, SHUT_WR);
	for (int i = 0; i < TLS_DRAIN; i++)
		if (recv(fd, buf, sizeof(buf), MSG_DONTWAIT) <= 0)
			return;
}

void mc_tls_detach(struct mc_stream_tls *t)
{
	if (!t)
		return;
	if (t->refused)
		tls_drain(t->fd);
	SSL_free(t->ssl);
	free(t->why);
	free(t);
}

struct mc_stream_tls *mc_tls_attach(struct mc_tls *tls, int fd, bool server)
{
	struct mc_stream_tls *t = calloc(1, sizeof(*t));
	BIO *b;

	if (!t)
		return NULL;
	t->fd = fd;
	t->ssl = SSL_new(tls->ctx);
	b = t->ssl ? BIO_new(tls->bio) : NULL;
	if (!b) {
		mc_tls_detach(t);
		return NULL;
	}
	SSL_set_app_data(t->ssl, t);
	BIO_set_data(b, t);
	BIO_set_init(b, 1);
	SSL_set_bio(t->ssl, b, b);
	if (server)
		SSL_set_accept_state(t->ssl);
	else
		SSL_set_connect_state(t->ssl);
	return t;
}

int mc_tls_handshake(struct mc_stream *s)
{
	int r;

	ERR_clear_error();
	r = SSL_do_handshake(s->tls->ssl);
	if (r == 1)
		return 1;
	r = tls_error(s, r);
	s->tls->refused = r < 0;
	return r;
}

/* ---- moving bytes --------------------------------------------------- */

/* An error comes after the bytes before it have been returned. */
static ssize_t tls_ends(struct mc_stream *s, size_t total, int err)
{
	if (!total)
		return err;
	s->tls->err = err;
	s->tls->why = strdup(mc_errmsg());
	return total;
}

ssize_t mc_tls_readv(struct mc_stream *s, const struct iovec *iov, int n)
{
	struct mc_stream_tls *t = s->tls;
	size_t total = 0;

	if (t->err)
		return mc_err(t->err, "%s", t->why ? t->why : s->peer);
	ERR_clear_error();
	for (int i = 0; i < n; i++) {
		char *at = iov[i].iov_base;
		size_t left = iov[i].iov_len;

		while (left) {
			size_t got = 0;
			int r = SSL_read_ex(t->ssl, at, left, &got);

			t->drained = r != 1;
			if (r != 1) {
				r = tls_error(s, r);
				return r ? tls_ends(s, total, r) :
				       (ssize_t)total;
			}
			at += got;
			left -= got;
			total += got;
		}
	}
	return total;
}

/* The next up to @max bytes: where they are, if one range has them, else
 * copied to @record. */
static const uint8_t *tls_gather(const struct tls_cursor *c, size_t max,
				 uint8_t *record, size_t *len)
{
	const struct iovec *v = c->iov;
	size_t off = c->off;

	*len = 0;
	if (c->n == 1 || v->iov_len - off >= max) {
		*len = mc_min(v->iov_len - off, max);
		return (const uint8_t *)v->iov_base + off;
	}
	for (int i = 0; i < c->n && *len < max; i++) {
		size_t some = mc_min(v[i].iov_len - off, max - *len);

		if (some)
			memcpy(record + *len, (char *)v[i].iov_base + off,
			       some);
		*len += some;
		off = 0;
	}
	return record;
}

static void tls_advance(struct tls_cursor *c, size_t len)
{
	while (c->n && c->iov->iov_len - c->off <= len) {
		len -= c->iov->iov_len - c->off;
		c->iov++;
		c->n--;
		c->off = 0;
	}
	c->off += len;
}

/* One record at most. A write that found the socket full has encrypted its
 * bytes already: it is repeated with as many, neither less nor more. */
static int tls_write(struct mc_stream *s, struct tls_cursor *c, size_t *done)
{
	struct mc_stream_tls *t = s->tls;
	size_t max = t->tried ? t->tried : TLS_RECORD;
	const uint8_t *at;
	size_t len;
	int r;

	at = tls_gather(c, max, t->record, &len);
	if (len < t->tried)
		return mc_err(-EINVAL, "%s: a write was not repeated with the "
			      "same bytes", s->peer);
	if (!len)
		return 0;
	r = SSL_write_ex(t->ssl, at, len, done);
	if (r == 1) {
		t->tried = 0;
		return 1;
	}
	r = tls_error(s, r);
	if (!r)
		t->tried = len;
	return r;
}

ssize_t mc_tls_writev(struct mc_stream *s, const struct iovec *iov, int n)
{
	struct tls_cursor c = { iov, n, 0 };
	size_t total = 0;

	ERR_clear_error();
	tls_advance(&c, 0);
	while (c.n) {
		size_t done = 0;
		int r = tls_write(s, &c, &done);

		if (r < 0)
			return r;
		if (!r)
			break;
		total += done;
		tls_advance(&c, done);
	}
	return total;
}

bool mc_tls_pending(const struct mc_stream_tls *t)
{
	return t->err || (!t->drained && SSL_has_pending(t->ssl));
}
