#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later
# Images to and from a host where only sshd runs: a real one, through OpenSSH's client (--rsh).

# shellcheck disable=SC2030,SC2031 # each test has its own INSIDE and FAR

bats_require_minimum_version 1.5.0
load helper
load ssh

setup_file() {
	export IMAGES=$BATS_FILE_TMPDIR SSHD=$BATS_FILE_TMPDIR/sshd
	make_image mixed --size 8 "$IMAGES/mixed"
	make_image random --size 8 "$IMAGES/random"
	make_image directory --size 4 "$IMAGES/directory"
	sshd_start "$SSHD"
}

teardown_file() {
	sshd_stop "$SSHD"
}

setup() {
	cd "$BATS_TEST_TMPDIR" || return
	RSH="ssh -F $SSHD/client"
	FAR=ssh://far$PWD # a directory on the far host, which is this one
}

teardown() {
	assert_nothing_far "$SSHD" # whatever happened, and within seconds
	peer_teardown
}

# push IMAGE FAR-URI [OPTION]..., pull FAR-URI IMAGE [OPTION]...: in the foreground, as the processes
# send and recv; STATUS is what it has to end with.
push() {
	migtool_start send send --rsh "$RSH" "${@:3}" "$1" "$2"
	migtool_wait send "${STATUS:-0}"
}

pull() {
	migtool_start recv recv --rsh "$RSH" "${@:3}" "$1" "$2"
	migtool_wait recv "${STATUS:-0}"
}

says() { # NAME WORDS: in its messages
	grep -qF -- "$2" "$PEER_DIR/$1.err" || {
		echo "$1 does not say: $2"
		return 1
	}
}

says_once() { # NAME WORDS
	local n
	n=$(grep -cF -- "$2" "$PEER_DIR/$1.err") || true
	[ "$n" -eq 1 ] || {
		echo "$1 says $n times: $2"
		return 1
	}
}

# The far migtool's process.
far_pid() {
	local pid
	for pid in $(far_pids "$SSHD"); do
		# nor its broker, nor those that hand the other connections over: the numbers come in any order
		[ ! "/proc/$pid/exe" -ef "$MIGTOOL" ] || grep -qx migtool-broker "/proc/$pid/comm" ||
			grep -qzx join "/proc/$pid/cmdline" || break
	done
	echo "$pid"
}

# children_of NAME: what a migtool has started; its broker did.
children_of() {
	pgrep -P "$(pgrep -P "${PEER_PIDS[$1]}" -x migtool-broker)"
}

# kill_shells NAME: the remote shells of a process, as a broken link does.
kill_shells() {
	local pid
	for pid in $(children_of "$1"); do
		kill -KILL -- "-$pid"
	done
}

@test "a file goes there and comes back" {
	push "$IMAGES/mixed" "$FAR/copy"
	cmp "$IMAGES/mixed" copy
	assert_sparse copy
	assert_json send '.status == "completed"' '."digest-verified"' '.owner == "destination"'
	pull "$FAR/copy" back
	cmp "$IMAGES/mixed" back
	assert_sparse back
	assert_json recv '.status == "completed"' '."digest-verified"' '.owner == "destination"'
}

@test "a directory goes there and comes back, device state too" {
	push "$IMAGES/directory" "$FAR/copy/"
	assert_same_image "$IMAGES/directory" copy
	cmp "$IMAGES/directory/device-state" copy/device-state
	pull "$FAR/copy" back
	assert_same_image "$IMAGES/directory" back
	cmp "$IMAGES/directory/device-state" back/device-state
}

@test "multifd takes as many logins as it has channels, there and back" {
	local method n
	for method in none zstd; do
		for n in 1 2 4; do
			push "$IMAGES/mixed" "$FAR/copy" -v --force --cap multifd --param "multifd-channels=$n" \
				--param "multifd-compression=$method"
			cmp "$IMAGES/mixed" copy
			[ "$(grep -c ' runs: migtool join ' send.err)" -eq "$n" ]
			assert_json send '.ram."multifd-bytes" > 0'
			pull "$FAR/copy" back -v --force --cap multifd --param "multifd-channels=$n" \
				--param "multifd-compression=$method"
			cmp "$IMAGES/mixed" back
			[ "$(grep -c ' runs: migtool join ' recv.err)" -eq "$n" ]
			assert_json recv '.ram."multifd-bytes" > 0'
		done
	done
}

