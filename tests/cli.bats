#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later
# The command line without any transfer: help, listings, tables, messages and statuses. How argv is
# read in every detail is tests/unit/test_options.c's.

bats_require_minimum_version 1.5.0
load qemu

GOLDEN=$BATS_TEST_DIRNAME/golden/cap-pairs.txt

setup() {
	cd "$BATS_TEST_TMPDIR" || return
}

teardown() {
	peer_teardown
}

# A QEMU that has no memory and does nothing but answer.
judge() {
	qemu_run judge -machine none -S
	qemu_qmp judge status >/dev/null
	"$TOOLS/qemu_judges.py" "$PEER_DIR/judge.qmp" "$@" 3>&- 4>&-
}

@test "without a command the hint leads to the help, and the status is 1" {
	run -1 --separate-stderr "$MIGTOOL"
	[ -z "$output" ]
	# shellcheck disable=SC2154
	[ "${stderr_lines[0]}" = "migtool: error: no command" ]
	[ "${stderr_lines[1]}" = "  hint: migtool --help lists the commands" ]
}

@test "--help goes to stdout and names every command, option and status" {
	run -0 --separate-stderr "$MIGTOOL" --help
	[ -z "$stderr" ]
	"$MIGTOOL" --list-options >options
	"$MIGTOOL" --list-commands >commands
	"$MIGTOOL" --list-statuses >statuses
	[ "$(wc -l <options)" -gt 20 ] && [ "$(wc -l <statuses)" -eq 18 ]
	while IFS=$'\t' read -r flag letter _; do
		grep -qE -- "(^|, | )$flag([=[ ]|$)" <<<"$output" || { echo "$flag"; return 1; }
		[ "$letter" = - ] || grep -q -- "^  $letter, $flag" <<<"$output"
	done <options
	while IFS=$'\t' read -r name _; do
		grep -q "migtool $name \[OPTION\]" <<<"$output" || { echo "$name"; return 1; }
	done <commands
	while IFS=$'\t' read -r number _ text; do
		grep -qF "$(printf '%5d  %s' "$number" "${text:0:20}")" <<<"$output" || {
			echo "$number"
			return 1
		}
	done <statuses
}

@test "--help fits 80 columns" {
	for command in "" send recv check caps params; do
		# shellcheck disable=SC2086
		"$MIGTOOL" $command --help >help
		[ "$(wc -l <help)" -gt 10 ]
		run awk 'length > 80' help
		[ -z "$output" ]
	done
}

@test "--help behind a command lists what concerns it" {
	run -0 "$MIGTOOL" recv --help
	[[ $output == *--force* && $output == *"migtool recv tcp::4444"* ]]
	[[ $output != *--dry-run* && $output != *"migtool send"* ]]
	run -0 "$MIGTOOL" --help send
	[[ $output == *--dry-run* && $output != *--connect* ]]
}

@test "what is for migtool itself is in no help and no listing" {
	"$MIGTOOL" --help >help
	"$MIGTOOL" --list-options >>help
	run -1 grep -- --far help
}

@test "--usage is short, --version is one line" {
	run -0 "$MIGTOOL" --usage
	[ "${#lines[@]}" -eq 6 ]
	run -0 "$MIGTOOL" recv --usage
	[ "$output" = "Usage: migtool recv [OPTION]... URI [IMAGE] [-- COMMAND [ARG]...]" ]
	run -0 "$MIGTOOL" -V
	[[ $output =~ ^migtool\ [0-9]+\.[0-9]+\.[0-9]+$ ]]
}

@test "a misspelt command, option, capability or parameter gets the nearest known one" {
	run -1 "$MIGTOOL" snd a b
	[ "${lines[1]}" = "  hint: did you mean send?" ]
	run -1 "$MIGTOOL" send --dry-rnu a b
	[ "${lines[1]}" = "  hint: did you mean --dry-run?" ]
	run -1 "$MIGTOOL" send --cap multidf a b
	[ "${lines[1]}" = "  hint: did you mean multifd?" ]
	run -1 "$MIGTOOL" send --param multifd-chanels=3 a b
	[ "${lines[1]}" = "  hint: did you mean multifd-channels?" ]
}

