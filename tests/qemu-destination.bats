#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later
# `migtool send --peer qemu` of an image that a running guest left behind, into a new QEMU. Everything
# has to be there: QEMU itself, still paused, sends the guest on to the independent reader. And the
# guest has to go on: the next line on its serial port is the one that was due when it stopped.

bats_require_minimum_version 1.5.0
load qemu

UUID=12345678-9abc-def0-0123-456789abcdef

setup_file() {
	qemu_save_guest -uuid "$UUID" -- validate-uuid
}

setup() {
	cd "$BATS_TEST_TMPDIR" || return
	IMAGE=$BATS_FILE_TMPDIR/image
}

teardown() {
	peer_teardown
}

# wait_for_guest [SETTING]...: a QEMU that waits, paused.
wait_for_guest() {
	qemu_listen -S -uuid "$UUID" -- "$@"
}

send() { # [OPTION]... IMAGE URI
	timeout 60 "$MIGTOOL" send --json --progress=none --timeout 20 --peer qemu "$@" \
		>send.json 2>send.err 3>&- 4>&-
}

# The guest is in dst, all of it, and runs on.
assert_guest_arrived() {
	qemu_wait_status dst completed
	qemu_qmp dst wait-run paused >/dev/null
	qemu_clear_capabilities dst
	qemu_migrate dst "exec:cat > again.stream"
	qemu_wait_status dst completed
	"$TOOLS/qemu_stream.py" --out again again.stream >again.json
	assert_same_image "$IMAGE" again --devices --except globalstate
	qemu_qmp dst cont
	assert_saved_guest_runs
	[ "$(jq -r .status send.json)" = completed ]
}

@test "an image goes on in QEMU over tcp" {
	LISTEN=tcp:127.0.0.1:0 wait_for_guest
	send "$IMAGE" "$QEMU_URI"
	assert_guest_arrived
}

@test "an image goes on in QEMU over a UNIX socket" {
	wait_for_guest
	send "$IMAGE" "$QEMU_URI"
	assert_guest_arrived
}

@test "an image goes on in a QEMU that reads from a command" {
	mkfifo pipe
	qemu_start_incoming dst "exec:cat pipe" -S -uuid "$UUID"
	send "$IMAGE" "exec:cat > pipe"
	assert_guest_arrived
}

@test "an image goes on in a QEMU that reads a file which send has written" {
	send "$IMAGE" file:stream
	qemu_start_incoming dst "exec:cat stream" -S -uuid "$UUID"
	assert_guest_arrived
}

@test "an image goes on in a QEMU that inherits a pipe" {
	mkfifo pipe
	exec 7<>pipe # so that neither end has to wait for the other to be opened
	qemu_start_incoming dst fd:8 -S -uuid "$UUID" 8<pipe 7>&-
	send "$IMAGE" fd:8 8>pipe 7>&-
	exec 7>&-
	assert_guest_arrived
}

@test "a QEMU that is not paused runs the guest at once" {
	qemu_start_incoming dst unix:socket -uuid "$UUID"
	qemu_qmp dst status
	send "$IMAGE" unix:socket
	assert_saved_guest_runs
}

@test "with a return path send knows that the guest has arrived" {
	wait_for_guest return-path
	send --cap return-path "$IMAGE" "$QEMU_URI"
	[ "$(qemu_qmp dst status)" = completed ]
	assert_guest_arrived
}

@test "an image goes on in QEMU, pages compressed" {
	wait_for_guest compress
	send --cap compress --param compress-threads=2 "$IMAGE" "$QEMU_URI"
	[ "$(jq .compression.pages send.json)" -gt 500 ]
	assert_guest_arrived
}

@test "an image goes on in QEMU, with xbzrle on and nothing for it to do" {
	wait_for_guest xbzrle
	send --cap xbzrle "$IMAGE" "$QEMU_URI"
	assert_guest_arrived
}

@test "an image goes on in QEMU when both compare uuids" {
	wait_for_guest validate-uuid
	send --cap validate-uuid "$IMAGE" "$QEMU_URI"
	assert_guest_arrived
}

@test "a QEMU with another uuid refuses the image, and send says that it failed" {
	qemu_start_incoming dst unix:socket -S -uuid 00000000-0000-0000-0000-000000000001
	qemu_qmp dst status
	run send --cap validate-uuid --cap return-path "$IMAGE" unix:socket
	[ "$status" -ne 0 ] && [ "$status" -lt 100 ]
	[ "$(jq -r .status send.json)" = failed ]
}

