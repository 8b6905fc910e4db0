# Needs: Python >= 3.11 with headers and venv, a C compiler, make. Everything else comes into .venv.

PYTHON ?= python3
VENV := $(CURDIR)/.venv
PY := $(VENV)/bin/python
STAMPS := $(VENV)/stamps
TRACED := build/traced

SOURCES := $(wildcard eraft/_core/*.pyx eraft/_core/*.pxd eraft/_core/*.h) setup.py

.PHONY: help build demo test sim soak mutations chaos coverage bench bench-redis bench-memory lint format dist clean

help:
	@echo "make build        .venv with eraft, its compiled modules and the development tools"
	@echo "make demo         a real cluster of 3 nodes, killed and restarted, each step checked"
	@echo "make test         the whole test suite (ARGS='-k name' for a part)"
	@echo "make chaos        real faults on real processes, and figures; long, needs root (ARGS='run --seconds 60')"
	@echo "make sim          SEEDS=1000 simulated clusters in random trouble, on all cores (FIRST=1)"
	@echo "make soak         the same for MINUTES=60 from a new seed on; keeps the seeds that failed"
	@echo "make mutations    does the simulator find the planted bugs? notes it in docs/testing.md; long"
	@echo "make coverage     line coverage of .py and .pyx: $(TRACED)/htmlcov and a total"
	@echo "make bench        compiled against pure Python, per hot path"
	@echo "make bench-redis  eraft against Redis on this machine"
	@echo "make bench-memory what a node takes idle, and its memory over 10 minutes of load"
	@echo "make lint         ruff, mypy, cython-lint"
	@echo "make format       ruff format"
	@echo "make clean        removes what was built, .venv too"

build: $(STAMPS)/compiled

$(STAMPS)/tools: requirements-dev.lock
	@$(PYTHON) -c 'import sys; sys.exit("make: $(PYTHON) is " + sys.version.split()[0] + ", eraft needs 3.11 or newer (set PYTHON=...)" if sys.version_info < (3, 11) else 0)'
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements-dev.lock
	mkdir -p $(STAMPS) && touch $@

$(STAMPS)/installed: $(STAMPS)/tools pyproject.toml
	$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

$(STAMPS)/compiled: $(STAMPS)/installed $(SOURCES)
	$(PY) setup.py --quiet build_ext --inplace
	touch $@

demo: build
	$(VENV)/bin/eraft demo $(ARGS)

# The tests of whole processes mostly wait for elections: the others run beside them meanwhile.
PROCESS_TESTS := tests/chaos tests/cli tests/cluster tests/examples tests/host
ifdef ARGS
test: build
	$(PY) -m pytest $(ARGS)
else
test: build
	mkdir -p build
	$(PY) -m pytest -p no:cacheprovider $(PROCESS_TESTS) > build/process-tests.txt 2>&1 & \
	processes=$$!; \
	$(PY) -m pytest $(PROCESS_TESTS:%=--ignore=%); status=$$?; \
	wait $$processes; others=$$?; \
	cat build/process-tests.txt; exit $$(( status | others ))
endif

chaos: build
	$(PY) -m tests.chaos $(or $(ARGS),all)

SEEDS ?= 1000
FIRST ?= 1
sim: build
	$(PY) -m tests.sim --seed $(FIRST) --seeds $(SEEDS) $(ARGS)

MINUTES ?= 60
soak: build
	$(PY) -m tests.sim --seed $$(date +%s)000 --minutes $(MINUTES) --keep soak-failed.txt $(ARGS)

mutations: build
	$(PY) -m tests.sim.mutate $(ARGS)

# A copy of the tree is built with line tracing, so that the normal build never is.
coverage: build
	rm -rf $(TRACED) && mkdir -p $(TRACED)
	tar --exclude='*.so' --exclude='*.c' --exclude=__pycache__ -cf - \
		docs eraft examples tests bench setup.py pyproject.toml README.md LICENSE | tar -xf - -C $(TRACED)
	cd $(TRACED) && ERAFT_TRACE=1 $(PY) setup.py --quiet build_ext --inplace
	cd $(TRACED) && export PYTHONPATH=$(CURDIR)/$(TRACED) && \
		$(PY) -m coverage run -m pytest $(ARGS); status=$$?; \
		$(PY) -m coverage combine --quiet && $(PY) -m coverage html --quiet && \
		$(PY) -m coverage report && exit $$status

bench: build
	$(PY) -m bench $(ARGS)

bench-redis: build
	$(PY) -m bench.redis $(ARGS)

bench-memory: build
	$(PY) -m bench.memory $(ARGS)

lint: build
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy --strict eraft examples
	PATH="$(VENV)/bin:$$PATH" cython-lint eraft/_core

format: build
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

dist: build
	rm -rf dist
	$(PY) -m build --no-isolation --outdir dist .

clean:
	rm -rf build dist *.egg-info .venv htmlcov .coverage* .mypy_cache .ruff_cache .pytest_cache
	rm -f eraft/_core/*.so eraft/_core/*.c eraft/_core/*.html
	find eraft tests bench -name __pycache__ -type d -prune -exec rm -rf {} +
