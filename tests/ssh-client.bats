#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later
# The ssh library as client of a real sshd: host keys, logging in, and what it says when it cannot.

bats_require_minimum_version 1.5.0
load helper
load ssh

setup_file() {
	export SSHD=$BATS_FILE_TMPDIR/sshd IMAGES=$BATS_FILE_TMPDIR
	sshd_start "$SSHD"
	make_image mixed --size 8 "$IMAGES/mixed"
}

teardown_file() {
	sshd_stop "$SSHD"
}

setup() {
	cd "$BATS_TEST_TMPDIR" || return
	ssh_home
}

teardown() {
	[ -z "${AGENT_PID:-}" ] || kill "$AGENT_PID" || true
	[ ! -e own/pid ] || sshd_stop "$PWD/own"
	peer_teardown
}

# own_sshd [CONFIG-LINE]...: one for this test alone; known_hosts is its own.
own_sshd() {
	sshd_start "$PWD/own" "$@"
	ssh_known own
}

# accept KEY...: the public keys that log in to own_sshd
accept() {
	local key
	for key; do
		cat "$key.pub" >>own/authorized_keys
	done
}

# push STATUS [OPTION]...: sends the image; afterwards `output` is what was said.
push() {
	rm -rf there/*
	run --separate-stderr -"$1" "$MIGTOOL" send "${@:2}" "$IMAGES/mixed" "$FAR/image" </dev/null
	# shellcheck disable=SC2154 # run sets it
	output=$stderr
	echo "$output"
	[ "$1" -ne 0 ] || assert_same_image "$IMAGES/mixed" there/image
	[ "$1" -eq 0 ] || [ ! -e there/image ]
}

says() {
	grep -qF -- "$1" <<<"$output" || {
		echo "does not say: $1"
		return 1
	}
}

says_not() {
	! grep -qF -- "$1" <<<"$output" || {
		echo "says: $1"
		return 1
	}
}

# The command that a hint ends with.
hinted_command() {
	sed -n 's/^  hint: .*accept it: //p; s/^  hint: only if .* new one: //p' <<<"$output"
}

fingerprint() {
	ssh-keygen -lf "$1" | cut -d ' ' -f 2
}

# agent KEY...: an ssh-agent that has them
agent() {
	eval "$(ssh-agent -s)" >/dev/null
	AGENT_PID=$SSH_AGENT_PID
	ssh-add -q "$@" </dev/null
}

on_terminal() { # STATUS [PROMPT=ANSWER]... [--] [OPTION]...
	local wanted=$1 BEFORE BEHIND
	split_options "${@:2}"
	rm -rf there/*
	run "$TOOLS/on-terminal.py" "${BEFORE[@]}" -- \
		"$MIGTOOL" send "${BEHIND[@]}" "$IMAGES/mixed" "$FAR/image"
	# shellcheck disable=SC2154 # of run
	echo "$output" && [ "$status" -eq "$wanted" ]
}

@test "an image goes to a host that is known, and comes back" {
	push 0
	push 0 --cap multifd --param multifd-channels=4
	"$MIGTOOL" recv "$FAR/image" back </dev/null
	assert_same_image "$IMAGES/mixed" back
	rm back
	"$MIGTOOL" recv --cap multifd "$FAR/image" back </dev/null
	assert_same_image "$IMAGES/mixed" back
	assert_nothing_far "$SSHD"
}

@test "a host that is unknown is refused; the printed command accepts it" {
	local command
	rm home/.ssh/known_hosts
	push 5
	says "shows a host key that is not known: ssh-ed25519 $(fingerprint "$SSHD/host_ed25519.pub")"
	[ ! -e home/.ssh/known_hosts ]
	push 5 # it was not added
	command=$(hinted_command)
	eval "$command"
	push 0
	[ "$(wc -l <home/.ssh/known_hosts)" -eq 1 ]
}

@test "the command for an account that has no ~/.ssh makes it" {
	local command
	mv home/.ssh/id_ed25519 key
	rm -r home/.ssh
	push 5 -i key
	command=$(hinted_command)
	eval "$command"
	[ "$(stat -c %a home/.ssh)" = 700 ]
	push 0 -i key
}

@test "a key that has changed is refused; the printed command replaces it" {
	local command
	echo "other $(cut -d ' ' -f 2- "$SSHD/known_hosts")" >home/.ssh/known_hosts
	echo "[127.0.0.1]:$SSH_PORT $(cut -d ' ' -f 1,2 "$SSHD/other.pub")" >>home/.ssh/known_hosts
	push 5
	says "another host key than the one in $HOME/.ssh/known_hosts, line 2: ssh-ed25519 $(fingerprint "$SSHD/host_ed25519.pub")"
	command=$(hinted_command)
	eval "$command"
	push 0
	grep -q '^other ' home/.ssh/known_hosts
}

@test "a command that would not fit into the message is not printed in part" {
	local deep
	deep=$(printf 'd%.0s' {1..235})
	mkdir -p "$deep/$deep"
	echo "[127.0.0.1]:$SSH_PORT $(cut -d ' ' -f 1,2 "$SSHD/other.pub")" >"$deep/$deep/known"
	push 5 -o "UserKnownHostsFile=$deep/$deep/known"
	says "another host key than the one in $deep/$deep/known, line 1"
	[ -z "$(hinted_command)" ] || [[ $(hinted_command) == "replace its line in ddd"* ]]
	says_not "ssh-keygen -R"
	: >"$deep/$deep/known"
	push 5 -o "UserKnownHostsFile=$deep/$deep/known"
	says_not "echo '"
	says "accept it: put its line in ddd"
}

@test "hashed names are found" {
	ssh-keygen -q -H -f home/.ssh/known_hosts
	grep -q '^|1|' home/.ssh/known_hosts
	push 0
}

@test "a plain name says nothing of another port" {
	sed -i 's/^[^ ]*/127.0.0.1/' home/.ssh/known_hosts
	push 5
	says "not known"
}

