#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later
# release-ram: the source's memory is given back when the destination owns the guest, and not before.

bats_require_minimum_version 1.5.0
load qemu

PEER=$BATS_TEST_DIRNAME/tools/migtool_peer.py

setup_file() {
	export IMAGES=$BATS_FILE_TMPDIR
	make_image mixed --size 4 "$IMAGES/mixed"
	make_image directory --size 2 "$IMAGES/directory"
	qemu_save_guest
}

setup() {
	cd "$BATS_TEST_TMPDIR" || return
	SHM=$(mktemp -d /dev/shm/migtool-test-XXXXXX)
	cp --sparse=always "$IMAGES/mixed" "$SHM/guest"
	cp -r --sparse=always "$IMAGES/directory" "$SHM/guests"
}

teardown() {
	peer_teardown
	rm -rf "$SHM"
}

# Nothing is stored of it any more, and its size is as it was.
assert_released() { # FILE...
	local file
	for file; do
		[ "$(data_bytes "$file")" -eq 0 ] && [ "$(stat -c %b "$file")" -eq 0 ] &&
			[ "$(stat -c %s "$file")" -gt 0 ] && continue
		stat "$file"
		return 1
	done
}

assert_kept() { # IMAGE
	assert_same_image "$IMAGES/mixed" "$SHM/guest"
}

@test "a file on tmpfs is empty when the destination has it" {
	local caps before
	for caps in "" "--cap multifd" "--cap compress"; do
		cp --sparse=always "$IMAGES/mixed" "$SHM/guest"
		before=$(($(stat -c %b "$SHM/guest") * 512))
		rm -f copy
		# shellcheck disable=SC2086
		run_pair tcp:127.0.0.1:0 "$SHM/guest" copy --cap release-ram $caps
		cmp "$IMAGES/mixed" copy
		assert_agreed
		assert_released "$SHM/guest"
		assert_json send ".released == $before"
		grep -q "the destination owns the memory now; .* of $SHM/guest were given back" send.err
	done
}

