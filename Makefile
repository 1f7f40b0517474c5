# What a command may be given, on the command line: make train SOURCE=photos OUT=runs/photos
SOURCE =
OUT = runs/$(notdir $(SOURCE:%/=%))
CHECKPOINT = model/pretrained/torchlight-cifar10.safetensors
ARGS =
IMAGE = torchlight
# The index of CPU builds that PyTorch's install page names: a few hundred megabytes in place of several gigabytes.
TORCH_INDEX_URL =
SBOM = sbom.cdx.json

VENV = .venv
PYTHON = $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && command -v $$python && break; done)
export PIP_DISABLE_PIP_VERSION_CHECK = 1
export PIP_NO_INPUT = 1
PIP = $(VENV)/bin/pip
PYTEST = $(VENV)/bin/pytest
JOBS = 2
apt_install = { test "$$(id -u)" = 0 && { apt-get update -qq; DEBIAN_FRONTEND=noninteractive \
	apt-get install --yes -qq --no-install-recommends -o DPkg::Lock::Timeout=600 $(1); }; }

# Stamps: newer than what they were made from, so that a second call installs nothing.
RUNTIME = $(VENV)/.runtime
DEV = $(VENV)/.dev
BROWSER = $(VENV)/.browser
PEERS = $(VENV)/.peers
AXE = tests/page/node_modules/axe-core/axe.min.js

.DEFAULT_GOAL = help
.PHONY: source-given help serve test test-slow test-all test-floors train evaluate check sbom bench peers lock image image-check clean

help:  ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-11s %s\n", $$1, $$2}' Makefile
	@echo 'The first call installs what it needs. For the CPU alone, which is much smaller: make serve TORCH_INDEX_URL=<the'
	@echo "index of CPU builds that PyTorch's install page gives>; the same goes for test, train and image."

serve: $(RUNTIME)  ## start the service (settings: TORCHLIGHT_* in the environment)
	$(VENV)/bin/torchlight serve $(ARGS)

test: $(DEV) $(BROWSER) $(AXE)  ## run the quick tests, in a real browser too, a file at a time in each of JOBS=2 processes
	$(PYTEST) -n $(JOBS) --dist loadfile --no-loadscope-reorder -m "not slow" $(ARGS)

test-slow: $(DEV) $(BROWSER) $(AXE)  ## run the slow tests, one after the other
	$(PYTEST) -m slow $(ARGS)

test-all: test test-slow  ## run every test

# The rest is borrowed from VENV: only these five are as old as pyproject.toml allows. Old releases warn of newer ones.
FLOORS = $(VENV)/floors
test-floors: $(DEV) $(VENV)/bin/uv  ## run the quick tests of app on the oldest fastapi, starlette, uvicorn, pydantic and pillow
	$(VENV)/bin/uv venv --quiet --clear --python $(VENV)/bin/python $(FLOORS)
	$(VENV)/bin/uv pip install --quiet --python $(FLOORS)/bin/python --resolution lowest-direct \
		$$(grep -oE '"(fastapi|starlette|uvicorn|pydantic|pillow)[<>=,0-9.]+"' pyproject.toml | tr -d '"')
	$(VENV)/bin/python -c 'import sysconfig; print("import site; site.addsitedir(%r)" % sysconfig.get_path("purelib"))' \
		> "$$($(FLOORS)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/borrowed.pth"
	$(FLOORS)/bin/python -m pytest -m "not slow" -W ignore::DeprecationWarning tests/app $(ARGS)

train: source-given $(RUNTIME)  ## train on a folder of images or a named data set: SOURCE=photos [OUT=runs/photos]
	$(VENV)/bin/torchlight train "$(SOURCE)" --out "$(OUT)" $(ARGS)

evaluate: source-given $(RUNTIME)  ## measure a checkpoint on images it has not seen: SOURCE=photos [CHECKPOINT=...]
	$(VENV)/bin/torchlight evaluate "$(CHECKPOINT)" "$(SOURCE)" $(ARGS)

