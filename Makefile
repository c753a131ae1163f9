# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later

SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

BIN := .venv/bin
COLLECTIONS := build/collections
LINK := $(COLLECTIONS)/ansible_collections/coasters/pool

export PATH := $(CURDIR)/$(BIN):$(PATH):/usr/sbin:/sbin
export ANSIBLE_COLLECTIONS_PATH := $(CURDIR)/$(COLLECTIONS)

.PHONY: help
help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | while IFS='	' read -r name text; do printf '  make %-10s %s\n' "$$name" "$$text"; done

# ---- set-up ----

$(BIN)/python:
	@python=$$(.ci/find-python 3.11 3.12 3.13) || { \
	  echo "Python 3.11, 3.12 or 3.13 with its venv module is needed (Debian, Ubuntu: apt-get install python3-venv)." >&2; exit 1; }; \
	echo "Making .venv with $$python"; "$$python" -m venv --clear .venv

# Ansible finds a collection only below ansible_collections/NAMESPACE/NAME: a link to this checkout.
$(LINK):
	@mkdir -p $(@D) && ln -sfn "$(CURDIR)" $@

# What it takes to run a pool, then what it takes to work on the project.
.venv/runtime: pyproject.toml | $(BIN)/python $(LINK)
	@echo "Installing what a pool needs into .venv"
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --editable .
	@touch $@

.venv/dev: pyproject.toml | $(BIN)/python $(LINK)
	@echo "Installing the tools of the project into .venv"
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --editable '.[dev]'
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
test: lint units ## Run all checks and tests, as CI does

.PHONY: lint
lint: setup ## Check style, types and documentation
	ruff check .
	mypy

.PHONY: units
units: setup system ## Run the tests alone
	$(BIN)/python -m pytest

.PHONY: clean
clean: ## Remove what the other targets made
	rm -rf build dist .venv .mypy_cache .pytest_cache .ruff_cache
