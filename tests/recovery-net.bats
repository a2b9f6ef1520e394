#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later
# A recv that serves a guest from another host is killed, or ends: the guest waits, and another recv takes it
# up, to which its source comes back. The guest is tests/guest/vmm.c; it looks at every page.

# shellcheck disable=SC2030,SC2031 # bats knows how its tests end

bats_require_minimum_version 1.5.0
load helper

VMM=$(dirname "$MIGTOOL")/guest/vmm
MIB=16
RANDOM=${SEED:-1} # the random points are the same in each run

setup_file() {
	export IMAGES=$BATS_FILE_TMPDIR
	"$(dirname "$MIGTOOL")/guest/vmm" make "$IMAGES/guest" 16
}

setup() {
	cd "$BATS_TEST_TMPDIR" || return
	ln -s "$IMAGES/guest" guest
	mkfifo go
	exec 6<>go
	SHM=$(mktemp -d /dev/shm/migtool-test-XXXXXX)
	GUEST=
}

teardown() {
	exec 6>&-
	link_stop || true
	peer_teardown
	[ -z "$GUEST" ] || kill -KILL "$GUEST" 2>/dev/null || true
	rm -r "$SHM"
}

recv_vmm() { # URI [OPTION]...: recv waits for a VMM and its source when this returns
	listener_start recv recv --uffd-socket socket "${@:2}" "$1"
}

vmm_start() { # [OPTION]...
	"$VMM" run "$@" socket $MIB <go >vmm.out 2>vmm.err 3>&- 4>&- 6>&- 7>&- 8>&- &
	peer_started vmm
}

send_to() { # URI [OPTION]...: slow enough to be interrupted
	migtool_start send send --cap postcopy-ram --param max-postcopy-bandwidth=8M "${@:2}" guest "$1"
}

recv_killed() {
	kill -KILL "${PEER_PIDS[recv]}"
	wait_for_end recv || true
}

# again URI [OPTION]...: another recv takes the VMM's guest up, and listens when this returns.
again() {
	listener_start recv recv --resume --uffd-socket socket "${@:2}" "$1"
	wait_for_line recv.err 'is taken up again; it waits for its source'
}

# All has come, both ends agree about what came since they were together, and nothing is left.
recovered() {
	migtool_wait send
	migtool_wait recv
	assert_json recv .complete '."digest-verified"' '.owner == "destination"' '.status == "completed"' \
		'."digest-scope" == "since-recovery"' '.scope == "since-recovery"'
	assert_json send .complete '."digest-verified"' '.owner == "destination"'
	[ ! -e socket.guest ]
}

# The guest looks at all of its pages; none is wrong.
vmm_finish() {
	wait_for_line vmm.out touched
	echo >&6
	wait_for_end vmm
	grep -q '^4096 pages, 0 wrong, 0 zero$' vmm.out
}

# PID: no part of its memory waits for anybody.
needs_nobody() {
	! grep -q '^VmFlags:.* um' "/proc/$1/smaps"
}

@test "a recv that is killed, and the next one too: the source goes on with the guest" {
	local push
	head -c 100000 guest >state
	# what comes is what it touches, so it needs somebody as long as it lives
	recv_vmm unix:u --push=off --device-state devices
	vmm_start --remove --regions 4
	send_to unix:u --retry 30 --device-state state
	wait_for_line recv.err 'goes on; its memory follows'
	for push in off off on; do
		sleep "0.0$((RANDOM % 90 + 10))"
		recv_killed
		again unix:u --push=$push
		wait_for_line recv.err 'source is there again'
	done
	recovered
	vmm_finish
	cmp state devices
}

