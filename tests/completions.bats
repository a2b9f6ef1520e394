#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later
# The completions of bash, zsh and fish, each in its own shell. They take what they offer from the
# binary, so a binary that says something else has to make them offer something else.

bats_require_minimum_version 1.5.0

SHELLS=$BATS_TEST_DIRNAME/../completions

setup() {
	case ${B:=build} in
	/*) export PATH=$B:$PATH ;;
	*) export PATH=$BATS_TEST_DIRNAME/../$B:$PATH ;;
	esac
	SHELLS=$(cd "$SHELLS" && pwd)
	cd "$BATS_TEST_TMPDIR" || return
	touch guest.mem
}

# in_bash LINE: what a tab would offer, a line each.
in_bash() {
	bash --norc -c '
		source "$1/migtool.bash"
		COMP_LINE=$2 COMP_POINT=${#2}
		_migtool migtool
		printf "%s\n" "${COMPREPLY[@]}"' - "$SHELLS" "$1"
}

# in_fish LINE: likewise, sorted, without the descriptions.
in_fish() {
	# shellcheck disable=SC2016
	HOME=$PWD fish --no-config -c '
		source $argv[1]/migtool.fish
		complete -C $argv[2] | string split -f 1 \t | sort' "$SHELLS" "$1"
}

# in_zsh LINE: the line that a tab makes of it.
in_zsh() {
	mkdir -p zsh
	cp "$SHELLS/migtool.zsh" zsh/_migtool
	FPATH_FIRST=$PWD/zsh "$BATS_TEST_DIRNAME/tools/complete.zsh" "$1" 3>&- 4>&-
}

# A migtool whose listings are these, first on PATH.
other_binary() {
	mkdir -p other
	cat >other/migtool <<-'EOF'
		#!/bin/sh
		for a; do
			case $a in
			--list-commands) printf 'teleport\tIMAGE\tbeam it\n' ;;
			--list-options) printf -- '--warp\t-w\t=FACTOR\tteleport\tgo faster\n' ;;
			--list-caps) printf 'stardust\tact\tshines\n' ;;
			--list-schemes) echo subspace: ;;
			esac
		done
	EOF
	chmod +x other/migtool
	export PATH=$PWD/other:$PATH
}

@test "bash offers the binary's commands, options, capabilities, parameters, schemes" {
	[ "$(in_bash 'migtool ')" = "$(migtool --list-commands | cut -f 1)" ]
	[ "$(in_bash 'migtool send --cap ')" = "$(migtool --list-caps | cut -f 1)" ]
	[ "$(in_bash 'migtool send --param ')" = "$(migtool --list-params | cut -f 1 | sed 's/$/=/')" ]
	[ "$(in_bash 'migtool send --' | sed 's/=$//')" = \
		"$(migtool send --list-options | cut -f 1)" ]
	in_bash 'migtool send guest.mem ' | grep -qx tcp:
	[ "$(in_bash 'migtool send guest.mem v')" = vsock: ]
}

@test "bash completes behind = and knows which values there are" {
	[ "$(in_bash 'migtool send --cap multifd=o')" = $'on\noff' ]
	[ "$(in_bash 'migtool send --cap=multifd=of')" = off ]
	[ "$(in_bash 'migtool send --param multifd-compression=z')" = $'zlib\nzstd' ]
	[ "$(in_bash 'migtool send --progress=j')" = json ]
	[ "$(in_bash 'migtool send --peer ')" = $'migtool\nqemu' ]
	[ "$(in_bash 'migtool send --device-state gu')" = guest.mem ]
	[ "$(in_bash 'migtool send --device-state=gu')" = guest.mem ]
	# --progress takes its value only behind =, so this is IMAGE
	[ "$(in_bash 'migtool send --progress gu')" = guest.mem ]
}

@test "bash offers a command its own options, and COMMAND none" {
	in_bash 'migtool recv --' | grep -qx -- --force
	run -1 grep -x -- --dry-run <(in_bash 'migtool recv --')
	[ -z "$(in_bash 'migtool recv tcp::1 guest.mem -- no-such-program --for')" ]
	in_bash 'migtool recv tcp::1 guest.mem -- gu' | grep -qx guest.mem
}

@test "bash offers what another binary lists" {
	other_binary
	[ "$(in_bash 'migtool ')" = teleport ]
	[ "$(in_bash 'migtool teleport --')" = --warp= ]
	[ "$(in_bash 'migtool teleport sub')" = subspace: ]
}

@test "fish offers the binary's commands, options, capabilities, parameters, schemes" {
	diff <(in_fish 'migtool ') <(migtool --list-commands | cut -f 1 | sort)
	diff <(in_fish 'migtool send --cap ') <(migtool --list-caps | cut -f 1 | sort)
	diff <(in_fish 'migtool send --' | sed 's/=$//' | sort -u) \
		<(migtool send --list-options | cut -f 1 | sort)
	diff <(in_fish 'migtool send --param ' | sed 's/=.*//' | sort -u) \
		<(migtool --list-params | cut -f 1 | sort)
	in_fish 'migtool send guest.mem ' | grep -qx tcp:
}

@test "fish completes behind = and knows which values there are" {
	[ "$(in_fish 'migtool send --cap multifd=o')" = $'multifd=off\nmultifd=on' ]
	[ "$(in_fish 'migtool send --param multifd-compression=zl')" = multifd-compression=zlib ]
	[ "$(in_fish 'migtool send --progress=j')" = --progress=json ]
	[ "$(in_fish 'migtool send --peer ')" = $'migtool\nqemu' ]
	in_fish 'migtool send --device-state gu' | grep -qx guest.mem
	in_fish 'migtool send --progress gu' | grep -qx guest.mem
}

@test "fish offers what another binary lists" {
	other_binary
	[ "$(in_fish 'migtool ')" = teleport ]
	[ "$(in_fish 'migtool teleport --')" = --warp ]
}

@test "zsh completes the binary's commands, options, capabilities, parameters, schemes" {
	[ "$(in_zsh 'migtool se')" = "migtool send " ]
	[ "$(in_zsh 'migtool send --pee')" = "migtool send --peer=" ]
	[ "$(in_zsh 'migtool send --cap mul')" = "migtool send --cap multifd " ]
	[ "$(in_zsh 'migtool send --param multifd-zl')" = "migtool send --param multifd-zlib-level=" ]
	[ "$(in_zsh 'migtool send guest.mem vs')" = "migtool send guest.mem vsock:" ]
}

@test "zsh completes behind = and knows which values there are" {
	[ "$(in_zsh 'migtool send --cap multifd=of')" = "migtool send --cap multifd=off " ]
	[ "$(in_zsh 'migtool send --param multifd-compression=zl')" = \
		"migtool send --param multifd-compression=zlib " ]
	[ "$(in_zsh 'migtool send --progress=j')" = "migtool send --progress=json " ]
	[ "$(in_zsh 'migtool send --peer=q')" = "migtool send --peer=qemu " ]
	[ "$(in_zsh 'migtool send --device-state gu')" = "migtool send --device-state guest.mem " ]
}

@test "zsh offers a command its own options" {
	[ "$(in_zsh 'migtool recv --conn')" = "migtool recv --connect " ]
	[ "$(in_zsh 'migtool send --conn')" = "migtool send --conn" ]
}

@test "zsh completes what another binary lists" {
	other_binary
	[ "$(in_zsh 'migtool t')" = "migtool teleport " ]
	[ "$(in_zsh 'migtool teleport --w')" = "migtool teleport --warp=" ]
}
