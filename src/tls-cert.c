// SPDX-License-Identifier: GPL-2.0-or-later
/* Certificates in words, and whether one of a certificate's names is in a list. */
#include "log.h"
#include "tls-internal.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

char *tls_cert_dn(gnutls_x509_crt_t crt, char *buf, size_t len)
{
	gnutls_datum_t dn = { NULL, 0 };

	if (gnutls_x509_crt_get_dn3(crt, &dn, 0) || !dn.size)
		snprintf(buf, len, "(no name)");
	else
		log_escape(buf, len, dn.data, dn.size);
	gnutls_free(dn.data);
	return buf;
}

/* An alternative name as text: an address in its usual form. false: there is no such form. */
static bool san_text(int type, const char *san, size_t size, char *buf, size_t len, size_t *n)
{
	if (type == GNUTLS_SAN_IPADDRESS) {
		if ((size != 4 && size != 16) ||
		    !inet_ntop(size == 4 ? AF_INET : AF_INET6, san, buf, (socklen_t)len))
			return false;
		*n = strlen(buf);
		return true;
	}
	if (type != GNUTLS_SAN_DNSNAME && type != GNUTLS_SAN_RFC822NAME && type != GNUTLS_SAN_URI)
		return false;
	if (size > len)
		return false;
	memcpy(buf, san, size);
	*n = size;
	return true;
}

/* Calls `each` for every CN and alternative name until it says true. */
static bool any_name(gnutls_x509_crt_t crt, bool (*each)(void *arg, const char *name, size_t len),
		     void *arg)
{
	char name[1024], text[1024];
	size_t n;

	for (unsigned i = 0;; i++) {
		n = sizeof(name);
		if (gnutls_x509_crt_get_dn_by_oid(crt, GNUTLS_OID_X520_COMMON_NAME, i, 0, name, &n))
			break;
		if (each(arg, name, n))
			return true;
	}
	for (unsigned i = 0;; i++) {
		int type;

		n = sizeof(name);
		type = gnutls_x509_crt_get_subject_alt_name(crt, i, name, &n, NULL);
		if (type == GNUTLS_E_SHORT_MEMORY_BUFFER)
			continue;
		if (type < 0)
			return false;
		if (san_text(type, name, n, text, sizeof(text), &n) && each(arg, text, n))
			return true;
	}
}

static bool in_list(void *arg, const char *name, size_t len)
{
	return authz_allows(arg, name, len);
}

/* As certtool prints it, and in the order in which QEMU's tls-authz sees it. */
static bool dn_allowed(gnutls_x509_crt_t crt, unsigned flags, const struct authz *a)
{
	gnutls_datum_t dn = { NULL, 0 };
	bool yes = !gnutls_x509_crt_get_dn3(crt, &dn, flags) && dn.size &&
		   authz_allows(a, (const char *)dn.data, dn.size);

	gnutls_free(dn.data);
	return yes;
}

bool tls_cert_allowed(gnutls_x509_crt_t crt, const struct authz *a)
{
	return dn_allowed(crt, 0, a) || dn_allowed(crt, GNUTLS_X509_DN_FLAG_COMPAT, a) ||
	       any_name(crt, in_list, (void *)a);
}

struct name_list {
	char *buf;
	size_t len, n;
};

static bool add_name(void *arg, const char *name, size_t len)
{
	struct name_list *l = arg;
	char shown[128];

	/* a host's name is often there twice, as CN and as an alternative name */
	if (l->n && !strcmp(l->buf, log_escape(shown, sizeof(shown), name, len)))
		return false;
	if (l->n < l->len)
		l->n += (size_t)snprintf(l->buf + l->n, l->len - l->n, "%s%s", l->n ? ", " : "",
					 log_escape(shown, sizeof(shown), name, len));
	return false;
}

static void show_time(time_t t, char *buf, size_t len)
{
	struct tm tm;

	/* UTC: the local zone is a file, which a sandbox hides */
	if (t == (time_t)-1 || !gmtime_r(&t, &tm) || !strftime(buf, len, "%F %T UTC", &tm))
		snprintf(buf, len, "an unknown time");
}

static char *wrong_host(gnutls_x509_crt_t crt, const char *host, char *buf, size_t len)
{
	char names[TLS_NAME_LEN] = "no host";
	struct name_list l = { names, sizeof(names), 0 };

	any_name(crt, add_name, &l);
	snprintf(buf, len, "is for %s, expected %s", names, host ? host : "another name");
	return buf;
}

/* By how much they explain, first the best. */
static const struct {
	unsigned status;
	int alert;
	const char *text;
} words[] = {
	{ GNUTLS_CERT_REVOKED, GNUTLS_A_CERTIFICATE_REVOKED, "is revoked (ca-crl.pem)" },
	{ GNUTLS_CERT_SIGNER_NOT_FOUND, GNUTLS_A_UNKNOWN_CA, "is not signed by our ca-cert.pem" },
	{ GNUTLS_CERT_SIGNER_NOT_CA, GNUTLS_A_UNKNOWN_CA, "is signed by what is no CA" },
	{ GNUTLS_CERT_SIGNATURE_FAILURE, GNUTLS_A_BAD_CERTIFICATE, "has a wrong signature" },
	{ GNUTLS_CERT_INSECURE_ALGORITHM, GNUTLS_A_BAD_CERTIFICATE,
	  "is signed in a way that is not secure" },
	{ GNUTLS_CERT_SIGNER_CONSTRAINTS_FAILURE, GNUTLS_A_BAD_CERTIFICATE,
	  "is not what its CA may sign" },
	{ GNUTLS_CERT_PURPOSE_MISMATCH, GNUTLS_A_UNSUPPORTED_CERTIFICATE,
	  "is not for this side of TLS (a source needs tls_www_client, a destination "
	  "tls_www_server)" },
	{ GNUTLS_CERT_REVOCATION_DATA_SUPERSEDED, GNUTLS_A_BAD_CERTIFICATE,
	  "cannot be judged: our ca-crl.pem is out of date" },
	{ GNUTLS_CERT_REVOCATION_DATA_ISSUED_IN_FUTURE, GNUTLS_A_BAD_CERTIFICATE,
	  "cannot be judged: our ca-crl.pem is from the future" },
};

char *tls_cert_wrong(gnutls_x509_crt_t crt, unsigned status, const char *host, char *buf,
		     size_t len, int *alert)
{
	char when[64];

	*alert = GNUTLS_A_BAD_CERTIFICATE;
	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
		if (status & words[i].status) {
			*alert = words[i].alert;
			snprintf(buf, len, "%s", words[i].text);
			return buf;
		}
	}
	if (status & GNUTLS_CERT_EXPIRED) {
		time_t end = gnutls_x509_crt_get_expiration_time(crt);

		*alert = GNUTLS_A_CERTIFICATE_EXPIRED;
		show_time(end, when, sizeof(when));
		if (end != (time_t)-1 && end < time(NULL))
			snprintf(buf, len, "expired on %s", when);
		else
			snprintf(buf, len, "is signed by a CA that expired");
		return buf;
	}
	if (status & GNUTLS_CERT_NOT_ACTIVATED) {
		show_time(gnutls_x509_crt_get_activation_time(crt), when, sizeof(when));
		snprintf(buf, len, "is not valid before %s (is our clock right?)", when);
		return buf;
	}
	if (status & GNUTLS_CERT_UNEXPECTED_OWNER)
		return wrong_host(crt, host, buf, len);
	snprintf(buf, len, "is not valid (GnuTLS' status 0x%x)", status);
	return buf;
}
