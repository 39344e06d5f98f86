"""A real Slurm for tests: one that all of them share, and others that a test may break."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from haein.slurmlab import Lab, processes
from tests.contract.slurm_stage import JOBS_USER


@contextmanager
def lab_folder() -> Iterator[Path]:
    """For a lab: gone afterwards, with a check that nothing runs on it any more."""
    # Not a test runner's own folder: only its owner may enter that, and jobs run as another account.
    folder = Path(tempfile.mkdtemp(prefix="haein-slurm-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        left = [*processes.daemons(folder), *processes.work(folder)]
        processes.kill(left)
        shutil.rmtree(folder)
        assert not left


def house_settings(lab: Lab) -> dict[str, str]:
    """Of a house on this Slurm."""
    return {
        "HAEIN_BACKEND": "slurm",
        "HAEIN_SLURM_CONF": str(lab.conf),
        "HAEIN_SLURM_REST_URL": lab.rest_url,
        "HAEIN_SLURM_JWT_KEY": str(lab.jwt_key),
        "HAEIN_SLURM_USER": JOBS_USER,
        "HAEIN_SLURM_EMULATED": "1",
    }


@contextmanager
def started(**options: Any) -> Iterator[Lab]:
    with lab_folder() as folder:
        lab = Lab(folder, **options)
        try:
            lab.start()
            yield lab
        finally:
            lab.stop()


@pytest.fixture(scope="session")
def slurm() -> Iterator[Lab]:
    """Eight nodes: seven of eight whole GPUs, each of ten shards, and one of 56 MIG instances; with accounting.

    Shared by the whole session: whoever uses it ends its own jobs and kills no part of it.
    """
    with started(nodes=8, mig_nodes=1, shards=10, accounting=True) as lab:
        yield lab


@pytest.fixture
def own_slurm() -> Iterator[Callable[..., Lab]]:
    """Starts a Slurm for this test alone, with the options of Lab: its parts may be killed."""
    opened = []

    def start(**options: Any) -> Lab:
        context = started(**options)
        lab = context.__enter__()
        opened.append(context)
        return lab

    yield start
    for context in opened:
        context.__exit__(None, None, None)
