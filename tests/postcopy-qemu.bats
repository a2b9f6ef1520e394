#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later
# Postcopy with a real QEMU: the guest goes on where it stopped before its memory is there, asks for
# what it needs, and in the end has all of it, as it was.

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

# wait_for_guest [ARG]... -- [SETTING]...: a QEMU that waits for postcopy.
wait_for_guest() {
	local BEFORE BEHIND
	split_options "$@"
	qemu_listen "${BEFORE[@]}" -- postcopy-ram "${BEHIND[@]}"
}

send() { # [OPTION]... IMAGE URI
	timeout 60 "$MIGTOOL" send --json --progress=none --timeout 20 --peer qemu \
		--cap postcopy-ram=on "$@" >send.json 2>send.err 3>&- 4>&-
}

# It goes on with the next line, and neither it nor anybody else misses a page.
assert_guest_runs() {
	qemu_wait_status dst completed
	assert_saved_guest_runs
	assert_json send '.status == "completed"' '.owner == "destination"' .complete \
		'.ram."postcopy-bytes" > 100000' '.ram.remaining == 0'
}

# A paused guest's memory is still what was sent.
assert_memory_whole() {
	qemu_wait_status dst completed
	qemu_qmp dst wait-run paused >/dev/null
	qemu_save_ram dst ram
	cmp ram "${1:-$IMAGE/ram/pc.ram}"
	qemu_qmp dst cont
	assert_guest_runs
}

@test "a guest goes on at once in QEMU and pulls its memory over tcp" {
	LISTEN=tcp:127.0.0.1:0 wait_for_guest
	send --cap events "$IMAGE" "$QEMU_URI"
	assert_guest_runs
	assert_json send '.ram."postcopy-requests" > 0' '.ram."precopy-bytes" < 100000'
	[ "$(jq -rs 'map(select(.event == "MIGRATION").data.status) | join(" ")' send.json)" = \
		"setup active postcopy-active completed" ]
}

@test "the memory of a paused guest is whole" {
	wait_for_guest -S --
	send "$IMAGE" "$QEMU_URI"
	assert_memory_whole
}

@test "postcopy-preempt: what the guest asks for has its own connection" {
	wait_for_guest -- postcopy-preempt
	send --cap postcopy-preempt --param max-postcopy-bandwidth=2M "$IMAGE" "$QEMU_URI"
	assert_guest_runs
	assert_json send '.ram."postcopy-requests" > 0'
}

@test "a part of the memory before the switch, the rest behind it" {
	wait_for_guest -S --
	send --postcopy-after=60 "$IMAGE" "$QEMU_URI"
	assert_memory_whole
	assert_json send '.ram."precopy-bytes" > 1000000' '.ram."dirty-sync-count" == 1'
}

@test "what was written before the switch is not what the guest had before" {
	"$TOOLS/dirty_rounds.py" --seed "${SEED:-1}" "$IMAGE/ram/pc.ram" pc.ram 0x600000 0xa00000 dirty
	wait_for_guest -S --
	send --postcopy-after=90 --x-replay-dirty dirty.rounds "$IMAGE" "$QEMU_URI"
	assert_memory_whole dirty.ram
}

@test "all of it before: precopy, with nothing to ask for" {
	wait_for_guest --
	send --postcopy-after=100 "$IMAGE" "$QEMU_URI"
	qemu_wait_status dst completed
	assert_json send '.ram."postcopy-bytes" == 0' '.status == "completed"'
}

@test "SIGUSR2 starts postcopy" {
	wait_for_guest --
	"$MIGTOOL" send --json --progress=none --peer qemu --cap postcopy-ram --postcopy-after=100 \
		--bwlimit 1M -v "$IMAGE" "$QEMU_URI" >send.json 2>send.err 3>&- 4>&- &
	peer_started send
	qemu_qmp dst wait active >/dev/null
	kill -USR2 "${PEER_PIDS[send]}"
	wait_for_end send
	assert_guest_runs
	grep -q "the guest goes on at the destination" send.err
}

