# The two commands of this repository: `make run` trades on paper, `make test` proves it. Both set up what they need.
#
#   make run ARGS="--duration 120 --json"   quartet trade --paper, with these flags
#   make test                               all tests
#   make check                              ruff and mypy
#   make bench                              all benchmarks; JSON in build/benchmarks
#   make mutation-check                     breaks the code behind each promise, and wants the simulation to notice
#   make crash-sweep                        the live daemon killed at 200 commit points; half an hour
#   make soak                               a simulated day under faults, 24 minutes; ARGS="--minutes 180" for longer
#   make simulate                           1,000 seeds of the whole daemon under faults; ARGS="--seeds 100" for fewer
#   make lease-proof                       who of several may trade: a thousand rounds, then twenty takeovers of whole daemons; half an hour
#   make results                            what recorded candles show, into docs/results.md; QUARTET_DATA names their folder
#   make test-deploy                       docker-compose brought up for real; ENGINE="docker compose"
#   make learn-proof                        learning on control tasks, under an hour; table and curves into docs
#
# Set-up speaks on standard error, so standard output belongs to the command that was asked for.

SHELL := /bin/bash
VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check --no-input install --quiet --constraint constraints.txt
TORCH := torch==2.13.0
# Where CPU builds of torch are, for machines whose usual index offers none. For a GPU name another, such as .../whl/cu126.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
TEST_JOBS ?= 2
ARGS ?=

.PHONY: setup setup-dev servers run test check schema bench-setup bench learn-proof results simulate mutation-check crash-sweep soak lease-proof test-deploy clean
.SILENT:

setup: $(VENV)/.stamp-run
setup-dev: $(VENV)/.stamp-dev

# The interpreter: PYTHON if given, else the first on the path that is new enough.
$(PY):
	for python in $${PYTHON:-python3 python3.11 python3.12 python3.13}; do \
	  if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then found=$$python; break; fi; \
	done; \
	if [ -z "$$found" ]; then echo "Quartet needs Python 3.11 or newer: install it, or name it by PYTHON=/path/to/python3" >&2; exit 1; fi; \
	echo "creating $(VENV) with $$("$$found" --version)" >&2; \
	"$$found" -m venv $(VENV) >&2 || { rm -rf $(VENV); echo "cannot create $(VENV): on Debian install python3-venv" >&2; exit 1; }

# torch comes first and alone: asked for among others, the resolver takes the CUDA build and its gigabytes of libraries.
$(VENV)/.stamp-torch: | $(PY)
	echo "installing torch (CPU build; once, a few minutes)" >&2
	if [ "$(TORCH_INDEX)" = "https://download.pytorch.org/whl/cpu" ] && $(PIP) "$(TORCH)+cpu" >/dev/null 2>&1; then true; \
	else $(PIP) --extra-index-url "$(TORCH_INDEX)" "$(TORCH)" >&2; fi
	touch $@

$(VENV)/.stamp-run: pyproject.toml constraints.txt $(VENV)/.stamp-torch
	echo "installing quartet (once, a minute)" >&2
	$(PIP) --editable '.[research]' >&2
	touch $@

$(VENV)/.stamp-dev: pyproject.toml constraints.txt $(VENV)/.stamp-torch
	echo "installing quartet and its test tools (once, a minute)" >&2
	$(PIP) --editable '.[dev]' >&2
	touch $@ $(VENV)/.stamp-run

$(VENV)/.stamp-bench: benchmarks/requirements.txt $(VENV)/.stamp-dev
	echo "installing the peers that the benchmarks measure against" >&2
	$(PIP) --requirement benchmarks/requirements.txt >&2
	touch $@

run: $(VENV)/.stamp-run
	exec $(PY) -m daemon trade --paper $(ARGS)

# Redis and Mosquitto, which the tests start themselves, and promtool: Debian's packages, where this user may install them.
servers:
	PATH="$$PATH:/usr/sbin"; missing=""; \
	command -v redis-server >/dev/null || missing="redis-server"; \
	command -v mosquitto >/dev/null && command -v mosquitto_passwd >/dev/null || missing="$$missing mosquitto"; \
	command -v promtool >/dev/null || missing="$$missing prometheus"; \
	if [ -n "$$missing" ]; then \
	  echo "installing$${missing:+ }$$missing (Debian packages, for the tests)" >&2; \
	  as=""; [ "$$(id -u)" = 0 ] || as="sudo -n"; \
	  { $$as apt-get install -y -qq --no-install-recommends $$missing || { $$as apt-get update -qq && $$as apt-get install -y -qq --no-install-recommends $$missing; }; } >/dev/null 2>&1 \
	    || echo "cannot install$${missing:+ }$$missing: ask for it, or tests of Redis, MQTT and alerts will fail" >&2; \
	fi

