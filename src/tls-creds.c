// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The credentials of one side, read from the files of tls-creds and judged before anybody is
 * connected to: what the peer could not accept is found here, with the file's name.
 */
#include "broker.h"
#include "log.h"
#include "tls-internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILE_MAX_BYTES (1u << 20)
#define CHAIN_MAX      16 /* certificates of one's own chain */

/*
 * QEMU's, without what is broken (1.0, 1.1) or has no need to be there (CBC, CCM), and by speed:
 * with NORMAL's own order a PSK, whose hash excludes AES-256-GCM, would get ChaCha20, which in
 * GnuTLS is ten times slower. The server's order counts, so a QEMU as the source has it fast too.
 */
#define PRIORITY_X509                                             \
	"NORMAL:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2:-CIPHER-ALL:" \
	"+AES-128-GCM:+AES-256-GCM:+CHACHA20-POLY1305:%SERVER_PRECEDENCE"
#define PRIORITY_PSK PRIORITY_X509 ":+ECDHE-PSK:+DHE-PSK:+PSK"

const char *tls_peer(const struct tls_creds *c)
{
	return c->server ? "the source" : "the destination";
}

const char *tls_creds_kind(const struct tls_creds *c)
{
	return c->psk ? "PSK" : "x509";
}

/* ---- files ---- */

struct blob_file {
	char path[4200];
	gnutls_datum_t data; /* NUL behind it */
};

static void forget(struct blob_file *f)
{
	if (f->data.data)
		explicit_bzero(f->data.data, f->data.size);
	free(f->data.data);
	f->data.data = NULL;
	f->data.size = 0;
}

static int read_all(struct blob_file *f, int fd, struct error *err)
{
	f->data.data = malloc(FILE_MAX_BYTES + 1);
	if (!f->data.data)
		return err_set(err, ST_NOMEM, "out of memory for %s", f->path);
	f->data.size = 0;
	for (;;) {
		ssize_t n =
			read(fd, f->data.data + f->data.size, FILE_MAX_BYTES + 1 - f->data.size);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_sys(err, ST_UNSUPPORTED, errno, "cannot read %s", f->path);
		if (n == 0)
			break;
		f->data.size += (unsigned)n;
		if (f->data.size > FILE_MAX_BYTES)
			return err_set(err, ST_UNSUPPORTED, "%s is larger than 1 MiB", f->path);
	}
	f->data.data[f->data.size] = '\0';
	return 0;
}

static void judge_mode(const struct blob_file *f, const struct stat *st)
{
	if (st->st_mode & (S_IRWXG | S_IRWXO))
		log_warn("%s is a secret, and others than its owner may use it (mode %04o); "
			 "chmod 600 %s",
			 f->path, st->st_mode & 07777, f->path);
}

/* 1: read, 0: there is no such file, -1. Only after 1 there is something to forget. */
static int read_path(struct blob_file *f, bool secret, struct error *err)
{
	int fd = broker_open(f->path, O_RDONLY | O_NONBLOCK, 0), rc;
	struct stat st;

	f->data.data = NULL;
	if (fd < 0 && errno == ENOENT)
		return 0;
	if (fd < 0 || fstat(fd, &st)) {
		err_sys(err, ST_UNSUPPORTED, errno, "tls-creds: cannot open %s", f->path);
		if (fd >= 0)
			close(fd);
		return -1;
	}
	rc = S_ISREG(st.st_mode)
		     ? read_all(f, fd, err)
		     : err_set(err, ST_UNSUPPORTED, "tls-creds: %s is no regular file", f->path);
	close(fd);
	if (rc) {
		forget(f);
		return -1;
	}
	if (secret)
		judge_mode(f, &st);
	return 1;
}

static int read_file(const struct tls_creds *c, const char *name, bool secret, struct blob_file *f,
		     struct error *err)
{
	if ((size_t)snprintf(f->path, sizeof(f->path), "%s/%s", c->path, name) >= sizeof(f->path))
		return err_set(err, ST_UNSUPPORTED, "tls-creds: the path is too long");
	return read_path(f, secret, err);
}

static bool has_file(const struct tls_creds *c, const char *name)
{
	char path[4200];
	struct stat st;

	return (size_t)snprintf(path, sizeof(path), "%s/%s", c->path, name) < sizeof(path) &&
	       !broker_stat(path, true, &st);
}

