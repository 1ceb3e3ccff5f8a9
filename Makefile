# Everything a person types. `make demo` and `make test` need nothing done before them.
PG_CONFIG ?= /usr/bin/pg_config
PG_MAJOR  := $(shell $(PG_CONFIG) --version 2>/dev/null | sed 's/[^0-9]*\([0-9]*\).*/\1/')
VERSION   := 0.1.0
FEATURES   = --no-default-features --features pg$(or $(PG_MAJOR),15)
# Where the versions that `make setup VERSIONS="17 18"` unpacks are.
export KLAXON_POSTGRES ?= /var/cache/pg_klaxon
export VERSIONS
# The demo is built unoptimised: a fresh clone sees its first delivery in half the time.
PROFILE   ?= release
BUILT      = target/$(patsubst dev,debug,$(PROFILE))

export PG_CONFIG
export PGRX_HOME := $(CURDIR)/pgrx-config
ifneq ($(PG_CONFIG),/usr/bin/pg_config)
export PGRX_PG_CONFIG_PATH := $(PG_CONFIG)
endif

# Root installs at once; others through sudo, unless they own Postgres' folders.
SUDO := $(shell [ "$$(id -u)" -eq 0 ] || [ -w "$$($(PG_CONFIG) --pkglibdir 2>/dev/null)" ] || echo sudo)

.PHONY: setup setup-system build install demo test test-pg test-client test-versions test-faults soak histories fuzz proof lint reference book bench package schema clean-install
.DEFAULT_GOAL := build

setup: ## a bare Debian 12 with Rust becomes a working tool chain; VERSIONS="17 18": and has these versions of PostgreSQL
	@pgrx-config/setup.sh pgrx

setup-system:
	@pgrx-config/setup.sh system

build: setup-system ## the extension's library and the worker
	cargo build --profile $(PROFILE) --lib -p pg_klaxon --no-default-features --features pg$$($(PG_CONFIG) --version | sed 's/[^0-9]*\([0-9]*\).*/\1/')
	cargo build --profile $(PROFILE) -p klaxon

install: build ## the extension into the Postgres of PG_CONFIG
	$(SUDO) install -d "$$($(PG_CONFIG) --pkglibdir)" "$$($(PG_CONFIG) --sharedir)/extension"
	$(SUDO) install -m 755 $(BUILT)/libpg_klaxon.so "$$($(PG_CONFIG) --pkglibdir)/pg_klaxon.so"
	$(SUDO) install -m 644 extension/pg_klaxon.control sql/pg_klaxon--*.sql "$$($(PG_CONFIG) --sharedir)/extension/"

demo: PROFILE = dev
demo: install ## events of a real test run leave a transaction and arrive; KEEP=1 leaves it running
	cargo build --profile $(PROFILE) -p klaxon-tests --bin demo
	KLAXON_BIN=$(CURDIR)/$(BUILT)/klaxon KEEP=$(KEEP) $(BUILT)/demo

test: setup ## everything but the benchmarks
	$(MAKE) test-unit test-pg install budget test-client PROFILE=release

.PHONY: test-unit
test-unit:
	cargo test -p klaxon-model -p klaxon-channel -p klaxon -p klaxon-proof
	cargo test -p klaxon-hot -p klaxon-bench --bins

# pgrx runs its own cluster as the user postgres when we are root, who may not run one: in a folder
# that postgres can reach, wherever the clone is.
PGRX_TEST_DATA := $(or $(TMPDIR),/tmp)/pg_klaxon-pgrx-test
test-pg:
	if [ "$$(id -u)" -eq 0 ]; then \
		rm -rf $(PGRX_TEST_DATA) && install -d -o postgres $(PGRX_TEST_DATA) && cd extension && \
		cargo pgrx test pg$(PG_MAJOR) $(FEATURES) --runas postgres --pgdata $(PGRX_TEST_DATA) && rm -rf $(PGRX_TEST_DATA); \
	else \
		cd extension && cargo pgrx test pg$(PG_MAJOR) $(FEATURES); \
	fi

