#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later
# From one migtool to another, as a user does it: every transport, every kind of image, every
# capability. Not only the result counts: what the ends say they did has to be what was asked for.

bats_require_minimum_version 1.5.0
load helper

setup_file() {
	export IMAGES=$BATS_FILE_TMPDIR
	make_image mixed "$IMAGES/mixed"
	make_image random --size 4 "$IMAGES/random"
	make_image sparse --size 64 "$IMAGES/sparse"
	make_image holes --size 64 "$IMAGES/holes"
	make_image directory "$IMAGES/directory"
}

setup() {
	cd "$BATS_TEST_TMPDIR" || return
}

teardown() {
	peer_teardown
	[ -z "${SHM:-}" ] || rm -r "$SHM"
}

# The copy is what IMAGE is, and both ends say so.
assert_arrived() { # IMAGE
	assert_same_image "$1" copy || return
	assert_sparse copy || return
	assert_agreed || return
	[ ! -e "$1/device-state" ] || cmp "$1/device-state" copy/device-state || return
	[ ! -e copy.part ]
}

# try URI IMAGE [SEND-OPTION]... [-- RECV-OPTION...]: a transfer to `copy`, and all that has to be
# true of each.
try() {
	local uri=$1 image=$2
	shift 2
	rm -rf copy
	run_pair "$uri" "$image" copy "$@" && assert_arrived "$image" && return 0
	echo "failed: $uri $image $*"
	return 1
}

# ---- kinds of images ----

@test "a raw file arrives as it was and as sparse as it can be" {
	try tcp:127.0.0.1:0 "$IMAGES/mixed"
	[ -f copy ] && [ "$(stat -c %a copy)" = 600 ]
	assert_json send '.ram.total == 8388608' '.ram.normal > 100' '.ram.duplicate > 100' \
		'.ram.normal + .ram.duplicate == 2048' '.holes > 0' '.ram."dirty-sync-count" == 1'
}

@test "an incompressible image, a sparse one, one that is all holes" {
	try tcp:127.0.0.1:0 "$IMAGES/random"
	assert_json send '.ram.normal == 1024' '.ram.duplicate == 0' '.ram.transferred < 4250000'
	try tcp:127.0.0.1:0 "$IMAGES/sparse"
	assert_json send '.ram.normal < 600' '.ram.transferred < 2500000'
	try tcp:127.0.0.1:0 "$IMAGES/holes"
	assert_json send '.ram.normal == 0' '.ram.duplicate == 16384' '.ram.transferred < 2000'
	[ "$(stat -c %b copy)" -eq 0 ]
}

@test "a directory arrives with all its blocks, its device state and a manifest" {
	try tcp:127.0.0.1:0 "$IMAGES/directory"
	jq -e '.version == 1 and .source == "migtool" and (.blocks | length == 6) and
		."device-state".size == 100001' copy/manifest.json
	# and what arrived is an image again, with its manifest
	rm -rf first
	mv copy first
	try tcp:127.0.0.1:0 "$PWD/first"
	cmp first/manifest.json copy/manifest.json
}

@test "a directory whose group is given on takes a directory" {
	mkdir shared
	chmod g+s shared
	run_pair unix:socket "$IMAGES/directory" shared/copy
	assert_same_image "$IMAGES/directory" shared/copy
	[ "$(stat -c %A shared/copy)" = drwx--S--- ]
}

@test "memory on tmpfs arrives on disk and the other way round" {
	SHM=$(mktemp -d /dev/shm/migtool.XXXXXX)
	run_pair unix:socket "$IMAGES/mixed" "$SHM/copy"
	cmp "$IMAGES/mixed" "$SHM/copy"
	assert_sparse "$SHM/copy"
	try unix:socket "$SHM/copy"
	[ "$(ls "$SHM")" = copy ]
}

@test "one page, and pages of 64 KiB" {
	make_image --size 1 random big
	head -c 4096 big >one
	try unix:socket "$PWD/one"
	assert_json send '.ram.total == 4096' '.ram.normal == 1'
	try unix:socket "$PWD/big" --page-size 64K
	assert_json send '.ram.normal == 16' '.ram."page-size" == 65536'
	try unix:socket "$IMAGES/mixed" --page-size 16K --cap multifd
	assert_json send '.ram.normal + .ram.duplicate == 512'
}

