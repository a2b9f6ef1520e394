#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later
# A guest that runs while its memory is still on another host: recv --uffd-socket, or COMMAND, and a
# send. The guests are tests/guest/vmm.c and maps.c, which look at every page.

# shellcheck disable=SC2016,SC2030,SC2031,SC2154 # scripts for sh; what bats sets

bats_require_minimum_version 1.5.0
load helper
load ssh

VMM=$(dirname "$MIGTOOL")/guest/vmm
PAGES=1500

setup_file() {
	export IMAGES=$BATS_FILE_TMPDIR
	guest_images 16 "$PAGES"
}

setup() {
	cd "$BATS_TEST_TMPDIR" || return
	guest_setup
	ln -s "$IMAGES/guest" guest
	ln -s "$IMAGES/image" image
}

teardown() {
	peer_teardown
	[ ! -e sshd ] || sshd_stop "$PWD/sshd"
	[ -z "${GUEST:-}" ] || kill -KILL "$GUEST" 2>/dev/null || true
	rm -r "$SHM"
}

appears() { # PATH
	for _ in {1..1000}; do
		[ ! -e "$1" ] || return 0
		sleep 0.02
	done
	return 1
}

# vmm_pair [URI] [VMM-OPTION]... [-- RECV-OPTION...]: recv, a VMM, and send, all three running.
vmm_pair() {
	local uri=$1 BEFORE BEHIND
	split_options "${@:2}"
	rm -f go vmm.out
	mkfifo go
	exec 6<>go
	listener_start recv recv --uffd-socket socket "${BEHIND[@]}" "$uri"
	"$VMM" run "${BEFORE[@]}" socket 16 <go >vmm.out 2>vmm.err 3>&- 4>&- 6>&- &
	peer_started vmm
	migtool_start send send --cap postcopy-ram "${SEND[@]}" guest "$RECV_URI"
}

# The guest looks at all of its pages; none is wrong.
vmm_finish() {
	wait_for_line vmm.out touched
	echo >&6
	wait_for_end vmm
	grep -q '^4096 pages, 0 wrong, 0 zero$' vmm.out
}

# Both ends are at their end, and say the same; nobody has to be there any more.
whole() {
	migtool_wait send
	migtool_wait recv
	assert_agreed
	vmm_finish
}

# Who waits for pages goes on waiting.
frozen() {
	echo >&6
	run -255 wait_for_end vmm 1
	run -1 grep -q pages, vmm.out
	[ ! -s vmm.err ]
}

# command_pair STATUS [RECV-OPTION]... -- COMMAND...: a whole transfer of `image`. recv ends with STATUS.
command_pair() {
	local status=$1 options=()
	shift
	while [ "$1" != -- ]; do
		options+=("$1")
		shift
	done
	shift
	rm -f "$C"
	listener_start recv recv --cap postcopy-ram "${options[@]}" unix:u "$C" -- "$@"
	migtool_start send send --cap postcopy-ram image "$RECV_URI"
	migtool_wait send
	migtool_wait recv "$status"
}

@test "a guest runs at once, and all of its memory follows" {
	SEND=()
	vmm_pair tcp:127.0.0.1:0
	whole
	assert_json recv '.ram."postcopy-bytes" > 12000000' '.ram."precopy-bytes" < 4096' \
		'."fault-latency".count >= 0' '.holes == 0 or .holes > 0'
	assert_json send '.ram."postcopy-bytes" > 12000000' '.ram."postcopy-requests" >= 0'
	grep -q 'guest has all of its memory' recv.err
	[ ! -e socket ]
}

@test "over unix sockets, dialled from the other side, and over one connection" {
	SEND=()
	vmm_pair unix:u --regions 16
	whole
	# who listens is the other one
	rm -f go
	mkfifo go
	exec 6<>go
	listener_start send send --cap postcopy-ram --listen guest tcp:127.0.0.1:0
	rm recv.err
	migtool_start recv recv --connect --uffd-socket socket "$RECV_URI"
	appears recv.err
	wait_for_line recv.err 'waiting for a VMM'
	"$VMM" run socket 16 <go >vmm.out 2>vmm.err 3>&- 4>&- 6>&- &
	peer_started vmm
	whole
	# no second connection can be opened
	rm -f go
	mkfifo go
	exec 6<>go
	rm recv.err
	migtool_start recv recv -v --uffd-socket socket "exec:socat - UNIX-LISTEN:one"
	appears recv.err
	wait_for_line recv.err 'waiting for a VMM'
	"$VMM" run --remove socket 16 <go >vmm.out 2>vmm.err 3>&- 4>&- 6>&- &
	peer_started vmm
	appears one
	migtool_start send send --cap postcopy-ram guest "exec:socat - UNIX-CONNECT:one"
	whole
}

