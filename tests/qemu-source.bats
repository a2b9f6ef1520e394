#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later
# `migtool recv` of what a real QEMU sends. pc.ram has to be what QEMU's monitor shows of the stopped
# guest. For all else a second stream of the same guest is needed, which the independent reader takes
# apart. QEMU refuses a second migration after one has completed, so there are two ways:
#  - `cont` and `stop`, then it may migrate again: memory has changed, the firmware's blocks have not;
#  - a stopped guest's stream, captured first, is loaded into a new QEMU, which sends it to migtool:
#    nothing has run in between, every byte has to be the same.

bats_require_minimum_version 1.5.0
load qemu

setup_file() {
	qemu_build_guest
	# shellcheck disable=SC2034
	PEER_DIR=$BATS_FILE_TMPDIR
	cd "$BATS_FILE_TMPDIR" || return
	qemu_start src
	qemu_wait_tick src 5
	qemu_qmp src stop
	qemu_migrate src "exec:cat > stopped.stream"
	qemu_wait_status src completed
	qemu_stop src
	"$TOOLS/qemu_stream.py" --out stopped stopped.stream >stopped.json
}

setup() {
	cd "$BATS_TEST_TMPDIR" || return
}

teardown() {
	peer_teardown
}

start_guest() { # [ARG]...
	qemu_start src "$@"
	qemu_wait_tick src 3
}

# The guest that setup_file has stopped, still stopped, ready to migrate.
start_stopped_guest() {
	qemu_start_incoming src "exec:cat $BATS_FILE_TMPDIR/stopped.stream"
	qemu_qmp src wait-run paused >/dev/null
}

# migrate_to_end URI [SETTING]...: until QEMU says that it is done.
migrate_to_end() {
	qemu_migrate src "$@"
	qemu_wait_status src completed
}

# Slow enough that RAM is scanned several times over, then fast, so that it ends.
migrate_in_rounds() { # URI [SETTING]...
	qemu_migrate src "$@" max-bandwidth=6000000 downtime-limit=1
	qemu_qmp src wait-field dirty-sync-count 6
	qemu_qmp src resettings max-bandwidth=1000000000 downtime-limit=2000
	qemu_wait_status src completed
}

# The image is what the guest was when it stopped. QEMU is in postmigrate.
assert_image_is_guest() { # IMAGE
	rm -rf ram again
	qemu_save_ram src ram
	cmp ram "$1/ram/pc.ram"
	qemu_qmp src cont
	qemu_qmp src stop
	qemu_clear_capabilities src
	migrate_to_end "exec:cat > again.stream"
	"$TOOLS/qemu_stream.py" --out again again.stream >again.json
	assert_same_image "$1" again --except pc.ram
	[ -s "$1/device-state" ]
}

assert_nothing_left() { # IMAGE
	[ ! -e "$1" ] && [ ! -e "$1.part" ]
}

@test "a running guest arrives over tcp" {
	start_guest
	recv_start recv tcp:127.0.0.1:0 image
	migrate_to_end "$RECV_URI"
	recv_wait recv
	assert_image_is_guest image
	[ "$(jq -r .status recv.json)" = completed ]
	[ "$(jq .ram.normal recv.json)" -gt 500 ]
	[ "$(jq .ram.duplicate recv.json)" -gt 500 ]
}

@test "a running guest arrives over a UNIX socket, in several rounds" {
	start_guest
	recv_start recv unix:socket image
	migrate_in_rounds unix:socket
	recv_wait recv
	assert_image_is_guest image
}

@test "a stopped guest arrives whole: every block and the device state to the byte" {
	start_stopped_guest
	recv_start recv unix:socket image
	migrate_to_end unix:socket
	recv_wait recv
	assert_same_image image "$BATS_FILE_TMPDIR/stopped"
	cmp image/device-state "$BATS_FILE_TMPDIR/stopped/device-state"
}

@test "the manifest says what QEMU said: machine, blocks, run state, source" {
	start_stopped_guest
	recv_start recv unix:socket image
	migrate_to_end unix:socket
	recv_wait recv
	jq -S '[.blocks[] | {name, size}] | sort' image/manifest.json >blocks
	jq -S '[.blocks[] | {name, size}] | sort' "$BATS_FILE_TMPDIR/stopped.json" | cmp - blocks
	[ "$(jq -r .machine image/manifest.json)" = pc-i440fx-7.2 ]
	[ "$(jq -r .source image/manifest.json)" = qemu ]
	[ "$(jq -r '."run-state"' image/manifest.json)" = paused ]
	[ "$(jq '."page-size"' image/manifest.json)" = 4096 ]
	[ "$(jq '."device-state".size' image/manifest.json)" = "$(stat -c %s image/device-state)" ]
}

