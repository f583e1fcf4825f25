# Every verb a person needs; `make help` lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help

SEEDS ?= 1000
KILLS ?= 50
SEQUENCES ?= 1000
SEED ?= 0
STEP ?= 1
DATA ?= ./menes-data
ARGS ?=
PROFILE_DIR := target/debug

export ROCKSDB_STATIC := 1
export ROCKSDB_LIB_DIR := $(shell scripts/rocksdb-cache.sh --path)

help: ## List the verbs
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

doctor: ## Check what a build needs and say how to install what is missing
	@scripts/doctor.sh

setup: ## Install what is missing (or say how), build RocksDB once, prepare cargo
	@scripts/setup.sh

build: setup ## Build the release binary, target/release/menes
	cargo build --release --locked -p menes-cli

run: build ## Set up, build and start one node with data in ./menes-data
	target/release/menes dev --data $(DATA) $(ARGS)

test: setup clients ## Set up, build, run every test, the real clients included
	scripts/test.sh

unit: setup ## Only the Rust tests of the crates, without foreign clients
	cargo test --locked --workspace --exclude menes-compat-tests

clients: ## Prepare the stock clients that the compatibility tests drive
	@scripts/setup-clients.sh

kill-loop: setup clients ## Kill -9 under load KILLS times and check every acknowledged message
	cargo build --locked --workspace --bin menes
	MENES_KILLS=$(KILLS) cargo test --locked --workspace --test kill_loop -- --nocapture

power-loss: setup clients ## Cut the power under load KILLS times and check every acknowledged message (root)
	cargo build --locked --workspace --bin menes
	MENES_KILLS=$(KILLS) unshare --mount cargo test --locked --workspace --test kill_loop -- --ignored --nocapture

full-disk: setup ## Fill a small disk KILLS times, purge, and go on
	cargo build --locked --workspace --bin menes
	MENES_FULL_DISKS=$(KILLS) cargo test --locked --workspace --test trouble full_disk -- --nocapture

byte-sweep: setup ## Flip every byte of a store, one at a time, and read it through (STEP=1: every; takes hours)
	cargo build --locked --workspace --bin menes
	MENES_SWEEP_STEP=$(STEP) cargo test --locked --workspace --test byte_sweep -- --nocapture --test-threads=1

compare: setup clients ## Run scenarios on Menes and on nats-server and print what differs
	cargo build --locked --workspace --bin menes
	cargo test --locked --workspace --test comparison

memphis-java: setup clients ## Run memphis.java, which was never published, from a checkout (SDK=<folder>; wants a JDK and Maven)
	@test -n "$(SDK)" || { echo "make memphis-java SDK=<folder of a checkout of memphis.java>"; exit 1; }
	cargo build --locked --workspace --bin menes
	MEMPHIS_JAVA="$$(scripts/memphis-java.sh "$(SDK)")" cargo test --locked --workspace --test memphis memphis_java -- --ignored

conformance: setup ## Run the clients' own suites from checkouts in DIR (SUITES="..." REFERENCE=nats-server)
	@test -n "$(DIR)" || { echo "make conformance DIR=<folder>: see compat-tests/conformance/README.md"; exit 1; }
	cargo build --locked --workspace --bin menes
	compat-tests/conformance/run.py "$(DIR)" --server $(PROFILE_DIR)/menes \
	  $(if $(REFERENCE),--reference "$(REFERENCE)") $(foreach suite,$(SUITES),--suite $(suite))

exporter: setup clients ## Let the Prometheus exporter of NATS scrape Menes and nats-server (EXPORTER=<program>)
	@test -n "$(EXPORTER)" || { echo "make exporter EXPORTER=<prometheus-nats-exporter>: see compat-tests/conformance/README.md"; exit 1; }
	cargo build --locked --workspace --bin menes
	scripts/setup-clients.sh --paths > $(PROFILE_DIR)/clients
	compat-tests/conformance/exporter.py --exporter "$(EXPORTER)" --server $(PROFILE_DIR)/menes \
	  --reference "$$(sed -n 's/^nats_server=//p' $(PROFILE_DIR)/clients)" --nats "$$(sed -n 's/^nats=//p' $(PROFILE_DIR)/clients)"

differential: setup ## Play SEQUENCES generated ones to nats-server and Menes (SEED=first REFERENCE=nats-server)
	cargo build --locked --workspace --bin menes
	cargo run --locked --bin differential -- --server $(PROFILE_DIR)/menes \
	  $(if $(REFERENCE),--reference "$(REFERENCE)") --sequences $(SEQUENCES) --seed $(SEED)

sim: setup ## Run the simulator over SEEDS seeds
	cargo run --locked --bin menes-sim -- --seeds $(SEEDS) $(ARGS)

bench: setup ## Micro-benchmarks of the parser and of checks against schemas
	cargo bench --locked -p menes-protocol -p menes-schemas $(ARGS)

benchmarks: setup ## Tables of docs/benchmarks.md (LOADGEN= NATS= [OLD_NATS=] [ARGS=])
	@test -n "$(LOADGEN)" -a -n "$(NATS)" || { echo "make benchmarks LOADGEN=<program> NATS=<program>: see docs/benchmarks.md"; exit 1; }
	cargo build --release --locked -p menes-cli
	cargo build --release --locked -p menes-compat-tests --bin rate
	scripts/benchmarks.py --loadgen $(LOADGEN) --nats $(NATS) $(if $(OLD_NATS),--old-nats $(OLD_NATS)) $(ARGS)

benchmarks-memphis: setup clients ## The figures of Memphis's faces in docs/benchmarks.md ([ARGS=])
	cargo build --release --locked --bin menes
	scripts/benchmarks-memphis.py --menes target/release/menes $(ARGS)

fuzz: ## Fuzz every target for SECONDS_EACH (default 60) each; wants nightly and cargo-fuzz
	scripts/fuzz.sh

verify: setup ## Format, lints, dependency rules, docs: the gate that never writes
	scripts/verify.sh

fix: ## Format and apply what clippy can
	cargo fmt --all
	cargo clippy --fix --allow-dirty --allow-staged --workspace --all-targets

clean: ## Remove build output (the RocksDB archive in the home cache stays)
	cargo clean

.PHONY: help doctor setup build run test unit clients kill-loop power-loss full-disk byte-sweep compare memphis-java conformance exporter differential sim bench benchmarks benchmarks-memphis fuzz verify fix clean