# ports PID...: the TCP ports on which they listen.
ports() {
	local pid
	for pid; do
		find "/proc/$pid/fd" -lname 'socket:*' -printf '%l\n' 2>/dev/null
	done | awk -F '[][]' 'FILENAME == "-" { ours[$2] = 1; next }
		{ split($0, field, " "); if (field[4] == "0A" && field[10] in ours) print field[2] }' \
		- /proc/net/tcp /proc/net/tcp6
}

@test "no port is opened on the far side" {
	local pids
	migtool_start send send --rsh "$RSH" --bwlimit 8M --cap multifd "$IMAGES/random" "$FAR/copy"
	wait_for_data copy.part
	pids=$(far_pids "$SSHD")
	[ -n "$(far_pid)" ]
	# shellcheck disable=SC2086
	[ -z "$(ports $pids)" ]
	[ -n "$(ports "$(<"$SSHD/pid")")" ] # it would be seen
	migtool_wait send
	cmp "$IMAGES/random" copy
}

@test "compress and return-path go through it, too" {
	push "$IMAGES/mixed" "$FAR/copy" --cap compress --cap return-path
	cmp "$IMAGES/mixed" copy
	pull "$FAR/copy" back --cap compress --cap return-path
	cmp "$IMAGES/mixed" back
}

@test "what exists is replaced only by --force, kept only by --in-place" {
	local inode
	cp "$IMAGES/random" copy
	inode=$(stat -c %i copy)
	STATUS=11 push "$IMAGES/mixed" "$FAR/copy"
	says_once send "copy exists and is not empty"
	cmp "$IMAGES/random" copy
	push "$IMAGES/mixed" "$FAR/copy" --force --in-place
	cmp "$IMAGES/mixed" copy
	[ "$(stat -c %i copy)" = "$inode" ]
	push "$IMAGES/random" "$FAR/copy" --force
	cmp "$IMAGES/random" copy
	[ "$(stat -c %i copy)" != "$inode" ]
}

@test "a base that the far side has makes deltas" {
	cp "$IMAGES/random" old
	cp "$IMAGES/random" copy
	cp "$IMAGES/random" new
	printf changed | dd of=new bs=1 seek=123456 conv=notrunc status=none
	push new "$FAR/copy" --cap xbzrle --base old
	cmp new copy
	assert_json send '.ram.transferred < 100000'
}

@test "what the far side has of an older copy does not travel again" {
	cp "$IMAGES/random" copy
	cp "$IMAGES/random" new
	printf changed | dd of=new bs=1 seek=123456 conv=notrunc status=none
	push new "$FAR/copy" --delta
	cmp new copy
	assert_json send '.ram.transferred < 100000'
	pull "ssh://far$IMAGES/random" copy --delta
	cmp "$IMAGES/random" copy
	assert_json recv '.ram.transferred < 100000'
}

@test "--retry goes on when the login breaks, whoever sends" {
	migtool_start send send --rsh "$RSH" --retry 3 --bwlimit 4M "$IMAGES/random" "$FAR/copy"
	wait_for_data copy.part
	kill_shells send
	migtool_wait send
	says send "trying again"
	cmp "$IMAGES/random" copy
	rm copy
	migtool_start recv recv --rsh "$RSH" --retry 3 --param max-bandwidth=4M \
		"ssh://far$IMAGES/random" copy
	wait_for_data copy.part
	kill_shells recv
	migtool_wait recv
	says recv "trying again"
	cmp "$IMAGES/random" copy
}

