#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later
# A transfer that broke goes on: --retry by itself, --resume in new processes. tests/soak.py cuts at
# many more points.

bats_require_minimum_version 1.5.0
load helper
load tls

setup_file() {
	export IMAGES=$BATS_FILE_TMPDIR
	tls_make
	make_image random --size 24 "$IMAGES/random"
	make_image mixed --size 24 "$IMAGES/mixed"
	make_image directory "$IMAGES/directory"
	RANDOM=$((${SEED:-1} % 32768))
}

setup() {
	cd "$BATS_TEST_TMPDIR" || return
}

teardown() {
	peer_teardown
	[ -z "${SHM:-}" ] || rm -r "$SHM"
}

# cut_pair IMAGE COPY "POINTS" [SEND-OPTION]... [-- RECV-OPTION...]: a transfer with --retry over a
# link that breaks at the POINTS.
cut_pair() {
	local image=$1 copy=$2 points=$3 BEFORE BEHIND
	split_options "${@:4}"
	recv_start recv tcp:127.0.0.1:0 "$copy" --retry 9 "${BEHIND[@]}"
	# shellcheck disable=SC2086
	link_start "${RECV_URI##*:}" $points
	migtool_start send send --retry 9 "${BEFORE[@]}" "$image" "$LINK"
	migtool_wait send "${SEND_STATUS:-0}"
	migtool_wait recv "${RECV_STATUS:-0}"
	link_stop
}

# broken SEND-OPTIONS RECV-OPTIONS [IMAGE]: leaves copy.part of a transfer whose source was killed.
broken() {
	# shellcheck disable=SC2086
	listener_start recv recv --resume $2 unix:socket copy
	# shellcheck disable=SC2086
	migtool_start send send --bwlimit 8M $1 "${3:-$IMAGES/random}" unix:socket
	wait_for_data copy.part $((3 << 20))
	kill -KILL "${PEER_PIDS[send]}"
	wait_for_end send || true
	migtool_wait recv 10
}

# killed VICTIM SEND-OPTIONS RECV-OPTIONS: the same, of a transfer in which the VICTIM (send, recv) was
# killed, and which nobody had told of --resume.
killed() {
	# shellcheck disable=SC2086
	listener_start recv recv $3 unix:socket copy
	# shellcheck disable=SC2086
	migtool_start send send --bwlimit 8M $2 "$IMAGES/random" unix:socket
	wait_for_data copy.part $((3 << 20))
	kill -KILL "${PEER_PIDS[$1]}"
	wait_for_end send && return 1
	wait_for_end recv && return 1
	rm -f socket
}

# refused STATUS WORDS IMAGE [SEND-OPTION]...: what recv --resume has here is not for that source.
refused() {
	local status=$1 words=$2 image=$3
	shift 3
	listener_start recv recv --resume unix:socket copy
	migtool_start send send "$@" "$image" unix:socket
	migtool_wait send "$status"
	assert_error send "$words"
	kill "${PEER_PIDS[recv]}"
	migtool_wait recv 20
	grep -qF -- "$words" recv.err
}

# ---- by itself ----

@test "a link that is reset, closed or silent, again and again" {
	cut_pair "$IMAGES/random" copy "9000000:reset 300:close 5000000:close 400000:reset 700:reset"
	cmp "$IMAGES/random" copy
	assert_json send '."digest-verified"' '.owner == "destination"'
	assert_json recv '."digest-verified"' '.owner == "destination"'
	grep -q "going on with session" send.err
	grep -q "going on with session" recv.err
	[ ! -e copy.part ] && [ ! -e copy.part.session ]
	cut_pair "$IMAGES/mixed" copy "3000000:drop 2000000:reset" --timeout 2 -- --timeout 2 --force
	cmp "$IMAGES/mixed" copy
	# while the two ends compare, too
	cp "$IMAGES/random" copy
	cut_pair "$IMAGES/mixed" copy "3000:drop" --timeout 2 -- --timeout 2 --delta
	cmp "$IMAGES/mixed" copy
}

@test "what had come does not travel again" {
	cut_pair "$IMAGES/random" copy "20000000:close"
	cmp "$IMAGES/random" copy
	# all, once more what was in flight, and the digests
	assert_json send '.ram.transferred < 32000000'
}

