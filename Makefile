# Every target works from a bare clone: what it needs, it first installs into .venv, once.
PYTHON ?= python3
ARGS ?=
ROW ?=

BIN := .venv/bin
READY := .venv/ready
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test check bench serve lock clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-7s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(READY) ## Show the whole way through, with crashes: brokers, jobs, workers, webhooks, Kafka
	@tests/services/install.sh rabbitmq kafka
	$(BIN)/python demo/run.py $(ARGS)

test: $(READY) ## Run the tests on real servers; ARGS="-k retry" goes to pytest
	@tests/services/install.sh
	$(BIN)/pytest --numprocesses 2 --dist loadfile $(ARGS)

check: $(READY) ## Lint, format, floors and types, without changing a file
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	@mkdir -p build/types && ln -sfn ../.. build/types/hammerwork
	$(BIN)/mypy

bench: $(READY) ## Measure, beside the bare limits and peers; ROW=enqueue measures that row alone
	@tests/services/install.sh rabbitmq kafka
	$(BIN)/python -m tests.benchmarks $(ROW) $(ARGS)

serve: $(READY) ## Run the gateway with the environment's HAMMERWORK_* settings
	$(BIN)/hammerwork run $(ARGS)

# Run it with the oldest Python that we support: what that one needs, the newer ones can install.
# It keeps the pins that still fit pyproject.toml; ARGS=--upgrade renews them all.
lock: ## Write constraints.txt anew from pyproject.toml; ARGS=--upgrade renews every pin
	@mkdir -p build/lock
	$(PYTHON) -m venv build/lock/venv
	build/lock/venv/bin/pip install --quiet --disable-pip-version-check pip-tools
	$(PYTHON) -c "$$REQUIREMENTS" > build/lock/pyproject
	CUSTOM_COMPILE_COMMAND="make lock" build/lock/venv/bin/pip-compile --quiet --generate-hashes \
	    --allow-unsafe --strip-extras --no-emit-index-url --no-emit-trusted-host --no-emit-find-links \
	    --annotation-style=line --output-file=constraints.txt $(ARGS) build/lock/pyproject

clean: ## Remove everything that these targets made
	rm -rf .venv .demo build dist *.egg-info .coverage benchmarks.json
	rm -rf .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): constraints.txt pyproject.toml
	@$(PYTHON) -c "$$OLD_ENOUGH"
	@test -x $(BIN)/python || { $(VENV_MODULE); $(PYTHON) -m venv .venv; }
	@echo "installing into .venv (a minute, once)"
	@$(PIP) install --require-hashes --requirement constraints.txt
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

# Debian ships venv's other half as a package of its own.
define VENV_MODULE
	$(PYTHON) -c 'import ensurepip' 2>/dev/null || { \
	    test "$$(id -u)" = 0 && command -v apt-get >/dev/null \
	    && apt-get update -qq && apt-get install -y -qq python3-venv >/dev/null; \
	} || { echo "$(PYTHON) cannot make virtual environments: apt-get install python3-venv" >&2; exit 1; }
endef

define OLD_ENOUGH
import sys
if sys.version_info < (3, 11):
    sys.exit(f"needs Python 3.11 or newer, $(PYTHON) is {sys.version.split()[0]}: make PYTHON=python3.11 ...")
endef
export OLD_ENOUGH

define REQUIREMENTS
import tomllib
with open("pyproject.toml", "rb") as file:
    everything = tomllib.load(file)
project = everything["project"]
extras = [name for names in project["optional-dependencies"].values() for name in names]
groups = [name for names in everything["dependency-groups"].values() for name in names]
wanted = everything["build-system"]["requires"] + project["dependencies"] + extras + groups
print(*(name for name in wanted if not name.startswith(project["name"])), sep="\n")
endef
export REQUIREMENTS
