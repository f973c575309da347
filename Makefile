# `make demo` and `make test` set up everything they need; the only requirements are Python 3.11 or later, make and git.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test check guard bench faults format clean

demo: $(VENV)/ready
	$(BIN)/livechat-relay demo

# Everything that has to hold: lint, format, types, import rules, tests. The same in CI.
test check: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/pytest -n auto

# Fails when the relay costs clearly more processor time, writes or reads than tests/bench/committed.json says. CI runs it too.
guard: $(VENV)/ready
	$(BIN)/python -m tests.bench.guard

# What the relay costs on this machine, about five minutes. More: `.venv/bin/python -m tests.bench --help`.
bench: $(VENV)/ready
	$(BIN)/python -m tests.bench

# The relay under kills, crashes and faults of everything around it: 200 runs. Goes on where it was stopped.
faults: $(VENV)/ready
	$(BIN)/python -m tests.faults --seeds 1-200 --resume .faults-passed --keep faults-failed

format: $(VENV)/ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Run again when the dependencies change.
$(VENV)/ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .faults-passed