@test "random points (SEED)" {
	local points
	for _ in 1 2 3; do
		points=
		for _ in 1 2 3; do
			points+=" $((RANDOM * RANDOM % 12000000 + 1)):$([ $((RANDOM % 2)) = 0 ] && echo reset || echo close)"
		done
		echo "points:$points"
		rm -rf copy
		cut_pair "$IMAGES/mixed" copy "$points"
		cmp "$IMAGES/mixed" copy
	done
}

@test "a directory with its device state, on tmpfs and on disk" {
	SHM=$(mktemp -d /dev/shm/migtool.XXXXXX)
	local to
	for to in copy "$SHM/copy"; do
		cut_pair "$IMAGES/directory" "$to/" "1500000:reset 500000:close"
		assert_same_image "$IMAGES/directory" "$to"
		cmp "$IMAGES/directory/device-state" "$to/device-state"
		[ ! -e "$to.part" ] && [ ! -e "$to.part.session" ]
	done
	cut_pair "$IMAGES/random" "$SHM/image" "9000000:reset"
	cmp "$IMAGES/random" "$SHM/image"
}

@test "several channels, compressed or not" {
	local options
	for options in "--cap multifd" "--cap compress" \
		"--cap multifd --param multifd-channels=4 --param multifd-compression=zstd"; do
		# shellcheck disable=SC2086
		cut_pair "$IMAGES/random" copy "7000000:reset 3000000:close" $options -- --force
		cmp "$IMAGES/random" copy
	done
}

@test "with TLS, on one connection and on several: each try shakes hands again" {
	local client="--param tls-creds=$TLS/client" server="--param tls-creds=$TLS/server"
	local psk="--param tls-creds=$TLS/psk"
	# shellcheck disable=SC2086
	cut_pair "$IMAGES/random" copy "9000000:reset 300:close 2500:reset" $client -- $server
	cmp "$IMAGES/random" copy
	assert_json send '."digest-verified"' '.owner == "destination"' '.ram.transferred < 40000000'
	[ ! -e copy.part ] && [ ! -e copy.part.session ]
	# shellcheck disable=SC2086
	cut_pair "$IMAGES/random" copy "7000000:close 3000000:reset" --cap multifd \
		--param multifd-channels=3 --param multifd-compression=zlib $psk -- --force $psk
	cmp "$IMAGES/random" copy
	assert_json recv '."digest-verified"' '.owner == "destination"'
}

@test "with an old copy: the second try compares with what the first one made" {
	cp "$IMAGES/mixed" copy
	make_image mixed --seed 5 --size 24 new
	cut_pair "$PWD/new" copy "4000000:reset" -- --delta
	cmp new copy
	cp "$IMAGES/mixed" copy
	cut_pair "$PWD/new" copy "4000000:reset" -- --delta --in-place
	cmp new copy
	[ ! -e copy.part.session ]
	cp "$IMAGES/mixed" copy
	cut_pair "$PWD/new" copy "3000000:close" --cap xbzrle --base "$IMAGES/mixed" -- --delta
	cmp new copy
}

@test "a cut at READY, COMMIT, DONE and behind them: both ends find out that it is done" {
	local point
	# READY's head and more, COMMIT in parts and whole, DONE in parts
	for point in =400100000028 =400100000028+20 =0840030000 =08400300000000 =08400300000000+3; do
		rm -f copy
		cut_pair "$IMAGES/mixed" copy "$point:close"
		echo "at $point"
		cmp "$IMAGES/mixed" copy
		assert_json send '.owner == "destination"' '."digest-verified"' .complete
		assert_json recv '.owner == "destination"' '."digest-verified"' .complete
		[ ! -e copy.part ]
	done
}

@test "the tries end, with the link's error" {
	recv_start recv tcp:127.0.0.1:0 copy --retry 9
	link_start "${RECV_URI##*:}" 9000000:reset 100:reset 100:reset 100:reset
	migtool_start send send --retry 2 "$IMAGES/random" "$LINK"
	migtool_wait send 10
	assert_json send '.owner == "source"'
	# twice, and longer after the second one
	sed -n 's/.*trying again in \([0-9.]*\) s.*/\1/p' send.err >pauses
	[ "$(wc -l <pauses)" -eq 2 ]
	sort -gu pauses | cmp - pauses
	kill -TERM "${PEER_PIDS[recv]}"
	migtool_wait recv 20
	grep -q "copy.part is kept" recv.err || grep -q "waiting for the other end" recv.err
	[ -e copy.part ]
	link_stop
	run_pair unix:socket "$IMAGES/random" copy --resume -- --resume
	cmp "$IMAGES/random" copy
}