@test "a second SIGTERM leaves the guest waiting, and the words at both ends take it up again" {
	"$VMM" make other $MIB
	recv_vmm unix:u --push=off
	vmm_start --remove --touch 1
	send_to unix:u
	wait_for_line vmm.out touched
	kill -TERM "${PEER_PIDS[recv]}"
	wait_for_line recv.err 'needs its pages'
	kill -TERM "${PEER_PIDS[recv]}"
	migtool_wait recv 50
	migtool_wait send 50
	assert_json recv '.status == "postcopy-paused"' '.owner == "destination"' \
		'."error-hint" == "migtool recv --resume --push=off --uffd-socket socket unix:u takes it up again"'
	assert_json send \
		'."error-hint" | startswith("migtool send --resume --cap postcopy-ram=on guest unix:u goes on")'
	run -11 "$MIGTOOL" recv --uffd-socket socket unix:u
	[[ $output == *"process ${PEER_PIDS[vmm]} still waits for its memory"*"--resume"* ]]
	run -4 "$MIGTOOL" recv --resume --guest $$ --uffd-socket socket unix:u
	[[ $output == *"socket.guest is not about process $$"* ]]
	run -1 "$MIGTOOL" recv --resume --uffd-socket socket unix:u kept
	[[ $output == *"--resume with an IMAGE to write"* ]]
	again unix:u
	# nobody else comes in, and it waits on
	run -5 "$MIGTOOL" send --cap postcopy-ram guest unix:u
	[[ $output == *"a guest waits here for the rest of its memory, which is that of session "* ]]
	run -5 "$MIGTOOL" send --resume --cap postcopy-ram other unix:u
	[[ $output == *"began to come from another file"* ]]
	truncate -s 1M short
	run -5 "$MIGTOOL" send --resume --cap postcopy-ram --force short unix:u
	[[ $output == *"the guest here has another memory than the source's image"* ]]
	run -5 "$MIGTOOL" send --resume --cap postcopy-ram --force --block-name ram guest unix:u
	[[ $output == *"the guest here has another memory"* ]]
	send_to unix:u --resume
	recovered
	vmm_finish
}

@test "a guest that waits for its source can be left again by one signal" {
	recv_vmm unix:u --push=off
	vmm_start --touch 1
	send_to unix:u
	wait_for_line vmm.out touched
	recv_killed
	migtool_wait send 50
	again unix:u
	kill -TERM "${PEER_PIDS[recv]}"
	migtool_wait recv 50
	assert_json recv '.owner == "destination"' '.status == "postcopy-paused"'
	grep -q 'hint: migtool recv --resume --uffd-socket socket unix:u takes it up again' recv.err
	# with the source's image on this host there is no need for a source
	migtool_start recv recv --resume --uffd-socket socket image:guest
	migtool_wait recv
	vmm_finish
}

@test "a guest whose COMMIT never came is not the destination's: its source hands it over again" {
	recv_vmm tcp:127.0.0.1:0
	link_start "${RECV_URI##*:}" =400700000008+8:drop
	vmm_start --remove
	send_to "$LINK" --timeout 2
	wait_for_line recv.err ' runs; its memory comes from the source'
	migtool_wait send 50
	assert_json send '.owner == "unknown"'
	recv_killed
	listener_start recv recv --resume --uffd-socket socket unix:u
	wait_for_line recv.err 'was not handed over yet'
	send_to unix:u --resume
	migtool_wait send
	migtool_wait recv
	assert_json recv .complete '."digest-verified"' '.owner == "destination"' '."digest-scope" == null'
	assert_json send .complete '."digest-verified"' '.owner == "destination"'
	vmm_finish
}

@test "a recv that is killed when the guest has all: the source hears that from the next one" {
	recv_vmm tcp:127.0.0.1:0
	# its READY does not come; behind DIGEST what goes by the other connection could still be on its way
	link_start "${RECV_URI##*:}" =400100000028+1:drop
	vmm_start
	migtool_start send send --cap postcopy-ram --timeout 2 --retry 10 guest "$LINK"
	wait_for_line vmm.out touched
	wait_until needs_nobody "${PEER_PIDS[vmm]}"
	recv_killed
	[ -e socket.guest ]
	listener_start recv recv --resume --retry 1 --uffd-socket socket "$RECV_URI"
	wait_for_line recv.err 'had all of its memory before'
	migtool_wait send
	assert_json send .complete '.owner == "destination"' '.status == "completed"'
	migtool_wait recv
	assert_json recv .complete '.owner == "destination"' '.status == "completed"'
	[ ! -e socket.guest ]
	vmm_finish
}

# caught URI [RECV-OPTION]... -- GUEST-OPTION...: COMMAND is the guest, in $SHM/copy; its pid is in GUEST.
caught() {
	local BEFORE BEHIND
	split_options "${@:2}"
	rm -f "$SHM/copy" vmm.out
	"$MIGTOOL" recv --cap postcopy-ram "${BEFORE[@]}" "$1" "$SHM/copy" -- \
		"$VMM" run "${BEHIND[@]}" "$SHM/copy" $MIB <go >vmm.out 2>recv.err 3>&- 4>&- 6>&- &
	peer_started recv
	wait_for_line recv.err 'listening on'
}

