#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later
# A recv that serves a guest is killed, or ends: the guest waits, and another recv serves it on.
# The guest is tests/guest/vmm.c; it looks at every page: number, generation, checksum.

# shellcheck disable=SC2016,SC2030,SC2031 # scripts for sh; bats knows how its tests end

bats_require_minimum_version 1.5.0
load helper

VMM=$(dirname "$MIGTOOL")/guest/vmm
MAPS=$(dirname "$MIGTOOL")/guest/maps
MIB=32
RANDOM=${SEED:-1} # the random points are the same in each run

setup_file() {
	export IMAGES=$BATS_FILE_TMPDIR
	"$(dirname "$MIGTOOL")/guest/vmm" make "$IMAGES/guest" 32
}

setup() {
	cd "$BATS_TEST_TMPDIR" || return
	ln -s "$IMAGES/guest" guest
	mkfifo go
	exec 8<>go
	SHM=$(mktemp -d /dev/shm/migtool-test-XXXXXX)
}

teardown() {
	exec 8>&-
	peer_teardown
	rm -r "$SHM"
}

await() { # WORDS FILE
	for _ in {1..1000}; do
		! grep -q -- "$1" "$2" || return 0
		sleep 0.02
	done
	cat "$2"
	return 1
}

# serve [OPTION]...: recv waits for a VMM when this returns.
serve() {
	listener_start recv recv --uffd-socket socket "$@" image:guest
}

vmm_start() { # [OPTION]...
	"$VMM" run "$@" socket $MIB <go >vmm.out 2>vmm.err 3>&- 4>&- 8>&- &
	peer_started vmm
}

recv_killed() {
	kill -KILL "${PEER_PIDS[recv]}" 2>/dev/null || true
	wait_for_end recv || true
}

# The guest looks at all of its pages; none is wrong.
finish() {
	await touched vmm.out
	echo >&8
	wait_for_end vmm
	cat vmm.out
	grep -q " pages, 0 wrong, 0 zero$" vmm.out
}

# a_while MS: at most so long, at random.
a_while() {
	sleep "0.$(printf %03d $((RANDOM % $1)))"
}

# The last recv, which nobody disturbs: it has all, and nothing is left of it.
taken_up_whole() {
	recv_wait recv
	assert_json recv .complete '.scope == "since-recovery"' '.owner == "destination"'
	[ ! -e socket.guest ]
	finish
}

@test "a recv that is killed, and the next ones too: the guest gets all of its memory" {
	local i n round
	for round in 1 2 3; do
		serve
		vmm_start --remove --seed "$round" --regions $((1 << round))
		await 'runs; its memory comes' recv.err
		for ((i = 0, n = RANDOM % 4; i <= n; i++)); do
			a_while 30
			recv_killed
			# it may have had all
			[ -e socket.guest ] || break
			migtool_start recv recv --resume --uffd-socket socket image:guest
		done
		if [ -n "${PEER_PIDS[recv]:-}" ]; then
			recv_wait recv
			assert_json recv .complete '.scope == "since-recovery"'
		fi
		finish
		[ ! -e socket.guest ]
	done
}

@test "with --push=off what is touched comes from whoever serves" {
	serve --push=off
	vmm_start --remove
	for _ in 1 2 3 4; do
		a_while 60
		recv_killed
		migtool_start recv recv --resume --push=off --uffd-socket socket image:guest
		await 'is taken up again' recv.err
	done
	finish
	recv_wait recv
	assert_json recv '.complete == false' '.scope == "since-recovery"'
	[ ! -e socket.guest ]
}

@test "a second SIGTERM leaves the guest waiting, and says the command that takes it up" {
	serve --push=off
	vmm_start --touch 1
	await touched vmm.out
	kill -TERM "${PEER_PIDS[recv]}"
	await 'needs its pages' recv.err
	kill -TERM "${PEER_PIDS[recv]}"
	recv_wait recv 50
	assert_json recv '.status == "postcopy-paused"' '.owner == "destination"' \
		'."error-hint" | startswith("migtool recv --resume --push=off --uffd-socket socket")'
	# that guest is not forgotten by mistake, nor served by two
	run -11 "$MIGTOOL" recv --uffd-socket socket image:guest
	[[ $output == *"process ${PEER_PIDS[vmm]} still waits for its memory"*"--resume"* ]]
	run -4 "$MIGTOOL" recv --resume --guest $$ --uffd-socket socket image:guest
	[[ $output == *"socket.guest is not about process $$"* ]]
	# the words of the hint, but for --push=off
	migtool_start recv recv --resume --uffd-socket socket image:guest
	taken_up_whole
	run -11 "$MIGTOOL" recv --resume --uffd-socket socket image:guest
	[[ $output == *"there is no socket.guest"* ]]
}

@test "an image that changed leaves the guest waiting, and the right one serves it on" {
	rm guest
	cp --sparse=always "$IMAGES/guest" guest
	serve --push=off
	vmm_start --touch 1
	await touched vmm.out
	truncate -s 1M guest
	echo >&8
	recv_wait recv 50
	grep -q 'takes it up again' recv.err
	run -4 "$MIGTOOL" recv --resume --uffd-socket socket image:guest
	[[ $output == *"it is served on from the image that it was begun with"* ]]
	ln -sf "$IMAGES/guest" guest
	migtool_start recv recv --resume --uffd-socket socket image:guest
	taken_up_whole
}

@test "a guest that has ended meanwhile is not taken up" {
	serve --push=off
	vmm_start --touch 1
	await touched vmm.out
	recv_killed
	kill -KILL "${PEER_PIDS[vmm]}"
	wait_for_end vmm || true
	run -51 "$MIGTOOL" recv --resume --uffd-socket socket image:guest
	[[ $output == *"of which socket.guest tells, has ended"* ]]
	# what is known of it is of no use to anybody
	serve
	vmm_start
	recv_wait recv
	finish
}

@test "--on-loss=kill: the VMM ends with whoever serves it, however that ends" {
	local how
	for how in KILL TERM; do
		serve --push=off --on-loss=kill
		vmm_start --touch 1
		await touched vmm.out
		kill -"$how" "${PEER_PIDS[recv]}"
		if [ "$how" = TERM ]; then
			await 'needs its pages' recv.err
			kill -TERM "${PEER_PIDS[recv]}"
			recv_wait recv 50
			grep -q 'the guest was ended (--on-loss=kill)' recv.err
			assert_json recv '.status == "failed"'
		else
			wait_for_end recv || true
		fi
		run -137 wait_for_end vmm
		rm -f socket.guest
	done
	serve --on-loss=kill
	vmm_start
	recv_wait recv
	finish
}

@test "--on-loss=kill: so does COMMAND, and a process that runs already" {
	local how pid
	truncate -s 16M image
	"$MAPS" image map fill
	for how in KILL TERM; do
		rm -f "$SHM/copy"
		migtool_start recv recv --push=off --on-loss=kill image:image "$SHM/copy" -- \
			sh -c 'echo $$ >pid.of; exec "$0" "$1" map check sleep' "$MAPS" "$SHM/copy"
		await 'has mapped' recv.err
		kill -"$how" "${PEER_PIDS[recv]}"
		if [ "$how" = TERM ]; then
			await 'needs its pages' recv.err
			kill -TERM "${PEER_PIDS[recv]}"
			recv_wait recv 50
			grep -q 'was ended (--on-loss=kill)' recv.err
		else
			wait_for_end recv || true
		fi
		read -r pid <pid.of
		for _ in {1..500}; do
			kill -0 "$pid" 2>/dev/null || break
			sleep 0.02
		done
		run -1 kill -0 "$pid"
	done
}