@test "TLS, with both connections" {
	qemu_start_incoming dst defer \
		-object "tls-creds-x509,id=tls0,dir=$TLS/server,endpoint=server,verify-peer=on"
	qemu_qmp dst incoming tcp:127.0.0.1:0 tls-creds=tls0 postcopy-ram postcopy-preempt
	send --cap postcopy-preempt --param "tls-creds=$TLS/client" \
		--param max-postcopy-bandwidth=4M "$IMAGE" "$(qemu_qmp dst address)"
	assert_guest_runs
	assert_json send '.ram."postcopy-requests" > 0'
}

@test "a QEMU that is not ready for postcopy fails before the guest is given up" {
	qemu_start_incoming dst unix:socket
	qemu_qmp dst status
	run -10 send "$IMAGE" unix:socket
	assert_json send '.owner == "source"' '.complete == false'
}

@test "an image without QEMU's ROMs, or a base, is refused before anything is connected to" {
	local device
	for device in "" --device-state="$IMAGE/device-state"; do
		run -4 send ${device:+"$device"} "$IMAGE/ram/pc.ram" unix:nobody
		grep -q "error: postcopy-ram: .* is not a guest that a QEMU left" send.err
		grep -q "hint: send it without --cap postcopy-ram" send.err
	done
	mkdir bare
	cp -r "$IMAGE/ram" bare
	run -4 send --dry-run bare unix:nobody
	run -1 send --cap xbzrle --base "$IMAGE" "$IMAGE" unix:nobody
	grep -q "error: --base: in postcopy" send.err
}

@test "a destination that dies behind the switch: lost, and it says so" {
	wait_for_guest --
	"$MIGTOOL" send --json --progress=none --peer qemu --cap postcopy-ram \
		--param max-postcopy-bandwidth=100K -v "$IMAGE" "$QEMU_URI" >send.json 2>send.err 3>&- 4>&- &
	peer_started send
	qemu_qmp dst wait postcopy-active >/dev/null
	kill -INT "${PEER_PIDS[send]}" # too late
	kill -KILL "${PEER_PIDS[dst]}"
	migtool_wait send 50
	assert_json send '.owner == "destination"' '.complete == false' '.status == "postcopy-paused"'
	grep -q "keep the image: .migrate-recover. there, then .send --resume. here, of this image or a copy" \
		send.err
	grep -q "the guest is the destination's and waits there for memory: do not run" send.err
	cmp "$IMAGE/ram/pc.ram" "$BATS_FILE_TMPDIR/image.ram"
}

# send_slowly: IMAGE is a copy, of which nothing but what is asked for goes.
send_slowly() {
	cp -r --sparse=always "$IMAGE" image
	wait_for_guest --
	"$MIGTOOL" send --json --progress=none --peer qemu --cap postcopy-ram \
		--param max-postcopy-bandwidth="$1" image "$QEMU_URI" >send.json 2>send.err 3>&- 4>&- &
	peer_started send
	qemu_qmp dst wait postcopy-active >/dev/null
}

@test "an image that is written to behind the switch: the guest has to be ended" {
	send_slowly 100K
	printf x | dd of=image/ram/pc.ram bs=1 seek=100 conv=notrunc status=none
	kill -KILL "${PEER_PIDS[dst]}"
	migtool_wait send 50
	grep -q "error: the image was written to, so the guest at the destination has memory of two times" send.err
	grep -q "hint: end it there" send.err
	run ! grep -q -e --resume send.err
}

@test "an image that is removed behind the switch was read none the less" {
	send_slowly 2M
	rm -r image
	wait_for_end send
	assert_guest_runs
}

# ---- from a QEMU ----

