#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later
# A guest whose memory is still on another host, before it is handed over: its device state, and whether
# it is ready (switchover-ack).
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
	rm -f go vmm.out
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

# acked STATUS-OF-SEND STATUS-OF-RECV: both are at their end.
acked() {
	migtool_wait send "$1"
	migtool_wait recv "$2"
}

# send_ack [OPTION]...: a source that waits for the destination, and then for its user.
send_ack() {
	migtool_start send send --cap postcopy-ram --cap return-path --cap switchover-ack \
		--cap pause-before-switchover --cap events "$@"
}

ready_to_switch() {
	wait_for_line send.json '"pre-switchover"'
}

go_on() {
	kill -USR2 "${PEER_PIDS[send]}"
}

# ns WORD: when COMMAND has said that, by its own clock.
ns() {
	sed -n "s/^$1 //p" out
}

gone() { # PID: it has ended; nobody of ours may wait for it
	! grep -qs 'State:.[^Z]' "/proc/$1/status"
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
	wait_until gone "$(cat pid)"
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

# tries SCRIPT: a source of tests/tools/guest_peer.py that comes several times, to the one COMMAND. Its
# memory is of zeros.
tries() {
	rm -f dev out "$C" u starts
	listener_start recv recv --cap postcopy-ram --retry 5 --device-state dev unix:u "$C" -- \
		sh -c 'echo x >>starts; echo $$ >pid; exec $G $C map say=mapped sleep >out'
	"$TOOLS/guest_peer.py" source u "$1" >peer.out 2>peer.err </dev/null 3>&- 4>&-
	migtool_wait recv
	assert_json recv .complete '."digest-verified"'
	[ "$(wc -l <starts)" = 1 ]
	end_guest
}

@test "a guest that has begun with a device state, or without, is not given to a source that differs" {
	tries begun-with
	[ "$(cat dev)" = "what devices were" ]
	grep -q 'the guest here has begun with a device state, and the source sends none; listening on' recv.err
	tries begun-without
	[ ! -e dev ]
	grep -q 'the guest here has begun without a device state, and the source sends one; listening on' recv.err
}

@test "a try that broke had no device state, and the next one has: COMMAND gets it" {
	tries state-later
	[ "$(cat dev)" = "what devices were" ]
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

# guest_words WORD...: what COMMAND does, as the shell's last words. Its first page is the guest's first
# instruction.
guest_words() {
	echo "echo \$\$ >pid; exec \$G \$C $* >out"
}

# switches WORD...: COMMAND, which says that it is ready, does not run before the source's user has said that
# it may.
switches() {
	rm -f dev out "$C"
	guest_recv -v "${RECV[@]}" -- sh -c "$(guest_words "$@" check say=right sleep)"
	send_ack dir "$RECV_URI"
	ready_to_switch
	[ -n "$(ns ready)" ]
	wait_for_line recv.err "COMMAND says that it is ready"
	# what it waits for now is nobody's latency
	sleep 0.2
	local at end
	at=$("$G" image now=at)
	run -1 grep runs out
	go_on
	acked 0 0
	assert_agreed
	wait_for_line out right
	(($(ns runs) > ${at#at }))
	end=$("$G" image now=end)
	assert_json recv ".\"fault-latency\".max * 1000 <= ${end#end } - ${at#at }"
	end_guest
}

@test "switchover-ack: the source waits until COMMAND is ready, and COMMAND until the source is" {
	RECV=()
	switches map state=dev now=ready notify=READY=1 first now=runs
	switches state=dev now=ready notify=READY=1 map first now=runs
	switches private map state=dev now=ready notify=STATUS=loads notify=READY=1 first now=runs fork
	# by words of its own alone
	RECV=(--notify)
	switches map state=dev now=ready "'notify=STATUS=x
READY=1'" first now=runs
}

@test "a COMMAND that says nothing is ready when it waits for its first page" {
	guest_recv -v --push=off -- sh -c '$G $C map state=dev now=ready first now=runs check; echo $? >status' >out
	send_ack dir "$RECV_URI"
	ready_to_switch
	run -1 grep "says that it is ready" recv.err
	go_on
	acked 0 0
	[ "$(cat status)" = 0 ]
	# where it has to say it, nothing else counts
	rm -f dev out "$C"
	guest_recv --notify -- sh -c "$(guest_words map notify=STATUS=x first sleep)"
	send_ack dir "$RECV_URI"
	wait_for_line recv.err "waits for its memory and has not said READY=1"
	run -1 grep pre-switchover send.json
	kill "${PEER_PIDS[send]}"
	acked 20 10
	stays_at_source
	wait_until gone "$(cat pid)"
}

@test "without the capability --notify is for the time behind the pause" {
	guest_recv -v --notify -- sh -c "$(guest_words map state=dev now=ready notify=READY=1 first now=runs sleep)"
	migtool_start send send --cap postcopy-ram --cap pause-before-switchover --cap events dir "$RECV_URI"
	ready_to_switch
	[ ! -e out ]
	[ ! -e dev ]
	go_on
	acked 0 0
	wait_for_line recv.err "COMMAND says that it is ready"
	wait_for_line out runs
	(($(ns runs) > $(ns ready)))
	end_guest
	# without both it has no such socket
	rm -f dev "$C"
	guest_recv -- sh -c '[ -z "${NOTIFY_SOCKET+x}" ] && exit 4'
	migtool_start send send --cap postcopy-ram dir "$RECV_URI"
	acked 5 51
	assert_error recv "status 4"
}

@test "a COMMAND that ends before it is ready, or once it is, leaves the guest to the source" {
	guest_recv -- sh -c '$G $C map state=dev; exit 3'
	send_ack dir "$RECV_URI"
	acked 5 51
	assert_error send "ended with status 3"
	stays_at_source
	mkfifo go
	exec 6<>go
	guest_recv -- sh -c '$G $C map notify=READY=1 byte <go; exit 3'
	send_ack dir "$RECV_URI"
	ready_to_switch
	echo >&6
	acked 5 51
	assert_error recv "ended with status 3"
	stays_at_source
}

@test "a source that is killed before it gives the guest up, or a destination, ends COMMAND" {
	local end other=send
	for end in send recv; do
		rm -f pid
		guest_recv -- sh -c "$(guest_words map notify=READY=1 first sleep)"
		send_ack dir "$RECV_URI"
		ready_to_switch
		kill -KILL "${PEER_PIDS[$end]}"
		migtool_wait $end 137
		[ $end = recv ] || other=recv
		migtool_wait $other 10
		assert_json $other '.owner == "source"'
		wait_until gone "$(cat pid)"
		[ $end = recv ] || grep -q 'COMMAND is ended' recv.err
		[ $end = recv ] || assert_nothing "$C" dev
		other=send
	done
}

paused_twice() {
	[ "$(grep -c 'paused before the switchover' send.err)" = 2 ]
}

@test "a link that breaks while the source waits for its user: COMMAND stays ready" {
	listener_start recv recv -v --cap postcopy-ram --retry 5 --device-state dev tcp:127.0.0.1:0 "$C" -- \
		sh -c "echo x >>starts; $(guest_words map state=dev notify=READY=1 first now=runs check say=right sleep)"
	# the first PAUSED
	link_start "${RECV_URI##*:}" =08400900000000:reset
	send_ack --retry 5 dir "$LINK"
	ready_to_switch
	wait_until paused_twice
	go_on
	acked 0 0
	assert_agreed
	wait_for_line out right
	[ "$(wc -l <starts)" = 1 ]
	end_guest
}

@test "a VMM is ready when it has handed its userfaultfd over" {
	listener_start recv recv --uffd-socket socket unix:u
	send_ack guest "$RECV_URI"
	wait_for_line send.json '"active"'
	run -1 grep pre-switchover send.json
	vmm_start --touch 50
	ready_to_switch
	[ ! -s vmm.out ]
	go_on
	acked 0 0
	assert_agreed
	vmm_finish
	# one that ends then
	listener_start recv recv --uffd-socket socket unix:u
	vmm_start --touch 50
	send_ack guest "$RECV_URI"
	ready_to_switch
	kill -KILL "${PEER_PIDS[vmm]}"
	acked 5 51
	assert_error send "the guest ended before it was handed over"
	assert_json recv '.owner == "source"'
}

@test "without a guest there is nothing to wait for; a side that wants it off refuses by name" {
	local caps=(--cap return-path --cap switchover-ack) words
	run_pair unix:u image copy -v "${caps[@]}" -- "${caps[@]}"
	assert_agreed
	grep -q 'no guest to get ready' send.err
	rm copy
	words="switchover-ack is on on the source and off on the destination"
	run_refused 5 "$words" "$IMAGES/image" "${caps[@]}" -- --cap switchover-ack=off
	words="switchover-ack is off on the source and on on the destination"
	run_refused 5 "$words" "$IMAGES/image" --cap return-path -- "${caps[@]}"
	run -4 "$MIGTOOL" send --cap switchover-ack image unix:nobody
	[[ $output == *"capability switchover-ack needs return-path"* ]]
	run -4 "$MIGTOOL" send "${caps[@]}" --one-way image file:out
	[[ $output == *"carries nothing back"* ]]
	run -1 "$MIGTOOL" recv --notify unix:nobody copy
	run -1 "$MIGTOOL" recv --notify --uffd-socket socket unix:nobody
	[[ $output == *"--notify needs a COMMAND"* ]]
	run -1 "$MIGTOOL" recv --notify image:image "$C" -- true
}

@test "a QEMU says its own word for it, and hears it" {
	local caps=(--cap return-path --cap switchover-ack)
	# to ourselves in QEMU's words
	run_pair unix:u image copy --peer qemu --machine pc-i440fx-7.2 "${caps[@]}" -- "${caps[@]}"
	cmp image copy/ram/pc.ram
	player_up fake_peer.py
	recv_start recv unix:socket other "${caps[@]}"
	player_do source socket qemu-wants-ack
	migtool_wait recv
	player_ended
	rm -f socket
	player_do destination socket qemu-acks
	[ "$(player_says)" = listening ]
	migtool_start send send --peer qemu --machine pc-i440fx-7.2 "${caps[@]}" image unix:socket
	migtool_wait send
	player_ended
	rm -f socket
	player_do destination socket qemu-never-acks
	[ "$(player_says)" = listening ]
	migtool_start send send --timeout 2 --peer qemu --machine pc-i440fx-7.2 "${caps[@]}" image unix:socket
	migtool_wait send 30
	player_ended
	assert_error send "has not acknowledged the switchover within 2 s"
	assert_json send '.owner == "source"'
}
