# `make train` and `make test` each need only Python >= 3.10, make and a C++ compiler: they make
# .venv, install what they use and do their job. ARGS goes to the program: make train ARGS="--seed 1"
PYTHON ?= python3
BIN := .venv/bin
CXX_FILES = $(shell find kernels -name '*.cu' -o -name '*.cuh' -o -name '*.cpp' -o -name '*.h')

# The CuPy extra that matches the NVIDIA driver, if one answers (GPU= or GPU=cuda12x overrules).
# Newer nvidia-smi call it "CUDA UMD Version"; drivers run programs of any older CUDA.
GPU = $(shell nvidia-smi 2>/dev/null | sed -n \
    -e 's/.*CUDA \(UMD \)*Version: *12.*/cuda12x/p' \
    -e 's/.*CUDA \(UMD \)*Version: *\(1[3-9]\|[2-9][0-9]\).*/cuda13x/p')

# MNIST beside the checkout, unless the caller says where it is.
ifeq ($(origin MNIST_DIR),undefined)
ifneq ($(wildcard ../shared/data/mnist),)
export MNIST_DIR := $(abspath ../shared/data/mnist)
endif
endif

# Tests start some hundred Pythons, which would compile the same modules again.
unexport PYTHONDONTWRITEBYTECODE

# The whole suite runs in a process per core; see tests/conftest.py. One that hangs is ended after
# the time that pyproject.toml gives a test, and its test fails.
WORKERS := --numprocesses=auto --dist=worksteal --benchmark-disable -o faulthandler_exit_on_timeout=true

.PHONY: help train test test-all cells imports resources sanitize gpu profile profile-naive bench \
    start report bench-compare dist check format clean
.NOTPARALLEL:
.DELETE_ON_ERROR:

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

train: .venv/train  ## train the speedrun network on MNIST
	@$(BIN)/python -m cnn train --recipe speedrun $(ARGS)

test: .venv/test  ## run the tests
	@$(BIN)/python -m pytest $(WORKERS) $(ARGS)

test-all: .venv/test-all  ## run the slow tests too: soak, kills, a page in Chromium; CuPy's own tests
	@$(BIN)/python -m pytest $(WORKERS) -m "slow or not slow" $(ARGS)
	@$(BIN)/python -m tests.gpu.cupy_suite

cells: .venv/test  ## run the tests and write the table of what they cover
	@$(BIN)/python -m pytest $(WORKERS) --write-cells

imports: .venv/test  ## draw the picture of what imports what, tests/imports.svg
	@$(BIN)/python -m tests.lib.import_picture

resources: .venv/test  ## write the table of the kernels' registers and memory on each GPU
	@$(BIN)/python -m tests.lib.kernel_resources

sanitize: .venv/test  ## run the kernel tests with the compiler's sanitizers
	@$(BIN)/python -m tests.sanitizers.sanitize

# GPU_PYTHON=python3 names an interpreter that has the packages: then nothing is installed.
# REHEARSE=h100 goes through all of it on the emulated GPU.
gpu: $(if $(GPU_PYTHON),,.venv/test)  ## try everything on a GPU within 8 minutes
	@PYTHONPATH="$(CURDIR):$$PYTHONPATH" $(or $(GPU_PYTHON),$(BIN)/python) -m tests.gpu_lane \
	    $(if $(RESULTS),--results $(RESULTS)) $(if $(COMMIT),--commit $(COMMIT)) \
	    $(if $(REHEARSE),--rehearse $(REHEARSE))

profile: .venv/test  ## count what kernels do on four emulated GPUs, to bench/results
	@$(BIN)/python -m tests.gpu.profile $(ARGS)

profile-naive: .venv/test  ## count what kernels and naive CuPy do on an emulated GPU
	@$(BIN)/python -m tests.gpu.profile_naive $(ARGS)

# With ARGS="-k 'conv2d and ResNet'" it times some rows, and writes nothing.
bench: .venv/bench  ## time all beside their peers, within 20 minutes, to bench/results
	@mkdir -p .benchmarks
	@$(BIN)/python -m pytest bench --benchmark-quiet $(or $(ARGS),--benchmark-json=.benchmarks/raw.json)
	@$(if $(ARGS),,$(BIN)/python -m bench.report.condense .benchmarks/raw.json)

start: .venv/bench .venv/test  ## time `make train` and `make test` with empty caches
	@$(BIN)/python -m bench.networks.start --rounds 5 --suite 1

report: .venv/bench  ## write the tables and figures of the READMEs from bench/results
	@$(BIN)/python -m bench.report.tables

bench-compare: .venv/bench  ## time the kernels beside a commit's: BASE=main, ROWS="conv2d"
	@$(BIN)/python -m bench.kernels.compare "$(BASE)" "$(ROWS)"

dist: .venv/dist  ## build the source package and the wheel, to dist/
	@$(BIN)/python -m build --quiet

check: .venv/check  ## formatter, linter and types, as CI runs them
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy kernels cnn
	$(BIN)/clang-format --dry-run --Werror $(CXX_FILES)

format: .venv/check  ## format all sources in place
	$(BIN)/ruff check --fix --exit-zero .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(CXX_FILES)

clean:  ## remove .venv, caches and builds
	rm -rf .venv build dist *.egg-info .benchmarks .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -prune -exec rm -rf {} +

# A stamp per set of packages, out of date when pyproject.toml changes.
.venv/train: EXTRAS = $(GPU)
.venv/test: EXTRAS = test$(addprefix -,$(GPU))
.venv/test-all: EXTRAS = test$(addprefix -,$(GPU)),browser
.venv/bench: EXTRAS = bench$(addprefix -,$(GPU))
.venv/check: EXTRAS = check
.venv/train .venv/test .venv/test-all .venv/bench .venv/check: pyproject.toml | $(BIN)/python
	@extras='$(EXTRAS)'; echo "Installing cnn-kernels$${extras:+[$$extras]} in .venv"; \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	    --editable ".$${extras:+[$$extras]}"
	@touch $@

# Building needs no package of the project's.
.venv/dist: | $(BIN)/python
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check 'build>=1.6'
	@touch $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || { \
	    echo '$(PYTHON) is not Python 3.10 or newer: name one that is with PYTHON=...' >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	    echo '$(PYTHON) has no venv module: install it (Debian: apt install python3-venv)' >&2; exit 1; }
	@$(PYTHON) -m venv .venv
