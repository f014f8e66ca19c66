# Every target works in its own virtual environment, made from the pins in constraints.txt.
#   make quickstart                 the whole way of a model on generated data
#   make test PADDLE=2.6.2          the same tests on another Paddle
#   make venv PYTHON=python3.12     another Python, 3.10 to 3.12

PADDLE ?= 3.3.1
PYTHON ?= $(shell sh tools/find_python.sh)
VENV := $(if $(filter 3.3.1,$(PADDLE)),.venv,.venv-$(PADDLE))
BIN := $(VENV)/bin
STAMP := $(VENV)/.complete
EXTRAS := test
JOBS ?= 2

.PHONY: venv quickstart test test-slow lint bench tipc parity docs serve clean

venv: $(STAMP)

$(STAMP): setup.py constraints.txt tools/check_system.py
	@test -n "$(PYTHON)" || { echo "Python 3.10, 3.11 or 3.12 is needed; give one with PYTHON=..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "setuptools<81" wheel
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt paddlepaddle==$(PADDLE) -e ".[$(EXTRAS)]"
	$(BIN)/python tools/check_system.py
	touch $(STAMP)

quickstart: $(STAMP)
	$(BIN)/python tools/quickstart.py

lint: $(STAMP)
	$(BIN)/ruff check .

test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadfile

test-slow: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadfile -m slow

bench: $(STAMP)
	$(BIN)/python benchmarks/run.py

tipc: $(STAMP)
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python test_tipc/run_all.py

clean:
	rm -rf .venv .venv-* output build *.egg-info
