# make demo: reconstruct the bundled photos.  make train-demo: train shortly, evaluate, reconstruct them by that run.
# make test: the test suite.
# make test-fast: the part of it without the tests marked slow.
# make test-faults: runs that are killed again and again, alone and on several hosts; minutes.
# make bench: speed beside PyTorch, smplx, embree and LiteRT; ROWS=a,b measures some rows.
# make lint: ruff and basedpyright.  make docs: these pages and the API as HTML, in build/docs.
# All build .venv first when it is missing or older than the requirements. PYTHON picks the Python.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
DEMO := runs/demo

# A .venv whose Python is gone, after an upgrade of the system say, counts as missing.
ifeq ($(shell $(RUN) -c 'print(1)' 2>/dev/null),)
$(shell rm -f $(VENV)/.installed $(VENV)/.installed-dev $(VENV)/.installed-docs $(VENV)/.installed-bench)
endif
# train-demo's short run of synthetic_small: minutes instead of an hour. So few steps go to the hand's
# pose first, less to the camera; hand size, which takes long to learn, comes from a prior.
DEMO_SETTINGS := --set training.num_steps=460 --set data.train_examples=9216 \
  --set optimizer.warmup_steps=40 --set loss.camera=700 --set loss.joints_2d=5 \
  --set loss.shape_prior=3 --set training.log_every=20
# A file's tests stay in one process, which makes what they share once. The longest files come first
# (tests/conftest.py), so that both processes end together; xdist would sort by the number of tests.
# Tests start many processes, which would compile these sources anew where Python may not keep that.
TESTS := env -u PYTHONDONTWRITEBYTECODE $(RUN) -m pytest -n 2 --dist loadfile --no-loadscope-reorder
# Large pages for XLA's many short-lived buffers: fewer page faults, about a fifth less CPU time.
export GLIBC_TUNABLES = glibc.malloc.hugetlb=1

.PHONY: demo train-demo test test-fast test-faults bench lint docs venv venv-dev venv-docs venv-bench clean

venv: $(VENV)/.installed

venv-dev: $(VENV)/.installed-dev

venv-docs: $(VENV)/.installed-docs

venv-bench: $(VENV)/.installed-bench

$(VENV)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys' 2>/dev/null || { \
	  echo "'$(PYTHON)' does not run. Install Python 3.11 or newer, or name one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "hand_jax needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) -V 2>&1). Name another: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
	  echo "'$(PYTHON)' lacks the venv module. On Debian or Ubuntu: apt install python3-venv"; exit 1; }
	@$(RUN) -c 'import pip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "Creating $(VENV) with $$($(PYTHON) -V 2>&1)."; $(PYTHON) -m venv --clear $(VENV); }
	@echo "Installing what hand_jax trains and runs with into $(VENV) (about 1 GB, one to three minutes)."
	@$(RUN) -m pip install --quiet --disable-pip-version-check -e '.[train]'
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@echo "Installing the test tools into $(VENV)."
	@$(RUN) -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

$(VENV)/.installed-docs: $(VENV)/.installed
	@echo "Installing what writes the documentation into $(VENV)."
	@$(RUN) -m pip install --quiet --disable-pip-version-check -e '.[docs]'
	@touch $@

$(VENV)/.installed-bench: $(VENV)/.installed
	@echo "Installing what the benchmarks compare with."
	@$(RUN) -m pip install --quiet --disable-pip-version-check -e '.[benchmark]'
	@touch $@

demo: venv
	@$(RUN) -m hand_jax --demo_photos --output=demo_output --overwrite

train-demo: venv
	@echo "1/3 Training synthetic_small on rendered hands (bounded; resumes if interrupted)."
	@$(RUN) -m experiments.train --config=synthetic_small --workdir=$(DEMO) $(DEMO_SETTINGS)
	@echo "2/3 Evaluating on the held-out synthetic hands."
	@$(RUN) -m experiments.evaluate --workdir=$(DEMO) --dataset=synthetic_hands --split=test
	@echo "3/3 Reconstructing the bundled photos by that run."
	@$(RUN) -m experiments.reconstruct --demo_photos --workdir=$(DEMO) --output=demo_output/trained --overwrite
	@echo "Done. Overlays and meshes: demo_output/trained/   training and evaluation: $(DEMO)/"

test: venv-dev
	$(TESTS)

test-fast: venv-dev
	$(TESTS) -m 'not slow'

test-faults: venv-dev
	$(TESTS) -m faults tests/faults

bench: venv-bench
	@$(RUN) -m benchmarks --rows=$(ROWS)

lint: venv-dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/basedpyright

# Warnings are errors: a link that leads nowhere, a docstring that does not read as one.
docs: venv-docs
	$(RUN) -m sphinx --fail-on-warning --keep-going --quiet docs build/docs
	@echo "The documentation: build/docs/index.html"

clean:
	rm -rf $(VENV) .venv-other $(DEMO) demo_output build docs/api *.egg-info .pytest_cache .ruff_cache .jax_cache .hypothesis
