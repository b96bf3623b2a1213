# Two commands do all the set-up: `make play` and `make test`. Everything else is listed by `make help`.
.DEFAULT_GOAL := help
.PHONY: help setup play test check format web clean

VENV := .venv
BIN := $(VENV)/bin
# The first Python >= 3.11 found; `make PYTHON=/path/to/python3 play` chooses another.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python3.14 python; do \
	if $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then echo $$p; break; fi; done)
# Tests share the machine with servers and browsers they start: one thread, no spinning at barriers.
QUIET := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OMP_WAIT_POLICY=passive
# Test files run so many at a time, each file in one process; JOBS=0 runs all in one (for -s, --pdb).
JOBS ?= 2
ARGS ?=

help: ## list the commands
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 16

setup: python ## make the virtual environment with everything for development
	@$(PYTHON) tools/setup.py --dev --venv $(VENV)

play: python ## install, start the pocket world and open it in the browser (ARGS="--port 8080")
	@$(PYTHON) tools/setup.py --venv $(VENV)
	@$(BIN)/worldline play $(ARGS)

test: setup ## run the tests (ARGS="tests/ops -x" to choose)
	@$(QUIET) $(BIN)/python -m pytest -n $(JOBS) --dist loadfile $(ARGS)

check: setup ## ruff, ruff format, pyright, import rules, file lengths, Dockerfile, generated schemas
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports
	@$(BIN)/loq
	@if [ -x $(BIN)/hadolint ]; then $(BIN)/hadolint Dockerfile; fi
	@$(BIN)/python tools/schema.py --check
	@$(BIN)/pyright

format: setup ## format and fix what ruff can fix
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

web: ## build the page into the package (needs Node 20 or newer)
	@cd web && npm ci --no-fund --no-audit && npm run build

clean: ## remove the environment and everything built
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .hypothesis .import_linter_cache .loq_cache web/node_modules
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: python
python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer was not found; install it or set PYTHON=/path/to/python3"; exit 1; }
