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
	[ -z "${GUEST:-}" ] || kill -KILL "$GUEST" 2>/dev/null || true
	! mountpoint -q "$SHM/huge" || umount -l "$SHM/huge"
	huge_pages_end
	rm -r "$SHM"
}

# serve [OPTION]...: recv waits for a VMM when this returns.
serve() {
	listener_start recv recv --uffd-socket socket "$@" image:guest
}

vmm_start() { # [OPTION]...
	rm -f vmm.out # the last one's
	"$VMM" run "$@" socket $MIB <go >vmm.out 2>vmm.err 3>&- 4>&- 8>&- &
	peer_started vmm
}

recv_killed() {
	kill -KILL "${PEER_PIDS[recv]}" 2>/dev/null || true
	wait_for_end recv || true
}

# The guest looks at all of its pages; none is wrong.
finish() {
	wait_for_line vmm.out touched
	echo >&8
	wait_for_end vmm || {
		cat vmm.out vmm.err
		return 1
	}
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
		wait_for_line recv.err 'runs; its memory comes'
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
	wait_for_line recv.err 'runs; its memory comes'
	for _ in 1 2 3 4; do
		a_while 60
		recv_killed
		migtool_start recv recv --resume --push=off --uffd-socket socket image:guest
		wait_for_line recv.err 'is taken up again'
	done
	finish
	recv_wait recv
	assert_json recv '.complete == false' '.scope == "since-recovery"'
	[ ! -e socket.guest ]
}

@test "a second SIGTERM leaves the guest waiting, and says the command that takes it up" {
	serve --push=off
	vmm_start --touch 1
	wait_for_line vmm.out touched
	kill -TERM "${PEER_PIDS[recv]}"
	wait_for_line recv.err 'needs its pages'
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
	wait_for_line vmm.out touched
	truncate -s 1M guest
	echo >&8
	recv_wait recv 50
	grep -q 'takes it up again' recv.err
	run -4 "$MIGTOOL" recv --resume --uffd-socket socket image:guest
	[[ $output == *"it is served on from the image that it was begun with"* ]]
	# it is as it was again, but for the time of its last write
	cp "$IMAGES/guest" guest
	run -4 "$MIGTOOL" recv --resume --uffd-socket socket image:guest
	[[ $output == *"guest was written to since"*"--force"* ]]
	migtool_start recv recv --resume --force --uffd-socket socket image:guest
	taken_up_whole
}

@test "another process with the number of the guest's is left alone" {
	serve --push=off
	vmm_start --touch 1
	wait_for_line vmm.out touched
	recv_killed
	# as if the one that is noted had ended, and its number been given away again
	run -0 python3 - socket.guest "${PEER_PIDS[vmm]}" <<-'EOF'
		import struct, sys
		with open(sys.argv[1], "r+b") as f:
		    f.seek(32)
		    at = struct.unpack("<Q", f.read(8))[0] + 16
		    f.seek(at)
		    pid, _, process = struct.unpack("<iIQ", f.read(16))
		    assert pid == int(sys.argv[2])
		    f.seek(at + 8)
		    f.write(struct.pack("<Q", process - 1 if process else 0))
		    print("known" if process else "unknown")
	EOF
	# a kernel before 6.9 does not number them
	if [ "$output" = known ]; then
		run -51 "$MIGTOOL" recv --resume --uffd-socket socket image:guest
		[[ $output == *"process ${PEER_PIDS[vmm]}, of which socket.guest tells, has ended, and another"* ]]
	fi
	kill -KILL "${PEER_PIDS[vmm]}"
	wait_for_end vmm || true
}

