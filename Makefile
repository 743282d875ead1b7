# make run    set up what is missing and run the thread on the demo data
# make test   set up what is missing and pass all tests
# make quick  the tests without real data sets and processes
# make check  style, types, import rules
# make serve  the promoted release over HTTP
# make clients  write the clients' types and methods anew after a change of the service
# make clean  remove everything that was made, the environment included
PYTHON ?= $(shell command -v python3.11 || command -v python3)
ENV := .venv
BIN := $(ENV)/bin
# A file's tests stay in one process, and files begin in their order: the long ones are not the last.
PROCESSES := -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder
STAMP := $(ENV)/stamp-$(shell cat pyproject.toml requirements.lock | cksum | tr ' ' '-')

.PHONY: run test quick check serve clients clean setup
run: setup
	@$(BIN)/recops run

test: setup
	@$(BIN)/python -m pytest $(PROCESSES)

quick: setup
	@$(BIN)/python -m pytest $(PROCESSES) -m "not real_data and not process"

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

serve: setup
	@$(BIN)/recops serve

clients: setup
	@$(BIN)/python -m clients

setup: $(STAMP)
$(STAMP): pyproject.toml requirements.lock
	@test -x $(BIN)/python || $(PYTHON) -m venv $(ENV)
	@echo "Installing into $(ENV) (a minute or two)"
	@$(BIN)/python -m pip install --quiet -e '.[dev]' -c requirements.lock
	@rm -f $(ENV)/stamp-* && touch $@

clean:
	rm -rf $(ENV) .recops data model bundle reports releases dvc.lock dist .pytest_cache .mypy_cache .ruff_cache
