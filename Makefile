# The checks and the demonstration. Needs cargo and Python 3 with pip; everything else is fetched.

PYTHON ?= python3
CARGO ?= cargo

# The newest release that the library is tested with.
ONNXRUNTIME_VERSION := 1.32.0
ONNXRUNTIME_DIR := .onnxruntime
ONNXRUNTIME_STAMP := $(ONNXRUNTIME_DIR)/.version-$(ONNXRUNTIME_VERSION)

DEMO_TABLE := tests/fixtures/xquad.parquet
DEMO_OUTPUT := target/demo.parquet
# The libraries that the engine is compared with; Python 3.11, as for the reference scores.
REFERENCE := tests/fixtures/reference
PEERS := $(REFERENCE)/venv

# The programs that read what a job has written, in versions that are known to work.
READERS := tests/readers
READERS_PYTHON := $(READERS)/venv/bin/python

# What `make bench-pure` compares with. `make semver` has its own default: the last tag, or else the commit before this.
BASE ?= HEAD
SEMVER_BASE = $(if $(filter file,$(origin BASE)),$(shell git describe --tags --abbrev=0 HEAD~ 2>/dev/null || git rev-parse HEAD~),$(BASE))
BASE_TREE := target/base
PURE := --quiet --package datafusion-rerank --no-default-features --bench pure --
export CRITERION_HOME ?= $(CURDIR)/target/criterion

# Neither tests nor examples report their use to the makers of ONNX Runtime.
export ORT_DISABLE_TELEMETRY ?= 1

