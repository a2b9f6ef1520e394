#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later
# TLS between two migtools: it works on every kind of connection, and whoever is not who he has to be
# is refused before a byte of memory moves, both ends saying why. (A QEMU: qemu-tls.bats.)

# shellcheck disable=SC2030,SC2031 # bats knows how its tests end

bats_require_minimum_version 1.5.0
load helper
load tls

setup_file() {
	export IMAGES=$BATS_FILE_TMPDIR
	make_image mixed "$IMAGES/mixed"
	make_image random --size 4 "$IMAGES/random"
	make_image directory "$IMAGES/directory"
	{ yes MARKED-PAGE | head -c 2M; head -c 2M "$IMAGES/random"; } >"$IMAGES/marked"
	tls_make
}

setup() {
	cd "$BATS_TEST_TMPDIR" || return
}

teardown() {
	peer_teardown
}

creds() { # DIR
	echo "--param=tls-creds=$TLS/$1"
}

# try URI IMAGE SOURCE-CREDS DESTINATION-CREDS [SEND-OPTION]... [-- RECV-OPTION...]
try() {
	local uri=$1 image=$2 source=$3 dest=$4 BEFORE BEHIND
	split_options "${@:5}"
	rm -rf copy
	run_pair "$uri" "$image" copy "$(creds "$source")" "${BEFORE[@]}" -- "$(creds "$dest")" \
		"${BEHIND[@]}"
	assert_same_image "$image" copy
	assert_agreed
}

# refused SEND-STATUS SEND-WORDS RECV-WORDS [SEND-OPTION]... [-- RECV-OPTION...]: the source ends with
# that status, both say why, nothing is written, and recv goes on listening.
refused() {
	local status=$1 says=$2 warns=$3 BEFORE BEHIND
	split_options "${@:4}"
	rm -rf copy
	recv_start recv tcp:127.0.0.1:0 copy "${BEHIND[@]}"
	migtool_start send send --timeout 20 "${BEFORE[@]}" "$IMAGES/mixed" "$RECV_URI"
	migtool_wait send "$status"
	grep -F "error: " send.err | grep -qF -- "$says"
	assert_json send '.ram.transferred < 2000' '.owner == "source"' '.complete == false'
	wait_until warned recv "$warns"
	kill "${PEER_PIDS[recv]}"
	migtool_wait recv 20
	[ ! -e copy ] && [ ! -e copy.part ]
}

# proxy_start [OPTION]...: PROXIED leads to recv; what passes is in `wire` (tests/tools/record_proxy.py).
proxy_start() {
	rm -f proxy.port
	"$TOOLS/record_proxy.py" "$@" "${RECV_URI##*:}" wire >proxy.port 2>proxy.err 3>&- 4>&- &
	peer_started proxy
	wait_for_file proxy.port
	PROXIED=tcp:127.0.0.1:$(<proxy.port)
}

# ---- it works ----

@test "x509: an image arrives, on one connection and on several, with every compression" {
	try tcp:127.0.0.1:0 "$IMAGES/mixed" client server
	try tcp:127.0.0.1:0 "$IMAGES/directory" client server
	for method in none zlib zstd; do
		try tcp:127.0.0.1:0 "$IMAGES/mixed" client server --cap multifd \
			--param multifd-channels=3 --param "multifd-compression=$method"
	done
	try tcp:127.0.0.1:0 "$IMAGES/mixed" client server --cap compress
}

@test "PSK: an image arrives, on one connection and on several, by directory and by file" {
	try tcp:127.0.0.1:0 "$IMAGES/mixed" psk psk
	try tcp:127.0.0.1:0 "$IMAGES/mixed" psk psk --cap multifd \
		--param multifd-compression=zstd
	try tcp:127.0.0.1:0 "$IMAGES/random" psk/keys.psk psk/keys.psk --cap multifd \
		--param multifd-channels=4
}

@test "TLS over UNIX sockets, through a command, and with the source listening" {
	try unix:socket "$IMAGES/mixed" client server --param tls-hostname=localhost
	try unix:socket "$IMAGES/mixed" psk psk --cap multifd
	rm -f copy
	"$MIGTOOL" send -q "$(creds psk)" "$IMAGES/mixed" \
		"exec:$MIGTOOL recv -q $(creds psk) stdio: copy" </dev/null
	cmp "$IMAGES/mixed" copy

	listener_start send send --listen "$(creds client)" --cap multifd \
		--param tls-hostname=localhost "$IMAGES/mixed" tcp:127.0.0.1:0
	migtool_start recv recv --connect --force "$(creds server)" "$RECV_URI" copy
	migtool_wait send
	migtool_wait recv
	cmp "$IMAGES/mixed" copy
	assert_agreed
}

