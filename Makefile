# `make` alone prints the targets.
# The first that will do: `make retrain PYTHON=python3.13` takes another.
FITS := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
PYTHON ?= $(shell for python in python3.11 python3.12 python3.13 python3; do \
	"$$python" -c "$(FITS)" 2>/dev/null && echo "$$python" && break; done)
BIN := .venv/bin
export DO_NOT_TRACK := 1
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: help env retrain check hook test processors pythons walk lock clean

help:  ## print the targets
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 10

env: .venv/installed  ## build .venv from requirements.lock

retrain: env  ## environment, sample data, the whole flow, a registered model
	@mammoflow retrain

LINT := ruff check . && ruff format --check . && mypy
QUICK := tests/test_floors.py tests/test_docs.py tests/mammo/data tests/mammo/imaging

check: env  ## format, types and the quickest tests, before a commit
	@$(LINT)
	@pytest $(QUICK)

hook: .git  ## let each commit begin with `make check`
	@git config core.hooksPath .githooks

EMULATED := tests/test_processors.py tests/mammo/test_portable_operators.py

# Six groups at once; each of pytest's looks only where its tests are (tests/conftest.py makes
# sure). Those of whole projects and of flows take the longest and often wait, so the others give
# way to them.
REST := "not whole and not processors"
# Of what runs in pytest's own process: stages and servers in theirs are not counted. Numba compiles
# bytecode, which must be as it was written.
MEASURE := slipcover --source mammo,stages,flows --omit mammo/dicom/jpeg_lossless.py --json
COVERED := 78
test: env  ## environment, all tests and checks
	@rm -f build/coverage*; mkdir -p build
	@($(LINT)) > build/lint.txt 2>&1 & lint=$$!; \
		pytest -m whole tests/flows > build/whole.txt 2>&1 & whole=$$!; \
		$(MEASURE) --out build/coverage-flows.json -m pytest -m $(REST) tests/flows \
			> build/flows.txt 2>&1 & \
		flows=$$!; \
		nice -n 8 pytest -rs -m processors $(EMULATED) > build/processors.txt 2>&1 & processors=$$!; \
		nice -n 8 python -m tests.pythons > build/pythons.txt 2>&1 & pythons=$$!; \
		nice -n 5 $(MEASURE) --out build/coverage-rest.json -m pytest -m $(REST) --ignore tests/flows; \
		rest=$$?; \
		echo "lint:"; wait $$lint; lint=$$?; cat build/lint.txt; \
		echo "flows:"; wait $$flows; flows=$$?; cat build/flows.txt; \
		echo "whole projects:"; wait $$whole; whole=$$?; cat build/whole.txt; \
		echo "other processors:"; wait $$processors; processors=$$?; cat build/processors.txt; \
		echo "other Pythons:"; wait $$pythons; pythons=$$?; cat build/pythons.txt; \
		slipcover --merge build/coverage-*.json --out build/coverage.json --skip-covered \
			--fail-under $(COVERED); coverage=$$?; \
		exit $$((lint + whole + flows + processors + pythons + rest + coverage))

processors: env  ## the emulated tests, on an Intel Haswell and on an AMD Milan
	@MAMMOFLOW_TEST_PROCESSORS="Haswell EPYC-Milan" pytest -rs -m processors $(EMULATED)

pythons: env  ## the other Pythons of this machine: import everything, and the same bytes
	@python -m tests.pythons

walk: env  ## docs/team.md's story of four machines, each blind to the others: fifteen minutes
	@python -m tests.walk

lock:  ## compile requirements.lock from pyproject.toml
	uv pip compile --quiet --universal --generate-hashes --python-version 3.11 --extra dev \
		--fork-strategy fewest pyproject.toml --output-file requirements.lock

clean:  ## remove the environment; data, outputs and models stay
	rm -rf .venv

# The environment's own uv is as good as the machine's; without either, pip brings it.
.venv/installed: requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "no Python 3.11, 3.12 or 3.13 was found: install one" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@command -v uv >/dev/null || $(BIN)/python -m pip install --quiet uv
	@uv pip sync --quiet --compile-bytecode --require-hashes --python $(BIN)/python requirements.lock
	@uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@
