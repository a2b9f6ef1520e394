#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later
# TLS with a real QEMU at either end: x509 and PSK, on one connection and on several. Whoever is not
# who he has to be is refused, whichever program finds it out.

# shellcheck disable=SC2030,SC2031 # bats knows how its tests end

bats_require_minimum_version 1.5.0
load qemu
load tls

setup_file() {
	tls_make
	qemu_save_guest
}

setup() {
	cd "$BATS_TEST_TMPDIR" || return
	IMAGE=$BATS_FILE_TMPDIR/image
}

teardown() {
	peer_teardown
}

creds() { # DIR
	echo "--param=tls-creds=$TLS/$1"
}

# The object tls0 of a QEMU.
qemu_creds() { # DIR server|client
	case $1 in
	psk*) echo "tls-creds-psk,id=tls0,dir=$TLS/$1,endpoint=$2" ;;
	*) echo "tls-creds-x509,id=tls0,dir=$TLS/$1,endpoint=$2,verify-peer=on" ;;
	esac
}

# ---- from a QEMU ----

# from_qemu SOURCE-CREDS DESTINATION-CREDS RECV-OPTIONS [SETTING]...: the guest arrives whole.
from_qemu() {
	local source=$1 dest=$2 options=$3
	shift 3
	rm -rf copy ram
	qemu_start src -object "$(qemu_creds "$source" client)"
	qemu_wait_tick src 3
	# shellcheck disable=SC2086
	recv_start recv tcp:127.0.0.1:0 copy "$(creds "$dest")" $options
	qemu_migrate src "$RECV_URI" tls-creds=tls0 "$@"
	qemu_wait_status src completed
	recv_wait recv
	qemu_save_ram src ram
	cmp ram copy/ram/pc.ram
	assert_json recv '.status == "completed"' '.ram.normal > 500'
	qemu_stop src
}

@test "from a QEMU, x509, with and without a return path" {
	from_qemu client server ""
	from_qemu client server "" return-path
	[ -s copy/device-state ]
}

@test "from a QEMU, PSK" {
	from_qemu psk psk "--param tls-authz=qemu"
}

@test "from a QEMU, multifd, x509 and PSK, without compression and with zstd" {
	for who in "client server" "psk psk"; do
		for method in none zstd; do
			# shellcheck disable=SC2086
			from_qemu $who "--cap multifd --param multifd-channels=3" multifd \
				multifd-channels=3 "multifd-compression=$method"
			[ "$(jq '.ram."multifd-bytes"' recv.json)" -gt 100000 ]
		done
	done
}

# from_qemu_refused SOURCE-CREDS RECV-WORDS [RECV-OPTION]...: SOURCE-CREDS may be "".
from_qemu_refused() {
	local source=$1 words=$2
	shift 2
	rm -rf copy
	qemu_start src ${source:+-object "$(qemu_creds "$source" client)"}
	qemu_wait_tick src 3
	recv_start recv tcp:127.0.0.1:0 copy "$@"
	# without it a QEMU listens to nobody, and may be done before it sees that it was cut off
	qemu_migrate src "$RECV_URI" return-path ${source:+tls-creds=tls0}
	qemu_wait_status src failed
	wait_until warned recv "$words"
	qemu_qmp src wait-run running >/dev/null
	qemu_stop src
	kill "${PEER_PIDS[recv]}"
	recv_wait recv 20
	[ ! -e copy ] && [ ! -e copy.part ]
}

@test "a QEMU that is not who it has to be is refused, and its guest runs on" {
	# it does not even show a certificate of a CA that we do not name
	from_qemu_refused stranger "has no certificate" "$(creds server)"
	from_qemu_refused client "has no name of tls-authz" "$(creds server)" --param tls-authz=x
	from_qemu_refused client "is revoked" "$(creds careful)"
	from_qemu_refused client "so it does not accept our credentials" "$(creds elsewhere)"
	from_qemu_refused anonymous "has no certificate" "$(creds server)"
	from_qemu_refused psk-other "key of the PSK user 'qemu' is not the one" "$(creds psk)"
	from_qemu_refused "" "it begins with \"QEVM" "$(creds server)"
	from_qemu_refused client "the source speaks TLS; give --param tls-creds=DIR"
}

