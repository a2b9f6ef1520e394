#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later
# The ssh library's connections when they break or stand still, and where they lead to: accounts and
# host keys as a system's administrator sets them up.

bats_require_minimum_version 1.5.0
load helper
load ssh

setup_file() {
	export SSHD=$BATS_FILE_TMPDIR/sshd IMAGES=$BATS_FILE_TMPDIR
	sshd_start "$SSHD"
	make_image random --size 8 "$IMAGES/random"
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
	link_stop
	[ ! -e own/pid ] || sshd_stop "$PWD/own"
	peer_teardown
	assert_nothing_far "$SSHD"
}

# far_link [POINT]...: a link to the sshd, and FAR leads along it.
far_link() {
	link_start "$SSH_PORT" "$@"
	FAR=ssh://${LINK#tcp:}$PWD/there
	sed "s/:$SSH_PORT/:${LINK##*:}/" "$SSHD/known_hosts" >home/.ssh/known_hosts
}

# transfer send|recv IMAGE [OPTION]...: the image to there/copy, or from the far side to there/copy.
transfer() {
	local name=$1 image=$2
	shift 2
	if [ "$name" = send ]; then
		migtool_start send send "$@" "$image" "$FAR/copy"
	else
		migtool_start recv recv "$@" "${FAR%"$PWD/there"}$image" there/copy
	fi
}

says() { # NAME WORDS: in its messages
	grep -qF -- "$2" "$PEER_DIR/$1.err" || {
		echo "$1 does not say: $2"
		return 1
	}
}

wait_for_data() { # FILE
	local i
	for ((i = 0; i < 500; i++)); do
		[ ! -e "$1" ] || [ "$(data_bytes "$1")" -eq 0 ] || return 0
		sleep 0.02
	done
	echo "nothing came into $1"
	return 1
}

