# Needs only Python 3.11 or newer, make, and a package index that pip can reach (pip's own settings are honoured).
# Every target does its own set-up in .venv; the stamp files there make a second call install nothing.

PYTHON ?= python3
# A test process that crashes fails the run; pytest-xdist's replacement of it has waited for ever.
PYTEST_ARGS ?= -n 2 --dist loadfile --no-loadscope-reorder --max-worker-restart 0
# Where `make quickstart` writes. Not taken from the environment, where OUT may mean something else.
OUT = out/quickstart
# The same pin as in constraints.txt. Installed before everything else, so that nothing pulls in another build of torch.
TORCH = torch==2.13.0

VENV := .venv
BIN := $(VENV)/bin
HELD := constraints.txt pyproject.toml

# $(call require-python,COMMAND): stop with a clear message unless COMMAND is Python 3.11 or newer.
define require-python
@command -v $(1) >/dev/null || \
	{ echo "error: '$(1)' was not found. hfcompress needs Python 3.11 or newer: make PYTHON=/path/to/python3.11" >&2; exit 1; }
@$(1) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	{ echo "error: '$(1)' is $$($(1) --version 2>&1). hfcompress needs Python 3.11 or newer: make PYTHON=/path/to/python3.11" >&2; exit 1; }
endef

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help quickstart test test-slow test-clients lint format docs constraints clean

help:  ## Print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

quickstart: $(VENV)/.stamp-quickstart  ## Compress a reranker end to end and write its card (OUT=out/quickstart); resumes
	$(BIN)/hfcompress run configs/quickstart.yaml --out $(OUT) --resume

test test-slow: export HF_HUB_OFFLINE = 1
test test-slow: export TOKENIZERS_PARALLELISM = false
test: $(VENV)/.stamp-dev  ## Run the tests (PYTEST_ARGS="-k name" changes what runs, and how)
	$(BIN)/python -m pytest $(PYTEST_ARGS)

test-slow: $(VENV)/.stamp-dev  ## Run the tests that `make test` leaves out: whole runs in many variants, and statistics
	$(BIN)/python -m pytest $(PYTEST_ARGS) -m soak

test-clients: $(VENV)/.stamp-dev  ## Open OUT, a finished run, with other projects' clients; installs them in the user's cache
	$(BIN)/python scripts/check_clients.py $(OUT)
	$(BIN)/python scripts/check_http_clients.py $(OUT)

lint: $(VENV)/.stamp-dev  ## Check style, formatting and types; change nothing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.stamp-dev  ## Fix what ruff can fix, and format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.stamp-docs  ## Build the documentation into build/site; a broken link is an error
	$(BIN)/zensical build --strict --clean

constraints:  ## Remake constraints.txt from the newest releases that pyproject.toml allows
	$(call require-python,$(PYTHON))
	$(PYTHON) -m venv --clear build/constraints-venv
	build/constraints-venv/bin/python -m pip install $(TORCH)
	build/constraints-venv/bin/python -m pip install $(TORCH) -e ".[all,dev,docs]"
	build/constraints-venv/bin/python -m pip freeze --exclude-editable >build/freeze.txt
	{ echo "# Exact versions of everything that '.[all,dev,docs]' installs, for pip's -c. Remade by: make constraints"; \
	  echo "# (torch is held by TORCH in the Makefile; GPU libraries, which torch pins itself, are left out)"; \
	  sed -E -e '/^(pip|setuptools|wheel|triton|nvidia-.*|cuda-.*)==/d' -e 's/^(torch==[^+]*)\+.*/\1/' build/freeze.txt; \
	} >build/constraints.txt
	mv build/constraints.txt constraints.txt
	rm -r build/constraints-venv

clean:  ## Remove caches and build products; keep .venv and out
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +

$(VENV)/.stamp-venv:
	$(call require-python,$(PYTHON))
	$(PYTHON) -m venv $(VENV)
	$(call require-python,$(BIN)/python)
	@touch $@

$(VENV)/.stamp-torch: $(VENV)/.stamp-venv constraints.txt
	$(BIN)/python -m pip install -c constraints.txt $(TORCH)
	@touch $@

$(VENV)/.stamp-quickstart: $(VENV)/.stamp-torch $(HELD)
	$(BIN)/python -m pip install -c constraints.txt -e ".[quickstart]"
	@touch $@

# The extra `all` contains `quickstart`, so this set-up serves both.
$(VENV)/.stamp-dev: $(VENV)/.stamp-torch $(HELD)
	$(BIN)/python -m pip install -c constraints.txt -e ".[all,dev]"
	@touch $@ $(VENV)/.stamp-quickstart

$(VENV)/.stamp-docs: $(VENV)/.stamp-dev
	$(BIN)/python -m pip install -c constraints.txt -e ".[docs]"
	@touch $@
