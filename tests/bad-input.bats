#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later
# What a migtool does when the other end, the disk or the user does not do what it expects. Always
# the same has to be true afterwards: a status and a message that say what was wrong, nothing under
# the final name, nothing left over, the source as it was, and an end within --timeout.
# What a QEMU may do wrong is in streams.bats.

bats_require_minimum_version 1.5.0
load helper

setup_file() {
	export IMAGES=$BATS_FILE_TMPDIR
	make_image mixed "$IMAGES/mixed"
	make_image directory --size 1 "$IMAGES/directory"
	make_image holes --size 1 "$IMAGES/holes"
	truncate -s 32K "$IMAGES/zeros"
	"$MIGTOOL" send -qq "$IMAGES/directory" "file:$IMAGES/recorded"
	"$TOOLS/bad_migtool_streams.py" "$IMAGES/recorded" "$IMAGES/cases"
}

setup() {
	cd "$BATS_TEST_TMPDIR" || return
	CASES=$IMAGES/cases
}

teardown() {
	peer_teardown
}

# try_cases PATTERN: a recv of each stream of that name; says all that is wrong, not only the first.
try_cases() {
	local name status words rc tried=0 bad=0
	while read -r name status words; do
		# shellcheck disable=SC2053
		[[ $name == $1 ]] || continue
		tried=$((tried + 1)) rc=0
		rm -rf copy
		timeout 20 "$MIGTOOL" recv -q --progress=none "file:$CASES/$name.stream" copy \
			>out 2>err </dev/null 3>&- 4>&- || rc=$?
		if [[ ,$status, != *,$rc,* ]]; then
			echo "$name: ended with $rc instead of $status: $(head -c 500 err)"
			bad=1
		elif [ "$rc" -ne 0 ] && ! grep -F "error: " err | grep -qF -- "$words"; then
			echo "$name: does not say \"$words\": $(head -c 500 err)"
			bad=1
		elif [ -e copy.part ] || { [ "$rc" -ne 0 ] && [ -e copy ]; }; then
			echo "$name: left something behind"
			bad=1
		fi
	done <"$CASES/cases"
	[ "$tried" -gt 0 ] && [ "$bad" -eq 0 ]
}

# ---- streams ----

@test "odd streams that are right are taken" {
	try_cases "good*"
	try_cases "good-paths-as-names"
	[ ! -e /tmp/escaped ] && [ "$(ls copy/ram)" = $'%2E.\n%2E.%2F..%2F..%2F..%2F..%2Ftmp%2Fescaped\n%2Ftmp%2Fescaped' ]
}

@test "a bad greeting gives its status and says what is wrong" {
	try_cases "greeting-*"
}

@test "a bad element, command or digest" {
	try_cases "element-*"
	try_cases "command-*"
	try_cases "digest-*"
}

@test "a bad record" {
	try_cases "*run*"
	try_cases "compressed-*"
	try_cases "ignore-*"
}

@test "a page for memory that is shared is refused, and that memory stays as it is" {
	local name
	mkdir -p image/ram
	truncate -s 32K image/ram/pc.ram
	for name in shared-page shared-zeros; do
		run -12 "$MIGTOOL" recv --cap x-ignore-shared "file:$CASES/$name.stream" image
		[[ $output == *"block pc.ram, offset 0x0: a page of shared memory"* ]]
		cmp "$IMAGES/zeros" image/ram/pc.ram
		[ ! -e image.part ] && [ "$(ls image)" = ram ]
	done
	run -0 "$MIGTOOL" recv --cap x-ignore-shared "file:$CASES/shared-good.stream" image
	cmp "$IMAGES/zeros" image/ram/pc.ram
	[ -e image/manifest.json ]
}

@test "a stream that is cut in the middle of anything, or behind it" {
	try_cases "cut-*"
}

# ---- sources that misbehave ----

# fake_peer.py in the background.
peer_start() { # NAME ROLE ADDRESS SCRIPT
	local name=$1
	shift
	rm -f "$PEER_DIR/$name.out"
	"$TOOLS/fake_peer.py" "$@" >"$PEER_DIR/$name.out" 2>"$PEER_DIR/$name.err" </dev/null 3>&- 4>&- &
	peer_started "$name"
}


