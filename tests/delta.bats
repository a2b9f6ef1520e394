#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later
# recv --delta: an older copy at the destination, of which only the changes travel.

bats_require_minimum_version 1.5.0
load helper

setup_file() {
	export IMAGES=$BATS_FILE_TMPDIR
	make_image random --size 32 "$IMAGES/old"
	cp "$IMAGES/old" "$IMAGES/new"
	"$TOOLS/change_image.py" --pages 80 --kinds rb "$IMAGES/new" >"$IMAGES/changed"
	make_image mixed --size 16 "$IMAGES/mixed"
	cp --sparse=always "$IMAGES/mixed" "$IMAGES/other"
	"$TOOLS/change_image.py" --pages 300 "$IMAGES/other"
	make_image directory "$IMAGES/directory"
}

setup() {
	cd "$BATS_TEST_TMPDIR" || return
}

teardown() {
	peer_teardown
	[ -z "${SHM:-}" ] || rm -r "$SHM"
}

# No more than 1.3 times what changed has travelled, both ways together.
assert_little() { # CHANGED-BYTES
	[ "$(jq .ram.transferred send.json)" -le $(($1 * 13 / 10)) ]
}

@test "one page in a hundred changed: at most 1.3 times their bytes travel" {
	cp "$IMAGES/old" copy
	run_pair tcp:127.0.0.1:0 "$IMAGES/new" copy -- --delta
	cmp "$IMAGES/new" copy
	assert_agreed
	assert_little "$(cat "$IMAGES/changed")"
	assert_json send '.ram.normal == 80' '.ram.skipped == 8192 - 80'
	[ ! -e copy.part ] && [ ! -e copy.part.session ]
}

@test "in place the same travels, and the file is the one that was there" {
	cp "$IMAGES/old" copy
	before=$(stat -c %i copy)
	run_pair tcp:127.0.0.1:0 "$IMAGES/new" copy -- --delta --in-place
	cmp "$IMAGES/new" copy
	[ "$(stat -c %i copy)" = "$before" ]
	assert_agreed
	assert_little "$(cat "$IMAGES/changed")"
	[ ! -e copy.part.session ]
}

@test "nothing changed: next to nothing travels" {
	cp "$IMAGES/old" copy
	run_pair unix:socket "$IMAGES/old" copy -- --delta
	cmp "$IMAGES/old" copy
	assert_json send '.ram.normal == 0' '.ram.duplicate == 0' '.ram.transferred < 20000'
}

@test "pages that became zero become holes, holes that became data are sent" {
	local how
	for how in "" --in-place; do
		cp --sparse=always "$IMAGES/mixed" copy
		# shellcheck disable=SC2086
		run_pair unix:socket "$IMAGES/other" copy -- --delta $how
		cmp "$IMAGES/other" copy
		assert_sparse copy
		assert_agreed
	done
}

@test "an old copy of another guest, an empty one, one that is all holes, one of another size" {
	cp "$IMAGES/old" copy
	truncate -s 16M copy
	run_pair unix:socket "$IMAGES/mixed" copy -- --delta
	cmp "$IMAGES/mixed" copy
	assert_agreed
	: >copy
	run_pair unix:socket "$IMAGES/mixed" copy -- --delta
	cmp "$IMAGES/mixed" copy
	truncate -s 0 copy
	truncate -s 16M copy
	run_pair unix:socket "$IMAGES/mixed" copy -- --delta
	cmp "$IMAGES/mixed" copy
	run_pair unix:socket "$IMAGES/old" copy -- --delta
	cmp "$IMAGES/old" copy
	rm copy
	run_pair unix:socket "$IMAGES/old" copy -- --delta
	cmp "$IMAGES/old" copy
	[ ! -e copy.part ]
}

@test "the end of a block that is no multiple of 64 KiB" {
	local size
	for size in 4096 61440 69632 1118208; do
		head -c $size "$IMAGES/old" >old
		cp old new
		printf 'changed' | dd of=new bs=1 seek=$((size - 100)) conv=notrunc status=none
		cp old copy
		run_pair unix:socket "$PWD/new" copy -- --delta
		cmp new copy
		assert_json send '.ram.normal == 1'
	done
}

@test "guest pages of 16 and 64 KiB travel whole, and no others" {
	local size
	for size in 16K 64K; do
		cp "$IMAGES/old" copy
		run_pair unix:socket "$IMAGES/new" copy --page-size "$size" -- --delta
		cmp "$IMAGES/new" copy
		assert_agreed
		assert_json send '.ram.normal > 60' '.ram.normal <= 80'
	done
}

@test "a directory: each block against its own old file, devices whole" {
	cp -r "$IMAGES/directory" new
	cp -r "$IMAGES/directory" copy
	printf 'changed' | dd of=new/ram/pc.ram bs=1 seek=70000 conv=notrunc status=none
	printf 'another device state' >new/device-state
	find copy/ram -type f ! -name pc.ram -exec rm {} +
	run_pair unix:socket "$PWD/new" copy -- --delta
	assert_same_image new copy
	cmp new/device-state copy/device-state
	assert_agreed
	cp new/ram/pc.ram before
	printf 'again' | dd of=new/ram/pc.ram bs=1 seek=300000 conv=notrunc status=none
	run_pair unix:socket "$PWD/new" copy -- --delta --in-place
	assert_same_image new copy
	assert_json send '.ram.normal == 1'
}

