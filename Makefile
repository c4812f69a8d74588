# Everything lives in .venv; its bin/asr is the command.
PYTHON ?= python3
VENV := .venv
STAMP := $(VENV)/.installed
RUNTIME := $(VENV)/.runtime
RUN := $(VENV)/bin/python
PIP = $(RUN) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
# Spinning OpenMP threads starve each other wherever anything else runs.
export OMP_WAIT_POLICY := PASSIVE

.DEFAULT_GOAL := help
.PHONY: help setup demo test check bench

help:
	@echo "make setup   install into $(VENV)"
	@echo "make demo    serve and stream a clip (AUDIO=any.wav: your own)"
	@echo "make test    fast tests"
	@echo "make check   lint, format, types, generated code"
	@echo "make bench   start-up, memory, speed"

setup: $(STAMP)

$(RUN):
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version) if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)

$(STAMP): pyproject.toml constraints.txt | $(RUN)
	$(PIP) --editable '.[train,dev]'
	@touch $@ $(RUNTIME)

# What serving needs, a third of it all: the demo waits for no more.
$(RUNTIME): pyproject.toml constraints.txt | $(RUN)
	$(PIP) --editable .
	@touch $@

demo: $(RUNTIME)
	$(VENV)/bin/asr demo $(if $(AUDIO),"$(AUDIO)")

# Processes of one thread each; more than four would want more memory than time.
test: setup
	$(RUN) -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal

check: setup
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy
	$(RUN) protos/generate.py --check

bench: $(RUNTIME)
	$(VENV)/bin/asr bench
