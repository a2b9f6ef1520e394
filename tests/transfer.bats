#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later
# From one migtool to another, as a user does it: every transport, every kind of image, every
# capability. Not only the result counts: what the ends say they did has to be what was asked for.

bats_require_minimum_version 1.5.0
load helper

setup_file() {
	export IMAGES=$BATS_FILE_TMPDIR
	make_image mixed "$IMAGES/mixed"
	make_image random --size 4 "$IMAGES/random"
	make_image sparse --size 64 "$IMAGES/sparse"
	make_image holes --size 64 "$IMAGES/holes"
	make_image directory "$IMAGES/directory"
}

setup() {
	cd "$BATS_TEST_TMPDIR" || return
}

teardown() {
	peer_teardown
}

# The copy is what IMAGE is, and both ends say so.
assert_arrived() { # IMAGE
	assert_same_image "$1" copy || return
	assert_sparse copy || return
	assert_agreed || return
	[ ! -e "$1/device-state" ] || cmp "$1/device-state" copy/device-state || return
	[ ! -e copy.part ]
}

# try URI IMAGE [SEND-OPTION]... [-- RECV-OPTION...]: a transfer to `copy`, and all that has to be
# true of each.
try() {
	local uri=$1 image=$2
	shift 2
	rm -rf copy
	run_pair "$uri" "$image" copy "$@" && assert_arrived "$image" && return 0
	echo "failed: $uri $image $*"
	return 1
}

# ---- kinds of images ----

@test "a raw file arrives as it was and as sparse as it can be" {
	try tcp:127.0.0.1:0 "$IMAGES/mixed"
	[ -f copy ] && [ "$(stat -c %a copy)" = 600 ]
	assert_json send '.ram.total == 8388608' '.ram.normal > 100' '.ram.duplicate > 100' \
		'.ram.normal + .ram.duplicate == 2048' '.holes > 0' '.ram."dirty-sync-count" == 1'
}

@test "an incompressible image, a sparse one, one that is all holes" {
	try tcp:127.0.0.1:0 "$IMAGES/random"
	assert_json send '.ram.normal == 1024' '.ram.duplicate == 0' '.ram.transferred < 4250000'
	try tcp:127.0.0.1:0 "$IMAGES/sparse"
	assert_json send '.ram.normal < 600' '.ram.transferred < 2500000'
	try tcp:127.0.0.1:0 "$IMAGES/holes"
	assert_json send '.ram.normal == 0' '.ram.duplicate == 16384' '.ram.transferred < 2000'
	[ "$(stat -c %b copy)" -eq 0 ]
}

@test "a directory arrives with all its blocks, its device state and a manifest" {
	try tcp:127.0.0.1:0 "$IMAGES/directory"
	jq -e '.version == 1 and .source == "migtool" and (.blocks | length == 6) and
		."device-state".size == 100001' copy/manifest.json
	# and what arrived is an image again, with its manifest
	rm -rf first
	mv copy first
	try tcp:127.0.0.1:0 "$PWD/first"
	cmp first/manifest.json copy/manifest.json
}
