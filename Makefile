PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
FLAGS ?=
FAST := -m "not slow and not full"
# Rooms whose fast tests load no torch, but for these files; with that folder on the path, loading it fails.
QUICK := tests/settings tests/storage tests/data/candidates tests/data/test_*.py
WITH_TORCH := tests/storage/test_finished_artifacts.py tests/storage/test_locks.py
WITHOUT_TORCH := PYTHONPATH=tests/support/without_torch

.PHONY: demo test test-quick test-slow test-full check format wheel clean

demo: $(READY)  ## The whole pipeline on a made-up dataset, in a few minutes on a laptop
	$(BIN)/mllmrec demo

test: $(READY)  ## The fast tests, on two cores; a file stays in one process, with the models it made
	$(BIN)/pytest $(FAST) -n 2 --dist loadfile $(FLAGS)

test-quick: $(READY)  ## Those of them that load no torch, in under a minute
	$(WITHOUT_TORCH) $(BIN)/pytest $(FAST) -n 2 --dist loadfile $(QUICK) $(WITH_TORCH:%=--ignore=%) $(FLAGS)

test-slow: $(READY)  ## Kill loops, several processes, servers, whole pipelines
	$(BIN)/pytest -m "slow and not full" --timeout=900 $(FLAGS)

test-full: $(READY)  ## A kill before every file operation of every stage, and real clients of the server, for hours
	$(BIN)/pytest -m full $(FLAGS)

check: $(READY)  ## Format, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

wheel: $(READY)  ## The wheel, installed in a fresh environment and asked for all that it has to hold
	BIN=$(BIN) .ci/wheel

$(READY): pyproject.toml requirements.lock
	@echo "Installing into .venv: PyTorch and about 140 packages, a few minutes, once"
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint requirements.lock torch==2.13.0
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint requirements.lock --editable '.[dev,baselines]'
	touch $(READY)

.venv: $(READY)

clean:
	rm -rf .venv build dist src/*.egg-info
