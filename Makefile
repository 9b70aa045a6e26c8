# `make help` lists what there is. Every target does its own set-up; work that is done is not done again.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
export PIP_DISABLE_PIP_VERSION_CHECK := 1
unexport PYTHONDONTWRITEBYTECODE  # else each of many short processes compiles the code anew

.DEFAULT_GOAL := help
.PHONY: help sweep test test-all check format bench-decision golden clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

sweep: $(READY) ## which rank? fetch the model and data, train, decide, report
	@$(BIN)/rankexp sweep $(ARGS)

test: $(READY) ## the tests
	@$(BIN)/rankexp assets > /dev/null
	@$(BIN)/python -m pytest -m "not thorough" -n 2 --dist worksteal $(ARGS)

test-all: $(READY) ## and those that repeat them on more seeds and after more faults
	@$(BIN)/rankexp assets > /dev/null
	@RANKEXP_FUZZ_SECONDS=$${RANKEXP_FUZZ_SECONDS:-300} $(BIN)/python -m pytest -n 3 --dist worksteal $(ARGS)

check: $(READY) ## format, lint, types and the fast tests
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/python -m pytest -m "not slow and not thorough and not assets and not browser" -n 2 $(ARGS)

format: $(READY) ## format the code and sort the imports
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

bench-decision: $(READY) ## how often the decision rule is right and does harm, on simulated studies (half an hour)
	@$(BIN)/python bench/decision.py $(ARGS)

golden: $(READY) ## refresh the golden files
	@RANKEXP_GOLDEN=1 $(BIN)/python -m pytest tests -k golden

clean: ## delete the virtual environment; results in runs/ stay
	rm -rf $(VENV)

$(READY): pyproject.toml constraints.txt
	@test -x $(BIN)/python || { \
	  $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	    || { echo "rankexp needs Python 3.11 or newer; set PYTHON=…" >&2; exit 2; }; \
	  echo "making the virtual environment $(VENV)"; $(PYTHON) -m venv $(VENV); }
	@echo "installing rankexp and what it needs (about two minutes, once)"
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@
