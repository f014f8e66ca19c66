# Every target works in its own virtual environment, made from the pins in constraints.txt.
#   make quickstart                 the whole way of a model on generated data
#   make test PADDLE=2.6.2          the same tests on another Paddle, in .venv-2.6.2
#   make venv PYTHON=python3.12     another Python, 3.10 to 3.12, in .venv-python3.12
#   make test-core                  without PaddleSeg, with NumPy 2 and current libraries: constraints-core.txt, .venv-core

PADDLE ?= 3.3.1
PYTHON ?= $(shell sh tools/find_python.sh)
# A Python or Paddle that was asked for has a folder of its own, so that none is used in place of another.
CHOSEN := $(if $(filter file undefined,$(origin PYTHON)),,-$(notdir $(PYTHON)))
VENV := .venv$(if $(filter 3.3.1,$(PADDLE)),,-$(PADDLE))$(CHOSEN)
BIN := $(VENV)/bin
STAMP := $(VENV)/.complete
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
TEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(or $(JOBS),2) --dist loadfile

# --clear would empty what a link leads to, such as an environment that several checkouts share.
make_venv = @test ! -L $(1) || { echo "make: $(1) is a link; remove it, or link to a complete environment"; exit 1; }; \
	echo "$(PYTHON) -m venv --clear $(1)"; $(PYTHON) -m venv --clear $(1)

.PHONY: venv quickstart test test-core test-slow lint bench bench-backends bench-training gpu-check tipc parity docs serve lock sbom clean

venv: $(STAMP)

