# Every target is one line or a script of scripts/. ARGS goes to the program behind it: make up ARGS="--http-addr 127.0.0.1:9090"

.DEFAULT_GOAL := help
.PHONY: help up test test-clients test-parts lint fmt bench tools build clean

# A dev build is there in a third of the time and is fast enough for one person; RELEASE=1 takes the optimised one.
PROFILE := $(if $(RELEASE),--release)

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

up: ## Run everything in one process, with a private PostgreSQL and a simulated hypervisor
	@scripts/tools.sh up $(ARGS)
	cargo run $(PROFILE) -- up $(ARGS)

test: ## Lint and run every test; ARGS goes to cargo test
	scripts/test.sh $(ARGS)

test-clients: ## Run Python, TypeScript, grpcurl and curl against the running product
	scripts/test-clients.sh $(ARGS)

test-parts: ## Run the tests of the storage of files with a real S3 as well; ARGS goes to cargo test
	scripts/test-parts.sh $(ARGS)

lint: ## Check format, clippy, protos and dependencies
	scripts/lint.sh

fmt: ## Format Rust and protos
	scripts/lint.sh --fix

bench: ## Measure the release binary: size, start, memory, CPU per call; ARGS=calls for one of start and calls
	scripts/bench.sh $(ARGS)

tools: ## Install all tools into .tools and turn on the git hooks
	scripts/tools.sh all

build: ## Build the release binary, target/release/virtualstack
	cargo build --release --locked --bin virtualstack

clean: ## Remove what was built, and the tools; the data in .virtualstack stays
	cargo clean && cd tests/clients/typescript && rm -rf node_modules generated out ../../../.tools

.PHONY: bench-uploads
bench-uploads: ## Measure memory and CPU time of a 4 GiB upload and its import beside sha256sum and a plain file server; needs qemu-img; ARGS="--mib N"
	@scripts/tools.sh run
	cargo build --release --locked --bin virtualstack
	PYTHONPATH=tests/chaos tests/bench/uploads.py $(ARGS)

.PHONY: chaos-load
chaos-load: ## Attack the release binary and measure what another tenant sees; BEFORE=BINARY is attacked too; ARGS="--only NAME --seconds S"
	scripts/chaos-load.sh $(ARGS)

.PHONY: chaos-kill chaos-imports chaos-outage
chaos-kill: ## Kill it 30 times with -9 while 100 VMs are made; ARGS="--kills N --vms N --seed S"
	@scripts/tools.sh run && scripts/tools.sh demo
	cargo build $(PROFILE)
	tests/chaos/kill.py $(PROFILE) $(ARGS)

chaos-imports: ## Cut uploads off and kill it 30 times with -9 while templates are imported; needs qemu-img, xorriso; ARGS="--mib N --kills N --seed S --s3"
	@scripts/tools.sh run && scripts/tools.sh demo$(if $(findstring --s3,$(ARGS)), && scripts/tools.sh parts)
	cargo build $(PROFILE)
	tests/chaos/imports.py $(PROFILE) $(ARGS)

chaos-outage: ## Take its PostgreSQL away for 20 s under load; ARGS="--outage S --threads N"
	@scripts/tools.sh run
	cargo build $(PROFILE)
	tests/chaos/outage.py $(PROFILE) $(ARGS)

.PHONY: soak
soak: ## Trouble VMs for 10 minutes on the simulated hypervisor and 3 on vcsim, quotas, replays and revocations for 20 rounds; ARGS="VIRTUALSTACK_TEST_SEED=7"
	scripts/soak.sh $(ARGS)