# One thread a process: two test processes share two cores, and results must not depend on how many there are.
test: $(VENV)/.stamp-dev servers
	OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 exec $(PY) -m pytest -n $(TEST_JOBS) --dist worksteal $(ARGS)

check: $(VENV)/.stamp-dev
	$(PY) -m ruff check .
	$(PY) -m mypy

# The published schema, after a setting was changed.
schema: $(VENV)/.stamp-run
	$(PY) -m daemon config-schema >docs/config.schema.json

bench-setup: $(VENV)/.stamp-bench build/peers/.stamp

# Other backtesters bring many dependencies: each into an environment of its own, and those that do not install are left out.
build/peers/.stamp: benchmarks/peers/requirements.txt | $(PY)
	mkdir -p build/peers
	grep -v '^#' benchmarks/peers/requirements.txt | while read -r peer; do \
	  name=$${peer%%==*}; \
	  echo "installing $$peer into build/peers/$$name" >&2; \
	  { test -x build/peers/$$name/bin/python || $(PY) -m venv build/peers/$$name; } && \
	  build/peers/$$name/bin/python -m pip --disable-pip-version-check --no-input install --quiet "$$peer" >&2 || \
	  { echo "$$peer does not install here: left out" >&2; rm -rf build/peers/$$name; }; \
	done
	touch $@

bench: bench-setup
	mkdir -p build/benchmarks
	for file in benchmarks/[a-z]*.py; do \
	  name=$$(basename $$file .py); \
	  grep -q '__main__' $$file || continue; \
	  echo "benchmark $$name" >&2; \
	  OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(PY) -m benchmarks.$$name --json build/benchmarks/$$name.json || exit 1; \
	done

# Finished runs lie in build/learn-proof and are not repeated; `make clean` forgets them.
learn-proof: $(VENV)/.stamp-bench
	OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 exec $(PY) -m benchmarks.proofs.learn $(ARGS)

# Every configuration that was tried stands in docs/results-trials.jsonl and is counted; weights of finished seeds are not trained again.
results: $(VENV)/.stamp-run
	test -n "$${QUARTET_DATA:-}" || { echo "QUARTET_DATA is not set: name the folder with the recorded data" >&2; exit 2; }
	mkdir -p build/results
	export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1; \
	test -s build/results/books.json || $(PY) -m daemon backtest --mark-outs --json \
	  $$(for session in btc_usdt-20230404 btc_usdt-20240718 eth_usdt-20240718; do \
	    echo --data "$$QUARTET_DATA/book/binance_usdm/$$session-deltas.parquet"; done) >build/results/books.json; \
	exec $(PY) -m daemon evaluate --name spot-1h --data "$$QUARTET_DATA/ohlcv/binance" \
	  --repeat "$$QUARTET_DATA/multi_asset/hyperliquid-1h-panel.parquet" --repeat "$$QUARTET_DATA/multi_asset/hyperliquid-1d-panel.parquet" \
	  --repeat "$$QUARTET_DATA/ohlcv/binance_usdm" --books build/results/books.json --seeds 10 --steps 3072 --unguarded --resamples 1000 \
	  --trials docs/results-trials.jsonl --keep build/results/weights --markdown docs/results.md $(ARGS)

simulate: $(VENV)/.stamp-run
	OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 exec $(PY) -m daemon simulate --seeds 1000 --faults all --jobs $(TEST_JOBS) $(ARGS)

# Breaks the code behind each promise, one break at a time, and wants a seed to notice; ten minutes.
mutation-check: $(VENV)/.stamp-dev
	OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 exec $(PY) -m tests.simulation.mutations --seeds 10 --minutes 3 $(ARGS)

# Both run on the rehearsal exchange, leave their figures in build/proofs, and fail with what was wrong.
crash-sweep: $(VENV)/.stamp-dev
	exec $(PY) -m benchmarks.proofs.crash_sweep --json build/proofs/crash-sweep.json $(ARGS)

# A thousand misfortunes for three that want one lease; then twenty takeovers between two whole daemons. Half an hour.
lease-proof: $(VENV)/.stamp-dev servers
	$(PY) -m tests.lease_rounds $(ARGS)
	exec $(PY) -m tests.lease_daemons

soak: $(VENV)/.stamp-dev
	exec $(PY) -m benchmarks.proofs.soak --json build/proofs/soak.json $(ARGS)

# Brings the compose file up for real; ENGINE names the compose command, docker compose by default.
test-deploy:
	exec tests/deploy/compose-proof

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
