#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later
# A guest that runs while its memory is still in an image on this host: recv --uffd-socket image:.
# The guest is tests/guest/vmm.c; it looks at every page.

# shellcheck disable=SC2030,SC2031 # bats knows how its tests end

bats_require_minimum_version 1.5.0
load helper

VMM=$(dirname "$MIGTOOL")/guest/vmm

setup_file() {
	export IMAGES=$BATS_FILE_TMPDIR
	"$(dirname "$MIGTOOL")/guest/vmm" make "$IMAGES/guest" 16
}

setup() {
	cd "$BATS_TEST_TMPDIR" || return
	ln -s "$IMAGES/guest" guest
}

teardown() {
	peer_teardown
}

# serve [OPTION]...: migtool waits for a VMM when this returns.
serve() {
	listener_start recv recv --uffd-socket socket "$@" image:guest
	[ "$RECV_URI" = unix:socket ]
}

# vmm_start [OPTION]...: the guest in the background; it goes on after "touched" when finish is called.
vmm_start() {
	rm -f go vmm.out
	mkfifo go
	exec 8<>go
	"$VMM" run "$@" socket 16 <go >vmm.out 2>vmm.err 3>&- 4>&- 8>&- &
	peer_started vmm
}

# The guest looks at all of its pages; none is wrong.
finish() {
	wait_for_line vmm.out touched
	echo >&8
	wait_for_end vmm
	cat vmm.out
	grep -q '^4096 pages, 0 wrong, 0 zero$' vmm.out
}

served_whole() {
	recv_wait recv
	assert_json recv .complete '.owner == "destination"' '.status == "completed"' \
		'."fault-latency".count <= .ram."postcopy-requests"' '.ram."postcopy-bytes" > 0'
	# nobody has to be there any more
	finish
}

@test "a guest runs at once, gets all of its memory, and needs nobody then" {
	serve
	vmm_start
	served_whole
	grep -q 'guest has all of its memory' recv.err
	[ ! -e socket ]
}

@test "regions, the older field, a second descriptor, a message in pieces" {
	serve
	vmm_start --regions 16 --old-field --two-fds --pieces
	served_whole
}

@test "what the guest drops is zero, in the middle of the push too" {
	local seed
	for seed in 2 3 4; do
		serve
		vmm_start --remove --seed $seed
		served_whole
	done
}

@test "postcopy-blocktime: how long each thread waited, where the VMM lets it be known" {
	local known
	for known in --threads ""; do
		serve --push=off --cap postcopy-blocktime
		# shellcheck disable=SC2086
		vmm_start $known
		finish
		recv_wait recv
		assert_json recv '."postcopy-blocktime" > 0' '[."postcopy-thread-blocktime"[].faults] | add > 1000' 			'([."postcopy-thread-blocktime"[].faults] | add) == ."fault-latency".count'
		if [ -n "$known" ]; then
			# two touch, and then one looks at all
			assert_json recv '."postcopy-vcpu-blocktime" | length == 3' 				'."postcopy-thread-blocktime" | all(.thread > 1 and .blocktime > 0)'
			grep -qE 'guest waited for pages for .*: thread [0-9]+ for .* ms \([0-9]+ faults\), thread' recv.err
		else
			assert_json recv '."postcopy-vcpu-blocktime" == []' 				'."postcopy-thread-blocktime" | length == 1 and .[0].thread == 0'
			grep -q 'of which thread is not known, .* without UFFD_FEATURE_THREAD_ID' recv.err
		fi
	done
	serve
	vmm_start --threads
	served_whole
	assert_json recv 'has("postcopy-thread-blocktime") | not' '."postcopy-vcpu-blocktime" == []'
}

# measured [VMM-OPTION]...: the guest touches half of its pages.
measured() {
	serve --push=off
	"$VMM" run --latency --touch 50 "$@" socket 16 >vmm.out 2>vmm.err 3>&-
	recv_wait recv
	assert_json recv '."fault-latency".p50 > 0' '.ram."postcopy-bytes" >= 8388608'
}

@test "a guest that walks finds its pages there already, one that jumps gets no others" {
	measured --walk
	assert_json recv '."fault-latency".count < 500' '."fault-around" > 1500'
	grep -q "faults, .*; [0-9]* of their neighbours came with them" recv.err
	measured
	assert_json recv '."fault-latency".count > 1800' '."fault-around" < 200'
}

@test "--push=off: only what is touched moves, until the VMM ends" {
	serve --push=off
	vmm_start --touch 10 --remove
	wait_for_line vmm.out touched
	kill -0 "${PEER_PIDS[recv]}"
	finish
	recv_wait recv
	assert_json recv '.complete == false' '.status == "completed"' '."fault-latency".count > 100' \
		'."fault-latency".p50 > 0' '."fault-latency".p99 <= ."fault-latency".max'
	grep -q 'guest stays needed' recv.err
}

