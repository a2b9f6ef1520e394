#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later
# Disks that are full, files that change, users that press Ctrl-C, processes that are killed. What has
# to be true afterwards is in assert_clean. $SEED chooses the moments.

# shellcheck disable=SC2030,SC2031 # each test has its own INSIDE

bats_require_minimum_version 1.5.0
load helper

setup_file() {
	export IMAGES=$BATS_FILE_TMPDIR
	make_image random --size 4 "$IMAGES/random"
	make_image directory --size 4 "$IMAGES/directory"
}

setup() {
	cd "$BATS_TEST_TMPDIR" || return
	RANDOM=${SEED:-1}
}

teardown() {
	peer_teardown
}

# start_slow TENTHS URI IMAGE COPY [SEND-OPTION]... [-- RECV-OPTION...]: the processes recv and send,
# of a transfer that takes about so many tenths of a second.
start_slow() {
	local tenths=$1 uri=$2 image=$3 copy=$4 BEFORE BEHIND bytes
	split_options "${@:5}"
	bytes=$(du -sB1 "$image" | cut -f 1)
	recv_start recv "$uri" "$copy" "${BEHIND[@]}"
	migtool_start send send --bwlimit $((bytes * 10 / tenths)) "${BEFORE[@]}" "$image" "$RECV_URI"
}

# ---- disks ----

@test "a full disk ends it with the same reason at both ends, and nothing is left there" {
	local options
	mkdir disk
	mount_private disk -t tmpfs -o size=2M none
	for options in "" "--cap multifd" "--cap multifd --param multifd-compression=zstd" \
		"--cap compress" "--bwlimit 20M"; do
		recv_start recv unix:socket disk/copy
		# shellcheck disable=SC2086
		migtool_start send send $options "$IMAGES/random" "$RECV_URI"
		migtool_wait recv 11
		migtool_wait send 11
		assert_error recv "no space left on the device"
		assert_error send "the destination failed: "
		assert_error send "no space left on the device"
		assert_json send '.owner == "source"' '."error-code" == "file"'
		assert_nothing disk/copy
	done
	recv_start recv unix:socket disk/copy
	migtool_start send send "$IMAGES/directory" "$RECV_URI"
	migtool_wait recv 11
	migtool_wait send 11
	assert_nothing disk/copy
	# memory that fits, and a device state that does not
	make_image holes --size 1 small
	make_image random --size 3 state
	recv_start recv unix:socket disk/copy/
	migtool_start send send --device-state state small "$RECV_URI"
	migtool_wait recv 11
	migtool_wait send 11
	assert_error send "device-state"
	assert_nothing disk/copy
	# a stream in a file
	migtool_start send send "$IMAGES/random" file:disk/stream
	migtool_wait send 11
	assert_error send "No space left"
	assert_nothing disk/stream
	[ -z "$("${INSIDE[@]}" ls disk)" ]
}

@test "a read-only destination is refused before anybody is waited for" {
	mkdir disk
	mount_private disk -t tmpfs -o ro none
	migtool_start recv recv unix:socket disk/copy
	migtool_wait recv 11
	assert_error recv "cannot create disk/copy.part: Read-only file system"
	[ ! -e socket ]
	INSIDE=()
	migtool_start recv recv unix:socket no/such/directory/copy
	migtool_wait recv 11
	migtool_start recv recv unix:socket /dev/null
	migtool_wait recv 4
	migtool_start send send no-such-image unix:socket
	migtool_wait send 11
	touch empty
	migtool_start send send empty unix:socket
	migtool_wait send 4
	truncate -s 4095 odd
	migtool_start send send odd unix:socket
	migtool_wait send 4
	assert_error send "odd has 4095 bytes, no multiple of the page of 4096"
}

@test "huge pages: to hugetlbfs, from there, and too few of them" {
	huge_pages 4
	mkdir huge
	mount_private huge -t hugetlbfs -o pagesize=2M,size=8M none
	run_pair unix:socket "$IMAGES/random" huge/copy
	"${INSIDE[@]}" cmp "$IMAGES/random" huge/copy
	assert_agreed
	run_pair unix:socket huge/copy copy --cap multifd
	cmp "$IMAGES/random" copy
	assert_agreed
	make_image random --size 6 more
	recv_start recv unix:socket huge/more
	migtool_start send send more "$RECV_URI"
	migtool_wait recv 11
	migtool_wait send 11
	assert_error send "no huge pages left"
	assert_nothing huge/more
}

# ---- files ----

@test "an image that shrinks, grows or changes while it is sent is status 4, and nothing arrives" {
	local how options
	for how in shrink grow write replace; do
		for options in "" "--cap multifd" "--cap compress"; do
			cp "$IMAGES/random" image
			# shellcheck disable=SC2086
			start_slow 12 unix:socket image copy $options
			wait_for_data copy.part
			case $how in
			shrink) truncate -s 1M image ;;
			grow) truncate -s 5M image ;;
			write) printf x | dd of=image bs=1 seek=100 conv=notrunc status=none ;;
			replace) cp image image2 && mv image2 image ;;
			esac
			migtool_wait send 4
			assert_error send "image changed while it was read"
			wait_for_end recv && return 1
			[ "$how" = shrink ] || {
				assert_error recv "the source failed: "
				assert_error recv "image changed while it was read"
			}
			assert_json recv '.owner == "source"'
			assert_nothing copy
		done
	done
}

