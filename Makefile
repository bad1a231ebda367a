# chainrule: `make demo` trains a network through the whole service, `make test` runs the tests.
# Each target makes what it needs in .venv; nothing but python3 (3.11 or newer) and make has to be there.

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: help demo test chaos lint protos client docs clean
.DEFAULT_GOAL := help

help:  ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/'

demo: .venv/server.installed  ## train a network on handwritten digits through the whole service
	@$(BIN)/chainrule demo

test: .venv/dev.installed  ## run the tests
	$(BIN)/python -m pytest -q -n 2 --dist loadgroup

# SEED makes the random schedules those of another run; DURATION is how many seconds they are played for at least.
chaos: .venv/dev.installed  ## kill, halt and scale real jobs, at random too (SEED=..., DURATION=... seconds)
	$(BIN)/python -m pytest -q tests/chaos -m "whole or not whole"
	$(BIN)/python -m pytest -q tests/integration tests/server -m whole
	$(BIN)/python -m tests.chaos --duration $(or $(DURATION),120) $(if $(SEED),--seed $(SEED))

lint: .venv/dev.installed  ## check format, style, types, layers and protos
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python client/derive.py --check
	$(BIN)/buf lint
	$(BIN)/buf format --diff --exit-code
	$(BIN)/buf breaking --against protos/baseline.binpb

protos: .venv/dev.installed  ## regenerate the Python stubs of protos/
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m grpc_tools.protoc -Iprotos --python_out=protos \
		--grpc_python_out=protos --mypy_out=quiet:protos --mypy_grpc_out=quiet:protos protos/chainrule/v1/*.proto

client: .venv/dev.installed  ## derive the client for threads from the one for asyncio
	@$(BIN)/python client/derive.py

docs: .venv/dev.installed  ## write docs/api.md from the comments of protos/, and the operators in docs/onnx.md
	PYTHONPATH=. $(BIN)/python tools/api_reference.py
	PYTHONPATH=. $(BIN)/python tools/operator_table.py

clean:  ## remove what the other targets made
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .demo dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/bin/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else \
		f"chainrule needs Python 3.11 or newer; {sys.executable} is {v[0]}.{v[1]}. Try: make PYTHON=python3.11 ...")'
	@echo "making .venv ..."
	@$(PYTHON) -m venv .venv

# A stamp per set of extras: installed once, and again when what it depends on has changed.
.venv/server.installed: pyproject.toml constraints.txt | .venv/bin/python
	@echo "installing chainrule and what its server needs ..."
	@$(PIP) -e '.[server]'
	@touch $@

.venv/dev.installed: pyproject.toml constraints.txt | .venv/bin/python
	@echo "installing chainrule and what its tests need ..."
	@$(PIP) -e '.[server,dev]'
	@touch $@ .venv/server.installed
