# `make demo` and `make test` work as the first command on a machine with Python 3.11+ and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test test-long bench lint fmt protos docs verify setup clean

setup: $(STAMP)

$(STAMP): pyproject.toml requirements.txt
	$(PYTHON) -c 'import sys; sys.exit("Kintsugi needs Python 3.11 or newer, this is " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

demo: $(STAMP)
	$(BIN)/kintsugi demo

# Two at a time: most tests wait for processes that they have started. Those of one file stay together.
test: $(STAMP)
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

test-long: $(STAMP)
	$(BIN)/python -m pytest --long

bench: $(STAMP)
	$(BIN)/python -m bench

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

fmt: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

protos: $(STAMP)
	$(BIN)/python scripts/gen_protos.py

docs: $(STAMP)
	for script in api_reference settings_tables state_diagrams telemetry_tables; do $(BIN)/python scripts/$$script.py || exit 1; done

verify: $(STAMP)
	$(BIN)/python scripts/gen_protos.py --check
	$(BIN)/python scripts/state_diagrams.py --check
	$(BIN)/python scripts/settings_tables.py --check
	$(BIN)/python scripts/api_reference.py --check
	$(BIN)/python scripts/telemetry_tables.py --check

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache
