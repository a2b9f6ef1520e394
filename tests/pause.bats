#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later
# pause-before-switchover: the source stops before it gives the guest up, until its user says so.

bats_require_minimum_version 1.5.0
load qemu

setup_file() {
	export IMAGES=$BATS_FILE_TMPDIR
	make_image mixed --size 4 "$IMAGES/mixed"
	"$TOOLS/dirty_rounds.py" --seed "${SEED:-1}" --rounds 2 "$IMAGES/mixed" pc.ram 0x10000 0x200000 \
		"$IMAGES/dirty"
	qemu_save_guest
}

setup() {
	cd "$BATS_TEST_TMPDIR" || return
	IMAGE=$BATS_FILE_TMPDIR/image
}

teardown() {
	peer_teardown
}

# pause [SEND-OPTION]... IMAGE URI: a send that pauses when this returns.
pause() {
	migtool_start send send --cap pause-before-switchover --cap events --timeout 20 "$@"
	wait_for_pause
}

wait_for_pause() {
	wait_for_line send.json '"pre-switchover"'
}

go_on() {
	kill -USR2 "${PEER_PIDS[send]}"
	migtool_wait send
}

statuses() {
	jq -r 'select(.event == "MIGRATION").data.status' send.json | tr '\n' ' '
}

# Nothing was handed over: recv has no image, and says that the source owns it.
assert_not_switched() {
	[ ! -e copy ]
	kill -0 "${PEER_PIDS[send]}" && kill -0 "${PEER_PIDS[recv]}"
}

@test "the source waits for SIGUSR2, and nothing is handed over before" {
	recv_start recv tcp:127.0.0.1:0 copy
	pause --x-replay-dirty "$IMAGES/dirty.rounds" "$IMAGES/mixed" "$RECV_URI"
	assert_not_switched
	grep -q "paused before the switchover: SIGUSR2 lets it go on" send.err
	kill -USR1 "${PEER_PIDS[send]}"
	go_on
	recv_wait recv
	cmp "$IMAGES/dirty.ram" copy
	grep -q "pre-switchover for " send.err
	assert_agreed
	[ "$(statuses)" = "setup active pre-switchover device completed " ]
}

has_waited() { # SECONDS: so often was the progress said
	[ "$(grep -c '"PROGRESS".*"pre-switchover"' send.json)" -ge "$1" ]
}

@test "a wait that is longer than both ends' --timeout" {
	# a life sign comes each second: there has to be some more time for it
	recv_start recv tcp:127.0.0.1:0 copy --timeout 3
	pause --timeout 3 --progress=json "$IMAGES/mixed" "$RECV_URI"
	wait_until has_waited 5
	assert_not_switched
	grep -q "the source waits for its user before the switchover" recv.err
	go_on
	recv_wait recv
	assert_agreed
}

@test "a byte on --continue-fd, or its end, lets it go on; it may be there before" {
	local word
	for word in x ''; do
		rm -rf copy
		recv_start recv unix:socket copy
		mkfifo "go$word"
		exec 7<>"go$word"
		exec 6>"go$word"
		migtool_start send send --cap pause-before-switchover --cap events --continue-fd 5 \
			"$IMAGES/mixed" "$RECV_URI" 5<"go$word" 7>&- 6>&-
		exec 7>&-
		wait_for_pause
		assert_not_switched
		grep -q "a byte on descriptor 5, or SIGUSR2" send.err
		printf %s "$word" >&6
		exec 6>&-
		migtool_wait send
		recv_wait recv
		assert_agreed
	done
	rm copy
	recv_start recv unix:socket copy
	migtool_start send send --cap pause-before-switchover --cap events --continue-fd 5 \
		"$IMAGES/mixed" "$RECV_URI" 5</dev/null
	migtool_wait send
	recv_wait recv
	assert_agreed
}

@test "--continue-fd that is none, or without the capability, is refused" {
	run -1 "$MIGTOOL" send --continue-fd 0 "$IMAGES/mixed" tcp:127.0.0.1:1
	[[ $output == *"--continue-fd lets a pause end, and there is none"*"--cap pause-before-switchover=on"* ]]
	run -1 "$MIGTOOL" send --cap pause-before-switchover --continue-fd 77 "$IMAGES/mixed" null:
	[[ $output == *"--continue-fd 77 is not an open descriptor"* ]]
}

