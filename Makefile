# Two commands are enough: `make book` and `make test`. Each target sets up what it needs; `make` lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INDEX := _build/html/index.html
RUN ?= runs/cats-32-$(shell date +%Y-%m-%d-%H%M%S)

.DEFAULT_GOAL := help
.PHONY: help setup book test lab train bench notebooks repository clean

help: ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(VENV)/installed ## make .venv and install everything into it

# The stamp is newer than pyproject.toml as long as what is installed is what it asks for.
$(VENV)/installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Python 3.11 or newer is needed, and $(PYTHON) is not. With another one: make PYTHON=python3.12 $(MAKECMDGOALS)"; \
	  exit 1; }
	@test -x $(BIN)/python || { echo "making $(VENV)"; $(PYTHON) -m venv $(VENV); }
	@echo "installing into $(VENV); PyTorch is large, so the first time takes minutes"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	@touch $@

book: setup ## build the book; a warning is an error
	@$(BIN)/jupyter-book build book -W -n --keep-going
	@test -f $(INDEX) || { echo "the build ended without $(INDEX)"; exit 1; }
	@echo "The book is $(CURDIR)/$(INDEX)"
	@echo "To serve it: $(BIN)/python -m http.server --directory _build/html    and open http://localhost:8000"

test: setup ## everything: style, unit tests, chapters, the book in a browser
	@$(BIN)/python tools/check.py

lab: setup ## open the chapters in JupyterLab
	@$(BIN)/jupyter lab --notebook-dir book $(if $(filter 0,$(shell id -u)),--allow-root)

train: setup ## train 32-pixel cats for five minutes
	@$(BIN)/dcgan train --data cats --image-size 32 --minutes 5 --output $(RUN)
	@$(BIN)/dcgan sample --run $(RUN) --count 64 --seed 0

bench: setup ## measure training, and write the README's tables; an hour or two, and 13 GB of disk meanwhile
	@$(BIN)/python benchmarks/throughput.py
	@for part in import start reporting store; do $(BIN)/python benchmarks/overheads.py $$part || exit 1; done
	@for part in losses quality; do $(BIN)/python benchmarks/same_training.py $$part || exit 1; done
	@$(BIN)/python benchmarks/latent_explorer.py
	@$(BIN)/python tools/tables.py

notebooks: setup ## run every chapter again and store its outputs
	@$(BIN)/python tools/notebooks.py

repository: setup ## set the repository's address everywhere: make repository URL=https://github.com/owner/name
	@test '$(origin URL)' = 'command line' || { echo 'say which: make repository URL=https://github.com/owner/name (URL= unsets it)'; exit 1; }
	@$(BIN)/python tools/repository.py '$(URL)'

clean: ## remove what the build and the tests made; .venv, runs and data stay
	rm -rf _build build *.egg-info .pytest_cache .ruff_cache .hypothesis
