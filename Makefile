# Each target makes what it needs first; a bare Python 3.11 or newer is enough to begin.
PYTHON ?= python3
IN := .venv/bin/python
ON_SERVICES := $(IN) -m haein.supervisor services --
ONLY ?=
CLUSTER ?= simulator

.PHONY: up demo test test-long lint bench lock ready

up:
	@exec $(PYTHON) haein/supervisor/bootstrap.py up

# The same with a simulated cluster of 1,032 GPUs, on a data folder of its own, and made-up people at work on it;
# with CLUSTER=slurm on a real Slurm of 1,024 emulated ones.
demo:
	@exec $(PYTHON) haein/supervisor/bootstrap.py demo $(CLUSTER)

ready:
	@$(PYTHON) haein/supervisor/bootstrap.py test

test: ready
	$(ON_SERVICES) $(IN) -m pytest -m "not long"

test-long: ready
	$(ON_SERVICES) $(IN) -m pytest -m long

lint: ready
	$(IN) -m ruff check .
	$(IN) -m ruff format --check .
	HAEIN_SECRET_KEY=lint $(IN) -m mypy .
	.venv/bin/lint-imports
	$(ON_SERVICES) $(IN) manage.py makemigrations --check

bench: ready
	$(IN) -m bench $(ONLY)

# Universal locks: one file for every Python and machine that is supported, and no address of any registry in it.
LOCK := .venv/bin/uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --no-emit-index-url --upgrade

lock: ready
	$(LOCK) requirements/runtime.in -o requirements/runtime.txt
	$(LOCK) requirements/test.in -o requirements/test.txt
	$(LOCK) requirements/jobs.in -o requirements/jobs.txt
