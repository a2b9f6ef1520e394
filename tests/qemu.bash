# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash
#
# Real QEMU peers for the .bats files. A guest has a NAME; what belongs to it is in $PEER_DIR (by
# default the test's own directory): NAME.serial its serial line, NAME.err QEMU's messages, NAME.qmp
# its QMP socket, NAME.pid. migtool processes started in the background have names in the same way.
# peer_teardown ends all that is left.

PEER_DIR=${BATS_TEST_TMPDIR:-}
TOOLS=$BATS_TEST_DIRNAME/tools
GUEST_MIB=32
case ${B:=build} in
/*) MIGTOOL=$B/migtool ;;
*) MIGTOOL=$BATS_TEST_DIRNAME/../$B/migtool ;;
esac
declare -gA PEER_PIDS # bats sources this file inside a function

# Makes the boot-sector guest in the file's directory. Arguments: what make-boot takes.
qemu_build_guest() {
	"$BATS_TEST_DIRNAME/guest/make-boot" "$BATS_FILE_TMPDIR/guest" "$@"
}

# peer_started NAME: the last background process has that name.
peer_started() {
	PEER_PIDS[$1]=$!
	echo $! >"$PEER_DIR/$1.pid"
}

# A process in the background must not hold bats' own descriptors: bats would wait for it.
# qemu_run NAME [ARG]...: a QEMU with just what is given.
qemu_run() {
	local name=$1
	shift
	qemu-system-x86_64 -nodefaults -no-user-config -display none \
		-serial "file:$PEER_DIR/$name.serial" \
		-qmp "unix:$PEER_DIR/$name.qmp,server=on,wait=off" "$@" \
		>"$PEER_DIR/$name.err" 2>&1 3>&- 4>&- &
	peer_started "$name"
}

# qemu_start NAME [ARG]...: the boot-sector guest, running at once (-S: paused). Its clock stands still
# when it is stopped, so that its devices can be compared.
qemu_start() {
	local name=$1
	shift
	qemu_run "$name" -machine pc,accel=tcg -m "$GUEST_MIB" -rtc base=2020-01-01,clock=vm \
		-drive "file=$BATS_FILE_TMPDIR/guest/boot.img,if=floppy,format=raw,readonly=on" "$@"
}

# qemu_start_incoming NAME URI [ARG]...: the same machine, waiting for a migration.
qemu_start_incoming() {
	local name=$1 uri=$2
	shift 2
	qemu_start "$name" -incoming "$uri" "$@"
}

# qemu_qmp NAME ARG...: what qmp.py takes.
qemu_qmp() {
	local name=$1
	shift
	"$TOOLS/qmp.py" --timeout "${QMP_TIMEOUT:-30}" "$PEER_DIR/$name.qmp" "$@" 3>&- 4>&-
}

qemu_migrate() { # NAME URI [SETTING]...
	local name=$1
	shift
	qemu_qmp "$name" migrate "$@"
}

qemu_wait_status() { # NAME STATUS[,STATUS]
	qemu_qmp "$1" wait "$2" >"$PEER_DIR/$1.migration"
}

# The number in the last complete `tick` line, 0 before the first. (Linux ends a line with CR LF.)
qemu_serial_last_tick() { # NAME
	{ cat "$PEER_DIR/$1.serial" 2>/dev/null && echo x; } | tr -d '\r' | awk '
		/^tick [0-9]+$/ { n = $2 }
		END { print n + 0 }'
}

qemu_wait_tick() { # NAME NUMBER
	local i
	for ((i = 0; i < 600; i++)); do
		[ "$(qemu_serial_last_tick "$1")" -lt "$2" ] || return 0
		sleep 0.05
	done
	echo "$1: no tick $2 within 30 seconds; its last lines:" >&2
	tail -n 5 "$PEER_DIR/$1.serial"
	return 1
}

qemu_clear_capabilities() { # NAME: so that it can migrate to a file
	qemu_qmp "$1" '{"execute": "migrate-set-capabilities", "arguments": {"capabilities": [
		{"capability": "multifd", "state": false}, {"capability": "compress", "state": false},
		{"capability": "xbzrle", "state": false}, {"capability": "return-path", "state": false},
		{"capability": "validate-uuid", "state": false}]}}' >/dev/null
}

# The guest's memory as QEMU's own monitor sees it; the guest has to be stopped.
qemu_save_ram() { # NAME FILE
	qemu_qmp "$1" pmemsave "$2" 0 $((GUEST_MIB << 20))
}

# Succeeds if the guest whose output began in one QEMU and went on in another neither lost nor
# repeated a line, and found its memory as it had left it.
assert_guest_went_on() { # SERIAL-FILE...
	cat "$@" | awk -v from="$(grep -c '' "$1")" '
		/^$/ { next }
		$0 != "tick " (n + 1) { print "line " NR ": " $0 " after tick " n; bad = 1 }
		{ n++ }
		END { if (n <= from + 1) { print "only " n " ticks, " from " in the first"; bad = 1 }
		      exit bad }'
}

# wait_for_end NAME [SECONDS]: waits for a background process; its exit status is the result.
wait_for_end() {
	local pid=${PEER_PIDS[$1]} i
	for ((i = 0; i < ${2:-30} * 20; i++)); do
		kill -0 "$pid" 2>/dev/null || break
		sleep 0.05
	done
	if kill -0 "$pid" 2>/dev/null; then
		echo "$1 has not ended after ${2:-30} seconds" >&2
		return 255
	fi
	unset "PEER_PIDS[$1]"
	wait "$pid"
}

qemu_stop() { # NAME
	kill "${PEER_PIDS[$1]}"
	wait_for_end "$1" || true
}

# What all said that took part, after a test has failed.
peer_messages() {
	local file
	for file in "$PEER_DIR"/*.err; do
		[ ! -s "$file" ] || tail -v -n 20 "$file"
	done
}

peer_teardown() {
	local name
	[ -n "${BATS_TEST_COMPLETED:-}" ] || peer_messages
	for name in "${!PEER_PIDS[@]}"; do
		kill -KILL "${PEER_PIDS[$name]}" 2>/dev/null || true
		wait "${PEER_PIDS[$name]}" 2>/dev/null || true
	done
	PEER_PIDS=()
}

# recv_start NAME URI IMAGE [OPTION]...: `migtool recv` in the background. If the URI is one to listen
# on, it listens when this returns, and RECV_URI is where. Its JSON goes to NAME.json, its messages
# to NAME.err.
recv_start() {
	local name=$1 uri=$2 image=$3
	shift 3
	rm -f "$PEER_DIR/$name.ready"
	mkfifo "$PEER_DIR/$name.ready"
	"$MIGTOOL" recv --json --progress=none --ready-fd 9 "$@" "$uri" "$image" \
		9<>"$PEER_DIR/$name.ready" >"$PEER_DIR/$name.json" 2>"$PEER_DIR/$name.err" \
		</dev/null 3>&- 4>&- &
	peer_started "$name"
	# shellcheck disable=SC2034 # for the caller
	RECV_URI=$uri
	case $uri in
	exec:* | fd:* | file:* | stdio:*) return ;;
	esac
	# shellcheck disable=SC2034
	read -r -t 20 RECV_URI <"$PEER_DIR/$name.ready" || {
		echo "migtool recv does not listen" >&2
		return 1
	}
}

# recv_wait NAME [STATUS]: until it has ended; its messages are shown if the status is another.
recv_wait() {
	local rc=0
	wait_for_end "$1" || rc=$?
	[ "$rc" -eq "${2:-0}" ] && return 0
	echo "migtool $1 ended with $rc instead of ${2:-0}" >&2
	return 1
}

# How many bytes of a file are no hole. (du counts the file system's own blocks too.)
data_bytes() { # FILE
	python3 - "$1" <<-END
		import os, sys
		fd, at, total = os.open(sys.argv[1], os.O_RDONLY), 0, 0
		size = os.fstat(fd).st_size
		while at < size:
		    try:
		        start = os.lseek(fd, at, os.SEEK_DATA)
		    except OSError:
		        break
		    at = os.lseek(fd, start, os.SEEK_HOLE)
		    total += at - start
		print(total)
	END
}

# Two image directories that must be equal: the blocks, with --devices the devices too.
assert_same_image() { # DIR DIR [--devices] [--except BLOCK-OR-DEVICE]...
	"$TOOLS/compare_images.py" "$@"
}
