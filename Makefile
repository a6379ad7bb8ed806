# Two commands do everything on a fresh machine: `make demo` and `make test`. Both set up .venv first.
#   PYTHON=python3.12  which Python makes the environment      TORCH=cuda|cpu  which build of torch (default: look for a GPU)
SHELL := /bin/bash
VENV  := .venv
BIN   := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test lint types layers check setup clean
.DEFAULT_GOAL := help

help:
	@sed -n 's/^#\( make .*\)/\1/p' Makefile

# make setup   the environment in .venv, with the build of torch this machine needs
setup: $(READY)
$(READY): pyproject.toml tools/setup.sh
	@bash tools/setup.sh $(VENV)
	@touch $@

# make demo    train a classifier of surnames in under two minutes, and see what it learned
demo: $(READY)
	@$(BIN)/python examples/names/demo.py

# make test    the whole test suite
test: $(READY)
	$(BIN)/python -m pytest -n 2

# make lint    formatting and lint rules
lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# make types   static types of src/
types: $(READY)
	$(BIN)/mypy

# make layers  no import points against the arrows
layers: $(READY)
	$(BIN)/lint-imports

# make check   lint, types, layers and tests: what CI runs
check: lint types layers test

clean:
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