@test "--json and --dry-run behind -- are COMMAND's" {
	run -1 "$MIGTOOL" caps -- --json
	[ "${lines[0]}" = "migtool: error: caps takes nothing behind --" ]
}

@test "caps shows name, state, effect, needs and conflicts" {
	run -0 "$MIGTOOL" caps --cap multifd --cap events=off
	grep -qE '^multifd +on +act ' <<<"$output"
	grep -qE '^events +off +act ' <<<"$output"
	grep -qE '^auto-converge +off +inert ' <<<"$output"
	grep -qE '^dirty-bitmaps +off +refused +not built yet' <<<"$output"
	grep -qE '^ +needs: multifd$' <<<"$output"
	grep -qE '^ +conflicts: auto-converge$' <<<"$output"
}

@test "caps --json has each capability, and conflicts are mutual" {
	"$MIGTOOL" caps --json --cap xbzrle >caps.json
	jq -e 'length == 24' caps.json
	jq -e '[.[].name] == [inputs]' caps.json <(
		"$MIGTOOL" --list-caps | cut -f 1 | jq -R .
	)
	jq -e 'map(select(.state) | .name) == ["xbzrle"]' caps.json
	jq -e 'all(.effect | IN("act", "inert", "refused"))' caps.json
	jq -e 'map({(.name): .conflicts}) | add | . as $of |
		[to_entries[] | .key as $a | .value[] | $of[.] | index($a) != null] | all' caps.json
	jq -e '.[] | select(.name == "zero-copy-send") | .needs == ["multifd"]' caps.json
}

@test "params shows name, effect, value, default, unit and range, and marks what differs" {
	run -0 "$MIGTOOL" params --param multifd-channels=7
	grep -qE '^multifd-channels +act +7 +2 +- +1 to 255$' <<<"$output"
	grep -qE '^downtime-limit +inert +300 +300 +ms +0 to 2000000$' <<<"$output"
	grep -qE '^direct-io +refused ' <<<"$output"
	grep -qE '^max-bandwidth +act +0 +0\* +bytes/s +any$' <<<"$output"
	[ "${lines[-1]}" = "* max-bandwidth: QEMU's default is 128MiB" ]
}

@test "params --json has each parameter with its type" {
	"$MIGTOOL" params --json --param max-bandwidth=18446744073709551615 >params.json
	jq -e 'length == 34' params.json
	jq -e 'map({(.name): .}) | add |
		.["multifd-channels"].max == 255 and .["multifd-compression"].value == "none" and
		.["multifd-compression"].values == ["none", "zlib", "zstd"] and
		.["compress-wait-thread"].default == true and .["tls-creds"].default == "" and
		.["max-bandwidth"].value > 1.8e19 and (.["max-bandwidth"] | has("max") | not) and
		.["xbzrle-cache-size"].default == 67108864' params.json
}

@test "a full disk behind stdout is status 11" {
	for command in caps params "caps --json" "params --json" --help --list-caps; do
		# shellcheck disable=SC2086
		run -11 --separate-stderr bash -c "\"\$1\" $command >/dev/full" - "$MIGTOOL"
		# shellcheck disable=SC2154
		[[ $stderr == "migtool"*": error: "*"No space left on device" ]]
	done
}

@test "a reader that goes away gets no message" {
	# shellcheck disable=SC2016
	run -11 --separate-stderr bash -c '
		exec 5> >(exec true)
		wait $!
		"$1" caps >&5' - "$MIGTOOL"
	[ -z "$stderr" ]
}

@test "QEMU 7.2 has the same capabilities in the same order" {
	"$MIGTOOL" --list-caps >caps
	run -0 judge caps caps
	[ "$output" = "21 compared, 0 differ" ]
}

@test "QEMU 7.2 judges every pair of capabilities as our table does" {
	run -0 judge pairs "$GOLDEN"
	[[ $output =~ ^([0-9]+)\ compared,\ 0\ differ$ ]]
	[ "${BASH_REMATCH[1]}" -ge 170 ]
}

@test "QEMU 7.2 has the same parameters and defaults, max-bandwidth apart" {
	"$MIGTOOL" params --json >params.json
	run -0 judge params params.json
	[ "$output" = "26 compared, 0 differ" ]
}
