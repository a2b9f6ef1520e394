# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash
#
# Credentials for TLS, made once a file in $BATS_FILE_TMPDIR/tls. A directory is what `tls-creds` (and
# QEMU's dir=) wants:
#
#   server client      of one CA; the server's is for localhost and 127.0.0.1
#   elsewhere          a server of that CA for another host
#   stranger           a client of another CA, that knows ours
#   anonymous          a client that has only the CA
#   careful            a server whose CRL names the client
#   psk psk-other psk-unknown      a key for qemu, another one for qemu, one for somebody else

TLS=$BATS_FILE_TMPDIR/tls

tls_key() { # FILE
	certtool --generate-privkey --key-type ecdsa --curve secp256r1 --outfile "$1" 2>/dev/null
	chmod 600 "$1"
}

# tls_ca NAME: a CA in $TLS/NAME.
tls_ca() {
	mkdir -p "$TLS/$1"
	tls_key "$TLS/$1/key.pem"
	printf '%s\n' "cn=CA $1" ca cert_signing_key crl_signing_key expiration_days=2 >"$TLS/$1/template"
	certtool --generate-self-signed --load-privkey "$TLS/$1/key.pem" \
		--template "$TLS/$1/template" --outfile "$TLS/$1/cert.pem" 2>/dev/null
}

# tls_leaf DIR CA server|client LINE...: a certificate of that CA, its template's lines, its key.
tls_leaf() {
	local dir=$TLS/$1 ca=$TLS/$2 who=$3
	shift 3
	mkdir -p "$dir"
	tls_key "$dir/$who-key.pem"
	printf '%s\n' "$@" signing_key "tls_www_$who" >"$dir/template"
	grep -q expiration "$dir/template" || echo expiration_days=2 >>"$dir/template"
	certtool --generate-certificate --load-privkey "$dir/$who-key.pem" \
		--load-ca-certificate "$ca/cert.pem" --load-ca-privkey "$ca/key.pem" \
		--template "$dir/template" --outfile "$dir/$who-cert.pem" 2>/dev/null
	cp "$ca/cert.pem" "$dir/ca-cert.pem"
}

tls_make() {
	tls_ca ca
	tls_ca other
	tls_leaf server ca server cn=localhost organization="Ex, Inc" dns_name=localhost \
		ip_address=127.0.0.1
	tls_leaf client ca client cn=source organization=Ex dns_name=source.example
	tls_leaf elsewhere ca server cn=elsewhere.example dns_name=elsewhere.example
	tls_leaf stranger other client cn=source
	cat "$TLS/ca/cert.pem" >>"$TLS/stranger/ca-cert.pem"
	mkdir "$TLS/anonymous" "$TLS/careful" "$TLS/psk" "$TLS/psk-other" "$TLS/psk-unknown"
	cp "$TLS/ca/cert.pem" "$TLS/anonymous/ca-cert.pem"
	cp "$TLS"/server/*.pem "$TLS/careful"
	printf '%s\n' expiration_days=2 >"$TLS/careful/template"
	certtool --generate-crl --load-ca-privkey "$TLS/ca/key.pem" --load-ca-certificate \
		"$TLS/ca/cert.pem" --load-certificate "$TLS/client/client-cert.pem" \
		--template "$TLS/careful/template" --outfile "$TLS/careful/ca-crl.pem" 2>/dev/null
	"$MIGTOOL" psk "$TLS/psk/keys.psk" >/dev/null
	"$MIGTOOL" psk "$TLS/psk-other/keys.psk" >/dev/null
	sed 's/^qemu:/somebody:/' "$TLS/psk-other/keys.psk" >"$TLS/psk-unknown/keys.psk"
	chmod 600 "$TLS/psk-unknown/keys.psk"
}
