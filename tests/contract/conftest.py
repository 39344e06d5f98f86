"""Stages for the contract suite: every backend there is, and the local one by itself."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from haein.cluster.backends.local import locks

from .slurm_stage import SlurmStage
from .stage import STAGES, LocalStage, Stage


@pytest.fixture(params=[*sorted(STAGES), "slurm"])
def stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    stage = SlurmStage(request.getfixturevalue("slurm")) if request.param == "slurm" else STAGES[request.param]()
    yield stage
    stage.close()


# How a tree is ended and how a run is kept to one differ where a job has no process 1 of its own.
BOTH_WAYS = ("test_local_trees", "test_local_lost", "test_local_once")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "local" in metafunc.fixturenames and metafunc.module.__name__.rpartition(".")[2] in BOTH_WAYS:
        ways = [frozenset[str](), frozenset({locks.NAMESPACES})]
        metafunc.parametrize("local", ways, ids=["namespaces", "none"], indirect=True)


@pytest.fixture
def local(request: pytest.FixtureRequest) -> Iterator[LocalStage]:
    stage = LocalStage(locks_off=getattr(request, "param", frozenset()))
    yield stage
    stage.close()


@pytest.fixture
def mark() -> str:
    """A word that no other process on this machine has in its command line."""
    return f"mark-{uuid.uuid4().hex}"
