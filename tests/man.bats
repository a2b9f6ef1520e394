#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later
# migtool(1) says what the binary does: whatever is in one of the binary's tables is in the manual,
# with the same words where the words matter, and nothing else is.

bats_require_minimum_version 1.5.0
load qemu

PAGE=$BATS_TEST_DIRNAME/../man/migtool.1

setup_file() {
	# Rendered wide, so that no row of a table is broken.
	mandoc -T utf8 -O width=200 "$PAGE" | col -bx >"$BATS_FILE_TMPDIR/page"
}

setup() {
	cd "$BATS_TEST_TMPDIR" || return
	cp "$BATS_FILE_TMPDIR/page" page
}

# section NAME: its lines without the indentation, each run of blanks one blank.
section() {
	awk -v name="$1" '/^[A-Z]/ { on = $0 == name; next } on' page |
		sed -E 's/^ +//; s/ +/ /g; s/ $//'
}

@test "the page is clean, and leads from examples to details" {
	mandoc -T lint -W warning,stop "$PAGE"
	[ "$(grep -E '^[A-Z]' page | sed '1d;$d' | head -n 5 | tr '\n' '|')" = \
		"NAME|SYNOPSIS|DESCRIPTION|TASKS BY EXAMPLE|OPTIONS|" ]
}

@test "every option is in the manual with its letter, value and commands, and no other is" {
	section OPTIONS >there
	"$MIGTOOL" --list-options >options
	while IFS=$'\t' read -r flag letter value commands _; do
		[ "$letter" = - ] && head=$flag || head="$letter, $flag"
		[ "$value" = - ] || head=$head$value
		grep -qFx -- "$head" there ||
			grep -qF -- "$head (${commands//,/, })" there ||
			{ echo "not there: $head"; return 1; }
		# where it is not one of all commands, they are named
		case $commands in
		*send,recv,check,caps,params*) ;;
		*) grep -A 1 -F -- "$head" there | grep -qF "(${commands//,/, })" ||
			{ echo "$head: its commands are $commands"; return 1; } ;;
		esac
	done <options
	# at the margin; in a text one may be where a line was broken
	awk '/^[A-Z]/ { on = $0 == "OPTIONS"; next } on' page |
		sed -nE 's/^ {5}(-[a-zA-Z], )?(--[a-z-]+).*/\2/p' | sort >documented
	cut -f 1 options | sort | diff - documented
}

@test "every command is in the synopsis with its operands" {
	# [ARG]... and [arg ...] are the same thing
	section SYNOPSIS | grep . | tr -d '[]. ' | tr '[:upper:]' '[:lower:]' >there
	"$MIGTOOL" --list-commands | awk -F '\t' '{ print "migtool" $1 "option" ($2 == "-" ? "" : $2) }' |
		tr -d '[]. ' | tr '[:upper:]' '[:lower:]' | diff - there
}

@test "every capability is in the manual with its effect and what it does" {
	section CAPABILITIES | sed -n '/^Name Here/,/^$/p' | sed '1d;$d' >there
	"$MIGTOOL" --list-caps | sed 's/\tnot built yet: /\t/; s/\t/ /g' | diff - there
}

@test "every parameter is in the manual with effect, default, unit and range" {
	section PARAMETERS | sed -n '/^Name Here/,/^$/p' | sed '1d;$d' >there
	"$MIGTOOL" params | sed -n '2,/^$/p' | sed '$d' |
		awk '{ $3 = ""; sub(/\*/, "", $4); print }' | sed -E 's/ +/ /g' | diff - there
}

@test "every exit status is in the manual with its word and meaning" {
	section "EXIT STATUS" | grep -E '^[0-9]' >there
	"$MIGTOOL" --list-statuses | sed 's/\t/ /g' | diff - there
}

@test "every kind of URI is in the manual" {
	section URIS >there
	"$MIGTOOL" --list-schemes >schemes
	[ "$(wc -l <schemes)" -eq 10 ]
	while read -r scheme; do
		grep -qE "^$scheme" there || { echo "not there: $scheme"; return 1; }
	done <schemes
}

@test "every name in the JSON of a transfer is in the manual" {
	truncate -s 1M guest.mem
	"$MIGTOOL" send --json -q --cap xbzrle guest.mem null: >one.json
	"$MIGTOOL" send --json -q --cap compress guest.mem null: >two.json
	run -4 --separate-stderr "$MIGTOOL" send --json --cap x-colo guest.mem null:
	echo "$output" >three.json
	jq -r '.. | objects | keys[]' one.json two.json three.json | sort -u >keys
	[ "$(wc -l <keys)" -gt 50 ]
	section OUTPUT | tr -c 'a-z0-9-' '\n' | sort -u >words
	run comm -23 keys words
	[ -z "$output" ]
}

# Lines as people type them, with an image that cannot be, so that nothing is moved: whatever is
# wrong with an option, a capability or a URI is found before that.
try() { # FILE
	local line rc
	[ -e keys.psk ] || "$MIGTOOL" psk keys.psk >/dev/null
	while read -r line; do
		line=$(sed -E "s/ #.*//; s/ &&.*//; s/ [0-9]?>.*//; /recv.* ssh:/s|guest.mem$|/nonexistent/x|
			s|guest.mem|/nonexistent/x|
			/recv.* tcp:.*shm/s|/dev/shm/guest|/nonexistent/x|; /uffd-socket.* tcp:/s|\$| /nonexistent/x|
			s|guest/|/nonexistent/x/|; s|\"\\\$uri\"|tcp:localhost:1|; s/tcp::4444/tcp:localhost:0/; s/ --ready-fd 9//; s/^migtool/timeout 20 migtool/" <<<"$line")
		rc=0
		PATH=$(dirname "$MIGTOOL"):$PATH bash -c "$line" >out 2>&1 </dev/null || rc=$?
		if [ "$rc" -ne 11 ] || ! grep -q /nonexistent out; then
			echo "$line ended with $rc:"
			cat out
			return 1
		fi
	done <"$1"
}

# Continuation lines put together; the lines that begin with `migtool`, without `check`.
commands() {
	sed -e :a -e '/\\$/{N;s/\\\n *//;ba' -e '}' | sed -nE 's/^ +(migtool (send|recv) .*)/\1/p'
}

@test "the manual's examples are valid command lines" {
	sed -n '/^TASKS/,/^OPTIONS/p' page | commands >lines
	[ "$(wc -l <lines)" -ge 12 ]
	try lines
}

@test "the examples of --help are valid command lines" {
	"$MIGTOOL" --help | sed -n '/^Examples/,$p' | commands >lines
	[ "$(wc -l <lines)" -ge 5 ]
	try lines
}