@test "the host is asked for a key of the type that is known" {
	ssh-keygen -q -t ecdsa -N '' -f ecdsa
	own_sshd "HostKey $PWD/ecdsa" # the others follow
	push 0 # by the ed25519 one
	echo "[127.0.0.1]:$SSH_PORT $(cut -d ' ' -f 1,2 ecdsa.pub)" >home/.ssh/known_hosts
	push 0 -v
	says "ecdsa-sha2-nistp256 $(fingerprint ecdsa.pub)"
}

@test "a revoked key is refused, whatever else is said of it" {
	sed 's/^[^ ]*/@revoked */' "$SSHD/known_hosts" >>home/.ssh/known_hosts
	push 5
	says "was revoked in $HOME/.ssh/known_hosts, line 2"
	[ -z "$(hinted_command)" ]
}

@test "a certificate authority's key is not the host's" {
	sed -i 's/^/@cert-authority /' home/.ssh/known_hosts
	push 5
	says "only a certificate authority"
	says "--rsh ssh"
}

@test "the files with host keys can be chosen, and are never written" {
	rm home/.ssh/known_hosts
	push 0 -o "UserKnownHostsFile=$PWD/none $SSHD/known_hosts" -o StrictHostKeyChecking=yes
	push 5 -o "UserKnownHostsFile=$PWD/none"
	says ">> $PWD/none"
	[ ! -e none ]
	mkdir directory
	push 11 -o "UserKnownHostsFile=$PWD/directory"
	says "cannot read $PWD/directory"
}

@test "options that would weaken it, and unknown ones, are refused" {
	push 1 -o StrictHostKeyChecking=no
	says "only yes"
	push 1 -o StrictHostKeyChecking=accept-new
	push 1 -o Ciphers=none
	says "--rsh 'ssh -o Ciphers=none'"
}

@test "without a key that the host knows the message lists what was tried" {
	cp "$SSHD/other" home/.ssh/id_ed25519
	push 5
	says "takes by publickey"
	says "no ssh-agent (SSH_AUTH_SOCK is not set)"
	says "$HOME/.ssh/id_ed25519 (ssh-ed25519): not accepted"
	rm home/.ssh/id_ed25519
	push 5
	says "no key file"
	push 11 -i nowhere
	says "cannot read the key nowhere"
	push 11 -i "$SSHD/key.pub"
	says "the private one is usually the same name without .pub"
}

@test "an agent's keys log in, and -i chooses among them" {
	mv home/.ssh/id_ed25519 key
	ssh-keygen -y -f key >key.pub
	ssh-keygen -q -t ecdsa -N '' -f more
	agent "$SSHD/other" more key
	push 0
	push 0 --cap multifd --param multifd-channels=3
	# a file that is encrypted, and whose passphrase need not be asked for
	cp key locked
	ssh-keygen -q -p -N secret -f locked
	push 0 -i locked
	push 5 -i "$SSHD/other"
	says "the agent's key other (ssh-ed25519): not accepted"
	says_not more
	ssh-add -q -D
	push 5
	says "the ssh-agent has no key"
}

@test "an agent that is none is passed over" {
	export SSH_AUTH_SOCK=$PWD/agent
	push 0
	socat UNIX-LISTEN:agent,fork SYSTEM:'echo this is no agent at all' &
	peer_started agent
	wait_until test -S agent
	push 0
}