@test "a source that is refused does not try again" {
	: >copy
	echo something >copy
	cp copy before
	listener_start recv recv --delta unix:socket copy
	migtool_start send send --retry 5 --cap xbzrle --base "$IMAGES/mixed" "$IMAGES/random" unix:socket
	wait_for_end send && return 1
	run ! grep -q "trying again" send.err
	cmp before copy
}

@test "nobody else is let in between two tries" {
	listener_start recv recv --retry 3 unix:socket copy
	migtool_start send send --bwlimit 8M "$IMAGES/random" unix:socket
	wait_for_data copy.part $((3 << 20))
	kill -KILL "${PEER_PIDS[send]}"
	wait_for_end send || true
	migtool_start other send "$IMAGES/mixed" unix:socket
	migtool_wait other 5
	assert_error other "is waited for, to go on with it, and the source begins another"
	migtool_start send send --resume "$IMAGES/random" unix:socket
	migtool_wait send
	migtool_wait recv
	cmp "$IMAGES/random" copy
	assert_json send '.ram.normal < 6144 - 700'
}

# ---- in new processes ----

@test "--resume goes on, with other channels and another codec" {
	broken "" ""
	grep -q "copy.part is kept: .recv --resume. here and .send --resume. there go on with it" recv.err
	[ -s copy.part.session ]
	run_pair unix:socket "$IMAGES/random" copy --resume --cap multifd \
		--param multifd-channels=3 --param multifd-compression=zstd -- --resume
	cmp "$IMAGES/random" copy
	assert_json send '.ram.normal < 6144 - 700' '.owner == "destination"'
	[ ! -e copy.part ] && [ ! -e copy.part.session ]
}

# resumed [STATUS]: the last transfer went on with what `broken` has left.
resumed() {
	cmp "$IMAGES/random" copy
	assert_json send '.ram.normal < 6144 - 700' '.owner == "destination"' '."digest-verified"'
	[ ! -e copy.part ] && [ ! -e copy.part.session ]
	rm copy
}

@test "--resume over the other two-way transports" {
	broken "" ""
	migtool_start send send --resume "$IMAGES/random" "exec:exec '$MIGTOOL' recv --resume stdio: copy"
	migtool_wait send
	resumed
	broken "" ""
	listener_start send send --listen --resume "$IMAGES/random" unix:socket
	migtool_start recv recv --connect --resume unix:socket copy
	migtool_wait send
	migtool_wait recv
	resumed
	broken "" ""
	"$TOOLS/with_fds.py" pair "$MIGTOOL" send --json --resume "$IMAGES/random" fd:3 --- \
		"$MIGTOOL" recv -q --resume fd:3 copy >send.json 3>&- 4>&-
	[ "$(tail -n 1 send.json)" = "0 0" ]
	sed -i '$d' send.json
	resumed
	broken "" ""
	run_pair tcp:127.0.0.1:0 "$IMAGES/random" copy --resume -- --resume
	resumed
}

@test "--resume after either end was killed, with other channels, another codec, TLS or without" {
	local psk="--param tls-creds=$TLS/psk" one="" other victim=recv
	for other in "--cap multifd --param multifd-compression=zstd" \
		"--cap multifd --param multifd-channels=5" "--cap compress"; do
		victim=$([ "$victim" = recv ] && echo send || echo recv)
		killed "$victim" "$one $psk" "$psk $([ "$victim" = recv ] || echo --resume)"
		# shellcheck disable=SC2086
		run_pair unix:socket "$IMAGES/random" copy --resume $other $psk -- --resume $psk
		cmp "$IMAGES/random" copy
		assert_json send '.ram.normal < 6144 - 700' '."digest-verified"'
		[ ! -e copy.part ] && [ ! -e copy.part.session ]
		rm copy
		one=$other
	done
	# begun with TLS, gone on with without it, and the other way round
	killed recv "$one $psk" "$psk"
	run_pair unix:socket "$IMAGES/random" copy --resume -- --resume
	cmp "$IMAGES/random" copy
	rm copy
	killed recv "" ""
	# shellcheck disable=SC2086
	run_pair unix:socket "$IMAGES/random" copy --resume $psk -- --resume $psk
	cmp "$IMAGES/random" copy
}

