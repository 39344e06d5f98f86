"""A house of the benchmarks' own, and the first operator in it."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tests.e2e.conftest import setup_link
from tests.house import House, made
from tests.visitor import Visitor


@dataclass(frozen=True, slots=True)
class Figure:
    """What was measured, and what it must reach: below `target`, or from it on where more is better.

    `besides` is whether the targets within `detail` are reached too.
    """

    value: float
    unit: str
    target: float
    detail: dict[str, Any]
    more_is_better: bool = False
    besides: bool = True

    @property
    def met(self) -> bool:
        reached = self.value >= self.target if self.more_is_better else self.value < self.target
        return reached and self.besides


@contextmanager
def inhabited(**settings: str) -> Iterator[tuple[House, Visitor]]:
    with made() as house:
        house.up(**settings)
        visitor = Visitor(f"http://localhost:{house.port}")
        visitor.come_in(setup_link(house))
        yield house, visitor


def percentile(values: Sequence[float], percent: int) -> float:
    """The nearest-rank percentile."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)]


def summary(values: Sequence[float]) -> dict[str, float]:
    """In the values' own unit."""
    return {
        "n": len(values),
        "min": round(min(values), 1),
        "median": round(statistics.median(values), 1),
        "p95": round(percentile(values, 95), 1),
        "max": round(max(values), 1),
    }
