"""A small simulated cluster under the real services, and one with the demonstration's month behind it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from billing import prices
from dashboard.demo import founding
from dashboard.demo.work import Wish
from haein.cluster import inventory, registry
from haein.lib import clock

NODES = 6


@pytest.fixture
def simulated(db: None, settings: Any, tmp_path: Path) -> Iterator[None]:
    settings.HAEIN_BACKEND, settings.HAEIN_VAR = "simulator", tmp_path
    settings.HAEIN_SIM_NODES, settings.HAEIN_SIM_SPEED = NODES, 3600
    registry.backend.cache_clear()
    inventory.refresh(registry.backend().inventory(), now=clock.now())
    prices.fill_gaps()
    yield
    registry.backend.cache_clear()


@pytest.fixture
def going_on(simulated: None) -> list[Wish]:
    """The month is written down; what is to be submitted in earnest."""
    facts = registry.backend().inventory()
    _written, wishes = founding.begin(facts, password="a long enough password", seed=1, now=clock.now())
    return wishes