@test "a block's name and device state of a raw file travel with it" {
	head -c 70000 /dev/urandom >state
	run_pair unix:socket "$IMAGES/mixed" copy --block-name my.ram --device-state state \
		-- --device-state state.copy
	cmp state state.copy
	run_pair unix:socket "$IMAGES/mixed" dir/ --block-name "my ram" --device-state state
	cmp "$IMAGES/mixed" dir/ram/my%20ram
	cmp state dir/device-state
	[ ! -e state.copy.part ] && [ ! -e dir.part ]
}

@test "an image that exists is only replaced by --force" {
	make_image --size 1 random copy
	cp copy before
	migtool_start recv recv unix:socket copy
	migtool_wait recv 11
	grep -q "copy exists and is not empty" recv.err
	cmp copy before
	run_pair unix:socket "$IMAGES/mixed" copy -- --force
	assert_arrived "$IMAGES/mixed"
}

# ---- transports ----

@test "tcp over IPv4 and IPv6" {
	local uri
	for uri in tcp:127.0.0.1:0 'tcp:[::1]:0' tcp::0 tcp:localhost:0; do
		try "$uri" "$IMAGES/mixed"
		assert_json recv '."socket-address"[0].type == "inet"'
	done
	[[ $RECV_URI =~ ^tcp:.*:[1-9][0-9]+$ ]]
}

@test "a unix socket is gone afterwards" {
	try unix:socket "$IMAGES/directory"
	[ ! -e socket ]
	assert_json recv '."socket-address"[0].type == "unix"'
}

@test "vsock, where the kernel loops it back, else words about it" {
	if "$TOOLS/with_fds.py" vsock; then
		try vsock:1:0 "$IMAGES/mixed"
		try vsock:1:0 "$IMAGES/mixed" --cap multifd
	else
		migtool_start recv recv vsock:1:0 copy
		migtool_wait recv 10
		grep -q "hint: .*vsock" recv.err
	fi
}

# ends SEND RECV: what with_fds.py printed of the exit statuses.
ends() {
	[ "$(tail -n 1 statuses)" = "$1 $2" ] || {
		cat statuses
		return 1
	}
}

@test "fd: both ends of a socketpair, a pipe, a socket that a service manager made" {
	"$TOOLS/with_fds.py" pair "$MIGTOOL" send --json "$IMAGES/mixed" fd:3 --- \
		"$MIGTOOL" recv fd:3 copy >statuses 3>&- 4>&-
	ends 0 0
	head -n 1 statuses | jq -e '."digest-verified"'
	cmp "$IMAGES/mixed" copy
	rm copy
	"$TOOLS/with_fds.py" pipe "$MIGTOOL" send --json "$IMAGES/mixed" fd:3 --- \
		"$MIGTOOL" recv fd:3 copy >statuses 3>&- 4>&-
	ends 0 0
	head -n 1 statuses | jq -e '."digest-verified" == false and .complete'
	cmp "$IMAGES/mixed" copy
	rm copy
	"$TOOLS/with_fds.py" listen "$PWD/socket" "$MIGTOOL" recv fd:3 copy 3>&- 4>&- &
	peer_started recv
	wait_until test -S socket
	migtool_start send send "$IMAGES/mixed" unix:socket --cap multifd
	migtool_wait send
	migtool_wait recv
	cmp "$IMAGES/mixed" copy
}

@test "exec: a command at either end, and a recv behind stdio: as the command" {
	recv_start recv unix:socket copy
	migtool_start send send "$IMAGES/directory" "exec:socat STDIO UNIX-CONNECT:socket"
	migtool_wait send
	migtool_wait recv
	assert_arrived "$IMAGES/directory"
	rm -r copy
	migtool_start send send "$IMAGES/mixed" "exec:'$MIGTOOL' recv --json stdio: copy"
	migtool_wait send
	assert_json send '."digest-verified"' '.owner == "destination"'
	# stdout is the stream, so the JSON of the other end is among the messages
	grep '^{' send.err | jq -e '."digest-verified"'
	cmp "$IMAGES/mixed" copy
	rm copy
	migtool_start recv recv "exec:'$MIGTOOL' send --json '$IMAGES/mixed' stdio:" copy
	migtool_wait recv
	assert_json recv '."digest-verified"'
	cmp "$IMAGES/mixed" copy
}