@test "TLS on both connections" {
	local creds=("--param" "tls-creds=$PWD/keys.psk")
	"$MIGTOOL" psk keys.psk >/dev/null
	SEND=("${creds[@]}")
	vmm_pair tcp:127.0.0.1:0 --regions 4 -- "${creds[@]}"
	whole
	vmm_pair unix:u --touch 20 -- "${creds[@]}" --push=off
	vmm_finish
	migtool_wait send
	migtool_wait recv
	assert_json recv '.complete == false' '."fault-latency".count > 100'
}

@test "pulled over ssh, with a second login for what is asked for" {
	sshd_start "$BATS_TEST_TMPDIR/sshd"
	local login=(--ssh-option "UserKnownHostsFile=$PWD/sshd/known_hosts" --identity "$PWD/sshd/key")
	rm -f go
	mkfifo go
	exec 6<>go
	migtool_start recv recv "${login[@]}" --uffd-socket socket \
		"ssh://$(id -un)@127.0.0.1:$SSH_PORT$(realpath guest)"
	appears socket
	"$VMM" run --touch 50 socket 16 <go >vmm.out 2>vmm.err 3>&- 4>&- 6>&- &
	peer_started vmm
	migtool_wait recv
	assert_json recv '.complete' '."digest-verified"' '.owner == "destination"'
	vmm_finish
}

@test "what the guest drops is zero, in the middle of the push too" {
	local seed
	for seed in 2 3; do
		SEND=(--param max-postcopy-bandwidth=40M)
		vmm_pair unix:u --remove --seed $seed
		whole
	done
}

@test "huge pages travel whole" {
	local pool
	pool=$(cat /proc/sys/vm/nr_hugepages)
	echo $((pool + 8)) >/proc/sys/vm/nr_hugepages || skip "no huge pages here"
	SEND=()
	vmm_pair tcp:127.0.0.1:0 --huge --regions 2
	whole
	echo "$pool" >/proc/sys/vm/nr_hugepages
}

@test "an IMAGE is kept beside the guest's memory" {
	SEND=()
	listener_start recv recv --uffd-socket socket unix:u kept
	mkfifo go
	exec 6<>go
	"$VMM" run socket 16 <go >vmm.out 2>vmm.err 3>&- 4>&- 6>&- &
	peer_started vmm
	migtool_start send send --cap postcopy-ram guest "$RECV_URI"
	whole
	cmp guest kept
	assert_sparse kept
}

@test "--push=off: only what is touched moves, until the guest ends" {
	SEND=()
	vmm_pair tcp:127.0.0.1:0 --touch 10 -- --push=off --record needed
	wait_for_line vmm.out touched
	kill -0 "${PEER_PIDS[recv]}"
	kill -0 "${PEER_PIDS[send]}"
	kill -KILL "${PEER_PIDS[vmm]}"
	migtool_wait send
	migtool_wait recv
	assert_json recv '.complete == false' '.owner == "destination"' '.status == "completed"' \
		'."fault-latency".count > 100' '."fault-latency".p50 > 0' '.ram."postcopy-bytes" < 4000000'
	assert_json send '.complete == false' '.owner == "destination"' '.status == "completed"' \
		'.ram."postcopy-requests" > 100'
	grep -q 'stays needed' recv.err
	[ "$(head -n 1 needed)" = "migtool-faults 1" ]
	[ "$(wc -l <needed)" -gt 100 ]
}

@test "a guest that walks has its next pages asked for, too" {
	SEND=()
	listener_start recv recv --uffd-socket socket --push=off unix:u
	"$VMM" run --latency --walk --touch 50 socket 16 >vmm.out 2>vmm.err 3>&- &
	peer_started vmm
	migtool_start send send --cap postcopy-ram guest "$RECV_URI"
	wait_for_end vmm
	migtool_wait send
	migtool_wait recv
	assert_json recv '."fault-latency".count < 1000' '."fault-around" > 1000'
}

