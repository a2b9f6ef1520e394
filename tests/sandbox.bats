#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later
# The process that reads the peer, and the one that opens things for it. What a worker may not do is
# tried call by call in test_sandbox, and what it may ask for in test_broker_judge.

bats_require_minimum_version 1.5.0
load helper

setup_file() {
	export IMAGES=$BATS_FILE_TMPDIR
	make_image random --size 2 "$IMAGES/random"
}

setup() {
	cd "$BATS_TEST_TMPDIR" || return
}

teardown() {
	peer_teardown
}

broker_of() { # NAME
	pgrep -P "${PEER_PIDS[$1]}" -x migtool-broker
}

field() { # PID NAME
	sed -n "s/^$2:\t//p" "/proc/$1/status"
}

gone() { # PID
	wait_until test ! -e "/proc/$1"
}

assert_confined() { # PID
	[ "$(field "$1" Seccomp)" = 2 ]
	[ "$(field "$1" NoNewPrivs)" = 1 ]
	[ "$(field "$1" CapEff)" = 0000000000000000 ]
	[ "$(field "$1" CapPrm)" = 0000000000000000 ]
	local thread
	for thread in "/proc/$1/task"/*; do
		grep -q "^Seccomp:.2" "$thread/status"
	done
}

@test "recv and send are confined before a peer is there, all their threads" {
	recv_start recv unix:socket copy
	assert_confined "${PEER_PIDS[recv]}"
	[ "$(field "$(broker_of recv)" Seccomp)" = 0 ]
	listener_start send send --listen "$IMAGES/random" unix:other
	assert_confined "${PEER_PIDS[send]}"
	kill "${PEER_PIDS[recv]}" "${PEER_PIDS[send]}"
	migtool_wait recv 20
	migtool_wait send 20
}

@test "--no-sandbox is one process, and says so in one line" {
	recv_start recv unix:socket copy --no-sandbox
	[ "$(field "${PEER_PIDS[recv]}" Seccomp)" = 0 ]
	run ! broker_of recv
	[ "$(grep -c "warning: --no-sandbox" recv.err)" -eq 1 ]
	migtool_start send send --no-sandbox "$IMAGES/random" "$RECV_URI"
	migtool_wait send
	migtool_wait recv
	assert_same_image "$IMAGES/random" copy
}

@test "what migtool starts is outside the sandbox" {
	# shellcheck disable=SC2016 # for the other shell
	local look='grep -E "^(Seccomp|NoNewPrivs):" /proc/$$/status'
	sh -c "$look" >expected
	listener_start recv recv unix:socket copy -- sh -c "$look >command; echo done >ended"
	migtool_start send send "$IMAGES/random" "exec:$look >exec; socat - UNIX-CONNECT:socket"
	migtool_wait send
	migtool_wait recv
	wait_until test -e ended
	diff expected command
	diff expected exec
}

@test "a worker that is killed takes its broker with it" {
	recv_start recv unix:socket copy
	broker=$(broker_of recv)
	kill -KILL "${PEER_PIDS[recv]}"
	migtool_wait recv 137
	gone "$broker"
}

@test "a broker that is killed ends its worker, which says so" {
	recv_start recv unix:socket copy
	kill -KILL "$(broker_of recv)"
	migtool_wait recv 14
	grep -qF "the process that opens files for this one is gone" recv.err
	assert_json recv '."error-code" == "sandbox"' '.complete == false'
}

@test "signals are for the worker: a group's SIGINT is one request" {
	recv_start recv unix:socket copy
	kill -INT "$(broker_of recv)" "${PEER_PIDS[recv]}"
	migtool_wait recv 20
}

@test "a worker that makes a call it may not is stopped, and the broker names it" {
	for call in execve socket ptrace; do
		rm -f unix
		INSIDE=(env "ASAN_OPTIONS=verify_asan_link_order=0:${ASAN_OPTIONS:-}" LD_PRELOAD="$(dirname "$MIGTOOL")/tools/forbidden.so" "FORBIDDEN=$call")
		[ $call != ptrace ] || ! nm "$MIGTOOL" | grep -qE '__(asan_init|tsan_init|ubsan_handle)' || continue
		recv_start recv unix:unix copy
		# shellcheck disable=SC2034 # for the helper
		INSIDE=()
		migtool_start send send "$IMAGES/random" "$RECV_URI"
		migtool_wait recv 14
		wait_for_end send || true
		grep -qE "error: the worker was stopped by its sandbox: system call [0-9]+ \($call\)" recv.err
		run ! grep "came back" recv.err
		assert_json recv '.status == "failed"' '."error-code" == "sandbox"' '.owner == "unknown"'
		[ ! -e taken ]
		[ ! -e copy ]
	done
}

# taken_over AT: the next migtool misbehaves when it makes that call.
# shellcheck disable=SC2034 # for the helper
taken_over() {
	INSIDE=(env "ASAN_OPTIONS=verify_asan_link_order=0:${ASAN_OPTIONS:-}"
		LD_PRELOAD="$(dirname "$MIGTOOL")/tools/forbidden.so" FORBIDDEN=socket "FORBIDDEN_AT=$1")
}

# shellcheck disable=SC2034 # for the helper
@test "a worker that is stopped says that nobody knows who owns the guest, and --resume finds out" {
	taken_over fsync # a destination that has all and has not said so
	recv_start recv unix:first copy
	INSIDE=()
	migtool_start send send "$IMAGES/random" "$RECV_URI"
	migtool_wait recv 14
	migtool_wait send 10
	assert_json recv '."error-code" == "sandbox"' '.owner == "unknown"'
	assert_json send '.owner == "source"' '.complete == false'
	grep -qF "who owns the memory is not known" recv.err
	[ ! -e copy ]

	recv_start recv unix:second copy
	taken_over shutdown # a source that was told that it is the destination's
	migtool_start send send "$IMAGES/random" "$RECV_URI"
	INSIDE=()
	migtool_wait recv
	migtool_wait send 14
	assert_json send '."error-code" == "sandbox"' '.owner == "unknown"' '.complete == false'
	grep -qF "who owns the memory is not known" send.err

	recv_start recv unix:third copy --resume
	migtool_start send send --resume "$IMAGES/random" "$RECV_URI"
	migtool_wait send
	migtool_wait recv
	assert_json send '.owner == "destination"'
	assert_same_image "$IMAGES/random" copy
}

@test "descriptors that nobody needs are closed" {
	exec 12<"$IMAGES/random"
	recv_start recv unix:socket copy
	exec 12<&-
	local pid
	for pid in "${PEER_PIDS[recv]}" "$(broker_of recv)"; do
		run ! ls -l "/proc/$pid/fd/12"
	done
}
