#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later
# A guest that leaves a real QEMU in postcopy, for an image: when that breaks, the QEMU waits with all
# of the memory, the image with what has come, and the two come together again.

bats_require_minimum_version 1.5.0
load qemu
load tls

setup_file() {
	tls_make
	qemu_build_guest
}

setup() {
	cd "$BATS_TEST_TMPDIR" || return
}

teardown() {
	peer_teardown
}

# leave [SETTING]...: the guest has left QEMU, and little of its memory has come.
leave() {
	qemu_start src -object "tls-creds-psk,id=tls0,dir=$TLS/psk,endpoint=client"
	qemu_wait_tick src 3
	qemu_migrate src unix:socket postcopy-ram max-bandwidth=500000 max-postcopy-bandwidth=200000 "$@"
	qemu_qmp src wait active >/dev/null
	qemu_qmp src '{"execute": "migrate-start-postcopy"}' >/dev/null
	qemu_wait_status src postcopy-active
	wait_for_note
}

# What says that the guest was given up for this image.
wait_for_note() {
	local i
	for ((i = 0; i < 600; i++)); do
		! grep -qs '"postcopy": true' copy.part/manifest.json || return 0
		sleep 0.05
	done
	cat recv.err
	return 1
}

# come_back URI: as `migrate -r`, and fast from now on.
come_back() {
	qemu_qmp src '{"execute": "migrate-set-parameters", "arguments": {"max-postcopy-bandwidth": 0}}' >/dev/null
	qemu_qmp src '{"execute": "migrate", "arguments": {"uri": "'"$1"'", "resume": true}}' >/dev/null
	qemu_wait_status src completed
}

assert_parked() {
	recv_wait recv
	qemu_save_ram src ram
	cmp ram copy/ram/pc.ram
	assert_json recv '.status == "completed"' '.owner == "destination"'
	[ "$(jq -r '."run-state"' copy/manifest.json)" = running ]
	run ! grep -q "\"postcopy\"" copy/manifest.json
	[ ! -e copy.part ]
}

@test "recv is killed: a new one takes the rest of the memory, and the guest goes on elsewhere" {
	recv_start recv unix:socket copy --cap postcopy-ram
	leave
	kill -KILL "${PEER_PIDS[recv]}"
	wait_for_end recv || true
	qemu_wait_status src postcopy-paused
	# what is not whole is nobody's image
	run -4 "$MIGTOOL" send copy.part unix:nowhere
	[[ $output == *"has not all of its guest's memory"* ]]
	rm -f socket
	recv_start recv unix:again copy --resume --cap postcopy-ram --cap events
	come_back unix:again
	assert_parked
	[ "$(jq -rs 'map(select(.event == "MIGRATION").data.status) | join(" ")' recv.json)" = \
		"setup postcopy-recover postcopy-active completed" ]
	qemu_stop src
	qemu_start_incoming dst defer
	qemu_qmp dst incoming unix:third
	timeout 60 "$MIGTOOL" send -q --peer qemu copy unix:third 3>&- 4>&-
	qemu_wait_status dst completed
	qemu_wait_tick dst $(($(qemu_serial_last_tick src) + 10))
	assert_guest_went_on src.serial dst.serial
}

@test "recv --retry stays, and takes the rest when the source comes back" {
	recv_start recv unix:socket copy --cap postcopy-ram --retry 2
	leave
	qemu_qmp src '{"execute": "migrate-pause"}' >/dev/null
	qemu_wait_status src postcopy-paused
	come_back unix:socket
	assert_parked
}

@test "recovery with postcopy-preempt" {
	recv_start recv unix:socket copy --cap postcopy-ram --cap postcopy-preempt --retry 1
	leave postcopy-preempt
	qemu_qmp src '{"execute": "migrate-pause"}' >/dev/null
	qemu_wait_status src postcopy-paused
	come_back unix:socket
	assert_parked
}

@test "recovery with postcopy-preempt over TLS" {
	recv_start recv unix:socket copy --cap postcopy-ram --cap postcopy-preempt --retry 1 \
		--param "tls-creds=$TLS/psk"
	leave postcopy-preempt tls-creds=tls0
	qemu_qmp src '{"execute": "migrate-pause"}' >/dev/null
	qemu_wait_status src postcopy-paused
	come_back unix:socket
	assert_parked
}

@test "broken twice, the source killed in between: what has come stays, and says what is missing" {
	recv_start recv unix:socket copy --cap postcopy-ram
	leave
	qemu_qmp src '{"execute": "migrate-pause"}' >/dev/null
	recv_wait recv 50
	grep -q 'hint: the source has all of it, in postcopy-paused: `recv --resume' recv.err
	assert_json recv '.status == "postcopy-paused"' '.owner == "unknown"'
	rm -f socket
	recv_start recv unix:socket copy --resume --cap postcopy-ram
	qemu_qmp src '{"execute": "migrate", "arguments": {"uri": "unix:socket", "resume": true}}' >/dev/null
	qemu_wait_status src postcopy-active
	qemu_stop src
	recv_wait recv 50
	[ -e copy.part/device-state ]
	grep -q '"postcopy": true' copy.part/manifest.json
}

@test "only who recovers is taken, only by what waits for it" {
	recv_start recv unix:socket copy --cap postcopy-ram
	printf '\010\000\012\000\007\006pc.ram' | timeout 20 socat -t 5 - unix:socket || true
	wait_for_line recv.err "no copy.part waits for that"
	leave
	kill -KILL "${PEER_PIDS[recv]}"
	wait_for_end recv || true
	qemu_wait_status src postcopy-paused
	rm -f socket
	recv_start recv unix:socket copy --resume --cap postcopy-ram
	qemu_start other
	qemu_migrate other unix:socket postcopy-ram
	wait_for_line recv.err "the source begins anew"
	come_back unix:socket
	assert_parked
}

@test "a recovery that is wrong is refused, and leaves what there was" {
	local name status words rc
	"$TOOLS/bad_postcopy.py" . >/dev/null
	recv_start recv unix:socket copy --cap postcopy-ram
	"$TOOLS/replay.py" socket cut.stream >/dev/null 3>&-
	recv_wait recv 50
	rm -f socket
	while read -r name status words; do
		recv_start recv unix:socket copy --resume --cap postcopy-ram
		"$TOOLS/replay.py" socket "$name.stream" >/dev/null 3>&-
		rc=0
		wait_for_end recv || rc=$?
		[ "$rc" -eq "$status" ] && grep -qF -- "$words" recv.err || {
			echo "$name: $rc"
			return 1
		}
		rm -f socket
		[ "$status" -eq 0 ] || grep -q '"postcopy": true' copy.part/manifest.json
	done < <("$TOOLS/bad_postcopy.py" . recovery)
	[ ! -e copy.part ]
	[ "$(stat -c %s copy/ram/pc.ram)" -eq 65536 ]
}