@test "--resume after the destination was killed, whatever was told of it" {
	listener_start recv recv unix:socket copy
	migtool_start send send --bwlimit 8M "$IMAGES/random" unix:socket
	wait_for_data copy.part $((3 << 20))
	kill -KILL "${PEER_PIDS[recv]}"
	wait_for_end recv || true
	migtool_wait send 10
	run_pair unix:socket2 "$IMAGES/random" copy --resume -- --resume
	cmp "$IMAGES/random" copy
	assert_json send '.ram.normal < 6144 - 700'
}

@test "what is in a .part is not believed: digests find what is wrong in it" {
	broken "" ""
	printf 'wrong' | dd of=copy.part bs=1 seek=100000 conv=notrunc status=none
	printf 'wrong' | dd of=copy.part bs=1 seek=20000000 conv=notrunc status=none
	run_pair unix:socket "$IMAGES/random" copy --resume -- --resume
	cmp "$IMAGES/random" copy
	broken "" --force
	echo nonsense >copy.part.session
	run_pair unix:socket "$IMAGES/random" copy --resume -- --resume --force
	cmp "$IMAGES/random" copy
}

@test "a .part of another session, or of another image, is not gone on with" {
	broken "" ""
	cp copy.part before
	refused 5 "copy.part is of an earlier session" "$IMAGES/mixed"
	cmp before copy.part
	make_image random --size 8 small
	refused 5 "copy.part has 25165824 bytes, but block pc.ram has 8388608" small --resume
	cmp before copy.part
	refused 5 "copy.part is no directory" "$IMAGES/directory" --resume
	cmp before copy.part
	# without --resume it is a leftover, as ever
	run_pair unix:socket "$IMAGES/mixed" copy
	cmp "$IMAGES/mixed" copy
	[ ! -e copy.part ] && [ ! -e copy.part.session ]
}

@test "SIGINT and --timeout keep it, too" {
	listener_start recv recv --resume unix:socket copy
	migtool_start send send --bwlimit 8M "$IMAGES/random" unix:socket
	wait_for_data copy.part $((2 << 20))
	kill -INT "${PEER_PIDS[recv]}"
	migtool_wait recv 20
	wait_for_end send && return 1
	grep -q "copy.part is kept" recv.err
	listener_start recv recv --resume --timeout 1 unix:socket copy
	migtool_start send send --bwlimit 8M --resume "$IMAGES/random" unix:socket
	wait_for_data copy.part $((6 << 20))
	kill -STOP "${PEER_PIDS[send]}"
	migtool_wait recv 30
	kill -KILL "${PEER_PIDS[send]}"
	wait_for_end send || true
	grep -q "copy.part is kept" recv.err
	run_pair unix:socket "$IMAGES/random" copy --resume -- --resume
	cmp "$IMAGES/random" copy
}

@test "nothing to go on with: --resume is a transfer like any other" {
	run_pair unix:socket "$IMAGES/mixed" copy --resume -- --resume
	cmp "$IMAGES/mixed" copy
	assert_agreed
	rm copy
	run_pair unix:socket "$IMAGES/mixed" copy -- --resume
	cmp "$IMAGES/mixed" copy
	rm copy
	run_pair unix:socket "$IMAGES/mixed" copy --resume
	cmp "$IMAGES/mixed" copy
}

# ---- after COMMIT ----

COMMIT=08400300000000 # what it is on the wire

# unanswered POINT IMAGE COPY [RECV-OPTION]...: the link is cut there, nobody tries again.
unanswered() {
	local point=$1 image=$2 copy=$3
	shift 3
	recv_start recv tcp:127.0.0.1:0 "$copy" "$@"
	link_start "${RECV_URI##*:}" "$point:close"
	migtool_start send send "${SEND[@]}" "$image" "$LINK"
	migtool_wait send 50
	wait_for_end recv || true
	link_stop
	assert_json send '.owner == "unknown"'
	grep -q "hint: ask it: .recv --resume. there, then .send --resume. here" send.err
}

