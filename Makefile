# `make demo` and `make test` each set everything up by themselves; the rest is for daily work.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
CXX_SOURCES := $(shell find csrc tests -name '*.cpp' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh')
CODE   := engine kernels bench tests examples setup.py

.PHONY: demo test dev bench bench-report lint format types types-links test-gpu test-ptx gpu-check test-kernels test-isas \
        test-portable test-sanitize clean

demo: $(VENV)/.lab  ## train a network in a dozen number systems, and show what each brings and costs
	$(BIN)/ulpgrad study tradeoff --quick

test: $(VENV)/.dev lint types  ## every check: lint, types, tests
	$(BIN)/python -m pytest -n 2 --dist worksteal # of neighbouring tests, which need the same kernels compiled
	@$(MAKE) --no-print-directory test-gpu

dev: $(VENV)/.dev types-links  ## a development environment, with links for type checkers and pre-commit hooks
	@if [ -d .git ]; then $(BIN)/pre-commit install >/dev/null; fi
	@echo "ready: source $(BIN)/activate"

bench:  ## ulpgrad beside torch and NumPy, each op and format, as a page: reports/bench.html
	@$(MAKE) --no-print-directory bench-report VENV=.venv-bench

# In an environment of its own, because torch is in it. PIP_EXTRA_INDEX_URL may name an index with torch for CPUs only, which is
# a tenth of the size. A run that was stopped goes on where it was.
RUN = $(BIN)/ulpgrad bench --quick --peers torch,numpy
bench-report: $(VENV)/.bench
	@mkdir -p reports
	$(RUN) --json reports/bench-ops.json
	$(RUN) matmul,conv2d,softmax,layer_norm,exp,sum --formats bfloat16,float16,float8_e4m3fn,q7.8 \
	  --json reports/bench-formats.json
	$(RUN) matmul --sizes 32,64,128,256,512,1024 --json reports/bench-matmul.json
	$(RUN) softmax,add --sizes 16,128,1024,4096 --json reports/bench-sizes.json
	$(BIN)/ulpgrad bench report reports/bench-ops.json reports/bench-formats.json reports/bench-matmul.json \
	  reports/bench-sizes.json --html reports/bench.html --markdown reports/bench.md --csv reports/bench.csv
	$(BIN)/python -m ulpgrad.bench.suite.browser reports/bench.html reports/pictures

lint: $(VENV)/.dev  ## ruff and clang-format
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/clang-format --dry-run -Werror $(CXX_SOURCES)

format: $(VENV)/.dev  ## rewrite sources in the project's format
	$(BIN)/ruff check --fix $(CODE)
	$(BIN)/ruff format $(CODE)
	$(BIN)/clang-format -i $(CXX_SOURCES)

# Type checkers cannot follow an editable install that maps folders; a folder of links shows them the installed layout.
types-links:
	@rm -rf .types && mkdir -p .types/ulpgrad
	@for f in engine/*; do ln -s ../../$$f .types/ulpgrad/; done
	@ln -s ../../kernels ../../bench .types/ulpgrad/

types: $(VENV)/.dev types-links  ## mypy --strict over the package
	MYPYPATH=.types $(BIN)/mypy -p ulpgrad

TRITON := 3.6.0 3.9.0 # the oldest and the newest that is supported
CUPY := cupy-cuda13x cuda-pathfinder nvidia-cuda-nvrtc nvidia-cuda-runtime # no device is needed to import it, and to compile
# Without a GPU: kernels run in Triton's interpreter and on the host, are compiled for architectures that are not there, and launches
# go to the stub of a driver.
test-gpu: $(TRITON:%=test-triton-%)  ## what can be said of GPU code without a GPU, with the oldest and the newest Triton

# The oldest Triton is asked for one format of each kernel, and for none in CUDA C++, which do not know it. One thread for each
# worker: NumPy's products of small blocks would wait for a second one that the other worker has, three times as long as they take.
ONLY-3.6.0 = -k "(float32 or int32 or launch or driver) and not cuda/cuda- and not _cuda.py and not warpgroup"
# What kernels compile to is executed for some of each kind; `make test-ptx` has the rest.
IN_PTX = bfloat16 and (softmax-cuda or layer_norm-cuda or conv2d-cuda or attention-cuda or attention_gradient or sum-cuda or fused-cuda \
  or matmul-cuda) or mistake or counted
PTX-3.6.0 = tests/gpu/test_kernels.py -k "softmax-cuda/triton-row-float32"
PTX = $(addprefix tests/gpu/test_,kernels.py counted.py warpgroup.py warpgroup_weight.py)
PTX-3.9.0 = $(PTX) -k "$(IN_PTX)"
ARCH-3.6.0 = 90
ARCH-3.9.0 = 80,90
test-triton-%: $(VENV)/.dev build/cupy  # a version by its number
	@[ -d build/triton-$*/triton ] || $(BIN)/python -m pip install -q --no-deps --target build/triton-$* triton==$* || \
	  { rm -rf build/triton-$*; echo "TRITON $* CANNOT BE HAD HERE: what needs it is NOT TESTED"; exit 0; }; \
	echo "Triton $*"; export OPENBLAS_NUM_THREADS=1; \
	export PYTHONPATH=build/triton-$*:build/cupy LD_LIBRARY_PATH=$(CURDIR)/build/cupy/nvidia/cu13/lib; \
	ULPGRAD_CUDA=emulated $(BIN)/python -m pytest -n 2 --dist worksteal tests/gpu $(ONLY-$*) && \
	ULPGRAD_CUDA=compile ULPGRAD_CUDA_ARCH=$(ARCH-$*) $(BIN)/python -m pytest -n 2 --dist worksteal tests/gpu $(ONLY-$*) && \
	ULPGRAD_CUDA=ptx ULPGRAD_CUDA_ARCH=90 $(BIN)/python -m pytest -n 2 --dist worksteal $(PTX-$*) && \
	$(BIN)/python -m pytest -n 2 tests/test_triton_launch.py tests/test_exercises.py -k triton

