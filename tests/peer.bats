#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later
# migtool-stream(5) and migtool agree: a peer that was written from the page alone is the other end,
# says what it may and what it may not, and the page's example is what migtool writes.

bats_require_minimum_version 1.5.0
load qemu

PEER=$BATS_TEST_DIRNAME/tools/migtool_peer.py

setup_file() {
	"$BATS_TEST_DIRNAME/tools/make_image.py" --size 2 directory "$BATS_FILE_TMPDIR/image"
}

setup() {
	cd "$BATS_TEST_TMPDIR" || return
	IMAGE=$BATS_FILE_TMPDIR/image
}

teardown() {
	peer_teardown
}

# destination_start [OPTION]...: the peer as a destination, listening on `socket`; its copy is `copy`.
destination_start() {
	rm -rf copy socket
	"$PEER" receive --listen "$@" socket copy >peer.json 2>peer.err 3>&- 4>&- &
	peer_started peer
	wait_until test -S socket
}

# source_run STATUS [OPTION]... [-- RECV-OPTION...]: the peer as the source of a `recv`, which has to
# end with STATUS.
source_run() {
	local status=$1 BEFORE BEHIND
	split_options "${@:2}"
	rm -rf copy copy.part socket
	recv_start recv unix:socket copy/ "${BEHIND[@]}"
	"$PEER" send "${BEFORE[@]}" socket "$IMAGE" >peer.json 2>peer.err 3>&- 4>&- || true
	recv_wait recv "$status"
}

assert_copy() {
	assert_same_image "$IMAGE" copy
	cmp "$IMAGE/device-state" copy/device-state
	rm -rf copy
}

@test "the peer receives what send sends, with every feature and without" {
	local features
	for features in page-runs,multifd-2 page-runs ""; do
		destination_start --features "$features"
		"$MIGTOOL" send -q "$IMAGE" unix:socket
		wait_for_end peer
		assert_copy
		jq -e --arg f "$features" '(.records."zero-run" > 0) == ($f != "") and
			.sections == "spe"' peer.json
	done
}

@test "the peer receives over channels, packets of both versions" {
	local features method
	for features in page-runs,multifd-2 multifd-2 page-runs ""; do
		for method in none zlib zstd; do
			# python has no zstd: it cannot follow a frame over many packets
			[[ $method != zstd || $features == *multifd-2* ]] || continue
			destination_start --features "$features" --channels 3
			"$MIGTOOL" send -q --cap multifd --param multifd-channels=5 \
				--param multifd-compression=$method "$IMAGE" unix:socket
			wait_for_end peer
			assert_copy
			jq -e '.channels == 3 and .packets > 6 and .records.flush == 2' peer.json
		done
	done
}

@test "the peer receives compressed pages, and deltas round by round" {
	destination_start
	"$MIGTOOL" send -q --cap compress "$IMAGE" unix:socket
	wait_for_end peer
	assert_copy
	jq -e '.records.compress > 100' peer.json
	{
		echo round
		for ((i = 0; i < 100; i++)); do echo "write pc.ram $((i * 4096 + i)) 3 $i"; done
		echo round
		for ((i = 0; i < 100; i++)); do echo "write pc.ram $((i * 4096 + i * 2)) 30 0"; done
	} >rounds
	destination_start
	"$MIGTOOL" send -q --json --cap xbzrle --x-replay-dirty rounds "$IMAGE" unix:socket >send.json
	wait_for_end peer
	jq -e '.records.xbzrle > 50 and .sections == "spppe"' peer.json
	jq -e '."digest-verified"' send.json
}

@test "the peer receives larger pages" {
	"$TOOLS/make_image.py" --size 1 mixed guest.mem
	destination_start
	"$MIGTOOL" send -q --page-size 16384 guest.mem unix:socket
	wait_for_end peer
	cmp guest.mem copy/ram/pc.ram
	jq -e '.greeting."page-size" == 16384' peer.json
}

@test "the peer dials a listening send, and is dialled by none but its own" {
	listener_start send send --listen --cap multifd --param multifd-channels=2 "$IMAGE" unix:socket
	"$PEER" receive socket copy >peer.json
	migtool_wait send
	assert_copy
	jq -e '.channels == 2' peer.json
}