# survives send|recv "POINTS" [OPTION]...: with --retry the image is there in the end, though the path
# broke at the points.
survives() {
	local name=$1 points
	read -ra points <<<"$2"
	shift 2
	rm -rf there/*
	far_link "${points[@]}"
	transfer "$name" "$IMAGES/random" --retry 5 "$@"
	migtool_wait "$name"
	says "$name" "trying again"
	cmp "$IMAGES/random" there/copy
	[ "$(ls there)" = copy ]
	assert_json "$name" '.status == "completed"' '."digest-verified"'
	link_stop
	assert_nothing_far "$SSHD"
}

@test "--retry goes on when the path breaks in the middle, whoever sends" {
	survives send "3000000:reset"
	survives recv "2000000:close 2000000:reset"
}

@test "--retry makes all connections anew, there and back" {
	survives send "3000000:reset" --cap multifd --param multifd-channels=3
	survives recv "3000000:close" --cap multifd --param multifd-channels=3
}

@test "--retry goes on when the path breaks while somebody logs in" {
	survives send "3000000:close 1000:reset"
	survives recv "3000000:reset 2500:close"
}

@test "a pull takes several connections, and compresses" {
	local method
	for method in none zlib zstd; do
		rm -f there/copy
		transfer recv "$IMAGES/mixed" --cap multifd --param multifd-channels=4 \
			--param "multifd-compression=$method"
		migtool_wait recv
		cmp "$IMAGES/mixed" there/copy
		assert_json recv '."digest-verified"' '.ram."multifd-bytes" > 0'
	done
}

# stands_still send|recv: nothing moves any more, and nobody says so.
stands_still() {
	local before=$SECONDS name=$1
	migtool_wait "$name" 30
	[ $((SECONDS - before)) -lt 25 ]
	says "$name" "nothing moved either way for 1 s"
	assert_json "$name" '."error-code" == "timeout"' '.owner == "source"' '.complete == false'
	[ ! -e there/copy ]
}

@test "a path that passes nothing any more is given up after --timeout" {
	local name
	for name in send recv; do
		far_link 3000000:drop
		transfer "$name" "$IMAGES/random" --timeout 1
		stands_still "$name"
		link_stop # and with it the far side's connection
		assert_nothing_far "$SSHD"
		rm -f there/*
	done
}

# The sshds that serve a connection; not what they have started.
sessions() { # PID
	local child
	for child in $(pgrep -P "$1" -x sshd); do
		echo "$child"
		sessions "$child"
	done
}

@test "an sshd that is frozen is given up after --timeout, and --retry asks the next one" {
	local frozen
	transfer send "$IMAGES/random" --timeout 1 --retry 3 --param max-bandwidth=4M
	wait_for_data there/copy.part
	mapfile -t frozen < <(sessions "$(<"$SSHD/pid")")
	kill -STOP "${frozen[@]}"
	migtool_wait send
	kill -CONT "${frozen[@]}"
	says send "trying again"
	cmp "$IMAGES/random" there/copy
}

@test "a host key that the administrator has made known is known" {
	rm home/.ssh/known_hosts
	mkdir etc
	mount_private /etc/ssh --bind etc
	cp "$SSHD/known_hosts" etc/ssh_known_hosts
	transfer send "$IMAGES/mixed" -v
	migtool_wait send
	cmp "$IMAGES/mixed" there/copy
	says send "(/etc/ssh/ssh_known_hosts, line 1)"
	# the second file counts, and what it revokes
	sed 's/^/@revoked /' "$SSHD/known_hosts" >etc/ssh_known_hosts2
	transfer send "$IMAGES/mixed" --force
	migtool_wait send 5
	says send "was revoked in /etc/ssh/ssh_known_hosts2, line 1"
	rm etc/ssh_known_hosts2
	# the user's own goes first, where a line is to be added too
	echo "[127.0.0.1]:$SSH_PORT $(cut -d ' ' -f 1,2 "$SSHD/other.pub")" >etc/ssh_known_hosts
	transfer send "$IMAGES/mixed" --force
	migtool_wait send 5
	says send "another host key than the one in /etc/ssh/ssh_known_hosts, line 1"
}

# The README's command, from it: to an account that is not whoever runs the tests.
readme_command() {
	sed -n 's/^    \(migtool send guest.mem ssh:.*\)/\1/p' "$BATS_TEST_DIRNAME/../README.md" | grep .
}

# other_account NAME: sshd sees a system that has it, with a /srv that is its own (this test's srv).
other_account() {
	[ "$(id -u)" -eq 0 ] || skip "another account can be made only by root, in a namespace of its own"
	mkdir srv bin
	{ cat /etc/passwd; echo "$1:*:54321:54321::/srv:/bin/sh"; } >passwd
	cp -L "$MIGTOOL" srv/migtool # where that account can read it
	chown 54321:54321 srv
	cat >bin/sshd <<-END
		#!/bin/sh
		exec unshare --mount sh -c 'mount --bind "$PWD/passwd" /etc/passwd &&
			mount --bind "$PWD/srv" /srv && exec /usr/sbin/sshd "\$@"' - "\$@"
	END
	chmod +x bin/sshd
	PATH=$PWD/bin:$PATH
}

@test "a newcomer's image goes to another account with the README's command" {
	local command
	other_account newcomer
	sshd_start "$PWD/own" "SetEnv PATH=/srv:$PATH MIGTOOL_FAR=$PWD/own" \
		"AuthorizedKeysFile /srv/.ssh/authorized_keys" "StrictModes yes"
	cp own/known_hosts home/.ssh/known_hosts
	mkdir -m 700 srv/.ssh # as ssh-copy-id leaves it
	cp own/key.pub srv/.ssh/authorized_keys
	cp own/key home/.ssh/id_ed25519
	chown -R 54321:54321 srv/.ssh
	cp "$IMAGES/mixed" guest.mem
	ln -s "$(realpath "$MIGTOOL")" migtool
	command=$(readme_command)
	[ "$command" = "migtool send guest.mem ssh://user@host/srv/guest.mem" ]
	PATH=$PWD:$PATH timeout 60 bash -c "${command/user@host/newcomer@127.0.0.1:$SSH_PORT}" </dev/null
	cmp guest.mem srv/guest.mem
	[ "$(stat -c %u srv/guest.mem)" -eq 54321 ]
	assert_nothing_far "$PWD/own"
}