# park [ARG]... [-- SETTING...]: a guest that is sent slowly, and switched before it has been sent.
park() {
	local BEFORE BEHIND
	split_options "$@"
	rm -rf copy
	qemu_start src "${BEFORE[@]}"
	qemu_wait_tick src 3
	qemu_migrate src "$RECV_URI" postcopy-ram max-bandwidth=500000 "${BEHIND[@]}"
	qemu_qmp src wait active >/dev/null
	qemu_qmp src '{"execute": "migrate-start-postcopy"}' >/dev/null
	qemu_wait_status src completed
	recv_wait recv
	qemu_save_ram src ram
	cmp ram copy/ram/pc.ram
	assert_json recv '.status == "completed"' '.owner == "destination"' \
		'.ram."postcopy-bytes" > 100000'
	[ "$(jq -r '."run-state"' copy/manifest.json)" = running ]
}

@test "a guest that leaves QEMU in postcopy is parked whole, and goes on elsewhere" {
	recv_start recv tcp:127.0.0.1:0 copy --cap postcopy-ram
	park
	qemu_stop src
	wait_for_guest --
	send copy "$QEMU_URI"
	qemu_wait_status dst completed
	qemu_wait_tick dst $(($(qemu_serial_last_tick src) + 10))
	assert_guest_went_on src.serial dst.serial
}

@test "a guest that leaves QEMU in postcopy with postcopy-preempt" {
	recv_start recv tcp:127.0.0.1:0 copy --cap postcopy-ram --cap postcopy-preempt
	park -- postcopy-preempt
}

@test "a guest that leaves QEMU in postcopy over TLS, with postcopy-preempt and without" {
	local preempt
	for preempt in "" postcopy-preempt; do
		rm -rf copy
		recv_start recv tcp:127.0.0.1:0 copy --cap postcopy-ram ${preempt:+--cap $preempt} \
			--param "tls-creds=$TLS/server"
		park -object "tls-creds-x509,id=tls0,dir=$TLS/client,endpoint=client" -- $preempt \
			tls-creds=tls0
		qemu_stop src
		run ! grep -q warning recv.err
	done
}

@test "a QEMU with postcopy-ram on may stay in precopy" {
	qemu_start src
	qemu_wait_tick src 3
	recv_start recv unix:other copy --cap postcopy-ram
	qemu_migrate src unix:other postcopy-ram
	qemu_wait_status src completed
	recv_wait recv
	qemu_save_ram src ram
	cmp ram copy/ram/pc.ram
}

@test "a QEMU with postcopy-ram on, which recv was not told" {
	qemu_start src
	qemu_wait_tick src 3
	recv_start recv unix:other copy
	qemu_migrate src unix:other postcopy-ram
	qemu_wait_status src failed
	recv_wait recv 4
	grep -q "recv --cap postcopy-ram=on" recv.err
}

# ---- recovery ----

# break_postcopy [SEND-OPTION]...: a guest that runs, waits for its memory and has lost its source.
break_postcopy() {
	"$MIGTOOL" send --json --progress=none --peer qemu --cap postcopy-ram \
		--param max-postcopy-bandwidth=1M "$@" "$IMAGE" "$QEMU_URI" >first.json 2>first.err \
		3>&- 4>&- &
	peer_started first
	qemu_wait_status dst postcopy-active
	kill -KILL "${PEER_PIDS[first]}"
	wait_for_end first || true
	qemu_wait_status dst postcopy-paused
}

recover_guest() { # URI
	qemu_qmp dst '{"execute": "migrate-recover", "arguments": {"uri": "'"$1"'"}}' >/dev/null
}

@test "a source that was killed: another one goes on with the guest that waits" {
	wait_for_guest --
	break_postcopy
	recover_guest unix:again
	send --resume --cap events "$IMAGE" unix:again
	assert_guest_runs
	[ "$(jq -rs 'map(select(.event == "MIGRATION").data.status) | join(" ")' send.json)" = \
		"postcopy-recover postcopy-active completed" ]
}

@test "recovery with postcopy-preempt" {
	wait_for_guest -- postcopy-preempt
	break_postcopy --cap postcopy-preempt
	recover_guest unix:again
	send --resume --cap postcopy-preempt "$IMAGE" unix:again
	assert_guest_runs
}

