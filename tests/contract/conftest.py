"""Stages for the contract suite: every backend there is, and the local one by itself."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from .stage import STAGES, LocalStage, Stage


@pytest.fixture(params=sorted(STAGES))
def stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    stage = STAGES[request.param]()
    yield stage
    stage.close()


@pytest.fixture
def local() -> Iterator[LocalStage]:
    stage = LocalStage()
    yield stage
    stage.close()


@pytest.fixture
def mark() -> str:
    """A word that no other process on this machine has in its command line."""
    return f"mark-{uuid.uuid4().hex}"
