# Targets document themselves: `make help`.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
PY := $(BIN)/python
PYTEST := $(BIN)/pytest
UV_VERSION := 0.13.8
LOCK := $(BIN)/uv pip compile pyproject.toml -q --generate-hashes --no-emit-index-url --python-version 3.11 --python-platform linux --custom-compile-command "make lock"

.PHONY: help
help: ## Show the targets.
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  \033[36m%-18s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(VENV)/.stamp: requirements/dev.txt
	@test -x $(BIN)/uv || { python3 -m venv $(VENV) && $(BIN)/pip -q install uv==$(UV_VERSION); }
	@$(BIN)/uv pip sync -q --require-hashes requirements/dev.txt
	@touch $@

.PHONY: venv
venv: $(VENV)/.stamp ## Make the Python environment from the locked requirements.

.PHONY: lock
lock: ## Lock the requirements again after a change of pyproject.toml.
	$(LOCK) --extra operator --extra session --group dev -o requirements/dev.txt
	$(LOCK) --extra operator -c requirements/dev.txt -o requirements/operator.txt
	$(LOCK) --extra session -c requirements/dev.txt -o requirements/session.txt
	$(LOCK) --group simulator -c requirements/dev.txt -o requirements/simulator.txt

.PHONY: lint
lint: venv ## Check format, lint, types and the direction of imports.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy operator tests
	PYTHONPATH=operator:tests/simulator $(BIN)/lint-imports