@test "the memory of a guest whose source was killed is whole in the end, lost twice" {
	wait_for_guest -S --
	break_postcopy --postcopy-after=50
	recover_guest unix:again
	QEMU_URI=unix:again break_postcopy --resume
	recover_guest unix:third
	send --resume "$IMAGE" unix:third
	assert_memory_whole
}

@test "--resume towards a QEMU that has nothing to recover says so" {
	run -1 send --cap postcopy-ram=off --resume "$IMAGE" unix:nobody
	grep -q "it can in postcopy: --resume --cap postcopy-ram" send.err
	wait_for_guest --
	run send --resume "$IMAGE" "$QEMU_URI"
	[ "$status" -ne 0 ]
	assert_json send '.owner == "unknown"' '.complete == false'
}

# recover_from ANSWERS: `send --resume` of which a QEMU takes only the beginning.
recover_from() {
	rm -f qemu.out send.err
	"$TOOLS/paused_qemu.py" qemu "$IMAGE" "$1" >qemu.out 3>&- 4>&- &
	peer_started qemu
	wait_for_line qemu.out listening
	"$MIGTOOL" send --json --progress=none --peer qemu --cap postcopy-ram --resume "$IMAGE" \
		unix:qemu >send.json 2>send.err 3>&- 4>&- &
	peer_started send
}

@test "a recovery can be cancelled until QEMU is told to resume; what fails behind is a loss" {
	recover_from 1
	wait_for_line qemu.out "^10\$"
	kill -INT "${PEER_PIDS[send]}"
	migtool_wait send 20
	assert_json send '.status == "cancelled"' '.owner == "unknown"'
	wait_for_end qemu
	run ! grep -qx 9 qemu.out
	rm qemu qemu.out
	recover_from 100
	migtool_wait send 50
	assert_json send '.owner == "destination"' '.complete == false'
	grep -q "keep the image" send.err
	grep -qx 9 qemu.out
}

@test "a stream that is wrong is refused, before the guest is ours and behind" {
	local name status words rc back shut=0001000400000001
	while read -r name status words; do
		recv_start recv unix:socket copy --cap postcopy-ram
		back=$("$TOOLS/replay.py" socket "$name.stream" 3>&-)
		rc=0
		wait_for_end recv || rc=$?
		[ "$rc" -eq "$status" ] && grep -F "error: " recv.err | grep -qF -- "$words" || {
			echo "$name: $rc"
			return 1
		}
		[ ! -e copy ]
		# in postcopy a SHUT would end the source, and its guest with it
		case $name in
		discard-first) [[ $back == *"$shut" ]] ;;
		listen-alone | package-huge | cut) [[ $back != *"$shut"* ]] ;;
		esac
		rm -rf socket copy.part
	done < <("$TOOLS/bad_postcopy.py" .)
}

# take_with_fault FAULT: recv gets a whole stream, and one of its calls fails.
take_with_fault() {
	rm -rf socket copy copy.part state
	# shellcheck disable=SC2034 # for migtool_start
	INSIDE=(env "ASAN_OPTIONS=verify_asan_link_order=0:${ASAN_OPTIONS:-}"
		LD_PRELOAD="$(dirname "$MIGTOOL")/tools/faults.so" "FAULTS=$1" "FAULTS_STATE=$PWD/state")
	recv_start recv unix:socket copy --cap postcopy-ram --retry 3
	"$TOOLS/replay.py" socket whole.stream >/dev/null 3>&-
}

@test "a loss behind the switch from QEMU that is the disk's is final" {
	"$TOOLS/bad_postcopy.py" . >/dev/null
	take_with_fault sync:4:EIO
	recv_wait recv 50
	grep -q "error: the source gave the guest up, and its memory is not surely on the disk" recv.err
	grep -q "hint: the source has all of it" recv.err
	[ ! -e copy ]
}

@test "a guest that cannot be noted as given up is taken all the same" {
	"$TOOLS/bad_postcopy.py" . >/dev/null
	take_with_fault sync:1:EIO
	recv_wait recv
	grep -q "warning: cannot sync .*; if the connection breaks, nobody can go on with copy.part" recv.err
}
