# Every target makes what it needs in .venv; nothing is installed outside the checkout except the test
# servers (see `make servers`).
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
PACKAGES := sama_bundle sama_core service worker migrations
# One make test may be told what to run: make test TESTS=tests/sama_core
TESTS ?= tests
# Files of tests are dealt out to so many processes; each starts servers of its own.
TEST_PROCESSES ?= 2
DEMO_OUT ?= demo-out

.PHONY: help demo test check format bench serve servers kill-test clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

demo: $(VENV)/.installed ## Curate scikit-learn's digits with planted label errors; prints the proof and the bundle's path
	@$(BIN)/python benchmarks/digits_demo.py --out $(DEMO_OUT)

test: $(VENV)/.installed-dev servers ## Run every test, on real SQLite, Postgres, Redis and Chromium
	OMP_WAIT_POLICY=PASSIVE $(BIN)/pytest --numprocesses $(TEST_PROCESSES) --dist loadfile $(TESTS)

check: $(VENV)/.installed-dev ## Format, lint, types, import contracts, no code written twice, file length
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/pylint --jobs 2 sama_bundle sama_core service worker

format: $(VENV)/.installed-dev ## Format the code and mend what the linter can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.installed-dev ## Measure: the engine (beside BETTY=/path/to/betty), storage, and the decisions on SAMA_REAL_DATA=/path/to/data
	$(BIN)/python -m benchmarks

serve: $(VENV)/.installed ## API, dashboard and one worker at http://127.0.0.1:8000, on SQLite under ./sama-data
	@$(BIN)/sama serve

servers: ## Make sure that Postgres, Redis and Chromium are there for the tests
	@bash tests/servers/install.sh

kill-test: $(VENV)/.installed-dev servers ## The kill tests, ROUNDS times over (default 20)
	$(BIN)/pytest tests/acceptance/test_kill.py --kill-rounds $(or $(ROUNDS),20)

clean: ## Remove the virtual environment, caches and the demo's output
	rm -rf $(VENV) $(DEMO_OUT) .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info

$(VENV)/bin/python:
	@command -v $(PYTHON) >/dev/null || { echo "error: $(PYTHON) is not installed; name another 3.11+ with: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "Installing into $(VENV) (once; about a minute) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[worker]'
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@echo "Installing the test tools into $(VENV) (once) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[worker,hf,loaders,cleanlab,dev]'
	@touch $@
