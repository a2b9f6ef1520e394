# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash
#
# bash completion. Whatever it offers comes from the binary's listings, so it cannot go stale.

# _migtool_values METAVAR FLAG CURRENT: what can be written for an option's value, a line each.
_migtool_values() {
	local metavar=$1 flag=$2 cur=$3 word
	case $flag in
	--cap)
		if [[ $cur == *=* ]]; then
			printf '%s\n' "${cur%%=*}=on" "${cur%%=*}=off"
		else
			"$_migtool_bin" --list-caps 2>/dev/null | cut -f 1
		fi
		return
		;;
	--param)
		if [[ $cur == *=* ]]; then
			"$_migtool_bin" --list-params 2>/dev/null |
				awk -F '\t' -v name="${cur%%=*}" '$1 == name {
					n = split($3, value, ",")
					for (i = 1; i <= n; i++) print name "=" value[i] }'
		else
			"$_migtool_bin" --list-params 2>/dev/null | cut -f 1 | sed 's/$/=/'
		fi
		return
		;;
	esac
	case $metavar in
	FILE) compgen -f -- "$cur" ;;
	*\|*)
		while IFS= read -r word; do
			printf '%s\n' "${word%%[*}"
		done < <(tr '|' '\n' <<<"$metavar")
		;;
	esac
}

# What fits, without the part up to the last = or :, which readline keeps by itself.
_migtool_reply() { # CURRENT, candidates on stdin
	local cur=$1 keep word
	keep=${cur%"${cur##*[=:]}"}
	while IFS= read -r word; do
		[[ $word == "$cur"* ]] || continue
		[[ $word == *[=:] ]] && compopt -o nospace 2>/dev/null
		COMPREPLY+=("${word#"$keep"}")
	done
}

_migtool() {
	local _migtool_bin=$1 line=${COMP_LINE:0:COMP_POINT}
	local -a words
	local cur='' word command='' flag='' metavar='' i
	local -A metavars=()

	COMPREPLY=()
	# Not COMP_WORDS: readline breaks it at = and :, and it is ours to put together again.
	read -ra words <<<"$line"
	if [[ $line != *[[:space:]] ]]; then
		cur=${words[-1]}
		unset 'words[-1]'
	fi
	while IFS=$'\t' read -r flag word metavar _; do
		metavars[$flag]=$metavar
		metavars[$word]=$metavar
	done < <("$_migtool_bin" --list-options 2>/dev/null)

	flag=''
	for ((i = 1; i < ${#words[@]}; i++)); do
		word=${words[i]}
		if [[ -n $flag ]]; then
			flag=''
		elif [[ $word == -- ]]; then
			mapfile -t COMPREPLY < <(compgen -c -f -- "$cur")
			return
		elif [[ ${metavars[$word]-} == =* ]]; then
			flag=$word
		elif [[ $word != -* && -z $command ]]; then
			command=$word
		fi
	done

	if [[ -n $flag ]]; then
		_migtool_reply "$cur" < <(_migtool_values "${metavars[$flag]#=}" "$flag" "$cur")
	elif [[ $cur == --*=* ]]; then
		flag=${cur%%=*}
		metavar=${metavars[$flag]-}
		metavar=${metavar#=}
		metavar=${metavar#\[=}
		_migtool_reply "$cur" < <(_migtool_values "${metavar%]}" "$flag" "${cur#*=}" |
			sed "s|^|$flag=|")
	elif [[ $cur == -* ]]; then
		# shellcheck disable=SC2086
		_migtool_reply "$cur" < <("$_migtool_bin" $command --list-options 2>/dev/null |
			awk -F '\t' '{ print $1 == "-" ? $2 : $1 (substr($3, 1, 1) == "=" ? "=" : "") }')
	elif [[ -z $command ]]; then
		_migtool_reply "$cur" < <("$_migtool_bin" --list-commands 2>/dev/null | cut -f 1)
	else
		_migtool_reply "$cur" < <(
			"$_migtool_bin" --list-schemes 2>/dev/null
			compgen -f -- "$cur"
		)
		compopt -o filenames 2>/dev/null
	fi
}

complete -F _migtool migtool
