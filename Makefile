# SPDX-License-Identifier: GPL-2.0-or-later
#
# Variables:
#   V=1              print commands           WERROR=1   warnings are errors (CI)
#   CC, CFLAGS, LDFLAGS, PREFIX, DESTDIR      as everywhere
#   B                object directory (default build)
#   SANITIZE         address | undefined | thread; use the check-*san targets
#   TESTS            what `make check` runs: names of unit tests and .bats files (default: all)
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
  HARDEN += -fsanitize=$(SANITIZE) -fno-omit-frame-pointer
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
LIBS := -lpopt -ljansson -lxxhash -lzstd -lz -pthread

SRC := $(wildcard src/*.c)
LIBOBJ := $(patsubst src/%.c,$(B)/%.o,$(filter-out src/main.c,$(SRC)))
UNIT := $(patsubst tests/unit/%.c,$(B)/unit/%,$(wildcard tests/unit/test_*.c))
TOOLS := $(patsubst tests/%.c,$(B)/tools/%,$(wildcard tests/tools/*.c))

ifeq ($(V),1)
  Q :=
  say = @:
else
  Q := @
  say = @printf '  %-7s %s\n'
endif

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

# Rebuild when flags change.
$(B)/.flags: FORCE
	@mkdir -p $(B)
	@echo '$(CC) $(ALL_CFLAGS) $(LINK_HARDEN)' | cmp -s - $@ || \
		echo '$(CC) $(ALL_CFLAGS) $(LINK_HARDEN)' > $@

unit: $(UNIT)

check: deps
	+$(Q)$(MAKE) --no-print-directory all unit
	$(Q)B=$(B) tests/run $(TESTS)

clean:
	rm -rf build

DEPS := build-essential pkg-config libpopt-dev libjansson-dev libxxhash-dev libzstd-dev zlib1g-dev \
	bats python3 socat qemu-system-x86 busybox-static cpio jq zstd

# Installs what is missing, and nothing when nothing is.
deps:
	$(Q)tests/deps $(DEPS)

FORCE:
.PHONY: all unit check clean deps FORCE
-include $(LIBOBJ:.o=.d) $(B)/main.d $(UNIT:=.d)
