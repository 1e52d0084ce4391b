# Tailrace. `make help` lists the targets.
# CFLAGS, CPPFLAGS, LDFLAGS, CC, DESTDIR and PREFIX belong to the caller. SAN=address,undefined or SAN=thread builds a
# sanitized variant beside the release one; COV=1 one for coverage. V=1 shows the commands.

PREFIX     ?= /usr/local
SYSCONFDIR ?= /etc
UNITDIR    ?= $(PREFIX)/lib/systemd/system
VERSION    := $(shell cat VERSION 2>/dev/null || echo 0.0.0)
CC         ?= cc
CFLAGS     ?= -O2 -g
PYTHON     ?= /usr/bin/python3

comma := ,
ifneq ($(SAN),)
VARIANT    := san-$(subst $(comma),-,$(SAN))
SAN_FLAGS  := -fsanitize=$(SAN) -fno-omit-frame-pointer
else ifneq ($(FUZZ),)
VARIANT    := fuzz
CC         := clang
SAN_FLAGS  := -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
else ifneq ($(COV),)
VARIANT    := coverage
SAN_FLAGS  := --coverage -O0
else
VARIANT    := release
endif
ifeq ($(FUZZ)$(findstring clang,$(CC)),clang)
VARIANT    := $(VARIANT)-clang
endif
B := build/$(VARIANT)

ifneq ($(V),1)
Q := @
say = @printf '  %-4s %s\n' $(1) $@
endif

PACKAGES := yajl zlib libdeflate libisal libcurl yaml-0.1 libmicrohttpd libcrypto
PKG_CFLAGS := $(shell pkg-config --cflags $(PACKAGES) 2>/dev/null)
PKG_LIBS   := $(shell pkg-config --libs $(PACKAGES) 2>/dev/null) -lsnappy
WARN := -Wall -Wextra -Wshadow -Wconversion -Wvla -Wmissing-prototypes -Wstrict-prototypes $(WERROR)
ALL_CFLAGS := -std=c17 -D_GNU_SOURCE -I. -fdebug-prefix-map=$(CURDIR)=. $(PKG_CFLAGS) $(WARN) $(CFLAGS) $(SAN_FLAGS) -pthread \
              -DTAILRACE_VERSION='"$(VERSION)"' -MMD -MP $(CPPFLAGS)
ALL_LDFLAGS := $(SAN_FLAGS) -pthread $(LDFLAGS)