EXAMPLES := $(basename $(notdir $(wildcard examples/*.rs)))

.PHONY: help demo test columns chaos fuzz-sql lint features semver onnxruntime bench-pure bench-peers bench-gpu bench-gpu-dry-run kernels
.DEFAULT_GOAL := help

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1	/'

demo: onnxruntime ## score the bundled table with the bundled model and show ranked rows
	@$(CARGO) build --quiet --package rerank
	target/debug/rerank run $(DEMO_TABLE) $(DEMO_OUTPUT) --model tiny --overwrite
	@echo
	@echo "The best pairs of the scored table:"
	target/debug/rerank sql -c "SELECT lang, left(query, 24) AS query, left(passage, 24) AS passage, relevant, score \
	    FROM '$(DEMO_OUTPUT)' ORDER BY score DESC LIMIT 6"
	@echo
	target/debug/rerank score "what is a panda?" "hi" "The giant panda is a bear species endemic to China."

test: lint onnxruntime ## everything that must pass before a change is merged
	$(CARGO) test --quiet --workspace
	@for example in $(EXAMPLES); do echo "example $$example"; $(CARGO) run --quiet --example $$example > /dev/null || exit 1; done
	@$(MAKE) --no-print-directory columns

columns: onnxruntime $(READERS_PYTHON) ## compare scored files of all types and writers with their inputs, as five other readers see them
	$(CARGO) build --quiet --package rerank
	@rm -rf target/columns
	$(READERS_PYTHON) $(READERS)/check_columns.py --rerank target/debug/rerank --work target/columns

$(READERS_PYTHON): $(READERS)/requirements.txt
	$(PYTHON) -m venv --clear $(READERS)/venv
	$(READERS_PYTHON) -m pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@

chaos: onnxruntime ## kill jobs much oftener than `make test` does
	RERANK_CHAOS_KILLS=50 RERANK_TEST_SECONDS=14400 $(CARGO) test --quiet --test integration chaos -- --nocapture

fuzz-sql: onnxruntime ## compare random SQL with the same over stored scores, as long as you like (FUZZ_SQL_STATEMENTS, FUZZ_SQL_SEED)
	FUZZ_SQL_STATEMENTS=$${FUZZ_SQL_STATEMENTS:-5000} \
	    FUZZ_SQL_SEED=$${FUZZ_SQL_SEED:-$$(od -An -N4 -tu4 /dev/urandom | tr -d ' ')} \
	    RERANK_TEST_SECONDS=86400 $(CARGO) test --quiet --test integration differential -- --nocapture

lint: ## formatting, lints and documentation, without running anything
	$(CARGO) fmt --all --check
	$(CARGO) clippy --quiet --workspace --all-targets -- -D warnings
	$(CARGO) clippy --quiet --package datafusion-rerank --no-default-features -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --quiet --workspace --no-deps --document-private-items

features: ## check each feature by itself, none and all of them
	$(CARGO) check --quiet --package datafusion-rerank --no-default-features
	$(CARGO) check --quiet --package datafusion-rerank --no-default-features --features datafusion
	$(CARGO) check --quiet --package rerank --no-default-features
	$(CARGO) check --quiet --package datafusion-rerank --features cluster
	$(CARGO) check --quiet --package rerank --no-default-features --features cluster
	$(CARGO) check --quiet --package rerank --no-default-features --features hub
	$(CARGO) check --quiet --package rerank --no-default-features --features shell
	$(CARGO) check --quiet --package rerank --no-default-features --features hub,shell

semver: ## compare the library's API with that of the commit BASE (default: the last tag, or else the commit before)
	@$(CARGO) semver-checks --version > /dev/null 2>&1 || \
	    { echo "cargo-semver-checks is missing; cargo install cargo-semver-checks --locked" >&2; exit 1; }
	$(CARGO) semver-checks --package datafusion-rerank --all-features --baseline-rev $(SEMVER_BASE)

bench-pure: ## time the parts that run no model, and those of the commit BASE beside them (default: HEAD, for what is not committed)
	@if [ -e $(BASE_TREE) ]; then git worktree remove --force $(BASE_TREE); fi
	@git worktree prune
	git worktree add --quiet --detach $(BASE_TREE) $(BASE)
	cd $(BASE_TREE) && CARGO_TARGET_DIR=$(CURDIR)/target $(CARGO) bench $(PURE) --save-baseline base
	$(CARGO) bench $(PURE) --baseline base
	@git worktree remove --force $(BASE_TREE)

bench-peers: onnxruntime $(PEERS)/.peers ## time the engine against FlagEmbedding and sentence-transformers (BENCH_ARGS='--help')
	$(PEERS)/bin/python benches/peers/compare.py $(BENCH_ARGS)

bench-gpu: ## measure a machine with a CUDA GPU, in minutes (BENCH_ARGS='--help'; needs python3 with torch)
	python3 benches/gpu/measure.py --binary target/release/rerank $(BENCH_ARGS)

kernels: ## compile the kernels for GPUs after a change to kernels.cu; needs no GPU
	$(PYTHON) -m venv target/nvrtc
	target/nvrtc/bin/pip install --quiet --disable-pip-version-check nvidia-cuda-nvrtc==13.0.*
	target/nvrtc/bin/python udfs/src/engine/kernels/compile.py

bench-gpu-dry-run: onnxruntime $(PEERS)/.peers ## run the GPU measurement on the CPU with tiny models, to see that it works
	$(CARGO) build --quiet --package rerank
	$(PEERS)/bin/python benches/gpu/measure.py --dry-run --seconds 900 --binary target/debug/rerank

$(PEERS)/.peers: $(REFERENCE)/setup.sh benches/peers/requirements.txt
	bash $(REFERENCE)/setup.sh $(PEERS)
	$(PEERS)/bin/pip install --quiet --disable-pip-version-check --requirement benches/peers/requirements.txt
	@touch $@

onnxruntime: $(ONNXRUNTIME_STAMP) ## put ONNX Runtime under .onnxruntime/, where the library finds it

$(ONNXRUNTIME_STAMP): .ci/fetch_onnxruntime.py
	$(PYTHON) .ci/fetch_onnxruntime.py $(ONNXRUNTIME_VERSION) $(ONNXRUNTIME_DIR)
	@touch $@
