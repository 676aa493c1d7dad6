# `make demo` shows bilbo on this machine alone; `make test` proves it. Both set up what they need.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help demo test check clean requirements

help:
	@echo "make demo   a cluster on the stand-in AWS of this machine, and a computation on it"
	@echo "make test   everything the tests need, and the tests"
	@echo "make clean  remove what the two have installed here"

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/demo.stamp: pyproject.toml | $(BIN)/python
	@echo "Installing bilbo and what the demo needs (a minute or two, once) …"
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[local]'
	@touch $@

$(VENV)/test.stamp: pyproject.toml tests/system-packages | $(BIN)/python
	@echo "Installing bilbo and what the tests need (a few minutes, once) …"
	sh tests/system-packages
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[local,dev]'
	@touch $@

demo: $(VENV)/demo.stamp
	@$(BIN)/python examples/demo.py

check: $(VENV)/test.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: check
	$(BIN)/pytest

# Pins what images hold (packer/requirements.in) by uv's resolver, for their Python and Linux.
requirements:
	cd packer && uv pip compile requirements.in --upgrade --quiet --no-annotate \
	    --python-version 3.12 --python-platform x86_64-manylinux_2_28 \
	    --custom-compile-command "make requirements" --output-file requirements.txt

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