@test "the image is as sparse as the guest's memory" {
	start_stopped_guest
	recv_start recv unix:socket image
	migrate_to_end unix:socket
	recv_wait recv
	[ "$(stat -c %s image/ram/pc.ram)" = $((GUEST_MIB << 20)) ]
	[ "$(data_bytes image/ram/pc.ram)" = "$(data_bytes "$BATS_FILE_TMPDIR/stopped/ram/pc.ram")" ]
}

@test "a guest arrives through commands on both sides" {
	start_guest
	mkfifo pipe
	recv_start recv "exec:cat pipe" image
	migrate_to_end "exec:cat > pipe"
	recv_wait recv
	assert_image_is_guest image
}

@test "a guest arrives in a migtool that QEMU starts, with a return path" {
	start_guest
	migrate_to_end "exec:$MIGTOOL recv stdio: $PWD/image 2>$PWD/recv.err" return-path
	assert_image_is_guest image
}

@test "a guest arrives through a pipe that both inherit" {
	start_guest
	mkfifo pipe
	exec 7<>pipe # so that neither end has to wait for the other to be opened
	recv_start recv fd:8 image 8<pipe 7>&-
	# shellcheck disable=SC2094
	qemu_qmp src getfd pipe 8 8>pipe
	exec 7>&-
	migrate_to_end fd:pipe
	recv_wait recv
	assert_image_is_guest image
}

@test "with a return path QEMU learns that the guest has arrived" {
	start_guest
	recv_start recv unix:socket image
	migrate_to_end unix:socket return-path
	recv_wait recv
	assert_image_is_guest image
}

@test "a receiver that is interrupted leaves nothing, and the guest goes on" {
	local settings
	start_guest
	for settings in "" return-path; do
		recv_start recv unix:socket image
		# shellcheck disable=SC2086
		qemu_migrate src unix:socket $settings max-bandwidth=1000000
		qemu_qmp src wait-field transferred 500000
		kill -INT "${PEER_PIDS[recv]}"
		recv_wait recv 20
		assert_nothing_left image
		qemu_wait_status src failed
		qemu_wait_tick src $(($(qemu_serial_last_tick src) + 5))
		qemu_clear_capabilities src
		rm -f socket
	done
}

@test "a migration that is cancelled in the middle leaves nothing, and the guest goes on" {
	start_guest
	recv_start recv unix:socket image
	qemu_migrate src unix:socket max-bandwidth=1000000
	qemu_qmp src wait-field transferred 500000
	qemu_qmp src cancel
	recv_wait recv 10
	assert_nothing_left image
	qemu_wait_status src cancelled
	qemu_wait_tick src $(($(qemu_serial_last_tick src) + 5))
}

@test "a multifd migration that is cancelled in the middle leaves nothing" {
	start_guest
	recv_start recv unix:socket image --cap multifd --param multifd-channels=2
	# it sends a packet every 100 ms, whatever its size and the bandwidth; this end it cannot reach
	qemu_migrate src unix:socket multifd multifd-channels=2 max-bandwidth=2000000 \
		pause-before-switchover
	qemu_qmp src wait-field transferred 500000
	qemu_qmp src cancel
	recv_wait recv 10
	assert_nothing_left image
}

@test "xbzrle: deltas of several rounds make the memory that the guest has" {
	start_guest
	recv_start recv unix:socket image
	migrate_in_rounds unix:socket xbzrle
	recv_wait recv
	[ "$(jq '."xbzrle-cache".pages' src.migration)" -gt 100 ]
	assert_image_is_guest image
}

@test "compress: pages in any order make the memory that the guest has" {
	start_guest
	recv_start recv unix:socket image --cap compress
	migrate_to_end unix:socket compress compress-threads=2
	recv_wait recv
	[ "$(jq .compression.pages src.migration)" -gt 500 ]
	assert_image_is_guest image
}

@test "compress and xbzrle together, with a return path" {
	start_guest
	recv_start recv unix:socket image --cap compress
	migrate_in_rounds unix:socket compress compress-threads=2 xbzrle return-path
	recv_wait recv
	[ "$(jq '."xbzrle-cache".pages' src.migration)" -gt 100 ]
	assert_image_is_guest image
}