@test "nothing of the image can be read on the wire, on no channel" {
	for caps in "" "--cap=multifd"; do
		for tls in "" psk; do
			rm -rf copy wire
			recv_start recv tcp:127.0.0.1:0 copy ${tls:+"$(creds $tls)"}
			proxy_start
			migtool_start send send ${tls:+"$(creds $tls)"} ${caps:+"$caps"} "$IMAGES/marked" "$PROXIED"
			migtool_wait send
			migtool_wait recv
			kill "${PEER_PIDS[proxy]}"
			wait_for_end proxy || true
			cmp "$IMAGES/marked" copy
			[ "$(stat -c %s wire)" -gt 1000000 ]
			# all that is said, but for the handshake: greeting, names, pages
			if [ -z "$tls" ]; then
				grep -qaF MARKED-PAGE wire
				grep -qaF pc.ram wire
			else
				run -1 grep -qaF MARKED-PAGE wire
				run -1 grep -qaF pc.ram wire
			fi
		done
	done
}

@test "tls-hostname stands for the URI's host" {
	try tcp:127.0.0.1:0 "$IMAGES/mixed" client elsewhere --param tls-hostname=elsewhere.example
	refused 5 "is for elsewhere.example, expected 127.0.0.1" "it does not accept" \
		"$(creds client)" -- "$(creds elsewhere)"
	grep -qF -- "--param tls-hostname=NAME" send.err
}

@test "tls-authz takes a DN in either order, a CN, an alternative name, and a PSK's user" {
	for name in "CN=source,O=Ex" "O=Ex,CN=source" source source.example "nobody;source"; do
		try tcp:127.0.0.1:0 "$IMAGES/mixed" client server -- --param "tls-authz=$name"
	done
	try tcp:127.0.0.1:0 "$IMAGES/mixed" psk psk -- --param tls-authz=qemu
	# the source may ask for names, too
	try tcp:127.0.0.1:0 "$IMAGES/mixed" client server --param 'tls-authz=CN=localhost,O=Ex\, Inc'
}

@test "a dry run and check ask through TLS, and do not use recv up" {
	recv_start recv tcp:127.0.0.1:0 copy "$(creds server)"
	"$MIGTOOL" send -n "$(creds client)" "$IMAGES/mixed" "$RECV_URI"
	"$MIGTOOL" check "$(creds client)" "$RECV_URI" | grep -q "the other end"
	run -5 "$MIGTOOL" check "$(creds stranger)" "$RECV_URI"
	[[ $output == *"does not have the CA of our certificate"* ]]
	"$MIGTOOL" send -q "$(creds client)" "$IMAGES/mixed" "$RECV_URI"
	recv_wait recv
	cmp "$IMAGES/mixed" copy
}

# ---- whoever is not who he has to be ----

@test "another CA is refused, by the source and by the destination" {
	mkdir foreign
	tls_leaf foreign other client cn=source
	refused 5 "(CN=localhost,O=Ex\\, Inc) is not signed by our ca-cert.pem" \
		"does not have the CA of our certificate in $TLS/server" \
		"$(creds foreign)" -- "$(creds server)"
	refused 5 "does not have the CA of our certificate in $TLS/stranger" \
		"the source's certificate (CN=source) is not signed by our ca-cert.pem" \
		"$(creds stranger)" -- "$(creds server)"
}

@test "a source without a certificate is refused" {
	refused 5 "wants a certificate from us, and there is none in $TLS/anonymous" \
		"the source has no certificate" "$(creds anonymous)" -- "$(creds server)"
}

@test "a revoked certificate is refused" {
	refused 5 "takes for revoked our certificate in $TLS/client" \
		"the source's certificate (CN=source,O=Ex) is revoked (ca-crl.pem)" \
		"$(creds client)" -- "$(creds careful)"
}

