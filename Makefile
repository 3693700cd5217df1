# make demo   stylize the sample photo and say where the picture is
# make test   lint, types and tests, as CI runs them
# Both build .venv themselves and need python3 (3.10 or newer) and nothing else.
#
# TORCH_INDEX=URL takes torch and torchvision from another index, such as the one of CPU builds.
# PYTHON=python3.12 builds the environment from that interpreter.

PYTHON ?= python3
TORCH_INDEX ?=
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.PHONY: help demo test lint format clean

help:
	@sed -n '/^#/!q;s/^# \{0,1\}//p' Makefile

$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "facestyle needs Python 3.10 or newer; name one with: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "python3 has no venv module; on Debian and Ubuntu: apt install python3-venv"; exit 1; }
ifneq ($(TORCH_INDEX),)
	$(PIP) install --quiet --index-url $(TORCH_INDEX) torch torchvision
endif
	touch $@

$(VENV)/.runtime: pyproject.toml $(VENV)/.created
	$(PIP) install --quiet --editable .
	touch $@

$(VENV)/.dev: pyproject.toml $(VENV)/.created
	$(PIP) install --quiet --editable '.[dev]'
	touch $@

DEMO_OUT := outputs/demo

demo: $(VENV)/.runtime
	@mkdir -p $(DEMO_OUT)
	$(BIN)/facestyle stylize facestyle/assets/sample.png --style cartoon -o $(DEMO_OUT)
	@echo "The stylized picture is in $(CURDIR)/$(DEMO_OUT):" && ls $(DEMO_OUT)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	$(BIN)/python -m pytest

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) outputs .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist
	find facestyle tests -name __pycache__ -type d -prune -exec rm -rf {} +
