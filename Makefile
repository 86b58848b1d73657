# Everything a person types. `make help` lists the targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
LOCK := requirements.lock
# Files stay together, for their tests share what is slow to make; in the order of folders, so that the long ones begin first.
PARALLEL := -n 2 --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help install demo dev test test-slow test-chaos test-fuzz test-all lint format bench bench-large lock clean

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(STAMP)  ## create .venv from the locked, hash-checked requirements

$(STAMP): $(LOCK) setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed, found " + sys.version.split()[0] + ". Try: make install PYTHON=python3.12")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing the locked requirements into $(VENV) (about two minutes the first time) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r $(LOCK)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $(STAMP)

demo: install  ## eight months of green taxi trips, from raw file to served predictions
	@$(BIN)/mlops-assets demo

dev: install  ## Dagster, MLflow, Evidently and the report pages, on the same state
	@$(BIN)/mlops-assets dev

test: install  ## the test suite (no network; about a quarter of an hour on two cores)
	@$(BIN)/python -m pytest -q $(PARALLEL) mlops_assets_tests

test-slow: install  ## all 27 shipped months with the default search, and what else takes long (about ten minutes)
	@$(BIN)/python -m pytest -q $(PARALLEL) -m slow -rP mlops_assets_tests

test-chaos: install  ## more than 200 times kill -9 of commands, runs, daemon and code server at random points
	@$(BIN)/python -m pytest -q $(PARALLEL) -m chaos -rP mlops_assets_tests/end_to_end

test-fuzz: install  ## a thousand damaged files, a thousand damaged declarations, hostile names on every surface (seeded)
	@$(BIN)/python -m pytest -q $(PARALLEL) -m fuzz -rP mlops_assets_tests/fuzz

test-all: test test-slow test-chaos test-fuzz  ## all suites

lint: install  ## ruff and mypy
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: install  ## let ruff rewrite what it can
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: install  ## measure speed and memory, as ratios in one run
	@$(BIN)/python -m benchmarks

bench-large: install  ## measure a month of 50 million rows (about half an hour, up to 40 GB in the temporary folder)
	@$(BIN)/python -m benchmarks large

lock:  ## resolve setup.cfg again into requirements.lock (needs uv)
	uv pip compile setup.cfg --extra dev --universal --python-version 3.11 --generate-hashes --no-header \
	  -o $(LOCK)

clean:  ## remove the environment and caches, never the state in MLOPS_HOME
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache
