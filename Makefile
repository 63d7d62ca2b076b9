# make test    everything that is checked before a change goes in
# make demo    export the sample model, segment a video, show the result
#
# Both set up a virtual environment in .venv first. Choose its Python with  make PYTHON=python3.12 test

PYTHON ?= python3
VENV := .venv
READY := $(VENV)/.ready
RUN := $(VENV)/bin/python

.PHONY: test demo lint types bench setup clean
# A file of tests stays in one process, which makes what they share once; the long files come before the many short ones.
test: lint types
	$(RUN) -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

demo: $(READY)
	$(RUN) -m samples.street.demo

lint: $(READY)
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

# mypy finds modules by folder name, so it is shown the rooms under their import names.
TYPES := build/types
types: $(READY)
	@rm -rf $(TYPES) && mkdir -p $(TYPES)/proscale_deploy
	@ln -s $(CURDIR)/proscale_deploy/* $(CURDIR)/export $(CURDIR)/runtime $(TYPES)/proscale_deploy/
	@ln -s $(CURDIR)/samples $(TYPES)/samples
	cd $(TYPES) && $(CURDIR)/$(RUN) -m mypy --config-file $(CURDIR)/pyproject.toml \
		--cache-dir $(CURDIR)/.mypy_cache -p proscale_deploy -p samples

# The default is what `make demo` leaves.
MODEL ?= demo/street.onnx
bench: $(READY)
	$(RUN) -m proscale_deploy bench $(MODEL)

setup: $(READY)

$(READY): setup.py pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
		echo "error: $(PYTHON) is older than Python 3.10 or not there; choose another: make PYTHON=/path/to/python3" >&2; \
		exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' || { \
		echo "error: $(PYTHON) cannot make virtual environments; on Debian and Ubuntu: sudo apt install python3-venv" >&2; \
		exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --editable '.[dev]' --constraint constraints.txt
	@# Without X11 and OpenGL libraries OpenCV's usual wheel does not load; the one without windows takes its place.
	@$(RUN) -c 'import cv2' 2>/dev/null || $(RUN) -m pip install --quiet --force-reinstall --no-deps \
		opencv-python-headless --constraint constraints.txt
	@touch $@

clean:
	rm -rf build $(VENV) .mypy_cache .pytest_cache .ruff_cache *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