@test "the peer may take its time, and is waited for" {
	destination_start --waits 3
	"$MIGTOOL" send -q "$IMAGE" unix:socket
	wait_for_end peer
	assert_copy
}

@test "the peer reads a one-way stream, and writes one" {
	"$MIGTOOL" send -q --one-way "$IMAGE" file:stream
	"$PEER" receive --one-way stream copy
	assert_copy
	"$PEER" send --one-way stream2 "$IMAGE"
	"$MIGTOOL" recv -q file:stream2 copy/
	assert_copy
}

@test "recv receives what the peer sends, with every feature and without" {
	local features
	for features in page-runs,multifd-2 page-runs ""; do
		source_run 0 --features "$features"
		assert_copy
		jq -e '.done and (.answer.features | index("unheard-of") | not)' peer.json
		assert_json recv '."digest-verified"' '.owner == "destination"'
		[ "$(jq -r '.digest[:32]' peer.json)" = "$(jq -r .digest recv.json)" ]
	done
}

@test "recv receives over channels, packets of both versions" {
	local features method
	for features in page-runs,multifd-2 page-runs; do
		for method in none zlib zstd; do
			[[ $method != zstd || $features == *multifd-2* ]] || continue
			source_run 0 --features "$features" --channels 4 --method $method -- \
				--param multifd-channels=3
			assert_copy
			jq -e '.answer.parameters."multifd-channels" == 3 and .done' peer.json
		done
	done
}

@test "connections of strangers between the channels are dropped" {
	source_run 0 --channels 2 --strangers
	assert_copy
	[ "$(grep -c 'names another session' recv.err)" -eq 3 ]
	[ "$(grep -c 'is no multifd channel' recv.err)" -eq 3 ]
}

@test "channels that nobody here asked for have a budget of memory" {
	recv_start recv unix:socket copy/
	"$PEER" send --dry-run --features page-runs --channels 255 --method zstd socket "$IMAGE" \
		>peer.json || true
	jq -e '.answer.take == false and (.answer.reason |
		test("255 multifd channels \\(zstd\\) need 8.* GiB of memory here, at most 1.00 GiB"))' peer.json
	grep -q 'hint: --param multifd-channels=N' recv.err
	# a frame for each packet needs no window
	"$PEER" send --dry-run --channels 255 --method zstd socket "$IMAGE" >peer.json
	jq -e .answer.take peer.json
	kill "${PEER_PIDS[recv]}"
	recv_wait recv 20
	recv_start recv unix:socket copy/ --param multifd-channels=255
	"$PEER" send --dry-run --features page-runs --channels 255 --method zstd socket "$IMAGE" >peer.json
	jq -e .answer.take peer.json
}

@test "a dry run of the peer's does not use recv up" {
	recv_start recv unix:socket copy/
	"$PEER" send --dry-run socket "$IMAGE" >peer.json
	jq -e .answer.take peer.json
	[ ! -e copy.part ]
	"$PEER" send socket "$IMAGE" >peer.json
	recv_wait recv
	assert_copy
}

@test "a greeting that the page forbids is refused in so many words, and recv listens on" {
	recv_start recv unix:socket copy/
	local name status words tried=0
	while IFS=$'\t' read -r name status words; do
		"$PEER" send --wrong "$name" socket "$IMAGE" >peer.json || true
		jq -e --arg s "$status" '.answer.take == false and .answer.status == ($s | tonumber)' \
			peer.json || { echo "$name: $(cat peer.json)"; return 1; }
		jq -r .answer.reason peer.json | grep -qF -- "$words" || { cat peer.json; return 1; }
		grep -qF -- "$words" recv.err
		tried=$((tried + 1))
	done < <("$PEER" wrong-greeting)
	[ "$tried" -ge 12 ]
	[ "$(grep -c $'\x1b' recv.err)" -eq 0 ]
	"$PEER" send socket "$IMAGE"
	recv_wait recv
	assert_copy
}

