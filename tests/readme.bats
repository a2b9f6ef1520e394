#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later
# README.md's commands, taken from it and run; only host and port are other ones.

# shellcheck disable=SC2030,SC2031 # bats knows how its tests end

bats_require_minimum_version 1.5.0
load qemu
load ssh

setup() {
	cd "$BATS_TEST_TMPDIR" || return
	README=$BATS_TEST_DIRNAME/../README.md
	ln -s "$(realpath "$MIGTOOL")" migtool
	PATH=$PWD:$PATH
	truncate -s 64M guest.mem
	head -c 1500000 /dev/urandom | dd of=guest.mem bs=4096 seek=100 conv=notrunc status=none
	printf 'the end' | dd of=guest.mem bs=1 seek=$((64 * 1048576 - 7)) conv=notrunc status=none
}

teardown() {
	sshd_stop "$PWD/sshd"
	peer_teardown
}

# readme PATTERN [NUMBER]: that command of README.md, in one line, without build/ and comment. A
# pattern that nothing matches fails the test: the text has changed, and so has to be what is run.
readme() {
	sed -n '/^    /{:more;/\\$/{N;s/\\\n */ /;bmore};s/^ *\(build\/\)\{0,1\}//;s/  *#.*//;p}' "$README" |
		grep -e "$1" | sed -n "${2:-1}p" | grep .
}

# recv_readme NAME PATTERN [NUMBER]: a command that listens, on a port of the kernel's choice, in the
# directory IN.
recv_readme() {
	local command
	command=$(readme "$2" "${3:-1}")
	command=$(sed -E -e 's/tcp:[0-9.]*:[0-9]+/tcp:127.0.0.1:0/' -e "${EDIT:-}" \
		-e 's/ (-- |$)/ --json --progress=none --ready-fd 9 \1/' <<<"$command ")
	echo "$command"
	mkfifo "$1.ready"
	{ cd "${IN:-.}" && eval "$command"; } 9>"$1.ready" >"$1.json" 2>"$1.err" </dev/null 3>&- 4>&- &
	peer_started "$1"
	read -r -t 20 RECV_URI <"$1.ready"
	[ -n "$RECV_URI" ]
}

# send_readme PATTERN [NUMBER]: a command that sends there.
send_readme() {
	local command
	command=$(readme "$1" "${2:-1}")
	command=$(sed -E "s/tcp:[a-z0-9.]+:4444/${RECV_URI//\//\\/}/" <<<"$command")
	echo "$command"
	eval "$command"
}

@test "the first run by hand" {
	recv_readme recv 'recv tcp:127.0.0.1:4444'
	send_readme 'send guest.mem tcp:127.0.0.1:4444'
	recv_wait recv
	cmp guest.mem arrived.mem
	[ "$(stat -c %b arrived.mem)" -le "$(stat -c %b guest.mem)" ]
	jq -e '.status == "completed" and ."digest-verified"' recv.json
}

@test "compressed, on four connections" {
	mkdir there
	IN=there recv_readme recv 'recv tcp::4444 guest.mem$'
	send_readme 'multifd-compression=zstd'
	recv_wait recv
	cmp guest.mem there/guest.mem
}

@test "through a command whose stdin and stdout reach the other end" {
	mkdir there
	# docker exec -i NAME COMMAND..., where the container is a directory
	cat >docker <<'END'
#!/bin/sh
cd "$3" && shift 3 && exec "$@"
END
	chmod +x docker
	send_readme 'exec:docker'
	cmp guest.mem there/guest.mem
}

# ssh_readme PATTERN: a command that goes through ssh, with this test's sshd, account and directory.
# The account's home is a real one; what is put there has a name that nobody else uses.
ssh_readme() {
	local command
	command=$(readme "$1")
	command=$(sed -E -e "s|//(user@)?host|//$(id -un)@127.0.0.1:$SSH_PORT|; s|/srv/|$PWD/there/|" \
		-e "s|/~/guest.mem|/~/$HOME_FILE|" <<<"$command")
	echo "$command"
	eval "$command"
}

@test "to a host where only sshd runs, and from there" {
	mkdir there
	sshd_start "$PWD/sshd"
	# what a user has in ~/.ssh/config
	printf '#!/bin/sh\nexec %s -F %s "$@"\n' "$(command -v ssh)" "$PWD/sshd/client" >ssh
	chmod +x ssh
	HOME_FILE=migtool-test-$$-$RANDOM
	far_home=$HOME
	mkdir -p home/.ssh
	cp sshd/known_hosts home/.ssh/known_hosts
	cp sshd/key home/.ssh/id_ed25519
	export HOME=$PWD/home
	unset SSH_AUTH_SOCK
	ssh_readme 'send guest.mem ssh:'
	cmp guest.mem there/guest.mem
	ssh_readme 'send --cap multifd --param multifd-compression=zstd guest.mem ssh:'
	cmp guest.mem "$far_home/$HOME_FILE"
	cp guest.mem sent.mem
	printf 'another' | dd of=guest.mem bs=1 conv=notrunc status=none
	ssh_readme "recv --rsh 'ssh -J"
	rm "$far_home/$HOME_FILE"
	cmp sent.mem guest.mem
	assert_nothing_far "$PWD/sshd"
}

