# Everything a newcomer needs is `make demo` and `make test`; `make help` lists the rest.

PYTHON ?= python3
BIN := .venv/bin
# glibc gives large blocks back after every training step and fetches them again; this has it keep them.
CPU_MEMORY := MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=20000000000 MALLOC_TOP_PAD_=268435456
GPU_MEASUREMENTS = docs/measurements/$(shell date +%F)-gpu.md

.DEFAULT_GOAL := help

help: ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

demo: .venv/local ## Train on sixteen bundled pictures; write a contact sheet and the training's report
	@$(BIN)/personae demo

test: check ## Install everything, check, and run every test that takes less than minutes
	$(MAKE) --no-print-directory --jobs=2 --output-sync=line test-units test-processes

# Side by side: the first keep one core busy, the second mostly wait for the processes that they start.
test-units: .venv/test
	$(BIN)/pytest -m "not slow" tests/unit tests/manifests

test-processes: .venv/test
	$(BIN)/pytest -m "not slow" --ignore tests/unit --ignore tests/manifests

test-slow: .venv/test ## Run the tests that train for minutes
	$(BIN)/pytest -m slow

# -v and --durations: what was tried, and how long each took.
test-faults: .venv/test ## Kill, freeze and cut off everything while it works, at every point that has a name (40 minutes)
	$(BIN)/pytest -m faults -v --durations=0 --durations-min=1

bench: .venv/test ## Hold the speed of training and of serving against what diffusers has to offer (40 minutes)
	$(CPU_MEMORY) OMP_NUM_THREADS=1 $(BIN)/python -m tests.benchmarks.training_speed
	$(CPU_MEMORY) $(BIN)/python -m tests.benchmarks.serving_speed

bench-gpu: .venv/test ## The same on a GPU, in the shapes of SD1.5, SDXL and FLUX.1, into docs/measurements/; skipped without one
	$(BIN)/python -m tests.benchmarks.training_speed_gpu --out $(GPU_MEASUREMENTS)
	$(BIN)/python -m tests.benchmarks.memory_gpu
	$(BIN)/python -m tests.benchmarks.serving_speed_gpu --out $(GPU_MEASUREMENTS)

check: .venv/test .venv-protos/ready ## Format, lint, types, import rules, contract, stale generated code, file length
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/buf lint
	$(BIN)/buf breaking --against protos/v1.binpb
	.venv-protos/bin/python protos/generate.py check
	$(BIN)/pytest --quiet tests/architecture

protos: .venv/test .venv-protos/ready ## Regenerate the Python code in client/personae/v1 from protos/
	.venv-protos/bin/python protos/generate.py write

docs: .venv/test ## Build the pages as a site in dist/docs; a link that leads nowhere is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

manifests: .venv/test ## Render k8s/, validate it, start the services from the files of their images
	$(BIN)/pytest tests/manifests

lock: .venv/test ## Pin and hash what the images install, from pyproject.toml
	$(BIN)/python -m k8s.images.lock write

sbom: .venv/test ## List what the images install, as CycloneDX, in dist/
	@mkdir -p dist
	for image in trainer inference; do \
		{ cat k8s/images/$$image.lock; sed -n 's/^ARG TORCH=//p' k8s/images/$$image.Dockerfile; } \
		| $(BIN)/cyclonedx-py requirements --output-reproducible --output-file dist/$$image.cdx.json - || exit 1; \
	done

pin-images: .venv/test ## Turn the tags of other people's images into digests; REGISTRY=https://… is where they are asked for
	$(BIN)/python -m k8s.images.pin $(REGISTRY)

base-model: .venv/test ## Make the bundled base model from nothing (hours on a CPU); a rerun goes on where it stopped
	$(CPU_MEMORY) $(BIN)/python -m base_models.toon_64.recipe make

base-model-eval: .venv/test ## Measure the committed base model again and hold it against its figures.json
	$(BIN)/python -m base_models.toon_64.recipe compare

judges: .venv/test ## Train the judges of toon pictures again (an hour on a CPU)
	$(CPU_MEMORY) $(BIN)/python -m base_models.likeness.recipe.identity --pictures .local/base-model/pictures \
		--output base_models/likeness/identity_encoder.safetensors
	$(CPU_MEMORY) $(BIN)/python -m base_models.likeness.recipe.attributes --pictures .local/base-model/pictures \
		--output base_models/likeness/attributes.safetensors

clean: ## Stop nothing, delete what `make` and `personae up` made: environments, object store, caches
	rm -rf .venv .venv-protos .local dist .pytest_cache .ruff_cache .mypy_cache .import_linter_cache

# pip installs torch alone and first, so that the build it finds (CPU or CUDA) is the one that stays.
.venv/torch:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; set PYTHON=")'
	@echo "installing into .venv; a minute or two, most of it torch"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet 'torch==2.13.*'
	@touch $@

.venv/local: .venv/torch pyproject.toml
	$(BIN)/python -m pip install --quiet --editable '.[cli]' --group local
	@touch $@

.venv/test: .venv/local pyproject.toml
	$(BIN)/python -m pip install --quiet --editable '.[cli]' --group test
	@touch $@

# The code generator of the oldest protobuf that the client supports, apart from everything else.
.venv-protos/ready: pyproject.toml
	$(PYTHON) -m venv .venv-protos
	.venv-protos/bin/python -m pip install --quiet --upgrade pip
	.venv-protos/bin/python -m pip install --quiet 'grpcio-tools==1.71.2' 'mypy-protobuf==3.6.0'
	@touch $@

.PHONY: help demo test test-units test-processes test-slow test-faults check protos docs manifests lock sbom pin-images bench bench-gpu base-model base-model-eval judges clean
