# make help lists the targets.

PREFIX  ?= /usr/local
DESTDIR ?=
SYSCONFDIR ?= /etc
CARGO   ?= cargo
TARGET  ?= $(shell rustc -vV | sed -n 's/^host: //p')
TARGETS ?= x86_64-unknown-linux-musl aarch64-unknown-linux-musl armv7-unknown-linux-musleabihf \
           arm-unknown-linux-musleabihf i686-unknown-linux-musl riscv64gc-unknown-linux-musl
BUILT    = $(or $(CARGO_TARGET_DIR),target)/$(TARGET)/release/hade
STATIC   = CARGO='$(CARGO)' etc/static
PARTS   ?= commands throughput restart
IMAGE   ?= hade:latest
BUILDER ?= docker build
PLACE    = DESTDIR='$(DESTDIR)' PREFIX='$(PREFIX)' SYSCONFDIR='$(SYSCONFDIR)'

.DEFAULT_GOAL := build
.PHONY: run build targets image test quick check faults fuzz box bench budget chaos install uninstall deb clean help

run: ## serve in the foreground on port 8888; Ctrl-C stops it; a directory with ARGS="--root site"
	$(CARGO) run --locked --quiet --bin hade -- app start $(ARGS)

build: ## make the static executable, ./hade; for another processor with TARGET=TRIPLE
	$(STATIC) $(TARGET)
	install -m 755 $(BUILT) hade.new && mv -f hade.new hade
	@echo "./hade (also $(BUILT)): $$(wc -c < hade) bytes"

targets: ## build for every processor of TARGETS, and let each live a whole life, under qemu-user where need be
	@set -e; for target in $(TARGETS); do $(STATIC) $$target; done
	TARGETS='$(TARGETS)' $(CARGO) test --locked --test it -- --nocapture commands::targets::

image deb: TARGET = $(shell etc/static -n)
image: ## make the container image, hade:latest or what IMAGE says; one for each of PLATFORMS='linux/amd64 linux/arm/v7'
ifneq ($(PLATFORMS),)
	@set -e; for p in $(PLATFORMS); do target=$$(etc/static -n $$p); $(MAKE) image PLATFORMS= TARGET=$$target \
	  BUILDER="$(BUILDER) --platform $$p" IMAGE=$(IMAGE)-$$(echo $${p#linux/} | tr / -); done
else
	$(STATIC) $(TARGET)
	@root=$$(mktemp -d) && trap 'rm -rf "$$root"' EXIT && trap 'exit 1' HUP INT TERM && chmod 755 "$$root" && \
	install -D -m 755 $(BUILT) "$$root/hade" && install -D -m 644 etc/app.conf "$$root/etc/app.conf" && \
	install -D -m 644 etc/docker/index.html "$$root/www/index.html" && \
	install -d -m 1777 "$$root/run" && $(BUILDER) -t $(IMAGE) -f etc/docker/Dockerfile "$$root"
	@echo "$(IMAGE): hade for $(TARGET), $$(wc -c < $(BUILT)) bytes"
endif

test: ## run all tests
	$(CARGO) build --locked --examples
	$(CARGO) test --locked -- --test-threads=8

quick: ## run the tests that half a minute is enough for: units, histories of the supervisor, one file per command
	$(CARGO) build --locked --examples
	$(CARGO) test --locked --lib --bins
	$(CARGO) test --locked --test it -- --test-threads=8 tidy:: commands::start:: commands::state:: commands::stop:: commands::restart::

check: ## formatting, lints and documentation, warnings denied; a processor without 64-bit atomics; licences of what is linked
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	RUSTFLAGS='--cfg hade_halves -D warnings' $(CARGO) check --locked --bins
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --locked --no-deps --document-private-items
	@! $(CARGO) tree --locked --edges no-dev --prefix none --format '{l}: {p}' | \
	grep -vE '^(MIT|Apache-2\.0|BSD-3-Clause|Unicode-3\.0| OR | AND |[()])+: ' || { echo 'licences that nobody has agreed to' >&2; exit 1; }

faults: ## let each system call of each command fail, one at a time; needs strace
	$(CARGO) test --locked --test walk -- all

fuzz: ## feed the parsers spoiled input for a minute, or TIME=SECONDS; needs nightly Rust and cargo-fuzz
	CARGO='$(CARGO)' tests/fuzz/run $(or $(TIME),60)

box: ## boot a kernel in QEMU with busybox and hade, and try all that a box has: with a full disk, another clock; or ARCH=arm
	CARGO='$(CARGO)' tests/box/run $(or $(ARCH),x86_64)

bench: ## measure against nginx, lighttpd, Go, unicorn, puma and plain tiny_http; more with PARTS='attack idle soak'
	$(CARGO) build --locked --release --example demo
	@set -ex; for part in $(PARTS); do $(CARGO) bench --locked --bench peers -- $$part; done

budget: ## bytes, memory and threads of ./hade when idle, and instructions per request, each beside what it may be; needs valgrind
	test -x hade || $(MAKE) build
	$(CARGO) build --locked --release --example demo
	tests/bench/budget.py ./hade $(TARGET) $(or $(CARGO_TARGET_DIR),target)/release/examples/demo

chaos: ## an hour, or TIME=SECONDS, of all kinds of trouble under load; SEED=NUMBER repeats one
	$(MAKE) bench PARTS='"chaos $(or $(TIME),3600) $(SEED)"'

install: ## install ./hade, built only if it is not there, with settings, manual, completions and files for init systems
	test -x hade || $(MAKE) build
	$(PLACE) etc/install

uninstall: ## remove what install has put there, but no settings that were changed
	$(PLACE) etc/install uninstall

deb: ## make the Debian package, also for another processor with TARGET=TRIPLE
	$(STATIC) $(TARGET)
	etc/debian/make $(BUILT) $(TARGET)

clean: ## remove what was built
	$(CARGO) clean
	rm -f hade hade.new hade_*.deb

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/\1\t\2/p' Makefile | expand -t 10
