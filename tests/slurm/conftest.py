"""What the tests of the ways to Slurm share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from haein.cluster.backends.slurm.rest import RestGateway
from haein.slurmlab import Lab

from .ways import rest


@pytest.fixture(scope="session")
def slurmrestd(slurm: Lab) -> Iterator[RestGateway]:
    """The shared lab over its slurmrestd alone."""
    gateway = rest(slurm)
    yield gateway
    gateway.close()