# try_source SCRIPT STATUS WORDS [RECV-OPTION]...: a recv that such a source comes to.
try_source() {
	local script=$1 status=$2 words=$3
	shift 3
	rm -f socket
	player_up fake_peer.py
	recv_start recv unix:socket copy "$@"
	player_do source socket "$script"
	migtool_wait recv "$status" || {
		echo "source $script:"
		return 1
	}
	assert_error recv "$words" || return
	assert_json recv '.complete == false' '.status == "failed"' || return
	player_ended && [ ! -e socket ]
}

@test "a source that stalls is given up after --timeout, one that goes away at once" {
	local script
	for script in stalls-after-greeting stalls-in-page; do
		try_source $script 30 "nothing moved either way for 1 s" --timeout 1
		assert_nothing copy
		assert_json recv '.owner == "source"' '."error-code" == "timeout"'
	done
	for script in closes-in-page closes-before-digest; do
		try_source $script 10 ended
		assert_nothing copy
	done
}

@test "a source that says why it fails is quoted" {
	try_source fails-in-the-middle 11 "the source failed: the disk is on fire"
	grep -q "hint: run" recv.err
	assert_nothing copy
	try_source wrong-digest 13 "the memory that arrived has digest"
	assert_nothing copy
}

@test "between READY and COMMIT nobody knows: what arrived is kept, and the status says so" {
	local script
	for script in closes-after-ready stalls-after-ready; do
		try_source $script 50 "all is here (copy.part) and verified, but COMMIT did not come" --timeout 1
		[ ! -e copy ] && cmp "$IMAGES/zeros" copy.part
		assert_json recv '.owner == "unknown"'
		rm copy.part
	done
	try_source talks-after-ready 50 "COMMIT did not come"
	rm copy.part
	# a source that fails has not committed
	try_source fails-after-ready 11 "the source failed: second thoughts"
	assert_json recv '.owner == "source"'
	assert_nothing copy
}

@test "a multifd channel that comes twice, has no right number, is missing, stalls or ends" {
	try_source channel-twice 12 "multifd channel 0 came twice"
	try_source channel-number 12 "multifd channel 2 came, expected 0 to 1"
	try_source channel-missing 30 "1 of 2 multifd channels came within 1 s" --timeout 1
	try_source channel-stalls 30 "" --timeout 1
	try_source channel-ends 10 "multifd channel 1 ended before its SYNC"
	assert_nothing copy
}

@test "connections of another session, or of nobody, between the channels are dropped" {
	recv_start recv unix:socket copy
	peer_start peer source socket foreign-channels
	migtool_wait recv
	wait_for_end peer
	cat peer.out peer.err
	[ ! -s peer.err ]
	cmp "$IMAGES/zeros" copy
	[ "$(grep -c "warning: dropped" recv.err)" -ge 4 ]
	grep -q "dropped .*its first packet names another session" recv.err
}

# try_packets KIND: stdin has a packet a line, its name and words that the message has.
try_packets() {
	local name words
	while read -r name words; do
		try_source "$1:$name" 12 "multifd channel 1: $words"
		assert_nothing copy
	done
}

@test "a bad multifd packet" {
	try_packets packet <<-'END'
		magic multifd packet: magic 0x11223345 version 2, expected 0x11223344 version 2
		version multifd packet: magic 0x11223344 version 1, expected 0x11223344 version 2
		flags multifd packet: unknown flags 0x80
		method a packet is compressed with method 0x2, expected 0x0 (none)
		block a packet for block 1, there are 1
		block-far a packet for block 4294967295, there are 1
		no-pages multifd packet: run of 0 pages at offset 0x0, expected at least one page
		runs multifd packet: 257 runs, at most 256
		payload-huge multifd packet: 2147483647 bytes for 4096 bytes of pages, at most
		payload-short 4095 bytes for pages of 4096 bytes
		raw-too-much multifd packet: runs of 4096 bytes, header says 8192
		raw-huge multifd packet: 4096 bytes for 4294963200 bytes of pages, at most
		unaligned multifd packet: run of 1 pages at offset 0x1, expected at least one page at a multiple of 4096
		beyond block pc.ram: 0x1000 bytes at 0x8000 reach beyond its 0x8000 bytes
		beyond-end block pc.ram: 0x2000 bytes at 0x7000 reach beyond its 0x8000 bytes
		far block pc.ram: 0x1000 bytes at 0xfffffffffffff000 reach beyond its 0x8000 bytes
		zero-beyond block pc.ram: 0x9000 bytes at 0x0 reach beyond its 0x8000 bytes
		zero-far block pc.ram: 0x7fffffff000 bytes at 0xfffffffffffff000 reach beyond its 0x8000 bytes
	END
	# what is short is waited for
	try_source packet:payload-cut 30 "nothing moved" --timeout 1
	assert_nothing copy
}