@test "what recv does not listen for may be silent for long before its first byte" {
	"$MIGTOOL" send -q --one-way "$IMAGES/mixed" file:stream
	# a listener goes on meanwhile
	recv_start listening unix:at other
	mkfifo stranger
	exec 7<>stranger
	socat -u - UNIX:at <stranger 3>&- 4>&- 7>&- &
	peer_started stranger
	printf 'migtool\n' >&7
	(sleep 11 && cat stream) | "$MIGTOOL" recv -q stdio: copy 3>&- 4>&-
	cmp "$IMAGES/mixed" copy
	wait_for_line listening.err 'it has not said who it is within 10 s'
	exec 7>&-
	"$MIGTOOL" send -q "$IMAGES/mixed" unix:at
	recv_wait listening
	# unless there is a limit, and not in the middle
	run -30 bash -c "(sleep 4; cat stream) | exec '$MIGTOOL' recv --timeout 1 stdio: copy2"
	[[ $output == *"nothing moved either way for 1 s"* ]]
	run -30 bash -c "(head -c 3 stream; sleep 4) | exec '$MIGTOOL' recv --timeout 1 stdio: copy2"
}

@test "exec: the command comes to its end behind a transfer, but not for ever" {
	migtool_start send send "$IMAGES/mixed" \
		"exec:'$MIGTOOL' recv -q stdio: copy; sleep 0.5; echo done >after"
	migtool_wait send
	cmp "$IMAGES/mixed" copy
	[ "$(cat after)" = "done" ]
	rm copy after
	migtool_start send send "$IMAGES/mixed" \
		"exec:'$MIGTOOL' recv -q stdio: copy; sleep 30; echo done >after"
	wait_for_end send 20
	cmp "$IMAGES/mixed" copy
	[ ! -e after ]
}

@test "exec: a one-way command, which may change the bytes on their way" {
	migtool_start send send --one-way "$IMAGES/mixed" "exec:zstd -q >stream.zst"
	migtool_wait send
	assert_json send '."digest-verified" == false' .complete
	migtool_start recv recv --one-way "exec:zstd -dc stream.zst" copy
	migtool_wait recv
	assert_json recv '."digest-verified"'
	cmp "$IMAGES/mixed" copy
}

@test "exec: a command that fails, fails the transfer" {
	migtool_start send send --one-way "$IMAGES/mixed" "exec:cat >/dev/null; exit 3"
	migtool_wait send 10
	grep -q "3" send.err
	migtool_start recv recv --one-way "exec:'$MIGTOOL' send --one-way '$IMAGES/mixed' stdio:; exit 3" copy
	migtool_wait recv 10
	[ ! -e copy ]
	migtool_start send send "$IMAGES/mixed" "exec:no-such-command-here"
	migtool_wait send 10
	grep -q "no-such-command-here exited with status 127" send.err
}

@test "file: what was written is received later, as often as wanted" {
	migtool_start send send "$IMAGES/directory" file:stream
	migtool_wait send
	assert_json send '."digest-verified" == false' .complete
	for _ in 1 2; do
		rm -rf copy
		migtool_start recv recv file:stream copy
		migtool_wait recv
		assert_json recv '."digest-verified"'
		"$TOOLS/compare_images.py" "$IMAGES/directory" copy
		cmp "$IMAGES/directory/device-state" copy/device-state
	done
	[ "$(jq .digest send.json)" = "$(jq .digest recv.json)" ]
}

@test "stdio: a pipe between two of them, in one direction" {
	"$MIGTOOL" send --json "$IMAGES/mixed" stdio: 2>send.err </dev/null |
		"$MIGTOOL" recv --json stdio: copy 2>recv.err
	cmp "$IMAGES/mixed" copy
	grep '^{' recv.err | jq -e '."digest-verified"'
	grep '^{' send.err | jq -e '.complete and (."digest-verified" == false)'
}

@test "null: takes everything and keeps nothing" {
	migtool_start send send "$IMAGES/mixed" null:
	migtool_wait send
	assert_json send '.ram.normal > 100' '.ram.transferred > 1000000' .complete
	migtool_start send send "$IMAGES/mixed" null: --cap multifd
	migtool_wait send
	assert_json send '.ram."multifd-bytes" > 1000000'
	migtool_start recv recv null: copy
	migtool_wait recv 1
}

@test "--listen and --connect turn tcp and unix round, with channels too" {
	local uri caps
	for uri in tcp:127.0.0.1:0 'tcp:[::1]:0' unix:socket; do
		for caps in "" "--cap multifd --param multifd-channels=3"; do
			rm -rf copy
			# shellcheck disable=SC2086
			listener_start send send --listen $caps "$IMAGES/mixed" "$uri"
			migtool_start recv recv --connect "$RECV_URI" copy
			migtool_wait send
			migtool_wait recv
			assert_arrived "$IMAGES/mixed"
		done
	done
	assert_json send '.ram."multifd-bytes" > 1000000'
}