@test "x-ignore-shared: memory stays in its file, the rest goes through an image" {
	local shared=(-object "memory-backend-file,id=m0,size=${GUEST_MIB}M,mem-path=m0,share=on"
		-machine memory-backend=m0)
	qemu_start src "${shared[@]}"
	qemu_wait_tick src 5
	recv_start recv unix:socket image --cap x-ignore-shared
	qemu_migrate src unix:socket x-ignore-shared
	qemu_wait_status src completed
	recv_wait recv
	qemu_stop src
	rm -f socket
	qemu_start_incoming dst defer "${shared[@]}"
	qemu_qmp dst incoming unix:socket x-ignore-shared
	send --cap x-ignore-shared image unix:socket
	qemu_wait_status dst completed
	qemu_wait_tick dst $(($(qemu_serial_last_tick src) + 10))
	assert_guest_went_on src.serial dst.serial
}

multifd_in_all_widths() { # METHOD
	local channels
	for channels in 1 2 4; do
		wait_for_guest multifd "multifd-channels=$channels" "multifd-compression=$1"
		send --cap multifd --param "multifd-channels=$channels" \
			--param "multifd-compression=$1" "$IMAGE" "$QEMU_URI"
		assert_guest_arrived
		[ "$(jq '.ram."multifd-bytes"' send.json)" -gt 1000000 ]
		qemu_stop dst
		rm -rf socket again
	done
}

@test "multifd without compression, on 1, 2 and 4 channels" {
	multifd_in_all_widths none
}

@test "multifd with zlib, on 1, 2 and 4 channels" {
	multifd_in_all_widths zlib
}

@test "multifd with zstd, on 1, 2 and 4 channels" {
	multifd_in_all_widths zstd
}

@test "multifd over tcp with a return path" {
	LISTEN=tcp:127.0.0.1:0 wait_for_guest multifd multifd-channels=2 multifd-compression=zstd \
		return-path
	send --cap multifd --cap return-path --param multifd-channels=2 \
		--param multifd-compression=zstd "$IMAGE" "$QEMU_URI"
	assert_guest_arrived
}

# The guest checks neither its dirty region nor what is unused: there the image may change.
replay_rounds() { # [OPTION]...
	"$TOOLS/dirty_rounds.py" --seed "${SEED:-1}" "$IMAGE/ram/pc.ram" pc.ram 0x600000 0xa00000 dirty
	send --x-replay-dirty dirty.rounds "$@" "$IMAGE" "$QEMU_URI"
	qemu_wait_status dst completed
	qemu_qmp dst wait-run paused >/dev/null
	qemu_save_ram dst ram
	cmp ram dirty.ram
	cmp "$IMAGE/ram/pc.ram" "$BATS_FILE_TMPDIR/image.ram" # the source is as it was
	qemu_qmp dst cont
	assert_saved_guest_runs
}

@test "memory that changes while it is sent arrives as it is at last" {
	wait_for_guest
	replay_rounds
	[ "$(jq '.ram."dirty-sync-count"' send.json)" -ge 6 ]
}

@test "xbzrle: the deltas that QEMU gets make the memory as it is at last" {
	wait_for_guest xbzrle
	replay_rounds --cap xbzrle
	[ "$(jq '."xbzrle-cache".pages' send.json)" -gt 50 ]
	[ "$(jq '."xbzrle-cache".overflow' send.json)" -gt 5 ]
}

@test "xbzrle with a cache that is too small, and a return path" {
	wait_for_guest xbzrle return-path
	replay_rounds --cap xbzrle --param xbzrle-cache-size=64K --cap return-path
	[ "$(jq '."xbzrle-cache"."cache-miss"' send.json)" -gt 50 ]
}

@test "compress: pages that change arrive as they are at last" {
	wait_for_guest compress
	replay_rounds --cap compress --param compress-threads=2
}

@test "multifd: pages that change arrive as they are at last, on whatever channel" {
	wait_for_guest multifd multifd-channels=4 multifd-compression=zstd
	replay_rounds --cap multifd --param multifd-channels=4 --param multifd-compression=zstd
}

@test "send cancelled in the middle ends with 20, and the image can still go on elsewhere" {
	wait_for_guest
	"$MIGTOOL" send --json --progress=none --peer qemu --bwlimit 1M "$IMAGE" "$QEMU_URI" \
		>send.json 2>send.err 3>&- 4>&- &
	peer_started send
	qemu_qmp dst wait active >/dev/null
	kill -INT "${PEER_PIDS[send]}"
	recv_wait send 20 || return
	wait_for_end dst || true
	rm -f socket
	wait_for_guest
	send "$IMAGE" "$QEMU_URI"
	assert_guest_arrived
}
