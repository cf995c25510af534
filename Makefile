# cardflow: two commands matter, `make demo` and `make test`; both install what they need first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: help install demo test lint types unit chaos reference lock clean

help: ## what there is to make
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(STAMP) ## the virtual environment with the locked dependencies and the command cardflow

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "cardflow needs Python 3.11 or newer; set PYTHON=/path/to/python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $(STAMP)

demo: install ## the shipped word list from NATS subject to Anki deck, offline
	@$(BIN)/cardflow demo --out out/demo

test: install lint types unit ## lint, types and all tests

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install
	$(BIN)/mypy

unit: install
	$(BIN)/python -m pytest -n 4 --cov --cov-report=term:skip-covered --cov-fail-under=90

chaos: install ## the long chaos tests, over an hour; CHAOS_FIGURES=FILE collects their figures
	$(BIN)/python -m pytest tests/chaos -m long -s

reference: install ## write docs/reference anew
	$(BIN)/python -c 'from services.cli.commands.settings import settings_page; print(settings_page(), end="")' > docs/reference/settings.md

lock: ## pin every dependency with its hashes, for all platforms
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --group dev pyproject.toml \
	  --generate-hashes --no-emit-index-url --no-header --no-annotate -o requirements.lock

clean: ## remove what the other commands made
	rm -rf $(VENV) out dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage*
