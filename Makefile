# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
BIN := .venv/bin
# In two processes; the tests of one file share their fixtures.
PYTEST := $(BIN)/python -m pytest -q -n 2 --dist=loadfile

.PHONY: demo test test-slow test-backends test-pythons lint docs release setup environments clean

demo: setup
	$(BIN)/python demo.py

test: setup environments
	$(PYTEST) -m "not slow"

# What takes minutes; CI runs it too. `make docs` and `make release` run what is left out.
test-slow: setup environments
	$(PYTEST) -m slow --ignore=tests/test_site.py --ignore=tests/test_wheel.py

# The zoo on the other backends of Keras. PyPI's torch for Linux brings CUDA: on a
# machine without a GPU, install the CPU build first (see pyproject.toml). Then what
# `make test` left out because they were missing.
ZOO_TESTS := $(filter-out tests/zoo/test_backends.py tests/zoo/test_download.py,\
  $(wildcard tests/zoo/test_*.py))
NEED_BACKENDS := tests/zoo $(addprefix tests/training/test_,api.py finetune_benchmark.py\
  gpu_pretrain.py)
WITH_BACKENDS := jax or torch or another_backend or finetune_benchmark or gpu_pretrain
test-backends: setup
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[backends]"
	KERAS_BACKEND=jax $(PYTEST) -m "not slow" $(ZOO_TESTS)
	KERAS_BACKEND=torch $(PYTEST) -m "not slow" $(ZOO_TESTS)
	$(PYTEST) -m "not slow" -k "$(WITH_BACKENDS)" $(NEED_BACKENDS)

# The zoo on CPython 3.10 to 3.13 with the lowest and the newest Keras, on JAX and
# without TensorFlow, and the runner on CPython 3.7 to 3.13. Each Python must be on the
# path or in ~/.pyenv; CI does not run it.
test-pythons: setup
	$(BIN)/python -m tests.helpers.pythons
	EVERY_PYTHON=1 $(BIN)/python -m pytest -q -rs -m slow tests/runner/test_pythons.py

lint: setup
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/python -m mypy

# The documentation site, in build/site. A warning is an error.
docs: setup
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet docs build/site
	$(PYTEST) -m "" tests/test_site.py

# Builds what PyPI would get from the last commit, checks it and uploads nothing.
release: setup
	$(BIN)/python -m pip install --quiet --disable-pip-version-check build twine
	rm -rf build/release dist
	mkdir -p build/release
	git archive HEAD | tar -x -C build/release
	$(BIN)/python -m build --outdir dist build/release
	$(BIN)/python -m twine check --strict dist/*
	DIST=$(CURDIR)/dist $(PYTEST) -m "" tests/test_wheel.py tests/test_release.py
	@echo "dist/ is checked. Nothing was uploaded."

# What the tests run that cannot be installed beside TensorFlow, in folders of its own.
environments: setup
	$(BIN)/python -m tests.helpers.environments

setup: .venv/installed

.venv/installed: pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; \
	  sys.exit(0 if (3, 10) <= v < (3, 14) else "error: TensorFlow 2.21 needs \
	Python 3.10 to 3.13. Received: %d.%d. Try: make PYTHON=python3.12" % v[:2])'
	$(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	  -e ".[train,edge,vela,micro,dev,docs]"
	touch $@

clean:
	rm -rf .venv* build dist *.egg-info
