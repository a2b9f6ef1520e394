#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later
# Every transport with every set of capabilities and every kind of image, and QEMU's dialect between
# two migtools. What each of these does by itself is in transfer.bats and capabilities.bats.

bats_require_minimum_version 1.5.0
load helper

MACHINE=pc-i440fx-7.2

# What a transport of one connection can do, and what needs more of them.
ONE=("" "--cap compress" "--cap xbzrle" "--cap return-path --cap validate-uuid --cap x-ignore-shared")
MANY=("--cap multifd" "--cap multifd --param multifd-compression=zlib --param multifd-channels=1"
	"--cap multifd --param multifd-compression=zstd --param multifd-channels=5")

setup_file() {
	export IMAGES=$BATS_FILE_TMPDIR
	make_image mixed --size 4 --seed 7 "$IMAGES/guest"
	"$TOOLS/dirty_rounds.py" --seed "${SEED:-1}" --rounds 4 "$IMAGES/guest" pc.ram 0x10000 0x200000 \
		"$IMAGES/dirty"
	make_image random --size 1 "$IMAGES/random"
	make_image sparse --size 16 "$IMAGES/sparse"
	make_image holes --size 4 "$IMAGES/holes"
	make_image directory --size 1 "$IMAGES/directory"
}

setup() {
	cd "$BATS_TEST_TMPDIR" || return
}

teardown() {
	peer_teardown
}

# each TRANSPORT CAPABILITIES...: `TRANSPORT IMAGE OPTION...` has to send IMAGE to `copy`, for every
# image, and for one that changes meanwhile.
each() {
	local transport=$1 caps image
	shift
	for caps; do
		for image in directory random sparse holes guest; do
			rm -rf copy
			# shellcheck disable=SC2086
			"$transport" "$IMAGES/$image" $caps && assert_same_image "$IMAGES/$image" copy &&
				assert_sparse copy && [ ! -e copy.part ] && continue
			echo "failed: $transport $image $caps"
			return 1
		done
		[ ! -e copy/device-state ] || cmp "$IMAGES/directory/device-state" copy/device-state
		rm -rf copy
		# shellcheck disable=SC2086
		"$transport" "$IMAGES/guest" --x-replay-dirty "$IMAGES/dirty.rounds" $caps &&
			cmp "$IMAGES/dirty.ram" copy && assert_sparse copy && continue
		echo "failed: $transport with rounds $caps"
		return 1
	done
}

tcp() { run_pair tcp:127.0.0.1:0 "$1" copy "${@:2}"; }
tcp6() { run_pair 'tcp:[::1]:0' "$1" copy "${@:2}"; }
unix() { run_pair unix:socket "$1" copy "${@:2}"; }

listening() {
	listener_start send send --listen "${@:2}" "$1" tcp:127.0.0.1:0
	migtool_start recv recv --connect "$RECV_URI" copy
	migtool_wait send
	migtool_wait recv
}

exec_stdio() {
	migtool_start send send "${@:2}" "$1" "exec:'$MIGTOOL' recv -q --progress=none stdio: copy"
	migtool_wait send
	assert_json send '."digest-verified"'
}

pipe() {
	"$MIGTOOL" send -q "${@:2}" "$1" stdio: </dev/null | "$MIGTOOL" recv -q stdio: copy
}

file() {
	rm -f stream
	migtool_start send send "${@:2}" "$1" file:stream
	migtool_wait send
	migtool_start recv recv file:stream copy
	migtool_wait recv
	assert_json recv '."digest-verified"'
}

pair() {
	"$TOOLS/with_fds.py" pair "$MIGTOOL" send -q "${@:2}" "$1" fd:3 --- \
		"$MIGTOOL" recv -q fd:3 copy >statuses 3>&- 4>&-
	[ "$(cat statuses)" = "0 0" ]
}

@test "tcp over IPv4" {
	each tcp "${ONE[@]}" "${MANY[@]}"
}

@test "tcp over IPv6" {
	each tcp6 "" "${MANY[1]}"
}

@test "unix" {
	each unix "" "${MANY[@]}"
}

@test "a source that listens" {
	each listening "" "${MANY[@]}"
}

@test "exec: and stdio:" {
	each exec_stdio "${ONE[@]}"
}

@test "a pipe" {
	each pipe "${ONE[@]}"
}

@test "file:" {
	each file "${ONE[@]}"
}

@test "a socketpair" {
	each pair "" "--cap compress"
}

# The same without greeting and digest, as QEMU has it. A destination that is told what a QEMU would
# be told, in URI or one that listens.
qemu_dialect() { # SOURCE-CAPS IMAGE [OPTION]...
	local caps=$1 image=$2
	shift 2
	rm -rf dir
	# shellcheck disable=SC2086
	run_pair unix:socket "$image" dir --peer qemu --machine "$MACHINE" $caps "$@" -- $caps
	assert_json send '."digest-verified" == false' .complete
	assert_json recv '."digest-verified" == false' .complete
	[ "$(tail -n 1 send.json | jq -r .digest)" = "$(tail -n 1 recv.json | jq -r .digest)" ]
	[ "$(jq -r .machine dir/manifest.json)" = "$MACHINE" ]
	mv dir/ram/pc.ram copy
}

@test "QEMU's dialect between two migtools, in every mode" {
	local caps image
	for caps in "" "--cap return-path" "--cap compress" "--cap xbzrle" "--cap multifd" \
		"--cap multifd --param multifd-compression=zlib" \
		"--cap multifd --param multifd-compression=zstd --param multifd-channels=5"; do
		for image in random sparse holes guest; do
			rm -f copy
			qemu_dialect "$caps" "$IMAGES/$image" && cmp "$IMAGES/$image" copy &&
				assert_sparse copy && continue
			echo "failed: $image $caps"
			return 1
		done
		rm -f copy
		qemu_dialect "$caps" "$IMAGES/guest" --x-replay-dirty "$IMAGES/dirty.rounds"
		cmp "$IMAGES/dirty.ram" copy || {
			echo "failed with rounds: $caps"
			return 1
		}
		[ "$caps" != "--cap xbzrle" ] || assert_json recv '."xbzrle-cache".pages > 20'
		[[ $caps != *multifd* ]] || assert_json recv '.ram."multifd-bytes" > 1000000'
	done
}

@test "QEMU's dialect of each version that is known" {
	local version
	for version in 5.2 6.2 7.2 8.0 8.1 8.2 9.0 9.2 10.0; do
		rm -f copy
		MACHINE=pc-i440fx-$version
		run_pair unix:socket "$IMAGES/guest" dir --peer "qemu:$version" --machine "$MACHINE" \
			--cap multifd --x-replay-dirty "$IMAGES/dirty.rounds" -- --cap multifd
		cmp "$IMAGES/dirty.ram" dir/ram/pc.ram || {
			echo "failed: $version"
			return 1
		}
		rm -r dir
	done
}
