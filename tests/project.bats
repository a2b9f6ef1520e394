#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later
# The project around the program: its make targets, its lint.
bats_require_minimum_version 1.5.0

# A clean clone with objects of its own: the tests must not touch what they are run from.
setup_file() {
	cd "$BATS_TEST_DIRNAME/.." || return
	unset MAKEFLAGS MFLAGS MAKEOVERRIDES
	export CLONE=$BATS_FILE_TMPDIR/clone
	git clone -q . "$CLONE"
	make -s -C "$CLONE" -j2 B=build SANITIZE= WERROR= CFLAGS=-O1 all
}

setup() {
	cd "$BATS_TEST_DIRNAME/.." || return
	unset MAKEFLAGS MFLAGS MAKEOVERRIDES
}

# A tree with one good module, for lint to look at.
small_tree() {
	export LINT_ROOT=$BATS_TEST_TMPDIR/tree
	mkdir -p "$LINT_ROOT/src"
	printf '/* SPDX-License-Identifier: GPL-2.0-or-later */\n' >"$LINT_ROOT/src/stream.h"
	put stream.c '#include "stream.h"'
}

put() { # FILE LINE...: a source file that has its licence line
	local f=$1
	shift
	printf '// SPDX-License-Identifier: GPL-2.0-or-later\n' >"$LINT_ROOT/src/$f"
	printf '%s\n' "$@" >>"$LINT_ROOT/src/$f"
}

# lint_finds CHECK TEXT: that check complains, in these words.
lint_finds() {
	run tests/lint "$1"
	echo "$output"
	[ "$status" -eq 1 ]
	[[ $output == *"$2"* ]]
}

@test "install puts everything in place, and uninstall leaves no file behind" {
	local d=$BATS_TEST_TMPDIR/root page
	make -s -C "$CLONE" install B=build SANITIZE= WERROR= CFLAGS=-O1 DESTDIR="$d" PREFIX=/usr
	"$d/usr/bin/migtool" --version
	[ -s "$d/usr/share/man/man1/migtool.1" ]
	for page in man/*; do
		cmp "$page" "$d/usr/share/man/man${page##*.}/${page##*/}"
	done
	[ -s "$d/usr/share/bash-completion/completions/migtool" ]
	[ -s "$d/usr/share/zsh/site-functions/_migtool" ]
	[ -s "$d/usr/share/fish/vendor_completions.d/migtool.fish" ]
	make -s -C "$CLONE" uninstall DESTDIR="$d" PREFIX=/usr
	run find "$d" ! -type d
	echo "$output"
	[ -z "$output" ]
}

@test "a build leaves no untracked file, and clean undoes it" {
	[ -d "$CLONE/build" ]
	run git -C "$CLONE" status --porcelain
	echo "$output"
	[ -z "$output" ]
	make -s -C "$CLONE" clean
	[ ! -e "$CLONE/build" ]
}

@test "make help names every target" {
	local targets target
	read -r -d '' -a targets < <(sed -n '/^\.PHONY:/,/[^\]$/{s/^\.PHONY://;s/\\$//;p}' Makefile) || true
	[ ${#targets[@]} -gt 10 ]
	run make -s help
	for target in "${targets[@]}"; do
		case $target in FORCE | fuzz-run) continue ;; esac
		echo "$target"
		grep -q "^  $target " <<<"$output"
	done
}

@test "lint has nothing to say about the tree" {
	tests/lint spdx toplevel includes foreign privilege pure layout shell python manual
}

@test "lint accepts a good module" {
	small_tree
	run tests/lint includes foreign privilege pure spdx layout
	echo "$output"
	[ "$status" -eq 0 ]
}

@test "lint finds an include that goes up" {
	small_tree
	put session.h ''
	put stream.c '#include "session.h"'
	lint_finds includes "src/stream.c:2: bytes must not include session.h of context"
}

@test "lint finds source and target knowing each other" {
	small_tree
	put target.h ''
	put source.c '#include "target.h"'
	lint_finds includes "source and target must not know each other: target.h"
}

@test "lint finds headers that include each other, and a module without a layer" {
	small_tree
	put stream.h '#include "transport.h"'
	put transport.h '#include "stream.h"'
	lint_finds includes "includes itself through"
	put novelty.c ''
	lint_finds includes "src/novelty.c: in no layer"
}

@test "lint finds a foreign header away from home" {
	small_tree
	put stream.c '#include <zstd.h>'
	lint_finds foreign "src/stream.c:2: <zstd.h> is at home in codec-zstd.c"
}

@test "lint finds what is the broker's to call, but not in comments, strings and names" {
	small_tree
	put stream.c '/* open(x) */' 'char *s = "fork()";' 'int image_open(int); // rename(a)' \
		'int f(void) { return t->open(1); }'
	tests/lint privilege
	put stream.c 'int f(void) { return openat(1, "", 0); }'
	lint_finds privilege "src/stream.c:2: openat() is the broker's to call"
	put stream.c 'void f(void) { exit(1); }'
	lint_finds privilege "src/stream.c:2: only main.c exits"
}

@test "lint finds a codec that knows threads" {
	small_tree
	put xbzrle.c '#include <pthread.h>'
	lint_finds pure "src/xbzrle.c:2: <pthread.h>"
}

@test "lint finds a file without licence, one that does not belong, and stray blanks" {
	small_tree
	echo 'int x; ' >"$LINT_ROOT/src/units.c"
	echo >"$LINT_ROOT/NOTES.txt"
	lint_finds spdx "src/units.c: no SPDX line"
	lint_finds layout "src/units.c:1: blanks"
	lint_finds toplevel "NOTES.txt: does not belong"
}
