# SPDX-License-Identifier: GPL-2.0-or-later
#
# fish completion. Whatever it offers comes from the binary's listings, so it cannot go stale.

function __migtool_command --description 'The command on the line, if there is one yet'
    set -l known (command migtool --list-commands 2>/dev/null | string split -f 1 \t)
    for word in (commandline -opc)[2..-1]
        if contains -- $word $known
            echo $word
            return 0
        end
    end
    return 1
end

function __migtool_takes --description 'Does the command on the line take what these commands take?'
    set -l command (__migtool_command)
    or return 0
    contains -- $command (string split , $argv[1])
end

function __migtool_caps
    command migtool --list-caps 2>/dev/null | while read -l -d \t name effect what
        if string match -q '*=*' -- (commandline -ct)
            printf '%s\t%s\n' $name=on "switch it on" $name=off "switch it off"
        else
            printf '%s\t%s\n' $name "$effect; $what"
        end
    end
end

function __migtool_params
    command migtool --list-params 2>/dev/null | while read -l -d \t name effect choices what
        printf '%s=\t%s\n' $name "$effect; $what"
        for choice in (string split -n , (string replace -r '^-$' '' -- $choices))
            printf '%s=%s\n' $name $choice
        end
    end
end

function __migtool_schemes
    command migtool --list-schemes 2>/dev/null
end

complete -c migtool -n 'not __migtool_command' -f
command migtool --list-commands 2>/dev/null | while read -l -d \t name operands help
    complete -c migtool -n 'not __migtool_command' -f -a $name -d $help
end
complete -c migtool -n __migtool_command -a '(__migtool_schemes)'

command migtool --list-options 2>/dev/null | while read -l -d \t flag letter value commands help
    set -l spec -c migtool -n "__migtool_takes $commands" -d $help
    test $flag != -; and set -a spec -l (string sub -s 3 -- $flag)
    test $letter != -; and set -a spec -s (string sub -s 2 -- $letter)
    set -l metavar (string replace -r '^\[?=(.*?)\]?$' '$1' -- $value)
    switch $flag:$value
        case '--cap:*'
            set -a spec -x -a '(__migtool_caps)'
        case '--param:*'
            set -a spec -x -a '(__migtool_params)'
        case '*:-'
        case '*:=FILE'
            set -a spec -r -F
        case '*:=*|*'
            set -a spec -x -a (string replace -r '\[.*' '' -- (string split '|' -- $metavar) | string join ' ')
        case '*:[*'
            set -a spec -f -a (string replace '|' ' ' -a -- $metavar)
        case '*:=*'
            set -a spec -x
    end
    complete $spec
end