@test "a name that is not in tls-authz is refused, x509 and PSK" {
	refused 5 "its tls-authz has no name of our credentials in $TLS/client" \
		"(CN=source,O=Ex) has no name of tls-authz, expected: sourc; ource; CN=source" \
		"$(creds client)" -- "$(creds server)" --param "tls-authz=sourc;ource; CN=source"
	refused 5 "its tls-authz has no name" \
		"the source is the PSK user 'qemu', who is not in tls-authz, expected: other" \
		"$(creds psk)" -- "$(creds psk)" --param tls-authz=other
	refused 5 "(CN=localhost,O=Ex\\, Inc) has no name of tls-authz, expected: other" \
		"the source refuses us" "$(creds client)" --param tls-authz=other -- "$(creds server)"
}

@test "a PSK user that the destination does not have, and a wrong key, are refused" {
	refused 5 "does not know the PSK user of $TLS/psk-unknown" \
		"the source is the PSK user 'somebody', whom $TLS/psk does not have" \
		"$(creds psk-unknown)" -- "$(creds psk)"
	refused 5 "its key of the PSK user is not the one in $TLS/psk-other" \
		"the source's key of the PSK user 'qemu' is not the one in $TLS/psk" \
		"$(creds psk-other)" -- "$(creds psk)"
}

@test "PSK: without a user qemu a source is the only user of its file, and of several it has to be told" {
	{ sed 's/^qemu:/alice:/' "$TLS/psk/keys.psk"; sed 's/^qemu:/bob:/' "$TLS/psk-other/keys.psk"; } >both.psk
	grep bob both.psk >bob.psk
	chmod 600 both.psk bob.psk
	bad_creds "both.psk has 2 users, and none of them is qemu: which one is this source?" both.psk
	[[ $output == *"hint: give the source a file with its own line alone"* ]]
	# the destination takes each of its users
	"$MIGTOOL" send -q --param tls-creds=bob.psk "$IMAGES/mixed" \
		"exec:$MIGTOOL recv -q --param tls-creds=both.psk --param tls-authz=bob stdio: copy" </dev/null
	cmp "$IMAGES/mixed" copy
	sed 's/^qemu:/carol:/' "$TLS/psk/keys.psk" >carol.psk
	chmod 600 carol.psk
	run ! "$MIGTOOL" send -q --param tls-creds=carol.psk "$IMAGES/mixed" \
		"exec:$MIGTOOL recv -q --force --param tls-creds=both.psk stdio: copy" </dev/null
	[[ $output == *"the source is the PSK user 'carol', whom both.psk does not have"* ]]
}

@test "x509 at one end and PSK at the other have nothing in common" {
	refused 5 "nothing in common" "of one kind (here: PSK)" "$(creds client)" -- "$(creds psk)"
	refused 5 "nothing in common" "nothing in common with ours in $TLS/server" \
		"$(creds psk)" -- "$(creds server)"
}

@test "one end without TLS is refused, whichever it is" {
	refused 5 "the destination wants TLS, and the source speaks none" "which is no TLS" \
		-- "$(creds server)"
	grep -qF "hint: send --param tls-creds=DIR" send.err
	refused 5 "the destination speaks no TLS" \
		"the source speaks TLS; give --param tls-creds=DIR" "$(creds client)" --
	grep -qF "has it got --param tls-creds=DIR too?" send.err
}

# What we would not use ourselves has to come from another program.
@test "an expired certificate is refused, the source's and the destination's" {
	past=(activation_date="2020-01-01 00:00:00" expiration_date="2020-01-31 00:00:00")
	tls_leaf old ca client cn=source "${past[@]}"
	tls_leaf old ca server cn=localhost ip_address=127.0.0.1 "${past[@]}"
	recv_start recv tcp:127.0.0.1:0 copy "$(creds server)"
	gnutls-cli --x509cafile "$TLS/ca/cert.pem" --x509certfile "$TLS/old/client-cert.pem" \
		--x509keyfile "$TLS/old/client-key.pem" -p "${RECV_URI##*:}" 127.0.0.1 \
		</dev/null >cli.err 2>&1 || true
	wait_for_line recv.err "expired on 2020-01-31 00:00:00 UTC"
	grep -qF "the source's certificate (CN=source) expired on 2020-01-31 00:00:00 UTC" recv.err
	kill "${PEER_PIDS[recv]}"
	recv_wait recv 20

	port=$("$TOOLS/free_port.py")
	gnutls-serv --echo --x509cafile "$TLS/ca/cert.pem" --x509certfile "$TLS/old/server-cert.pem" \
		--x509keyfile "$TLS/old/server-key.pem" -p "$port" >serv.err 2>&1 </dev/null 3>&- 4>&- &
	peer_started serv
	wait_for_line serv.err "listening on IPv4"
	run -5 "$MIGTOOL" send -q "$(creds client)" "$IMAGES/mixed" "tcp:127.0.0.1:$port"
	[[ $output == *"the destination's certificate (CN=localhost) expired on 2020-01-31"* ]]
}

