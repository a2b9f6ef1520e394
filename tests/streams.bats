#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later
# `migtool recv` of streams without their QEMU: the golden ones, small odd ones, and such as have
# exactly one thing wrong in them. Blocks are compared by the digests beside the golden streams.

bats_require_minimum_version 1.5.0
load qemu

setup_file() {
	"$BATS_TEST_DIRNAME/tools/bad_streams.py" "$BATS_TEST_DIRNAME/golden" "$BATS_FILE_TMPDIR/cases"
}

setup() {
	cd "$BATS_TEST_TMPDIR" || return
	CASES=$BATS_FILE_TMPDIR/cases
	GOLDEN=$BATS_TEST_DIRNAME/golden
}

teardown() {
	peer_teardown
}

unpack() { # NAME: the golden stream, in a file of that name
	zstd -dcq "$GOLDEN/$1.stream.zst" >"$1"
}

# The image's blocks are those that NAME.json describes, and the device state too.
assert_golden_image() { # IMAGE NAME
	python3 - "$1" "$GOLDEN/$2.json" <<-'END'
		import hashlib, json, os, sys, urllib.parse
		image, wanted = sys.argv[1], json.load(open(sys.argv[2]))
		sha = lambda path: hashlib.sha256(open(path, "rb").read()).hexdigest()
		found = {urllib.parse.unquote(f): sha(os.path.join(image, "ram", f))
		         for f in os.listdir(os.path.join(image, "ram"))}
		assert found == {b["name"]: b["sha256"] for b in wanted["blocks"]}, found
		assert sha(os.path.join(image, "device-state")) == wanted["device-state"]["sha256"]
	END
}

receive() { # STREAM IMAGE [OPTION]...
	local stream=$1 image=$2
	shift 2
	timeout 30 "$MIGTOOL" recv -q --progress=none "$@" "file:$stream" "$image" \
		</dev/null >out 2>err 3>&- 4>&-
}

is() { # WORD WORD: true or false
	[ "$1" = "$2" ] && echo true || echo false
}

# try_cases PATTERN: runs each case of that name; says all that is wrong, not only the first.
try_cases() {
	local name status words rc tried=0 bad=0
	while read -r name status words; do
		# shellcheck disable=SC2053
		[[ $name == $1 ]] || continue
		tried=$((tried + 1)) rc=0
		receive "$CASES/$name.stream" image --cap compress || rc=$?
		if [[ ,$status, != *,$rc,* ]]; then
			echo "$name: ended with $rc instead of $status: $(head -c 500 err)"
			bad=1
		elif [ "$rc" -ne 0 ] && ! grep -qF -- "error: " err; then
			echo "$name: no error message: $(head -c 500 err)"
			bad=1
		elif [ -n "$words" ] && ! grep -qF -- "$words" err; then
			echo "$name: '$words' is not in the message: $(head -c 500 err)"
			bad=1
		fi
		if [ "$rc" -ne 0 ] && { [ -e image ] || [ -e image.part ]; }; then
			echo "$name: something was left behind"
			bad=1
		fi
		rm -rf image image.part
	done <"$CASES/cases"
	[ "$tried" -gt 5 ] && [ "$bad" -eq 0 ]
}

@test "each golden stream of one connection becomes the image that is described beside it" {
	local name option
	for name in plain uuid compress xbzrle background-snapshot ignore-shared; do
		unpack $name
		[ $name = ignore-shared ] && option="x-ignore-shared" || option="compress"
		receive $name "image-$name" --cap "$option" || {
			echo "$name: $(cat err)"
			return 1
		}
		assert_golden_image "image-$name" $name
	done
	[ "$(jq -r .uuid image-uuid/manifest.json)" = 12345678-9abc-def0-0123-456789abcdef ]
}

@test "each golden multifd stream becomes the image that is described beside it" {
	local name
	for name in multifd-none multifd-zlib multifd-zstd; do
		unpack $name.main
		unpack $name.channel-0
		unpack $name.channel-1
		recv_start $name unix:socket "image-$name" --cap multifd --param multifd-channels=2
		"$TOOLS/replay.py" socket $name.main $name.channel-1 $name.channel-0 3>&-
		recv_wait $name
		assert_golden_image "image-$name" $name
		rm -f socket
	done
}