$(STAMP): pyproject.toml constraints.txt tools/check_system.py
	@test -n "$(PYTHON)" || { echo "Python 3.10, 3.11 or 3.12 is needed; give one with PYTHON=..."; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' || \
		{ echo "$(PYTHON) is not a Python 3.10, 3.11 or 3.12; give one with PYTHON=..."; exit 1; }
	@echo "making $(VENV) with $(PYTHON) and Paddle $(PADDLE); this takes minutes, once"
	$(call make_venv,$(VENV))
	$(INSTALL) setuptools wheel
	$(INSTALL) paddlepaddle==$(PADDLE) -e ".[test]"
	$(BIN)/python tools/check_system.py
	@touch $(STAMP)

quickstart: $(STAMP)
	$(BIN)/python tools/quickstart.py

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check --quiet .

test: lint
	$(TEST)
	$(if $(filter 3.3.1,$(PADDLE)),$(MAKE) test-core)

# The same package without PaddleSeg, with NumPy 2 and current libraries, and exported models where Paddle is not installed.
# Tests that need PaddleSeg are left out by tests/conftest.py and by the mark `paddleseg`.
CORE_TESTS = tests/cli/test_programs.py $(patsubst %,tests/config/test_%.py,lookup zoo) \
	$(patsubst %,tests/data/test_%.py,datasets transforms loading) tests/deployment/runtime tests/losses tests/models/test_families.py \
	$(patsubst %,tests/nn/test_%.py,attention disentangled_nonlocal) tests/optim \
	$(patsubst %,tests/training/test_%.py,amp checkpoint host_reads preflight trainer)
CORE := .venv-core$(CHOSEN)
RUNTIME := .venv-runtime$(CHOSEN)
INSTALL_LOCKED = -m pip install --quiet --disable-pip-version-check --require-hashes
INSTALL_CORE = -m pip install --quiet --disable-pip-version-check -c constraints-core.txt
test-core: $(CORE)/.complete $(RUNTIME)/.complete
	OMP_NUM_THREADS=1 RUNTIME_PYTHON="$(abspath $(RUNTIME)/bin/python)" $(CORE)/bin/python -m pytest -n $(or $(JOBS),2) \
		--dist loadfile -m "not slow and not paddleseg" $(CORE_TESTS)

# From exact files, see docs/supply_chain.md.
$(CORE)/.complete: pyproject.toml locks/build.txt locks/test-core.txt
	$(call make_venv,$(CORE))
	$(CORE)/bin/python $(INSTALL_LOCKED) -r locks/build.txt
	$(CORE)/bin/python $(INSTALL_LOCKED) --no-build-isolation -r locks/test-core.txt
	$(CORE)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

# `pip install paddle-dnl[onnxruntime]`, nothing else.
$(RUNTIME)/.complete: pyproject.toml constraints-core.txt
	$(call make_venv,$(RUNTIME))
	$(RUNTIME)/bin/python $(INSTALL_CORE) -e ".[onnxruntime]"
	@touch $@

test-slow: $(STAMP)
	$(TEST) -m "slow or reliability"

# Everything that compares with the original implementations, the slow parts too. First the originals take their training
# steps anew, in PyTorch and in an environment of their own; TORCH=file.whl installs another build of it.
parity: $(STAMP) .venv-parity/.complete
	OMP_NUM_THREADS=1 .venv-parity/bin/python tests/reference/initialisation.py --check
	OMP_NUM_THREADS=1 .venv-parity/bin/python tests/reference/trajectories.py --check
	OMP_NUM_THREADS=1 .venv-parity/bin/python tests/reference/from_initialisation.py --check
	OMP_NUM_THREADS=1 .venv-parity/bin/python tests/reference/backbones.py --check
	.venv-parity/bin/python tests/reference/mmseg_facts.py --check
	$(TEST) --timeout 3600 -m "slow or not slow" tests/golden tests/weights/convert tests/models tests/nn

.venv-parity/.complete: pyproject.toml constraints.txt
	$(call make_venv,.venv-parity)
	$(subst $(BIN),.venv-parity/bin,$(INSTALL)) setuptools wheel $(or $(TORCH),torch)
	$(subst $(BIN),.venv-parity/bin,$(INSTALL)) -e ".[parity]"
	@touch $@

# make bench ARGS="block_64x128 --rounds 1"     one case, quickly
bench: $(STAMP)
	$(INSTALL) -e ".[onnx]"
	$(BIN)/python benchmarks/run.py $(ARGS)

gpu-check: $(STAMP)
	$(BIN)/paddle-dnl check-gpu $(ARGS)

# Exported models beside PaddleSeg's plain export, and beside mmsegmentation in PyTorch.
bench-backends: $(STAMP) .venv-parity/.complete
	$(INSTALL) -e ".[onnx]"
	$(BIN)/python benchmarks/backends.py --torch_python .venv-parity/bin/python $(ARGS)

# A training step beside mmsegmentation's in PyTorch.
bench-training: $(STAMP) .venv-parity/.complete
	$(BIN)/python benchmarks/training_step.py --torch_python .venv-parity/bin/python $(ARGS)

TIPC_MODE ?= lite_train_lite_infer
tipc: $(STAMP)
	@PATH="$(abspath $(BIN)):$$PATH"; export PATH; failed=; \
	for config in test_tipc/configs/*/train_infer_python.txt; do \
		bash test_tipc/prepare.sh $$config $(TIPC_MODE) && \
		bash test_tipc/test_train_inference_python.sh $$config $(TIPC_MODE) || failed="$$failed $$config"; \
	done; \
	test -z "$$failed" || { echo "failed:$$failed"; exit 1; }

# The variable keeps the theme from printing its advertisement. It is maintained until May 2027.
docs: $(STAMP)
	$(INSTALL) -e ".[docs]"
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

# make serve                                                 what `make quickstart` exported
# make serve MODEL=output/inference_model ARGS="--port 80"   another exported folder; settings in docs/serving.md
# make serve CONFIG=a.yml WEIGHTS=model.pdparams SHAPE="-1 3 512 1024"    exports first
MODEL ?= output/quickstart/inference_model
SERVED := $(if $(CONFIG),output/served_model,$(MODEL))
serve: $(STAMP)
	@test -z "$(CONFIG)" || test -n "$(WEIGHTS)" || { echo "make serve: CONFIG needs WEIGHTS=model.pdparams"; exit 1; }
	$(if $(CONFIG),$(BIN)/python export.py --config $(CONFIG) --model_path $(WEIGHTS) $(if $(SHAPE),--input_shape $(SHAPE)) --save_dir $(SERVED))
	@test -e "$(SERVED)" || { echo "make serve: there is no exported model in $(SERVED); run make quickstart first," \
		"or give MODEL=folder, or CONFIG=file.yml WEIGHTS=model.pdparams"; exit 1; }
	$(INSTALL) -e ".[serving]"
	$(BIN)/python deploy/serving/serve.py --model $(SERVED) $(ARGS)

# Renews the lock files from pyproject.toml and the constraints; docs/supply_chain.md says when and what to do then.
LOCK := $(CURDIR)/.venv-lock/bin/uv pip compile --quiet --universal --python-version 3.10 --generate-hashes --no-header --no-annotate
CORE_LIMITS := -c constraints-core.txt -c locks/limits.in
lock: .venv-lock/.complete
	$(LOCK) locks/tools.in -o locks/tools.txt $(UPGRADE)
	$(LOCK) locks/build.in -c locks/limits.in -o locks/build.txt $(UPGRADE)
	$(LOCK) pyproject.toml --extra cpu --extra test-core $(CORE_LIMITS) -o locks/test-core.txt $(UPGRADE)
	$(LOCK) pyproject.toml --extra cpu --extra serving $(CORE_LIMITS) -o locks/serving.txt $(UPGRADE)
	$(LOCK) pyproject.toml --extra onnxruntime --extra openvino --extra serving $(CORE_LIMITS) -o locks/serving-cpu.txt $(UPGRADE)
	$(LOCK) pyproject.toml --extra onnxruntime $(CORE_LIMITS) -o locks/onnxruntime.txt $(UPGRADE)
	# With PaddleSeg, which has no Python 3.13: a copy of the project, since only pyproject.toml can say that.
	rm -rf .venv-lock/project && mkdir .venv-lock/project && cp -r setup.py README.md LICENSE NOTICE paddle_dnl configs .venv-lock/project
	(cat pyproject.toml; echo '[tool.uv]'; echo "environments = [\"python_version < '3.13' and sys_platform == 'linux' and platform_machine == 'x86_64'\"]") \
		> .venv-lock/project/pyproject.toml
	cp locks/test.txt .venv-lock/project/
	cd .venv-lock/project && $(LOCK) pyproject.toml --extra cpu --extra test -c $(CURDIR)/constraints.txt -c $(CURDIR)/locks/limits.in \
		-o test.txt $(UPGRADE)
	cp .venv-lock/project/test.txt locks/test.txt

# What is in the service's container and in the environment of the tests: CycloneDX in JSON.
sbom: $(STAMP) .venv-lock/.complete
	mkdir -p output
	.venv-lock/bin/cyclonedx-py requirements --output-reproducible --of JSON -o output/sbom-serving.cdx.json locks/serving.txt
	.venv-lock/bin/cyclonedx-py environment --output-reproducible --of JSON --pyproject pyproject.toml \
		-o output/sbom-environment.cdx.json $(BIN)/python

.venv-lock/.complete: locks/tools.txt
	$(call make_venv,.venv-lock)
	.venv-lock/bin/python $(INSTALL_LOCKED) -r locks/tools.txt
	@touch $@

# Checkpoints and results in output/ are not rubbish and stay.
clean:
	rm -rf .venv .venv-* build dist site *.egg-info .pytest_cache .ruff_cache .hypothesis