# ---- to a QEMU ----

# to_qemu SOURCE-CREDS DESTINATION-CREDS SEND-OPTIONS [SETTING]...: the guest goes on.
to_qemu() {
	local source=$1 dest=$2 options=$3
	shift 3
	LISTEN=tcp:127.0.0.1:0 qemu_listen -S -object "$(qemu_creds "$dest" server)" -- tls-creds=tls0 "$@"
	# shellcheck disable=SC2086
	timeout 60 "$MIGTOOL" send --json --progress=none --timeout 20 --peer qemu $options \
		"$(creds "$source")" "$IMAGE" "$QEMU_URI" >send.json 2>send.err 3>&- 4>&-
	qemu_wait_status dst completed
	qemu_qmp dst wait-run paused >/dev/null
	qemu_save_ram dst ram
	cmp ram "$IMAGE/ram/pc.ram"
	qemu_qmp dst cont
	assert_saved_guest_runs
	qemu_stop dst
	rm -f dst.serial ram
}

@test "to a QEMU, x509, with and without a return path" {
	to_qemu client server ""
	to_qemu client server "--cap return-path" return-path
}

@test "to a QEMU, PSK" {
	to_qemu psk psk ""
	to_qemu psk/keys.psk psk "--cap return-path" return-path
}

@test "to a QEMU, multifd, x509 and PSK, without compression and with zstd" {
	for who in "client server" "psk psk"; do
		for method in none zstd; do
			# shellcheck disable=SC2086
			to_qemu $who "--cap multifd --param multifd-channels=3 \
				--param multifd-compression=$method" multifd multifd-channels=3 \
				"multifd-compression=$method"
		done
	done
}

# to_qemu_refused SOURCE-CREDS DESTINATION-CREDS SEND-WORDS [SEND-OPTION]...: either may be "".
to_qemu_refused() {
	local source=$1 dest=$2 words=$3
	shift 3
	qemu_start_incoming dst defer -S ${dest:+-object "$(qemu_creds "$dest" server)"} \
		-object authz-list,id=authz0,policy=deny
	qemu_qmp dst incoming tcp:127.0.0.1:0 ${dest:+tls-creds=tls0} ${AUTHZ:+"$AUTHZ"}
	run -5 --separate-stderr timeout 60 "$MIGTOOL" send --json --progress=none --timeout 20 \
		--peer qemu ${source:+"$(creds "$source")"} "$@" "$IMAGE" "$(qemu_qmp dst address)" \
		3>&- 4>&-
	# shellcheck disable=SC2154
	[[ $stderr == *"error: "*"$words"* ]] || {
		echo "$stderr"
		return 1
	}
	jq -e '.owner == "source" and .ram.transferred < 2000' <<<"$output"
	kill "${PEER_PIDS[dst]}" 2>/dev/null || true # it may have ended with the connection
	wait_for_end dst || true
}

@test "a QEMU that is not who it has to be, or does not want us, is refused before the guest moves" {
	mkdir foreign
	tls_leaf foreign other client cn=source
	to_qemu_refused foreign server "is not signed by our ca-cert.pem"
	to_qemu_refused client elsewhere "is for elsewhere.example, expected 127.0.0.1"
	to_qemu_refused stranger server "it does not accept our credentials (x509)"
	to_qemu_refused stranger server "it does not accept our credentials (x509)" --cap multifd
	AUTHZ=tls-authz=authz0 to_qemu_refused client server "it does not accept our credentials (x509)"
	to_qemu_refused psk-other psk "TLS with"
	to_qemu_refused psk-unknown psk "TLS with"
	to_qemu_refused client psk "TLS with"
	to_qemu_refused client "" "ended the connection instead of a TLS handshake"
}