@test "an image from a golden stream, sent to a QEMU's file, is read as the same by the independent reader" {
	local name option
	for name in plain uuid compress xbzrle multifd-zstd; do
		if [ -e "$GOLDEN/$name.stream.zst" ]; then
			unpack $name
			receive $name "image-$name" --cap compress
		else
			unpack $name.main
			unpack $name.channel-0
			unpack $name.channel-1
			recv_start recv unix:socket "image-$name" --cap multifd --param multifd-channels=2
			"$TOOLS/replay.py" socket $name.main $name.channel-1 $name.channel-0 3>&-
			recv_wait recv
		fi
		for option in compress=off compress validate-uuid; do
			[[ $option != validate-uuid || $name == uuid ]] || continue
			"$MIGTOOL" send -q --peer qemu --cap $option "image-$name" file:again
			rm -rf back
			"$TOOLS/qemu_stream.py" --out back again >again.json
			assert_same_image "image-$name" back
			cmp "image-$name/device-state" back/device-state
			[ "$(jq -r .machine again.json)" = "$(jq -r .machine "$GOLDEN/$name.json")" ]
			[ "$(jq '.records.compress > 0' again.json)" = "$(is compress $option)" ]
			[ "$(jq '.uuid != null' again.json)" = "$(is validate-uuid $option)" ]
			rm again
		done
		jq -e '[.blocks[] | {name, size, sha256}] | sort' again.json >there
		jq -e '[.blocks[] | {name, size, sha256}] | sort' "$GOLDEN/$name.json" | diff - there
	done
}

@test "odd streams that a QEMU would take are taken" {
	try_cases "good-*"
}

@test "streams whose framing is wrong are refused, and nothing is left" {
	try_cases "framing-*"
}

@test "streams whose block list is wrong are refused, and nothing is left" {
	try_cases "blocks-*"
}

@test "streams with a wrong record are refused, and nothing is left" {
	try_cases "record-*"
}

@test "streams whose compressed pages are not one page are refused, and nothing is left" {
	try_cases "compress-*"
	try_cases "xbzrle-*"
}

@test "a machine that recv was not told of is refused, and blocks that do not fit what is there" {
	local stream=file:$CASES/good-small.stream
	run -4 "$MIGTOOL" recv --machine pc-q35-7.2 "$stream" image
	[[ $output == *"the source's machine is 'pc-i440fx-7.2', expected 'pc-q35-7.2'"* ]]
	assert_nothing image
	mkdir -p image/ram
	truncate -s 4096 image/ram/pc.ram
	run -4 "$MIGTOOL" recv --in-place --force "$stream" image
	[[ $output == *"image/ram/pc.ram has 4096 bytes, but block pc.ram has 16384"* ]]
	[ "$(stat -c %s image/ram/pc.ram)" = 4096 ]
	mv image/ram/pc.ram image/ram/foreign
	run -4 "$MIGTOOL" recv --in-place --force "$stream" image
	[[ $output == *"image/ram holds block foreign, which the source does not have"* ]]
	[ "$(ls image/ram)" = foreign ]
}

@test "a --page-size that is not the source's is what the message names" {
	local size
	unpack plain
	for size in 8K 64K; do
		run receive plain image --page-size "$size"
		[ "$status" -eq 12 ] && [ ! -e image ] && [ ! -e image.part ]
		grep -qF "expected a multiple of the page ($((${size%K} * 1024)))" err
		grep -q 'hint: --page-size has to be .* 4096$' err
	done
	receive plain image --page-size 4K
}

@test "streams that end in the middle of anything are refused, and nothing is left" {
	try_cases "cut-*"
}

@test "a connection that ends in the middle is a socket error, whatever the place" {
	local name
	for name in cut-plain-block-list cut-plain-page cut-plain-zero cut-plain-eos cut-plain-between \
		cut-xbzrle-xbzrle cut-compress-compress cut-plain-device-state; do
		player_up replay.py
		recv_start recv unix:socket image --cap compress
		player_do socket "$CASES/$name.stream"
		recv_wait recv 10
		player_ended
		[ ! -e image ] && [ ! -e image.part ]
		rm -f socket
	done
}

@test "a connection that stalls in the middle is given up after --timeout" {
	local name
	for name in cut-plain-block-list cut-plain-page cut-plain-between; do
		player_up replay.py
		recv_start recv unix:socket image --timeout 1
		player_do --hold 20 socket "$CASES/$name.stream"
		recv_wait recv 30
		grep -qF "error: nothing moved either way for 1 s" recv.err
		[ ! -e image ] && [ ! -e image.part ]
		player_ended
		rm -f socket
	done
}

@test "multifd packets that are wrong are refused, and nothing is left" {
	local name status words rc bad=0
	unpack multifd-none.main
	unpack multifd-none.channel-1
	player_up replay.py
	while read -r name status words; do
		recv_start recv unix:socket image --cap multifd --param multifd-channels=2 --timeout 1
		player_do socket multifd-none.main multifd-none.channel-1 "$CASES/$name.channel"
		rc=0
		wait_for_end recv || rc=$?
		player_ended
		if [[ ,$status, != *,$rc,* || -e image || -e image.part ]] ||
			! grep -F "error: " recv.err | grep -qF -- "$words"; then
			echo "$name: ended with $rc instead of $status: $(head -c 500 recv.err)"
			bad=1
		fi
		rm -rf socket image image.part
	done <"$CASES/packets"
	[ "$bad" -eq 0 ]
}
