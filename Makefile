# `make demo` shows bilbo on this machine alone; `make test` proves it. Both set up what they need.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# Most of the tests' time is Terraform waiting, so three run at once even on two cores.
# A file's tests share what they made, and stay together.
PYTEST ?= -n 3 --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help demo quick test coverage release bench check chaos fuzz scan clean requirements

help:
	@echo "make demo   a cluster on the stand-in AWS of this machine, and a computation on it"
	@echo "make quick  the linters, and the tests that start no stand-in AWS and no engine"
	@echo "make test   everything the tests need, and the tests"
	@echo "make coverage  which lines the tests run, in the processes that they start, too (long)"
	@echo "make release  the source archive and the wheel in dist/, and the wheel tried elsewhere"
	@echo "make chaos  kill -9 at N=20 random moments, and look for what is orphaned"
	@echo "make fuzz   N=1000 spoiled inputs to each reader of other people's documents"
	@echo "make scan   checkov over the Terraform files that bilbo writes (large, so apart)"
	@echo "make bench  what bilbo costs, measured: benchmarks/RESULTS.md (most of an hour)"
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
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[local,ray,dev]'
	@touch $@

demo: $(VENV)/demo.stamp
	@$(BIN)/python examples/demo.py

check: $(VENV)/test.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/vulture

# What a person runs before each commit: tests/touching.py says what it leaves out.
quick: check
	BILBO_QUICK=1 $(BIN)/pytest -q -n 3 --dist worksteal -m "not standin and not programs"

# Also of the processes that tests start. TESTS="tests/test_remote.py" measures by these alone.
coverage: $(VENV)/test.stamp
	rm -f .coverage .coverage.*
	$(BIN)/coverage run -m pytest $(PYTEST) -o timeout=1200 $(TESTS)
	$(BIN)/python tests/agent_coverage.py
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

test: check
	$(BIN)/pytest $(PYTEST)

# Uploads nothing and tags nothing: whoever releases does.
release: $(VENV)/test.stamp
	sh tests/release $(BIN)

$(VENV)-bench/stamp: benchmarks/requirements.txt
	$(PYTHON) -m venv $(VENV)-bench
	$(VENV)-bench/bin/pip install --quiet --disable-pip-version-check -r benchmarks/requirements.txt
	@touch $@

bench: $(VENV)/test.stamp $(VENV)-bench/stamp
	$(BIN)/python benchmarks

# Pins what images hold (packer/requirements.in) by uv's resolver, for their Python and Linux.
requirements:
	cd packer && uv pip compile requirements.in --upgrade --quiet --no-annotate \
	    --python-version 3.12 --python-platform x86_64-manylinux_2_28 \
	    --custom-compile-command "make requirements" --output-file requirements.txt

# Kills Terraform and bilbo at N random moments; nothing may be orphaned in any.
chaos: $(VENV)/test.stamp
	BILBO_CHAOS=$(or $(N),20) $(BIN)/pytest -s tests/test_faults_interrupt.py -k any_moment

# Each input is taken or refused by name; nothing is written elsewhere, and nothing started.
fuzz: $(VENV)/test.stamp
	BILBO_FUZZ=$(or $(N),1000) $(BIN)/pytest -q -s -o timeout=0 tests/hostile/test_fuzz.py

scan: $(VENV)/test.stamp
	sh tests/scan

clean:
	rm -rf $(VENV) $(VENV)-bench .venv-scan dist .coverage .coverage.* .pytest_cache .mypy_cache .ruff_cache .hypothesis