static int missing(const struct tls_creds *c, const char *name, struct error *err)
{
	err_set(err, ST_UNSUPPORTED, "tls-creds: %s has no %s, which %s needs", c->path, name,
		c->server ? "a destination" : "a source");
	return err_hint(err,
			"x509: ca-cert.pem, and %s-cert.pem with %s-key.pem; or one file "
			"keys.psk (migtool psk FILE)",
			c->server ? "server" : "client", c->server ? "server" : "client");
}

static int bad_file(const struct blob_file *f, int code, struct error *err)
{
	return err_set(err, ST_UNSUPPORTED, "tls-creds: cannot use %s: %s", f->path,
		       gnutls_strerror(code));
}

/* ---- x509 ---- */

static int load_ca(struct tls_creds *c, struct error *err)
{
	struct blob_file f;
	int r = read_file(c, "ca-cert.pem", false, &f, err);

	if (r <= 0)
		return r < 0 ? -1 : missing(c, "ca-cert.pem", err);
	r = gnutls_certificate_set_x509_trust_mem(c->x509, &f.data, GNUTLS_X509_FMT_PEM);
	forget(&f);
	if (r < 0)
		return bad_file(&f, r, err);
	return r ? 0 : err_set(err, ST_UNSUPPORTED, "tls-creds: %s holds no certificate", f.path);
}

static int load_crl(struct tls_creds *c, struct error *err)
{
	struct blob_file f;
	int r = read_file(c, "ca-crl.pem", false, &f, err);

	if (r <= 0)
		return r;
	r = gnutls_certificate_set_x509_crl_mem(c->x509, &f.data, GNUTLS_X509_FMT_PEM);
	forget(&f);
	return r < 0 ? bad_file(&f, r, err) : 0;
}

static int load_dh(struct tls_creds *c, struct error *err)
{
	struct blob_file f;
	int r;

	if (!c->server || c->is_file)
		return 0;
	r = read_file(c, "dh-params.pem", false, &f, err);
	if (r < 0)
		return -1;
	if (!r)
		return 0; /* GnuTLS has groups of its own */
	r = gnutls_dh_params_init(&c->dh);
	if (!r)
		r = gnutls_dh_params_import_pkcs3(c->dh, &f.data, GNUTLS_X509_FMT_PEM);
	forget(&f);
	if (r < 0)
		return bad_file(&f, r, err);
	if (c->psk)
		gnutls_psk_set_server_dh_params(c->psk_server, c->dh);
	else
		gnutls_certificate_set_dh_params(c->x509, c->dh);
	return 0;
}

/* Would the peer take our own certificate? Its host name cannot be judged here. */
static int judge_own(struct tls_creds *c, const struct blob_file *f, struct error *err)
{
	gnutls_typed_vdata_st purpose = {
		.type = GNUTLS_DT_KEY_PURPOSE_OID,
		.data = (void *)(c->server ? GNUTLS_KP_TLS_WWW_SERVER : GNUTLS_KP_TLS_WWW_CLIENT),
	};
	gnutls_x509_trust_list_t trust;
	gnutls_x509_crt_t chain[CHAIN_MAX];
	unsigned n = CHAIN_MAX, status = 0;
	char text[TLS_NAME_LEN + 256];
	int r, alert;

	r = gnutls_x509_crt_list_import(chain, &n, &f->data, GNUTLS_X509_FMT_PEM, 0);
	if (r < 0)
		return bad_file(f, r, err);
	gnutls_certificate_get_trust_list(c->x509, &trust);
	r = gnutls_x509_trust_list_verify_crt2(trust, chain, n, &purpose, 1, 0, &status, NULL);
	if (r < 0)
		bad_file(f, r, err);
	else if (status)
		r = err_set(err, ST_UNSUPPORTED, "tls-creds: %s %s", f->path,
			    tls_cert_wrong(chain[0], status, NULL, text, sizeof(text), &alert));
	for (unsigned i = 0; i < n; i++)
		gnutls_x509_crt_deinit(chain[i]);
	return r < 0 ? -1 : 0;
}

static int use_own(struct tls_creds *c, const struct blob_file *cert, const struct blob_file *key,
		   struct error *err)
{
	int r = gnutls_certificate_set_x509_key_mem(c->x509, &cert->data, &key->data,
						    GNUTLS_X509_FMT_PEM);

