#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later
# What a transfer says while it runs and when it is over: to people, to scripts, to signals.

bats_require_minimum_version 1.5.0
load qemu

setup() {
	cd "$BATS_TEST_TMPDIR" || return
	truncate -s 16M guest.mem
	head -c 3000000 /dev/urandom | dd of=guest.mem bs=4096 seek=100 conv=notrunc status=none
}

teardown() {
	peer_teardown
}

# send_slowly SECONDS [OPTION]...: guest.mem in the background at a rate that takes so long. Its
# process is `send`, its words send.err, its JSON send.json.
send_slowly() {
	local rate=$((3000000 / $1))
	shift
	recv_start recv tcp:127.0.0.1:0 arrived.mem
	"$MIGTOOL" send --bwlimit "$rate" "$@" guest.mem "$RECV_URI" >send.json 2>send.err 3>&- 4>&- &
	peer_started send
}

@test "with --json stdout is one object a side, and both agree" {
	recv_start recv tcp:127.0.0.1:0 arrived.mem
	"$MIGTOOL" send --json guest.mem "$RECV_URI" >send.json
	recv_wait recv
	[ "$(wc -l <send.json)" -eq 1 ] && [ "$(wc -l <recv.json)" -eq 1 ]
	jq -e '.status == "completed" and .owner == "destination" and .complete and
		."digest-verified" and .ram.total == 16777216 and .ram.remaining == 0 and
		.ram.transferred >= 3000000 and .holes > 12000000 and .ram."page-size" == 4096 and
		(has("error-desc") | not)' send.json
	jq -e '."socket-address"[0].type == "inet"' recv.json
	[ "$(jq .digest send.json)" = "$(jq .digest recv.json)" ]
}

@test "people get two or three lines on stderr, and with -q none" {
	recv_start recv tcp:127.0.0.1:0 arrived.mem
	run -0 --separate-stderr "$MIGTOOL" send guest.mem "$RECV_URI"
	echo "$stderr"
	[ -z "$output" ]
	[ "$(wc -l <<<"$stderr")" -eq 3 ]
	[[ $stderr == *"sent 2.86 MiB of data to tcp:127.0.0.1"* ]]
	[[ $stderr == *"verified by both ends"* ]]
	[[ $stderr == *"the destination owns the memory now; guest.mem is as it was"* ]]
	recv_wait recv
	recv_start again tcp:127.0.0.1:0 again.mem
	run -0 --separate-stderr "$MIGTOOL" send -q guest.mem "$RECV_URI"
	[ -z "$output$stderr" ]
	recv_wait again
}

@test "the object is printed on failure, too" {
	run -35 --separate-stderr "$MIGTOOL" send --json guest.mem unix:nobody
	echo "$output"
	jq -e '.status == "failed" and ."error-code" == "connect" and .owner == "source" and
		(.complete | not) and (."error-desc" | test("nobody"))' <<<"$output"
	[[ $stderr == *"error: "*nobody* ]]
}

@test "a bad URI is an object on stdout, too, and with stdio: on stderr" {
	run -1 --separate-stderr "$MIGTOOL" send --json guest.mem tcp:nowhere </dev/null
	jq -e '.status == "failed" and ."error-code" == "usage"' <<<"$output"
	run -1 --separate-stderr "$MIGTOOL" recv --json stdio:what copy </dev/null
	[ -z "$output" ]
	grep '^{' <<<"$stderr" | jq -e '."error-code" == "usage"'
}

@test "what the check refuses is a blocked reason" {
	run -4 --separate-stderr "$MIGTOOL" send --json --cap postcopy-ram --cap multifd guest.mem unix:nobody
	echo "$output"
	jq -e '.status == "failed" and ."error-code" == "unsupported" and
		(."blocked-reasons"[0] | test("postcopy-ram"))' <<<"$output"
}

