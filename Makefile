# Every target does its own set-up; the environment is made again only when pyproject.toml or constraints.txt changed.
PYTHON ?= python3
VENV := .venv
INSTALL := $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo test check clean

help:  ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## */\1\t/' | expand -t 10

demo: $(VENV)/.medseg  ## train and test on a made-up brain, in about three minutes
	$(VENV)/bin/medseg train

test: $(VENV)/.medseg-dev  ## run every test
	$(VENV)/bin/python -m pytest

check: $(VENV)/.medseg-dev  ## lint, type-check, and refuse large and binary files
	$(VENV)/bin/python scripts/check_files.py
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy

clean:  ## remove the environment; outputs/ stays
	rm -rf $(VENV)

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.medseg: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(INSTALL) -e .
	touch $@

$(VENV)/.medseg-dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(INSTALL) -e '.[dev]'
	touch $@ $(VENV)/.medseg
