# Two commands matter: `make run` and `make test`. Both begin on an empty machine with Python 3.11.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help setup run serve seed test unit integration e2e check sanitize wire lock screens fmt clean doctor

VENV   := .venv
PY     := $(VENV)/bin/python
UV     := $(shell command -v uv || echo .uv/bin/uv)
NPM    := PATH="$(CURDIR)/$(VENV)/bin:$$PATH" npm --prefix web
NODE   := $(VENV)/bin/node
WEBSRC := $(shell find web/src web/public web/index.html web/vite.config.ts web/package-lock.json -type f 2>/dev/null)

help: ## what there is
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

setup: $(VENV)/.installed $(VENV)/.fastlane web/dist/.built web/.fonts/.made ## everything a run needs

run: setup ## set everything up, seed the demo prefecture, serve it and print the addresses
	$(VENV)/bin/reception demo

serve: setup ## serve without seeding
	$(VENV)/bin/reception serve

seed: setup ## fill an empty database with the demo prefecture
	$(VENV)/bin/reception seed

doctor: setup ## is this machine fit to serve?
	$(VENV)/bin/reception doctor

test: setup system-packages ## every test, quick ones first
	$(NPM) run --silent test
	$(PY) -m pytest tests/unit -q
	$(PY) -m pytest tests/integration -q
	$(PY) -m pytest tests/e2e -q

unit: setup
	$(PY) -m pytest tests/unit -q
integration: setup system-packages
	$(PY) -m pytest tests/integration -q
e2e: setup system-packages
	$(PY) -m pytest tests/e2e -q

check: setup ## style, types, dependency rules, i18n keys, generated types in sync, migrations in sync
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(VENV)/bin/lint-imports --no-cache
	$(PY) scripts/check_wire.py
	$(PY) scripts/check_migrations.py
	$(PY) scripts/check_compose.py
	$(NPM) run --silent lint
	$(NPM) run --silent types
	$(NPM) run --silent i18n:check

sanitize: setup ## the C files under AddressSanitizer and UBSan: their tests, then their fuzz targets; minutes
	scripts/sanitize

wire: $(VENV)/.installed web/node_modules/.installed ## regenerate web/src/wire from the Python types
	$(PY) scripts/wire.py web/src/wire

screens: setup system-packages ## one PNG per page, role and language, in screens/
	$(PY) scripts/screens.py screens

fmt: $(VENV)/.installed ## format everything
	$(PY) -m ruff check --fix -q .
	$(PY) -m ruff format -q .
	$(NPM) run --silent format

lock: ## re-resolve requirements.lock (hashes, no addresses)
	$(UV) pip compile -q --universal --python-version 3.11 --no-header --no-emit-index-url \
	  --generate-hashes --extra dev pyproject.toml -o requirements.lock

system-packages: ## Chromium, Firefox, PostgreSQL, Redis for the tests, from Debian
	@scripts/system-packages
.PHONY: system-packages

clean: ## remove what was built and the demo's data
	rm -rf var screens web/dist web/.fonts $(VENV) web/node_modules

# ── what is built ────────────────────────────────────────────────────────────
.uv/bin/uv:
	python3 -m venv .uv || (echo "python3-venv is missing; run: apt-get install python3-venv" && false)
	.uv/bin/pip install -q uv==0.13.9

$(VENV)/.installed: requirements.lock pyproject.toml | $(if $(findstring .uv/,$(UV)),.uv/bin/uv)
	test -x $(PY) || $(UV) venv -q --python 3.11 $(VENV)
	$(UV) pip sync -q --python $(PY) --require-hashes requirements.lock
	$(UV) pip install -q --python $(PY) --no-deps -e .
	@touch $@

$(VENV)/.fastlane: media/_fastlane.c media/_reel.c media/_bytes.h scripts/build_fastlane $(VENV)/.installed
	scripts/build_fastlane $(PY)
	@touch $@

web/node_modules/.installed: web/package-lock.json $(VENV)/.installed
	$(NPM) ci --no-audit --no-fund --loglevel=error
	@touch $@

web/dist/.built: $(WEBSRC) web/node_modules/.installed
	$(NPM) run --silent build
	@touch $@

web/.fonts/.made: web/node_modules/.installed $(wildcard web/scripts/fonts.py)
	$(PY) web/scripts/fonts.py
	@touch $@
