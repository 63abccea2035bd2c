# Every target does its own set-up in .venv. It needs only Python 3.11+ and make.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
# Each of many test processes would compile all tests, and each command that they run our package.
unexport PYTHONDONTWRITEBYTECODE

PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
BIN := .venv/bin
LIBRARIES := .venv/.libraries
READY := .venv/.ready
COMPILER := .venv/.compiler
BROWSER := .venv/.browser

help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | sort | expand -t 14

$(LIBRARIES): requirements/dev.txt
	@test -n "$(PYTHON)" || { echo "error: no Python 3.11 or newer with venv found" >&2; \
		echo "hint: install one (Debian: apt install python3 python3-venv) or run make PYTHON=/path/to/python3" >&2; exit 1; }
	@echo "setting up .venv with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv --clear .venv
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@touch $@

# Our package, on top of the libraries; installed again when its C sources change.
$(READY): $(LIBRARIES) pyproject.toml hatch_build.py $(wildcard native/*.[ch] benchmarks/queue_server/*.[ch])
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

setup: $(READY) ## make .venv with everything the other targets need

demo: $(READY) ## run the main job once, on embedded servers
	@$(BIN)/sqs2pg demo $(DEMO_ARGS)

# The queue server of benchmarks/ is written in C. Without a system compiler we install one from a wheel.
$(COMPILER): requirements/build.txt $(READY)
	@command -v cc gcc clang >/dev/null || $(BIN)/pip install --quiet --disable-pip-version-check \
		--require-hashes -r requirements/build.txt
	@touch $@

$(BROWSER): requirements/browser.txt $(READY)
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/browser.txt
	@touch $@

# Tests that wait for a lease or a restart leave their core to others, so there are more than cores.
WORKERS ?= 6
test: $(READY) $(COMPILER) ## run the unit, contract, integration, acceptance and short fault tests
	@$(BIN)/pytest -n $(WORKERS) --dist worksteal -m "not system and not image" $(TEST_ARGS)

# What a mapping means and what becomes of a message: the same whichever executor a process has.
EXECUTOR_SUITES := tests/unit/mapping tests/unit/pipeline tests/properties/test_decode.py \
	tests/properties/test_masking.py tests/properties/test_transform.py \
	$(addprefix tests/integration/test_,$(addsuffix .py,bodies consumer delivery drift dropped envelopes \
	identity isolation key_rotation targets transactions vault_sealing)) \
	tests/acceptance/test_canary.py tests/acceptance/test_examples.py tests/acceptance/test_main_job.py \
	tests/faults/test_fifo.py tests/faults/test_kills.py
test-python: $(READY) $(COMPILER) ## run the suites of mapping, pipeline, delivery and canaries without the native executor
	@SQS2PG_NATIVE=0 $(BIN)/pytest -n $(WORKERS) --dist worksteal -m "not system" $(EXECUTOR_SUITES) $(TEST_ARGS)

# Every file that draws examples, with fifty times as many of them (tests/hypothesis_profiles.py).
test-long: $(READY) $(COMPILER) ## run the property tests with their long profile, minutes
	@HYPOTHESIS_PROFILE=long $(BIN)/pytest -n 2 --dist worksteal --timeout 3600 $(TEST_ARGS) \
		$$(grep -rlE '^from (hypothesis|tests\.hypothesis_profiles) import' tests --include='test_*.py')

test-system: $(READY) $(COMPILER) $(BROWSER) ## run the tests that need system packages (PostgreSQL 15, PgBouncer, Chromium, promtool); root installs them
	@tests/system/install.sh deploy/apt/test-system.txt
	@$(BIN)/pytest -n 2 --dist loadfile -m system $(TEST_ARGS)

# Minutes, and root: Debian by debootstrap as the base, our Dockerfile by buildah, and containers of it.
test-image: $(READY) $(COMPILER) ## build the image and run it on a read-only root against real servers; needs root and Debian
	@tests/system/install.sh deploy/apt/test-image.txt
	@$(BIN)/pytest tests/image $(TEST_ARGS)

breakages: $(READY) $(COMPILER) ## break the code in each of over a hundred places; some test must notice; BREAKAGES_ARGS='--only ledger'
	@$(BIN)/python -m tests.breakages $(BREAKAGES_ARGS)

# Large groups have an environment of their own, made when it is needed.
.venv-%/.ready: requirements/%.txt
	@test -n "$(PYTHON)" || { echo "error: no Python 3.11 or newer with venv found" >&2; exit 1; }
	@echo "setting up .venv-$*"
	@$(PYTHON) -m venv --clear .venv-$*
	@.venv-$*/bin/pip install --quiet --disable-pip-version-check --require-hashes \
		-r requirements/$*.txt
	@touch $@

mutants: $(READY) $(COMPILER) .venv-mutants/.ready ## mutate the code in 100 places drawn at random; MUTANTS_ARGS='--seed 7 --count 20'
	@$(BIN)/python -m tests.mutants $(MUTANTS_ARGS)

test-unit: $(READY) ## run the tests without I/O, in seconds
	@$(BIN)/pytest -n 2 --dist worksteal tests/unit $(TEST_ARGS)

SOAK_MESSAGES ?= 300000
SOAK_SECONDS ?= 600
soak: $(READY) $(COMPILER) ## faults of every kind for SOAK_SECONDS; nothing may be lost, doubled or late
	@$(BIN)/python -m benchmarks.soak --messages $(SOAK_MESSAGES) --seconds $(SOAK_SECONDS) $(SOAK_ARGS)

HANG_SECONDS ?= 285
hang: $(READY) $(COMPILER) ## hang PostgreSQL for HANG_SECONDS under load; no connection may leak, and SIGTERM must work
	@$(BIN)/python -m benchmarks.hang --seconds $(HANG_SECONDS)

lint: $(READY) ## check format, lint and types
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy

release-dump: $(READY) ## write tests/migrations/releases/VERSION.sql, once per release, before its tag
	@$(BIN)/python -m tests.migrations.dump

pictures: $(READY) $(COMPILER) $(BROWSER) ## photograph the status pages under load into build/pictures, two of them for docs/images; needs Chromium
	@$(BIN)/python -m benchmarks.pictures $(PICTURES_ARGS)

bench: $(READY) $(COMPILER) ## measure throughput, latency, CPU and memory, about 15 minutes; BENCH_ARGS='--only drain'
	@$(BIN)/python -m benchmarks.run $(BENCH_ARGS)

deploy-check: .venv-deploy/.ready ## validate every deployment artefact offline
	@PYTHONPATH=src .venv-deploy/bin/python -m deploy.check

docs: .venv-docs/.ready ## build the docs site into build/docs; a broken link is an error
	@PYTHONPATH=src .venv-docs/bin/python -m sphinx --quiet -W --keep-going -n docs build/docs
	@echo "built build/docs/index.html: every internal link leads somewhere"

docs-links: .venv-docs/.ready ## check every address that the docs name; needs the network
	@PYTHONPATH=src .venv-docs/bin/python -m sphinx --quiet -b linkcheck docs build/links

# A target of its own, because Ray and its cluster are large and nothing else needs them.
.venv-ray/.ready: requirements/ray.txt
	@test -n "$(PYTHON)" || { echo "error: no Python 3.11 or newer with venv found" >&2; exit 1; }
	@echo "setting up .venv-ray"
	@$(PYTHON) -m venv --clear .venv-ray
	@.venv-ray/bin/pip install --quiet --disable-pip-version-check --require-hashes \
		-r requirements/ray.txt
	@.venv-ray/bin/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@command -v cc gcc clang >/dev/null || .venv-ray/bin/pip install --quiet \
		--disable-pip-version-check --require-hashes -r requirements/build.txt
	@touch $@

test-ray: .venv-ray/.ready ## test a fleet on a Ray cluster of several nodes: scaling, node loss, drain
	@.venv-ray/bin/pytest -n 2 --dist worksteal tests/ray $(TEST_ARGS)

LOCK = .venv-lock/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-header --no-annotate
lock: ## resolve the dependencies again and write requirements/*.txt
	@python3 -m venv .venv-lock && .venv-lock/bin/pip install --quiet uv
	@$(LOCK) --upgrade pyproject.toml --extra local --extra fpe --extra otel --extra parquet --group dev -o requirements/dev.txt
	@$(LOCK) pyproject.toml -c requirements/dev.txt -o requirements/runtime.txt
	@$(LOCK) pyproject.toml --group deploy -c requirements/dev.txt -o requirements/deploy.txt
	@$(LOCK) pyproject.toml --extra local --group docs -c requirements/dev.txt -o requirements/docs.txt
	@$(LOCK) pyproject.toml --extra local --extra ray --group dev -c requirements/dev.txt \
		-o requirements/ray.txt
	@$(LOCK) --group browser -c requirements/dev.txt -o requirements/browser.txt
	@$(LOCK) --group build -c requirements/dev.txt -o requirements/build.txt
	@$(LOCK) --group mutants -c requirements/dev.txt -o requirements/mutants.txt
	@rm -rf .venv-lock

clean: ## remove everything the targets made
	@rm -rf .venv .venv-* .sqs2pg .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist

.PHONY: help setup demo soak hang bench pictures deploy-check docs docs-links release-dump test-ray test test-python test-long breakages mutants test-image test-system test-unit lint lock clean