test-client:
	KLAXON_BIN=$(CURDIR)/target/release/klaxon cargo test --no-fail-fast -p klaxon-tests $(addprefix --test ,$(FILES))

# What does not depend on the version of Postgres, and is tested with Debian's own alone:
#   package    packages are made for Debian's Postgres, and are of the worker and files otherwise
#   demo_input, install   read files, and start no Postgres
#   shell      completions and manual pages, which the worker prints without a database
#   egress, mail, preview, vendors   between the worker and receivers: what comes from the database is rows of `outbox`
#   page       between the worker and a browser
#   examples   programs of users, which are built for minutes
#   soak, volume   what the worker costs over time and by the hundred thousand
ONCE := package demo_input install shell egress mail preview vendors page examples soak volume
AGAIN = $(filter-out $(ONCE),$(basename $(notdir $(wildcard tests/tests/*.rs))) $(notdir $(patsubst %/main.rs,%,$(wildcard tests/tests/*/main.rs))))
OTHERS := 17 18

test-versions: ## what depends on the version of PostgreSQL, again with the OTHERS than Debian's own
	$(MAKE) setup VERSIONS="$(OTHERS)"
	$(MAKE) install PROFILE=release
	for version in $(OTHERS); do \
		KLAXON_UPGRADE_FROM=$(PG_CONFIG) $(MAKE) PG_CONFIG=$(KLAXON_POSTGRES)/postgresql-$$version/bin/pg_config PROFILE=release \
			test-pg test-schema install test-client FILES="$(AGAIN)" || exit 1; \
	done

.PHONY: test-next
test-next: setup ## an upgrade under load to a library and a worker of the next minor version, which are built for it
	$(MAKE) install PROFILE=release
	pgrx-config/next.sh 0.2.0 target/next
	KLAXON_NEXT=$(CURDIR)/target/next KLAXON_BIN=$(CURDIR)/target/release/klaxon cargo test -p klaxon-tests --test upgrade -- --nocapture

histories: setup ## two workers under the randomised histories, for HISTORY_SECONDS
	$(MAKE) install PROFILE=release
	KLAXON_HISTORY_SECONDS=$(HISTORY_SECONDS) KLAXON_BIN=$(CURDIR)/target/release/klaxon \
		cargo test -p klaxon-tests --test histories -- --nocapture
HISTORY_SECONDS ?= 600

fuzz: setup ## a million calls of the extension's functions with arguments that nobody would give
	$(MAKE) install PROFILE=release
	KLAXON_FUZZ_CALLS=$(FUZZ_CALLS) KLAXON_BIN=$(CURDIR)/target/release/klaxon \
		cargo test -p klaxon-tests --test fuzz -- --nocapture
FUZZ_CALLS ?= 1000000

