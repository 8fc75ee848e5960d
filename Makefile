# Two commands are enough: `make book` and `make test`. Each target sets up what it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INDEX := _build/html/index.html

.DEFAULT_GOAL := help
.PHONY: help setup book test lab train notebooks repository clean

help: ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(VENV)/installed ## make .venv and install everything into it

# The stamp is newer than pyproject.toml as long as the installed packages are the ones it asks for.
$(VENV)/installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; $(PYTHON) is $$($(PYTHON) --version 2>&1). Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	@touch $@

book: setup ## build the book, warnings are errors
	$(BIN)/jupyter-book build book -W -n --keep-going
	@test -f $(INDEX) || { echo "the build ended without $(INDEX)"; exit 1; }
	@echo
	@echo "The book: $(CURDIR)/$(INDEX)"
	@echo "To serve: $(BIN)/python -m http.server --directory _build/html 8000   and open http://localhost:8000"

clean: ## remove what the build made; .venv, runs and data stay
	rm -rf _build build .pytest_cache .ruff_cache .hypothesis *.egg-info
