# make help says what there is. Needs cargo, gcc and make; python3 for `make bench`; g++ for the C++ example.

SHELL := /bin/bash
CARGO ?= cargo
CC ?= gcc
CXX ?= g++
PREFIX ?= /usr/local
LIBDIR ?= $(PREFIX)/lib
TARGET := $(abspath $(or $(CARGO_TARGET_DIR),target))
BIN := $(TARGET)/release
EXAMPLES := $(TARGET)/examples
FLOOR := $(TARGET)/bench/bin
VERSION = $(shell sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)
WARN := -Wall -Wextra -Werror
CFLAGS ?= -O2
# The C++ example knows netmem and is linked with it; without a C++ compiler it is left out.
HAVE_CXX := $(shell command -v $(CXX) 2>/dev/null)

C_EXAMPLES := $(patsubst examples-c/%.c,$(EXAMPLES)/%,$(wildcard examples-c/*.c))
CXX_EXAMPLES := $(if $(HAVE_CXX),$(patsubst examples-c/%.cpp,$(EXAMPLES)/%,$(wildcard examples-c/*.cpp)))
FLOOR_PROGRAMS := $(patsubst tests/floor/%.c,$(FLOOR)/%,$(wildcard tests/floor/*.c))
BENCH_PROGRAMS := $(patsubst tests/bench/%.c,$(FLOOR)/%,$(wildcard tests/bench/*.c))

.PHONY: all build examples floor demo test test-long test-vm test-install lint bench bench-peers bench-ab counts install uninstall clean help

all: build examples

## make              the library, the server, the command (release) and the C examples
build:
	$(CARGO) build --release -p netmem-shim -p netmem-server -p netmem-cli

examples: $(C_EXAMPLES) $(CXX_EXAMPLES)
ifeq ($(HAVE_CXX),)
	@echo "no $(CXX) here: the C++ example is not built"
endif

$(EXAMPLES)/%: examples-c/%.c include/netmem.h | $(EXAMPLES)
	$(CC) $(CFLAGS) $(WARN) -I include -o $@ $<

$(EXAMPLES)/%: examples-c/%.cpp include/netmem.h include/netmem.hpp | $(EXAMPLES) build
	$(CXX) -std=c++17 $(CFLAGS) $(WARN) -I include -o $@ $< -L $(BIN) -lnetmem -Wl,-rpath,$(BIN)

floor: $(FLOOR_PROGRAMS) $(BENCH_PROGRAMS)

$(FLOOR)/%: tests/floor/%.c $(wildcard tests/floor/*.h) | $(FLOOR)
	$(CC) -O2 $(WARN) -pthread -D_GNU_SOURCE -o $@ $<

$(FLOOR)/%: tests/bench/%.c $(wildcard tests/floor/*.h) | $(FLOOR)
	$(CC) -O2 $(WARN) -pthread -D_GNU_SOURCE -I tests/floor -o $@ $<

$(EXAMPLES) $(FLOOR):
	mkdir -p $@

## make demo         unmodified C programs whose files live on a server; a few seconds after the build
demo: all
	@tests/demo/demo $(BIN) $(EXAMPLES)

## make test         all unit tests and all black-box tests; as root it installs the Debian packages they use
test: build test-install
	@.ci/test $(BIN)

## make test-long    the same, and those that take minutes, or an hour
test-long: build test-install
	@.ci/test $(BIN) --long

## make test-vm      the tests on kernels of Debian, booted in an emulated machine (no KVM, no root); minutes for each
##                   (KERNEL=6.1, 6.12 or 5.10 for one of them; VM=short or full for less or more; ONLY='programs uffd::append' for a part)
test-vm: build
	$(CARGO) test -p netmem-tests --no-run
	NETMEM_TEST_BIN_DIR=$(BIN) NETMEM_TEST_VM=$(VM) NETMEM_TEST_VM_ONLY="$(ONLY)" \
	  $(CARGO) test -p netmem-tests --test stock_kernels -- --ignored --show-output \
	  $(if $(KERNEL),linux_$(subst .,_,$(KERNEL))_of)

## make test-install installs into a temporary directory and builds a program against what is there
test-install: build
	@.ci/test-install "$(MAKE)"

## make lint         rustfmt, clippy, and the C and C++ sources with all warnings
lint:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	$(CC) -std=c99 -Wall -Wextra -Wpedantic -Werror -fsyntax-only -x c include/netmem.h
	for source in examples-c/*.c tests/floor/*.c tests/bench/*.c tests/programs/*.c tests/model/*.c tests/far/*.c; do \
	  $(CC) -O1 $(WARN) -pthread -D_GNU_SOURCE -I include -I tests/floor -fsyntax-only $$source || exit 1; done
ifneq ($(HAVE_CXX),)
	$(CXX) -std=c++11 -Wall -Wextra -Wpedantic -Werror -fsyntax-only -x c++ include/netmem.h
	for source in examples-c/*.cpp; do $(CXX) -std=c++17 $(WARN) -I include -fsyntax-only $$source || exit 1; done
endif
	for script in .ci/* tests/demo/demo tests/tools/*.sh tests/guests/*.sh; do bash -n $$script || exit 1; done

## make bench        what a fault, a scan, a commit and a start cost, beside the smallest C programs that do the same
##                   (BENCH="--rounds 9 --only cold" passes arguments on, BENCH=--quick takes seconds; tests/bench/bench.py --help)
bench: build floor
	@python3 tests/bench/bench.py --bin $(BIN) --programs $(FLOOR) --out $(TARGET)/bench $(BENCH)

## make bench-peers  first touches and a scan beside nbdfuse + nbdkit and sshfs; on Debian, as root, which installs them
bench-peers: build floor
	@python3 tests/bench/bench.py --peers --only cold,seq --bin $(BIN) --programs $(FLOOR) --out $(TARGET)/bench/peers $(BENCH)

## make bench-ab     this tree against a revision, by turns: make bench-ab BASE=HEAD~1 (BENCH="--only cold,seq --rounds 9")
bench-ab: build floor
	@python3 tests/bench/ab.py --base "$(BASE)" --bin $(BIN) --programs $(FLOOR) --out $(TARGET)/bench/ab $(BENCH)

## make counts       writes down how many instructions the hot paths take, which a test compares (needs valgrind)
counts: build
	NETMEM_TEST_BIN_DIR=$(BIN) NETMEM_TEST_ACCEPT_COUNTS=1 $(CARGO) test -p netmem-tests --test instructions
	@git diff --stat -- tests/bench/instructions.txt

## make install      into PREFIX (default /usr/local), below DESTDIR if that is set; run make first
install:
	@for file in libnetmem.so netmem netmem-server; do \
	  test -f $(BIN)/$$file || { echo "$(BIN)/$$file is not there: run make first" >&2; exit 1; }; done
	install -d $(DESTDIR)$(LIBDIR)/pkgconfig $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/include
	install -m 755 $(BIN)/libnetmem.so $(DESTDIR)$(LIBDIR)/libnetmem.so
	install -m 755 $(BIN)/netmem $(BIN)/netmem-server $(DESTDIR)$(PREFIX)/bin/
	install -m 644 include/netmem.h include/netmem.hpp $(DESTDIR)$(PREFIX)/include/
	sed -e 's|@PREFIX@|$(PREFIX)|' -e 's|@LIBDIR@|$(LIBDIR)|' -e 's|@VERSION@|$(VERSION)|' netmem.pc.in \
	  > $(DESTDIR)$(LIBDIR)/pkgconfig/netmem.pc
	chmod 644 $(DESTDIR)$(LIBDIR)/pkgconfig/netmem.pc

## make uninstall    removes what make install put there
uninstall:
	rm -f $(DESTDIR)$(LIBDIR)/libnetmem.so $(DESTDIR)$(LIBDIR)/pkgconfig/netmem.pc
	rm -f $(DESTDIR)$(PREFIX)/bin/netmem $(DESTDIR)$(PREFIX)/bin/netmem-server
	rm -f $(DESTDIR)$(PREFIX)/include/netmem.h $(DESTDIR)$(PREFIX)/include/netmem.hpp

## make clean        removes everything that was built
clean:
	$(CARGO) clean

help:
	@sed -n 's/^## \{0,1\}//p' Makefile
