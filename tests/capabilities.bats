#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later
# Each capability and parameter that acts, between two migtools. What they say they did has to be what
# was asked for: a capability that silently does nothing would give the right image too.

bats_require_minimum_version 1.5.0
load helper

UUID=11223344-5566-7788-99aa-bbccddeeff00
URI=tcp:127.0.0.1:0

setup_file() {
	export IMAGES=$BATS_FILE_TMPDIR
	make_image mixed "$IMAGES/mixed"
	make_image random --size 2 "$IMAGES/random"
	make_image directory --size 4 "$IMAGES/directory"
	# pc.ram before and after some rounds of writes; the same as a directory
	make_image mixed --size 4 --seed 7 "$IMAGES/guest"
	"$TOOLS/dirty_rounds.py" --seed "${SEED:-1}" --rounds 6 "$IMAGES/guest" pc.ram 0x10000 0x200000 \
		"$IMAGES/dirty"
}

setup() {
	cd "$BATS_TEST_TMPDIR" || return
}

teardown() {
	peer_teardown
}

# try IMAGE [SEND-OPTION]... [-- RECV-OPTION...]: to `copy`.
try() {
	local image=$1
	shift
	rm -rf copy
	run_pair "$URI" "$image" copy "$@" && assert_same_image "$image" copy && assert_sparse copy &&
		assert_agreed && return 0
	echo "failed: $image $*"
	return 1
}

# try_dirty [SEND-OPTION]...: a guest that changes its memory six times while it is sent.
try_dirty() {
	rm -rf copy
	run_pair "$URI" "$IMAGES/guest" copy --x-replay-dirty "$IMAGES/dirty.rounds" "$@" &&
		cmp "$IMAGES/dirty.ram" copy && assert_sparse copy && assert_agreed &&
		assert_json send '.ram."dirty-sync-count" == 7' && return 0
	echo "failed with dirty rounds: $*"
	return 1
}

@test "plain: the rounds of a changing guest all arrive, and its file stays as it was" {
	local before
	before=$(sha256sum <"$IMAGES/guest")
	try_dirty
	[ "$before" = "$(sha256sum <"$IMAGES/guest")" ]
	assert_json send '.ram.normal > 300' 'has("xbzrle-cache") | not' 'has("compression") | not'
}

# ---- xbzrle ----

@test "xbzrle: later rounds travel as deltas" {
	try_dirty
	cp send.json plain.json
	try_dirty --cap xbzrle
	assert_json send '."xbzrle-cache".pages > 50' '."xbzrle-cache".overflow > 0' \
		'."xbzrle-cache"."cache-miss" > 0' '."xbzrle-cache".bytes > 0' \
		'."xbzrle-cache"."cache-size" == 67108864' '.ram.skipped > 0'
	[ "$(jq .ram.transferred send.json)" -lt "$(jq .ram.transferred plain.json)" ]
	[ "$(jq '."xbzrle-cache".pages' send.json)" = "$(jq '."xbzrle-cache".pages' recv.json)" ]
}

@test "xbzrle: a cache of a few pages has misses and is right nevertheless" {
	try_dirty --cap xbzrle --param xbzrle-cache-size=64K
	assert_json send '."xbzrle-cache"."cache-size" == 65536' '."xbzrle-cache"."cache-miss" > 100'
}

@test "xbzrle: on an image at rest it has nothing to do and says so" {
	try "$IMAGES/mixed" --cap xbzrle -v
	grep -q "xbzrle has nothing to do" send.err
	assert_json send '."xbzrle-cache".pages == 0'
}

@test "xbzrle: --base sends what changed since an older copy" {
	cp "$IMAGES/guest" copy
	run_pair "$URI" "$IMAGES/dirty.ram" copy --cap xbzrle --base "$IMAGES/guest" -- --delta
	cmp "$IMAGES/dirty.ram" copy
	assert_agreed
	assert_json send '."xbzrle-cache".pages > 20' '.ram.skipped > 100'
	# what is the same costs nearly nothing
	run_pair "$URI" "$IMAGES/dirty.ram" copy --cap xbzrle --base "$IMAGES/dirty.ram" -- --delta
	cmp "$IMAGES/dirty.ram" copy
	assert_json send '.ram.normal == 0' '.ram.transferred < 20000'
	[ ! -e copy.part ]
}

