#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later
# A few of the failing calls and of the cuts of `make soak`.

bats_require_minimum_version 1.5.0
load helper

# try_faults COUNT [OPTION]...
try_faults() {
	local count=$1
	shift
	run -0 "$BATS_TEST_DIRNAME/faults.py" --count "$count" --seed "${SEED:-1}" --jobs 2 \
		--migtool "$MIGTOOL" --preload "$(dirname "$MIGTOOL")/tools/faults.so" \
		--dir "$BATS_TEST_TMPDIR" "$@"
	[[ ${lines[-1]} == "$count faults in "*" s, 0 failures" ]]
}

@test "calls that fail keep the promises" {
	try_faults 60
}

@test "reads and writes that are short or interrupted again and again are not noticed" {
	try_faults 20 --only ":~3:"
}

@test "transfers that are cut at the boundaries of their messages keep the promises" {
	run -0 "$BATS_TEST_DIRNAME/cut.py" --count 40 --seed "${SEED:-1}" --jobs 2 \
		--migtool "$MIGTOOL" --dir "$BATS_TEST_TMPDIR"
	[ "${lines[-1]}" = "40 cuts, 0 failures" ]
}
