# One word for each thing one does with this repository; `make` alone lists them. Everything is installed into $(VENV), which is
# made here and touched by nothing else; its stamp files make a second run quick. How CI calls these is in .ci/run.

PYTHON ?= python3
VENV ?= .venv
OUT ?= softplex-demo
WORKERS ?= 2
PYTEST_ARGS ?=

BIN := $(VENV)/bin
PIP := PIP_CONSTRAINT=constraints.txt $(BIN)/python -m pip install --quiet --disable-pip-version-check

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo test lint format types docs-check check clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "make %-12s %s\n", $$1, $$2}' Makefile

demo: $(VENV)/.demo  ## train on handwritten digits under three losses; pictures into OUT=softplex-demo
	$(BIN)/softplex demo --out "$(OUT)"

test: $(VENV)/.dev  ## run the tests (PYTEST_ARGS="-k name" for some of them)
	$(BIN)/python -m pytest -n $(WORKERS) $(PYTEST_ARGS)

lint: $(VENV)/.dev  ## check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.dev  ## repair what the formatter and the linter can repair
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(VENV)/.dev  ## check the types of the package
	$(BIN)/mypy

docs-check: $(VENV)/.dev  ## run the examples of the README and of the docstrings
	$(BIN)/python -m pytest -n $(WORKERS) --doctest-modules src/softplex tests/test_docs.py

check: test lint types docs-check  ## all that CI checks

clean:  ## remove the environment and everything that was made
	rm -rf "$(VENV)" build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "make: $(PYTHON) is not Python 3.11 or newer; name one that is: make PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv --clear "$(VENV)"
	@touch $@

$(VENV)/.demo: $(VENV)/.python pyproject.toml constraints.txt
	$(PIP) --editable '.[demo]'
	@touch $@

# The test environment holds all that the demo needs.
$(VENV)/.dev: $(VENV)/.python pyproject.toml constraints.txt
	$(PIP) --editable '.[dev]'
	@touch $(VENV)/.demo $@
