#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later
# A guest that is any process: COMMAND, or one that runs already, maps IMAGE before anything is in it.
# The guest is tests/guest/maps.c, which looks at each of its pages.

# shellcheck disable=SC2016,SC2030,SC2031,SC2154 # scripts for sh; what bats sets

bats_require_minimum_version 1.5.0
load helper

PAGES=3000

setup() {
	cd "$BATS_TEST_TMPDIR" || return
	guest_setup
	truncate -s $((PAGES * 4096)) image
	"$G" image map fill
}

teardown() {
	[ -z "${GUEST:-}" ] || kill -KILL "$GUEST" 2>/dev/null || true
	! mountpoint -q huge || umount -l huge
	peer_teardown
	! mountpoint -q "$SHM/small" || umount -l "$SHM/small"
	rm -r "$SHM"
}

# ended PID: it has, or does within 20 s; nobody of ours may wait for it.
ended() {
	local i
	for ((i = 0; i < 1000; i++)); do
		grep -qs 'State:.[^Z]' "/proc/$1/status" || return 0
		sleep 0.02
	done
	return 1
}

# recv_run STATUS [OPTION]... -- COMMAND...: from `image` to $C.
recv_run() {
	local status=$1 BEFORE BEHIND
	split_options "${@:2}"
	rm -f "$C"
	run -"$status" --separate-stderr timeout 60 "$MIGTOOL" recv --json --progress=none \
		"${BEFORE[@]}" image:image "$C" -- "${BEHIND[@]}" </dev/null
}

# said PATTERN...: each is in what recv told people.
said() {
	local pattern
	for pattern; do
		grep -q -- "$pattern" <<<"$stderr" && continue
		echo "no '$pattern' in: $stderr"
		return 1
	done
}

# What COMMAND touches comes by faults alone, and it ends when it has seen all.
faults_run() { # COMMAND...
	recv_run 0 --push=off -- "$@"
	jq -e ".complete == false and .owner == \"destination\"" <<<"${lines[-1]}"
}

@test "COMMAND sees all of its memory by faults" {
	faults_run "$G" "$C" map check
	# it walks: neighbours come with what it needs
	jq -e ".\"fault-latency\".count + .\"fault-around\" >= $PAGES and
		.\"fault-latency\".count == .ram.\"postcopy-requests\" and .\"fault-latency\".count < $PAGES / 4" \
		<<<"${lines[-1]}"
	jq -e ".ram.\"postcopy-bytes\" == $PAGES * 4096" <<<"${lines[-1]}"
	cmp image "$C"
}

@test "so does what a shell starts, and its grandchild, which say so themselves" {
	faults_run sh -c '$G $C map check; echo $? >direct'
	[ "$(cat direct)" = 0 ]
	faults_run sh -c '(sh -c "$G $C map check; echo \$? >grandchild") & wait'
	[ "$(cat grandchild)" = 0 ]
	cmp image "$C"
}

@test "nothing is filled at once; pieces, private mappings, forked children, moves" {
	local words
	for words in "populate map check" "locked map check" "halves check fork" \
		"private map fork check" "map move check drop check" "thread check" \
		"map check forget check" "private map check forget check fork"; do
		faults_run sh -c "\$G \$C $words; echo \$? >status"
		[ "$(cat status)" = 0 ]
	done
}

@test "a process that maps again after exec, and more children than there are places for" {
	local words
	for words in "map exec map check" "private map exec private map check" \
		"map forks check" "private map forks check"; do
		faults_run sh -c "\$G \$C $words; echo \$? >status"
		[ "$(cat status)" = 0 ]
	done
}

last_line_is() { # FILE LINE
	[ "$(tail -n 1 "$1")" = "$2" ]
}

# The whole memory comes, and COMMAND, which is told to look at it then, survives recv.
survives() { # [OPTION]... -- WORD...
	local BEFORE BEHIND
	split_options "$@"
	rm -f go out
	mkfifo go
	exec 7<>go
	recv_run 0 "${BEFORE[@]}" -- \
		sh -c "exec \$G \$C ${BEHIND[*]} say=\$\$ byte check say=right sleep <go >out 2>&1"
	jq -e '.status == "completed" and .complete and .owner == "destination"' <<<"${lines[-1]}"
	echo >&7
	read -r GUEST <out
	wait_until last_line_is out right
	exec 7>&-
	kill "$GUEST"
	GUEST=
	cmp image "$C"
}

