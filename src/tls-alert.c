// SPDX-License-Identifier: GPL-2.0-or-later
/* What a peer's alert says of us, in words. */
#include "tls-internal.h"

static const struct {
	int alert;
	const char *text; /* the path of our credentials follows */
} refusals[] = {
	{ GNUTLS_A_CERTIFICATE_REQUIRED, "it wants a certificate from us, and there is none in" },
	{ GNUTLS_A_UNKNOWN_CA, "it does not have the CA of our certificate in" },
	{ GNUTLS_A_CERTIFICATE_EXPIRED, "it takes for expired our certificate in" },
	{ GNUTLS_A_CERTIFICATE_REVOKED, "it takes for revoked our certificate in" },
	{ GNUTLS_A_UNSUPPORTED_CERTIFICATE, "not made for this side of TLS is our certificate in" },
	{ GNUTLS_A_CERTIFICATE_UNKNOWN, "it does not accept our certificate in" },
	{ GNUTLS_A_BAD_CERTIFICATE, "it does not accept (for another host?) our certificate in" },
	{ GNUTLS_A_ACCESS_DENIED, "its tls-authz has no name of our credentials in" },
	{ GNUTLS_A_UNKNOWN_PSK_IDENTITY, "it does not know the PSK user of" },
	{ GNUTLS_A_DECRYPT_ERROR, "its key of the PSK user is not the one in" },
	{ GNUTLS_A_HANDSHAKE_FAILURE, "its credentials have nothing in common with ours in" },
};

int tls_explain_alert(struct tls *s, struct error *err)
{
	int alert = gnutls_alert_get(s->session);
	const char *name = gnutls_alert_get_name((gnutls_alert_description_t)alert);

	if (alert == GNUTLS_A_PROTOCOL_VERSION) {
		err_set(err, ST_REFUSED, "%s speaks no TLS that we do (1.2 or 1.3)",
			tls_peer(s->creds));
		return err_hint(err, "has it got --param tls-creds=DIR too?");
	}
	for (size_t i = 0; i < sizeof(refusals) / sizeof(refusals[0]); i++) {
		if (refusals[i].alert != alert)
			continue;
		err_set(err, ST_REFUSED, "%s refuses us: %s %s", tls_peer(s->creds),
			refusals[i].text, s->creds->path);
		if (alert == GNUTLS_A_HANDSHAKE_FAILURE)
			err_hint(err, "are the credentials of both ends of one kind (here: %s)?",
				 tls_creds_kind(s->creds));
		return -1;
	}
	return err_set(err, ST_REFUSED, "%s refuses us: TLS alert %d (%s)", tls_peer(s->creds),
		       alert, name ? name : "unknown");
}
