# Everything a user or contributor runs. Each target does its own set-up.
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help demo test test-long check format bench bench-store bench-web screenshots lock clean

help:
	@echo "make demo       the simulated plant and its twin, live (SECONDS=30 to end by itself)"
	@echo "make test       set up and run the tests"
	@echo "make test-long  the slow ones: large data, soaks"
	@echo "make check      ruff, mypy, import layers, docs"
	@echo "make screenshots  picture the pages of a running demo for README and docs"
	@echo "make bench      print the figures the documentation quotes"
	@echo "make bench-store  a day of 1,000 tags beside DuckDB, SQLite and InfluxDB (POINTS=, PEER_POINTS=)"
	@echo "make bench-web  pages of 1,000 tags at 10 Hz: CPU, the cycle beside slow pages, frames per second"

demo: $(VENV)/.core
	$(BIN)/twinloop demo $(if $(SECONDS),--seconds $(SECONDS))

test: $(VENV)/.dev
	sh scripts/services.sh $(VENV)
	$(BIN)/python -m compileall -q src tests
	$(BIN)/python scripts/compile.py
	$(BIN)/python -m pytest -m "not long" -n logical --maxprocesses 4 --dist loadfile

test-long: $(VENV)/.dev
	sh scripts/services.sh $(VENV)
	$(BIN)/python scripts/compile.py
	$(BIN)/python -m pytest -m long --timeout 3600

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q tests/test_docs.py

format: $(VENV)/.dev
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

bench: $(VENV)/.dev
	sh scripts/services.sh $(VENV)
	@for each in plant log checkpoint kalman validate integrate store influx opcua_source mqtt_clients; do \
	    echo; echo "== benchmarks/$$each.py"; $(BIN)/python benchmarks/$$each.py || exit 1; \
	done

bench-store: $(VENV)/.dev
	sh scripts/services.sh $(VENV)
	$(BIN)/python benchmarks/store.py --points $(or $(POINTS),86400000) --peer-points $(or $(PEER_POINTS),8640000)

bench-web: $(VENV)/.dev
	sh scripts/services.sh $(VENV)
	$(BIN)/python benchmarks/web.py

screenshots: $(VENV)/.dev
	sh scripts/services.sh $(VENV)
	PYTHONPATH=tests $(BIN)/python scripts/screenshots.py docs/screens

# The locks carry hashes and no registry's address.
lock: $(VENV)/.dev
	$(BIN)/uv pip compile -q --universal --generate-hashes --no-emit-index-url --python-version 3.11 \
	    --all-extras pyproject.toml -o requirements.lock
	$(BIN)/uv pip compile -q --universal --generate-hashes --no-emit-index-url --python-version 3.11 \
	    --all-extras --group dev -c requirements.lock pyproject.toml -o requirements-dev.lock

$(VENV)/.core: requirements.lock pyproject.toml
	sh scripts/setup.sh $(VENV) requirements.lock
	touch $@

$(VENV)/.dev: requirements-dev.lock pyproject.toml
	sh scripts/setup.sh $(VENV) requirements-dev.lock
	touch $@ $(VENV)/.core

clean:
	rm -rf $(VENV) .services .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