@test "COMMAND survives recv, with all of its memory" {
	survives -- map
	survives --no-sandbox -- map
	survives -- halves
	survives -- private map
}

@test "whatever goes past the mapping ends COMMAND, with the reason" {
	local call
	for call in read pread readv preadv sendfile splice copy_file_range io_submit; do
		recv_run 4 -- sh -c "\$G \$C $call; echo \$? >status"
		said "maps (process [0-9]*) calls $call on IMAGE" "it would get zeros" "map it"
		[ ! -e status ]
	done
	recv_run 4 -- "$G" "$C" mlockall map check
	said "calls mlockall" "after it has mapped"
	jq -e '.status == "failed" and .owner == "source"' <<<"${lines[-1]}"
}

@test "a file on a disk is refused, and what to use instead is said" {
	run -4 --separate-stderr "$MIGTOOL" recv image:image "$BATS_TEST_TMPDIR/copy" -- true
	said "tmpfs, memfd or hugetlbfs, and .*copy is on " "/dev/shm"
	[ ! -e copy ]
}

@test "a tmpfs with huge pages is refused" {
	local huge
	[ "$(id -u)" = 0 ] || skip "to mount takes root"
	mkdir huge
	for huge in always within_size; do
		mount -t tmpfs -o "huge=$huge" none huge
		run -4 --separate-stderr "$MIGTOOL" recv image:image huge/copy -- true
		umount huge
		said "huge/copy is on a tmpfs with huge pages\|IMAGE is on a tmpfs with huge pages" \
			"huge=never"
	done
}

@test "a first mapping that is refused ends COMMAND" {
	[ "$(id -u)" = 0 ] || skip "to mount takes root"
	huge_pages 4
	mkdir huge
	mount -t hugetlbfs none huge
	truncate -s 4M image
	"$G" image map fill
	run -4 --separate-stderr "$MIGTOOL" recv --json --progress=none image:image huge/copy -- \
		sh -c 'echo $$ >pid; exec $G huge/copy private map check'
	said "COMMAND maps IMAGE private, on hugetlbfs" "share=on" "COMMAND is ended"
	jq -e '.status == "failed" and .owner == "source"' <<<"${lines[-1]}"
	ended "$(cat pid)"
}

@test "a later mapping that is refused leaves COMMAND waiting, and says who it is" {
	migtool_start recv recv --push=off image:image "$C" -- \
		sh -c 'echo $$ >pid; exec $G $C map private map check'
	migtool_wait recv 50
	GUEST=$(cat pid)
	grep "COMMAND (process $GUEST) waits for its memory: COMMAND maps IMAGE both shared and" recv.err
	grep -e "--guest $GUEST image:image" recv.err
	jq -e '.status == "postcopy-paused" and .owner == "destination"' recv.json
	kill -KILL "$GUEST"
	GUEST=
}

@test "a COMMAND that ends too early is status 51" {
	recv_run 51 -- sh -c 'exit 3'
	said "ended with status 3 before its memory was complete"
	[ ! -e "$C" ]
	recv_run 51 -- /nowhere/at/all
	said "cannot start the command '/nowhere/at/all'"
}

@test "what is in IMAGE already stays, without --force" {
	echo mine >"$C"
	run -11 --separate-stderr "$MIGTOOL" recv image:image "$C" -- true
	said "is there and not empty" "--force"
	[ "$(cat "$C")" = mine ]
}

@test "somebody else who maps IMAGE is named" {
	truncate -s $((PAGES * 4096)) "$C"
	mkfifo out
	"$G" "$C" map say=ready sleep >out 3>&- 4>&- &
	GUEST=$!
	read -r _ <out
	run -4 --separate-stderr "$MIGTOOL" recv image:image "$C" -- "$G" "$C" map check
	said "mapped already by maps (process $GUEST)"
	# its memory is not taken away, whatever is forced
	"$G" "$C" map fill
	run -4 --separate-stderr "$MIGTOOL" recv --force image:image "$C" -- "$G" "$C" map check
	said "mapped already by maps (process $GUEST)"
	cmp image "$C"
}

