# Everything lives in .venv; `make quickstart` on a fresh checkout installs and runs.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: quickstart install check test test-slow lint docs lock

quickstart: install
	$(BIN)/tsalign quickstart

install: .venv/.installed

# The lock is complete, so --no-deps keeps pip from adding the CUDA-only builds that it leaves out.
.venv/.installed: pyproject.toml requirements/cpu.txt
	@$(PYTHON) -c 'import sys; (3, 11) <= sys.version_info < (3, 13) or sys.exit("tsalign needs Python 3.11 or 3.12: make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	$(PIP) torch==2.13.0
	$(PIP) --no-deps -r requirements/cpu.txt
	$(PIP) --no-deps --no-build-isolation -e .
	touch $@

# Lint, the tests that start nothing, and one recipe from end to end: three minutes.
check: lint
	$(BIN)/python -m pytest -m "check or not (ray or slow)"

# Everything but the long scenarios.
test: install
	$(BIN)/python -m pytest -m "not slow"

test-slow: install
	$(BIN)/python -m pytest -m slow

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: install
	$(BIN)/python -m tsalign.recipes.reference docs/config.md

# The torch line loses its build suffix: each machine takes the build that it is offered. The GPU lock is that of the
# image in cluster/Dockerfile: with the clouds' packages, and with all that vLLM wants, as its CUDA builds fit together.
lock: requirements/exclude.txt
	uv pip compile pyproject.toml --extra cpu --extra dev --override requirements/exclude.txt \
		--python-version 3.11 --no-header --no-annotate --quiet -o requirements/cpu.txt
	sed -i.bak 's/^\(torch==[0-9.]*\)+cpu/\1/' requirements/cpu.txt && rm requirements/cpu.txt.bak
	uv pip compile pyproject.toml --extra gpu --extra s3 --extra gcs --extra launcher \
		--python-version 3.11 --python-platform x86_64-manylinux_2_28 --no-header --no-annotate --quiet \
		-o requirements/gpu.txt