@test "release-ram: the source's memory goes back when the guest has all, not when it had enough" {
	cp --sparse=always "$IMAGES/guest" "$SHM/guest"
	ln -sf "$SHM/guest" guest
	SEND=(--cap release-ram)
	vmm_pair unix:u --touch 10 -- --push=off
	wait_for_line vmm.out touched
	kill -KILL "${PEER_PIDS[vmm]}"
	migtool_wait send
	migtool_wait recv
	cmp "$IMAGES/guest" guest
	assert_json send '.released == 0'
	vmm_pair unix:v
	whole
	[ "$(stat -c %b "$SHM/guest")" -eq 0 ]
	assert_json send '.released > 12000000'
}

@test "pause-before-switchover: the guest runs when the source's user says so" {
	SEND=(--cap pause-before-switchover --cap events)
	vmm_pair unix:u -- --timeout 1
	wait_for_line send.json '"pre-switchover"'
	wait_for_line recv.err 'the source waits for its user'
	[ ! -s vmm.out ]
	kill -USR2 "${PEER_PIDS[send]}"
	whole
	[ "$(jq -r 'select(.event == "MIGRATION").data.status' send.json | tr '\n' ' ')" = \
		"setup active pre-switchover postcopy-active completed " ]
}

@test "--prefetch brings what was needed the last time, and nothing else" {
	SEND=()
	command_pair 0 --push=off --record needed -- "$G" "$C" map check
	[ "$(wc -l <needed)" -eq $((PAGES + 1)) ]
	head -n 401 needed >first
	rm "$C"
	listener_start recv recv --cap postcopy-ram --push=off --prefetch first unix:u "$C" -- \
		sh -c 'echo $$ >pid; exec "$G" "$C" map sleep'
	migtool_start send send --cap postcopy-ram image "$RECV_URI"
	wait_for_data "$C" $((400 * 4096))
	kill -KILL "$(cat pid)"
	migtool_wait send
	migtool_wait recv
	assert_json recv '.complete == false' '."fault-latency".count == 0' '.ram.normal == 400'
}

@test "COMMAND runs at once, by faults alone" {
	local words
	for words in "map check" "populate map check" "private map fork check" "map fork check" \
		"map move check drop check" "thread check" "halves check fork"; do
		command_pair 0 --push=off -- sh -c "\$G \$C $words; echo \$? >status"
		[ "$(cat status)" = 0 ]
		assert_json recv '.complete == false' '.owner == "destination"'
	done
	# half of it walks: neighbours come with what it needs
	assert_json recv ".ram.normal == $PAGES" ".\"fault-latency\".count <= $PAGES"
	cmp image "$C"
}

@test "COMMAND survives recv, with all of its memory" {
	local words i
	for words in map "private map"; do
		rm -f go out
		mkfifo go
		exec 6<>go
		command_pair 0 -- sh -c \
			"exec \$G \$C $words say=\$\$ byte check say=right sleep <go >out 2>&1 6>&-"
		assert_agreed
		echo >&6
		read -r GUEST <out
		for ((i = 0; i < 1000; i++)); do
			[ "$(tail -n 1 out)" != right ] || break
			sleep 0.02
		done
		[ "$(tail -n 1 out)" = right ]
		kill "$GUEST"
		GUEST=
		cmp image "$C"
	done
}

@test "a process that runs already is served" {
	truncate -s $((PAGES * 4096)) "$C"
	mkfifo out go
	exec 6<>go
	"$G" "$C" map say=ready byte check say=right sleep <go >out 3>&- 4>&- 6>&- &
	GUEST=$!
	exec 5<out
	read -r _ <&5
	listener_start recv recv --guest "$GUEST" --force unix:u "$C"
	migtool_start send send --cap postcopy-ram image "$RECV_URI"
	migtool_wait send
	migtool_wait recv
	assert_agreed
	echo >&6
	read -r line <&5
	[ "$line" = right ]
	cmp image "$C"
}

@test "a COMMAND that ends before its memory is there is status 51" {
	rm -f "$C"
	listener_start recv recv --cap postcopy-ram unix:u "$C" -- sh -c 'exit 3'
	migtool_start send send --cap postcopy-ram image "$RECV_URI"
	migtool_wait recv 51
	migtool_wait send 5
	assert_error recv "ended with status 3 before its memory was complete"
	assert_error send "ended with status 3 before its memory was complete"
	assert_json send '.owner == "source"'
	assert_nothing "$C"
}

@test "a source that is killed leaves the guest waiting, and nothing else" {
	SEND=(--param max-postcopy-bandwidth=1M)
	vmm_pair tcp:127.0.0.1:0 --touch 1
	wait_for_line vmm.out touched
	kill -KILL "${PEER_PIDS[send]}"
	migtool_wait send 137
	migtool_wait recv 50
	assert_json recv '.owner == "destination"' '.status == "postcopy-paused"' '.complete == false' \
		'."error-code" == "lost"'
	grep -q 'guest waits for its memory' recv.err
	frozen
}

