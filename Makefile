# Everything starts from python3 (3.11 or newer) and make: `make setup` builds .venv from the lock file.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: setup demo test test-slow check format audit dist benchmark benchmark-setup clean

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml uv.lock packages/crawlscope-e5/pyproject.toml packages/crawlscope-minilm/pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Crawlscope needs Python 3.11 or newer; '$(PYTHON)' is older. Set PYTHON=/path/to/python3.11." >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { echo "Could not create $(VENV). On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check 'uv>=0.13,<1'
	@VIRTUAL_ENV=$(abspath $(VENV)) $(BIN)/uv sync --quiet --frozen --system-certs --inexact --active --compile-bytecode
	@$(BIN)/python -m compileall -q src packages
	@touch $@

# Its data stays in this folder.
demo: setup
	@CRAWLSCOPE_DATA_DIR="$${CRAWLSCOPE_DATA_DIR:-$(CURDIR)/.demo}" $(BIN)/crawlscope demo

test: setup
	@$(BIN)/pytest

test-slow: setup
	@$(BIN)/pytest -m slow

check: setup
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: setup
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

# Known vulnerabilities of the locked dependencies, and the list of them (CycloneDX) in dist/sbom.json.
audit: setup
	@mkdir -p dist
	@$(BIN)/uv export --quiet --frozen --no-dev --no-emit-workspace --format requirements-txt --output-file dist/requirements.txt
	@$(BIN)/uv tool run --system-certs --from cyclonedx-bom==7.5.0 cyclonedx-py requirements dist/requirements.txt --output-file dist/sbom.json
	@$(BIN)/uv tool run --system-certs pip-audit==2.10.1 --require-hashes --disable-pip --requirement dist/requirements.txt

dist: setup
	@$(BIN)/uv build --quiet --all-packages --out-dir dist

benchmark: setup
	@$(BIN)/python -m benchmarks

# What the benchmarks compare with; without it they leave the comparison out.
benchmark-setup: setup
	@VIRTUAL_ENV=$(abspath $(VENV)) $(BIN)/uv sync --quiet --frozen --system-certs --inexact --active --link-mode copy --group benchmarks

clean:
	rm -rf $(VENV) .demo dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