@test "zlib and zstd data that is not what it should be" {
	try_packets zlib <<-'END'
		garbage zlib: broken data
		empty multifd packet: no payload for 8192 bytes of pages
		cut zlib: a packet's stream has no end
		left-over zlib: 1 bytes left over after a packet's pages
		more zlib: a packet's payload decodes to more than the 8192 bytes of its pages
		one-more zlib: a packet's payload decodes to more than the 8192 bytes of its pages
		less zlib: a packet's payload of
		one-less zlib: a packet's payload of
		flipped zlib: broken data
	END
	try_packets zstd <<-'END'
		garbage zstd: a packet's payload does not begin with a zstd frame
		empty multifd packet: no payload for 8192 bytes of pages
		cut zstd: a packet's payload is no whole frame
		left-over zstd: 1 bytes left over after a packet's pages
		more zstd: a packet's pages have 8192 bytes, its frame 12288
		less zstd: a packet's pages have 8192 bytes, its frame 4096
		one-more zstd: a packet's pages have 8192 bytes, its frame 8193
		one-less zstd: a packet's pages have 8192 bytes, its frame 8191
	END
}

@test "who says nothing, too little or something else is dropped, and the next one is taken" {
	local script i=0 name
	recv_start recv unix:socket copy
	# a port scan, all at once; the silent ones are dropped after 10 seconds
	for script in silent greets-half closes scans silent; do
		i=$((i + 1)) name=peer$i
		peer_start $name source socket "$script"
	done
	wait_for_end peer3
	wait_for_end peer4
	for i in 1 2 5; do
		wait_for_end peer$i 20
	done
	cat peer?.err
	[ ! -s peer1.err ] && [ ! -s peer2.err ]
	migtool_start send send "$IMAGES/mixed" unix:socket
	migtool_wait send
	migtool_wait recv
	cmp "$IMAGES/mixed" copy
	cat recv.err
	[ "$(grep -c "warning:.* said nothing" recv.err)" -eq 2 ]
	[ "$(grep -c "warning:" recv.err)" -ge 5 ]
	grep -qF 'it begins with "GET / HT"' recv.err
}

@test "the real source is taken at once while others say nothing" {
	recv_start recv unix:socket copy
	peer_start peer source socket crowd
	wait_for_file peer.out
	migtool_start send send "$IMAGES/mixed" unix:socket --cap multifd --timeout 8
	migtool_wait send
	migtool_wait recv
	cmp "$IMAGES/mixed" copy
	wait_for_end peer
	[ ! -s peer.err ]
}

@test "the real source is taken at once while others stop in the middle of their greetings" {
	recv_start recv unix:socket copy
	peer_start peer source socket halves
	wait_for_file peer.out
	migtool_start send send "$IMAGES/mixed" unix:socket --timeout 8
	migtool_wait send
	# nobody's time was over
	run ! grep -E "within 10 s|in 10 s" recv.err
	migtool_wait recv
	cmp "$IMAGES/mixed" copy
	wait_for_end peer
	[ ! -s peer.err ]
}

@test "the real source is taken although hundreds say nothing" {
	recv_start recv unix:socket copy
	peer_start peer source socket flood
	wait_for_file peer.out
	migtool_start send send "$IMAGES/mixed" unix:socket
	migtool_wait send
	migtool_wait recv
	cmp "$IMAGES/mixed" copy
	# not a line for each of them
	[ "$(wc -l <recv.err)" -lt 300 ]
	wait_for_end peer
	[ ! -s peer.err ]
}

@test "a wrong machine, page size or capability is refused in the same words by both" {
	cp -r "$IMAGES/directory" image
	run_refused 5 "the source's machine is 'pc-i440fx-7.2', the destination expects 'pc-q35-7.2'" \
		"$IMAGES/mixed" --machine pc-i440fx-7.2 -- --machine pc-q35-7.2
	run_refused 5 "the source's pages have 4096 bytes, the destination expects 65536" \
		"$IMAGES/mixed" -- --page-size 64K
	run_refused 5 "multifd is off on the source and on on the destination" \
		"$IMAGES/mixed" -- --cap multifd
	run_refused 5 "multifd is on on the source and off on the destination" \
		"$IMAGES/mixed" --cap multifd -- --cap multifd=off
	run_refused 5 "multifd-compression differs" "$IMAGES/mixed" --cap multifd \
		--param multifd-compression=zstd -- --param multifd-compression=zlib
	assert_nothing copy
}