test-faults: setup ## the fault suite in its long form, and its table; CASE=worker::killed: one case; ILL_SECONDS=3600: receivers are ill for that long
	$(MAKE) install PROFILE=release
	rm -rf target/faults
	KLAXON_FAULTS=full KLAXON_ILL_SECONDS=$(ILL_SECONDS) KLAXON_BIN=$(CURDIR)/target/release/klaxon cargo test -p klaxon-tests --test faults -- --nocapture --test-threads=1 $(CASE)
	@printf '%s\n' '| fault | times | deliveries | lost | twice | of these not in flight | phantom | recovery | command |' \
		'|---|--:|--:|--:|--:|--:|--:|--:|---|' && cat target/faults/*

soak: setup ## 500 events a second with churn and faults for SOAK_SECONDS, and that nothing grows; 21600 is a night
	$(MAKE) install PROFILE=release
	KLAXON_SOAK_SECONDS=$(SOAK_SECONDS) KLAXON_BIN=$(CURDIR)/target/release/klaxon cargo test -p klaxon-tests --test soak -- --nocapture
SOAK_SECONDS ?= 600

proof: ## the model of discovery, ownership and settling, to wider bounds than `make test` has time for
	cargo test -p klaxon-proof -- --include-ignored --nocapture --test-threads=1

lint: setup ## formatting, lints, that it builds for PostgreSQL 16, documentation, that the committed schema is the generated one, and whose code we run
	cargo fmt --all --check
	cargo fmt --manifest-path examples/rust/Cargo.toml --check
	cargo clippy --all-targets -p klaxon-model -p klaxon-channel -p klaxon -p klaxon-tests -p klaxon-proof -p klaxon-bench -p klaxon-hot -- -D warnings
	cargo clippy --all-targets -p pg_klaxon $(FEATURES) -- -D warnings
	DOCS_RS=1 RUSTC_WRAPPER=$(CURDIR)/pgrx-config/bundled.sh cargo check -p pg_klaxon --no-default-features --features pg16
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --document-private-items -p klaxon-model -p klaxon-channel -p klaxon -p klaxon-proof -p klaxon-bench -p klaxon-hot
	$(MAKE) --no-print-directory test-schema
	@pgrx-config/setup.sh deny
	@pgrx-config/deny.sh

.PHONY: test-schema
test-schema: ## that the committed schema is what the sources generate, for whatever version of PostgreSQL
	$(MAKE) --no-print-directory schema SCHEMA_OUT=target/generated.sql
	@pgrx-config/schema.sh same sql/pg_klaxon--$(VERSION).sql target/generated.sql

SCHEMA_OUT ?= sql/pg_klaxon--$(VERSION).sql
schema: ## writes sql/pg_klaxon--VERSION.sql
	cd extension && cargo pgrx schema pg$(PG_MAJOR) $(FEATURES) --out ../$(SCHEMA_OUT)
	@pgrx-config/schema.sh strip $(SCHEMA_OUT)

reference: setup ## writes docs/reference/ from the schema's comments and the program's definitions
	$(MAKE) install PROFILE=release
	KLAXON_BLESS=1 KLAXON_BIN=$(CURDIR)/target/release/klaxon cargo test -p klaxon-tests --test document reference::

book: setup ## the documentation as HTML, in target/book
	target/counterparts/bin/mdbook build docs

bench: install ## the figures and plots of docs/benchmarks.md, in half an hour; QUICK=1: roughly, in three minutes; ONLY="deliver slow": some
	@pgrx-config/setup.sh peers
	QUICK=$(QUICK) KLAXON_BIN=$(CURDIR)/target/release/klaxon cargo run --release -p klaxon-bench -- $(ONLY)

.PHONY: budget
budget: ## counts the instructions of the hot paths; KLAXON_BLESS=1 writes them to bench/budget.toml
	@pgrx-config/setup.sh valgrind
	cargo run --release --quiet -p klaxon-hot

package: build ## target/: a tar ball, and in packages/ Debian packages of the extension and the worker
	rm -rf target/package target/packages && mkdir -p target/package/pg_klaxon-$(VERSION)
	cp target/release/libpg_klaxon.so target/package/pg_klaxon-$(VERSION)/pg_klaxon.so
	cp target/release/klaxon extension/pg_klaxon.control sql/pg_klaxon--*.sql README.md CHANGELOG.md LICENSE-APACHE LICENSE-MIT \
		target/package/pg_klaxon-$(VERSION)/
	tar -C target/package -czf target/pg_klaxon-$(VERSION)-pg$(PG_MAJOR).tar.gz pg_klaxon-$(VERSION)
	packaging/debian.sh target/release/libpg_klaxon.so target/release/klaxon $(PG_MAJOR) target/packages

.PHONY: release-check
release-check: ## versions agree, the changelog has it, nothing released was edited, the schema is what the sources generate
	packaging/release-check.sh
	$(MAKE) --no-print-directory test-schema