@test "TLS 1.1 is not spoken" {
	recv_start recv tcp:127.0.0.1:0 copy "$(creds server)"
	run gnutls-cli --insecure --priority NORMAL:-VERS-ALL:+VERS-TLS1.1 \
		-p "${RECV_URI##*:}" 127.0.0.1 </dev/null
	[ "$status" -ne 0 ]
	kill "${PEER_PIDS[recv]}"
	recv_wait recv 20
	grep -q "dropped the connection" recv.err
}

@test "strangers at the door, silent or in the middle of a handshake, do not keep the source out" {
	recv_start recv tcp:127.0.0.1:0 copy "$(creds server)"
	"$TOOLS/half_tls.py" "${RECV_URI##*:}" 6 >half.out 2>half.err 3>&- 4>&- &
	peer_started half
	wait_for_file half.out
	"$MIGTOOL" send -q "$(creds client)" --cap multifd "$IMAGES/mixed" "$RECV_URI"
	recv_wait recv
	cmp "$IMAGES/mixed" copy
}

# ---- what is wrong at this end alone ----

bad_creds() { # WORDS DIR [OPTION]...
	local words=$1 dir=$2
	shift 2
	run -4 "$MIGTOOL" send "--param=tls-creds=$dir" "$@" "$IMAGES/mixed" tcp:127.0.0.1:1
	[[ $output == *"$words"* ]] || {
		echo "$output"
		return 1
	}
}

@test "bad credentials are found before anybody is connected to" {
	bad_creds "cannot use none: No such file" none
	mkdir empty
	bad_creds "empty has no ca-cert.pem, which a source needs" empty
	cp -r "$TLS/client" one
	rm one/client-key.pem
	bad_creds "one has no client-key.pem" one
	cp "$TLS/stranger/client-key.pem" one
	bad_creds "client-key.pem is not the key of one/client-cert.pem" one
	cp -r "$TLS/client" two
	cp "$TLS/other/cert.pem" two/ca-cert.pem
	bad_creds "two/client-cert.pem is not signed by our ca-cert.pem" two
	echo rubbish >two/ca-cert.pem
	bad_creds "two/ca-cert.pem holds no certificate" two
	cp -r "$TLS/client" three
	cp "$TLS/psk/keys.psk" three
	bad_creds "three has both ca-cert.pem (x509) and keys.psk (PSK)" three
	tls_leaf past ca client cn=source activation_date="2020-01-01 00:00:00" \
		expiration_date="2020-01-31 00:00:00"
	bad_creds "client-cert.pem expired on 2020-01-31 00:00:00 UTC" "$TLS/past"
	cp "$TLS/server/server-cert.pem" one/client-cert.pem
	cp "$TLS/server/server-key.pem" one/client-key.pem
	bad_creds "is not for this side of TLS" one
	echo "qemu:123" >short.psk
	bad_creds "short.psk, line 1: a key has an even number" short.psk
	bad_creds "tls-authz: with a PSK only the destination" "$TLS/psk" --param tls-authz=x
	run -4 "$MIGTOOL" recv "$(creds client)" tcp:127.0.0.1:0 copy
	[[ $output == *"has no server-cert.pem, which a destination needs"* ]]
	run -1 "$MIGTOOL" recv --param tls-authz=x tcp:127.0.0.1:0 copy
}

@test "where the URI names no host, x509 asks for tls-hostname" {
	run -4 "$MIGTOOL" send "$(creds client)" "$IMAGES/mixed" unix:socket
	[[ $output == *"does not say whom the destination's certificate has to be for"* ]]
	[[ $output == *"--param tls-hostname=NAME"* ]]
	run -4 "$MIGTOOL" send "$(creds client)" "$IMAGES/mixed" tcp::4444
	run -4 "$MIGTOOL" send --listen "$(creds client)" "$IMAGES/mixed" tcp:127.0.0.1:0
	[[ $output == *"--param tls-hostname=NAME"* ]]
}