	if (r == GNUTLS_E_CERTIFICATE_KEY_MISMATCH)
		return err_set(err, ST_UNSUPPORTED, "tls-creds: %s is not the key of %s", key->path,
			       cert->path);
	if (r == GNUTLS_E_DECRYPTION_FAILED)
		return err_set(err, ST_UNSUPPORTED, "tls-creds: %s is encrypted", key->path);
	if (r < 0)
		return err_set(err, ST_UNSUPPORTED, "tls-creds: cannot use %s with %s: %s",
			       cert->path, key->path, gnutls_strerror(r));
	return judge_own(c, cert, err);
}

static int load_own(struct tls_creds *c, struct error *err)
{
	const char *cert_name = c->server ? "server-cert.pem" : "client-cert.pem";
	const char *key_name = c->server ? "server-key.pem" : "client-key.pem";
	struct blob_file cert, key;
	int have_cert, have_key, rc = -1;

	have_cert = read_file(c, cert_name, false, &cert, err);
	if (have_cert < 0)
		return -1;
	have_key = read_file(c, key_name, true, &key, err);
	if (have_cert == 1 && have_key == 1)
		rc = use_own(c, &cert, &key, err);
	else if (have_key >= 0 && (c->server || have_cert || have_key))
		missing(c, have_cert ? key_name : cert_name, err);
	else if (have_key >= 0) /* the destination may not ask for one; a QEMU's can be told so */
		rc = 0;
	if (have_cert == 1)
		forget(&cert);
	if (have_key == 1)
		forget(&key);
	return rc;
}

static int open_x509(struct tls_creds *c, struct error *err)
{
	int r = gnutls_certificate_allocate_credentials(&c->x509);

	if (r < 0)
		return err_set(err, ST_NOMEM, "tls-creds: %s", gnutls_strerror(r));
	if (load_ca(c, err) || load_crl(c, err) || load_own(c, err))
		return -1;
	gnutls_certificate_set_known_dh_params(c->x509, GNUTLS_SEC_PARAM_MEDIUM);
	gnutls_certificate_set_verify_function(c->x509, tls_verify_peer);
	return load_dh(c, err);
}

/* ---- PSK ---- */

static int open_psk_client(struct tls_creds *c, const char *path, struct error *err)
{
	gnutls_datum_t key;
	int r;

	c->user = psk_client(&c->users);
	if (!c->user) {
		err_set(err, ST_UNSUPPORTED,
			"tls-creds: %s has %u users, and none of them is %s: which one is this "
			"source?",
			path, c->users.n, PSK_DEFAULT_USER);
		return err_hint(err, "give the source a file with its own line alone");
	}
	r = gnutls_psk_allocate_client_credentials(&c->psk_client);
	key.data = (void *)c->user->key;
	key.size = (unsigned)c->user->key_len;
	if (!r)
		r = gnutls_psk_set_client_credentials(c->psk_client, c->user->name, &key,
						      GNUTLS_PSK_KEY_RAW);
	return r < 0 ? err_set(err, ST_NOMEM, "tls-creds: %s", gnutls_strerror(r)) : 0;
}

static int open_psk_server(struct tls_creds *c, struct error *err)
{
	int r = gnutls_psk_allocate_server_credentials(&c->psk_server);

	if (r < 0)
		return err_set(err, ST_NOMEM, "tls-creds: %s", gnutls_strerror(r));
	gnutls_psk_set_server_credentials_function2(c->psk_server, tls_find_psk);
	gnutls_psk_set_server_known_dh_params(c->psk_server, GNUTLS_SEC_PARAM_MEDIUM);
	return load_dh(c, err);
}

static int open_psk(struct tls_creds *c, struct error *err)
{
	struct blob_file f;
	int r;

	if (c->is_file) {
		snprintf(f.path, sizeof(f.path), "%s", c->path);
		r = read_path(&f, true, err);
	} else {
		r = read_file(c, "keys.psk", true, &f, err);
	}
	if (r <= 0)
		return r < 0 ? -1 : missing(c, "keys.psk", err);
	r = psk_parse(&c->users, f.path, (const char *)f.data.data, f.data.size, err);
	forget(&f);
	if (r)
		return err_prefix(err, "tls-creds");
	return c->server ? open_psk_server(c, err) : open_psk_client(c, f.path, err);
}

/* ---- both ---- */

