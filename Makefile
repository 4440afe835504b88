# Everything a newcomer types: make demo, make test.

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

.PHONY: demo test lint notebooks bench clean

demo: $(INSTALLED)  ## the whole chain on the embedded region, into demo-output/
	$(BIN)/mdico demo demo-output --resume

test: $(INSTALLED)  ## the test suite
	$(BIN)/python -m pytest -m "not network and not services"

lint: $(INSTALLED)  ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

notebooks: $(INSTALLED)  ## run every notebook from top to bottom
	$(BIN)/python -m pytest -m "not network and not services" tests/test_notebooks.py

bench: $(INSTALLED)  ## time and memory of every stage
	$(BIN)/python benchmarks/bench_journey.py

clean:
	rm -rf .venv demo-output build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis

# torch first and from the pins: an unpinned one brings gigabytes that a laptop does not need.
$(INSTALLED): constraints.txt pyproject.toml
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'mdico-cube needs Python 3.11 or newer: make PYTHON=python3.12')"
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet -c constraints.txt torch
	$(BIN)/pip install --quiet -c constraints.txt -e '.[dev]'
	touch $(INSTALLED)