@test "a directory: its blocks are empty, its device state stays" {
	run_pair unix:socket "$SHM/guests" copy --cap release-ram
	assert_same_image "$IMAGES/directory" copy
	cmp "$IMAGES/directory/device-state" copy/device-state
	assert_released "$SHM"/guests/ram/*
	cmp "$IMAGES/directory/device-state" "$SHM/guests/device-state"
}

@test "huge pages go back to the pool" {
	huge_pages 4
	mkdir huge
	mount_private huge -t hugetlbfs -o pagesize=2M,size=8M none
	run_pair unix:socket "$IMAGES/mixed" huge/guest
	[ "$("${INSIDE[@]}" stat -c %b huge/guest)" -gt 0 ]
	run_pair unix:socket huge/guest copy --cap release-ram
	cmp "$IMAGES/mixed" copy
	[ "$("${INSIDE[@]}" stat -c %b huge/guest)" -eq 0 ]
	assert_json send '.released > 0'
}

@test "who has it mapped reads zeros, and has its memory back" {
	exec 7<>"$SHM/guest"
	run_pair unix:socket "/proc/$BASHPID/fd/7" copy --cap release-ram
	cmp "$IMAGES/mixed" copy
	cmp <(head -c 4194304 /dev/zero) /dev/fd/7
	assert_released "$SHM/guest"
	exec 7>&-
}

@test "on a disk only with --force" {
	local disk=$PWD/guest
	[ "$(stat -f -c %T .)" != tmpfs ] || skip "the tests run on tmpfs"
	cp --sparse=always "$IMAGES/mixed" "$disk"
	run -4 "$MIGTOOL" send --cap release-ram "$disk" unix:nobody
	[[ $output == *"release-ram: $disk is on a disk, not on tmpfs or hugetlbfs"*"hint: --force"* ]]
	run_pair unix:socket "$disk" copy --cap release-ram --force
	cmp "$IMAGES/mixed" copy
	assert_released "$disk"
}

@test "where nobody says that it arrived, nothing is given back" {
	run -4 "$MIGTOOL" send --one-way --cap release-ram "$SHM/guest" tcp:127.0.0.1:1
	[[ $output == *"release-ram: this transport carries nothing back"* ]]
	run -4 "$MIGTOOL" send --peer qemu --machine pc-i440fx-7.2 --cap release-ram "$SHM/guest" unix:nobody
	[[ $output == *"release-ram: without a return path a QEMU does not say"* ]]
	run -0 "$MIGTOOL" send --cap release-ram "$SHM/guest" file:stream
	[[ $output == *"nobody has said that the memory arrived, so $SHM/guest keeps it"* ]]
	assert_kept
}

@test "a destination that fails, leaves or says nothing at the end: the source keeps all" {
	local name i
	for name in other-ready no-done close-early full; do
		rm -rf socket peer
		"$PEER" receive --listen --wrong $name socket peer >/dev/null 2>peer.err 3>&- 4>&- &
		peer_started peer
		wait_until test -S socket
		i=0
		"$MIGTOOL" send -q --cap release-ram "$SHM/guest" unix:socket 2>send.err || i=$?
		[ "$i" -ne 0 ]
		wait_for_end peer || true
		assert_kept
	done
}

@test "whoever is killed, whenever: the source has all, or the destination has" {
	local i whole=0
	for i in {1..12}; do
		cp --sparse=always "$IMAGES/mixed" "$SHM/guest"
		rm -rf copy copy.part
		recv_start recv unix:socket copy
		migtool_start send send --cap release-ram --bwlimit 4M "$SHM/guest" "$RECV_URI"
		# before that recv would not have seen anybody, and wait on
		wait_until sh -c '[ -e copy.part ] || [ -e copy ]'
		sleep "0.$((i / 2))$((i % 2 * 5))"
		kill -KILL "${PEER_PIDS[$([ $((i % 3)) -eq 0 ] && echo recv || echo send)]}" 2>/dev/null || true
		wait_for_end send || true
		wait_for_end recv || true
		if [ -e copy ]; then
			cmp "$IMAGES/mixed" copy
		else
			assert_kept
			whole=$((whole + 1))
		fi
	done
	[ "$whole" -gt 0 ]
}

@test "an image that is the destination's too is not emptied" {
	ln "$SHM/guest" "$SHM/other"
	recv_start recv unix:socket "$SHM/other" --in-place --delta
	migtool_start send send --cap release-ram "$SHM/guest" "$RECV_URI"
	migtool_wait send 5
	assert_error send "is being written by another migtool"
	assert_kept
	kill "${PEER_PIDS[recv]}"
	migtool_wait recv 20
	# the same with directories that share a block
	mkdir -p "$SHM/others/ram"
	ln "$SHM"/guests/ram/* "$SHM/others/ram"
	recv_start recv unix:socket "$SHM/others" --in-place --delta
	migtool_start send send --cap release-ram "$SHM/guests" "$RECV_URI"
	migtool_wait send 5
	assert_error send "is used by another migtool"
	assert_same_image "$IMAGES/directory" "$SHM/guests"
}

@test "nobody else reads what will be emptied, and what is read is not emptied" {
	recv_start recv unix:socket copy
	migtool_start send send --cap release-ram --cap pause-before-switchover --cap events \
		"$SHM/guest" "$RECV_URI"
	wait_for_line send.json pre-switchover
	run -11 "$MIGTOOL" send "$SHM/guest" null:
	[[ $output == *"$SHM/guest is written, or will be emptied, by another migtool"* ]]
	run -11 "$MIGTOOL" recv --uffd-socket vmm image:"$SHM/guest"
	[[ $output == *"$SHM/guest is written, or will be emptied, by another migtool"* ]]
	kill -INT "${PEER_PIDS[send]}"
	migtool_wait send 20
	migtool_wait recv 20
	assert_kept
	listener_start vmm recv --uffd-socket vmm image:"$SHM/guest"
	run -11 "$MIGTOOL" send --cap release-ram "$SHM/guest" unix:nobody
	[[ $output == *"$SHM/guest is used by another migtool"* ]]
}

@test "x-ignore-shared: what both ends reach stays" {
	mkdir -p source/ram copy/ram
	cp "$IMAGES/mixed" "$SHM/memory"
	ln -s "$SHM/memory" source/ram/pc.ram
	ln -s "$SHM/memory" copy/ram/pc.ram
	cp "$IMAGES/directory/ram/pc.ram" "$SHM/rom"
	ln -s "$SHM/rom" source/ram/rom
	cat >source/manifest.json <<-END
		{"version": 1, "page-size": 4096, "source": "migtool", "blocks": [
		{"name": "pc.ram", "size": 4194304, "shared": true},
		{"name": "rom", "size": $(stat -c %s "$SHM/rom")}]}
	END
	run_pair unix:socket source copy --cap x-ignore-shared --cap release-ram -- --cap x-ignore-shared
	cmp "$IMAGES/mixed" "$SHM/memory"
	cmp "$IMAGES/directory/ram/pc.ram" copy/ram/rom
	assert_released "$SHM/rom"
}

@test "--base that is the image itself is refused" {
	run -1 "$MIGTOOL" send --cap release-ram --cap xbzrle --base "$SHM/guest" "$SHM/guest" unix:nobody
	[[ $output == *"release-ram: --base $SHM/guest is the image itself"* ]]
}

@test "a guest in QEMU: given back behind SHUT, in precopy and in postcopy" {
	local cap
	for cap in return-path postcopy-ram; do
		cp -r --sparse=always "$BATS_FILE_TMPDIR/image" "$SHM/image"
		qemu_listen -- $cap
		migtool_start send send --peer qemu --cap $cap --cap release-ram "$SHM/image" "$QEMU_URI"
		migtool_wait send
		qemu_wait_status dst completed
		assert_saved_guest_runs
		assert_released "$SHM"/image/ram/*
		cmp "$BATS_FILE_TMPDIR/image/device-state" "$SHM/image/device-state"
		qemu_stop dst
		rm -rf "$SHM/image" socket
	done
}

@test "a QEMU that dies in postcopy: the source keeps all, for another one" {
	cp -r --sparse=always "$BATS_FILE_TMPDIR/image" "$SHM/image"
	qemu_listen -- postcopy-ram
	migtool_start send send --peer qemu --cap postcopy-ram --cap release-ram \
		--param max-postcopy-bandwidth=100K "$SHM/image" "$QEMU_URI"
	qemu_qmp dst wait postcopy-active >/dev/null
	kill -KILL "${PEER_PIDS[dst]}"
	migtool_wait send 50
	cmp "$BATS_FILE_TMPDIR/image/ram/pc.ram" "$SHM/image/ram/pc.ram"
}
