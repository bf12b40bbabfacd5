# `make` lists what there is. Everything after `make env` works offline.

PYTHON  ?= python3
DATASET ?= demo
BIN     := .venv/bin
STAMP   := .venv/.stamp
UV_PIN   = $(shell sed -n 's/^\(uv==[^ ]*\).*/\1/p' requirements.lock)

# Some containers set it; every process would then compile what it imports anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help env repro results scale test browser record walk lint verify lab app web readme docs newcomer lock clean

help: ## list the targets
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1	\2/' | expand -t 16

env: $(STAMP) ## create .venv with exactly the packages of requirements.lock

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' || \
	  { echo 'error: $(PYTHON) is not Python 3.11 or 3.12; try `make env PYTHON=python3.11`' >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@command -v uv >/dev/null || test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet $(UV_PIN)
	export VIRTUAL_ENV="$(CURDIR)/.venv" PATH="$$PATH:$(CURDIR)/$(BIN)"; \
	  uv pip sync --require-hashes requirements.lock && \
	  uv pip install --no-deps --no-build-isolation --editable .
	@touch $@

repro: env ## run the committed study again on DATASET (default: demo), in rerun/, and compare
	$(BIN)/python -m fer_lib rerun $(DATASET)

results: env ## run what is out of date on DATASET here: reports/ changes, to be committed
	$(BIN)/python -m fer_lib pipeline $(DATASET)

# Ray and LitServe weigh 300 MB and are needed by few: they have an environment of their own.
SCALE := .venv-scale
$(SCALE)/.stamp: $(STAMP) requirements-scale.lock
	test -x $(SCALE)/bin/python || $(PYTHON) -m venv $(SCALE)
	export VIRTUAL_ENV="$(CURDIR)/$(SCALE)" PATH="$$PATH:$(CURDIR)/$(BIN)"; \
	  uv pip sync --require-hashes requirements.lock requirements-scale.lock && \
	  uv pip install --no-deps --no-build-isolation --editable .
	@touch $@

scale: $(SCALE)/.stamp ## test `fer score`, `fer serve` and a remote on S3, with the extras that they need
	$(SCALE)/bin/python -m pytest --numprocesses logical --maxprocesses 2 --dist loadfile tests/scale

test: lint browser ## check the style and run the tests
	$(BIN)/python -m pytest --numprocesses logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder
	$(MAKE) scale

# The app is tested in a real browser. Where that needs no password it is installed; else those tests are skipped.
browser: ## install Chromium for the tests, where that can be done
	@command -v chromium >/dev/null || command -v google-chrome >/dev/null || { \
	  test "$$(id -u)" = 0 && command -v apt-get >/dev/null && apt-get update -qq && \
	  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium >/dev/null; } || \
	  echo 'no Chromium: the tests in a browser are skipped'

record: env browser ## test the app in a browser and keep which tests passed, for the claims ledger
	$(BIN)/python benchmarks/browser.py

walk: env browser ## use every page of app, web and reports in a browser, light, dark and on a telephone; screenshots/
	for look in light dark telephone; do LOOK=$$look SCREENSHOTS=screenshots \
	  $(BIN)/python -m pytest tests/test_browser.py tests/test_web.py tests/test_pages.py || exit 1; done

lint: env ## run every check of .pre-commit-config.yaml: style, format, imports, types, declared packages
	PATH="$(CURDIR)/$(BIN):$$PATH" pre-commit run --all-files --show-diff-on-failure

verify: env ## check the numbers in reports/ against what they were made from
	$(BIN)/fer verify

lab: env ## open the notebooks in JupyterLab; what they write goes to scratch/
	$(BIN)/jupyter lab --notebook-dir notebooks

app: env ## run the app at http://localhost:8501, for this machine only
	$(BIN)/streamlit run app/main.py

web: env ## build the page that runs the int8 network in a browser, at http://localhost:8502
	$(BIN)/python -m app.web.build
	$(BIN)/python -m http.server --bind 127.0.0.1 --directory app/web/dist 8502

docs: env ## build the documentation in site/; a broken link is an error
	PYTHONPATH=. $(BIN)/python -m zensical build --strict

newcomer: env ## run every command of README and docs/ as a newcomer would, also those that take long
	NEWCOMER=1 $(BIN)/python -m pytest -p no:xdist tests/test_commands.py

readme: env ## rewrite the result table of README.md from reports/
	$(BIN)/python -m fer_lib readme

lock: env ## write requirements.lock, with the versions there as far as they fit
	$(BIN)/uv pip compile pyproject.toml --extra dev --generate-hashes \
	  --universal --python-version 3.11 --no-header --no-annotate --quiet --output-file requirements.lock
	$(BIN)/uv pip compile pyproject.toml --extra s3 --extra scale --extra scale-dev --extra serve --generate-hashes \
	  --constraint requirements.lock --universal --python-version 3.11 --no-header --no-annotate --quiet \
	  --output-file requirements-scale.lock \
	  $$(sed -n 's/^\([a-z0-9-]*\)==.*/--no-emit-package \1/p' requirements.lock)

clean: ## remove caches, scratch/, screenshots/, site/ and rerun/; data, models and reports stay
	rm -rf build scratch screenshots site rerun .cache .pytest_cache .ruff_cache .mypy_cache .import_linter_cache .hypothesis *.egg-info
	find fer_lib demo_faces app tests notebooks \( -name __pycache__ -o -name .ipynb_checkpoints \) -prune -exec rm -rf {} +
