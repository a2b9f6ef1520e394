#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later
# Between two migtools: a part of the memory goes ahead, and the guest runs at the destination when that is
# there (--postcopy-after, SIGUSR2). The guests are tests/guest/vmm.c and maps.c, which look at every page.

# shellcheck disable=SC2016,SC2030,SC2031,SC2154 # scripts for sh; what bats sets

bats_require_minimum_version 1.5.0
load helper

VMM=$(dirname "$MIGTOOL")/guest/vmm
PAGES=1500
RANDOM=${SEED:-1} # the random points are the same in each run

setup_file() {
	export IMAGES=$BATS_FILE_TMPDIR
	guest_images 16 "$PAGES"
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
	rm -f go
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

# vmm_pair PERCENT [VMM-OPTION]... [-- RECV-OPTION...]: recv, a VMM, and send (SEND), all three running.
vmm_pair() {
	local percent=$1 BEFORE BEHIND
	split_options "${@:2}"
	rm -f u
	listener_start recv recv --uffd-socket socket "${BEHIND[@]}"
	vmm_start "${BEFORE[@]}"
	send_guest "$percent" "${SEND[@]}"
}

send_guest() { # PERCENT [OPTION]...
	migtool_start send send --cap postcopy-ram --postcopy-after="$1" "${@:2}" guest \
		"${LINK:-$RECV_URI}"
}

# Both ends are at their end, and say the same; nobody has to be there any more.
whole() {
	migtool_wait send
	migtool_wait recv
	assert_agreed
	vmm_finish
}

port() { # URI
	echo "${1##*:}"
}

@test "so much goes ahead, and the rest follows" {
	local digest
	SEND=()
	vmm_pair 40 --remove -- unix:u
	whole
	assert_json send '.ram."precopy-bytes" > 4500000' '.ram."precopy-bytes" < 6000000' \
		'.ram."postcopy-bytes" > 6000000'
	assert_json recv '.ram."precopy-bytes" > 4500000' '.ram."postcopy-bytes" > 6000000'
	digest=$(jq .digest recv.json)
	# all of it: the digest is the same, and the guest asks for nothing
	vmm_pair 100 --regions 4 -- tcp:127.0.0.1:0
	whole
	assert_json send '.ram."precopy-bytes" > 12000000' '.ram."postcopy-bytes" < 4096' \
		'.ram."postcopy-requests" == 0'
	[ "$(jq .digest recv.json)" = "$digest" ]
}

@test "what has come ahead is not asked for, and not pushed" {
	SEND=()
	vmm_pair 100 -- --push=off --record needed unix:u
	vmm_finish
	migtool_wait send
	migtool_wait recv
	assert_json send '.complete == false' '.ram."postcopy-requests" == 0' '.owner == "destination"'
	[ "$(head -n 1 needed)" = "migtool-faults 1" ]
	# of what has not, only what is touched moves
	vmm_pair 50 --touch 10 -- --push=off --prefetch needed unix:u
	vmm_finish
	migtool_wait send
	migtool_wait recv
	assert_json send '.complete == false' '.ram."postcopy-requests" > 0' '.ram."precopy-bytes" > 6000000'
}

@test "the guest sees nothing before SIGUSR2, whenever that comes" {
	local i
	for i in 1 2 3; do
		# all of it would take 12 seconds
		SEND=(--bwlimit 1M)
		vmm_pair 100 --remove --seed $i -- -v unix:u
		wait_for_line recv.err 'the source is'
		sleep "0.$((RANDOM % 4))"
		[ ! -s vmm.out ]
		kill -USR2 "${PEER_PIDS[send]}"
		whole
		assert_json send '.ram."postcopy-bytes" > 1000000'
	done
}

@test "COMMAND begins behind what went ahead, however it maps its memory" {
	local words push=on
	for words in "map check" "private map fork check" "private map check drop check" \
		"map move check drop check" "thread check" "halves check fork"; do
		rm -f "$C" u
		listener_start recv recv --cap postcopy-ram --push=$push unix:u "$C" -- \
			sh -c "\$G \$C $words; echo \$? >status"
		migtool_start send send --cap postcopy-ram --postcopy-after=60 image "$RECV_URI"
		migtool_wait send
		migtool_wait recv
		[ $push = off ] || assert_agreed
		wait_for_file status
		[ "$(cat status)" = 0 ]
		cmp image "$C"
		rm status
		[ $push = on ] && push=off || push=on
	done
}

@test "a process that runs already gets what went ahead, too" {
	truncate -s $((PAGES * 4096)) "$C"
	mkfifo out go
	exec 6<>go
	"$G" "$C" map say=ready byte check say=right sleep <go >out 3>&- 4>&- 6>&- &
	peer_started guest
	exec 5<out
	read -r _ <&5
	listener_start recv recv --guest "${PEER_PIDS[guest]}" --force unix:u "$C"
	migtool_start send send --cap postcopy-ram --postcopy-after=50 image "$RECV_URI"
	migtool_wait send
	migtool_wait recv
	assert_agreed
	echo >&6
	read -r line <&5
	[ "$line" = right ]
	cmp image "$C"
}

@test "huge pages that went in part travel once more" {
	local digest after
	huge_pages 8
	SEND=()
	for after in 0 37; do
		vmm_pair $after --huge --regions 2 -- unix:u
		whole
		[ "$after" = 0 ] || [ "$(jq .digest recv.json)" = "$digest" ]
		digest=$(jq .digest recv.json)
	done
}

@test "an IMAGE is kept beside the guest's memory, and release-ram gives the source's back" {
	cp --sparse=always "$IMAGES/guest" "$SHM/guest"
	ln -sf "$SHM/guest" guest
	SEND=(--cap release-ram --cap pause-before-switchover)
	vmm_pair 70 -- unix:u kept
	wait_for_line recv.err 'the source waits for its user'
	[ ! -s vmm.out ]
	[ "$(stat -c %b "$SHM/guest")" -gt 0 ]
	kill -USR2 "${PEER_PIDS[send]}"
	whole
	cmp "$IMAGES/guest" kept
	assert_sparse kept
	[ "$(stat -c %b "$SHM/guest")" -eq 0 ]
}

@test "what was written after it was sent is taken back" {
	"$TOOLS/dirty_rounds.py" --seed "${SEED:-1}" image pc.ram 0x100000 0x500000 dirty
	rm -f "$C"
	listener_start recv recv --cap postcopy-ram unix:u "$C" -- \
		sh -c 'echo $$ >guest.pid; exec "$G" "$C" map sleep'
	migtool_start send send --cap postcopy-ram --cap xbzrle --cap compress --postcopy-after=90 \
		--x-replay-dirty dirty.rounds image "$RECV_URI"
	migtool_wait send
	migtool_wait recv
	assert_agreed
	cmp dirty.ram "$C"
}

@test "before the switch the source has the guest, and it was never started" {
	# the source dies
	listener_start recv recv -v --cap postcopy-ram unix:u "$C" -- sh -c 'echo >started; exec sleep 1000'
	migtool_start send send --cap postcopy-ram --postcopy-after=100 --bwlimit 500K image "$RECV_URI"
	wait_for_line recv.err 'the source is'
	kill -KILL "${PEER_PIDS[send]}"
	migtool_wait send 137
	migtool_wait recv 10
	assert_json recv '.owner == "source"' '.status == "failed"'
	[ ! -e started ]
	assert_nothing "$C"
	# its user changes his mind
	SEND=(--bwlimit 1M)
	vmm_pair 100 -- -v unix:u
	wait_for_line recv.err 'the source is'
	kill -TERM "${PEER_PIDS[send]}"
	migtool_wait send 20
	assert_json send '.owner == "source"' '.status == "cancelled"'
	migtool_wait recv 20
	assert_json recv '.owner == "source"'
	[ ! -s vmm.out ]
}

@test "a link that breaks before the switch, and behind it: both go on" {
	local points
	for points in 2000000:close "2000000:reset 9500000:close" 9500000:reset; do
		listener_start recv recv --uffd-socket socket --retry 5 tcp:127.0.0.1:0
		# shellcheck disable=SC2086 # a list
		link_start "$(port "$RECV_URI")" $points
		vmm_start --remove --regions 2
		send_guest 50 --retry 5
		migtool_wait send
		migtool_wait recv
		vmm_finish
		assert_json recv .complete '."digest-verified"' '.owner == "destination"'
		[[ $points != *9500000* ]] || assert_json send '."digest-scope" == "since-recovery"'
		[[ $points == *9500000* ]] || assert_json send '."digest-scope" != "since-recovery"'
		[ "$(tail -n 1 send.json | jq .digest)" = "$(tail -n 1 recv.json | jq .digest)" ]
		link_stop
		LINK=
	done
}
