#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later
# Postcopy with a real QEMU whose memory is more than one block of small pages.

bats_require_minimum_version 1.5.0
load qemu

TWO_NODES=(-object "memory-backend-ram,id=near,size=20M" -numa "node,memdev=near"
	-object "memory-backend-ram,id=far,size=12M" -numa "node,memdev=far")
HUGE=(-object "memory-backend-memfd,id=huge,size=32M,hugetlb=on,hugetlbsize=2M"
	-machine "memory-backend=huge")

setup_file() {
	qemu_build_guest
}

setup() {
	cd "$BATS_TEST_TMPDIR" || return
}

teardown() {
	peer_teardown
}

# park QEMU-ARG...: a guest leaves such a QEMU in postcopy. Its memory is then the file ram.
park() {
	qemu_start src "$@"
	qemu_wait_tick src 3
	recv_start recv unix:park parked --cap postcopy-ram
	qemu_migrate src unix:park postcopy-ram max-bandwidth=2000000
	qemu_qmp src wait active >/dev/null
	qemu_qmp src '{"execute": "migrate-start-postcopy"}' >/dev/null
	qemu_wait_status src completed
	recv_wait recv
	assert_json recv '.ram."postcopy-bytes" > 100000' .complete
	qemu_save_ram src ram
	qemu_stop src
}

# run_parked IMAGE QEMU-ARG...: it goes on in another one, and pulls its memory.
run_parked() {
	local image=$1
	shift
	qemu_listen -S "$@" -- postcopy-ram
	timeout 60 "$MIGTOOL" send --json --progress=none --peer qemu --cap postcopy-ram "$image" \
		unix:socket >send.json 2>send.err 3>&- 4>&-
	qemu_wait_status dst completed
	assert_json send '.ram."postcopy-bytes" > 100000' .complete '.owner == "destination"'
	qemu_qmp dst wait-run paused >/dev/null
	qemu_save_ram dst arrived
	cmp ram arrived
	qemu_qmp dst cont
	qemu_wait_tick dst $(($(qemu_serial_last_tick src) + 10))
	assert_guest_went_on src.serial dst.serial
}

@test "a guest of two nodes is parked, and runs again: every block" {
	park "${TWO_NODES[@]}"
	cat parked/ram/near parked/ram/far >blocks
	cmp blocks ram
	run_parked parked "${TWO_NODES[@]}"
}

@test "a guest with huge pages is parked, and runs again" {
	huge_pages 16
	park "${HUGE[@]}"
	cmp ram parked/ram/huge
	[ "$(jq '.blocks[] | select(.name == "huge")."page-size"' parked/manifest.json)" -eq 2097152 ]
	run_parked parked "${HUGE[@]}"
}