@test "keys of all kinds and forms log in" {
	local kind
	own_sshd
	ssh-keygen -q -t ecdsa -N '' -f ecdsa
	ssh-keygen -q -t ecdsa -b 521 -N '' -f ecdsa521
	ssh-keygen -q -t ecdsa -m PEM -N '' -f pem
	ssh-keygen -q -t ecdsa -m PKCS8 -N '' -f pkcs8
	for kind in ecdsa ecdsa521 pem pkcs8; do
		accept "$kind"
		push 0 -i "$kind"
	done
}

@test "a passphrase is asked for on the terminal, once for all connections" {
	own_sshd
	ssh-keygen -q -t ed25519 -N 'two words' -f locked
	accept locked
	on_terminal 0 "passphrase of locked=two words" -- -i locked --cap multifd
	assert_same_image "$IMAGES/mixed" there/image
	[[ $output != *"two words"* && $output != echo:* ]]
	on_terminal 0 "passphrase=wrong" "passphrase=two words" -- -i locked
	on_terminal 5 "passphrase=a" "passphrase=b" "passphrase=c" -- -i locked
	says "locked (ssh-ed25519): the passphrase is wrong"
}

@test "a passphrase in the old form, and in PKCS8, is asked for" {
	own_sshd
	ssh-keygen -q -t ecdsa -m PEM -N secret -f pem
	ssh-keygen -q -t ecdsa -m PKCS8 -N secret -f pkcs8
	accept pem pkcs8
	on_terminal 0 "passphrase of pem=secret" -- -i pem
	on_terminal 0 "passphrase of pkcs8=secret" -- -i pkcs8
}

@test "the passphrase of a key that the host does not take is not asked for" {
	ssh-keygen -q -t ed25519 -N secret -f locked
	on_terminal 5 -- -i locked
	says "locked (ssh-ed25519): not accepted"
	says_not "passphrase of"
}

@test "without a terminal nothing waits for an answer" {
	own_sshd
	ssh-keygen -q -t ed25519 -N secret -f locked
	accept locked
	run -5 setsid -w "$MIGTOOL" send -i locked "$IMAGES/mixed" "$FAR/image" </dev/null
	says "its passphrase cannot be asked for: no terminal to ask on"
}

