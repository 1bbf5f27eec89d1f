# make help lists the targets.

PREFIX  ?= /usr/local
DESTDIR ?=
CARGO   ?= cargo
TARGET  ?= $(shell rustc -vV | sed -n 's/^host: //p')
BUILT    = $(or $(CARGO_TARGET_DIR),target)/$(TARGET)/release/hade
STATIC   = RUSTFLAGS='-C target-feature=+crt-static' $(CARGO) build --locked --release --bin hade --target $(TARGET)
PARTS   ?= commands throughput restart
IMAGE   ?= hade:latest
BUILDER ?= docker build
TIME    ?= 60

.DEFAULT_GOAL := build
.PHONY: run build image test check fuzz bench install clean help

run: ## serve in the foreground on http://localhost:8888; Ctrl-C stops it
	$(CARGO) run --locked --quiet --bin hade -- app start

build: ## make the static executable, ./hade
	$(STATIC)
	install -m 755 $(BUILT) hade.new && mv -f hade.new hade
	@echo "./hade (also $(BUILT)): $$(wc -c < hade) bytes"

image: ## make the container image, hade:latest or what IMAGE says
	$(STATIC)
	@root=$$(mktemp -d) && trap 'rm -rf "$$root"' EXIT && trap 'exit 1' HUP INT TERM && chmod 755 "$$root" && \
	install -D -m 755 $(BUILT) "$$root/hade" && install -D -m 644 etc/app.conf "$$root/etc/app.conf" && \
	install -d -m 1777 "$$root/run" && $(BUILDER) -t $(IMAGE) -f etc/docker/Dockerfile "$$root"

test: ## run all tests
	$(CARGO) test --locked -- --test-threads=8

check: ## formatting, lints and documentation, warnings denied
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --locked --no-deps --document-private-items

fuzz: ## feed the parsers spoiled input for a minute, or TIME=SECONDS; needs nightly Rust and cargo-fuzz
	CARGO='$(CARGO)' tests/fuzz/run $(TIME)

bench: ## measure against nginx, lighttpd, unicorn, puma and plain tiny_http; more with PARTS='attack idle soak'
	$(CARGO) build --locked --release --example demo
	@set -ex; for part in $(PARTS); do $(CARGO) bench --locked --bench peers -- $$part; done

install: build ## install the executable and, where there is none, the settings
	install -D -m 755 hade $(DESTDIR)$(PREFIX)/bin/hade
	test -e $(DESTDIR)$(PREFIX)/etc/app.conf || install -D -m 644 etc/app.conf $(DESTDIR)$(PREFIX)/etc/app.conf

clean: ## remove what was built
	$(CARGO) clean
	rm -f hade hade.new

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/\1\t\2/p' Makefile | expand -t 10
