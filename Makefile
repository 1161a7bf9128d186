# make demo     composes data, trains a small QDFormer on it, evaluates it and shows what it sees
# make test     runs the tests
# make lint     checks style, format and types
# make install  sets up .venv, which the three above do by themselves, once
#
# With PYTHON=/path/to/python they run in that environment and install nothing.

ifdef PYTHON
PY := $(PYTHON)
else
PY := .venv/bin/python
READY := .venv/ready
endif

CANDIDATES := python3.11 python3.12 python3.10 python3 python
SUITABLE := import sys, venv, ensurepip; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))
PIP := .venv/bin/python -m pip --disable-pip-version-check install

PYTEST = $(PY) -m pytest --quiet --numprocesses auto --dist loadscope --no-loadscope-reorder

# Threads that wait for each other give way: where anything else runs, spinning costs tenfold.
export OMP_WAIT_POLICY := passive
# What a step gives back stays with the process: else the system hands it out anew, and clears it.
export MALLOC_MMAP_THRESHOLD_ := 33554432
export MALLOC_TRIM_THRESHOLD_ := 4000000000
export PYTHONPATH := $(CURDIR)$(if $(PYTHONPATH),:$(PYTHONPATH))

.PHONY: demo test coverage lint install

demo: $(READY)
	@$(PY) qdformer/dependencies.py
	@$(PY) projects/QDFormer/quickstart.py

test coverage: export OMP_NUM_THREADS := 1
test: $(READY)
	@$(PY) qdformer/dependencies.py pytest hypothesis pytest-xdist
	@$(PYTEST) tests

coverage: $(READY)
	@$(PY) qdformer/dependencies.py pytest hypothesis pytest-xdist pytest-cov
	@$(PYTEST) --cov qdformer --cov-report term:skip-covered tests

lint: $(READY)
	@$(PY) qdformer/dependencies.py ruff mypy
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy

install: $(READY)

# A finished setup leaves the stamp; one that was interrupted is taken up where it stopped.
.venv/ready: requirements.lock install/detectron2_wheel.py
	@.venv/bin/python -m pip --version >/dev/null 2>&1 || { python=; \
	  for name in $(CANDIDATES); do \
	    "$$name" -c '$(SUITABLE)' >/dev/null 2>&1 && python=$$name && break; \
	  done; \
	  test -n "$$python" || { \
	    echo "QDFormer found no Python 3.10, 3.11 or 3.12 with venv on the PATH: install one (Debian" \
	      "and Ubuntu: apt install python3-venv) or give your own with PYTHON=/path/to/python." >&2; \
	    exit 1; }; \
	  echo "Setup 1/4: making .venv with $$("$$python" --version)"; \
	  "$$python" -m venv --clear .venv; }
	@echo "Setup 2/4: installing the packages of requirements.lock (3 GB to download, 6 GB on disk)"
	@$(PIP) --quiet --constraint requirements.lock setuptools
	@$(PIP) --use-pep517 --no-build-isolation --requirement requirements.lock
	@echo "Setup 3/4: installing Detectron2 0.6 as pure Python"
	@.venv/bin/python install/detectron2_wheel.py
	@echo "Setup 4/4: linking this checkout into .venv"
	@$(PIP) --quiet --no-build-isolation --no-deps --editable .
	@touch $@
