# make demo and make test are all that a fresh machine needs; `make help` lists the rest.
PIPELINE ?= demo
PYTHON ?= python3
SET ?=
VENV := .venv
RUN := $(VENV)/bin/orl-ldm
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help setup demo collect train evaluate report pretrain check test lint clean

help:  ## This list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(READY)  ## Make a virtual environment in .venv and install everything (about 6 GB, a few minutes)

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; $(PYTHON) is older. Name another: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 2; }
	@echo "Setting up .venv: torch and the rest are downloaded once, about 6 GB, a few minutes."
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --progress-bar on -e '.[dev]'
	$(RUN) prepare
	@touch $(READY)
	@echo "Ready. Next: make demo (the whole way, 14 minutes on two cores), or make test."

demo: setup  ## Collect and train in rounds, evaluate and report on the embedded default
	$(RUN) demo

collect: setup  ## Publish a buffer                  (PIPELINE=name, SET="--set collect.images=8")
	$(RUN) collect $(PIPELINE) $(SET)

train: setup  ## Learn a policy from the buffer
	$(RUN) train $(PIPELINE) $(SET)

evaluate: setup  ## Score it on held-out images and report
	$(RUN) evaluate $(PIPELINE) $(SET)

report: setup  ## Write tables, figures and page of an evaluation again
	$(RUN) report $(PIPELINE) $(SET)

pretrain: setup  ## Train an LDM of your own          (PIPELINE=pretrain, SET="--set 'sources=[{source=\"my/images\"}]'")
	$(RUN) pretrain $(if $(filter pretrain%,$(PIPELINE)),$(PIPELINE),pretrain) $(SET)

check: setup lint  ## Lint, types, import contracts and the quick tests
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -n 2 -m "not slow"

test: setup lint  ## Lint, types, import contracts and all tests
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -n 2

lint: setup
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

clean:  ## Remove runs (buffers and policies too) and caches, keep .venv
	rm -rf runs .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
