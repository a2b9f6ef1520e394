#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later
# A postcopy between two hosts that breaks: the guest waits, and gets the rest of its memory over another
# connection. The guests are tests/guest/vmm.c and maps.c, which look at every page.

# shellcheck disable=SC2016,SC2030,SC2031,SC2154 # scripts for sh; what bats sets

bats_require_minimum_version 1.5.0
load helper

VMM=$(dirname "$MIGTOOL")/guest/vmm
RANDOM=${SEED:-1} # the random points are the same in each run

setup_file() {
	export IMAGES=$BATS_FILE_TMPDIR
	guest_images 16 1500
}

setup() {
	cd "$BATS_TEST_TMPDIR" || return
	guest_setup
	ln -s "$IMAGES/guest" guest
	ln -s "$IMAGES/image" image
}

teardown() {
	exec 6>&-
	link_stop || true
	peer_teardown
	rm -r "$SHM"
}

vmm_start() { # [OPTION]...
	rm -f go vmm.out
	mkfifo go
	exec 6<>go
	"$VMM" run "$@" socket 16 <go >vmm.out 2>vmm.err 3>&- 4>&- 6>&- 7>&- 8>&- &
	peer_started vmm
}

# The guest looks at all of its pages; none is wrong.
vmm_finish() {
	wait_for_line vmm.out touched
	echo >&6
	wait_for_end vmm
	grep -q '^4096 pages, 0 wrong, 0 zero$' vmm.out
}

recv_guest() { # [OPTION]...
	listener_start recv recv --uffd-socket socket --cap events=on "$@" tcp:127.0.0.1:0
}

send_guest() { # [OPTION]...: to LINK
	migtool_start send send --cap postcopy-ram --cap events=on "$@" guest "$LINK"
}

# Both have come to the end, and agree about what came since they were together again.
recovered() {
	migtool_wait send
	migtool_wait recv
	assert_json recv .complete '."digest-verified"' '.owner == "destination"' '.status == "completed"' \
		'."digest-scope" == "since-recovery"'
	assert_json send .complete '."digest-verified"' '.owner == "destination"' '.status == "completed"' \
		'."digest-scope" == "since-recovery"'
	[ "$(tail -n 1 send.json | jq .digest)" = "$(tail -n 1 recv.json | jq .digest)" ]
	vmm_finish
}

# The words of the events, one behind the other.
statuses() { # NAME
	jq -r 'select(.event == "MIGRATION") | .data.status' "$1.json" | tr '\n' ' '
}

port() { # URI
	echo "${1##*:}"
}

@test "a link that breaks behind COMMIT: both ends wait, and go on" {
	local how
	for how in reset close; do
		recv_guest --retry 5
		link_start "$(port "$RECV_URI")" 5000000:$how 3000000:$how
		vmm_start --remove --regions 4
		send_guest --retry 5
		recovered
		[[ $(statuses recv) == *"postcopy-active postcopy-paused postcopy-recover postcopy-active "* ]]
		[[ $(statuses send) == *"postcopy-active postcopy-paused postcopy-recover postcopy-active "* ]]
		warned recv 'the guest waits for its memory'
		warned send 'the guest at the destination waits for its memory'
		link_stop
	done
}

@test "with --push=off what is asked for comes over the next connection" {
	recv_guest --retry 5 --push=off
	link_start "$(port "$RECV_URI")" 1000000:reset 2000000:close
	vmm_start --remove
	send_guest --retry 5
	wait_for_line vmm.out touched
	kill -0 "${PEER_PIDS[recv]}"
	vmm_finish
	migtool_wait recv
	migtool_wait send
	assert_json recv '.complete == false' '.owner == "destination"' '.status == "completed"'
	[[ $(statuses recv) == *"paused postcopy-recover postcopy-active postcopy-paused"* ]]
}


@test "a source that is killed, and a new one that goes on" {
	local i
	recv_guest --retry 1
	LINK=$RECV_URI
	vmm_start --remove
	send_guest --param max-postcopy-bandwidth=4M
	for i in 1 2 3; do
		wait_for_line recv.err 'goes on; its memory follows\|source is there again'
		sleep "0.0$((RANDOM % 90 + 10))"
		kill -KILL "${PEER_PIDS[send]}"
		wait_for_end send || true
		wait_for_line recv.err "waiting for the source to come back"
		: >recv.err
		# nobody else is let in
		[ $i = 1 ] || run -5 "$MIGTOOL" send --cap postcopy-ram guest "$LINK"
		[ $i = 1 ] || [[ $output == *"a guest waits here for the rest of its memory"* ]]
		send_guest --resume --param max-postcopy-bandwidth=4M
	done
	recovered
}

@test "another image is refused, and the guest waits on" {
	cp --sparse=always guest copy
	recv_guest --retry 1
	LINK=$RECV_URI
	vmm_start --touch 1
	send_guest --param max-postcopy-bandwidth=1M
	wait_for_line vmm.out touched
	kill -KILL "${PEER_PIDS[send]}"
	wait_for_end send || true
	wait_for_line recv.err "waiting for the source to come back"
	run -5 "$MIGTOOL" send --resume --cap postcopy-ram copy "$LINK"
	[[ $output == *"began to come from another file"*"--force"* ]]
	run -5 "$MIGTOOL" send --resume --cap postcopy-ram image "$LINK"
	[[ $output == *"another file"* ]]
	# the user says that it is the same
	rm guest
	mv copy guest
	send_guest --resume --force
	recovered
}

@test "a guest that waits can be left, by one signal at either end" {
	recv_guest --retry 1
	LINK=$RECV_URI
	vmm_start --touch 1
	send_guest --param max-postcopy-bandwidth=1M
	wait_for_line vmm.out touched
	kill -KILL "${PEER_PIDS[send]}"
	wait_for_end send || true
	wait_for_line recv.err "waiting for the source to come back"
	kill -TERM "${PEER_PIDS[recv]}"
	migtool_wait recv 50
	assert_json recv '.owner == "destination"' '.status == "postcopy-paused"' '.complete == false'
	kill -KILL "${PEER_PIDS[vmm]}"
	wait_for_end vmm || true
	# nobody is there any more: the source tries as often as it was told, or until it is told to leave
	recv_guest --force
	LINK=$RECV_URI
	vmm_start --touch 1
	send_guest --param max-postcopy-bandwidth=1M --retry 20
	wait_for_line vmm.out touched
	kill -KILL "${PEER_PIDS[recv]}"
	wait_for_end recv || true
	wait_for_line send.err "trying again"
	kill -TERM "${PEER_PIDS[send]}"
	migtool_wait send 50
	assert_json send '.owner == "destination"' '.status == "postcopy-paused"' \
		'."error-hint" | startswith("migtool send --resume --cap postcopy-ram=on --retry 20 guest tcp:")'
}

@test "COMMAND waits and goes on, too" {
	local words
	for words in "map check" "private map fork check" "map move check drop check"; do
		rm -f "$C"
		listener_start recv recv --cap postcopy-ram --retry 3 tcp:127.0.0.1:0 "$C" -- \
			sh -c "\$G \$C $words; echo \$? >status"
		link_start "$(port "$RECV_URI")" 1500000:reset 1000000:close
		migtool_start send send --cap postcopy-ram --retry 3 image "$LINK"
		migtool_wait send
		migtool_wait recv
		assert_json recv '."digest-scope" == "since-recovery"' .complete
		wait_for_file status
		[ "$(cat status)" = 0 ]
		cmp image "$C"
		rm status
		link_stop
	done
}