@test "somebody makes IMAGE meanwhile: it stays, and what is complete is kept beside it" {
	start_slow 12 unix:socket "$IMAGES/random" copy
	wait_for_data copy.part
	echo precious >copy
	migtool_wait recv 50
	migtool_wait send 50
	assert_error recv "the memory is ours and complete, but"
	assert_error send "somebody made that meanwhile"
	grep -q "hint: .*copy.part" recv.err
	[ "$(cat copy)" = precious ]
	cmp "$IMAGES/random" copy.part
	assert_json recv '.owner == "destination"'
}

@test "two recvs cannot write the same IMAGE, a leftover of a dead one is in nobody's way" {
	start_slow 100 unix:socket "$IMAGES/random" copy
	wait_for_data copy.part
	migtool_start other recv unix:other copy
	migtool_wait other 11
	assert_error other "copy.part is being written by another migtool"
	kill -KILL "${PEER_PIDS[recv]}"
	wait_for_end recv || true
	migtool_wait send 10
	[ -e copy.part ]
	run_pair unix:socket "$IMAGES/random" copy
	cmp "$IMAGES/random" copy
	[ ! -e copy.part ]
}

# ---- signals ----

# After a transfer that somebody ended: either all is there and both know it, or nothing is, or the
# only moment is hit in which nobody knows.
assert_clean() { # SEND-STATUS RECV-STATUS IMAGE COPY
	local what="send ended with $1, recv with $2"
	if [ "$2" -eq 0 ]; then
		assert_same_image "$3" "$4" || { echo "$what"; return 1; }
		# a source that was killed (128 and more) has no status of its own
		[ "$1" -eq 0 ] || [ "$1" -eq 50 ] || [ "$1" -ge 128 ] || { echo "$what"; return 1; }
	elif [ "$2" -eq 50 ]; then
		assert_same_image "$3" "$4.part" || { echo "$what"; return 1; }
		rm -r "$4.part"
	elif [ "$1" -eq 0 ] && { [ "$2" -lt 128 ] || [ ! -e "$4" ]; }; then
		echo "$what"
		return 1
	fi
	if [ "$2" -ge 128 ] && [ -e "$4" ]; then # killed when all was done
		assert_same_image "$3" "$4" || { echo "$what"; return 1; }
	elif [ "$2" -ne 0 ]; then
		assert_nothing "$4" || { echo "$what"; return 1; }
	fi
	[ ! -e "$4.part" ]
}

# A source that was ended before its greeting was read is nobody, and recv goes on listening for
# another. Does it? A recv that was greeted has a copy.part, or ends by itself.
still_listens() {
	local i
	for ((i = 0; i < 50; i++)); do
		kill -0 "${PEER_PIDS[recv]}" 2>/dev/null && [ ! -e copy.part ] && [ ! -e copy ] &&
			tail -n 1 "$PEER_DIR/recv.err" | grep -qE 'listening on|dropped the connection' || return 1
		sleep 0.02
	done
}

# interrupt SIGNAL VICTIM OPTIONS: at some moment of a transfer, or shortly after it.
interrupt() {
	local signal=$1 victim=$2 options=$3 one=0 other=0
	rm -rf copy socket
	# shellcheck disable=SC2086
	start_slow 6 unix:socket "$IMAGES/directory" copy $options
	sleep "$(awk -v r=$RANDOM 'BEGIN { print r / 32768 * 0.8 }')"
	kill -"$signal" "${PEER_PIDS[$victim]}" 2>/dev/null || true
	wait_for_end send 10 || one=$?
	if [ "$victim" = send ] && still_listens; then
		kill "${PEER_PIDS[recv]}"
		wait_for_end recv 10 || [ $? -ne 255 ] || return 1
		assert_nothing copy
		return
	fi
	wait_for_end recv 10 || other=$?
	[ "$one" -lt 128 ] || [ "$victim" = send ] || return 1
	[ "$other" -lt 128 ] || [ "$victim" = recv ] || return 1
	[ "$signal" = KILL ] && [ "$other" -ge 128 ] && rm -rf copy.part
	assert_clean "$one" "$other" "$IMAGES/directory" copy || {
		echo "$signal for $victim, $options"
		return 1
	}
}

# interrupt_often SIGNAL VICTIM
interrupt_often() {
	local options
	for options in "" "--cap multifd" "" "--cap compress" "--cap multifd --param multifd-compression=zlib"; do
		interrupt "$1" "$2" "$options"
	done
}

@test "SIGINT for the source at any time" {
	interrupt_often INT send
}

@test "SIGINT for the destination at any time" {
	interrupt_often INT recv
}