@test "blocks that do not fit what is there are refused in the same words by both" {
	truncate -s 4M copy
	run_refused 5 "copy has 4194304 bytes, but block pc.ram has 8388608" "$IMAGES/mixed" -- --in-place
	[ "$(stat -c %s copy)" = 4194304 ]
	run_refused 5 "the source has 6 blocks, but copy is a file" "$IMAGES/directory" -- --force
	[ "$(stat -c %s copy)" = 4194304 ]
	rm copy
	mkdir -p copy/ram
	truncate -s 4096 copy/ram/foreign
	run_refused 5 "ram holds block foreign, which the source does not have" "$IMAGES/directory" \
		-- --in-place --force
	[ "$(ls copy/ram)" = foreign ]
}

# ---- destinations that misbehave ----

# try_destination SCRIPT STATUS WORDS [SEND-OPTION]...: a send that comes to such a destination.
try_destination() {
	local script=$1 status=$2 words=$3
	shift 3
	rm -f socket
	player_up fake_peer.py
	player_do destination socket "$script"
	[ "$(player_says)" = listening ]
	migtool_start send send "$@" "${IMAGE:-$IMAGES/mixed}" unix:socket
	migtool_wait send "$status" || {
		echo "destination $script:"
		return 1
	}
	assert_error send "$words" || return
	assert_json send '.complete == false' '.status == "failed"' || return
	player_ended
}

@test "a destination that does not answer, or not as a migtool does" {
	try_destination silent 30 "does not answer the greeting within 10 s"
	grep -q "hint: .*--one-way" send.err
	try_destination closes 10 "no answer to the greeting"
	try_destination no-migtool 2 'the peer is no migtool: it says "HTTP/1.1"'
	try_destination answers-too-long 12 "1073741824 bytes"
	try_destination answers-no-json 2 "no JSON"
	try_destination other-version 2 "version 2, expected 1"
	try_destination channels 12 "multifd-channels"
	assert_json send '.owner == "source"'
}

@test "a destination's refusal is quoted, its control characters are not" {
	try_destination refuses 5 'the destination refused: I like \x1b[31mno\x1b[0m memory'
	grep -qF 'hint: bring\x0acake' send.err
	run -1 grep -q $'\x1b' send.err
	try_destination refuses-with-success 5 "no reason given"
}

@test "a destination that fails says why to both" {
	try_destination fails 11 "the destination failed: no space left: 3 of 9 bytes"
	grep -q "hint: make room" send.err
	assert_json send '.owner == "source"' '."error-code" == "file"'
	try_destination fails-with-escapes 5 'failed: \x1b[2J\x0d\x0axxx'
	[ "$(wc -c <send.err)" -lt 3000 ]
}

@test "a destination that stalls, closes or talks nonsense" {
	make_image --size 8 random image
	IMAGE=image try_destination stalls 30 "nothing moved either way for 1 s" --timeout 1
	IMAGE=image try_destination closes-in-the-middle 10 ""
	try_destination ready-early 12 READY --bwlimit 2M
	try_destination done-early 12 DONE
	try_destination unknown-message 12 0x4fff
	try_destination long-message 12 "READY has 4294967295 bytes"
	try_destination shut 5 "SHUT 1"
	assert_json send '.owner == "source"'
}

@test "before READY the source is the owner, after COMMIT nobody knows" {
	local IMAGE=$IMAGES/holes
	try_destination wrong-digest 13 "digest"
	assert_json send '.owner == "source"'
	try_destination closes-before-ready 10 "closed the connection"
	assert_json send '.owner == "source"'
	try_destination stalls-before-ready 30 "nothing moved" --timeout 1
	assert_json send '.owner == "source"'
	try_destination closes-before-done 50 "COMMIT was sent and not answered"
	assert_json send '.owner == "unknown"' '."error-code" == "lost"'
	try_destination stalls-before-done 50 "COMMIT was sent and not answered" --timeout 1
	assert_json send '.owner == "unknown"'
	try_destination fails-after-commit 50 "cannot rename it"
	assert_json send '.owner == "unknown"'
}