test-ptx: test-triton-3.9.0  ## what kernels of every rung compile to for sm_90, executed on the host (hours)
	PYTHONPATH=build/triton-3.9.0:build/cupy LD_LIBRARY_PATH=$(CURDIR)/build/cupy/nvidia/cu13/lib ULPGRAD_CUDA=ptx \
	  ULPGRAD_CUDA_ARCH=90 $(BIN)/python -m pytest -n 2 --dist worksteal $(PTX) $(addprefix tests/gpu/test_,conv_codes.py conv_stochastic.py)

build/cupy:
	@$(BIN)/python -m pip install -q --no-deps --target $@ $(CUPY) || { rm -rf $@; mkdir -p $@; \
	  echo "CUPY CANNOT BE HAD HERE: what needs it is NOT TESTED"; }

# As the machine is: on one with a GPU nothing is installed, and the package is found through links.
gpu-check: types-links  ## on a machine with a GPU: all its tests, ours beside cuBLAS, cuDNN and torch, compute-sanitizer: into reports/gpu.json
	@mkdir -p reports
	-$(PYTHON) setup.py -q build_ext --inplace
	PYTHONPATH=.types $(PYTHON) -m ulpgrad.bench.gpu.check --json reports/gpu.json

test-kernels: $(VENV)/.dev  ## only the kernel tests; ULPGRAD_NATIVE and ULPGRAD_ISA choose which, ONLY="softmax" some of them
	$(BIN)/python -m pytest -n 2 tests/test_kernels.py tests/test_threads.py $(if $(ONLY),-k "$(ONLY)")

test-portable: $(VENV)/.dev test-isas  ## the tests without the C++ extension, and the kernel tests on each instruction set
	ULPGRAD_NATIVE=0 $(BIN)/python -m pytest -n 2

# Rungs in Python do the same with and without the extension: `make test` runs them, here it is what was compiled and what is chosen.
test-isas: $(VENV)/.dev  ## the kernel tests on each instruction set below the best one that this machine has
	@for isa in $$($(BIN)/python -c "from ulpgrad.kernels import native; m = native.module(); print(*[n for n in \
	  m.isa_names() if n in {*m.cpu_isas(), *m.cpu_extensions()}][:-1])"); do \
	  echo "ULPGRAD_ISA=$$isa"; ULPGRAD_ISA=$$isa $(MAKE) test-kernels ONLY="native or choice or threads" \
	    || exit 1; done

# First the pool of threads by itself: Python and NumPy are not built for the thread sanitizer.
test-sanitize: $(VENV)/.dev  ## the C++ code under sanitizers: of threads its pool, of addresses and undefined behaviour the kernels
	@rm -rf build/sanitized && mkdir -p build # of files that are gone nothing is left
	$(CXX) -std=c++17 -g -O1 -fsanitize=thread -Icsrc/cpu tests/pool_race.cpp csrc/cpu/threads.cpp -pthread -o build/pool_race
	build/pool_race
	ULPGRAD_SANITIZE=address,undefined $(BIN)/python setup.py -q build_py -d build/sanitized build_ext -b build/sanitized
	PYTHONPATH=build/sanitized ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 \
	  LD_PRELOAD="$$($(CXX) -print-file-name=libasan.so) $$($(CXX) -print-file-name=libstdc++.so)" \
	  $(BIN)/python -m pytest -n 2 tests/test_kernels.py tests/test_native.py -k "native or choice"

clean:  ## remove everything that was built
	rm -rf $(VENV) .venv-bench .types build dist reports *.egg-info engine/*.so

# The environment. Editable, so that sources are used where they stand; C++ is rebuilt when it changes.
$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --upgrade pip "setuptools>=77" "pybind11>=3.0"

SETTING_UP = @echo "setting up: packages, then the C++ kernels are compiled (once; ten minutes on two slow cores)"
$(VENV)/.lab: $(BIN)/python pyproject.toml setup.py $(CXX_SOURCES)
	$(SETTING_UP)
	$(BIN)/python -m pip install -q --no-build-isolation -e '.[lab]'
	@touch $@

# Packages come while kernels are compiled. What failed of either the install tries again, and says why.
NEEDS = import tomllib; p = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
  print(*p["dependencies"], *(n for x in ("lab", "bench") for n in p["optional-dependencies"][x]), sep="\n")
$(VENV)/.bench: $(BIN)/python pyproject.toml setup.py $(CXX_SOURCES)
	@$(BIN)/python setup.py -q build_ext --inplace 2>/dev/null & \
	  $(BIN)/python -c '$(NEEDS)' | $(BIN)/python -m pip install -q -r /dev/stdin; wait
	$(BIN)/python -m pip install -q --no-build-isolation -e '.[lab,bench]'
	@touch $@

$(VENV)/.dev: $(BIN)/python pyproject.toml setup.py $(CXX_SOURCES)
	$(SETTING_UP)
	$(BIN)/python -m pip install -q --no-build-isolation -e '.[lab,test]'
	@if command -v $${CXX:-c++} >/dev/null; then $(BIN)/python setup.py -q build_ext --inplace; fi # here a failure is a failure
	@touch $@ $(VENV)/.lab