@test "encrypted, with a key that both hosts have" {
	mkdir there
	# scp -p FILE HOST:, where the host is a directory
	cat >scp <<'END'
#!/bin/sh
cp -p "$2" there
END
	chmod +x scp
	eval "$(readme 'migtool psk')"
	IN=there recv_readme recv 'recv --param tls-creds=keys.psk'
	send_readme 'send --param tls-creds=keys.psk'
	recv_wait recv
	cmp guest.mem there/guest.mem
}

@test "encrypted, with certificates" {
	local script
	script=$(sed -n '/^    mkdir pki/,/^$/p' "$README" | sed 's/^    //')
	[ "$(grep -c '^certtool' <<<"$script")" -eq 3 ]
	# the host's name is the one that the others have
	(eval "${script//=host/=localhost}") 2>certtool.err
	chmod 600 pki/*-key.pem
	mkdir there && cp -r pki there/pki
	IN=there recv_readme recv 'recv --param tls-creds=pki'
	RECV_URI=tcp:localhost:${RECV_URI##*:}
	send_readme 'send --param tls-creds=pki'
	recv_wait recv
	cmp guest.mem there/guest.mem
	run -0 cat recv.err
	[[ $output != *warning* ]]
}

@test "only what changed" {
	mkdir there
	cp --sparse=always guest.mem old.mem
	cp --sparse=always guest.mem there/guest.mem
	printf 'changed' | dd of=guest.mem bs=1 seek=500000 conv=notrunc status=none
	IN=there recv_readme recv 'recv --delta'
	send_readme 'send --cap xbzrle --base'
	recv_wait recv
	cmp guest.mem there/guest.mem
	[ "$(jq .ram.transferred recv.json)" -lt 100000 ]
}

@test "will it work: a dry run leaves recv listening" {
	mkdir there
	IN=there recv_readme recv 'recv tcp::4444 guest.mem$'
	send_readme 'send -n'
	[ ! -e there/guest.mem ]
	send_readme 'send guest.mem tcp'
	recv_wait recv
	cmp guest.mem there/guest.mem
	eval "$(readme 'check --cap multifd')"
}

@test "into a file, and back" {
	eval "$(readme 'send guest.mem file:')"
	mv guest.mem sent.mem
	eval "$(readme 'recv file:')"
	cmp sent.mem guest.mem
}

@test "from a script" {
	local script
	script=$(sed -n '/^    mkfifo ready/,/^$/p' "$README" | sed 's/^    //')
	[ "$(wc -l <<<"$script")" -eq 4 ]
	mkdir there
	cp --sparse=always guest.mem sent.mem
	script=${script/send -q guest.mem/send -q sent.mem}
	rm guest.mem
	run -0 timeout 60 bash -c "$script" 3>&- 4>&-
	echo "$output"
	cmp sent.mem guest.mem
	[[ ${lines[-1]} =~ ^[0-9a-f]{32}$ ]]
}

@test "start what uses the memory" {
	cat >my-vmm <<'END'
#!/bin/sh
cmp "$2" sent.mem >vmm.saw 2>&1
echo $? >>vmm.saw
END
	chmod +x my-vmm
	mv guest.mem sent.mem
	[[ $(readme my-vmm) == *"/dev/shm/guest.mem -- my-vmm --memory /dev/shm/guest.mem" ]]
	EDIT="s|/dev/shm/|$PWD/|g" recv_readme recv my-vmm
	"$MIGTOOL" send -q sent.mem "$RECV_URI"
	recv_wait recv
	wait_for_file vmm.saw
	[ "$(cat vmm.saw)" = 0 ]
}

@test "the link breaks, and the link broke" {
	mkdir there
	IN=there recv_readme recv 'recv --retry'
	send_readme 'send --retry'
	recv_wait recv
	cmp guest.mem there/guest.mem
	head -c 300000 guest.mem >there/guest.mem.part
	truncate -s "$(stat -c %s guest.mem)" there/guest.mem.part
	rm there/guest.mem recv.ready
	IN=there recv_readme recv 'recv --resume'
	send_readme 'send --resume'
	recv_wait recv
	cmp guest.mem there/guest.mem
}
