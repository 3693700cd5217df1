# make demo   serve the app on this machine and print its address; PORT=8000 chooses the port
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
.PHONY: help demo test browser lint format clean

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

$(VENV)/.dev: pyproject.toml $(VENV)/.created
	$(PIP) install --quiet --editable '.[dev]'
	touch $@

$(VENV)/.app: pyproject.toml $(VENV)/.created
	$(PIP) install --quiet --editable '.[app,eval]'
	touch $@

PORT ?= 7860

demo: $(VENV)/.app
	GRADIO_SERVER_PORT=$(PORT) GRADIO_ANALYTICS_ENABLED=False $(BIN)/python app.py

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Each process takes up to 3 GB.
test: lint browser
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadscope

# The app's tests drive a Chromium; without one they are skipped, and say so.
browser:
	@command -v chromium google-chrome >/dev/null || \
	  { test "$$(id -u)" = 0 && command -v apt-get >/dev/null && apt-get update -qq && \
	    DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends chromium >/dev/null; } || \
	  echo "NO BROWSER: install chromium to run the app's browser tests (Debian: apt install chromium)"

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) outputs .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist
	find facestyle tests -name __pycache__ -type d -prune -exec rm -rf {} +