/* A client that knows a certificate's name to expect, before it connects. */
static int choose_host(struct tls_creds *c, const struct tls_options *o, struct error *err)
{
	const struct uri *uri = o->uri;
	const char *host = o->hostname;

	if (c->server || c->psk) {
		if (host)
			log_verbose("tls-hostname has no effect here: %s",
				    c->psk ? "a PSK names no host"
					   : "the source has no host name to be checked");
		return 0;
	}
	if (!host && uri && !o->listens && uri->scheme == SCHEME_TCP && uri->host[0])
		host = uri->host;
	if (!host && uri) {
		err_set(err, ST_UNSUPPORTED,
			"tls-creds: %s does not say whom the destination's certificate has to be "
			"for",
			uri->text);
		return err_hint(err, "--param tls-hostname=NAME, a host name in that certificate");
	}
	c->host = host ? strdup(host) : NULL;
	return host && !c->host ? err_set(err, ST_NOMEM, "out of memory") : 0;
}

static int choose_authz(struct tls_creds *c, const struct tls_options *o, struct error *err)
{
	if (authz_parse(&c->authz, o->authz, err))
		return -1;
	if (authz_asked(&c->authz) && c->psk && !c->server)
		return err_set(err, ST_UNSUPPORTED,
			       "tls-authz: with a PSK only the destination learns a name, the "
			       "source's; on a source there is nothing to compare");
	return 0;
}

static int open_kind(struct tls_creds *c, const struct tls_options *o, struct error *err)
{
	struct stat st;

	c->path = strdup(o->creds);
	if (!c->path)
		return err_set(err, ST_NOMEM, "out of memory");
	if (broker_stat(c->path, true, &st))
		return err_sys(err, ST_UNSUPPORTED, errno, "tls-creds: cannot use %s", c->path);
	c->is_file = !S_ISDIR(st.st_mode);
	c->psk = c->is_file || has_file(c, "keys.psk");
	if (!c->psk)
		return open_x509(c, err);
	if (!c->is_file && has_file(c, "ca-cert.pem"))
		return err_set(
			err, ST_UNSUPPORTED,
			"tls-creds: %s has both ca-cert.pem (x509) and keys.psk (PSK): which "
			"of them counts?",
			c->path);
	return open_psk(c, err);
}

int tls_policy(struct policy *p, const char *creds, struct error *err)
{
	static const char *const names[] = { "ca-cert.pem",	"ca-crl.pem",	  "dh-params.pem",
					     "server-cert.pem", "server-key.pem", "client-cert.pem",
					     "client-key.pem",	"keys.psk" };
	int rc = policy_add_root(p, creds, POLICY_LOOK, err);

	for (size_t i = 0; !rc && i < sizeof(names) / sizeof(names[0]); i++) {
		char path[4200];

		if ((size_t)snprintf(path, sizeof(path), "%s/%s", creds, names[i]) < sizeof(path))
			rc = policy_add_root(p, path, POLICY_LOOK, err);
	}
	return rc;
}

struct tls_creds *tls_creds_open(const struct tls_options *o, struct error *err)
{
	struct tls_creds *c = calloc(1, sizeof(*c));
	int r;

	if (!c) {
		err_set(err, ST_NOMEM, "out of memory");
		return NULL;
	}
	c->server = o->server;
	if (!open_kind(c, o, err) && !choose_host(c, o, err) && !choose_authz(c, o, err)) {
		/* now, because it looks for the system's own settings in a file */
		r = gnutls_priority_init(&c->priority, c->psk ? PRIORITY_PSK : PRIORITY_X509, NULL);
		if (!r)
			return c;
		err_set(err, ST_UNSUPPORTED, "GnuTLS on this system does not allow %s: %s",
			c->psk ? PRIORITY_PSK : PRIORITY_X509, gnutls_strerror(r));
	}
	tls_creds_close(c);
	return NULL;
}

void tls_creds_close(struct tls_creds *c)
{
	if (!c)
		return;
	if (c->x509)
		gnutls_certificate_free_credentials(c->x509);
	if (c->psk_server)
		gnutls_psk_free_server_credentials(c->psk_server);
	if (c->psk_client)
		gnutls_psk_free_client_credentials(c->psk_client);
	if (c->dh)
		gnutls_dh_params_deinit(c->dh);
	if (c->priority)
		gnutls_priority_deinit(c->priority);
	psk_free(&c->users);
	authz_free(&c->authz);
	free(c->host);
	free(c->path);
	free(c);
}
