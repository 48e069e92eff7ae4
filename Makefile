# make demo   watch a small network of real processes run real jobs
# make test   all tests
# Both install what they need first (see setup.sh) and may be run again at any time.

# Everything is built once, with one profile, into one folder.
export CARGO_TARGET_DIR ?= $(HOME)/.cache/bacnode/target
BIN := $(CARGO_TARGET_DIR)/debug
CARGO ?= cargo
FEATURES := --workspace --all-features

VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
STAGE := $(CARGO_TARGET_DIR)/stage
DEB := $(CARGO_TARGET_DIR)/bacnode_$(VERSION)_$(shell dpkg --print-architecture 2>/dev/null).deb
# Where `make install` puts things, below DESTDIR if that is set.
PREFIX ?= /usr/local
INSTALLED := $(PREFIX)/bin/bacnode $(PREFIX)/bin/bacnode-bootstrap $(PREFIX)/lib/systemd/system/bacnode.service \
    $(PREFIX)/lib/systemd/system/bacnode-bootstrap.service \
    $(PREFIX)/share/bash-completion/completions/bacnode $(PREFIX)/share/zsh/site-functions/_bacnode \
    $(PREFIX)/share/fish/vendor_completions.d/bacnode.fish

.PHONY: demo test build setup lint bench audit mutants soak bin-dir install uninstall stage stage-dir deb
.DEFAULT_GOAL := build

demo: build
	$(BIN)/bacnode demo $(ARGS)

# nextest where it is installed, plain cargo otherwise; the same tests.
test: build
	@sh .config/docker.sh
	@sh .config/outside.sh
	@sh .config/releases.sh
	@sh .config/hosts.sh
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
	BACNODE_TAKEOVERS=200 $(CARGO) test $(FEATURES) -p bacnode-tests --test guardians -- --test-threads 1
	BACNODE_HOSTS=16 BACNODE_PARTITION_S=60 $(CARGO) test $(FEATURES) -p bacnode-tests --test hosts -- --test-threads 1
	BACNODE_PUNCHES=50 $(CARGO) test $(FEATURES) -p bacnode-tests --test nat -- --test-threads 1
	BACNODE_SOAK_SERVICE=300 $(CARGO) test $(FEATURES) -p bacnode-tests --test kinds -- a_service_survives

bin-dir:
	@echo $(BIN)

# Binaries (without what debuggers want), the unit of systemd, completions.
install: build
	install -d $(addprefix $(DESTDIR),$(dir $(INSTALLED)))
	install -s -m 755 $(BIN)/bacnode $(BIN)/bacnode-bootstrap $(DESTDIR)$(PREFIX)/bin
	sed 's|@BIN@|$(PREFIX)/bin|' cli/packaging/bacnode.service >$(DESTDIR)$(PREFIX)/lib/systemd/system/bacnode.service
	sed 's|@BIN@|$(PREFIX)/bin|' bootstrap/packaging/bacnode-bootstrap.service >$(DESTDIR)$(PREFIX)/lib/systemd/system/bacnode-bootstrap.service
	$(BIN)/bacnode completions bash >$(DESTDIR)$(PREFIX)/share/bash-completion/completions/bacnode
	$(BIN)/bacnode completions zsh >$(DESTDIR)$(PREFIX)/share/zsh/site-functions/_bacnode
	$(BIN)/bacnode completions fish >$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/bacnode.fish

# What is of one's own, /etc/default/bacnode and the data folder, stays.
uninstall:
	rm -f $(addprefix $(DESTDIR),$(INSTALLED))

stage:
	rm -rf $(STAGE)
	@$(MAKE) --no-print-directory install PREFIX=/usr DESTDIR=$(STAGE)

stage-dir:
	@echo $(STAGE)

deb: stage
	@sh cli/packaging/deb.sh $(STAGE) $(VERSION) $(DEB)
