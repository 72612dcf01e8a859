# make demo     everything on this machine: Label Studio, the backend, the built-in sample
# make install  both virtual environments, nothing started; with uv where it is on the path (UV= for pip)
#               TORCH=cpu leaves CUDA out: PyTorch from TORCH_INDEX=ADDRESS, an index of CPU builds,
#               or, with uv, from the one that uv knows
# make test     all tests, with a real Label Studio, in three processes, which wait a lot (TEST_PROCESSES)
# make test-label-studio-ml   label-studio-ml's own server, in environments that this makes
# make check    ruff, mypy, the layers (import-linter), semgrep, and the site of the documentation
# make docs     the site of the documentation, in site/
# make audit    known vulnerabilities of what is installed (asks PyPI's advisory service)
# make lock     docker/requirements.lock anew: what the image installs, each file with its hash
# make fuzz     thirty times the inputs that the fuzzers of `make test` try
# make reference   docs/configuration.md and docs/commands.md anew, from the code
# make chaos    the long proof that nothing is lost, on SQLite and on PostgreSQL
# make originals   what the original code of GroundingDINO and Segment Anything answers, for tests
# make views    the rendered objects of the built-in sample, in an environment that this makes
# make bench    the benchmarks; BENCH_ARGS=FILE writes them as JSON too
# make bench-scale   what grows with the number of images; SCALE_ARGS="1000 10000 100000"
# make bench-label-studio   those that need a real Label Studio

PYTHON ?= python3
VENV := .venv
LS_VENV := .venv-label-studio
ML_VENV := .venv-label-studio-ml
ML_2_VENV := .venv-label-studio-ml-2
SEMGREP_VENV := .venv-semgrep
ORIGINALS_VENV := .venv-originals
VIEWS_VENV := .venv-views
LABEL_STUDIO_VERSION := 1.23.2
SEMGREP_VERSION := 1.185.0
DEMO_ARGS ?=
BENCH_ARGS ?=
SCALE_ARGS ?=
TEST_PROCESSES ?= 3

# What fetches packages, and from where PyTorch comes: TORCH is cpu, cuda or empty for the usual build.
UV ?= $(shell command -v uv)
TORCH ?=
TORCH_INDEX ?=

# Install packages ($(2)) into a virtual environment ($(1)).
add = $(if $(UV),$(UV) pip install --quiet --python $(1)/bin/python $(2),$(1)/bin/pip install --quiet $(2))

PYTEST := $(VENV)/bin/python -m pytest

.PHONY: demo install python torch chromium test test-label-studio-ml chaos fuzz check semgrep docs \
	audit lock reference bench bench-scale bench-label-studio originals views clean

demo: install
	$(VENV)/bin/alc demo $(DEMO_ARGS)

# Both environments side by side.
install: python
	@$(MAKE) --no-print-directory -j 2 $(VENV)/.installed $(LS_VENV)/.installed

# The Python that is there already, or the one to make the environments with.
FOUND := $(or $(wildcard $(VENV)/bin/python),$(PYTHON))
NEEDED := This needs Python 3.10 to 3.13
TOO_OLD_OR_NEW := import sys; v = sys.version_info[:2]; sys.exit(None if (3, 10) <= v <= (3, 13) else \
	"$(NEEDED), and $(FOUND) is Python %d.%d: name another one, as in make demo PYTHON=python3.12" % v)

python:
	@command -v $(FOUND) >/dev/null || { echo "$(NEEDED), and there is no $(FOUND): install one, or" \
		"name it, as in make demo PYTHON=python3.12" >&2; exit 1; }
	@$(FOUND) -c '$(TOO_OLD_OR_NEW)'
	@$(FOUND) -c 'import ensurepip' 2>/dev/null || { echo "$(NEEDED) with its module venv: on Debian" \
		"and Ubuntu, install the package python3-venv" >&2; exit 1; }

$(VENV)/.installed: setup.cfg pyproject.toml
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	@$(MAKE) --no-print-directory torch
	$(call add,$(VENV),--editable '.[grounded-sam]')
	touch $@

# PyTorch before the rest, which keeps the build that is there.
torch:
	@:
ifneq ($(TORCH_INDEX),)
	$(call add,$(VENV),--index-url '$(TORCH_INDEX)' torch torchvision)
else ifneq ($(filter-out cpu cuda,$(TORCH)),)
	@echo "TORCH must be cpu or cuda, not $(TORCH)" >&2; exit 1
