# make demo          make videos, train on them, retrieve: what cacl does, in a few minutes on a CPU
# make check         what to run before a push: lint, and the quick tests of every folder
# make test          all tests
# make test-lowest   the same with the lowest versions that pyproject.toml allows, in an environment of its own
# make lint          ruff and pyright
# make docs          the site, in build/site; a warning fails it
# make browser       the shell of Debian's Chromium, in which the tests open pages; where it is missing, this needs root
# make venv          the environment in .venv with cacl and what it needs; enough for the demonstration
# make tools         the same with what its developers need; the targets above make what is missing

PYTHON ?= python3
BROWSER = chromium-headless-shell
BIN := .venv/bin
INSTALLED := .venv/.installed
READY := .venv/.ready
# One thread for each of the two processes.
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

# As the command line sets it: the tests share their cores with other work, too.
export OMP_WAIT_POLICY ?= PASSIVE
# Images for containers often set it. As no file is compiled at installation, each process would then compile torch and
# all else anew, which takes longer than what most of the tests do.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo check test quick-tests all-tests interpreted-tests test-lowest lint docs browser venv tools clean

demo: $(INSTALLED)
	$(BIN)/cacl data synth demo/videos --train 16 --test 4
	$(BIN)/cacl train --config demo --resume
	$(BIN)/cacl eval retrieval demo/run --label appearance --label motion

# Two at a time; each shows what it printed when it is done.
check: $(READY)
	$(MAKE) --jobs 2 --output-sync --keep-going lint quick-tests

test: $(READY)
	$(MAKE) --keep-going all-tests interpreted-tests

quick-tests: $(READY)
	$(PYTEST) -m "not slow and not distributed"

all-tests: $(READY)
	$(PYTEST)

interpreted-tests: $(READY)
	TRITON_INTERPRET=1 $(PYTEST) tests/kernels/triton

test-lowest:
	$(MAKE) test BIN=.venv-lowest/bin READY=.venv-lowest/.ready

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

docs: $(READY)
	$(BIN)/sphinx-build --quiet --fresh-env --fail-on-warning --keep-going -c docs -d build/doctrees . build/site
	@echo build/site/index.html

browser:
	@command -v $(BROWSER) || \
		{ apt-get update --quiet=2 && apt-get install --quiet=2 --no-install-recommends --yes $(BROWSER); }

venv: $(INSTALLED)

tools: $(READY)

.venv/.ready .venv/.installed: CONSTRAINTS = constraints.txt
.venv-lowest/.ready .venv-lowest/.installed: CONSTRAINTS = constraints-lowest.txt
# uv installs in a third of pip's time. It does not read pip's configuration; where it finds no way, pip may.
# Neither compiles anything: Python compiles a file when it is first imported, and most files here never are.
INSTALL = $(@D)/bin/uv pip install --quiet --python $(@D)/bin/python $(1) || \
	$(@D)/bin/python -m pip install --quiet --no-compile $(1)

.venv/.installed: constraints.txt
.venv-lowest/.installed: constraints-lowest.txt
.venv/.installed .venv-lowest/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "cacl needs Python 3.11 or newer; say make PYTHON=python3.11 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --no-compile uv
	$(call INSTALL,--constraint $(CONSTRAINTS) --editable .)
	@touch $@

.venv/.ready .venv-lowest/.ready: %/.ready: %/.installed
	$(call INSTALL,--constraint $(CONSTRAINTS) --editable '.[dev]')
	@touch $@

clean:
	rm -rf demo build dist .pytest_cache .ruff_cache