@test "a cancel ends the wait for a passphrase, and the terminal is as before" {
	own_sshd
	ssh-keygen -q -t ed25519 -N secret -f locked
	accept locked
	rm -rf there/*
	# shellcheck disable=SC2016 # the inner shell's
	run -20 "$TOOLS/on-terminal.py" "passphrase=^C" -- sh -c 'trap : INT; "$@"; s=$?; stty -a; exit $s' - \
		"$MIGTOOL" send -i locked "$IMAGES/mixed" "$FAR/image"
	[[ $output == *" echo "* ]]
}

@test "an RSA key logs in, or the message says why not and what does" {
	own_sshd
	ssh-keygen -q -t rsa -N '' -f rsa
	accept rsa
	run "$MIGTOOL" send -i rsa "$IMAGES/mixed" "$FAR/image" </dev/null
	echo "$output"
	[ "$status" -ne 0 ] || return 0 # a library that signs with SHA-2
	[ "$status" -eq 5 ]
	says "not accepted, as RSA with SHA-1"
	says "use an ed25519 key"
	says "--rsh ssh"
	own_sshd "PubkeyAcceptedAlgorithms +ssh-rsa" # one that still takes it
	accept rsa
	push 0 -i rsa
}

# secret_account: sshd sees a system in which whoever runs the tests has the password "pass word".
secret_account() {
	local hash
	[ "$(id -u)" -eq 0 ] || skip "a password can be made only by root, in a namespace of its own"
	hash=$(python3 -W ignore -c 'import crypt; print(crypt.crypt("pass word"))')
	awk -F : -v OFS=: -v user="$(id -un)" -v hash="$hash" \
		'$1 == user { $2 = hash; $3 = 19000; $5 = 99999 } { print }' /etc/shadow >shadow
	mkdir bin
	cat >bin/sshd <<-END
		#!/bin/sh
		exec unshare --mount sh -c 'mount --bind "$PWD/shadow" /etc/shadow && exec /usr/sbin/sshd "\$@"' - "\$@"
	END
	chmod 600 shadow
	chmod +x bin/sshd
	PATH=$PWD/bin:$PATH
}

@test "a password is asked for on the terminal, once for all connections" {
	secret_account
	own_sshd "PasswordAuthentication yes"
	rm home/.ssh/id_ed25519
	on_terminal 0 "password of=pass word" -- --cap multifd
	assert_same_image "$IMAGES/mixed" there/image
	[[ $output != *"pass word"* && $output != echo:* ]]
	on_terminal 0 "password of=wrong" "password of=pass word"
	on_terminal 5 "password of=a" "password of=b" "password of=c"
	says "password: not accepted"
}

@test "what the host asks for is asked, once for all connections" {
	secret_account
	own_sshd "UsePAM yes" "KbdInteractiveAuthentication yes"
	rm home/.ssh/id_ed25519
	on_terminal 0 "Password=pass word" -- --cap multifd
	assert_same_image "$IMAGES/mixed" there/image
	[[ $output != *"pass word"* && $output != echo:* ]]
	on_terminal 0 "Password=wrong" "Password=pass word"
}

@test "a host that wants a key and a password gets both" {
	secret_account
	own_sshd "PasswordAuthentication yes" "AuthenticationMethods publickey,password"
	on_terminal 0 "password of=pass word"
	assert_same_image "$IMAGES/mixed" there/image
}

@test "nobody listens, or it is no ssh server" {
	own_sshd
	sshd_stop "$PWD/own"
	push 35
	says "Connection refused"
	says "is there an ssh server on port $SSH_PORT of 127.0.0.1?"
	socat "TCP-LISTEN:$SSH_PORT,reuseaddr,fork" SYSTEM:'read -r banner; echo HTTP/1.0 400 Bad Request' &
	peer_started http
	wait_until somebody_listens
	push 35
	says "127.0.0.1]:$SSH_PORT is no ssh server: it says \"HTTP/1.0 400 Bad Request\""
}

somebody_listens() {
	(exec 3<>"/dev/tcp/127.0.0.1/$SSH_PORT") 2>/dev/null
}

@test "a server that says nothing is not waited for longer than --timeout" {
	own_sshd
	sshd_stop "$PWD/own"
	socat "TCP-LISTEN:$SSH_PORT,reuseaddr,fork" SYSTEM:'sleep 100' &
	peer_started silent
	wait_until somebody_listens
	push 30 --timeout 1
	says "does not answer in time"
	migtool_start send send "$IMAGES/mixed" "$FAR/image"
	sleep 0.2 # wherever it is by then
	kill -INT "${PEER_PIDS[send]}"
	migtool_wait send 20
}

@test "no method in common, no channel and no command are said" {
	own_sshd "KexAlgorithms sntrup761x25519-sha512@openssh.com"
	push 35
	says "no common method"
	says "--rsh ssh"
	sshd_stop "$PWD/own"
	own_sshd "MaxSessions 0"
	push 5
	says "no channel for the command"
}

@test "too many keys: what the host says is passed on" {
	local i keys=()
	for i in 1 2 3 4 5 6 7; do
		ssh-keygen -q -t ed25519 -N '' -C "key$i" -f "key$i"
		keys+=("key$i")
	done
	agent "${keys[@]}"
	push 5
	says "Too many authentication failures"
	says "-i FILE chooses one key"
}

@test "keys are exchanged anew in the middle of a transfer" {
	own_sshd "RekeyLimit 1M"
	push 0
	push 0 --cap multifd
	"$MIGTOOL" recv "$FAR/image" back </dev/null
	assert_same_image "$IMAGES/mixed" back
}

@test "a link that is cut in the middle is a lost connection, and nothing half done looks done" {
	own_sshd
	migtool_start send send --bwlimit 2M "$IMAGES/mixed" "$FAR/image"
	wait_until test -e there/image.part
	sshd_stop "$PWD/own"
	migtool_wait send 10
	output=$(<send.err)
	says "the connection"
	[ ! -e there/image ]
	assert_nothing_far "$PWD/own"
}

@test "a far migtool that is stopped is waited for no longer than --timeout" {
	cat >slow <<-'END'
		#!/bin/sh
		exec cat >/dev/null
	END
	chmod +x slow
	push 30 --timeout 1 --remote-command "$PWD/slow"
	assert_nothing_far "$SSHD"
}

@test "the far side's stderr is passed on, control characters escaped" {
	cat >loud <<-END
		#!/bin/sh
		printf 'red \033[31m\n' >&2
		i=0
		while [ \$i -lt 3000 ]; do echo 'a line that is longer than the buffer is small' >&2; i=\$((i + 1)); done
		exec $(realpath "$MIGTOOL") "\$@"
	END
	chmod +x loud
	push 0 --remote-command "$PWD/loud"
	says '127.0.0.1: red \x1b[31m'
	[ "$(grep -c 'a line that is longer' <<<"$output")" -eq 3000 ]
}

@test "the far side's status is ours" {
	push 127 --remote-command "$PWD/nothing"
	echo there >there/image
	run -11 "$MIGTOOL" send "$IMAGES/mixed" "$FAR/image" </dev/null
	says "--force"
	[ "$(<there/image)" = there ]
	run -11 "$MIGTOOL" send "$IMAGES/mixed" "$FAR/none/image" </dev/null
	cat >killed <<-'END'
		#!/bin/sh
		kill -KILL $$
	END
	chmod +x killed
	push 10 --remote-command "$PWD/killed"
	says "SIGKILL"
}