check: $(DEV)  ## lint, formatting, types, and known vulnerabilities where their data can be had
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/python .ci/audit.py $(VENV)/bin/pip-audit requirements.txt

sbom: $(DEV)  ## list all that the service is made of, as CycloneDX: SBOM=sbom.cdx.json
	$(VENV)/bin/cyclonedx-py requirements --pyproject pyproject.toml --output-reproducible --output-file "$(SBOM)" requirements.txt

peers: $(PEERS)  ## install the services that benchmarks.serving compares with, and wrk

# Those that need no arguments: benchmarks.own_photos and benchmarks.label_errors want folders of photos.
BENCHMARKS = decoding inspection page serving training
bench: $(DEV) $(PEERS)  ## run the benchmarks of speed
	@for name in $(BENCHMARKS); do echo "== $$name"; $(VENV)/bin/python -m benchmarks.$$name $(ARGS) || exit 1; done

lock: $(VENV)/bin/uv  ## compile requirements*.txt from pyproject.toml (ARGS=--upgrade for newer versions)
	$(COMPILE) --group build --output-file requirements.txt pyproject.toml
	$(COMPILE) --group build --group dev --constraint requirements.txt --output-file requirements-dev.txt pyproject.toml

image:  ## build the container image (TORCH_INDEX_URL=... for a smaller one)
	docker build --build-arg TORCH_INDEX_URL=$(TORCH_INDEX_URL) --tag $(IMAGE) .

image-check:  ## run the image as a random user, read-only, without network or capabilities, and see that it answers
	.ci/image-check $(IMAGE)

clean:  ## remove what the other targets made, except what was trained
	rm -rf $(VENV) tests/page/node_modules build *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

source-given:
	@[ -n "$(SOURCE)" ] || { echo "Which images? For example: make $(MAKECMDGOALS) SOURCE=photos" >&2; exit 1; }

# Universal: one file for every platform and Python. No index address, so that each machine uses its own.
COMPILE = $(VENV)/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--custom-compile-command "make lock" $(ARGS)

# Not a prerequisite of lock: requirements that no longer install must not be in the way of compiling new ones.
$(VENV)/bin/uv:
	$(MAKE) $(DEV)

# Debian has ensurepip, which venv needs, in a package of its own.
$(VENV)/bin/pip:
	@[ -n "$(PYTHON)" ] || { echo "No Python 3.11 or newer on PATH; install one, or name it: make PYTHON=/path/to/python" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || $(call apt_install,python3-venv) || true
	$(PYTHON) -m venv $(VENV)

$(RUNTIME): requirements.txt pyproject.toml | $(VENV)/bin/pip
	.ci/install-requirements $(PIP) requirements.txt "$(TORCH_INDEX_URL)"
	$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

$(DEV): requirements-dev.txt $(RUNTIME)
	.ci/install-requirements $(PIP) requirements-dev.txt "$(TORCH_INDEX_URL)"
	@touch $@

# The system's browser where there is one: Playwright's own needs libraries that only root can install.
$(BROWSER): $(DEV)
	command -v chromium || command -v chromium-browser || command -v google-chrome || \
		$(call apt_install,chromium) || $(VENV)/bin/playwright install chromium
	@touch $@

# In an environment of their own, which borrows torch: what they pin is not our business.
$(PEERS): $(DEV) benchmarks/peers/requirements.txt
	command -v wrk || $(call apt_install,wrk)
	$(VENV)/bin/python -m venv $(VENV)/peers
	$(VENV)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > \
		"$$($(VENV)/peers/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/service.pth"
	$(VENV)/peers/bin/pip install --quiet -r benchmarks/peers/requirements.txt
	@touch $@

# The accessibility checker that the page's tests run. Without npm only they fail, and say so.
$(AXE): tests/page/package.json
	@command -v npm >/dev/null || $(call apt_install,npm) || true
	npm install --prefix tests/page --no-package-lock --no-audit --no-fund --silent && touch $@ || true
