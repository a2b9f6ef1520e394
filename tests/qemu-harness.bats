#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later
# What the tests with QEMU stand on: the guest, the reader of QEMU's streams, QEMU itself. When one
# of these fails, what qemu-source.bats and qemu-destination.bats say is worth nothing.

bats_require_minimum_version 1.5.0
load qemu

setup_file() {
	qemu_build_guest
}

setup() {
	cd "$BATS_TEST_TMPDIR" || return
}

teardown() {
	peer_teardown
}

# Slow enough that RAM is scanned several times over, then fast, so that it ends.
several_rounds() {
	qemu_migrate src "$@" max-bandwidth=6000000 downtime-limit=1
	qemu_qmp src wait-field dirty-sync-count 6
	qemu_qmp src resettings max-bandwidth=1000000000 downtime-limit=2000
	qemu_wait_status src completed
}

# records KIND: how many the stream had.
records() {
	jq ".records.$1" summary
}

@test "QEMU's plain stream of a running guest makes the memory that pmemsave shows" {
	qemu_start src
	qemu_wait_tick src 3
	qemu_migrate src "exec:cat > stream"
	qemu_wait_status src completed
	"$TOOLS/qemu_stream.py" --out image stream >summary
	qemu_save_ram src ram
	cmp ram image/ram/pc.ram
	[ "$(records page)" -gt 500 ] && [ "$(records zero)" -gt 500 ]
}

@test "QEMU's xbzrle stream of several rounds makes the memory that pmemsave shows" {
	qemu_start src
	qemu_wait_tick src 3
	several_rounds "exec:cat > stream" xbzrle
	"$TOOLS/qemu_stream.py" --out image stream >summary
	qemu_save_ram src ram
	cmp ram image/ram/pc.ram
	[ "$(records xbzrle)" -gt 100 ] && [ "$(jq .rounds summary)" -ge 4 ]
}

@test "QEMU's compress stream makes the memory that pmemsave shows" {
	qemu_start src
	qemu_wait_tick src 3
	qemu_migrate src "exec:cat > stream" compress
	qemu_wait_status src completed
	"$TOOLS/qemu_stream.py" --out image stream >summary
	qemu_save_ram src ram
	cmp ram image/ram/pc.ram
	[ "$(records compress)" -gt 500 ]
}

@test "QEMU's multifd channels make the memory that pmemsave shows, whatever the method" {
	local method
	qemu_start src
	qemu_wait_tick src 3
	for method in none zlib zstd; do
		"$TOOLS/capture.py" socket "$method" 2 3>&- &
		peer_started capture
		wait_until test -S socket
		qemu_migrate src unix:socket multifd multifd-channels=2 "multifd-compression=$method"
		qemu_wait_status src completed
		wait_for_end capture
		rm socket
		"$TOOLS/qemu_stream.py" --out image --channel "$method/channel-0" \
			--channel "$method/channel-1" "$method/main" >summary
		qemu_save_ram src ram
		cmp ram image/ram/pc.ram
		[ "$(jq '."multifd-pages"' summary)" -gt 500 ]
		[ "$(jq -c '."multifd-methods" | unique' summary)" = "[\"$method\"]" ]
		qemu_qmp src cont
	done
}

@test "the reader refuses a stream that ends early, wherever that is" {
	qemu_start src -S
	qemu_migrate src "exec:cat > stream"
	qemu_wait_status src completed
	"$TOOLS/qemu_stream.py" stream >summary
	local size cut
	size=$(stat -c %s stream)
	for cut in 1 7 20 60 200 5000 300000 $((size - 1)) $((size - 50000)); do
		head -c "$cut" stream >short
		run ! "$TOOLS/qemu_stream.py" short
		[[ $output == *"ends early"* ]]
	done
}

@test "each golden stream makes the blocks that are described beside it" {
	local json name channel args
	for json in "$BATS_TEST_DIRNAME"/golden/*.json; do
		name=$(basename "$json" .json) args=()
		if [ -e "$BATS_TEST_DIRNAME/golden/$name.main.stream.zst" ]; then
			for channel in 0 1; do
				zstd -dcq "$BATS_TEST_DIRNAME/golden/$name.channel-$channel.stream.zst" >"$channel"
				args+=(--channel "$channel")
			done
			zstd -dcq "$BATS_TEST_DIRNAME/golden/$name.main.stream.zst" >stream
		else
			zstd -dcq "$BATS_TEST_DIRNAME/golden/$name.stream.zst" >stream
		fi
		"$TOOLS/qemu_stream.py" "${args[@]}" stream >summary
		cmp summary "$json"
	done
}

@test "a guest goes on in another QEMU where it stopped" {
	qemu_start src
	qemu_start_incoming dst unix:socket
	qemu_wait_tick src 3
	qemu_qmp dst status
	qemu_migrate src unix:socket
	qemu_wait_status src completed
	qemu_wait_tick dst $(($(qemu_serial_last_tick src) + 5))
	assert_guest_went_on src.serial dst.serial
}

@test "a guest whose memory changed on the way says so" {
	qemu_start src
	qemu_wait_tick src 3
	qemu_migrate src "exec:cat > stream"
	qemu_wait_status src completed
	# Page 0x180000 is part of the pattern: its record is 8 bytes, offset and flags, then the page.
	python3 - <<-END
		data = bytearray(open("stream", "rb").read())
		at = data.find((0x180000 | 0x28).to_bytes(8, "big"))
		assert at > 0
		data[at + 100] ^= 1
		open("stream", "wb").write(data)
	END
	qemu_start_incoming dst "exec:cat stream"
	qemu_wait_tick dst $(($(qemu_serial_last_tick src) + 20))
	run ! assert_guest_went_on src.serial dst.serial
	[[ $output == *bad* ]]
}