@test "an object that cannot be written is an error" {
	recv_start recv tcp:127.0.0.1:0 arrived.mem
	run -11 bash -c "exec '$MIGTOOL' send --json guest.mem '$RECV_URI' >/dev/full"
	[[ $output == *"cannot write JSON to stdout: No space left on device"* ]]
	recv_wait recv
	# The failure itself is what counts where there was one.
	run -35 bash -c "exec '$MIGTOOL' send --json guest.mem unix:nobody >/dev/full"
}

@test "events are JSON lines, from setup to completed" {
	recv_start recv tcp:127.0.0.1:0 arrived.mem
	"$MIGTOOL" send -q --cap events=on guest.mem "$RECV_URI" >events
	recv_wait recv
	cat events
	[ "$(jq -r 'select(.event == "MIGRATION").data.status' events | tr '\n' ' ')" = \
		"setup active device completed " ]
	[ "$(jq 'select(.event == "MIGRATION_PASS").data.pass' events)" = 1 ]
	jq -e '.timestamp.seconds > 1600000000 and .timestamp.microseconds < 1000000' events
}

@test "with stdio: the object and the events go to stderr" {
	"$MIGTOOL" send -q --json --cap events=on guest.mem stdio: 2>said |
		"$MIGTOOL" recv -q --json --one-way stdio: arrived.mem 2>heard
	cmp guest.mem arrived.mem
	jq -e 'select(.event == null).status == "completed"' said
	[ "$(jq -s 'map(select(.event == "MIGRATION")) | length' said)" -ge 3 ]
	jq -e '.status == "completed"' heard
}

@test "progress on a terminal is one line, and never above 100 per cent" {
	recv_start recv tcp:127.0.0.1:0 arrived.mem
	TERM=xterm timeout 60 script -qec "stty cols 60; '$MIGTOOL' send --bwlimit 1500000 guest.mem $RECV_URI" \
		typescript >/dev/null </dev/null 3>&- 4>&-
	recv_wait recv
	tr '\r' '\n' <typescript | sed 's/\x1b\[K//g' >lines
	cat lines
	[ "$(grep -c '^[a-z]* *[0-9]* %' lines)" -ge 3 ]
	grep -q ' %  .*/s  ETA 0:0' lines
	run -1 grep -E '(10[1-9]|1[1-9][0-9]|[2-9][0-9][0-9]) %' lines
	# What is drawn fits, and is gone before the summary.
	run -1 grep -E '^[a-z]* *[0-9]+ %.{54}' lines
	grep -q '^migtool send: sent ' lines
}

@test "a dumb terminal and a quiet run get no progress" {
	local try
	for try in "TERM=dumb '$MIGTOOL' send" "TERM=xterm '$MIGTOOL' send -q" \
		"TERM=xterm '$MIGTOOL' send --progress=none"; do
		rm -f arrived.mem
		recv_start recv tcp:127.0.0.1:0 arrived.mem
		script -qec "$try --bwlimit 3000000 guest.mem $RECV_URI" typescript >/dev/null \
			</dev/null 3>&- 4>&-
		recv_wait recv
		run -1 grep -e '%.*ETA' -e $'\x1b' typescript
	done
}

@test "--progress=json is a line a second and one at the end" {
	recv_start recv tcp:127.0.0.1:0 arrived.mem
	"$MIGTOOL" send -q --progress=json --bwlimit 700000 guest.mem "$RECV_URI" >lines
	recv_wait recv
	cat lines
	[ "$(wc -l <lines)" -ge 3 ]
	jq -se 'all(.event == "PROGRESS" and .data.percent <= 100 and .data.done <= .data.total) and
		(map(.data.done) | . == sort) and .[-1].data.percent == 100 and
		.[1].data.rate > 0 and .[1].data.eta != null' lines
}

@test "SIGUSR1 prints statistics, SIGUSR2 says that no step is pending, -q or not" {
	send_slowly 6 -qq
	wait_for_data arrived.mem.part
	kill -USR1 "${PEER_PIDS[send]}"
	wait_for_line send.err 'active for .* of 2.86 MiB (.* %), '
	wait_for_line send.err ' on the wire for 16.00 MiB of memory'
	kill -USR2 "${PEER_PIDS[send]}"
	wait_for_line send.err 'SIGUSR2: no step is pending'
	kill -USR1 "${PEER_PIDS[recv]}"
	wait_for_line recv.err 'active for '
	wait_for_end send
	recv_wait recv
	cmp guest.mem arrived.mem
}