else ifneq ($(filter cpu,$(TORCH)),)
	@test -n '$(UV)' || { echo "TORCH=cpu needs uv on the path, or TORCH_INDEX=ADDRESS, an index of" \
		"PyTorch's CPU builds, as its installation page names one" >&2; exit 1; }
	$(call add,$(VENV),--torch-backend cpu torch torchvision)
endif
ifneq ($(TORCH)$(TORCH_INDEX),)
	@$(VENV)/bin/python -c 'import torchvision' 2>/dev/null || { echo "The installed torchvision does" \
		"not run with the installed PyTorch: TORCH_INDEX must have builds of both that belong" \
		"together; remove $(VENV), name another index, and try again" >&2; exit 1; }
endif

# What tests, checks and the site of the documentation need besides.
WITH_TOOLS := .[grounded-sam,test,docs]
$(VENV)/.tools: $(VENV)/.installed
	$(call add,$(VENV),--editable '$(WITH_TOOLS)')
	touch $@

# Any of its commands migrates its database: most of a minute, which the first start is spared.
MIGRATED := $(LS_VENV)/.migrated/label_studio-$(LABEL_STUDIO_VERSION)

$(LS_VENV)/.installed: Makefile
	test -x $(LS_VENV)/bin/python || $(PYTHON) -m venv $(LS_VENV)
	$(call add,$(LS_VENV),label-studio==$(LABEL_STUDIO_VERSION))
	rm -rf '$(MIGRATED)' '$(MIGRATED).part'
	-COLLECT_ANALYTICS=false SENTRY_DSN= FRONTEND_SENTRY_DSN= $(LS_VENV)/bin/label-studio version \
		--data-dir "$$PWD/$(MIGRATED).part" >/dev/null 2>&1 \
		&& mv '$(MIGRATED).part' '$(MIGRATED)'
	touch $@

# A Chromium for the tests: one on the path, else Debian's package, else playwright's own.
chromium: $(VENV)/.tools
	@if command -v chromium chromium-browser google-chrome; then :; \
	elif (apt-get update && apt-get install -y chromium) >/dev/null 2>&1; \
	then echo "installed Debian's chromium"; \
	else echo "fetching playwright's chromium"; $(VENV)/bin/playwright install chromium; fi
	@$(VENV)/bin/playwright --version >/dev/null 2>&1 \
		|| (apt-get update && apt-get install -y libatomic1) >/dev/null  # playwright's node needs it

# Tests write a lot that is soon deleted: into memory, where it has a folder and 8 GB to spare.
IN_MEMORY := $(shell test -w /dev/shm && df -Pk /dev/shm | awk 'NR == 2 && $$4 > 8e6 {print "TMPDIR=/dev/shm"}')

# Hundreds of their processes import the package: Python keeps what it has compiled.
test: install $(VENV)/.tools chromium
	$(IN_MEMORY) OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(PYTEST) -n $(TEST_PROCESSES) --dist loadscope \
		--no-loadscope-reorder $(PYTEST_ARGS)

# Version 1.0.9 and 2.x (ML_2_SOURCE=FOLDER for a copy of its repository; without git, 1.0.9 alone),
# each with the requirements that docker/label-studio-ml/ gives, and PyTorch from nowhere.
ML_2_SOURCE ?= git+https://github.com/HumanSignal/label-studio-ml-backend.git

test-label-studio-ml: install $(VENV)/.tools $(ML_VENV)/.installed
	$(MAKE) $(ML_2_VENV)/.installed || echo "label-studio-ml 2.x cannot be installed; 1.0.9 alone"
	OMP_NUM_THREADS=1 $(PYTEST) tests/e2e/test_label_studio_ml.py $(PYTEST_ARGS)

$(ML_VENV)/.installed: docker/label-studio-ml/requirements.txt \
		docker/label-studio-ml/requirements-base-1.0.9.txt
	test -x $(ML_VENV)/bin/python || $(PYTHON) -m venv $(ML_VENV)
	$(ML_VENV)/bin/pip install --quiet -r docker/label-studio-ml/requirements-base-1.0.9.txt
	$(ML_VENV)/bin/pip install --quiet -r docker/label-studio-ml/requirements.txt
	touch $@