@test "a VMM that closes its connection and lives on is still served" {
	serve --push=off
	vmm_start --close
	finish
	recv_wait recv
	assert_json recv '.complete == false'
}

@test "huge pages are placed whole" {
	huge_pages 8
	serve
	vmm_start --huge --regions 2
	served_whole
	serve --push=off
	vmm_start --huge
	finish
	recv_wait recv
	assert_json recv '."fault-latency".count >= 8' '.ram."postcopy-bytes" >= 8388608'
}

@test "--record writes what was needed first, --prefetch brings that first" {
	serve --push=off --record needed
	vmm_start --touch 20
	wait_for_line vmm.out touched
	kill -KILL "${PEER_PIDS[vmm]}"
	recv_wait recv
	[ "$(head -n 1 needed)" = "migtool-faults 1" ]
	[ "$(tail -n +2 needed | sort -u | wc -l)" -eq "$(($(wc -l <needed) - 1))" ]
	[ "$(wc -l <needed)" -gt 100 ]
	grep -qE '^0x[0-9a-f]+ pc\.ram$' needed
	serve --push=off --prefetch needed
	vmm_start --touch 0
	wait_for_line vmm.out touched
	finish
	recv_wait recv
	# it exists
	run -11 "$MIGTOOL" recv --uffd-socket socket --record needed image:guest
	echo nonsense >needed
	run -12 "$MIGTOOL" recv --uffd-socket socket --prefetch needed image:guest
	[[ $output == *"does not begin with"* ]]
}

@test "killed, recv leaves a guest that waits and sees no zeros" {
	serve --push=off
	vmm_start --touch 1
	wait_for_line vmm.out touched
	kill -KILL "${PEER_PIDS[recv]}"
	wait_for_end recv || true
	# what had come is right, the rest is waited for
	echo >&8
	run -255 wait_for_end vmm 1
	run -1 grep -q pages, vmm.out
	[ ! -s vmm.err ]
}

@test "a first SIGTERM is refused, a second one leaves the guest waiting" {
	serve --push=off
	vmm_start --touch 1
	wait_for_line vmm.out touched
	kill -HUP "${PEER_PIDS[recv]}"
	kill -TERM "${PEER_PIDS[recv]}"
	wait_for_line recv.err 'needs its pages'
	kill -0 "${PEER_PIDS[recv]}"
	kill -TERM "${PEER_PIDS[recv]}"
	recv_wait recv 50
	assert_json recv '.owner == "destination"' '.status == "postcopy-paused"' '.complete == false' \
		'."error-code" == "lost"'
	echo >&8
	run -255 wait_for_end vmm 1
}

@test "an image that changed meanwhile leaves the guest waiting" {
	rm guest
	cp --sparse=always "$IMAGES/guest" guest
	serve --push=off
	vmm_start --touch 1
	wait_for_line vmm.out touched
	truncate -s 1M guest
	echo >&8
	recv_wait recv 50
	grep -q 'changed while it was read' recv.err
	run -255 wait_for_end vmm 1
}

@test "who is no VMM is dropped with a warning, and the next one is served" {
	serve
	printf 'GET / HTTP/1.1\r\n\r\n' | timeout 10 socat -u - UNIX-CONNECT:socket
	wait_for_line recv.err 'dropped unix:socket.*no JSON array'
	printf '[{"base_host_virt_addr":4096,"size":4096,"offset":0,"page_size":4096}]' |
		timeout 10 socat -u - UNIX-CONNECT:socket
	wait_for_line recv.err 'no descriptor came with it'
	printf '[{"size":4096}' | timeout 10 socat -u - UNIX-CONNECT:socket
	wait_for_line recv.err 'closed its connection after 14 bytes'
	vmm_start --lie-size
	wait_for_line recv.err 'its memory has 0x1001000 bytes'
	kill -KILL "${PEER_PIDS[vmm]}"
	wait_for_end vmm || true
	vmm_start
	served_whole
}

@test "what does not go together is refused" {
	run -1 "$MIGTOOL" recv image:guest
	[[ $output == *"image: needs a guest to serve"* ]]
	run -1 "$MIGTOOL" send guest image:guest
	[[ $output == *"image: is for recv"* ]]
	run -1 "$MIGTOOL" recv --uffd-socket socket image:guest copy
	run -1 "$MIGTOOL" recv --uffd-socket socket --guest $$ image:guest
	run -1 "$MIGTOOL" recv --on-loss=forget --uffd-socket socket image:guest
	run -1 "$MIGTOOL" recv --on-loss=kill tcp:127.0.0.1:0 copy
	run -1 "$MIGTOOL" recv --push=off tcp:127.0.0.1:0 copy
	run -1 "$MIGTOOL" recv --uffd-socket socket --push=maybe image:guest
	run -1 "$MIGTOOL" recv tcp:127.0.0.1:0
	[[ $output == *"an operand is missing"* ]]
	run -11 "$MIGTOOL" recv --uffd-socket socket image:absent
	[ ! -e socket ]
}
