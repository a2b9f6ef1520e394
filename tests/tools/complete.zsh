#!/bin/zsh -f
# SPDX-License-Identifier: GPL-2.0-or-later
#
# complete.zsh LINE: types LINE and a tab into an interactive zsh with the completion in
# $FPATH_FIRST and prints the line that comes of it.
emulate -R zsh
zmodload zsh/zpty || exit 1

local out=$(mktemp) setup
setup="fpath=(${(q)FPATH_FIRST} \$fpath)
autoload -Uz compinit && compinit -u -D
setopt no_beep no_list_beep
show() { print -r -- \$BUFFER >${(q)out}.line && mv ${(q)out}.line ${(q)out}.done }
zle -N show
bindkey '^I' complete-word
bindkey '^X' show
: >${(q)out}.ready"

TERM=dumb zpty z zsh -f -i
zpty -w z "$setup"
repeat 200; do
	[[ -e $out.ready ]] && break
	sleep 0.05
done
zpty -w -n z "$1"$'\t\x18'
repeat 200; do
	[[ -e $out.done ]] && break
	# What it echoes has to be read, or it stops.
	zpty -r -t z >/dev/null 2>&1
	sleep 0.05
done
cat $out.done
zpty -d z
rm -f $out $out.ready $out.done
