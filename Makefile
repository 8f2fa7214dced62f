# One line each: the first `make` anything builds .venv; `make PYTHON=python3.12 ...` chooses the interpreter.
PYTHON ?= python3
RUN := .venv/bin/python -m
NOTEBOOKS := $(wildcard notebooks/*.ipynb)
# one page that asks no other host for scripts
PAGE := --embed-images $(foreach script,mathjax require_js jquery,--HTMLExporter.$(script)_url=)

BY_FILE := --dist loadfile --no-loadscope-reorder
QUICK := audit cache config data drawing lora models preflight runs system tiny training widgets

.PHONY: demo lab gallery test quick soak matrix lint rehearsal bench infra image
.DEFAULT_GOAL := demo

demo: .venv/ready  ## the main job, from pictures to a LoRA, as one HTML page
	@$(RUN) nbconvert --execute --to html $(PAGE) --output-dir output --output quickstart notebooks/00_quickstart.ipynb
	@echo "The notebook, with its pictures: $(CURDIR)/output/quickstart.html"
	@echo "The run, with its LoRA files:    $(CURDIR)/output/quickstart/ (of a second time quickstart-2/, and so on)"

gallery: .venv/ready  ## every notebook, executed (06 on an emulated SageMaker), as pages: docs/gallery
	@PYTHONPATH=tests $(RUN) sagemaker_emulator .venv/bin/python docs/make_gallery.py

lab: .venv/ready  ## JupyterLab on this folder, with the page that says which notebook is for whom
	@$(RUN) jupyterlab $(if $(filter 0,$(shell id -u)),--allow-root) --notebook-dir . notebooks/start_here.ipynb

test: .venv/ready  ## all tests and all notebooks, on two cores
	@$(RUN) pytest -n 2 $(BY_FILE) -m "not soak" --nbmake --nbmake-timeout=1200 tests $(filter-out %06_sagemaker.ipynb %start_here.ipynb,$(NOTEBOOKS))

quick: .venv/ready  ## for who edits, under 90 s: no training, no browser, no notebook, no cloud
	@$(RUN) pytest -n 2 $(BY_FILE) -p no:nbmake -m "not soak and not slow" $(addprefix tests/,$(QUICK))

soak: .venv/ready  ## the long checks: twenty kills, three training seeds, the real cdk command line, the matrix
	@$(RUN) pytest -m soak tests

matrix: .venv/ready  ## Python 3.10 to 3.13 with the pins, and the lowest versions allowed: ROWS="3.10 3.10-lowest" chooses
	@.venv/bin/python tests/matrix.py $(ROWS)

lint: .venv/ready  ## style, who may import whom, types, stored notebook outputs, spelling
	@$(RUN) ruff check . && $(RUN) ruff format --check . && .venv/bin/lint-imports --no-logo && $(RUN) mypy
	@$(RUN) nbstripout --verify $(NOTEBOOKS) && $(RUN) codespell_lib

rehearsal: .venv/ready  ## full-size SDXL of random weights, from base to LoRA, stage by stage with time and memory; 14 GB of disk
	@$(RUN) benchmarks.rehearsal $(REHEARSAL)

bench: .venv/ready  ## beside diffusers' script, and how cost grows: make bench SCRIPT=path/to/train_text_to_image_lora_sdxl.py
	@$(RUN) benchmarks.compare $(if $(SCRIPT),--script $(SCRIPT)) $(BENCH) && $(RUN) benchmarks.growth $(GROWTH)

infra: .venv/ready  ## the CDK app: lint, types, tests, synthesis with cdk-nag, cfn-lint; needs Node
	@cd infrastructure && npm ci && npm run check && ../.venv/bin/cfn-lint cdk.out/SdxlNb.template.json

image:  ## the training image, built and tried with docker or podman; BASE_IMAGE=... chooses what it stands on
	@BASE_IMAGE=$(BASE_IMAGE) infrastructure/image.sh

.venv/ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "sdxl_nb needs Python 3.10 or newer and this is " + sys.version.split()[0] + ": run make with PYTHON=python3.11, say.")'
	@echo "Setting up .venv, once: a few minutes and some gigabytes of PyTorch and Jupyter"
	@$(PYTHON) -m venv .venv
	@$(RUN) pip install --quiet --constraint constraints.txt --editable '.[test]'
	@touch $@