@test "a dry run and a check ask the far side, and move nothing" {
	push "$IMAGES/mixed" "$FAR/copy" -n
	says send "the destination would take it"
	cp "$IMAGES/random" there
	STATUS=11 push "$IMAGES/mixed" "$FAR/there" -n
	"$MIGTOOL" check --rsh "$RSH" "$FAR/copy" | grep -q "^the other end  migtool .*, takes them"
	run -127 "$MIGTOOL" check --rsh "$RSH" --remote-command no-such-migtool "$FAR/copy"
	[ ! -e copy ] && [ ! -e copy.part ]
	cmp "$IMAGES/random" there
}

# uri_path TEXT: each byte that is not a letter or a digit as %XX.
uri_path() {
	local LC_ALL=C i c
	for ((i = 0; i < ${#1}; i++)); do
		c=${1:i:1}
		case $c in
		[a-zA-Z0-9/]) printf %s "$c" ;;
		*) printf %%%02X "'$c" ;;
		esac
	done
}

# shellcheck disable=SC1003,SC2016 # nothing is to be expanded
@test "no path becomes a command or an option" {
	local name names=('a b' "apo'strophe" 'quo"te\' '$(touch pwned)' '`touch pwned`' '!a'
		"\\';touch pwned;\\'" ';touch pwned;' '>pwned' '~' '*' '%41' '-rf' '--force' '--' $'\x1b[31m\xff' "'")
	mkdir home
	sshd_start "$PWD/sshd" "ForceCommand cd $PWD/home && sh -c \"\$SSH_ORIGINAL_COMMAND\""
	RSH="ssh -F $PWD/sshd/client"
	truncate -s 64K small
	echo text | dd of=small conv=notrunc status=none
	for name in "${names[@]}"; do
		# below the home, where it is the whole operand; absolute on its way back
		push small "ssh://far/~/$(uri_path "$name")" -q
		cmp small "home/$name"
		pull "ssh://far$PWD/home/$(uri_path "$name")" back -q --force
		cmp small back
		rm "home/${name:?}"
		[ -z "$(ls -A home)" ]
	done
	sshd_stop "$PWD/sshd"
}

# shellcheck disable=SC2016 # nothing is to be expanded
@test "what must not be in a URI is refused before anything is started" {
	local uri
	for uri in 'ssh://-oProxyCommand=touch%20pwned/x' 'ssh://a@-oProxyCommand=touch/x' \
		'ssh://$(touch pwned)/x' 'ssh://-lx@far/x' 'ssh://far/a%00b' 'ssh://me:pass@far/x' \
		'ssh://far' 'ssh://far/a%0Atouch%20pwned'; do
		run -1 "$MIGTOOL" send --rsh "touch pwned;" "$IMAGES/mixed" "$uri"
		[[ $output != *pass@* || $output == *secret* || $output == *password* ]]
	done
	[ ! -e pwned ]
}

@test "--remote-command is a line of the far shell" {
	local command
	mkdir 'a b'
	ln -s "$(realpath "$MIGTOOL")" "a b/mig'tool"
	for command in "'$PWD/a b/mig'\\''tool'" "env X='a;b' migtool" "umask 077; migtool" \
		"false || migtool" "exec migtool" "	migtool"; do
		push "$IMAGES/mixed" "$FAR/copy" -q --force --remote-command "$command" \
			--cap multifd --param multifd-channels=1
		cmp "$IMAGES/mixed" copy
	done
	run -1 "$MIGTOOL" send --rsh "$RSH" --remote-command ' ' "$IMAGES/mixed" "$FAR/other"
	[[ $output == *"--remote-command is no line for a shell"* ]]
}

@test "user, port, key and options reach the remote shell" {
	cat >shell <<-'END'
		#!/bin/sh
		printf '%s|' "$@" >"$0.args"
		echo >>"$0.args"
		exit 255
	END
	chmod +x shell
	STATUS=35 RSH="$PWD/shell 'first word'" push "$IMAGES/mixed" 'ssh://me@far:2222/x' -p 22 \
		-i key -i 'other key' -o A=b
	[ "$(cat shell.args)" = "first word|-l|me|-p|2222|-i|key|-i|other key|-o|A=b|far|migtool recv --far -q stdio: /x|" ]
	STATUS=35 RSH="$PWD/shell" push "$IMAGES/mixed" 'ssh://[::1]/x' -p 22
	[ "$(cat shell.args)" = "-p|22|::1|migtool recv --far -q stdio: /x|" ]
}

@test "without a migtool over there it is 127, and how to name it" {
	STATUS=127 push "$IMAGES/mixed" "$FAR/copy" --remote-command no-such-migtool
	says send "error: far has no migtool"
	says send "hint: install it there, or say where it is: --remote-command"
	says_once send "not found"
	assert_json send '."error-code" == "no-remote"' '.owner == "source"'
	STATUS=127 pull "$FAR/copy" back --remote-command no-such-migtool
	says recv "error: far has no migtool"
	STATUS=127 push "$IMAGES/mixed" "$FAR/copy" --remote-command "$PWD"
	[ ! -e copy ] && [ ! -e back ]
}

@test "a far command that is no migtool is told from one" {
	STATUS=2 push "$IMAGES/mixed" "$FAR/copy" --remote-command true
	says send "the far command ended well and said nothing"
	STATUS=2 push "$IMAGES/mixed" "$FAR/copy" --remote-command 'echo Welcome to this host;'
	says send 'the peer is no migtool: it says "Welcome'
	says send "hint: does the far login print something by itself?"
	STATUS=12 push "$IMAGES/mixed" "$FAR/copy" --remote-command 'exit 12;'
	says send "far: the far command ended with status 12"
	STATUS=10 push "$IMAGES/mixed" "$FAR/copy" --remote-command 'exit 77;'
	says send "far: the far command ended with status 77"
}

@test "a far migtool of another version is named" {
	cat >older <<-'END'
		#!/bin/sh
		echo "migtool: error: unknown option --far" >&2
		exit 1
	END
	cat >newer <<-'END'
		#!/usr/bin/env python3
		import json, struct, sys
		i, o = sys.stdin.buffer, sys.stdout.buffer
		head = i.read(12)
		i.read(struct.unpack(">I", head[8:])[0])
		text = json.dumps({"version": 9, "program": "migtool 99", "take": True}).encode()
		o.write(b"migtool\n" + struct.pack(">I", len(text)) + text)
		o.flush()
		i.read()
	END
	chmod +x older newer
	STATUS=1 push "$IMAGES/mixed" "$FAR/copy" --remote-command "$PWD/older"
	says_once send "unknown option --far"
	says send "hint: the migtool there is of another version"
	STATUS=2 push "$IMAGES/mixed" "$FAR/copy" --remote-command "$PWD/newer"
	says send "the peer greets with version 9, expected 1"
}

@test "one that takes no further connections is asked for none" {
	cat >older <<-END
		#!/usr/bin/env python3
		import json, struct, subprocess, sys
		p = subprocess.Popen(["migtool"] + sys.argv[1:], stdin=0, stdout=subprocess.PIPE)
		head = p.stdout.read(12)
		answer = json.loads(p.stdout.read(struct.unpack(">I", head[8:])[0]))
		answer.pop("join", None)
		text = json.dumps(answer).encode()
		sys.stdout.buffer.write(head[:8] + struct.pack(">I", len(text)) + text)
		sys.stdout.buffer.flush()
		while chunk := p.stdout.read1(65536):
		    sys.stdout.buffer.write(chunk)
		    sys.stdout.buffer.flush()
		p.wait()
	END
	chmod +x older
	STATUS=2 push "$IMAGES/mixed" "$FAR/copy" --remote-command "$PWD/older" --cap multifd
	says send "the far migtool takes no further connections"
	assert_nothing_far "$SSHD"
	push "$IMAGES/mixed" "$FAR/copy" --remote-command "$PWD/older"
	cmp "$IMAGES/mixed" copy
}

@test "a host that is not reached, or does not let us in, is told in ssh's words" {
	STATUS=35 push "$IMAGES/mixed" "$FAR/copy" -o HostName=no-such-host.invalid
	says_once send "Could not resolve hostname no-such-host.invalid"
	assert_json send '."error-code" == "connect"' '.owner == "source"'
	STATUS=35 push "$IMAGES/mixed" "$FAR/copy" -o Port=1
	says_once send "Connection refused"
	STATUS=5 push "$IMAGES/mixed" "$FAR/copy" -o "IdentityFile=$SSHD/other" -o IdentitiesOnly=yes \
		-o "IdentityFile=none" --rsh "ssh -F /dev/null -p $(cat "$SSHD/port") -o HostName=127.0.0.1 \
		-o StrictHostKeyChecking=yes -o BatchMode=yes -o UserKnownHostsFile=$SSHD/known_hosts \
		-o IdentityAgent=none"
	says_once send "Permission denied"
	assert_json send '."error-code" == "refused"'
	STATUS=5 push "$IMAGES/mixed" "$FAR/copy" -o UserKnownHostsFile=/dev/null
	says_once send "Host key verification failed"
	STATUS=35 push "$IMAGES/mixed" "$FAR/copy" --rsh "no-such-ssh -x"
	says send "cannot start --rsh no-such-ssh -x"
}

@test "what the far side says is passed on with its name, and cannot steer the terminal" {
	cat >talker <<-'END'
		#!/bin/sh
		printf '\033]0;title\007 is \377 escaped\n' >&2
		head -c 5000 /dev/zero | tr '\0' x >&2
		printf '\nno newline at its end' >&2
		exec migtool "$@"
	END
	chmod +x talker
	push "$IMAGES/mixed" "$FAR/copy" --remote-command "$PWD/talker"
	says send 'far: \x1b]0;title\x07 is \xff escaped'
	[ "$(tr -cd x <send.err | wc -c)" -lt 600 ]
	says send "far: no newline at its end"
	run ! grep -q $'\033' send.err
	cmp "$IMAGES/mixed" copy
}

@test "a full disk over there is told once, and nothing is left" {
	local caps
	mkdir disk
	mount_private disk -t tmpfs -o size=2M none
	for caps in "" "--cap multifd" "--cap multifd --param multifd-compression=zstd"; do
		# shellcheck disable=SC2086 # several words
		STATUS=11 push "$IMAGES/random" "$FAR/disk/copy" $caps --remote-command "${INSIDE[*]} migtool"
		says_once send "no space left on the device"
		assert_json send '.owner == "source"'
		[ -z "$("${INSIDE[@]}" ls -A disk)" ]
	done
}

@test "a source that cannot be read over there is told once" {
	STATUS=11 pull "$FAR/nothing" back
	says_once recv "nothing: No such file or directory"
	STATUS=4 pull "$FAR/nothing" back --cap x-colo
	[ ! -e back ] && [ ! -e back.part ]
}

# cut_off NAME CAPS...: the link of a slow transfer breaks in the middle.
cut_off() {
	local name=$1 rate=$((2 << 20))
	shift
	rm -f copy copy.part
	if [ "$name" = send ]; then
		migtool_start send send --rsh "$RSH" --bwlimit $rate "$@" "$IMAGES/random" "$FAR/copy"
	else
		migtool_start recv recv --rsh "$RSH" --param max-bandwidth=$rate "$@" \
			"ssh://far$IMAGES/random" copy
	fi
	wait_for_data copy.part
	kill_shells "$name"
	migtool_wait "$name" 10
	says "$name" "the connection to far broke"
	assert_json "$name" '.owner == "source"' '.complete == false'
	assert_nothing_far "$SSHD"
	[ ! -e copy ] && [ ! -e copy.part ]
}

@test "a link that breaks in the middle leaves nothing, whoever sends" {
	cut_off send
	cut_off recv
	cut_off send --cap multifd
	cut_off recv --cap multifd
}

@test "one channel of several that breaks ends the transfer" {
	local pids
	migtool_start send send --rsh "$RSH" --bwlimit 2M --cap multifd --param multifd-channels=3 \
		"$IMAGES/random" "$FAR/copy"
	wait_for_data copy.part
	mapfile -t pids < <(children_of send)
	[ "${#pids[@]}" -eq 4 ]
	kill -KILL -- "-${pids[2]}"
	migtool_wait send 10
	# which end finds out first is chance
	grep -qE "the connection to (far broke|the other end \(joined\) ended)" send.err
	assert_json send '.owner == "source"' '.complete == false'
	assert_nothing_far "$SSHD"
	[ ! -e copy ] && [ ! -e copy.part ]
}

@test "SIGINT here ends both sides" {
	local name
	for name in send recv; do
		if [ "$name" = send ]; then
			migtool_start send send --rsh "$RSH" --bwlimit 2M --cap multifd "$IMAGES/random" "$FAR/copy"
		else
			migtool_start recv recv --rsh "$RSH" --param max-bandwidth=2M --cap multifd \
				"ssh://far$IMAGES/random" copy
		fi
		wait_for_data copy.part
		kill -INT "${PEER_PIDS[$name]}"
		migtool_wait "$name" 20
		assert_nothing_far "$SSHD"
		[ ! -e copy ] && [ ! -e copy.part ]
		says_once "$name" "cancelled by SIGINT"
	done
}

@test "SIGINT and SIGKILL over there end both sides" {
	migtool_start send send --rsh "$RSH" --bwlimit 2M "$IMAGES/random" "$FAR/copy"
	wait_for_data copy.part
	kill -INT "$(far_pid)"
	migtool_wait send 20
	says_once send "cancelled by SIGINT"
	[ ! -e copy ] && [ ! -e copy.part ]
	migtool_start send send --rsh "$RSH" --bwlimit 2M --cap multifd "$IMAGES/random" "$FAR/copy"
	wait_for_data copy.part
	kill -KILL "$(far_pid)"
	migtool_wait send 10
	[ ! -e copy ]
	rm copy.part # SIGKILL leaves it, as always
	migtool_start recv recv --rsh "$RSH" --param max-bandwidth=2M "ssh://far$IMAGES/random" copy
	wait_for_data copy.part
	kill -KILL "$(far_pid)"
	migtool_wait recv 10
	[ ! -e copy ] && [ ! -e copy.part ]
}

@test "SIGKILL here ends the far side and the remote shells" {
	local pid shells
	migtool_start send send --rsh "$RSH" --bwlimit 2M --cap multifd "$IMAGES/random" "$FAR/copy"
	wait_for_data copy.part
	mapfile -t shells < <(children_of send)
	[ "${#shells[@]}" -eq 3 ]
	kill -KILL "${PEER_PIDS[send]}"
	migtool_wait send 137
	assert_nothing_far "$SSHD"
	[ ! -e copy ] && [ ! -e copy.part ]
	for pid in "${shells[@]}"; do
		timeout 20 tail -s 0.05 -f /dev/null --pid="$pid"
	done
	migtool_start recv recv --rsh "$RSH" --param max-bandwidth=2M --cap multifd \
		"ssh://far$IMAGES/random" copy
	wait_for_data copy.part
	kill -KILL "${PEER_PIDS[recv]}"
	migtool_wait recv 137
	assert_nothing_far "$SSHD"
	[ ! -e copy ]
}

@test "a remote shell that wants the terminal is not waited for" {
	# a session with a terminal of its own, whose foreground is migtool's group
	run -5 timeout 60 script -qefc \
		"$MIGTOOL send --rsh 'sh -c \"read x </dev/tty\"' $IMAGES/mixed ssh://far/x" /dev/null </dev/null
	[[ $output == *"wants to ask something on the terminal"* ]]
}

@test "--timeout counts while somebody logs in" {
	STATUS=30 push "$IMAGES/mixed" "$FAR/copy" --timeout 1 --remote-command 'sleep 4;'
	STATUS=30 pull "$FAR/copy" back --timeout 1 --remote-command 'sleep 4;'
}