@test "the source itself is no IMAGE, whatever is forced" {
	cp image "$C"
	ln "$C" "$C.too"
	run -11 --separate-stderr "$MIGTOOL" recv --force "image:$C" "$C.too" -- true
	said "copy.too is the source itself"
	run -11 --separate-stderr "$MIGTOOL" recv --force --guest $$ "image:$C" "$C"
	said "copy is the source itself"
	cmp image "$C"
}

@test "--guest: a process that runs and has its memory full of something else" {
	truncate -s $((PAGES * 4096)) "$C"
	mkfifo go out
	"$G" "$C" map touch say=ready byte check <go >out 3>&- 4>&- &
	GUEST=$!
	exec 7>go 8<out
	read -r _ <&8
	run -11 --separate-stderr "$MIGTOOL" recv --guest "$GUEST" image:image "$C"
	said "not empty"
	run -0 --separate-stderr "$MIGTOOL" recv --force --guest "$GUEST" image:image "$C"
	echo >&7
	wait "$GUEST"
	GUEST=
	exec 7>&- 8<&-
	cmp image "$C"
	run -4 --separate-stderr "$MIGTOOL" recv --force --guest $$ image:image "$C"
	said "does not map IMAGE"
}

@test "postcopy-blocktime knows which thread of COMMAND waited" {
	recv_run 0 --push=off --cap postcopy-blocktime -- "$G" "$C" map check
	jq -e '(."postcopy-thread-blocktime" | length == 1 and .[0].thread > 1) and
		."postcopy-thread-blocktime"[0].faults == ."fault-latency".count' <<<"${lines[-1]}"
	said "guest waited for pages for .*: thread [0-9]* for"
}

@test "what COMMAND needed is recorded, and brought first the next time" {
	recv_run 0 --push=off --record needed -- "$G" "$C" map check
	[ "$(head -n 1 needed)" = "migtool-faults 1" ]
	[ "$(wc -l <needed)" -eq $((PAGES + 1)) ]
	head -n 101 needed >first
	recv_run 0 --push=off --prefetch first -- "$G" "$C" map check
}

@test "no room for IMAGE is waited for" {
	mkdir "$SHM/small"
	mount -t tmpfs -o size=$((PAGES * 2))k tmpfs "$SHM/small"
	C=$SHM/small/copy
	mkfifo go out
	migtool_start recv recv image:image "$C" -- \
		sh -c 'exec $G $C private map byte check say=right <go >out'
	exec 7<>go 8<>out
	wait_for_line recv.err 'it waits until there is'
	mount -o remount,size=$((PAGES * 8))k "$SHM/small"
	wait_for_line recv.err 'has all of its memory'
	echo >&7
	read -r -t 60 word <&8
	[ "$word" = right ]
	exec 7>&- 8>&-
	recv_wait recv
	cmp image "$C"
}

# killed WORD...: recv is killed when the guest has said its pid; then the guest looks at its pages.
killed() {
	rm -f go out "$C"
	mkfifo go out
	migtool_start recv recv --push=off image:image "$C" -- \
		sh -c "exec \$G \$C $* say=past <go >out"
	exec 7>go 8<out
	read -r GUEST <&8
	kill -KILL "${PEER_PIDS[recv]}"
	wait "${PEER_PIDS[recv]}" || true
	echo >&7
	wait_for_line "/proc/$GUEST/wchan" userfault
	run ! read -r -t 0.1 _ <&8
	kill -KILL "$GUEST"
	GUEST=
	exec 7>&- 8<&-
}

# A guest's page is still on its way when recv is killed: it waits, and does not read zeros.
@test "a recv that is killed leaves COMMAND waiting, and what it has forked" {
	killed 'map say=$$ byte check'
	killed map fork-late
}
