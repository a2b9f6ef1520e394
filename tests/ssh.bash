# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash
#
# A real sshd on loopback for the .bats files: with a configuration, host keys, user keys and a port
# of its own, so that nobody's ~/.ssh is read or written. Whoever runs the tests logs in to himself.
# load it behind helper.

# sshd_start DIR [CONFIG-LINE]...: all files are in DIR, which is made; returns when it answers. One
# that runs there already is stopped.
#   SSH_PORT                      where it listens, on 127.0.0.1
#   DIR/key, key.pub              ed25519, accepted; DIR/other is one that is not
#   DIR/host_ed25519.pub          its host key; DIR/known_hosts names it
#   DIR/client                    what `ssh -F` needs to log in by itself to any name (of 127.0.0.1)
#   DIR/log                       what sshd says
# A login finds this tree's migtool in its PATH, and MIGTOOL_FAR=DIR in its environment. The more
# CONFIG-LINEs go first, and sshd takes the first of each word.
sshd_start() {
	local dir=$1 i
	shift
	mkdir -p "$dir"
	sshd_stop "$dir"
	[ "$(id -u)" -ne 0 ] || mkdir -p /run/sshd # sshd's own, which a container may lack
	[ -e "$dir/host_ed25519" ] || ssh-keygen -q -t ed25519 -N '' -C host -f "$dir/host_ed25519"
	[ -e "$dir/key" ] || ssh-keygen -q -t ed25519 -N '' -C test -f "$dir/key"
	[ -e "$dir/other" ] || ssh-keygen -q -t ed25519 -N '' -C other -f "$dir/other"
	cp "$dir/key.pub" "$dir/authorized_keys"
	# somebody may take the port between its choice and sshd's bind
	for ((i = 0; i < 20; i++)); do
		SSH_PORT=$((20000 + RANDOM % 12000))
		sshd_config "$dir" "$@" >"$dir/config"
		sshd_up "$dir" && break
	done
	[ "$i" -lt 20 ] || {
		echo "sshd does not listen:" >&2
		tail -n 5 "$dir/log" >&2
		return 1
	}
	echo "[127.0.0.1]:$SSH_PORT $(cut -d ' ' -f 1,2 "$dir/host_ed25519.pub")" >"$dir/known_hosts"
	sshd_client "$dir" >"$dir/client"
	echo "$SSH_PORT" >"$dir/port"
}

sshd_config() { # DIR [CONFIG-LINE]...
	local dir=$1
	shift
	[ $# -eq 0 ] || printf '%s\n' "$@"
	cat <<-END
		ListenAddress 127.0.0.1:$SSH_PORT
		HostKey $dir/host_ed25519
		AuthorizedKeysFile $dir/authorized_keys
		PidFile none
		StrictModes no
		UsePAM no
		PasswordAuthentication no
		KbdInteractiveAuthentication no
		PermitRootLogin yes
		MaxStartups 100
		PrintMotd no
		SetEnv PATH=$(dirname "$(realpath "$MIGTOOL")"):$PATH MIGTOOL_FAR=$dir
	END
}

# For ssh -F: any name is this host.
sshd_client() { # DIR
	cat <<-END
		Host *
		HostName 127.0.0.1
		HostKeyAlias [127.0.0.1]:$SSH_PORT
		Port $SSH_PORT
		IdentityFile $1/key
		IdentitiesOnly yes
		IdentityAgent none
		UserKnownHostsFile $1/known_hosts
		GlobalKnownHostsFile /dev/null
		StrictHostKeyChecking yes
		BatchMode yes
	END
}

# Starts it on SSH_PORT; fails if it ends instead of listening. It ends with this shell at the latest.
sshd_up() { # DIR
	local pid i
	setpriv --pdeathsig TERM "$(command -v sshd || echo /usr/sbin/sshd)" -D -e -f "$1/config" >"$1/log" 2>&1 \
		</dev/null 3>&- 4>&- &
	pid=$!
	echo "$pid" >"$1/pid"
	for ((i = 0; i < 1500; i++)); do
		grep -q '^Server listening' "$1/log" 2>/dev/null && return 0
		kill -0 "$pid" 2>/dev/null || break
		sleep 0.02
	done
	sshd_stop "$1"
	return 1
}

# sshd_stop DIR: the listener and every connection of it.
sshd_stop() {
	local pid child
	[ -e "$1/pid" ] || return 0
	read -r pid <"$1/pid"
	for child in $(pgrep -P "$pid"); do
		kill "$child" 2>/dev/null || true
	done
	kill "$pid" 2>/dev/null || true
	wait "$pid" 2>/dev/null || true
	rm -f "$1/pid"
}

# ssh_home: a home of the test's own, in whose .ssh is what logs in to the sshd of the directory SSHD.
# SSH_PORT is that one's, FAR the URI of the directory `there`.
ssh_home() {
	unset SSH_AUTH_SOCK
	export HOME=$PWD/home
	mkdir -p home/.ssh there
	ssh_known "$SSHD"
}

ssh_known() { # DIR: the sshd that the home knows from now on
	cp "$1/known_hosts" home/.ssh/known_hosts
	cp "$1/key" home/.ssh/id_ed25519
	ssh_port "$(<"$1/port")"
}

ssh_port() { # PORT
	SSH_PORT=$1
	# shellcheck disable=SC2034 # for the caller
	FAR=ssh://127.0.0.1:$1$PWD/there
}

# far_left DIR: the processes that a login to that sshd has left, as "PID COMMAND"; none, after a
# moment for what is about to end.
far_left() {
	local i pid left
	for ((i = 0; i < 250; i++)); do
		left=
		for pid in $(far_pids "$1"); do
			left+="$pid $(tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null)"$'\n'
		done
		[ -n "$left" ] || return 0
		sleep 0.02
	done
	printf '%s' "$left"
}

far_pids() { # DIR
	grep -lzxFs "MIGTOOL_FAR=$1" /proc/[0-9]*/environ | sed -E 's|/proc/([0-9]+)/.*|\1|'
}

# assert_nothing_far DIR: no process is left.
assert_nothing_far() {
	local left
	left=$(far_left "$1")
	[ -z "$left" ] || {
		echo "left on the far side: $left"
		return 1
	}
}