SOURCES := $(sort $(wildcard agent/*.c agent/*/*.c parsers/*.c outputs/*.c outputs/codec/*.c conf/*.c))
LIB_SOURCES := $(filter-out agent/main.c,$(SOURCES))
LIB_OBJECTS := $(LIB_SOURCES:%.c=$B/%.o)
OBJECTS := $(SOURCES:%.c=$B/%.o)
UNIT_SOURCES := $(sort $(wildcard tests/unit/*/test_*.c))
UNITS := $(UNIT_SOURCES:tests/unit/%.c=$B/unit/%)
TOOLS := $(patsubst tests/tools/%.c,$B/tools/%,$(wildcard tests/tools/*.c))

.PHONY: all run demo test unit sim bugbank integration fault fault-full check bench bench-steady bench-guard install uninstall clean help deps \
        tools tidy fmt \
        arrows servers fuzz fuzz-build
.DEFAULT_GOAL := all

all: $B/tailrace ## build build/release/tailrace

$B/tailrace: $B/agent/main.o $B/libtailrace.a
	$(call say,LD)
	$Q$(CC) $(ALL_LDFLAGS) -o $@ $^ $(PKG_LIBS)

$B/libtailrace.a: $(LIB_OBJECTS)
	$(call say,AR)
	$Qrm -f $@ && ar rcs $@ $^

$B/%.o: %.c
	$(call say,CC)
	$Qmkdir -p $(@D)
	$Q$(CC) $(ALL_CFLAGS) -c -o $@ $<

# The model disk; it takes the place of agent/tail/watch.c.
MODEL_OBJECTS := $(patsubst %.c,$B/%.o,$(wildcard tests/sim/disk*.c) tests/sim/watch_model.c)

$B/libmodel.a: $(MODEL_OBJECTS)
	$(call say,AR)
	$Qrm -f $@ && ar rcs $@ $^

SCOPES := $(patsubst tests/scopes/%.c,$B/scopes/%,$(sort $(wildcard tests/scopes/test_*.c)))
define build_on_model
	$(call say,CC)
	$Qmkdir -p $(@D)
	$Q$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -o $@ $< $B/libmodel.a $B/libtailrace.a $(PKG_LIBS) -lcmocka -lm
endef

$B/unit/sim/%: tests/unit/sim/%.c $B/libmodel.a $B/libtailrace.a
	$(build_on_model)

$B/scopes/%: tests/scopes/%.c $B/libmodel.a $B/libtailrace.a
	$(build_on_model)

-include $(SCOPES:=.d)

# The simulator; its network takes the place of agent/deliver/http.c.
SIM_OBJECTS := $(patsubst %.c,$B/%.o,$(filter-out tests/sim/disk% tests/sim/watch_model.c,$(wildcard tests/sim/*.c)))

SEEDS ?= 2000
SIM_FROM ?= 0

sim: $B/sim ## SEEDS (2000) seeds of the simulator on all cores; SIM_FROM=N begins there, SIM_DONE=FILE goes on after a stop
	$Q$B/sim --known tests/sim/known.txt --from $(SIM_FROM) --to $$(($(SIM_FROM) + $(SEEDS))) $(SIM_DONE:%=--done %)

bugbank: $B/sim ## each deliberate bug of docs/SIMULATOR.md is built and must be found
	$QCC="$(CC)" BUG_CFLAGS='$(subst -MMD -MP,,$(ALL_CFLAGS))' BUG_LDFLAGS='$(ALL_LDFLAGS)' BUG_LIBS='$(PKG_LIBS)' \
	    scripts/bugbank.sh $B '$(SIM_OBJECTS)' $(BUGS)

$B/sim: $(SIM_OBJECTS) $B/libmodel.a $B/libtailrace.a
	$(call say,LD)
	$Q$(CC) $(ALL_LDFLAGS) -o $@ $^ $(PKG_LIBS)

# Tests that let allocations of our own code fail.
UNIT_LDFLAGS_test_memory := $(addprefix -Wl$(comma)--wrap=,malloc calloc realloc strdup libdeflate_alloc_compressor \
                                    libdeflate_alloc_decompressor inflateInit2_ nanosleep)
UNIT_LDFLAGS_test_starved := $(UNIT_LDFLAGS_test_memory)
# System calls that fail.
UNIT_LDFLAGS_test_fs := $(addprefix -Wl$(comma)--wrap=,openat close pread preadv pwritev fdatasync fsync ftruncate fallocate \
                                    fstatfs flock statx getrandom)

$B/unit/%: tests/unit/%.c $B/libtailrace.a
	$(call say,CC)
	$Qmkdir -p $(@D)
	$Q$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -o $@ $< $B/libtailrace.a $(UNIT_LDFLAGS_$(notdir $*)) $(PKG_LIBS) -lcmocka -lm

$B/tools/%: tests/tools/%.c
	$(call say,CC)
	$Qmkdir -p $(@D)
	$Q$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -o $@ $< $(PKG_LIBS) -lm

# Fuzz targets: FUZZ=1 builds them for libFuzzer; the replay of their inputs is a unit test of every variant.
FUZZ_NAMES := $(patsubst tests/fuzz/fuzz_%.c,%,$(sort $(wildcard tests/fuzz/fuzz_*.c)))
FUZZ_SECONDS ?= 20

$B/fuzz/%: tests/fuzz/fuzz_%.c tests/fuzz/driver.c $(wildcard tests/fuzz/*.h) $B/libmodel.a $B/libtailrace.a
	$(call say,CC)
	$Qmkdir -p $(@D)
	$Q$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -fsanitize=fuzzer -DFUZZ_FUNCTION=fuzz_$* -o $@ $< tests/fuzz/driver.c $B/libmodel.a $B/libtailrace.a $(PKG_LIBS) -ljansson -lm

$B/unit/fuzz/test_replay: tests/unit/fuzz/test_replay.c $(wildcard tests/fuzz/fuzz_*.c tests/fuzz/*.h) $B/libmodel.a $B/libtailrace.a
	$(call say,CC)
	$Qmkdir -p $(@D)
	$Q$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -o $@ $(filter %.c,$^) $B/libmodel.a $B/libtailrace.a $(PKG_LIBS) -ljansson -lcmocka -lm

fuzz-build: $(FUZZ_NAMES:%=$B/fuzz/%)

fuzz: ## every fuzz target with libFuzzer for FUZZ_SECONDS each (20); `make fuzz-json FUZZ_SECONDS=600` for one
	$Q$(MAKE) --no-print-directory FUZZ=1 fuzz-build
	$Qscripts/fuzz.sh $(FUZZ_SECONDS) $(FUZZ_NAMES)

$(FUZZ_NAMES:%=fuzz-%): fuzz-%:
	$Q$(MAKE) --no-print-directory FUZZ=1 build/fuzz/fuzz/$*
	$Qscripts/fuzz.sh $(FUZZ_SECONDS) $*

$B/tools/queuegen: tests/tools/queuegen.c $B/libtailrace.a
	$(call say,CC)
	$Qmkdir -p $(@D)
	$Q$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -o $@ $^ $(PKG_LIBS)

# The shim cannot be sanitized: it is there before the sanitizer is.
$B/fault/shim.so: tests/fault/shim.c tests/fault/shim.h
	$(call say,CC)
	$Qmkdir -p $(@D)
	$Q$(CC) -std=c17 -D_GNU_SOURCE -O2 -g $(WARN) -fPIC -shared -o $@ $< -ldl

-include $(OBJECTS:.o=.d) $(SIM_OBJECTS:.o=.d) $(MODEL_OBJECTS:.o=.d) $(UNITS:=.d) $(TOOLS:=.d)

tools: $(TOOLS) ## build the test tools (generator, counting server)

deps: ## install what a build and the tests need (Debian, Ubuntu)
	$Qscripts/install-deps.sh

run: ## install what is missing, build, follow /var/log to the terminal through the real queue in ./var
	$Qscripts/install-deps.sh build
	$Q$(MAKE) --no-print-directory all
	$Qscripts/run.sh

demo: ## a real Loki, a log writer, Tailrace between them, and what Loki answers
	$Qscripts/install-deps.sh test
	$Q$(MAKE) --no-print-directory all tools
	$Qtests/servers/setup.sh loki
	$Qscripts/demo.sh

unit: $(UNITS) $(SCOPES) ## unit tests of this variant, one cmocka suite a module, and a sample of the small scopes
	$Qscripts/run-units.sh $(UNITS) $(SCOPES)

.PHONY: scopes coverage
scopes: $(SCOPES) ## small scopes, whole: every torn offset, every bit, every script of four actions on the model disk
	$QTAILRACE_SCOPES=all UNIT_TIMEOUT=3600 scripts/run-units.sh $(SCOPES)

coverage: ## lines and branches of queue, recovery, cursor, identity and replies that unit tests, scopes and simulator take
	$Qfind build/coverage -name '*.gcda' -delete 2>/dev/null || true
	$Q$(MAKE) --no-print-directory COV=1 unit scopes sim
	$Q$(PYTHON) scripts/coverage.py build/coverage

servers: ## build or fetch the real servers for the tests, once
	$Qtests/servers/setup.sh all

# Two at a time, each with servers of its own: most of a test is waiting. Whole files, for their fixtures are shared.
PYTEST_TWO = -n 2 --dist loadfile
integration: all tools servers ## the real binary against real servers
	$QTAILRACE_BINARY=$(CURDIR)/$B/tailrace TAILRACE_TOOLS=$(CURDIR)/$B/tools $(PYTHON) -m pytest -q -x -p no:cacheprovider $(PYTEST_TWO) tests/lib tests/servers tests/integration

.PHONY: packaging-test
packaging-test: all tools servers ## deb, rpm, tarball, image, chart and alerts, built, linted and lived with, as root: half an hour
	$Qscripts/install-deps.sh packaging
	$QTAILRACE_BINARY=$(CURDIR)/$B/tailrace TAILRACE_TOOLS=$(CURDIR)/$B/tools $(PYTHON) -m pytest -q -x -p no:cacheprovider \
	    tests/integration/test_packaging.py tests/integration/test_chart.py tests/integration/test_rules.py tests/packages

test: ## everything a change must pass: unit tests, 2000 seeds of the simulator, integration tests
	$Qscripts/install-deps.sh test
	$QTAILRACE_LEVELS_CRATE=$$(scripts/levels-judge.sh) $(MAKE) --no-print-directory unit
	$Q$(MAKE) --no-print-directory sim SEEDS=2000
	$Q$(MAKE) --no-print-directory integration

fault: all tools $B/fault/shim.so ## the real binary under kills, failing calls and power cuts: a sample, 5 minutes; docs/FAULTS.md
	$QTAILRACE_BINARY=$(CURDIR)/$B/tailrace $(PYTHON) tests/fault/fault.py --plan sample --shim $B/fault/shim.so
	$QTAILRACE_BINARY=$(CURDIR)/$B/tailrace TAILRACE_TOOLS=$(CURDIR)/$B/tools $(PYTHON) tests/fault/backlog.py --megabytes 500

fault-full: all tools $B/fault/shim.so ## the same in full: hours; fault.py --kind … --from … --to … goes on where it was stopped
	$QTAILRACE_BINARY=$(CURDIR)/$B/tailrace $(PYTHON) tests/fault/fault.py --plan full --shim $B/fault/shim.so
	$QTAILRACE_BINARY=$(CURDIR)/$B/tailrace TAILRACE_TOOLS=$(CURDIR)/$B/tools $(PYTHON) tests/fault/backlog.py --megabytes 10240

check: ## warnings as errors with gcc and clang, include arrows, layout; unit tests under sanitizers
	$Qscripts/check.sh

arrows:
	$Qscripts/check-arrows.sh

fmt: ## lay the code out
	clang-format -i $(SOURCES) $(wildcard agent/*.h agent/*/*.h parsers/*.h outputs/*.h outputs/codec/*.h conf/*.h) $(UNIT_SOURCES)

tidy: ## clang-tidy over the sources
	clang-tidy --quiet $(SOURCES) -- -std=c17 -D_GNU_SOURCE -I. $(PKG_CFLAGS)

BENCH ?= five --to loki bulk --syscalls

bench: all tools ## Tailrace, the floor and other shippers on the same bytes in one run; BENCH="all --to loki bulk both --syscalls" for everything
	$Qscripts/install-deps.sh test
	$Q$(PYTHON) tests/bench/bench.py --binary $B/tailrace --tools $B/tools $(BENCH)

bench-steady: all tools ## latency, idle with 10,000 files, 1,000 tenants, limits.cpu: tests/bench/steady.py
	$Q$(PYTHON) tests/bench/steady.py --binary $B/tailrace --tools $B/tools $(STEADY)

bench-guard: all tools ## instructions per line against tests/bench/guard.json: fails when one rose by more than 3 %
	$Q$(PYTHON) tests/bench/guard.py --binary $B/tailrace --tools $B/tools $(GUARD)

install: all ## install under DESTDIR and PREFIX
	install -D -m 755 $B/tailrace $(DESTDIR)$(PREFIX)/bin/tailrace
	test -e $(DESTDIR)$(SYSCONFDIR)/tailrace/tailrace.yaml || \
	    install -D -m 644 conf/tailrace.yaml $(DESTDIR)$(SYSCONFDIR)/tailrace/tailrace.yaml
	install -d $(DESTDIR)$(SYSCONFDIR)/tailrace/conf.d $(DESTDIR)$(UNITDIR)
	sed 's|/usr/bin/tailrace|$(PREFIX)/bin/tailrace|' packaging/systemd/tailrace.service >$(DESTDIR)$(UNITDIR)/tailrace.service
	chmod 644 $(DESTDIR)$(UNITDIR)/tailrace.service
	install -D -m 644 packaging/systemd/tailrace.sysusers $(DESTDIR)$(PREFIX)/lib/sysusers.d/tailrace.conf
	install -D -m 644 packaging/man/tailrace.1 $(DESTDIR)$(PREFIX)/share/man/man1/tailrace.1
	install -D -m 644 packaging/completion/tailrace.bash $(DESTDIR)$(PREFIX)/share/bash-completion/completions/tailrace

uninstall:
	rm -f $(DESTDIR)$(PREFIX)/bin/tailrace $(DESTDIR)$(UNITDIR)/tailrace.service \
	    $(DESTDIR)$(PREFIX)/lib/sysusers.d/tailrace.conf \
	    $(DESTDIR)$(PREFIX)/share/man/man1/tailrace.1 $(DESTDIR)$(PREFIX)/share/bash-completion/completions/tailrace

# Packages: of the sources as they are here, with the time of the newest entry of packaging/debian/changelog, so that the
# same sources give the same bytes.
.PHONY: dist tarball deb rpm
DIST  := build/dist/tailrace-$(VERSION)
EPOCH  = $(shell LC_ALL=C date -u -d "$$(sed -n 's/^ -- .*>  //p' packaging/debian/changelog | head -n 1)" +%s)
REPRODUCIBLE_TAR = tar --sort=name --mtime=@$(EPOCH) --owner=0 --group=0 --numeric-owner --mode=go=rX,u+rw -c

$(DIST).tar.gz: FORCE
	$Qmkdir -p build/dist
	$Qscripts/sources.sh | $(REPRODUCIBLE_TAR) --transform 's|^|tailrace-$(VERSION)/|' -T - | gzip -9n >$@.tmp && mv $@.tmp $@

dist: $(DIST).tar.gz ## the sources as build/dist/tailrace-VERSION.tar.gz

tarball: all ## what `make install PREFIX=/usr` installs, as build/dist/tailrace-VERSION-linux-MACHINE.tar.gz
	$Qrm -rf build/dist/root && mkdir -p build/dist/root
	$Q$(MAKE) -s --no-print-directory install DESTDIR=$(CURDIR)/build/dist/root PREFIX=/usr
	$Qstrip build/dist/root/usr/bin/tailrace
	$Q$(REPRODUCIBLE_TAR) -C build/dist/root . | gzip -9n >$(DIST)-linux-$$(uname -m).tar.gz
	$Qrm -rf build/dist/root

deb: $(DIST).tar.gz ## a Debian package in build/dist, by dpkg-buildpackage
	$Qrm -rf $(DIST) && tar -xzf $< -C build/dist && cp -r packaging/debian $(DIST)/debian
	$Qcp packaging/systemd/tailrace.sysusers $(DIST)/debian/tailrace.sysusers
	$Qcd $(DIST) && unset MAKEFLAGS MAKELEVEL && dpkg-buildpackage -b -us -uc $(DEB_OPTIONS)
	$Qrm -rf $(DIST)

rpm: $(DIST).tar.gz ## an RPM package in build/dist, by rpmbuild
	$Qrm -rf build/dist/rpm && mkdir -p build/dist/rpm/SOURCES && cp $< build/dist/rpm/SOURCES/
	$Qrpmbuild -bb $(RPM_OPTIONS) --define '_topdir $(CURDIR)/build/dist/rpm' --define 'version_here $(VERSION)' packaging/rpm/tailrace.spec
	$Qmv build/dist/rpm/RPMS/*/*.rpm build/dist/ && rm -rf build/dist/rpm

# The store, when it is not the user's own, by BUILDAH_FLAGS.
IMAGE ?= tailrace:$(VERSION)
image: all ## the container image, from scratch, by buildah; as build/dist/tailrace-image.tar for docker load
	$Qpackaging/docker/rootfs.sh $B/tailrace build/image/image/root
	$Qmkdir -p build/dist build/image/empty && rm -f build/dist/tailrace-image.tar
	$Qbuildah $(or $(BUILDAH_FLAGS),--storage-driver vfs) bud --isolation chroot --format docker --timestamp $(EPOCH) \
	    --build-context build=$(CURDIR)/build/image -f packaging/docker/Dockerfile -t $(IMAGE) -t tailrace:latest build/image/empty
	$Qbuildah $(or $(BUILDAH_FLAGS),--storage-driver vfs) push -q $(IMAGE) docker-archive:build/dist/tailrace-image.tar:$(IMAGE)

.PHONY: FORCE image
FORCE:

clean: ## remove what was built
	rm -rf build

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | while IFS="$$(printf '\t')" read -r t w; do printf '  %-12s %s\n' "$$t" "$$w"; done
