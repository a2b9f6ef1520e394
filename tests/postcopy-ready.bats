#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later
# What a guest whose memory is still on another host has before it is handed over: its device state.
# The guests are tests/guest/vmm.c and maps.c, which look at every page.

# shellcheck disable=SC2016,SC2030,SC2031,SC2154 # scripts for sh; what bats sets

bats_require_minimum_version 1.5.0
load helper

VMM=$(dirname "$MIGTOOL")/guest/vmm

setup_file() {
	export IMAGES=$BATS_FILE_TMPDIR
	guest_images 16 1500
	head -c 3000001 /dev/urandom >"$IMAGES/state"
	mkdir -p "$IMAGES/dir/ram"
	ln "$IMAGES/image" "$IMAGES/dir/ram/pc.ram"
	cp "$IMAGES/state" "$IMAGES/dir/device-state"
}

setup() {
	cd "$BATS_TEST_TMPDIR" || return
	guest_setup
	ln -s "$IMAGES"/* .
}

teardown() {
	exec 6>&-
	link_stop || true
	peer_teardown
	end_guest
	rm -r "$SHM"
}

# guest_recv [RECV-OPTION]... -- COMMAND...: a recv whose guest it is.
guest_recv() {
	local BEFORE BEHIND
	split_options "$@"
	listener_start recv recv --cap postcopy-ram --device-state dev "${BEFORE[@]}" tcp:127.0.0.1:0 "$C" -- \
		"${BEHIND[@]}"
}

# Nothing is left of a guest that was not handed over, and the source has its own.
stays_at_source() {
	assert_json send '.owner == "source"' '.complete == false'
	assert_json recv '.owner == "source"' '.complete == false'
	assert_nothing "$C" dev
}

vmm_start() { # [OPTION]...
	rm -f go
	mkfifo go
	exec 6<>go
	"$VMM" run "$@" socket 16 <go >vmm.out 2>vmm.err 3>&- 4>&- 6>&- &
	peer_started vmm
}

# The guest looks at all of its pages; none is wrong.
vmm_finish() {
	wait_for_line vmm.out touched
	echo >&6
	wait_for_end vmm
	grep -q '^4096 pages, 0 wrong, 0 zero$' vmm.out
}

# What a COMMAND does that survives recv; the pid is there for teardown.
LIVES='echo $$ >pid; cmp dev state && exec $G $C map check say=right sleep >out'

end_guest() {
	[ ! -s pid ] || kill -KILL "$(cat pid)" 2>/dev/null || true
	rm -f pid
}

has_state() {
	cmp dev state
	[ "$(stat -c %a dev)" = 600 ]
	[ ! -e dev.part ]
}

@test "COMMAND finds its device state, of a directory or of --device-state" {
	local from
	for from in dir "--device-state state image"; do
		rm -f dev out "$C"
		guest_recv -- sh -c "$LIVES"
		# shellcheck disable=SC2086 # words
		migtool_start send send --cap postcopy-ram $from "$RECV_URI"
		migtool_wait send
		migtool_wait recv
		assert_agreed
		wait_for_line out right
		has_state
		end_guest
	done
	rm -f dev "$C"
	guest_recv --push=off -- sh -c 'cmp dev state && $G $C map check; echo $? >status'
	migtool_start send send --cap postcopy-ram dir "$RECV_URI"
	migtool_wait send
	migtool_wait recv
	[ "$(cat status)" = 0 ]
	has_state
	assert_json send '.complete == false' '.owner == "destination"'
}

@test "an empty device state is one" {
	: >none
	guest_recv --push=off -- sh -c '[ -e dev ] && [ ! -s dev ] && $G $C map check; echo $? >status'
	migtool_start send send --cap postcopy-ram --device-state none image "$RECV_URI"
	migtool_wait send
	migtool_wait recv
	[ "$(cat status)" = 0 ]
}

@test "it is there before a VMM is waited for, with an IMAGE and without" {
	local image
	for image in "" kept; do
		rm -f dev socket
		# shellcheck disable=SC2086 # one word or none
		listener_start recv recv --uffd-socket socket --device-state dev unix:u $image
		migtool_start send send --cap postcopy-ram --device-state state guest "$RECV_URI"
		wait_until test -e dev
		cmp dev state
		vmm_start
		migtool_wait send
		migtool_wait recv
		assert_agreed
		vmm_finish
		[ -z "$image" ] || cmp guest kept
		has_state
	done
}

@test "what is not handed over leaves no device state behind" {
	# COMMAND has seen it, and ends
	guest_recv -- sh -c 'cmp dev state && exit 3'
	migtool_start send send --cap postcopy-ram dir "$RECV_URI"
	migtool_wait send 5
	migtool_wait recv 51
	assert_error send "ended with status 3"
	stays_at_source
	# the source is killed while COMMAND has it
	guest_recv -- sh -c 'cmp dev state && echo $$ >pid && exec sleep 1000'
	migtool_start send send --cap postcopy-ram dir "$RECV_URI"
	wait_for_file pid
	kill -KILL "${PEER_PIDS[send]}"
	migtool_wait send 137
	migtool_wait recv 10
	assert_json recv '.owner == "source"'
	wait_until eval '! kill -0 "$(cat pid)" 2>/dev/null || grep -q "State:.Z" "/proc/$(cat pid)/status"'
	assert_nothing "$C" dev
}

@test "a link that breaks in the device state, and once COMMAND has it: it gets the same" {
	listener_start recv recv --cap postcopy-ram --retry 5 --device-state dev tcp:127.0.0.1:0 "$C" -- \
		sh -c "echo x >>starts; $LIVES"
	# the second one is LISTENING
	link_start "${RECV_URI##*:}" 1000000:reset =400700000008:reset
	migtool_start send send --retry 5 --cap postcopy-ram dir "$LINK"
	migtool_wait send
	migtool_wait recv
	assert_agreed
	wait_for_line out right
	[ "$(wc -l <starts)" = 1 ]
	has_state
	end_guest
}

@test "a guest that waits for its memory is sent no device state again" {
	listener_start recv recv --retry 5 --uffd-socket socket --device-state dev tcp:127.0.0.1:0
	link_start "${RECV_URI##*:}" 8000000:reset
	vmm_start --regions 4
	migtool_start send send --retry 5 --cap postcopy-ram --device-state state guest "$LINK"
	migtool_wait send
	migtool_wait recv
	assert_json recv .complete '."digest-verified"' '."digest-scope" == "since-recovery"'
	assert_json send .complete '."digest-verified"'
	vmm_finish
	has_state
}

@test "a device state wants a place that is free, and both ends say so" {
	listener_start recv recv --cap postcopy-ram unix:u "$C" -- sh -c 'exit 3'
	migtool_start send send --cap postcopy-ram dir "$RECV_URI"
	migtool_wait send 5
	assert_error send "the guest here has to find it somewhere"
	grep -q 'hint: .*--device-state FILE' send.err
	grep -q 'has to find it somewhere.*listening on' recv.err
	kill "${PEER_PIDS[recv]}"
	migtool_wait recv 20
	echo mine >dev
	guest_recv -- sh -c 'exit 3'
	migtool_start send send --cap postcopy-ram dir "$RECV_URI"
	migtool_wait send 5
	grep -q 'listening on' recv.err
	kill "${PEER_PIDS[recv]}"
	migtool_wait recv 20
	[ "$(cat dev)" = mine ]
	rm -f "$C"
	guest_recv --force --push=off -- sh -c 'cmp dev state && $G $C map check; echo $? >status'
	migtool_start send send --cap postcopy-ram dir "$RECV_URI"
	migtool_wait send
	migtool_wait recv
	[ "$(cat status)" = 0 ]
}
