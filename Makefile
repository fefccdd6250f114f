# Everything here needs Python 3.11 or newer and nothing else: no Docker, no Java, no uv.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: help install demo test check bench chaos fuzz lock clean

help:  ## this list
	@sed -nE 's/^([a-z]+):.*## (.*)/  make \1 \t\2/p' $(MAKEFILE_LIST) | expand -t 18

install: $(STAMP)  ## .venv with everything in it; quick when nothing changed

$(STAMP): pyproject.toml constraints.txt tools/install tools/excludes.txt
	@tools/install

demo: $(STAMP)  ## three drifts on a real Kafka: one healed, one refused, one repair taken back
	@$(BIN)/selfheal demo

check: $(STAMP)  ## format, lint, types, import rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Two workers, each with a broker of its own: most tests wait for a broker or a process more than they compute.
test: check  ## check, then every test, on an embedded broker
	env -u KAFKA_BOOTSTRAP_SERVERS SELFHEAL_TEST_BROKER=embedded $(BIN)/pytest -n 2 --dist loadfile

bench: $(STAMP)  ## speed beside a ceiling and beside Quix Streams (which it installs elsewhere)
	$(BIN)/python -m bench

chaos: $(STAMP)  ## 5 seeds of 5 minutes: everything is killed, stopped and fenced, then audited (CHAOS=".." for options)
	@$(BIN)/selfheal chaos --text --seeds 1-5 --minutes 5 --out runs/chaos $(CHAOS)

fuzz: $(STAMP)  ## coverage-guided, every decoder, FUZZ_S seconds each (60); Linux; what crashes is kept in tests/fuzz
	@VIRTUAL_ENV=$$PWD/.venv $(BIN)/uv pip install --quiet -c constraints.txt atheris
	@$(BIN)/python tests/fuzz/all.py $${FUZZ_S:-60}

lock: $(STAMP)  ## constraints.txt anew, from pyproject.toml and what the registry holds today
	@tools/lock

clean:  ## remove what was built here; Kafka's jars stay in the user's cache
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist *.egg-info