multifd_in_all_widths() { # METHOD
	local channels
	start_guest
	for channels in 1 2 4; do
		recv_start recv unix:socket "image$channels" --cap multifd \
			--param "multifd-channels=$channels"
		migrate_to_end unix:socket multifd "multifd-channels=$channels" \
			"multifd-compression=$1"
		recv_wait recv
		[ "$(jq '.ram."multifd-bytes"' src.migration)" -gt 1000000 ]
		assert_image_is_guest "image$channels"
		qemu_qmp src cont
		rm -f socket
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

@test "multifd over tcp, in several rounds, with a return path; its channels tell the uuid" {
	start_guest -uuid 12345678-9abc-def0-0123-456789abcdef
	recv_start recv tcp:127.0.0.1:0 image --cap multifd --param multifd-channels=2
	migrate_in_rounds "$RECV_URI" multifd multifd-channels=2 multifd-compression=zstd return-path
	recv_wait recv
	assert_image_is_guest image
	[ "$(jq -r .uuid image/manifest.json)" = 12345678-9abc-def0-0123-456789abcdef ]
}

@test "channels that recv was not told of end in a message with the flags to add" {
	start_guest
	recv_start recv unix:socket image --timeout 2
	qemu_migrate src unix:socket multifd multifd-channels=2
	run ! wait_for_end recv
	[[ $(cat recv.err) == *"--cap multifd=on --param multifd-channels="* ]]
	assert_nothing_left image
}

@test "a method that recv was told, and that is not QEMU's, is refused" {
	start_guest
	recv_start recv unix:socket image --cap multifd --param multifd-compression=zlib
	qemu_migrate src unix:socket multifd multifd-compression=zstd
	recv_wait recv 12
	[[ $(cat recv.err) == *"multifd-compression"* ]]
	assert_nothing_left image
}

@test "validate-uuid: the manifest has the guest's uuid" {
	start_guest -uuid 12345678-9abc-def0-0123-456789abcdef
	recv_start recv unix:socket image
	migrate_to_end unix:socket validate-uuid
	recv_wait recv
	[ "$(jq -r .uuid image/manifest.json)" = 12345678-9abc-def0-0123-456789abcdef ]
}

# RAM in a file that another QEMU can map.
start_shared_guest() {
	start_guest -object "memory-backend-file,id=m0,size=${GUEST_MIB}M,mem-path=m0,share=on" \
		-machine memory-backend=m0
}

@test "x-ignore-shared: shared memory does not travel, and the image says so" {
	start_shared_guest
	recv_start recv unix:socket image --cap x-ignore-shared
	migrate_to_end unix:socket x-ignore-shared
	recv_wait recv
	[ "$(jq -r '.blocks[] | select(.shared) | .name' image/manifest.json)" = m0 ]
	[ "$(jq '[.blocks[] | select(.gpa)] | length' image/manifest.json)" = 6 ]
	[ "$(data_bytes image/ram/m0)" = 0 ]
	# and nobody takes it for a guest's memory that is all zero
	run -4 "$MIGTOOL" send --peer qemu image null:
	[[ $output == *m0* ]]
	run -4 "$MIGTOOL" send --peer migtool image null:
	[[ $output == *m0* ]]
}

@test "x-ignore-shared on one side alone is refused; the guest goes on, and recv listens on" {
	start_shared_guest
	recv_start recv unix:socket image
	qemu_migrate src unix:socket x-ignore-shared return-path
	qemu_wait_status src failed
	[[ $(cat recv.err) == *"--cap x-ignore-shared=on"* ]]
	qemu_wait_tick src $(($(qemu_serial_last_tick src) + 5))
	# Without return-path QEMU 7.2 would still open one, after a failure, and then not listen.
	qemu_clear_capabilities src
	migrate_to_end unix:socket return-path
	recv_wait recv
	qemu_save_ram src ram
	cmp ram image/ram/m0
}

@test "a Linux guest arrives, with a file in its memory, over multifd with zstd" {
	GUEST_MIB=256
	"$BATS_TEST_DIRNAME/guest/make-linux" linux
	qemu_run src -machine pc,accel=tcg -m 256 -kernel linux/vmlinuz -initrd linux/initramfs \
		-append "console=ttyS0 quiet no_timer_check fill=64"
	qemu_wait_tick src 1
	qemu_qmp src stop
	recv_start recv unix:socket image --cap multifd --param multifd-channels=2
	migrate_to_end unix:socket multifd multifd-channels=2 multifd-compression=zstd return-path \
		max-bandwidth=0
	recv_wait recv
	qemu_save_ram src ram
	cmp ram image/ram/pc.ram
}
