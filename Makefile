# Every target first sets up .venv if necessary.
PYTHON ?= python3
VENV := .venv
STAMP := $(VENV)/.installed
# DVC finds `python` and `dvc` for stages and its queue on PATH, so .venv/bin must be on it.
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export VIRTUAL_ENV := $(CURDIR)/$(VENV)

.PHONY: help setup repro experiments use zoo compare test test-slow gpu lint format lock clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12

setup: $(STAMP)  ## create .venv from requirements.lock (hash-checked)

$(STAMP): requirements.lock pyproject.toml build-constraints.txt
	@test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check uv
	uv pip install --quiet --compile-bytecode --require-hashes --build-constraint build-constraints.txt -r requirements.lock
	uv pip install --quiet --no-deps --editable .
	@touch $@

repro: setup  ## run the pipeline (dvc repro) and print the results table
	clipzoo repro
	@awk '/^## / {shown = $$0 == "## Runs"} shown' RESULTS.md
	@echo 'RESULTS.md has all results and the published values.'
	@echo 'report/index.html has the same as pages, with curves and examples: open it in a browser.'

# Of the metrics, the summary alone, which has the same columns for every recipe; and changed parameters.
DROP := ^(?!summary\.).*/|^(?!(recipe|seed)$$)[a-z0-9_]+$$|^(Created|Executor)$$

experiments: setup  ## compare experiments: what was changed, top-1 and zero-shot top-1
	dvc exp show --only-changed --drop '$(DROP)'

use: setup  ## put a recipe into params.yaml: make use RECIPE=text4vis/k400-vitb16-f8
	clipzoo use '$(RECIPE)'

# RELEASED: a file of released weights; OPTIONS: any other options, such as '--smoke' or '-S train.epochs=5'.
zoo: setup  ## run recipes one after the other: make zoo RECIPES='text4vis/k400-*'; RELEASED=FILE, OPTIONS=...
	clipzoo zoo $(foreach recipe,$(RECIPES),'$(recipe)') $(if $(RELEASED),--released '$(RELEASED)') $(OPTIONS)

compare: setup  ## write report/comparison.md: make compare, or RECIPES='demo demo/head-none'
	clipzoo compare $(foreach recipe,$(RECIPES),'$(recipe)') $(OPTIONS)

# Workers of one thread each: the tests' tensors are so small that more threads make them slower.
PYTEST := OMP_NUM_THREADS=1 python -m pytest -n logical --maxprocesses 4 --dist worksteal

test: setup  ## run the test suite (CPU, offline)
	$(PYTEST)

test-slow: setup  ## run the tests that take minutes
	$(PYTEST) -m slow

gpu: setup  ## what only a GPU shows (10 minutes): tests, speed, memory; report in benchmarks/results
	python benchmarks/gpu.py

lint: setup  ## check style (ruff) and types (pyright)
	ruff check .
	ruff format --check .
	pyright

format: setup  ## apply ruff's fixes and format
	ruff check --fix .
	ruff format .

lock: setup  ## resolve requirements.lock from pyproject.toml
	uv pip compile --quiet --python-version 3.10 --universal --generate-hashes --extra dask --extra onnx --extra dev \
		--no-emit-index-url --no-emit-find-links \
		--build-constraint build-constraints.txt --custom-compile-command "make lock" \
		pyproject.toml -o requirements.lock

clean:  ## remove the virtual environment
	rm -rf $(VENV)