@test "so does a destination that is killed" {
	SEND=(--param max-postcopy-bandwidth=1M)
	vmm_pair tcp:127.0.0.1:0 --touch 1
	wait_for_line vmm.out touched
	kill -KILL "${PEER_PIDS[recv]}"
	migtool_wait recv 137
	migtool_wait send 50
	assert_json send '.owner == "destination"' '.status == "postcopy-paused"' '.complete == false' \
		'."error-code" == "lost"'
	frozen
}

@test "a first SIGTERM is refused at either end, a second one leaves the guest waiting" {
	local end other
	for end in send recv; do
		other=recv
		[ $end = send ] || other=send
		SEND=(--param max-postcopy-bandwidth=1M)
		vmm_pair unix:u --touch 1
		wait_for_line vmm.out touched
		kill -HUP "${PEER_PIDS[$end]}"
		kill -TERM "${PEER_PIDS[$end]}"
		wait_for_line $end.err 'needs its pages'
		kill -0 "${PEER_PIDS[$end]}"
		kill -TERM "${PEER_PIDS[$end]}"
		migtool_wait $end 50
		migtool_wait $other 50
		assert_json $end '.owner == "destination"' '.status == "postcopy-paused"'
		assert_json $other '.owner == "destination"' '.status == "postcopy-paused"'
		kill -KILL "${PEER_PIDS[vmm]}"
		wait_for_end vmm || true
	done
}

@test "before COMMIT the source keeps the guest, and COMMAND is ended" {
	# no VMM comes
	listener_start recv recv -v --uffd-socket socket unix:u
	migtool_start send send --cap postcopy-ram guest "$RECV_URI"
	wait_for_line recv.err 'the source is'
	kill -TERM "${PEER_PIDS[send]}"
	migtool_wait send 20
	assert_json send '.owner == "source"' '.status == "cancelled"'
	migtool_wait recv 10
	assert_json recv '.owner == "source"' '.status == "failed"'
	[ ! -e socket ]
	# COMMAND maps nothing
	listener_start recv recv --cap postcopy-ram unix:u "$C" -- sh -c 'echo $$ >pid; exec sleep 1000'
	migtool_start send send --cap postcopy-ram image "$RECV_URI"
	appears pid
	wait_for_line pid .
	GUEST=$(cat pid)
	kill -KILL "${PEER_PIDS[send]}"
	migtool_wait send 137
	migtool_wait recv 10
	assert_json recv '.owner == "source"'
	# it is gone, or nobody has asked for its status yet
	run cat "/proc/$GUEST/stat"
	[ "$status" != 0 ] || [[ $output == *") Z "* ]]
	GUEST=
	assert_nothing "$C"
}

@test "an image that changes meanwhile leaves the guest waiting" {
	rm guest
	cp --sparse=always "$IMAGES/guest" guest
	SEND=()
	vmm_pair unix:u --touch 1 -- --push=off
	wait_for_line vmm.out touched
	truncate -s 1M guest
	echo >&6
	migtool_wait send 50
	migtool_wait recv 50
	grep -q 'changed while it was read' send.err
	run -255 wait_for_end vmm 1
}

@test "a guest wants postcopy-ram of the source, and both ends say so" {
	listener_start recv recv --uffd-socket socket unix:u
	migtool_start send send guest "$RECV_URI"
	migtool_wait send 5 || migtool_wait send 4
	grep -q 'the source has postcopy-ram off' send.err
	grep -q 'send --cap postcopy-ram=on' send.err
	grep -q 'the source has postcopy-ram off.*listening on' recv.err
	# a dry run does not use it up
	migtool_start send send -n --cap postcopy-ram guest "$RECV_URI"
	migtool_wait send
	mkfifo go
	exec 6<>go
	"$VMM" run socket 16 <go >vmm.out 2>vmm.err 3>&- 4>&- 6>&- &
	peer_started vmm
	migtool_start send send --cap postcopy-ram guest "$RECV_URI"
	whole
}

@test "where no guest is to run, the memory is taken as ever" {
	run_pair unix:u guest copy --cap postcopy-ram
	assert_agreed
	grep -q 'no guest runs at the destination' send.err
	cmp guest copy
}

