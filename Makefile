# Names commands, nothing else: what they do is in the tools they call.
.PHONY: venv demo test test-all test-engine test-server check lint types contracts docs lock clean

PYTHON ?= python3
BIN := .venv/bin

# Python keeps what it compiled, for thousands of tests and the servers that they start, even where it is told
# not to, as in many containers.
export PYTHONDONTWRITEBYTECODE :=

venv: .venv/ready

.venv/ready: requirements.lock pyproject.toml
	@sh deploy/make-venv $(PYTHON)

demo: venv
	@$(BIN)/cachegate demo $(ARGS)

# `exec`: make ends its own child when it is ended, and a shell in between would not pass that on to the tests.
test: venv
	exec $(BIN)/pytest -n auto --dist worksteal -m "not slow and not root and not engine and not server" $(ARGS)

test-all: venv
	exec $(BIN)/pytest -n auto --dist worksteal -m "not engine and not server" $(ARGS)

test-engine: venv .venv-engine/ready
	exec $(BIN)/pytest -n 2 --dist loadfile -m engine $(ARGS)

.venv-engine/ready: tests/engine/requirements.txt
	@sh deploy/make-engine-venv $(PYTHON)

test-server: venv .venv-server/ready
	exec $(BIN)/pytest -n 2 --dist loadfile -m server $(ARGS)

.venv-server/ready: tests/server/requirements.txt
	@sh deploy/make-server-venv $(PYTHON)

check: lint types contracts

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: venv
	$(BIN)/mypy

contracts: venv
	$(BIN)/lint-imports

docs: venv
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

lock: venv
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --all-extras --no-emit-index-url \
		--no-emit-find-links --custom-compile-command "make lock" --output-file requirements.lock pyproject.toml

clean:
	rm -rf .venv .venv-engine .venv-server .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage* site
