PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
FLAGS ?=
# Where torch is taken from, such as PyTorch's index of builds for CPUs; empty: from where all packages are.
TORCH_INDEX ?=
FAST := -m "not slow and not full"
# Rooms whose fast tests load no torch, but for these files; with that folder on the path, loading it fails.
QUICK := tests/settings tests/storage tests/data/candidates tests/data/test_*.py
WITH_TORCH := tests/storage/test_finished_artifacts.py tests/storage/test_locks.py
PIP_FLAGS := --disable-pip-version-check --constraint requirements.lock
WITHOUT_TORCH := PYTHONPATH=tests/support/without_torch

.PHONY: demo test test-quick test-slow test-full check format wheel wheel-demo extras licences clean

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

wheel: $(READY)  ## Source archive and wheel, installed in a fresh environment and asked for all that it has to hold
	BIN=$(BIN) .ci/wheel

wheel-demo: $(READY)  ## The same, and the small demo by the installed wheel, in some minutes
	BIN=$(BIN) .ci/wheel demo

extras: $(READY)  ## Whether every extra can be had beside the pinned packages; nothing is installed
	for extra in serve baselines modelscope embed gguf track dev; do \
		$(BIN)/pip install $(PIP_FLAGS) --quiet --dry-run ".[$$extra]" && echo "$$extra can be had" || exit 1; done

licences: $(READY)  ## docs/licences.md anew, from the metadata of the packages that are installed
	$(BIN)/python tools/licences.py > docs/licences.md

# torch alone comes from TORCH_INDEX; what it needs comes with the rest. Sizes are those of the wheels, measured on x86-64.
$(READY): pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(None if (3, 11) <= sys.version_info[:2] <= (3, 14) else "$(PYTHON) is Python %d.%d, \
	and the pinned packages are there for 3.11 to 3.14: name one of those, as in: make PYTHON=python3.12" % sys.version_info[:2])'
ifeq ($(TORCH_INDEX),)
	@echo "Into $(CURDIR)/.venv, once, in a few minutes: PyTorch (190 MB where the package index has the build for CPUs, else"
	@echo "530 MB and 2200 MB of CUDA; README.md, Install, says how to choose) and about 130 other packages (300 MB)."
else
	@echo "Into $(CURDIR)/.venv, once, in a few minutes: PyTorch from TORCH_INDEX (190 MB if that is the build for CPUs)"
	@echo "and about 130 other packages (300 MB)."
endif
	$(PYTHON) -m venv .venv
	$(BIN)/pip install $(PIP_FLAGS) $(if $(TORCH_INDEX),--no-deps --index-url $(TORCH_INDEX)) $$(grep '^torch==' requirements.lock)
	$(BIN)/pip install $(PIP_FLAGS) --editable '.[dev,baselines]'
	@touch $(READY)
	@echo "Done. In this shell the commands are found after: . .venv/bin/activate"

.venv: $(READY)

clean:
	rm -rf .venv build dist src/*.egg-info