# refuses LIST [OPTION]...: recv ends as LIST says, tells the peer, and leaves nothing.
refuses() {
	local name status words bad=0 tried=0 timeout
	while IFS=$'\t' read -r name status words; do
		# longer than the second between keepalives: our own must not keep us waiting
		timeout=60
		[ "$status" -ne 30 ] || timeout=3
		source_run "$status" --wrong "$name" "${@:2}" -- --timeout "$timeout" || {
			echo "$name"
			bad=1
		}
		grep -qF -- "$words" recv.err || { echo "$name: $(cat recv.err)"; bad=1; }
		if [ -e copy ] || { [ -e copy.part ] && [[ $name != *-late && $name != no-commit ]]; }; then
			echo "$name: something was left behind"
			bad=1
		fi
		case $name in
		failed | no-commit | *-late | cut | no-sync) ;;
		*) jq -e --arg s "$status" '.failed.status == ($s | tonumber)' peer.json >/dev/null || {
			echo "$name: the peer heard $(cat peer.json)"
			bad=1
		} ;;
		esac
		tried=$((tried + 1))
	done < <("$PEER" "$1")
	[ "$tried" -ge 10 ] && [ "$bad" -eq 0 ]
}

@test "a stream that the page forbids is refused, and the source hears why" {
	refuses wrong-send
	[ "$(grep -c $'\x1b' recv.err)" -eq 0 ]
}

@test "memory that came without COMMIT is kept until somebody decides, whoever comes next" {
	local force
	source_run 50 --wrong no-commit
	grep -qF "rename copy.part to its name without .part, else remove it" recv.err
	for force in "" --force; do
		[ "$(timeout 60 "$MIGTOOL" recv $force unix:socket copy/ 2>next.err; echo $?)" -eq 11 ]
		grep -qF "copy.part is complete and may be the only copy of a guest" next.err
		grep -qF "rename it to copy; else delete it" next.err
	done
	mv copy.part copy
	assert_copy
}

@test "channels and packets that the page forbids are refused, and the source hears why" {
	refuses wrong-send-multifd --channels 2
}

@test "a destination that does what the page forbids, or refuses, ends send" {
	local name status words bad=0 rc tried=0 option
	while IFS=$'\t' read -r name status words; do
		destination_start --wrong "$name"
		[ "$name" = no-channels ] && option=multifd || option=multifd=off
		rc=0
		timeout 60 "$MIGTOOL" send -q --cap "$option" "$IMAGE" unix:socket 2>send.err 3>&- || rc=$?
		wait_for_end peer || true
		if [ "$rc" -ne "$status" ] || ! grep -qF -- "$words" send.err; then
			echo "$name: ended with $rc: $(cat send.err)"
			bad=1
		fi
		tried=$((tried + 1))
	done < <("$PEER" wrong-receive)
	[ "$tried" -ge 10 ] && [ "$bad" -eq 0 ]
}

# The page's example, made anew. The session's id is random: it becomes the page's.
example() {
	local id=$1
	truncate -s 12K image # all hole but what is written now
	head -c 4096 /dev/zero | tr '\0' B >>image
	head -c 4096 /dev/zero | tr '\0' A | dd of=image conv=notrunc status=none
	"$MIGTOOL" send -q --one-way image file:stream
	LC_ALL=C sed -i -E "s/(\"session\":\")[0-9a-f]{32}/\1$id/" stream
	mkdir -p small/ram
	cp image small/ram/pc.ram
	recv_start recv unix:socket copy/
	"$PEER" send --record words socket small >/dev/null
	recv_wait recv
	for file in stream words.answer words.end; do
		od -A x -t x1z $file
	done
	"$PEER" term image 0
	"$PEER" term image 0x3000
}

@test "the page's example is what migtool writes" {
	mandoc -T ascii -O width=100 "$BATS_TEST_DIRNAME/../man/migtool-stream.5" | col -bx |
		sed -n '/^EXAMPLES/,/^SEE/p' >page
	grep -E '^ +([0-9a-f]{6}( |$)|[0-9a-f]{32}$|\*$)' page | sed 's/^ *//' >wanted
	[ "$(wc -l <wanted)" -gt 50 ]
	example 00112233445566778899aabbccddeeff >made
	diff wanted made
}