$(ML_2_VENV)/.installed: docker/label-studio-ml/requirements.txt
	test -x $(ML_2_VENV)/bin/python || $(PYTHON) -m venv $(ML_2_VENV)
	$(ML_2_VENV)/bin/pip install --quiet -r docker/label-studio-ml/requirements.txt
	$(ML_2_VENV)/bin/pip install --quiet 'Flask>2.3' 'colorama~=0.4' 'semver~=3.0.2'
	$(ML_2_VENV)/bin/pip install --quiet --no-deps '$(ML_2_SOURCE)'
	touch $@

chaos: install $(VENV)/.tools
	CHAOS=long OMP_NUM_THREADS=1 $(PYTEST) -s tests/e2e/test_chaos.py

fuzz: $(VENV)/.tools
	FUZZ=long $(PYTEST) tests/fuzz $(PYTEST_ARGS)

check: $(VENV)/.tools docs semgrep
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

# Our own rules, which need no network; it has an environment of its own, since it pins much.
SEMGREP := SEMGREP_SEND_METRICS=off $(SEMGREP_VENV)/bin/semgrep
SEMGREP_OPTIONS := --config tools/semgrep.yml --metrics off --disable-version-check --quiet

semgrep: $(SEMGREP_VENV)/.installed
	$(SEMGREP) --test $(SEMGREP_OPTIONS) tools/semgrep_faults.py
	$(SEMGREP) scan $(SEMGREP_OPTIONS) --error alc_backend

$(SEMGREP_VENV)/.installed: Makefile
	test -x $(SEMGREP_VENV)/bin/python || $(PYTHON) -m venv $(SEMGREP_VENV)
	$(SEMGREP_VENV)/bin/pip install --quiet semgrep==$(SEMGREP_VERSION)
	touch $@

docs: $(VENV)/.tools
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/python -m mkdocs build --quiet --strict

audit: $(VENV)/.tools
	$(VENV)/bin/pip freeze --exclude-editable | $(VENV)/bin/pip-audit --strict --no-deps \
		--disable-pip --progress-spinner off --requirement /dev/stdin

# For the Python of docker/Dockerfile. UV_DEFAULT_INDEX names another registry than the usual one.
lock: $(VENV)/.tools
	$(VENV)/bin/uv pip compile setup.cfg docker/requirements.in --universal --python-version 3.11 \
		--extra postgres --extra s3 --extra gcs --extra azure --extra grounded-sam \
		--upgrade --generate-hashes --custom-compile-command 'make lock' --quiet \
		--output-file docker/requirements.lock

# The original code needs an old transformers, so it has an environment of its own.
originals: $(ORIGINALS_VENV)/.installed
	PYTHONPATH=. $(ORIGINALS_VENV)/bin/python -m tests.foundation.originals.make

$(ORIGINALS_VENV)/.installed: Makefile
	test -x $(ORIGINALS_VENV)/bin/python || $(PYTHON) -m venv $(ORIGINALS_VENV)
	$(ORIGINALS_VENV)/bin/pip install --quiet torch torchvision setuptools wheel
	$(ORIGINALS_VENV)/bin/pip install --quiet --no-build-isolation groundingdino-py==0.4.0 \
		segment-anything==1.0 'transformers>=4.57,<5' opencv-python-headless
	touch $@

# A path tracer, which nothing else needs.
views: $(VIEWS_VENV)/.installed
	$(VIEWS_VENV)/bin/python -m tools.render_views

$(VIEWS_VENV)/.installed: Makefile
	test -x $(VIEWS_VENV)/bin/python || $(PYTHON) -m venv $(VIEWS_VENV)
	$(VIEWS_VENV)/bin/pip install --quiet mitsuba==3.9.1 scikit-image pillow
	touch $@

reference: $(VENV)/.tools
	$(VENV)/bin/python -m tools.reference

bench: $(VENV)/.tools
	$(VENV)/bin/python -m benchmarks $(BENCH_ARGS)

bench-scale: $(VENV)/.tools
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m benchmarks.scale $(SCALE_ARGS)

bench-label-studio: install $(VENV)/.tools
	$(VENV)/bin/python -m benchmarks.label_studio $(BENCH_ARGS)

clean:
	rm -rf $(VENV) $(LS_VENV) $(ML_VENV) $(ML_2_VENV) $(SEMGREP_VENV) $(ORIGINALS_VENV) $(VIEWS_VENV) site *.egg-info .mypy_cache .ruff_cache .import_linter_cache .pytest_cache .hypothesis