# COMMAND is nobody's child any more when recv was killed; what it says is the end of vmm.out.
finish_caught() {
	wait_for_line vmm.out touched
	echo >&6
	wait_for_line vmm.out ' pages, 0 wrong, 0 zero$'
}

@test "COMMAND is taken up again: shared, private, with forked children" {
	local options
	for options in '--file shared' '--file private' '--file private --forks 3'; do
		# shellcheck disable=SC2086 # they are several
		caught unix:u --push=off -- $options --slow 10
		send_to unix:u --retry 30
		wait_for_line vmm.out '^pid'
		read -r _ GUEST <vmm.out
		wait_for_line recv.err 'goes on; its memory follows'
		sleep "0.0$((RANDOM % 90 + 10))"
		recv_killed
		wait_until grep -q "recv --resume --push=off --guest $GUEST unix:u $SHM/copy takes it up" recv.err
		listener_start recv recv --resume --guest "$GUEST" unix:u "$SHM/copy"
		recovered
		finish_caught
	done
}

@test "a recv that has just taken COMMAND over and cannot go on leaves it waiting" {
	# its third thread is that for requested pages
	local words="cannot start the thread for requested pages" uri=unix:u status=0
	rm -f "$SHM/copy"
	env "ASAN_OPTIONS=verify_asan_link_order=0:${ASAN_OPTIONS:-}" \
		LD_PRELOAD="$(dirname "$MIGTOOL")/tools/faults.so" FAULTS=thread:3:EAGAIN "FAULTS_STATE=$PWD/state" \
		"$MIGTOOL" recv --cap postcopy-ram --push=off $uri "$SHM/copy" -- \
		env -u LD_PRELOAD "$VMM" run --file shared "$SHM/copy" $MIB \
		<go >vmm.out 2>recv.err 3>&- 4>&- 6>&- &
	peer_started recv
	wait_for_line recv.err 'listening on'
	send_to $uri --retry 30
	wait_for_end recv || status=$?
	[ "$status" = 50 ]
	grep -q "error: COMMAND (process [0-9]*) waits for its memory: $words" recv.err
	wait_for_line vmm.out '^pid'
	read -r _ GUEST <vmm.out
	listener_start recv recv --resume --guest "$GUEST" $uri "$SHM/copy"
	recovered
	finish_caught
}

@test "where who watched it was killed too, the user has to say that the source is the right one" {
	local name
	caught unix:u --push=off -- --file shared --slow 10
	send_to unix:u
	wait_for_line vmm.out '^pid'
	read -r _ GUEST <vmm.out
	wait_for_line recv.err 'goes on; its memory follows'
	kill -KILL "$(sed -n 's/^TracerPid:\t//p' "/proc/$GUEST/status")"
	recv_killed
	migtool_wait send 50
	# the second one finds the watcher that the first one has left, who goes on writing to its file
	for name in first second; do
		migtool_start $name recv --resume --guest "$GUEST" unix:u "$SHM/copy"
		migtool_wait $name 4
		assert_error $name "nobody knows which source its memory comes from"
	done
	listener_start recv recv --resume --force --guest "$GUEST" unix:u "$SHM/copy"
	wait_for_line recv.err 'is taken up again'
	run -5 "$MIGTOOL" send --cap postcopy-ram guest unix:u
	[[ $output == *"a guest waits here for the rest of its memory"* ]]
	send_to unix:u --resume
	wait_for_line recv.err 'source is there again'
	# now it is known
	recv_killed
	migtool_wait send 50
	listener_start recv recv --resume --guest "$GUEST" unix:u "$SHM/copy"
	send_to unix:u --resume
	recovered
	finish_caught
}

@test "recv and the link are ended at a few of the random points of make soak" {
	"$BATS_TEST_DIRNAME/recovery_net.py" --kills 2 --cuts 2 --seed "${SEED:-1}" --migtool "$MIGTOOL" \
		>rounds 2>&1 || {
		cat rounds
		return 1
	}
	[ "$(tail -n 1 rounds)" = "4 rounds, 0 failures" ]
	tail -n 2 rounds | grep -q " 0 zero\$"
}
