# make demo   watch a small network of real processes run real jobs
# make test   all tests
# Both install what they need first (see setup.sh) and may be run again at any time.

# Everything is built once, with one profile, into one folder.
export CARGO_TARGET_DIR ?= $(HOME)/.cache/bacnode/target
BIN := $(CARGO_TARGET_DIR)/debug
CARGO ?= cargo
FEATURES := --workspace --all-features

.PHONY: demo test build setup lint bench audit mutants soak bin-dir
.DEFAULT_GOAL := build

demo: build
	$(BIN)/bacnode demo $(ARGS)

# nextest where it is installed, plain cargo otherwise; the same tests.
test: build
	@sh .config/docker.sh
	@sh .config/outside.sh
	@if $(CARGO) nextest --version >/dev/null 2>&1; then \
	    $(CARGO) nextest run $(FEATURES); \
	else \
	    echo "cargo-nextest is not installed: plain cargo test"; $(CARGO) test $(FEATURES) --quiet; \
	fi

build: setup
	@test -x $(BIN)/bacnode || echo "The first build takes 15 to 25 minutes on two cores, two thirds of it RocksDB; later ones take seconds."
	$(CARGO) build $(FEATURES)

setup:
	@sh .config/setup.sh

lint: setup
	$(CARGO) fmt --all --check
	$(CARGO) clippy $(FEATURES) --all-targets -- -D warnings

bench: build
	$(CARGO) build $(FEATURES) --examples
	$(BIN)/bacnode-bench $(ARGS)

audit:
	@if $(CARGO) deny --version >/dev/null 2>&1; then $(CARGO) deny --config .cargo/deny.toml check; else echo "not run: cargo-deny is not installed"; fi

# Wrong decisions, planted one by one: does the simulator notice each?
mutants: build
	$(BIN)/mutants

# The long form of what `make test` samples.
soak: build
	BACNODE_SEEDS=20000 $(CARGO) test $(FEATURES) -p bacnode-simulations --test seeds
	BACNODE_SWARM=300 $(CARGO) test $(FEATURES) -p bacnode-simulations --test hundred
	BACNODE_KILLS=2000 $(CARGO) test $(FEATURES) -p bacnode-tests --test crash
	BACNODE_SOAK=200 $(CARGO) test $(FEATURES) -p bacnode-tests --quiet -- kill --test-threads 1

bin-dir:
	@echo $(BIN)