@test "SIGTERM and SIGHUP for either side at any time" {
	interrupt TERM send ""
	interrupt HUP recv ""
	interrupt HUP send "--cap multifd"
	interrupt TERM recv "--cap multifd"
}

@test "SIGKILL for the source at any time" {
	interrupt_often KILL send
}

@test "SIGKILL for the destination at any time" {
	interrupt_often KILL recv
}

@test "a cancelled end tells the other one why" {
	start_slow 100 unix:socket "$IMAGES/random" copy
	wait_for_data copy.part
	kill -INT "${PEER_PIDS[recv]}"
	migtool_wait recv 20
	migtool_wait send 20
	assert_error recv "cancelled by SIGINT"
	assert_error send "the destination failed: cancelled by SIGINT"
	assert_nothing copy
	assert_json recv '.status == "cancelled"'
	start_slow 100 unix:socket "$IMAGES/random" copy
	wait_for_data copy.part
	kill -INT "${PEER_PIDS[send]}"
	migtool_wait send 20
	migtool_wait recv 20
	assert_error recv "the source failed: cancelled by SIGINT"
	assert_nothing copy
	assert_json send '.status == "cancelled"' '.owner == "source"'
}

# Where the pacer holds it up is in the middle of a batch of pages.
@test "a source that is cancelled in the middle of its memory tells why" {
	local options
	for options in "" "--cap compress" "" "--cap multifd" "--cap multifd --param multifd-compression=zstd" ""; do
		# shellcheck disable=SC2086
		start_slow 100 unix:socket "$IMAGES/directory" copy $options
		wait_for_data copy.part
		sleep "0.0$((RANDOM % 10))"
		kill -INT "${PEER_PIDS[send]}"
		migtool_wait send 20
		migtool_wait recv 20
		assert_error recv "the source failed: cancelled by SIGINT"
		assert_nothing copy
	done
}

@test "a peer that is stopped is given up after --timeout, by either side" {
	start_slow 100 unix:socket "$IMAGES/random" copy -- --timeout 1
	wait_for_data copy.part
	kill -STOP "${PEER_PIDS[send]}"
	migtool_wait recv 30
	assert_error recv "nothing moved either way for 1 s"
	assert_nothing copy
	kill -KILL "${PEER_PIDS[send]}"
	wait_for_end send || true
	start_slow 100 unix:socket "$IMAGES/random" copy --timeout 1
	wait_for_data copy.part
	kill -STOP "${PEER_PIDS[recv]}"
	migtool_wait send 30
	assert_error send "nothing moved either way for 1 s"
	kill -KILL "${PEER_PIDS[recv]}"
	wait_for_end recv || true
}

@test "SIGINT while nobody is there yet" {
	recv_start recv unix:socket copy
	kill -INT "${PEER_PIDS[recv]}"
	migtool_wait recv 20
	[ ! -e socket ]
	mkfifo stream
	migtool_start send send "$IMAGES/random" file:stream
	listener_start other send --listen "$IMAGES/random" unix:socket
	kill -INT "${PEER_PIDS[other]}"
	migtool_wait other 20
	[ ! -e socket ]
	kill -INT "${PEER_PIDS[send]}"
	migtool_wait send 20
}

@test "nobody to connect to is status 35, a wait for one that has a limit ends" {
	migtool_start send send "$IMAGES/random" tcp:127.0.0.1:1
	migtool_wait send 35
	assert_error send "cannot connect to tcp:127.0.0.1:1"
	migtool_start send send "$IMAGES/random" unix:no-such-socket
	migtool_wait send 35
	migtool_start recv recv --timeout 1 unix:socket copy
	migtool_wait recv 30
	assert_error recv "no source came within 1 s"
	[ ! -e socket ] && [ ! -e copy.part ]
}

@test "COMMAND is not started when the transfer fails, and one that cannot start is said" {
	listener_start recv recv unix:socket copy -- touch ran
	migtool_start send send --bwlimit 1M "$IMAGES/random" unix:socket
	wait_for_data copy.part
	kill -INT "${PEER_PIDS[send]}"
	wait_for_end send || true
	wait_for_end recv && return 1
	[ ! -e ran ]
	listener_start recv recv unix:socket copy -- ./no-such-command
	migtool_start send send "$IMAGES/random" unix:socket
	migtool_wait send 0
	migtool_wait recv 51
	cmp "$IMAGES/random" copy
	grep -q "no-such-command" recv.err
}

@test "a command behind exec: does not outlive a transfer that ends early" {
	local side pid
	for side in send recv; do
		rm -f child
		if [ $side = send ]; then
			migtool_start send send "$IMAGES/random" "exec:echo \$\$ >child; exec sleep 300"
		else
			migtool_start recv recv "exec:echo \$\$ >child; exec sleep 300" copy
		fi
		wait_for_file child
		pid=$(cat child)
		kill -0 "$pid"
		kill -INT "${PEER_PIDS[$side]}"
		migtool_wait $side 20
		run -1 kill -0 "$pid"
	done
	assert_nothing copy
}