@test "COMMIT did not arrive: --resume asks, and the complete .part becomes IMAGE" {
	SEND=()
	unanswered "=${COMMIT:0:10}" "$IMAGES/mixed" copy
	[ -e copy.part ] && [ ! -e copy ]
	inode=$(stat -c %i copy.part)
	run_pair unix:socket "$IMAGES/mixed" copy --resume -- --resume
	cmp "$IMAGES/mixed" copy
	[ "$(stat -c %i copy)" = "$inode" ]
	assert_json send '.owner == "destination"' '.ram.normal == 0' '."digest-verified"'
	[ ! -e copy.part ]
	SEND=()
	unanswered "=${COMMIT:0:10}" "$IMAGES/directory" dir/
	[ -e dir.part/manifest.json ]
	run_pair unix:socket "$IMAGES/directory" dir/ --resume -- --resume
	assert_same_image "$IMAGES/directory" dir
	cmp "$IMAGES/directory/device-state" dir/device-state
	assert_json send '.ram.normal == 0'
}

@test "DONE did not arrive: --resume finds the image, and writes nothing to it" {
	SEND=()
	unanswered "=$COMMIT" "$IMAGES/mixed" copy
	[ ! -e copy.part ]
	before=$(stat -c '%i %Y %Z' copy)
	run_pair unix:socket "$IMAGES/mixed" copy --resume -- --resume
	[ "$(stat -c '%i %Y %Z' copy)" = "$before" ]
	cmp "$IMAGES/mixed" copy
	assert_json send '.owner == "destination"' '.ram.normal == 0' '."digest-verified"'
}

@test "a device state of its own is asked for as well" {
	head -c 100000 "$IMAGES/random" >device
	SEND=(--device-state device)
	unanswered "=${COMMIT:0:10}" "$IMAGES/mixed" copy --device-state state
	[ -e state.part ]
	run_pair unix:socket "$IMAGES/mixed" copy --resume "${SEND[@]}" -- --resume --device-state state
	cmp device state
	cmp "$IMAGES/mixed" copy
	[ ! -e copy.part ] && [ ! -e state.part ]
	rm copy state
	unanswered "=$COMMIT" "$IMAGES/mixed" copy --device-state state
	run_pair unix:socket "$IMAGES/mixed" copy --resume "${SEND[@]}" -- --resume --device-state state
	cmp device state
	cmp "$IMAGES/mixed" copy
}

@test "a complete image that is another one is not touched, and the owner stays unknown" {
	SEND=()
	unanswered "=${COMMIT:0:10}" "$IMAGES/mixed" copy
	cp copy.part before
	recv_start recv unix:socket copy --resume
	migtool_start send send --resume "$IMAGES/random" unix:socket
	migtool_wait send 50
	migtool_wait recv 4
	assert_error send "the destination has a complete image that is not ours"
	assert_error recv "copy.part is complete, and differs from the source's image"
	assert_json send '.owner == "unknown"'
	cmp before copy.part
	mv copy.part copy
	recv_start recv unix:socket copy --resume
	migtool_start send send --resume "$IMAGES/random" unix:socket
	migtool_wait send 50
	migtool_wait recv 4
	cmp before copy
}

@test "until the destination has answered, a source that resumes does not say that it owns" {
	migtool_start send send --resume "$IMAGES/mixed" unix:nobody
	migtool_wait send 35
	assert_json send '.owner == "unknown"'
}

# ---- what cannot be ----

@test "--resume and --retry say where they cannot be" {
	run -1 "$MIGTOOL" send --resume "$IMAGES/mixed" file:stream
	[[ $output == *"--resume needs a transport with two ways"* ]]
	run -1 "$MIGTOOL" recv --retry 2 --one-way tcp:127.0.0.1:0 copy
	[[ $output == *"--retry needs a transport with two ways"* ]]
	run -1 "$MIGTOOL" send --retry 2 "$IMAGES/mixed" stdio: </dev/null
	[[ $output == *"stdio: cannot be connected to again"* ]]
	run -1 "$MIGTOOL" send --resume --peer qemu --machine pc-i440fx-7.2 "$IMAGES/mixed" unix:nobody
	[[ $output == *"a QEMU cannot go on"* ]]
	run -1 "$MIGTOOL" send --retry x "$IMAGES/mixed" unix:nobody
	[ ! -e stream ]
}
