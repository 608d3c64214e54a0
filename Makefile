# Two commands matter: `make demo` and `make test`. Both set up what they need.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PYTEST_WORKERS ?= 3
DATA ?= ../shared/data
TRAINED ?= hippocampus-out
FUZZ_SECONDS ?= 300

.PHONY: help setup setup-core test-tools demo test test-fast lint format soak fuzz bench bench-volume bench-inference bench-results bench-receive dice docs pictures train-hippocampus clean

help:  ## Say what there is
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(STAMP)  ## Create .venv with everything (core, inference, development tools)

$(STAMP): pyproject.toml constraints.txt scripts/setup
	scripts/setup $(PYTHON) $(VENV)
	@touch $@

setup-core:  ## Create .venv-core: receive, route, send and web only, without torch
	scripts/setup $(PYTHON) .venv-core core

test-tools:  ## Install the real peers, validators and viewers that the tests use
	scripts/install-test-tools

demo: setup  ## Scanner, gateway and PACS on this machine: the whole job on the sample series
	$(BIN)/aigw demo --out demo-out

test: setup test-tools lint  ## All tests, with real peers
	$(BIN)/pytest -n $(PYTEST_WORKERS) --dist loadscope --no-loadscope-reorder

test-fast: setup  ## Unit and property tests only
	$(BIN)/pytest -q -n $(PYTEST_WORKERS) tests/unit tests/property

lint: setup  ## Style, types, import layers, container files
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	scripts/lint-docker $(BIN)

format: setup  ## Put the code in shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

soak: setup test-tools  ## The kill tests, many more times (about two hours)
	AIGW_KILL_RUNS=500 $(BIN)/pytest tests/crash
	AIGW_HOSTILE_CYCLES=10000 AIGW_FUZZ_STREAMS=20000 AIGW_FUZZ_STORES=20000 AIGW_FUZZ_EXAMPLES=20000 \
	  $(BIN)/pytest tests/hostile tests/fuzz tests/property tests/unit --hypothesis-profile exploring --timeout 7200
	$(MAKE) fuzz

fuzz: setup  ## Coverage-guided fuzzing of every reader of hostile bytes, FUZZ_SECONDS each
	set -e; targets=$$($(BIN)/python -m tests.fuzz.coverage_guided); for target in $$targets; do \
	  $(BIN)/python -m tests.fuzz.coverage_guided $$target -max_total_time=$(FUZZ_SECONDS); done

dice: setup  ## Measure ct-tissue against the reference labels in $(DATA)
	$(BIN)/python benchmarks/dice_ct_tissue.py --data $(DATA)

bench-volume: setup  ## Time reading 400 files against SimpleITK, MONAI and pydicom
	$(BIN)/python benchmarks/volume.py

bench-inference: setup  ## Networks against MONAI on the CPU, and on a GPU where there is one
	$(BIN)/python -m benchmarks.inference

bench-results: setup  ## Segmentations against highdicom; their check, the report and the overview
	$(BIN)/python -m benchmarks.results
	$(BIN)/python -m benchmarks.results_verify
	$(BIN)/python -m benchmarks.results_sr
	$(BIN)/python -m benchmarks.results_overview

bench-receive: setup test-tools  ## Receiving against Orthanc and storescp, in one run (about 10 min, 25 GB of disk)
	$(BIN)/python -m benchmarks.receive --out bench-receive.json

bench: dice bench-volume bench-inference bench-results bench-receive  ## All benchmarks

docs: setup  ## Write the generated documents again (states, cards, settings schema)
	$(BIN)/python scripts/generate_docs.py

pictures: setup test-tools  ## Make the screenshots in docs/pictures again, of the sample series in the viewer
	$(BIN)/python scripts/make_pictures.py

train-hippocampus: setup  ## Train the model hippocampus on $(DATA)/training, cross-validate, pack it (CPU: 1.5 h)
	$(BIN)/python -m training.hippocampus --data $(DATA)/training/mr_hippocampus_msd_200 --out $(TRAINED)

clean:  ## Remove what the targets above made
	rm -rf $(VENV) .venv-core demo-out bench-receive.json .tools .import_linter_cache .mypy_cache .ruff_cache .pytest_cache .hypothesis .fuzz
