#compdef migtool
# SPDX-License-Identifier: GPL-2.0-or-later
#
# zsh completion. Whatever it offers comes from the binary's listings, so it cannot go stale.

_migtool_commands() {
	local -a names
	local name operands help

	while IFS=$'\t' read -r name operands help; do
		names+=("$name:$help")
	done < <($_migtool_bin --list-commands 2>/dev/null)
	_describe command names
}

_migtool_caps() {
	local -a names
	local name effect what

	if compset -P '*='; then
		compadd on off
		return
	fi
	while IFS=$'\t' read -r name effect what; do
		names+=("$name:$effect; $what")
	done < <($_migtool_bin --list-caps 2>/dev/null)
	_describe capability names
}

_migtool_params() {
	local -a names
	local name effect choices what wanted=${PREFIX%%=*}

	if compset -P '*='; then
		while IFS=$'\t' read -r name effect choices what; do
			[[ $name == $wanted && $choices != - ]] && compadd -- ${(s:,:)choices}
		done < <($_migtool_bin --list-params 2>/dev/null)
		return
	fi
	while IFS=$'\t' read -r name effect choices what; do
		names+=("$name:$effect; $what")
	done < <($_migtool_bin --list-params 2>/dev/null)
	_describe -t parameters parameter names -S =
}

_migtool_operands() {
	local -a schemes

	schemes=(${(f)"$($_migtool_bin --list-schemes 2>/dev/null)"})
	compadd -S '' -- $schemes
	_files
}

_migtool() {
	local _migtool_bin=${(Q)words[1]} flag letter value commands help metavar action word command
	local -a specs known

	# What stands before the word that is being completed decides whose options are offered.
	known=(${(f)"$($_migtool_bin --list-commands 2>/dev/null | cut -f 1)"})
	for word in ${words[2,CURRENT-1]}; do
		if (( ${known[(Ie)$word]} )); then
			command=$word
			break
		fi
	done
	while IFS=$'\t' read -r flag letter value commands help; do
		help=${help//(#m)[\[\]:]/\\$MATCH}
		metavar=${${${value#\[}#=}%\]}
		case $flag:$metavar in
		--cap:*) metavar=NAME action=_migtool_caps ;;
		--param:*) metavar=NAME=VALUE action=_migtool_params ;;
		*:FILE) action=_files ;;
		*\|*) action="(${${(@s:|:)metavar}%%\[*})" ;;
		*) action=' ' ;;
		esac
		case $value in
		-) specs+=("$flag""[$help]") ;;
		'='*) specs+=("${${flag:#--(cap|param)}:-*$flag}=[$help]:${metavar//:/}:$action") ;;
		*) specs+=("$flag=-[$help]::${metavar//:/}:$action") ;;
		esac
		[[ $letter != - ]] && specs+=("*$letter""[$help]")
	done < <($_migtool_bin $command --list-options 2>/dev/null)
	_arguments -s -S : $specs '1: :_migtool_commands' '*: :_migtool_operands'
}

_migtool "$@"
