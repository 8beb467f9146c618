# The commands of this project. Each works a second time; none needs a file outside the clone.
SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
APT := mosquitto mosquitto-clients python3-venv openssl strace faketime libmodbus-dev gcc

.PHONY: setup check test fault demo bench lock

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml requirements-dev.txt
	@bash deploy/setup-apt.sh $(APT)
	test -x $(BIN)/python || python3 -m venv $(VENV)
	$(BIN)/pip install -q --disable-pip-version-check -r requirements-dev.txt
	$(BIN)/pip install -q --disable-pip-version-check --no-deps -e .
	touch $@

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: setup
	$(BIN)/pytest -m "not slow and not bench"

# Pins with versions only: no download addresses.
lock: setup
	$(BIN)/pip-compile -q --extra dev --strip-extras --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --no-emit-options --no-header --no-annotate -o requirements-dev.txt pyproject.toml