@test "on tmpfs, and from disk to tmpfs" {
	SHM=$(mktemp -d /dev/shm/migtool.XXXXXX)
	cp "$IMAGES/old" "$SHM/copy"
	run_pair unix:socket "$IMAGES/new" "$SHM/copy" -- --delta
	cmp "$IMAGES/new" "$SHM/copy"
	cp "$IMAGES/old" "$SHM/copy"
	run_pair unix:socket "$IMAGES/new" "$SHM/copy" -- --delta --in-place
	cmp "$IMAGES/new" "$SHM/copy"
}

@test "with each capability that carries pages, and over each two-way transport" {
	local options
	for options in "--cap multifd" "--cap compress" "--cap multifd --param multifd-channels=4 \
--param multifd-compression=zstd" "--cap multifd --param multifd-compression=zlib"; do
		cp "$IMAGES/old" copy
		# shellcheck disable=SC2086
		run_pair tcp:127.0.0.1:0 "$IMAGES/new" copy $options -- --delta
		cmp "$IMAGES/new" copy
		assert_agreed
	done
	cp "$IMAGES/old" copy
	"$MIGTOOL" send -q "$IMAGES/new" "exec:exec '$MIGTOOL' recv --delta stdio: copy"
	cmp "$IMAGES/new" copy
	cp "$IMAGES/old" copy
	listener_start send send --listen "$IMAGES/new" unix:socket
	migtool_start recv recv --connect --delta unix:socket copy
	migtool_wait send
	migtool_wait recv
	cmp "$IMAGES/new" copy
	assert_agreed
}

@test "memory that changes while it is sent" {
	make_image mixed --size 4 guest
	"$TOOLS/dirty_rounds.py" guest pc.ram 0 0x400000 dirty
	cp guest copy
	run_pair unix:socket "$PWD/guest" copy --x-replay-dirty dirty.rounds -- --delta
	cmp dirty.ram copy
	assert_agreed
	cp guest copy
	run_pair unix:socket "$PWD/guest" copy --cap xbzrle --x-replay-dirty dirty.rounds -- --delta
	cmp dirty.ram copy
	assert_agreed
}

@test "where nothing comes back all travels, and a warning says so" {
	cp "$IMAGES/old" copy
	mkfifo stream
	migtool_start recv recv --delta file:stream copy
	"$MIGTOOL" send -q "$IMAGES/new" file:stream
	migtool_wait recv
	cmp "$IMAGES/new" copy
	grep -q "warning: --delta: the source cannot compare digests" recv.err
}

@test "--base in place: the deltas go into the old copy itself" {
	cp "$IMAGES/old" copy
	before=$(stat -c %i copy)
	run_pair unix:socket "$IMAGES/new" copy --cap xbzrle --base "$IMAGES/old" -- --delta --in-place
	cmp "$IMAGES/new" copy
	[ "$(stat -c %i copy)" = "$before" ]
	assert_json send '."xbzrle-cache".pages > 20'
	assert_agreed
}

@test "--base that is not what the destination has: refused before any page, in place too" {
	local how
	for how in "" --in-place; do
		cp "$IMAGES/new" copy
		# shellcheck disable=SC2086
		run_refused 13 "the destination's old copy" "$IMAGES/old" --cap xbzrle \
			--base "$IMAGES/old" -- --delta $how
		cmp "$IMAGES/new" copy
	done
}

differs() { # FILE FILE
	! cmp -s "$1" "$2"
}

@test "a transfer that fails leaves the old copy as it was; in place it says what became of it" {
	make_image random --seed 7 --size 32 new
	cp "$IMAGES/old" copy
	listener_start recv recv --delta unix:socket copy
	migtool_start send send --bwlimit 4M "$PWD/new" unix:socket
	wait_until test -e copy.part
	kill -INT "${PEER_PIDS[send]}"
	migtool_wait send 20
	wait_for_end recv && return 1
	cmp "$IMAGES/old" copy
	[ ! -e copy.part ]
	listener_start recv recv --delta --in-place unix:socket copy
	migtool_start send send --bwlimit 4M "$PWD/new" unix:socket
	wait_until differs "$IMAGES/old" copy
	kill -INT "${PEER_PIDS[send]}"
	migtool_wait send 20
	wait_for_end recv && return 1
	grep -q "copy is neither what it was nor what was to come" recv.err
	run_pair unix:socket "$PWD/new" copy --resume -- --resume --in-place
	cmp new copy
	assert_agreed
	[ ! -e copy.part.session ]
}

@test "a copy that is cancelled while it is read ends at once" {
	SHM=$(mktemp -d /dev/shm/migtool.XXXXXX)
	cp "$IMAGES/old" "$SHM/copy"
	truncate -s 64G "$SHM/copy"
	truncate -s 64G new
	listener_start recv recv --delta unix:socket "$SHM/copy"
	migtool_start send send new unix:socket
	kill -INT "${PEER_PIDS[recv]}"
	wait_for_end recv 10 || [ "$?" -eq 20 ]
	wait_for_end send 10 || true
}
