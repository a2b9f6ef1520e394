# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash
#
# What the .bats files share: processes in the background, migtool's two ends, images.
#
# A process has a NAME; what belongs to it is in $PEER_DIR (by default the test's own directory):
# NAME.err its messages, NAME.json what it prints, NAME.pid. peer_teardown ends all that is left.

PEER_DIR=${BATS_TEST_TMPDIR:-}
TOOLS=$BATS_TEST_DIRNAME/tools
case ${B:=build} in
/*) MIGTOOL=$B/migtool ;;
*) MIGTOOL=$BATS_TEST_DIRNAME/../$B/migtool ;;
esac
INSIDE=() # what migtools are started with, as mount_private's nsenter
declare -gA PEER_PIDS # load is a function: without -g it would be local
HUGE_POOL=/proc/sys/vm/nr_hugepages

# peer_started NAME: the last background process has that name.
peer_started() {
	PEER_PIDS[$1]=$!
	echo $! >"$PEER_DIR/$1.pid"
}

# wait_for_end NAME [SECONDS]: waits for a background process; its exit status is the result.
wait_for_end() {
	local pid=${PEER_PIDS[$1]} i
	for ((i = 0; i < ${2:-30} * 50; i++)); do
		kill -0 "$pid" 2>/dev/null || break
		sleep 0.02
	done
	if kill -0 "$pid" 2>/dev/null; then
		echo "$1 has not ended after ${2:-30} seconds" >&2
		return 255
	fi
	unset "PEER_PIDS[$1]"
	rm -f "$PEER_DIR/$1.pid"
	wait "$pid"
}

# wait_until COMMAND [ARG]...: until it succeeds, 30 seconds at the most.
wait_until() {
	local i
	for ((i = 0; i < 1500; i++)); do
		! "$@" || return 0
		sleep 0.02
	done
	echo "not within 30 seconds: $*" >&2
	return 1
}

wait_for_file() { # PATH: something is in it
	wait_until test -s "$1"
}

# wait_for_line FILE PATTERN: a line of it matches.
wait_for_line() {
	wait_until grep -qs -e "$2" "$1" || {
		cat "$1" >&2
		return 1
	}
}

# guest_images MIB PAGES: IMAGES/guest, which guest/vmm looks at, and IMAGES/image, which guest/maps does.
guest_images() {
	"$(dirname "$MIGTOOL")/guest/vmm" make "$IMAGES/guest" "$1"
	truncate -s $(($2 * 4096)) "$IMAGES/image"
	"$(dirname "$MIGTOOL")/guest/maps" "$IMAGES/image" map fill
}

# guest_setup: SHM, a directory in memory for the test to remove; C, a file there to be mapped by G,
# guest/maps.
guest_setup() {
	SHM=$(mktemp -d /dev/shm/migtool-test-XXXXXX)
	G=$(dirname "$MIGTOOL")/guest/maps
	C=$SHM/copy
	export G C
}

# What all said that took part, after a test has failed.
peer_messages() {
	local file
	for file in "$PEER_DIR"/*.err; do
		[ ! -s "$file" ] || tail -v -n 20 "$file"
	done
}

# By the files and not by PEER_PIDS: what was started inside `run` is known to that subshell alone.
peer_teardown() {
	local file pid
	[ -n "${BATS_TEST_COMPLETED:-}" ] || peer_messages
	for file in "$PEER_DIR"/*.pid; do
		[ -e "$file" ] || continue
		read -r pid <"$file"
		kill -KILL "$pid" 2>/dev/null || true
		wait "$pid" 2>/dev/null || true
		rm -f "$file"
	done
	PEER_PIDS=()
	huge_pages_end
}

# huge_pages N: the machine's pool has N huge pages more, until the test is over. The pool is one for all:
# whoever sizes it takes his turn by a lock on the file itself, and so does tests/unit/huge_pool.h.
huge_pages() {
	exec {HUGE_LOCK}<"$HUGE_POOL" || skip "no huge pages here"
	flock -w 300 "$HUGE_LOCK" || {
		echo "somebody has had the pool of huge pages for 300 seconds" >&2
		return 1
	}
	HUGE_WAS=$(cat "$HUGE_POOL")
	echo $((HUGE_WAS + $1)) >"$HUGE_POOL" || skip "no huge pages here"
	[ "$(cat "$HUGE_POOL")" -ge $((HUGE_WAS + $1)) ] || {
		echo "no memory for $1 huge pages" >&2
		return 1
	}
}

# By hand: whatever inherited the descriptor would keep the lock. The pages may be in use until a mount has
# gone, and the next one must not take them for the machine's.
huge_pages_end() {
	local i rc=0
	[ -n "${HUGE_LOCK:-}" ] || return 0
	if [ -n "${HUGE_WAS:-}" ]; then
		echo "$HUGE_WAS" >"$HUGE_POOL" || rc=1
		for ((i = 0; i < 500; i++)); do
			[ "$(cat "$HUGE_POOL")" -gt "$HUGE_WAS" ] || break
			sleep 0.02
		done
		[ "$i" -lt 500 ] || {
			echo "the pool of huge pages is not what it was, $HUGE_WAS" >&2
			rc=1
		}
	fi
	flock -u "$HUGE_LOCK"
	exec {HUGE_LOCK}<&-
	unset HUGE_LOCK HUGE_WAS
	return "$rc"
}

# A process in the background must not hold bats' own descriptors: bats would wait for it.
# migtool_start NAME COMMAND [ARG]...: a migtool in the background, for instance `send`.
migtool_start() {
	local name=$1 command=$2
	shift 2
	# who waits for a line must not find one of its namesake's before the new one has begun
	rm -f "$PEER_DIR/$name.json" "$PEER_DIR/$name.err"
	"${INSIDE[@]}" "$MIGTOOL" "$command" --json --progress=none "$@" >"$PEER_DIR/$name.json" \
		2>"$PEER_DIR/$name.err" </dev/null 3>&- 4>&- 9>"${READY:-/dev/null}" &
	peer_started "$name"
}

# listener_start NAME COMMAND [ARG]...: the same, and it listens when this returns. RECV_URI is where.
listener_start() {
	local name=$1 command=$2
	shift 2
	rm -f "$PEER_DIR/$name.ready"
	mkfifo "$PEER_DIR/$name.ready"
	READY=$PEER_DIR/$name.ready migtool_start "$name" "$command" --ready-fd 9 "$@"
	# shellcheck disable=SC2034 # for the caller
	read -r -t 20 RECV_URI <"$PEER_DIR/$name.ready" || {
		echo "migtool $command does not listen" >&2
		return 1
	}
}

# recv_start NAME URI IMAGE [OPTION]...: `migtool recv` in the background. If the URI is one to listen
# on, it listens when this returns, and RECV_URI is where.
recv_start() {
	local name=$1 uri=$2 image=$3
	shift 3
	# shellcheck disable=SC2034 # for the caller
	RECV_URI=$uri
	case $uri in
	exec:* | fd:* | file:* | stdio:*) migtool_start "$name" recv "$@" "$uri" "$image" ;;
	*) listener_start "$name" recv "$@" "$uri" "$image" ;;
	esac
}

# migtool_wait NAME [STATUS]: until it has ended.
migtool_wait() {
	local rc=0
	wait_for_end "$1" || rc=$?
	[ "$rc" -eq "${2:-0}" ] && return 0
	echo "migtool $1 ended with $rc instead of ${2:-0}" >&2
	return 1
}

recv_wait() { # NAME [STATUS]
	migtool_wait "$@"
}

# split_options [OPTION]... [-- OPTION...]: what stands before the -- into the array BEFORE, what stands
# behind it into BEHIND.
split_options() {
	# shellcheck disable=SC2034 # both for the caller
	BEFORE=() BEHIND=()
	while [ $# -gt 0 ] && [ "$1" != -- ]; do
		BEFORE+=("$1")
		shift
	done
	BEHIND=("${@:2}")
}

# run_pair URI IMAGE COPY [SEND-OPTION]... [-- RECV-OPTION...]: one whole transfer, `recv` listening
# on URI, as the processes `recv` and `send`. SEND_STATUS and RECV_STATUS are what they have to end
# with (0).
run_pair() {
	local uri=$1 image=$2 copy=$3 BEFORE BEHIND
	split_options "${@:4}"
	recv_start recv "$uri" "$copy" "${BEHIND[@]}"
	migtool_start send send "${BEFORE[@]}" "$image" "$RECV_URI"
	migtool_wait send "${SEND_STATUS:-0}"
	migtool_wait recv "${RECV_STATUS:-0}"
}

# run_refused STATUS WORDS IMAGE [SEND-OPTION]... [-- RECV-OPTION...]: recv refuses the greeting; both
# ends say why in the same WORDS, nothing is left, and recv goes on listening.
run_refused() {
	local status=$1 words=$2 image=$3 BEFORE BEHIND
	split_options "${@:4}"
	recv_start recv unix:refused copy "${BEHIND[@]}"
	migtool_start send send "${BEFORE[@]}" "$image" "$RECV_URI"
	migtool_wait send "$status"
	grep -F -- "error: " send.err | grep -qF -- "$words"
	grep -F -- "listening on" recv.err | grep -qF -- "$words"
	[ ! -e copy.part ]
	kill "${PEER_PIDS[recv]}"
	migtool_wait recv 20
	assert_json recv '.owner == "source"' '.complete == false'
}

# assert_json NAME FILTER...: what it printed makes all these jq filters true.
assert_json() {
	local name=$1 filter all=true
	shift
	# in one go: jq takes longer to start than to judge
	for filter; do
		all+=" and ($filter)"
	done
	tail -n 1 "$PEER_DIR/$name.json" | jq -es "length == 1 and (.[0] | $all)" >/dev/null && return 0
	for filter; do
		tail -n 1 "$PEER_DIR/$name.json" | jq -e "$filter" >/dev/null ||
			echo "$name: not true: $filter"
	done
	tail -n 1 "$PEER_DIR/$name.json" | jq -c .
	return 1
}

# assert_error NAME WORDS: it has ended with an error that has these in it.
assert_error() {
	grep -F -- "error: " "$PEER_DIR/$1.err" | tail -n 1 | grep -qF -- "$2" || {
		echo "$1 does not say: $2"
		cat "$PEER_DIR/$1.err"
		return 1
	}
}

warned() { # NAME WORDS: one of its warnings has these in it
	grep -F -- "warning: " "$PEER_DIR/$1.err" | grep -qF -- "$2"
}

# assert_nothing IMAGE...: nothing is there, whole or in part.
assert_nothing() {
	local image
	for image; do
		if "${INSIDE[@]}" test -e "$image" || "${INSIDE[@]}" test -e "$image.part"; then
			"${INSIDE[@]}" ls -lR "$image" "$image.part"
			return 1
		fi
	done
}

# Both ends say the same of one transfer between them, and that it is verified.
assert_agreed() {
	local said='[.digest, ."digest-verified", .ram.normal, .ram.duplicate, .owner, .complete, .status]'
	{ tail -n 1 "$PEER_DIR/send.json" && tail -n 1 "$PEER_DIR/recv.json"; } >"$PEER_DIR/both.json"
	jq -es "length == 2 and (.[0] | $said) == (.[1] | $said) and (.[1] |
		.\"digest-verified\" and .complete and .owner == \"destination\")" \
		"$PEER_DIR/both.json" >/dev/null && return 0
	echo "what send and recv say is not the same, or not that it is done and verified:"
	jq -c "$said" "$PEER_DIR/both.json"
	return 1
}

# How many bytes of a file are no hole. (du counts the file system's own blocks too.)
data_bytes() { # FILE
	"$TOOLS/sparse.py" --data "$1"
}

# wait_for_data PATH [BYTES]: until there is so much (64 KiB) in the file or the directory. By du: a transfer
# of a few seconds may be over before python has started.
wait_for_data() {
	local i size
	for ((i = 0; i < 500; i++)); do
		size=$(du -s --block-size=1 "$1" 2>/dev/null | cut -f 1)
		[ "${size:-0}" -lt "${2:-65536}" ] || return 0
		sleep 0.02
	done
	echo "$1 does not grow" >&2
	return 1
}

# mount_private DIR MOUNT-ARG...: mounts on DIR in a name space of its own, which ends with the test.
# INSIDE is what runs a command in there.
mount_private() {
	local dir=$1 user=()
	shift
	[ "$(id -u)" -eq 0 ] || user=(--user --map-root-user)
	mkfifo "$PEER_DIR/mounted"
	# shellcheck disable=SC2016 # it is the inner shell's
	unshare "${user[@]}" --mount --propagation private sh -c '
		fifo=$1; shift; mount "$@" && echo mounted >"$fifo" && exec sleep 1000' - \
		"$PEER_DIR/mounted" "$@" "$dir" >"$PEER_DIR/mount.err" 2>&1 </dev/null 3>&- 4>&- &
	peer_started mount
	read -r -t 20 _ <"$PEER_DIR/mounted"
	rm "$PEER_DIR/mounted"
	[ "${#user[@]}" -eq 0 ] || user=(--user --preserve-credentials)
	INSIDE=(nsenter --target "$(cat "$PEER_DIR/mount.pid")" "${user[@]}" --mount "--wdns=$PWD")
}

# player_up TOOL: the process `player` is there, a tool that plays one thing after the other at the other
# end: python takes longer to start than to play, and a --timeout must not have to allow for that.
player_up() {
	[ -z "${PEER_PIDS[player]:-}" ] || return 0
	mkfifo "$PEER_DIR/player.in" "$PEER_DIR/player.out"
	"$TOOLS/$1" <"$PEER_DIR/player.in" >"$PEER_DIR/player.out" 2>"$PEER_DIR/player.err" 3>&- 4>&- &
	peer_started player
	exec 7>"$PEER_DIR/player.in" 8<"$PEER_DIR/player.out"
	[ "$(player_says)" = ready ]
}

player_do() { # WORD...: what the tool reads
	echo "$*" >&7
}

player_says() { # the next line of what it prints
	local line
	read -r -t 60 line <&8 && echo "$line"
}

# What it was told is done, and it has nothing to complain of.
player_ended() {
	[[ $(player_says) == ended* ]] && [ ! -s "$PEER_DIR/player.err" ]
}

# link_start PORT [POINT]...: a link to that port, which breaks there (tests/tools/cut_proxy.py); LINK is its
# URI.
link_start() {
	rm -f "$PEER_DIR"/link.{in,out}
	mkfifo "$PEER_DIR"/link.{in,out}
	"$TOOLS/cut_proxy.py" "$@" <"$PEER_DIR/link.in" >"$PEER_DIR/link.out" 2>"$PEER_DIR/link.err" \
		3>&- 4>&- &
	peer_started link
	# what it says of its cuts needs a reader
	exec 8>"$PEER_DIR/link.in" 7<"$PEER_DIR/link.out"
	read -r -t 20 LINK <&7
	LINK=tcp:127.0.0.1:$LINK
}

# Its connections end with it.
link_stop() {
	[ -n "${PEER_PIDS[link]:-}" ] || return 0
	exec 8>&- 7<&-
	wait_for_end link
}

make_image() { # [--seed N] [--size MIB] KIND OUT
	"$TOOLS/make_image.py" "$@"
}

# Two images that must be equal. Directories: the blocks, with --devices the devices too. Files: all.
assert_same_image() { # IMAGE IMAGE [--devices] [--except BLOCK-OR-DEVICE]...
	if [ -f "$1" ] && [ -f "$2" ]; then
		cmp "$@"
	else
		"$TOOLS/compare_images.py" "$@"
	fi
}

# No page of zeros has storage in the copy.
assert_sparse() { # IMAGE
	if [ -d "$1" ]; then
		"$TOOLS/sparse.py" "$1"/ram/*
	else
		"$TOOLS/sparse.py" "$1"
	fi
}