@test "what others could have written is not believed" {
	serve --push=off
	vmm_start --touch 1
	wait_for_line vmm.out touched
	recv_killed
	chmod 0620 socket.guest
	run -11 "$MIGTOOL" recv --resume --uffd-socket socket image:guest
	[[ $output == *"socket.guest has mode 0620: others may write it"* ]]
	run -11 "$MIGTOOL" recv --force --uffd-socket socket image:guest
	chmod 0600 socket.guest
	ln socket.guest other.guest
	run -11 "$MIGTOOL" recv --resume --uffd-socket socket image:guest
	[[ $output == *"socket.guest has 2 names, expected one"* ]]
	rm other.guest
	if [ "$(id -u)" = 0 ]; then
		chown 65534 socket.guest
		run -11 "$MIGTOOL" recv --resume --uffd-socket socket image:guest
		[[ $output == *"socket.guest belongs to user 65534"*"run recv as the user"* ]]
		chown 0 socket.guest
	fi
	migtool_start recv recv --resume --uffd-socket socket image:guest
	taken_up_whole
}

@test "another image of the same size is refused, and the guest goes on with its own" {
	"$VMM" make other $MIB
	serve --push=off
	vmm_start --touch 1
	wait_for_line vmm.out touched
	recv_killed
	run -4 "$MIGTOOL" recv --resume --uffd-socket socket image:other
	[[ $output == *"other is another file than the one that the guest has memory of"* ]]
	migtool_start recv recv --resume --uffd-socket socket image:guest
	taken_up_whole
	caught --push=off -- --file shared --touch 1
	wait_for_line vmm.out touched
	wait_for_line recv.err 'has mapped'
	recv_killed
	run -50 "$MIGTOOL" recv --resume --guest "$GUEST" image:other "$SHM/copy"
	[[ $output == *"other is another file than the one"* ]]
	migtool_start recv recv --resume --guest "$GUEST" image:guest "$SHM/copy"
	recv_wait recv
	finish_caught
}

@test "a guest that has ended meanwhile is not taken up" {
	serve --push=off
	vmm_start --touch 1
	wait_for_line vmm.out touched
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
	local how rc
	for how in KILL TERM; do
		serve --push=off --on-loss=kill
		vmm_start --touch 1
		wait_for_line vmm.out touched
		kill -"$how" "${PEER_PIDS[recv]}"
		if [ "$how" = TERM ]; then
			wait_for_line recv.err 'needs its pages'
			kill -TERM "${PEER_PIDS[recv]}"
			recv_wait recv 50
			grep -q 'the guest was ended (--on-loss=kill)' recv.err
			assert_json recv '.status == "failed"'
		else
			wait_for_end recv || true
		fi
		# not by run, whose shell is not its parent and cannot ask for its status
		rc=0
		wait_for_end vmm || rc=$?
		[ "$rc" -eq 137 ]
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
		wait_for_line recv.err 'has mapped'
		kill -"$how" "${PEER_PIDS[recv]}"
		if [ "$how" = TERM ]; then
			wait_for_line recv.err 'needs its pages'
			kill -TERM "${PEER_PIDS[recv]}"
			recv_wait recv 50
			grep -q 'was ended (--on-loss=kill)' recv.err
		else
			wait_for_end recv || true
		fi
		read -r pid <pid.of
		wait_until sh -c "! kill -0 $pid 2>/dev/null"
	done
}

# caught OPTION... -- GUEST-OPTION...: COMMAND is the guest, in $SHM/copy; its pid is in $GUEST.
caught() {
	local options=()
	while [ "$1" != -- ]; do
		options+=("$1")
		shift
	done
	shift
	rm -f "$SHM/copy" vmm.out recv.err
	"$MIGTOOL" recv "${options[@]}" image:guest "$SHM/copy" -- "$VMM" run "$@" "$SHM/copy" $MIB \
		<go >vmm.out 2>recv.err 3>&- 4>&- 8>&- &
	peer_started recv
	wait_for_line vmm.out '^pid'
	read -r _ GUEST <vmm.out
}

# COMMAND is nobody's child any more when recv was killed; what it says is the end of vmm.out.
finish_caught() {
	wait_for_line vmm.out touched
	echo >&8
	wait_for_line vmm.out ' pages, 0 wrong, 0 zero$'
}

