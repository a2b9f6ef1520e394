# SPDX-License-Identifier: GPL-2.0-or-later
#
# Variables:
#   V=1              print commands           WERROR=1   warnings are errors (CI)
#   CC, CFLAGS, LDFLAGS, PREFIX, DESTDIR      as everywhere (PREFIX: /usr/local)
#   B                object directory (default build)
#   SANITIZE         address | undefined | thread; the check-*san targets set it
#   TESTS            what `make check` runs: names of unit tests and .bats files (default: all)
#   JOBS             how many .bats files it runs at a time (2)
#   FUZZ, FUZZ_TIME  what `make fuzz` runs (default: all), for how many seconds each (60)
#   FUZZ_JOBS        how many of them at a time (1)
#   SEED             the seed of the random points in tests

VERSION := 0.1.0
B ?= build
PREFIX ?= /usr/local
BINDIR ?= $(PREFIX)/bin
MANDIR ?= $(PREFIX)/share/man
DATADIR ?= $(PREFIX)/share

CFLAGS ?= -O2 -g
WARN := -std=gnu11 -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla \
	-Wformat=2 -Wundef -Wpointer-arith -Wwrite-strings
HARDEN := -fstack-protector-strong -fPIE -fno-common
ifneq ($(SANITIZE),)
  HARDEN += -fsanitize=$(SANITIZE) -fno-omit-frame-pointer -DMIGTOOL_SANITIZED=1
  ifeq ($(SANITIZE),undefined)
    HARDEN += -fno-sanitize-recover=all
  endif
  LINK_HARDEN := -fsanitize=$(SANITIZE)
else
  HARDEN += -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2
endif
LINK_HARDEN += -pie -Wl,-z,relro,-z,now,-z,noexecstack
ifeq ($(WERROR),1)
  WARN += -Werror
endif

ALL_CFLAGS = $(WARN) $(HARDEN) -D_GNU_SOURCE -DMIGTOOL_VERSION='"$(VERSION)"' -Isrc -pthread \
	$(CPPFLAGS) $(CFLAGS)
LIBS := -lpopt -ljansson -lxxhash -lzstd -lz -lseccomp -lssh2 -lgnutls -pthread

