# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash
#
# Real QEMU peers for the .bats files: helper.bash's processes, some of which are QEMUs. NAME.serial
# is a QEMU's serial line, NAME.qmp its QMP socket.

# shellcheck source-path=SCRIPTDIR
. "$BATS_TEST_DIRNAME/helper.bash"

GUEST_MIB=32

# Makes the boot-sector guest in the file's directory.
qemu_build_guest() {
	"$BATS_TEST_DIRNAME/guest/make-boot" "$BATS_FILE_TMPDIR/guest"
}

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

# qemu_listen [ARG]... [-- SETTING...]: `dst`, which waits for a migration with these settings at LISTEN
# (unix:socket); QEMU_URI is where.
qemu_listen() {
	local BEFORE BEHIND
	split_options "$@"
	qemu_start_incoming dst defer "${BEFORE[@]}"
	qemu_qmp dst incoming "${LISTEN:-unix:socket}" "${BEHIND[@]}"
	# shellcheck disable=SC2034 # for the caller
	QEMU_URI=$(qemu_qmp dst address)
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
		{"capability": "validate-uuid", "state": false},
		{"capability": "x-ignore-shared", "state": false}]}}' >/dev/null
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

# qemu_save_guest [ARG]... [-- SETTING...]: for setup_file. A guest has run a while and is in the file's
# directory: as `image` (its block pc.ram as image.ram, too), and what it printed in src.serial.
qemu_save_guest() {
	local BEFORE BEHIND
	split_options "$@"
	PEER_DIR=$BATS_FILE_TMPDIR
	cd "$BATS_FILE_TMPDIR" || return
	qemu_build_guest
	qemu_start src "${BEFORE[@]}"
	qemu_wait_tick src 5
	recv_start recv unix:socket image
	qemu_migrate src unix:socket "${BEHIND[@]}"
	qemu_wait_status src completed
	recv_wait recv
	qemu_stop src
	cp image/ram/pc.ram image.ram
}

# It goes on in dst with the line that was due when it was saved.
assert_saved_guest_runs() {
	qemu_wait_tick dst $(($(PEER_DIR=$BATS_FILE_TMPDIR qemu_serial_last_tick src) + 10))
	assert_guest_went_on "$BATS_FILE_TMPDIR/src.serial" dst.serial
}

qemu_stop() { # NAME
	kill "${PEER_PIDS[$1]}"
	wait_for_end "$1" || true
}
