# make demo    set up, run the pipeline on real photographs, write demo/masks.json and demo/page.html
# make setup   .venv in the checkout, with ovskit and its tools
# make test    set up, then lint, types, import contracts, man pages and all tests
# make bench   the performance tables (minutes)
# make man     write the man pages from the commands

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready
# What the tests hold LVIS' scores against. It asks for matplotlib and another OpenCV, for a part that draws and that no test uses.
ORACLE := 'lvis>=0.5.3,<0.6'
NO_ORACLE := echo "setup: no lvis package; the tests that need it are skipped" >&2

.PHONY: demo setup test test-slow lint man bench clean
.DELETE_ON_ERROR:

setup: $(STAMP)

$(STAMP): pyproject.toml
	@if command -v uv >/dev/null 2>&1; then \
		echo "setup: uv"; \
		{ [ -x $(BIN)/python ] || uv venv --quiet $(VENV); } && \
		uv pip install --quiet --python $(BIN)/python -e '.[dev,demo]' && \
		{ uv pip install --quiet --python $(BIN)/python --no-deps $(ORACLE) || $(NO_ORACLE); }; \
	else \
		echo "setup: venv and pip (uv would be faster); downloads torch, so this takes some minutes"; \
		$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
			{ echo "setup: ovskit needs Python 3.11 or newer; try make PYTHON=python3.12" >&2; exit 1; }; \
		{ [ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV); } && \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev,demo]' && \
		{ $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps $(ORACLE) || $(NO_ORACLE); }; \
	fi
	@touch $@

demo: $(STAMP)
	@PATH="$(CURDIR)/$(BIN):$$PATH" bash examples/quickstart.sh demo

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@mkdir -p build/types/ovskit && ln -sfn ../../../core build/types/ovskit/core && ln -sfn ../../../cli build/types/ovskit/cli
	MYPYPATH=build/types $(BIN)/mypy -p ovskit.core -p ovskit.cli
	$(BIN)/lint-imports
	$(BIN)/python man/generate.py --check

# Without machine code from before, so that every kernel that the tests need is compiled once.
# As many workers as cores, so one thread each; work is stolen in runs of neighbours, which share what they set up.
# The tests start a thousand commands: each would compile its modules again where a container forbids Python to keep bytecode.
test: lint
	@find core -name '*.nb[ic]' -delete
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --dist worksteal

test-slow: $(STAMP)
	$(BIN)/python -m pytest -q -m slow

man: $(STAMP)
	$(BIN)/python man/generate.py

# How good masks are takes an hour and more a table: bench/quality.py, builtin.py, descriptor.py, segmenter.py, phases.py, by themselves.
SPEED := startup rle stream pairs read_masks merge pool hier eval miou kmeans pipeline refine convcrf concepts neighbours train
bench: $(STAMP)
	@for name in $(SPEED); do echo "== bench/$$name.py"; $(BIN)/python bench/$$name.py || exit 1; done

clean:
	rm -rf $(VENV) demo build *.egg-info