@test "xbzrle: --base of a directory, then rounds upon it" {
	cp -r "$IMAGES/directory" old
	cp -r "$IMAGES/directory" new
	printf 'changed' | dd of=new/ram/pc.ram bs=1 seek=70000 conv=notrunc status=none
	cp -r old copy
	run_pair "$URI" "$PWD/new" copy --cap xbzrle --base old -- --delta
	assert_same_image new copy
	assert_agreed
	assert_json send '.ram.normal == 0' '."xbzrle-cache".pages == 1'
	cp "$IMAGES/guest" ram
	run_pair "$URI" "$IMAGES/guest" ram --cap xbzrle --base "$IMAGES/guest" \
		--x-replay-dirty "$IMAGES/dirty.rounds" -- --delta
	cmp "$IMAGES/dirty.ram" ram
	assert_agreed
}

@test "xbzrle: a base that is not the destination's old copy is refused before any page" {
	cp "$IMAGES/random" copy
	truncate -s 4M copy
	cp copy before
	run_refused 13 "the destination's old copy" "$IMAGES/dirty.ram" --cap xbzrle \
		--base "$IMAGES/guest" -- --delta
	cmp before copy
	run_refused 5 "the destination was not told to use one" "$IMAGES/dirty.ram" --cap xbzrle \
		--base "$IMAGES/guest" -- --force
	cmp before copy
}

# ---- compress ----

@test "compress: every page that is not zero travels compressed" {
	try "$IMAGES/directory" --cap compress
	assert_json send '.compression.pages > 100' '.compression."compressed-size" > 0' \
		'.compression."compression-rate" > 1' '.ram.normal == 0'
	[ "$(jq .compression.pages send.json)" = "$(jq .compression.pages recv.json)" ]
}

@test "compress: its four parameters" {
	local level threads wait sizes=()
	for level in 0 1 9; do
		try "$IMAGES/mixed" --cap compress --param compress-level=$level
		sizes+=("$(jq .ram.transferred send.json)")
	done
	[ "${sizes[0]}" -gt "${sizes[1]}" ] && [ "${sizes[1]}" -ge "${sizes[2]}" ]
	for threads in 1 3 16; do
		for wait in on off; do
			try "$IMAGES/mixed" --cap compress --param compress-threads=$threads \
				--param compress-wait-thread=$wait -- --param decompress-threads=$threads
		done
	done
	assert_json send '.compression.pages + .ram.normal > 500'
}

@test "compress: with rounds, and with xbzrle upon them" {
	try_dirty --cap compress
	assert_json send '.compression.pages > 300'
	try_dirty --cap compress --cap xbzrle
	assert_json send '.compression.pages > 300' '."xbzrle-cache".pages > 50'
}

# ---- multifd ----

@test "multifd: every method with 1, 2, 5 and 16 channels" {
	local method n
	for method in none zlib zstd; do
		for n in 1 2 5 16; do
			try "$IMAGES/mixed" --cap multifd --param multifd-channels=$n \
				--param multifd-compression=$method
			assert_json send '.ram."multifd-bytes" > 1000000' '.ram.normal > 500'
			assert_json recv '.ram."multifd-bytes" > 1000000'
		done
	done
}

@test "multifd: 255 channels" {
	try "$IMAGES/mixed" --cap multifd --param multifd-channels=255
	assert_json send '.ram."multifd-bytes" > 1000000'
}

@test "multifd: the levels of zlib and zstd" {
	local method level sizes=()
	for level in zlib-level=1 zlib-level=9 zstd-level=1 zstd-level=19; do
		method=${level%%-*}
		try "$IMAGES/mixed" --cap multifd --param multifd-compression="$method" \
			--param "multifd-$level"
		sizes+=("$(jq .ram.transferred send.json)")
	done
	[ "${sizes[0]}" -gt "${sizes[1]}" ] && [ "${sizes[2]}" -ge "${sizes[3]}" ]
}

@test "multifd: zstd compresses harder over a slow link, unless its level is given" {
	local image=$BATS_TEST_TMPDIR/image zstd=(--cap multifd --param multifd-compression=zstd)
	python3 -c 'import os, sys
for i in range(32 << 8): sys.stdout.buffer.write(os.urandom(2560) + bytes(1536))' >"$image"
	try "$image" "${zstd[@]}" --param max-bandwidth=40MiB
	# the first packets, 8 of each of four threads, went as they were
	assert_json send '.ram.transferred < 30000000'
	try "$image" "${zstd[@]}" --param multifd-zstd-level=1
	assert_json send '.ram.transferred < 22500000'
}

