#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later
# A few of the random points of `make soak`.

bats_require_minimum_version 1.5.0
load helper

@test "transfers that end at random points keep the promises" {
	run -0 "$BATS_TEST_DIRNAME/soak.py" --count 10 --seed "${SEED:-1}" --migtool "$MIGTOOL" \
		--dir "$BATS_TEST_TMPDIR"
	[ "${lines[-1]}" = "10 rounds, 0 failures" ]
}
