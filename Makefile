# Every target sets up what it needs: Python 3.11 or newer and make are enough.
.DEFAULT_GOAL := help
.PHONY: help setup book pdf links test mutation coverage fuzz audit test-long mutants pages notebooks embedded colab sweep test-sweep test-slurm benchmarks lock clean

BIN := .venv/bin
# Python keeps what it compiled, also where the environment forbids it: each test that starts a
# process would compile torch and the rest of its imports anew (12 s instead of 4).
export PYTHONDONTWRITEBYTECODE :=
READY := .venv/.ready
# The first interpreter that is new enough; `make PYTHON=...` overrides.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)

help: ## List the targets
	@grep -hE '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(READY) ## Make .venv and install everything (the other targets do this by themselves)

# --no-compile: Python compiles what it imports, which is a small part of what torch brings.
$(READY): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "No Python 3.11 or newer found: make PYTHON=/path/to/python3"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt --editable '.[dev]'
	$(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt --no-deps torchattacks
	@touch $@

book: $(READY) ## Build the book; prints the path of its first page
	$(BIN)/jupyter-book build book/ -W -n --keep-going
	@echo "The book: $(CURDIR)/_build/html/index.html"

links: $(READY) ## Follow the book's links to other sites
	HW3_BOOK_EXECUTION=off $(BIN)/jupyter-book build book/ --builder linkcheck

pdf: book ## Print the built pages as one PDF, with Chromium; the pages then offer it
	$(BIN)/python book/_ext/edition.py

SHORT := not browser and not sweep and not slurm
QUICK := $(SHORT) and not long and not colab
# One thread a process: the tests already keep every core busy.
test: export OMP_NUM_THREADS = 1
test: $(READY) ## Check style, types, the library, the notebooks' outputs
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.citation-file-format CITATION.cff
	$(BIN)/zizmor --offline --quiet .github
	$(BIN)/pytest -n auto --maxprocesses 8 --dist worksteal -m "$(QUICK)" tests
	$(BIN)/pytest --nbval -n auto --maxprocesses 8 --dist loadfile book

test-long: export OMP_NUM_THREADS = 1
test-long: $(READY) ## The laws that take long to check: all test images, five kills
	$(BIN)/pytest -n auto --maxprocesses 8 --dist worksteal -m "$(SHORT) and long" tests

colab: export OMP_NUM_THREADS = 1
colab: $(READY) ## Run each notebook alone, in an empty folder and a fresh environment with the wheel
	$(BIN)/pytest -n auto --maxprocesses 4 -m colab tests/book/test_colab.py

mutants: $(READY) ## Plant classic mistakes one at a time; a test must fail for each (OPTIONS="--only attacks")
	$(BIN)/python tests/mutants/run.py $(OPTIONS)

# mutmut is no part of .venv; it runs the tests there, so it has the versions that are pinned there.
MUTMUT := .venv-mutmut/.ready
$(MUTMUT): $(READY)
	rm -rf .venv-mutmut
	$(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt --target .venv-mutmut mutmut
	@touch $@

MODULE ?= hw3lib/stats.py
mutation: export OMP_NUM_THREADS = 1
mutation: $(MUTMUT) ## Change each expression of MODULE by machine; lists what no test notices (OPTIONS="--sample 80")
	PYTHONPATH=$(CURDIR)/.venv-mutmut $(BIN)/python tests/mutants/generated.py $(MODULE) $(OPTIONS)

coverage: export OMP_NUM_THREADS = 1
coverage: $(READY) ## Branches that `make test` takes: at least 95 % without figures and commands, 85 % of all
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -q -n auto --maxprocesses 8 --dist worksteal -m "$(QUICK)" tests
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report --fail-under 85
	$(BIN)/coverage report --fail-under 95 --omit "hw3lib/cli.py,hw3lib/__main__.py,hw3lib/book/*"

N ?= 100000
fuzz: $(READY) ## Read N batches with bytes changed at random (100,000 in half an hour); none may pass or run code
	HW3_FUZZ=$(N) $(BIN)/pytest -qs -o timeout=0 "tests/test_data.py::test_bytes_at_random_in_a_batch_are_refused_or_change_nothing[some]"

# These tools would move packages that the book pins, and look at .venv from outside.
AUDIT := .venv-audit/.ready
$(AUDIT):
	test -x .venv-audit/bin/python || $(PYTHON) -m venv .venv-audit
	.venv-audit/bin/python -m pip install --quiet --no-compile bandit cyclonedx-bom pip-audit pip-licenses
	@touch $@

LICENCES := --python $(BIN)/python --format markdown --no-version
audit: $(READY) $(AUDIT) ## Unsafe code, licences and a bill of materials (build/audit), known vulnerabilities
	.venv-audit/bin/bandit --quiet --configfile pyproject.toml --recursive hw3lib
	mkdir -p build/audit
	.venv-audit/bin/pip-licenses $(LICENCES) --output-file build/audit/licences.md
	.venv-audit/bin/cyclonedx-py environment $(BIN)/python --pyproject pyproject.toml \
		--output-reproducible --output-file build/audit/sbom.json
	@.venv-audit/bin/pip-audit --strict --no-deps --disable-pip --requirement constraints.txt || \
		{ echo "A package has a known vulnerability, or pypi.org, which knows them, does not answer: see above."; exit 1; }

PAGES ?=
pages: pdf ## Look at every built page in a headless browser (20 min on two cores; PAGES="expression of pytest -k")
	$(BIN)/pytest -n auto --maxprocesses 4 -m browser $(if $(PAGES),-k "$(PAGES)") tests/book

# The MyST text is what people edit; the .ipynb is made from it. `make notebooks NB=q1_03` does one.
NB ?=
notebooks: $(patsubst book/text/%.md,execute-%,$(wildcard book/text/$(NB)*.md)) ## Execute notebooks anew from their text; NB=q1_03 for one

execute-%: $(READY)
	$(BIN)/jupytext --quiet --update --to ipynb --output book/$*.ipynb book/text/$*.md
	$(BIN)/ruff check --quiet --fix --exit-zero book/$*.ipynb
	$(BIN)/ruff format --quiet book/$*.ipynb
	$(BIN)/jupytext --quiet --to md:myst --output book/text/$*.md book/$*.ipynb
	$(BIN)/jupyter execute --inplace --timeout=600 book/$*.ipynb
	$(BIN)/nbstripout --keep-output --keep-count --keep-id --extra-keys "metadata.language_info.version \
		metadata.papermill cell.metadata.papermill cell.metadata.execution" book/$*.ipynb

embedded: $(patsubst book/%.ipynb,embedded-%,$(wildcard book/q*.ipynb)) ## Train anew in each question's notebook, on the embedded data

embedded-%: $(READY)
	mkdir -p _build/embedded
	$(BIN)/papermill --no-progress-bar --cwd book -k python3 book/$*.ipynb _build/embedded/$*.ipynb \
		-p dataset $(if $(filter q1_%,$*),digits,shapes) -p epochs 2 \
		$(if $(filter q1_09% q1_11%,$*),-p num_samples 100)

# Snakemake moves packages that the book pins, so it has an environment of its own.
SWEEP := .venv-sweep/.ready
$(SWEEP): workflow/requirements.txt
	test -x .venv-sweep/bin/python || $(PYTHON) -m venv .venv-sweep
	.venv-sweep/bin/python -m pip install --quiet --no-compile --requirement workflow/requirements.txt
	@touch $@

benchmarks: $(READY) ## Time hw3lib beside what a user would pick instead (40 min; OPTIONS=--quick for 4)
	$(BIN)/python -m benchmarks $(OPTIONS)

SNAKEMAKE ?=
sweep: $(READY) $(SWEEP) ## Notebooks and settings over seeds, as workflow/config.yaml says; goes on where it stopped
	.venv-sweep/bin/snakemake --profile workflow/profiles/local $(SNAKEMAKE)

test-sweep: $(READY) $(SWEEP) ## Check that the sweep survives a killed job and an unreadable result
	$(BIN)/pytest -m sweep tests/test_workflow.py

test-slurm: $(READY) $(SWEEP) ## The same on Slurm; workflow/slurm-here.sh makes a cluster of this machine
	$(BIN)/pytest -m slurm tests/test_workflow.py

# Run with the oldest supported Python: what installs there installs on newer ones too. CUDA's
# libraries and Triton are left out, since torch itself pins them and only on Linux.
lock: ## Move every pin in constraints.txt to the newest version that fits
	rm -rf .venv-lock
	$(PYTHON) -m venv .venv-lock
	.venv-lock/bin/python -m pip install --quiet '.[dev]'
	.venv-lock/bin/python -m pip install --quiet --no-deps torchattacks
	grep '^#' constraints.txt > .venv-lock/constraints.txt
	.venv-lock/bin/python -m pip freeze --exclude hw3lib | grep -vE '^(cuda-|nvidia-|triton)' \
		>> .venv-lock/constraints.txt
	mv .venv-lock/constraints.txt constraints.txt
	rm -rf .venv-lock

clean: ## Remove what the targets made, except .venv
	rm -rf _build build *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