@test "multifd: a directory, an incompressible image, rounds" {
	local method
	for method in none zstd zlib; do
		try "$IMAGES/directory" --cap multifd --param multifd-compression=$method
		cmp "$IMAGES/directory/device-state" copy/device-state
		try "$IMAGES/random" --cap multifd --param multifd-compression=$method
		assert_json send '.ram.transferred < 2200000'
		try_dirty --cap multifd --param multifd-channels=5 --param multifd-compression=$method
	done
}

@test "multifd: the destination may take fewer channels" {
	try "$IMAGES/mixed" --cap multifd --param multifd-channels=8 -- --param multifd-channels=3
	grep -q "takes 3 multifd channels" send.err
}

@test "zero-copy-send: tcp sends without copying, or says how often the kernel copied" {
	local uri
	try "$IMAGES/mixed" --cap multifd --cap zero-copy-send
	# loopback always copies
	assert_json send '.ram."dirty-sync-missed-zero-copy" > 0'
	grep -q "zero-copy-send: the kernel copied" send.err
	URI='tcp:[::1]:0' try "$IMAGES/directory" --cap multifd --cap zero-copy-send \
		--param multifd-channels=1
	try_dirty --cap multifd --cap zero-copy-send
	run "$MIGTOOL" send --cap zero-copy-send "$IMAGES/mixed" tcp:127.0.0.1:1
	[ "$status" -eq 4 ] && [[ $output == *"zero-copy-send needs multifd"* ]]
	for uri in unix:socket ssh://nowhere.invalid/copy; do
		run -4 "$MIGTOOL" send --cap multifd --cap zero-copy-send "$IMAGES/mixed" $uri
		[[ $output == *"zero-copy-send: this transport copies whatever it sends"*"use tcp:"* ]]
		run -4 "$MIGTOOL" check --cap multifd --cap zero-copy-send $uri
		[[ $output == *"as a source: "*"zero-copy-send: this transport copies"* ]]
	done
}

# ---- the others ----

@test "return-path, and capabilities that do nothing here, change nothing" {
	try "$IMAGES/mixed" --cap return-path
	try "$IMAGES/mixed" --cap auto-converge --cap rdma-pin-all -v
	grep -q "auto-converge has no effect here" send.err
	try "$IMAGES/mixed" --cap return-path --cap validate-uuid --cap events --cap multifd \
		--uuid "$UUID" -- --uuid "$UUID"
}

@test "validate-uuid: the same uuid passes, another is refused, none is warned about" {
	try "$IMAGES/mixed" --cap validate-uuid --uuid "$UUID" -- --uuid "$UUID"
	try "$IMAGES/mixed" --cap validate-uuid --uuid "$UUID"
	grep -q "no --uuid was given" recv.err
	rm copy
	run_refused 5 "the source's uuid is $UUID, the destination expects ${UUID/1/2}" \
		"$IMAGES/mixed" --cap validate-uuid --uuid "$UUID" -- --uuid "${UUID/1/2}"
}

@test "events: both ends print QEMU's events, in order" {
	try_dirty --cap events -- --cap events
	jq -r 'select(.event) | .event + " " + (.data.status // (.data.pass | tostring))' send.json >events
	printf '%s\n' "MIGRATION setup" "MIGRATION active" MIGRATION_PASS\ {1..7} "MIGRATION device" \
		"MIGRATION completed" | diff - events
	jq -r 'select(.event == "MIGRATION") | .data.status' recv.json >statuses
	printf '%s\n' setup active device completed | diff - statuses
	jq -se 'map(select(.event)) | all(.timestamp.seconds > 1600000000)' send.json
}

@test "--bwlimit and max-bandwidth are kept, over all channels together" {
	local options
	for options in "--bwlimit 4M" "--param max-bandwidth=4M --cap multifd --param multifd-channels=4"; do
		# shellcheck disable=SC2086
		try "$IMAGES/random" $options
		assert_json send '."total-time" > 350'
	done
}

@test "a dry run checks both ends, moves nothing and does not use recv up" {
	recv_start recv "$URI" copy
	migtool_start send send --dry-run --cap multifd "$IMAGES/mixed" "$RECV_URI"
	migtool_wait send
	[ ! -e copy ] && [ ! -e copy.part ]
	migtool_start send send --dry-run --cap validate-uuid "$IMAGES/mixed" "$RECV_URI"
	migtool_wait send
	migtool_start send send "$IMAGES/mixed" "$RECV_URI"
	migtool_wait send
	migtool_wait recv
	cmp "$IMAGES/mixed" copy
	grep -q "a dry run of .*: it could be received" recv.err
}