SRC := $(wildcard src/*.c)
LIBOBJ := $(patsubst src/%.c,$(B)/%.o,$(filter-out src/main.c,$(SRC)))
UNIT := $(patsubst tests/unit/%.c,$(B)/unit/%,$(wildcard tests/unit/test_*.c))
FUZZ := $(patsubst tests/fuzz/fuzz_%.c,%,$(wildcard tests/fuzz/fuzz_*.c))
REPLAY := $(FUZZ:%=$(B)/fuzz/fuzz_%)
FAULTS := $(B)/tools/faults.so
PRELOAD := $(FAULTS) $(B)/tools/forbidden.so
GUESTS := $(patsubst tests/guest/%.c,$(B)/guest/%,$(wildcard tests/guest/*.c))

ifeq ($(V),1)
  Q :=
  say = @:
else
  Q := @
  say = @printf '  %-7s %s\n'
endif

## all: the program, build/migtool
all: $(if $(wildcard src/main.c),$(B)/migtool,$(B)/libmigtool.a)

$(B)/migtool: $(B)/main.o $(B)/libmigtool.a
	$(say) LINK $@
	$(Q)$(CC) $(LINK_HARDEN) $(LDFLAGS) -o $@ $^ $(LIBS)

$(B)/libmigtool.a: $(LIBOBJ)
	$(say) AR $@
	$(Q)rm -f $@ && $(AR) rcs $@ $^

$(B)/%.o: src/%.c $(B)/.flags
	$(say) CC $@
	$(Q)$(CC) $(ALL_CFLAGS) -MMD -MP -c -o $@ $<

$(B)/unit/%: tests/unit/%.c $(B)/libmigtool.a
	@mkdir -p $(@D)
	$(say) TEST $@
	$(Q)$(CC) $(ALL_CFLAGS) -Itests/unit -MMD -MP -MF $@.d $(LINK_HARDEN) $(LDFLAGS) -o $@ $< \
		$(B)/libmigtool.a $(LIBS)

# To be preloaded by tests: no sanitizer, but told of it.
$(B)/tools/%.so: tests/tools/%.c $(B)/.flags
	@mkdir -p $(@D)
	$(say) TEST $@
	$(Q)$(CC) $(WARN) -D_GNU_SOURCE $(if $(SANITIZE),-DFAULTS_WITHOUT_MEMORY) $(CPPFLAGS) -O2 -g \
		-fPIC -shared -fvisibility=hidden -o $@ $< -ldl

# Small guests, static: they are what is looked at, so no sanitizer is in them.
$(B)/guest/%: tests/guest/%.c $(B)/.flags
	@mkdir -p $(@D)
	$(say) TEST $@
	$(Q)$(CC) $(WARN) -D_GNU_SOURCE $(CPPFLAGS) -O2 -g -static -pthread -o $@ $<

$(B)/bench/%: tests/bench/%.c $(B)/.flags
	@mkdir -p $(@D)
	$(say) TEST $@
	$(Q)$(CC) $(WARN) -D_GNU_SOURCE $(CPPFLAGS) -O2 -g -static -o $@ $<

# Rebuild when flags change.
$(B)/.flags: FORCE
	@mkdir -p $(B)
	@echo '$(CC) $(ALL_CFLAGS) $(LINK_HARDEN)' | cmp -s - $@ || \
		echo '$(CC) $(ALL_CFLAGS) $(LINK_HARDEN)' > $@

## unit: the unit test programs, without running them
unit: $(UNIT) $(REPLAY) $(PRELOAD) $(GUESTS)

## check: builds and runs all tests; names in TESTS choose among them
check: deps
	+$(Q)$(MAKE) --no-print-directory all unit
	$(Q)B=$(B) $(if $(JOBS),JOBS=$(JOBS)) tests/run $(TESTS)

## check-asan: the tests with the address sanitizer, in an object directory of its own
check-asan:
	+$(Q)$(MAKE) --no-print-directory B=build/asan SANITIZE=address check

## check-ubsan: likewise, the undefined behaviour sanitizer
check-ubsan:
	+$(Q)$(MAKE) --no-print-directory B=build/ubsan SANITIZE=undefined check

## check-tsan: likewise, the thread sanitizer
check-tsan:
	+$(Q)$(MAKE) --no-print-directory B=build/tsan SANITIZE=thread check

## demo: a guest's memory over loopback TCP, and a look at what arrived
demo: deps
	+$(Q)$(MAKE) --no-print-directory all
	$(Q)B=$(B) tests/demo

BENCH_DEPS := nbdkit libnbd-bin iperf3 procps time rsync openssl

## bench: migtool beside what a user would pick instead; BENCH=CASE... (default: all), RUNS=5
bench: deps
	$(Q)tests/deps $(BENCH_DEPS)
	+$(Q)$(MAKE) --no-print-directory all $(B)/bench/handler $(B)/guest/vmm $(B)/guest/maps
	$(Q)tests/bench/run.py --migtool $(B)/migtool --runs $(or $(RUNS),5) $(BENCH)

## soak: transfers and guests' servers that end at random points, links cut at each message, calls that fail; COUNT=200, SEED
soak: deps
	+$(Q)$(MAKE) --no-print-directory all $(FAULTS) $(GUESTS)
	$(Q)tests/soak.py --migtool $(B)/migtool --count $(or $(COUNT),200) $(if $(SEED),--seed $(SEED))
	$(Q)tests/soak.py --migtool $(B)/migtool --count 0 --cuts $(or $(COUNT),50) \
		$(if $(SEED),--seed $(SEED))
	$(Q)tests/soak.py --migtool $(B)/migtool --count $(or $(COUNT),200) --only kill \
		$(if $(SEED),--seed $(SEED))
	$(Q)tests/recovery.py --migtool $(B)/migtool --count $(or $(COUNT),100) \
		$(if $(SEED),--seed $(SEED))
	$(Q)tests/recovery_net.py --migtool $(B)/migtool --kills $(or $(COUNT),100) \
		--cuts $(or $(COUNT),100) $(if $(SEED),--seed $(SEED))
	$(Q)tests/qemu_recovery.py --migtool $(B)/migtool --count $(or $(COUNT),100) \
		$(if $(SEED),--seed $(SEED))
	$(Q)tests/cut.py --migtool $(B)/migtool --all $(if $(SEED),--seed $(SEED))
	$(Q)tests/faults.py --migtool $(B)/migtool --preload $(FAULTS) --all \
		$(if $(SEED),--seed $(SEED))

# A fuzz target's function is linked with replay.c, which feeds it the corpus, or with libFuzzer.
$(B)/fuzz/%: tests/fuzz/%.c tests/fuzz/replay.c $(B)/libmigtool.a
	@mkdir -p $(@D)
	$(say) FUZZ $@
	$(Q)$(CC) $(ALL_CFLAGS) -Itests/fuzz -MMD -MP -MF $@.d $(LINK_HARDEN) $(LDFLAGS) -o $@ \
		$< tests/fuzz/replay.c $(B)/libmigtool.a $(LIBS)

$(B)/target/%: tests/fuzz/%.c $(B)/libmigtool.a
	@mkdir -p $(@D)
	$(say) FUZZ $@
	$(Q)$(CC) $(ALL_CFLAGS) -Itests/fuzz -MMD -MP -MF $@.d $(LINK_HARDEN) -fsanitize=fuzzer \
		$(LDFLAGS) -o $@ $< $(B)/libmigtool.a $(LIBS)

FUZZ_DEPS := clang libclang-rt-dev
FUZZ_TIME ?= 60
FUZZ_JOBS ?= 1

## fuzz: libFuzzer on every target, or those in FUZZ, FUZZ_TIME seconds each
fuzz: deps
	$(Q)tests/deps $(FUZZ_DEPS)
	+$(Q)$(MAKE) --no-print-directory B=build/libfuzzer CC=clang \
		SANITIZE=fuzzer-no-link,address,undefined \
		CFLAGS='-O1 -g -fno-sanitize-recover=all' fuzz-run

fuzz-run: $(FUZZ:%=$(B)/target/fuzz_%)
	$(Q)B=$(B) FUZZ_TIME=$(FUZZ_TIME) FUZZ_JOBS=$(FUZZ_JOBS) tests/fuzz/run $(FUZZ)

AARCH64_DEPS := gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user
AARCH64_LIBS := libpopt-dev libjansson-dev libxxhash-dev libzstd-dev zlib1g-dev libssh2-1-dev \
	libssh2-1 libssl3 zlib1g libgnutls28-dev libgnutls30 libnettle8 libhogweed6 libgmp10 \
	libtasn1-6 libidn2-0 libunistring2 libp11-kit0 libffi8 libseccomp-dev libseccomp2
AARCH64_ROOT := build/aarch64-libs
AARCH64_SO := $(AARCH64_ROOT)/usr/lib/aarch64-linux-gnu
# zlib1g's lies where systems without a merged /usr look for it
AARCH64_PATH := $(AARCH64_SO):$(AARCH64_ROOT)/lib/aarch64-linux-gnu
# What qemu-user cannot do: SO_ZEROCOPY; seccomp; mapping hugetlbfs (its addresses are not aligned enough);
# ptrace; userfaultfd.
AARCH64_NOT := test_host test_image_host test_sandbox test_catch test_catch_found test_pager
AARCH64_TESTS := $(filter-out $(AARCH64_NOT),$(notdir $(UNIT)) $(FUZZ:%=fuzz_%))

## deps-aarch64: installs the cross compiler and qemu-user, unpacks the libraries for arm64
deps-aarch64:
	$(Q)tests/deps $(AARCH64_DEPS)
	$(Q)tests/deps-aarch64 $(AARCH64_ROOT) $(AARCH64_LIBS)

## check-aarch64: cross-builds program and tests, runs the unit tests under qemu-user
check-aarch64: deps-aarch64
	+$(Q)$(MAKE) --no-print-directory B=build/aarch64 CC=aarch64-linux-gnu-gcc \
		AR=aarch64-linux-gnu-ar CPPFLAGS='-isystem $(AARCH64_ROOT)/usr/include' \
		LDFLAGS='-L$(AARCH64_SO) -Wl,-rpath-link,$(AARCH64_PATH)' all unit
	$(Q)B=build/aarch64 \
		RUNNER='qemu-aarch64 -L /usr/aarch64-linux-gnu -E LD_LIBRARY_PATH=$(CURDIR)/$(subst :,:$(CURDIR)/,$(AARCH64_PATH))' \
		tests/run $(or $(TESTS),$(AARCH64_TESTS))

LINT_DEPS := shellcheck mandoc clang-format python3 git
ANALYZE_DEPS := clang-tidy cppcheck

## lint: shell, manual, layout, licence lines, which file may include or call what
lint:
	$(Q)tests/deps $(LINT_DEPS)
	$(Q)tests/lint $(CHECKS)

## analyze: clang-tidy, cppcheck and gcc's analyzer
analyze: deps
	$(Q)tests/deps $(ANALYZE_DEPS)
	$(Q)CC='$(CC)' ANALYZE_FLAGS='$(filter-out -fPIE -DMIGTOOL_VERSION=%,$(ALL_CFLAGS))' tests/analyze

## format: clang-format on every C file
format:
	$(Q)tests/deps clang-format
	clang-format -i src/*.[ch] $(wildcard tests/*/*.[ch])

