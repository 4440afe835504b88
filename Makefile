# Everything a newcomer types: make demo, make test.

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
POSTGRES := /usr/lib/postgresql/15/bin/initdb /usr/share/postgresql/15/extension/postgis.control

.PHONY: demo test services postgres chromium lint notebooks wheel bench clean

demo: $(INSTALLED)  ## the whole chain on the embedded region, into demo-output/
	$(BIN)/mdico demo demo-output --resume

# A process per processor, a thread in each; the tests of a file share one process and what they build.
test: $(INSTALLED)  ## the test suite
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --dist loadfile -m "not network and not services and not notebook"

services: $(INSTALLED) .services/.installed chromium  ## tests on servers and a browser that pip does not install (Debian, as root)
	MDICO_SERVICES=$(CURDIR)/.services $(BIN)/python -m pytest -m services

lint: $(INSTALLED)  ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

notebooks: $(INSTALLED)  ## run every notebook from top to bottom
	$(BIN)/python -m pytest -m notebook

wheel: $(INSTALLED)  ## build a wheel, install it into a fresh environment beside the pinned packages, run the demo from it
	rm -rf .wheel && mkdir -p .wheel/empty
	$(BIN)/pip wheel --quiet --no-deps --no-build-isolation --wheel-dir .wheel .
	$(PYTHON) -m venv --without-pip .wheel/env
	$(BIN)/python -c "import sysconfig; print(sysconfig.get_paths()['purelib'])" > $$(ls -d .wheel/env/lib/python*/site-packages)/pins.pth
	$(BIN)/pip --quiet --python .wheel/env/bin/python install --no-deps .wheel/*.whl
	cd .wheel/empty && ../env/bin/mdico demo
	rm -rf .wheel

bench: $(INSTALLED)  ## time and memory of every stage
	$(BIN)/python benchmarks/bench_journey.py

clean:
	rm -rf .venv .services .wheel demo-output build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis

# torch first and from the pins: an unpinned one brings gigabytes that a laptop does not need.
$(INSTALLED): constraints.txt pyproject.toml
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'mdico-cube needs Python 3.11 or newer: make PYTHON=python3.12')"
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet -c constraints.txt torch
	$(BIN)/pip install --quiet -c constraints.txt -e '.[dev]'
	touch $(INSTALLED)

# A database with PostGIS from Debian, whose own cluster is not wanted, and a complete STAC API apart from our packages.
.services/.installed:
	ls $(POSTGRES) >/dev/null 2>&1 || $(MAKE) postgres
	$(PYTHON) -m venv .services
	.services/bin/pip install --quiet stac-fastapi.pgstac==7.2.0 'pypgstac[psycopg]==0.10.0' uvicorn
	touch $@

chromium:
	command -v chromium >/dev/null || { apt-get update -qq && \
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core; }

postgres:
	apt-get update -qq
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends postgresql-15 postgresql-15-postgis-3
	pg_ctlcluster 15 main stop 2>/dev/null || true
