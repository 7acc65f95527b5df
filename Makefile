# Two commands: make demo, make test. Everything lands in .venv and work/.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
READY := $(VENV)/.prepared
AIRFLOW := .airflow

.PHONY: demo test test-cluster lint types imports check bench airflow java clean

demo: java $(READY)
	$(BIN)/recsys-spark demo

# two processes; each takes over what the other has not begun
test: java $(READY)
	$(BIN)/python -m pytest -n 2 --dist worksteal

# only the stages on a standalone cluster of two workers
test-cluster: java $(READY)
	$(BIN)/python -m pytest -m cluster

check: lint types imports

lint: $(STAMP)
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy

imports: $(STAMP)
	$(BIN)/lint-imports

bench: java $(READY)
	$(BIN)/python -m benchmarks $(ROW)

# what the tests of deploy/airflow need; without it they are skipped
airflow: $(AIRFLOW)/.installed

$(AIRFLOW)/.installed: deploy/airflow/requirements.txt
	test -x $(AIRFLOW)/bin/python || $(PYTHON) -m venv $(AIRFLOW)
	$(AIRFLOW)/bin/python -m pip install --quiet --disable-pip-version-check --requirement deploy/airflow/requirements.txt
	touch $@

java:
	@version=$$(java -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p' | head -1); \
	if [ "$$version" != 17 ] && [ "$$version" != 21 ]; then \
	  echo "recsys-spark needs Java 17; found: $${version:-none}. Install it: apt-get install openjdk-17-jre-headless (Debian, Ubuntu) or brew install openjdk@17 (macOS)." >&2; \
	  exit 9; fi

$(STAMP): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "recsys-spark needs Python 3.11; found no $(PYTHON). Install it, or name it: make PYTHON=/path/to/python3.11" >&2; exit 9; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $(STAMP)

# once: Delta's jars, and an archive of Spark's classes that every session starts by
$(READY): $(STAMP)
	$(BIN)/recsys-spark prepare
	touch $(READY)

clean:
	rm -rf work