# What is installed where: file and target, in pairs.
INSTALL_MAN1 := $(wildcard man/*.1)
INSTALL_MAN5 := $(wildcard man/*.5)
BASHDIR ?= $(DATADIR)/bash-completion/completions
ZSHDIR ?= $(DATADIR)/zsh/site-functions
FISHDIR ?= $(DATADIR)/fish/vendor_completions.d

## install: program, manual, completions, below DESTDIR and PREFIX
install: all
	install -D -m 755 $(B)/migtool $(DESTDIR)$(BINDIR)/migtool
	$(if $(INSTALL_MAN1),install -D -m 644 -t $(DESTDIR)$(MANDIR)/man1 $(INSTALL_MAN1))
	$(if $(INSTALL_MAN5),install -D -m 644 -t $(DESTDIR)$(MANDIR)/man5 $(INSTALL_MAN5))
	install -D -m 644 completions/migtool.bash $(DESTDIR)$(BASHDIR)/migtool
	install -D -m 644 completions/migtool.zsh $(DESTDIR)$(ZSHDIR)/_migtool
	install -D -m 644 completions/migtool.fish $(DESTDIR)$(FISHDIR)/migtool.fish

## uninstall: removes what install put there
uninstall:
	rm -f $(DESTDIR)$(BINDIR)/migtool \
		$(INSTALL_MAN1:man/%=$(DESTDIR)$(MANDIR)/man1/%) \
		$(INSTALL_MAN5:man/%=$(DESTDIR)$(MANDIR)/man5/%) \
		$(DESTDIR)$(BASHDIR)/migtool $(DESTDIR)$(ZSHDIR)/_migtool \
		$(DESTDIR)$(FISHDIR)/migtool.fish

## clean: removes what was built
clean:
	rm -rf build

DEPS := build-essential pkg-config libpopt-dev libjansson-dev libxxhash-dev libzstd-dev zlib1g-dev libseccomp-dev \
	libssh2-1-dev libgnutls28-dev gnutls-bin \
	bats python3 socat qemu-system-x86 busybox-static cpio jq btrfs-progs zstd zsh fish tcsh mandoc shellcheck git \
	openssh-server openssh-client procps

## deps: installs the Debian packages that building and testing need, if they are missing
deps:
	$(Q)tests/deps $(DEPS)

## help: this list
help:
	@echo 'make [TARGET]... [VARIABLE=VALUE]...'
	@echo
	@sed -n 's/^## \([a-z0-9-]*\): /\1\t/p' Makefile | expand -t 16 | sed 's/^/  /'
	@echo
	@sed -n '/^# Variables:/,/^$$/s/^# \{0,1\}//p' Makefile

FORCE:
.PHONY: all unit check check-asan check-ubsan check-tsan demo bench soak fuzz fuzz-run deps-aarch64 \
	check-aarch64 lint analyze format install uninstall clean deps help FORCE
-include $(LIBOBJ:.o=.d) $(B)/main.d $(UNIT:=.d) $(REPLAY:=.d) \
	$(FUZZ:%=$(B)/target/fuzz_%.d)
