# One word for each thing one does with this repository; `make` alone lists them. Everything is installed into $(VENV), which is
# made here and touched by nothing else; its stamp files make a second run quick. How CI calls these is in .ci/run.

PYTHON ?= python3
VENV ?= .venv
OUT ?= softplex-demo
WORKERS ?= 2
PYTEST_ARGS ?=
NATIVE_PYTHON ?= $(BIN)/python
SANITIZE ?= address,undefined

BIN := $(VENV)/bin
PIP := PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt \
    $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile
NATIVE_NEEDS := $(if $(filter $(BIN)/python,$(NATIVE_PYTHON)),$(VENV)/.dev)
STRICTLY := --config-settings=cmake.define.SOFTPLEX_WARNINGS_AS_ERRORS=ON
SANITIZER_LIBRARIES := $(if $(findstring thread,$(SANITIZE)),libtsan.so,libasan.so libubsan.so) libstdc++.so
BUILD := pyproject.toml constraints.txt CMakeLists.txt $(wildcard packaging/*.py)
KERNELS := $(wildcard src/softplex/native/cpu/*)
# The cache forgets the Python that it was made for.
CONFIGURE = cmake -S . -U '*Python*' -U '*nanobind*' -U 'NB_*' -DCMAKE_BUILD_TYPE=Release \
    -DPython_EXECUTABLE="$$($(1) -c 'import sys; print(sys.executable)')"
COMPILE = $(CONFIGURE) -B build/native && \
    cmake --build build/native --parallel $(WORKERS) && cmake --install build/native --prefix src
comma := ,
SANITIZED := build/sanitize-$(firstword $(subst $(comma), ,$(SANITIZE)))
SANITIZED_TESTS := $(if $(findstring thread,$(SANITIZE)),tests/test_native.py -k threads,tests/test_native.py tests/test_native_tempered.py tests/test_native_tensors.py tests/test_edges.py)

# Where there is a compiler, the tests want the kernels.
SOFTPLEX_REQUIRE_NATIVE ?= $(if $(shell command -v c++ || command -v $(CXX)),1,0)

.DEFAULT_GOAL := help
# Targets run one after another, but for those that are asked for with AT_ONCE=1, which do not touch each other's files.
ifndef AT_ONCE
.NOTPARALLEL:
endif
.PHONY: help demo test lint format types docs-check check native sanitize clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "make %-12s %s\n", $$1, $$2}' Makefile

demo: $(VENV)/.demo  ## train on handwritten digits under three losses; pictures into OUT=softplex-demo
	$(BIN)/softplex demo --out "$(OUT)"

# Two workers share two cores: threads that wait for work are not to spin.
test: $(VENV)/.dev  ## run the tests (PYTEST_ARGS="-k name" for some of them)
	OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m pytest -n $(WORKERS) $(PYTEST_ARGS)

lint: $(VENV)/.dev  ## check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.dev  ## repair what the formatter and the linter can repair
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(VENV)/.dev  ## check the types of the package
	$(BIN)/mypy

docs-check: $(VENV)/.dev  ## run the examples of the README and of the docstrings
	$(BIN)/python -m pytest -n $(WORKERS) --doctest-modules src/softplex tests/test_docs.py

check: test lint types docs-check  ## all that CI checks

native: $(NATIVE_NEEDS)  ## compile the kernels that changed, beside the sources (NATIVE_PYTHON=/other/python for another environment)
	$(if $(NATIVE_NEEDS),,$(call COMPILE,$(NATIVE_PYTHON)))

# The team of threads and the handler for XLA alone, then the kernels. The package is copied, and the environment read by the
# interpreter that it was made from: no editable install gets in the way of the extension under test. C++ exceptions are seen only where libstdc++ is
# loaded with the sanitizers. NumPy and Python are not compiled for the thread sanitizer, which is told so.
sanitize: $(NATIVE_NEEDS)  ## run the kernels' tests under sanitizers (SANITIZE=thread for the other one)
	$(call CONFIGURE,$(NATIVE_PYTHON)) -B $(SANITIZED) -DSOFTPLEX_SANITIZE="$(SANITIZE)"
	cmake --build $(SANITIZED) --parallel $(WORKERS)
	$(SANITIZED)/threads_test
	$(SANITIZED)/xla_test
	rm -rf $(SANITIZED)/site && mkdir -p $(SANITIZED)/site
	cp -R src/softplex $(SANITIZED)/site && rm -f $(SANITIZED)/site/softplex/native/*.so
	cmake --install $(SANITIZED) --prefix $(SANITIZED)/site
	LD_PRELOAD="$(foreach name,$(SANITIZER_LIBRARIES),$(shell $(CXX) -print-file-name=$(name)))" \
	ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 TSAN_OPTIONS="halt_on_error=1 ignore_noninstrumented_modules=1" \
	PYTHONDONTWRITEBYTECODE=1 \
	PYTHONPATH="$(SANITIZED)/site:$$($(NATIVE_PYTHON) -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" \
	    "$$($(NATIVE_PYTHON) -c 'import sys; print(sys._base_executable)')" \
	    -m pytest -p no:cacheprovider $(SANITIZED_TESTS) $(PYTEST_ARGS)

clean:  ## remove the environment and everything that was made
	rm -rf "$(VENV)" build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	rm -f src/softplex/native/*.so
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "make: $(PYTHON) is not Python 3.11 or newer; name one that is: make PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv --clear "$(VENV)"
	@touch $@

$(VENV)/.demo: $(VENV)/.python $(BUILD) $(KERNELS)
	$(PIP) --editable '.[demo]'
	@touch $@

# The test environment, which holds all that the demo needs: packages are fetched while pip compiles the kernels.
$(VENV)/.packages: $(VENV)/.python $(BUILD)
	@$(MAKE) --no-print-directory --jobs=2 AT_ONCE=1 $(VENV)/.softplex $(VENV)/.requirements
	@touch $(VENV)/.demo $@

$(VENV)/.softplex: $(VENV)/.python $(BUILD)
	SOFTPLEX_REQUIRE_NATIVE=$(SOFTPLEX_REQUIRE_NATIVE) $(PIP) $(STRICTLY) --no-deps --editable .
	@touch $@

$(VENV)/.requirements: $(VENV)/.python $(BUILD)
	$(BIN)/python packaging/requirements.py dev > $(VENV)/requirements.txt
	$(PIP) --requirement $(VENV)/requirements.txt
	@touch $@

# Kernels that changed since pip compiled all are compiled here.
$(VENV)/.dev: $(VENV)/.packages $(KERNELS)
	@[ "$(SOFTPLEX_REQUIRE_NATIVE)" = 0 ] || [ -z "$$(find $(KERNELS) -newer $(VENV)/.softplex)" ] || { $(call COMPILE,$(BIN)/python); }
	@touch $(VENV)/.demo $@
