# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later

SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

BIN := .venv/bin
COLLECTIONS := build/collections
PIP_INSTALL := -m pip install -qq --disable-pip-version-check
TARBALL = $(wildcard dist/coasters-pool-*.tar.gz)

export PATH := $(CURDIR)/$(BIN):$(PATH):/usr/sbin:/sbin
export ANSIBLE_COLLECTIONS_PATH := $(CURDIR)/$(COLLECTIONS)

.PHONY: help
help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | while IFS='	' read -r name text; do printf '  make %-17s %s\n' "$$name" "$$text"; done

# ---- set-up ----

$(BIN)/python:
	@python=$$(.ci/find-python 3.11 3.12 3.13) || { \
	  echo "Python 3.11, 3.12 or 3.13 with its venv module is needed (Debian, Ubuntu: apt-get install python3-venv)." >&2; exit 1; }; \
	echo "Making .venv with $$python"; "$$python" -m venv --clear .venv

# What it takes to run a pool, then what it takes to work on the project.
.venv/runtime: pyproject.toml | $(BIN)/python
	@echo "Installing what a pool needs into .venv"
	@$(BIN)/python $(PIP_INSTALL) --editable .
	@touch $@

.venv/dev: pyproject.toml | $(BIN)/python
	@echo "Installing the tools of the project into .venv"
	@$(BIN)/python $(PIP_INSTALL) --editable '.[dev]'
	@touch $@ .venv/runtime

.PHONY: setup
setup: .venv/dev ## Make .venv with everything that the project needs

.PHONY: system
system:
	@.ci/install-system-packages

# ---- use ----

.PHONY: demo
demo: .venv/runtime ## Start a pool on this machine, run a job on it, show its output, stop
	@examples/hello_pool.sh

# ---- checks ----

.PHONY: test
test: system setup ## Run all checks and tests, as CI does
	@# Two at a time, as each leaves a processor idle; sanity takes as long as the others together.
	$(MAKE) --jobs=2 --output-sync sanity lint importer engine faults
	$(MAKE) unit

.PHONY: all
all: test coverage matrix ## Run all checks and tests, then again with every supported Ansible and Python

.PHONY: lint
lint: setup ## Check style, types, YAML, roles, shell scripts, documentation and changelog
	ruff check .
	mypy
	yamllint --strict .
	ansible-lint -q
	shellcheck $$(git ls-files '*.sh' .ci share/bash-completion | grep -v "[.]py$$\|[.]cfg$$")
	antsibull-changelog lint
	antsibull-docs lint-collection-docs --plugin-docs --validate-collection-refs all .

.PHONY: sanity
sanity: setup ## Run ansible-test sanity with every Python that is there
	$(BIN)/python .ci/collection_tests.py sanity

.PHONY: collection-units
collection-units: setup ## Run ansible-test units, which `make matrix` runs too
	$(BIN)/python .ci/collection_tests.py units --python "$$($(BIN)/python -c 'import sys; print("%d.%d" % sys.version_info[:2])')"

.PHONY: engine
engine: setup ## Run the tests of the engine, each module's have to reach all of it
	.ci/module-coverage module_utils/coaster

.PHONY: unit
unit: setup system ## Run all other tests
	@# Most of them wait for hosts; files with few tests, which take longest, would else come last.
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder --ignore=tests/unit/plugins/module_utils/coaster --ignore=tests/benchmarks
	$(BIN)/python -m pytest tests/benchmarks  # alone: what else runs would show in its ratios

.PHONY: coverage
coverage: setup system ## Check that each module of the collection but the engine's is reached in full by its own tests
	.ci/module-coverage module_utils plugin_utils action modules callback

.PHONY: fuzz
fuzz: setup ## Send anything at all to the engine for ten minutes
	.ci/fuzz

.PHONY: faults
faults: setup system ## Inject the most usual faults into pools on test hosts
	$(BIN)/python -m tests.faults --short --at-once 4

.PHONY: test-faults
test-faults: setup system ## Inject every fault, and write the tables of docs/faults.md and the README
	$(BIN)/python -m tests.faults --markdown docs/faults.md --summary README.md

.PHONY: molecule
molecule: setup system ## Run the Molecule scenarios, which `make unit` runs too
	$(BIN)/python -m pytest tests/collection/test_molecule.py

.PHONY: benchmark-start
benchmark-start: setup system ## Measure the start of a pool beside other tools, as root, in 20 minutes (SWIFT_BIN_DIR=DIR: Swift/K, too)
	$(BIN)/python -m benchmarks.start --write $(if $(SWIFT_BIN_DIR),--swift-bin-dir $(SWIFT_BIN_DIR))

.PHONY: build
build: setup ## Build the collection's tarball and the wheel, in dist
	rm -rf dist
	ansible-galaxy collection build --output-path dist
	$(BIN)/python -m build --wheel --outdir dist .

.PHONY: importer
importer: build ## Import the tarball as Galaxy does
	.ci/galaxy-import $(TARBALL)

.PHONY: matrix
matrix: setup system ## Run the tests with each supported pair of Ansible and Python
	.ci/matrix

# ---- files made from others ----

.PHONY: readmes
readmes: setup ## Make the READMEs of the roles from their argument specs
	$(BIN)/python .ci/role_readme.py

.PHONY: manual
manual: setup ## Make the man page and the completions of start-pool from its command line
	$(BIN)/python .ci/manual.py

.PHONY: clean
clean: ## Remove what the other targets made
	rm -rf build dist .venv .mypy_cache .pytest_cache .ruff_cache