@test "COMMAND starts when the image has its name, in a session of its own, and survives recv" {
	# shellcheck disable=SC2016 # it is the command's $1
	listener_start recv recv "$URI" copy -- sh -c 'cmp "$1" copy && echo same >ran
		ps -o sid= -p $$ >sid; sleep 0.5; echo survived >>ran' - "$IMAGES/mixed"
	migtool_start send send "$IMAGES/mixed" "$RECV_URI"
	migtool_wait send
	migtool_wait recv
	wait_for_line ran survived
	[ "$(cat ran)" = $'same\nsurvived' ]
	[ "$(cat sid)" -ne "$(ps -o sid= -p $$)" ]
}

# ---- x-ignore-shared ----

# A source of two blocks, of which pc.ram is shared memory in the file `memory`, outside of the image.
make_shared_source() {
	mkdir -p source/ram
	cp "$IMAGES/guest" memory
	ln -s ../../memory source/ram/pc.ram
	cp "$IMAGES/random" source/ram/rom
	cat >source/manifest.json <<-END
		{"version": 1, "page-size": 4096, "source": "migtool", "blocks": [
		{"name": "pc.ram", "size": 4194304, "shared": true}, {"name": "rom", "size": 2097152}]}
	END
}

@test "x-ignore-shared: what both ends reach is compared and not sent" {
	local caps
	make_shared_source
	for caps in "" "--cap multifd" "--cap compress"; do
		rm -rf copy
		mkdir -p copy/ram
		ln -s ../../memory copy/ram/pc.ram
		# shellcheck disable=SC2086
		run_pair "$URI" source copy --cap x-ignore-shared $caps -- --cap x-ignore-shared
		assert_same_image source copy
		assert_agreed
		[ "$(readlink copy/ram/pc.ram)" = ../../memory ]
		[ ! -L copy/ram/rom ]
		assert_json send '.ram.total == 2097152' '.ram.transferred < 2200000'
		grep -q "block pc.ram is shared: it is compared and not sent" send.err
	done
	jq -e '.blocks[0].shared and (.blocks[0].digest | length == 32)' copy/manifest.json
	[ "$(jq -r .digest send.json)" = "$(digest_of source)" ]
	# without the capability it is sent as any other, and the link's target stays as it is
	rm copy/ram/pc.ram
	run_pair "$URI" source copy -- --force
	assert_same_image source copy
	assert_json send '.ram.total == 6291456'
	[ ! -L copy/ram/pc.ram ]
}

# The digest of all of an image, as if it were sent.
digest_of() {
	"$MIGTOOL" send --json -qq "$1" null: | jq -r .digest
}

@test "x-ignore-shared: the file itself may be in IMAGE, and is linked" {
	make_shared_source
	mkdir -p copy/ram
	cp --sparse=always memory copy/ram/pc.ram
	local inode
	inode=$(stat -c %i copy/ram/pc.ram)
	run_pair "$URI" source copy --cap x-ignore-shared -- --force
	assert_same_image source copy
	[ "$(stat -c %i copy/ram/pc.ram)" = "$inode" ]
	[ ! -e copy.part ]
}

@test "x-ignore-shared: another size, other content, or nothing there is refused by both" {
	make_shared_source
	mkdir -p copy/ram
	run_refused 5 "does not exist" source --cap x-ignore-shared -- --cap x-ignore-shared
	truncate -s 2M copy/ram/pc.ram
	run_refused 5 "has 2097152 bytes, at the source it has 4194304" source \
		--cap x-ignore-shared -- --cap x-ignore-shared
	truncate -s 4M copy/ram/pc.ram
	run_refused 13 "block pc.ram is not the same shared memory" source \
		--cap x-ignore-shared -- --cap x-ignore-shared
	[ "$(stat -c %s copy/ram/pc.ram)" = 4194304 ] && [ "$(ls copy copy/ram)" = $'copy:\nram\n\ncopy/ram:\npc.ram' ]
	# what is overwritten needs --force still
	touch copy/manifest.json
	run_refused 5 "copy exists and is not empty" source --cap x-ignore-shared -- --cap x-ignore-shared
	rm -r copy
	run_refused 5 "there is no directory" source --cap x-ignore-shared -- --cap x-ignore-shared
}

@test "x-ignore-shared: without a shared block all is sent, and that is said" {
	try "$IMAGES/mixed" --cap x-ignore-shared
	grep -q "x-ignore-shared: all of .* is sent, for there is no manifest" send.err
	cp -r "$IMAGES/directory" source
	try source --cap x-ignore-shared
	grep -q "x-ignore-shared: all of source is sent" send.err
}