@test "COMMAND is taken up again: shared, private, with forked children" {
	local options push
	for options in '--file shared' '--file private' '--file private --forks 3'; do
		for push in on off; do
			# shellcheck disable=SC2086 # they are several
			caught --push=$push -- $options --slow 10
			a_while 40
			recv_killed
			# who watches says so as soon as it notices; the guest may have had all
			wait_until grep -q 'has all of its memory\|takes it up again' recv.err
			if grep -q 'has all of its memory' recv.err; then
				finish_caught
				continue
			fi
			grep -q "migtool recv --resume.*--guest $GUEST image:guest.*takes it up again" recv.err
			migtool_start recv recv --resume --push=$push --guest "$GUEST" image:guest "$SHM/copy"
			[ $push = on ] || finish_caught
			recv_wait recv
			assert_json recv '.scope == "since-recovery"' '.owner == "destination"'
			[ $push = off ] || finish_caught
		done
	done
}

@test "so it is when who watched it was killed, too" {
	local watcher options
	for options in shared private; do
		caught --push=off -- --file $options --slow 10
		watcher=$(sed -n 's/^TracerPid:\t//p' "/proc/$GUEST/status")
		[ "$watcher" != 0 ]
		a_while 40
		kill -KILL "$watcher"
		recv_killed
		migtool_start recv recv --resume --push=off --guest "$GUEST" image:guest "$SHM/copy"
		finish_caught
		recv_wait recv
	done
}

@test "a second SIGTERM leaves COMMAND waiting; it is served from nobody else's files, by one" {
	caught --push=off -- --file shared --touch 1
	wait_for_line vmm.out touched
	wait_for_line recv.err 'has mapped'
	kill -TERM "${PEER_PIDS[recv]}"
	wait_for_line recv.err 'needs its pages'
	kill -TERM "${PEER_PIDS[recv]}"
	recv_wait recv 50
	grep -q "hint: migtool recv --resume --push=off --guest $GUEST image:guest $SHM/copy takes it" recv.err
	truncate -s ${MIB}M "$SHM/other"
	run -4 "$MIGTOOL" recv --resume --guest "$GUEST" image:guest "$SHM/other"
	[[ $output == *"the guest maps another IMAGE"* ]]
	run -51 "$MIGTOOL" recv --resume --guest 4194305 image:guest "$SHM/copy"
	[[ $output == *"there is no process 4194305"* ]]
	run -1 "$MIGTOOL" recv --resume image:guest "$SHM/copy" -- true
	[[ $output == *"--guest PID"* ]]
	migtool_start recv recv --resume --push=off --guest "$GUEST" image:guest "$SHM/copy"
	wait_for_line recv.err 'is taken up again'
	run -4 "$MIGTOOL" recv --resume --guest "$GUEST" image:guest "$SHM/copy"
	[[ $output == *"is served by another recv"* ]]
	finish_caught
	recv_wait recv
	# it has ended
	run -51 "$MIGTOOL" recv --resume --guest "$GUEST" image:guest "$SHM/copy"
}

@test "on hugetlbfs too, where holes tell nothing" {
	huge_pages 32
	mkdir "$SHM/huge"
	mount -t hugetlbfs none "$SHM/huge" || skip "to mount takes root"
	SHM=$SHM/huge caught --push=off -- --file shared --slow 10
	a_while 40
	recv_killed
	migtool_start recv recv --resume --guest "$GUEST" image:guest "$SHM/huge/copy"
	recv_wait recv
	finish_caught
	wait_until umount "$SHM/huge"
	huge_pages_end
}

@test "recv is ended at a few of the random points of make soak" {
	"$BATS_TEST_DIRNAME/recovery.py" --count 12 --seed "${SEED:-1}" --migtool "$MIGTOOL" >rounds 2>&1 || {
		cat rounds
		return 1
	}
	[ "$(tail -n 1 rounds)" = "12 rounds, 0 failures" ]
	tail -n 2 rounds | grep -q " 0 zero\$"
}
