# Every target does its own set-up; the environment is made again only when pyproject.toml or constraints.txt changed.
PYTHON ?= python3
VENV := .venv
INSTALL := $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

# Licences that are accepted, and packages that are not judged by their metadata: medseg itself, and the exception that
# SECURITY.md names.
LICENCES := Apache;BSD;MIT;MPL;Mozilla;PSF;Python Software Foundation;ISC;Zlib;Unlicense
EXCEPTIONS := medseg pylibjpeg-libjpeg

MINUTES := 10

# Sweeps on a real Slurm, which takes minutes: of make slurm-check.
SLURM := tests/slurm

# Bad inputs, kills and memory that runs out: of make faults, so that make test stays short.
FAULTS := tests/trust tests/jobs/test_killed.py tests/jobs/test_stopped.py tests/jobs/test_resume_auto.py \
	tests/jobs/test_short_memory.py tests/jobs/test_signals.py

# Many trainings, one after the other or together: of make sweeps, for the same reason.
SWEEPS := tests/jobs/test_sweeps.py tests/jobs/test_first_stage.py tests/jobs/test_few_shot.py \
	tests/jobs/test_cross_validation.py tests/jobs/test_experiments.py \
	tests/jobs/test_ranks.py tests/jobs/test_lost_ranks.py

# The notebooks, each run in a kernel of its own; the path of a newcomer, which installs an environment.
NOTEBOOKS := tests/notebooks
NEWCOMER := tests/newcomer

# The commands of the documentation, run; make test only composes them.
PAGES := tests/pages/test_commands_run.py

.DEFAULT_GOAL := help
.PHONY: help demo test faults sweeps notebooks newcomer docs docs-check trust gpu-check slurm-check check audit fuzz package clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## */\1\t/' | expand -t 10

demo: $(VENV)/.medseg  ## train and test on a made-up brain, in four minutes
	$(VENV)/bin/medseg train

test: $(VENV)/.medseg-dev  ## run the tests, a process for each core
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -n auto --dist worksteal $(addprefix --ignore=,$(FAULTS) $(SWEEPS) $(NOTEBOOKS) $(NEWCOMER) $(PAGES) $(SLURM))

faults: $(VENV)/.medseg-dev  ## run the tests of bad inputs, kills and short memory, in three minutes
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -n auto --dist worksteal $(FAULTS)

sweeps: $(VENV)/.medseg-dev  ## run the tests of sweeps, cross-validations, recipes and several processes, in three minutes
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -n auto --dist worksteal $(SWEEPS)

notebooks: $(VENV)/.medseg-dev  ## run the notebooks, in five minutes
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -n auto --dist worksteal $(NOTEBOOKS)

newcomer: $(VENV)/.medseg-dev  ## walk from a fresh clone to masks of one's own pictures, and say how long each step takes; needs the package index
	$(VENV)/bin/python -m pytest -n 0 $(NEWCOMER)

docs: $(VENV)/.medseg-dev  ## build the documentation site into outputs/site, in half a minute; every link is checked
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build

docs-check: $(VENV)/.medseg-dev  ## run what the pages of the documentation say, on small data, in some ten minutes
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -n auto --dist worksteal $(PAGES)

trust: $(VENV)/.medseg-dev  ## run every test of bad inputs, kills and properties in full; write docs/development/reliability.md's table
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest tests/trust -m "" -n auto --dist worksteal \
		--hypothesis-profile=thorough --reliability=docs/development/reliability.md

gpu-check: $(VENV)/.medseg-dev  ## run every network, loss and augmentation on a pretended GPU, in ten minutes
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest tests/gpu -m "" -n auto --dist worksteal

slurm-check: $(VENV)/.medseg-dev  ## run sweeps on a real Slurm of this machine, in four minutes; needs Debian's slurmctld, slurmd, slurm-client
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest $(SLURM)

check: $(VENV)/.medseg-dev docs  ## lint, format, types, the site's links, and no large or binary files
	$(VENV)/bin/python scripts/check_files.py
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check --quiet .
	$(VENV)/bin/mypy
	$(VENV)/bin/mypy tests/api/test_types.py
	$(VENV)/bin/python scripts/lock.py --check

audit: $(VENV)/.medseg-dev  ## known vulnerabilities, licences and a bill of materials of all that medseg needs
	$(PYTHON) -m venv $(VENV)/audit
	$(VENV)/audit/bin/python -m pip install --quiet --disable-pip-version-check -r scripts/requirements-audit.txt
	mkdir -p outputs
	$(VENV)/audit/bin/cyclonedx-py environment $(VENV)/bin/python --pyproject pyproject.toml --of JSON -o outputs/sbom.cdx.json
	$(VENV)/audit/bin/pip-licenses --python $(VENV)/bin/python --from mixed --partial-match --allow-only "$(LICENCES)" --ignore-packages $(EXCEPTIONS)
	$(VENV)/audit/bin/pip-audit --strict --no-deps --disable-pip -r constraints.txt

fuzz: $(VENV)/.medseg-dev  ## feed every reader damaged files, guided by coverage, for MINUTES in all (10)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --target $(VENV)/fuzz --upgrade -r scripts/requirements-fuzz.txt
	PYTHONPATH=$(VENV)/fuzz OMP_NUM_THREADS=1 $(VENV)/bin/python scripts/fuzz_readers.py --minutes $(MINUTES)

package:  ## build wheel and sdist into dist/, check them, and train with the wheel in a new environment
	$(PYTHON) -m venv $(VENV)/package
	$(VENV)/package/bin/python -m pip install --quiet --disable-pip-version-check -r scripts/requirements-package.txt
	OMP_NUM_THREADS=1 $(VENV)/package/bin/python scripts/check_package.py

clean:  ## remove the environment; outputs/ stays
	rm -rf $(VENV)

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.medseg: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(INSTALL) -e .
	touch $@

# With HASHED=1 only files with known hashes are installed.
$(VENV)/.medseg-dev: pyproject.toml constraints.txt | $(VENV)/bin/python
ifdef HASHED
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements-ci.txt
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
else
	$(INSTALL) -e '.[dev]'
endif
	touch $@ $(VENV)/.medseg
