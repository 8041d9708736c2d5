PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: demo test test-slow test-full check format clean

demo: $(READY)  ## The whole pipeline on a made-up dataset, in a few minutes on a laptop
	$(BIN)/mllmrec demo

test: $(READY)  ## The fast tests
	$(BIN)/pytest -m "not slow and not full"

test-slow: $(READY)  ## Kill loops, several processes, servers, whole pipelines
	$(BIN)/pytest -m "slow and not full" --timeout=900

test-full: $(READY)  ## A kill before every file operation of every stage, for hours
	$(BIN)/pytest -m full

check: $(READY)  ## Format, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

$(READY): pyproject.toml requirements.lock
	@echo "Installing into .venv: PyTorch and about 140 packages, a few minutes, once"
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint requirements.lock torch==2.13.0
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint requirements.lock --editable '.[dev,baselines]'
	touch $(READY)

.venv: $(READY)

clean:
	rm -rf .venv build dist src/*.egg-info
