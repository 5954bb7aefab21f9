# Each line is what it runs; everything lands in .venv.
PYTHON ?= python3
UV := .venv/bin/uv
# The machine's own certificates count, as they do for pip: a proxy may have added one.
export UV_SYSTEM_CERTS := 1

.PHONY: install demo test engines check bench bench-check growth fuzz model soak chaos scoreboard load docs format

install: .venv/.installed

.venv/.installed: pyproject.toml uv.lock
	test -x .venv/bin/python || $(PYTHON) -m venv .venv
	test -x $(UV) || .venv/bin/python -m pip install --quiet --disable-pip-version-check uv
	$(UV) sync --frozen --all-extras --quiet --inexact
	touch $@

demo: install
	.venv/bin/darkroom demo --json

test: install
	.venv/bin/python -m pytest

# The second tier: the tests of real engines that are installed here, long chaos, a million simulated jobs, the scoreboard.
engines: install
	.venv/bin/python -m pytest -m engine --timeout 0 || [ $$? -eq 5 ]  # 5: no test has the mark
	$(MAKE) chaos SECONDS=600
	$(MAKE) soak
	$(MAKE) scoreboard

check: install
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv/bin/lint-imports

bench: install
	.venv/bin/python -m tests.benchmarks

# In small sizes: fails when Darkroom is less than half as fast as it was, compared with the other side.
bench-check: install
	.venv/bin/python -m tests.benchmarks --quick --check

# Cost as work grows, as tables and as docs/images/growth.svg.
growth: install
	.venv/bin/python -m tests.benchmarks.growth

# Each property with so many examples: `make fuzz FUZZ_EXAMPLES=200000`.
fuzz: install
	HYPOTHESIS_PROFILE=fuzz FUZZ_EXAMPLES=$(or $(FUZZ_EXAMPLES),20000) .venv/bin/python -m pytest -m hypothesis --timeout 0 tests/jobs tests/webhooks

# Every interleaving of what can happen to a job, to a depth: `make model DEPTH=15`.
model: install
	PYTHONPATH=tests .venv/bin/python -m model $(DEPTH)

soak: install
	PYTHONPATH=tests .venv/bin/python -m simulation --jobs 1000000

# A seed is drawn when none is given; a run that fails prints it. SECONDS=120 takes the storage away for a minute.
chaos: install
	.venv/bin/python -m tests.chaos --seconds $(or $(SECONDS),60) $(if $(SEED),--seed $(SEED))

scoreboard: install
	.venv/bin/python -m tests.chaos.scoreboard

# 300 requests a second beside 100 waiting clients, for a minute.
load: install
	.venv/bin/python -m tests.load

# The parts of the documentation that are made from the code; a test says when they are stale.
docs: install
	PYTHONPATH=tests .venv/bin/python -m documentation

format: install
	.venv/bin/ruff format .
	.venv/bin/ruff check --fix .