@test "a URI with nobody at the other end cannot have TLS" {
	run -4 "$MIGTOOL" send "$(creds psk)" "$IMAGES/mixed" file:out
	[[ $output == *"nobody at its other end"* ]]
	[ ! -e out ]
	run -4 "$MIGTOOL" send "$(creds psk)" "$IMAGES/mixed" null:
}

@test "a secret that others may read is warned about" {
	cp -r "$TLS/psk" open
	chmod 644 open/keys.psk
	run -0 "$MIGTOOL" check --param tls-creds=open
	[[ $output == *"warning: open/keys.psk is a secret"*"mode 0644"* ]]
	run -0 "$MIGTOOL" check "$(creds psk)"
	[[ $output != *warning* ]]
}

@test "psk makes a key that nobody else may read, overwrites nothing, and says how to use it" {
	umask 000
	run -0 "$MIGTOOL" psk keys.psk
	[[ $output == *"--param tls-creds=keys.psk"* && $output == *"endpoint=server,dir=."* ]]
	[ "$(stat -c %a keys.psk)" = 600 ]
	grep -qxE 'qemu:[0-9a-f]{64}' keys.psk
	cp keys.psk before
	run -11 "$MIGTOOL" psk keys.psk
	[[ $output == *"exists: a key is never overwritten"* ]]
	cmp keys.psk before
	ln -s nowhere link
	run -11 "$MIGTOOL" psk link
	[ ! -e nowhere ]
	run -11 "$MIGTOOL" psk no/such/dir
	"$MIGTOOL" psk again.psk >said
	run -1 cmp -s keys.psk again.psk
	run -1 grep -qF "$(cut -d : -f 2 again.psk)" said
}

@test "listening without TLS where others can connect is warned about, in one line" {
	recv_start recv tcp:0.0.0.0:0 copy
	kill "${PEER_PIDS[recv]}"
	recv_wait recv 20
	[ "$(grep -c "warning: .* has no TLS" recv.err)" -eq 1 ]
	recv_start recv tcp::0 copy
	kill "${PEER_PIDS[recv]}"
	recv_wait recv 20
	grep -q "has no TLS" recv.err
	for safe in tcp:127.0.0.1:0 'tcp:[::1]:0' unix:quiet; do
		recv_start recv "$safe" copy
		kill "${PEER_PIDS[recv]}"
		recv_wait recv 20
		run -1 grep "has no TLS" recv.err
	done
	recv_start recv tcp:0.0.0.0:0 copy "$(creds psk)"
	kill "${PEER_PIDS[recv]}"
	recv_wait recv 20
	run -1 grep "has no TLS" recv.err
}

# ---- what goes wrong later ----

@test "a connection that is cut is no end: nothing gets its name" {
	for caps in "" "--cap=multifd"; do
		rm -rf copy wire
		recv_start recv tcp:127.0.0.1:0 copy "$(creds psk)"
		proxy_start --cut 2000000
		migtool_start send send --timeout 20 "$(creds psk)" ${caps:+"$caps"} "$IMAGES/random" \
			"$PROXIED"
		migtool_wait send 10
		migtool_wait recv 10
		[ ! -e copy ] && [ ! -e copy.part ]
		wait_for_end proxy
	done
}

@test "bytes that change on the way are found out" {
	recv_start recv tcp:127.0.0.1:0 copy "$(creds psk)"
	proxy_start --flip 2000000
	migtool_start send send --timeout 20 "$(creds psk)" "$IMAGES/random" "$PROXIED"
	recv_wait recv 12
	grep -q "error: .*TLS with" recv.err
	migtool_wait send 5
	[ ! -e copy ] && [ ! -e copy.part ]
}

@test "a failing end's last words travel through TLS" {
	recv_start recv tcp:127.0.0.1:0 copy "$(creds psk)"
	migtool_start send send --bwlimit 200K "$(creds psk)" "$IMAGES/random" "$RECV_URI"
	wait_until test -e copy.part
	sleep 0.3
	kill "${PEER_PIDS[recv]}"
	recv_wait recv 20
	migtool_wait send 20
	grep -q "error: the destination failed: cancelled by SIGTERM" send.err
	[ ! -e copy ]
}