@test "SIGINT, SIGTERM and SIGHUP cancel, and the source keeps the guest" {
	local sig rc
	for sig in INT TERM HUP; do
		send_slowly 20 --json
		wait_for_data arrived.mem.part
		kill "-$sig" "${PEER_PIDS[send]}"
		rc=0
		wait_for_end send || rc=$?
		[ "$rc" -eq 20 ]
		cat send.json send.err
		jq -e '.status == "cancelled" and ."error-code" == "cancelled" and .owner == "source"' \
			send.json
		grep -q "cancelled by SIG$sig" send.err
		grep -q 'the source still owns the memory' send.err
		# It learns why, unless the source was in the middle of a page.
		rc=0
		wait_for_end recv || rc=$?
		[ "$rc" -eq 20 ] || [ "$rc" -eq 10 ]
		jq -e '.status == "failed" or .status == "cancelled"' recv.json
		[ ! -e arrived.mem ] && [ ! -e arrived.mem.part ]
	done
}

@test "a dry run prints the plan" {
	recv_start recv tcp:127.0.0.1:0 arrived.mem --param multifd-channels=3
	run -0 --separate-stderr "$MIGTOOL" send -n --cap multifd --param multifd-channels=8 \
		--param multifd-compression=zstd guest.mem "$RECV_URI"
	echo "$stderr"
	[ -z "$output" ]
	[[ $stderr == *"plan: block pc.ram: 16.00 MiB, of which 2.86 MiB are data"* ]]
	[[ $stderr == *"plan: capabilities: multifd"* ]]
	[[ $stderr == *"plan: channels: the main one and 3 of multifd, compression zstd"* ]]
	[[ $stderr == *"plan: at most 2.86 MiB of data travel"* ]]
	[ ! -e arrived.mem ]
	"$MIGTOOL" send -q guest.mem "$RECV_URI"
	recv_wait recv
}

@test "a base that a QEMU cannot check is warned of" {
	run -0 --separate-stderr "$MIGTOOL" send -n --peer qemu --machine pc-i440fx-7.2 \
		--cap xbzrle --base guest.mem guest.mem unix:nobody
	[[ $stderr == *"warning: --base: a QEMU cannot say whether guest.mem is what it has"* ]]
}

@test "check does not wait for ever for the rest of an answer" {
	mkfifo answer
	exec 7<>answer
	printf migt >&7
	socat UNIX-LISTEN:at - <&7 >asked 2>socat.err 3>&- 4>&- 7>&- &
	peer_started socat
	wait_until test -S at
	run -30 timeout 30 "$MIGTOOL" check --timeout 1 unix:at
	exec 7>&-
	[[ $output == *"has not given a whole answer within 1 s"* ]]
}

@test "strangers that come and go do not set --timeout back" {
	local role
	for role in recv send; do
		if [ "$role" = recv ]; then
			listener_start waiting recv --timeout 2 unix:at copy
		else
			listener_start waiting send --listen --timeout 2 guest.mem unix:at
		fi
		# they come as long as it waits
		(while kill -0 "${PEER_PIDS[waiting]}" 2>/dev/null; do
			echo "GET / HTTP/1.0" | socat -t 0 - UNIX:at 2>/dev/null || true
			sleep 0.4
		done) 3>&- 4>&- &
		peer_started strangers
		migtool_wait waiting 30
		grep -q 'dropped' waiting.err
		wait_for_end strangers
	done
}

@test "a reader of events that leaves does not stop the transfer" {
	recv_start recv tcp:127.0.0.1:0 arrived.mem
	"$MIGTOOL" send --cap events=on --progress=json --bwlimit 2000000 guest.mem "$RECV_URI" |
		head -n 1 >first
	recv_wait recv
	cmp guest.mem arrived.mem
	[ "$(jq -r .data.status first)" = setup ]
}