@test "a descriptor that the shell has closed is refused, though migtool opens one of that number" {
	local fd line
	for fd in 3 4 5 6 7 8 9; do
		for line in "send --cap pause-before-switchover --continue-fd $fd $IMAGES/mixed null:" \
			"send --no-sandbox --cap pause-before-switchover --continue-fd $fd $IMAGES/mixed null:" \
			"recv --ready-fd $fd unix:socket copy"; do
			run -1 bash -c "exec timeout 20 '$MIGTOOL' $line" 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&-
			[[ $output == *"-fd $fd is not an open descriptor"*"by $fd<>FILE"* ]]
		done
	done
	[ ! -e socket ] && [ ! -e copy ]
}

@test "SIGINT in the pause: both say so, the source keeps the guest" {
	recv_start recv tcp:127.0.0.1:0 copy
	pause "$IMAGES/mixed" "$RECV_URI"
	kill -INT "${PEER_PIDS[send]}"
	migtool_wait send 20
	migtool_wait recv 20
	assert_json send '.status == "cancelled"' '.owner == "source"' '.complete == false'
	assert_json recv '.owner == "source"'
	assert_error recv "cancelled by SIGINT"
	assert_nothing copy
}

@test "an end that dies in the pause is noticed by the other" {
	recv_start recv tcp:127.0.0.1:0 copy
	pause "$IMAGES/mixed" "$RECV_URI"
	kill -KILL "${PEER_PIDS[recv]}"
	migtool_wait send 10
	assert_json send '.owner == "source"'
	wait_for_end recv || true
	recv_start recv tcp:127.0.0.1:0 other
	pause "$IMAGES/mixed" "$RECV_URI"
	kill -KILL "${PEER_PIDS[send]}"
	migtool_wait recv 10
	assert_json recv '.owner == "source"'
	assert_nothing other
}

@test "an image that is written to in the pause is refused" {
	cp "$IMAGES/mixed" guest
	recv_start recv tcp:127.0.0.1:0 copy
	pause guest "$RECV_URI"
	printf x | dd of=guest bs=1 seek=100 conv=notrunc status=none
	kill -USR2 "${PEER_PIDS[send]}"
	migtool_wait send 4
	assert_error send "changed while it was read"
	migtool_wait recv 5
	assert_nothing copy
}

@test "with multifd, and one-way into a file" {
	recv_start recv tcp:127.0.0.1:0 copy
	pause --cap multifd --param multifd-compression=zstd "$IMAGES/mixed" "$RECV_URI"
	go_on
	recv_wait recv
	assert_agreed
	pause "$IMAGES/mixed" file:stream
	go_on
	recv_start recv file:stream read
	recv_wait recv
	cmp "$IMAGES/mixed" read
}

# send_to_qemu [OPTION]...: paused.
send_to_qemu() {
	pause --peer qemu "$@" "$IMAGE" unix:socket
	[ "$(qemu_qmp dst status)" = "${DST_STATUS:-active}" ]
	[ "$(qemu_serial_last_tick dst)" -eq 0 ]
}

assert_guest_goes_on() {
	qemu_wait_status dst completed
	assert_saved_guest_runs
}

@test "before a guest goes on in QEMU: precopy" {
	qemu_listen -- return-path
	send_to_qemu --cap return-path
	go_on
	assert_guest_goes_on
	[ "$(statuses)" = "setup active pre-switchover device completed " ]
}

@test "before a guest goes on in QEMU: postcopy, first the one step and then the other" {
	qemu_listen -- postcopy-ram
	migtool_start send send --cap pause-before-switchover --cap events --peer qemu --bwlimit 1M \
		--cap postcopy-ram --postcopy-after 100 "$IMAGE" unix:socket
	qemu_qmp dst wait active >/dev/null
	kill -USR2 "${PEER_PIDS[send]}"
	wait_for_pause
	[ "$(qemu_serial_last_tick dst)" -eq 0 ]
	go_on
	assert_guest_goes_on
	[ "$(statuses)" = "setup active pre-switchover postcopy-active completed " ]
	assert_json send '.ram."postcopy-bytes" > 100000'
}

@test "SIGINT in the pause before QEMU has the guest" {
	qemu_start_incoming dst unix:socket
	qemu_qmp dst status
	send_to_qemu
	kill -INT "${PEER_PIDS[send]}"
	migtool_wait send 20
	assert_json send '.status == "cancelled"' '.owner == "source"'
	wait_for_end dst || true
}