@test "an idle guest is waited for longer than --timeout" {
	SEND=(--timeout 2)
	vmm_pair unix:u --touch 1 -- --push=off --timeout 2
	wait_for_line vmm.out touched
	sleep 3
	vmm_finish
	migtool_wait send
	migtool_wait recv
	assert_json recv '.complete == false'
}

# peer ROLE SCRIPT [ARG]: the other end, by the manual's page. Waits until it listens, if it does.
peer() {
	rm -f peer.out
	"$TOOLS/guest_peer.py" "$1" u "${@:2}" >peer.out 2>peer.err </dev/null 3>&- 4>&- 6>&- &
	peer_started peer
	[ "$1" = source ] || wait_for_line peer.out listening
}

@test "a peer that was written from the manual is understood" {
	local script
	for script in ahead good; do
		rm -f u go
		listener_start recv recv --uffd-socket socket unix:u
		mkfifo go
		exec 6<>go
		"$VMM" run --touch 20 socket 16 <go >vmm.out 2>vmm.err 3>&- 4>&- 6>&- &
		peer_started vmm
		peer source $script "$(realpath guest)"
		migtool_wait recv
		wait_for_end peer
		assert_json recv .complete '."digest-verified"'
		vmm_finish
	done
	rm -f u
	peer destination good
	migtool_start send send --cap postcopy-ram guest unix:u
	migtool_wait send
	wait_for_end peer
	assert_json send '.complete == false' '.owner == "destination"' '.ram."postcopy-requests" == 3' \
		'.ram.normal + .ram.duplicate == 3'
}

@test "a page that is on its way in the background is sent again to who waits for it, once" {
	peer destination again "$(realpath guest)"
	migtool_start send send --cap postcopy-ram guest unix:u
	migtool_wait send
	wait_for_end peer
	assert_json send '.complete == false' '.ram."postcopy-requests" == 3'
}

# all_wrong ROLE: each script of that role, of which there are many, plays in the directory wrong.
all_wrong() {
	mkdir -p wrong
	"$TOOLS/guest_peer.py" all "$1" wrong >peer.out 2>peer.err </dev/null 3>&- 4>&- 6>&- &
	peer_started peer
	"$TOOLS/guest_peer.py" list "$1" >scripts
	wait_for_line peer.out listening
}

# ended_so NAME STATUS OWNER WORDS
ended_so() {
	migtool_wait "$1" "$2" && assert_error "$1" "$4" &&
		assert_json "$1" ".owner == \"$3\"" '.complete == false' && return
	echo "in $1"
	return 1
}

@test "whatever a source does wrong, the guest waits or stays the source's" {
	local name status owner words bad=0
	mkfifo go
	exec 6<>go
	all_wrong source
	while read -r name status owner words; do
		migtool_start "$name" recv --uffd-socket "vmm-$name" --device-state "dev-$name" "unix:wrong/$name"
	done <scripts
	while read -r name status owner words; do
		# some are over before they need a guest
		while [ ! -e "vmm-$name" ] && kill -0 "${PEER_PIDS[$name]}" 2>/dev/null; do
			sleep 0.02
		done
		"$VMM" run --touch 1 "vmm-$name" 16 <go >"$name.out" 2>"$name.vmm" 3>&- 4>&- 6>&- &
		peer_started "of-$name"
	done <scripts
	while read -r name status owner words; do
		ended_so "$name" "$status" "$owner" "$words" || bad=1
		[ "$owner" = destination ] || [ ! -e "dev-$name" ] || bad=1
	done <scripts
	[ "$bad" = 0 ]
}

@test "whatever a destination does wrong, the source says who owns the guest" {
	local name status owner words bad=0
	all_wrong destination
	while read -r name status owner words; do
		migtool_start "$name" send --cap postcopy-ram guest "unix:wrong/$name"
	done <scripts
	while read -r name status owner words; do
		ended_so "$name" "$status" "$owner" "$words" || bad=1
	done <scripts
	[ "$bad" = 0 ]
}

@test "what does not go with such a guest is refused" {
	run -1 "$MIGTOOL" recv --uffd-socket socket --one-way tcp:127.0.0.1:0
	[[ $output == *"--one-way does not go with a guest"* ]]
	run -1 "$MIGTOOL" recv --uffd-socket socket --push=off tcp:127.0.0.1:0 copy
	run -1 "$MIGTOOL" recv --uffd-socket socket --guest 1 tcp:127.0.0.1:0
	run -1 "$MIGTOOL" recv --push=off tcp:127.0.0.1:0 copy
	[[ $output == *"needs a guest to serve"* ]]
	[ ! -e socket ]
}
