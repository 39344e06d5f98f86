"""A small simulated cluster and what is asked of it, for the tests of the demonstration."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import takewhile

from dashboard.demo import work
from dashboard.demo.work import DAY, Wish
from haein.cluster.backends.base import DeviceFact, NodeFact

MONDAY = datetime(2026, 6, 1, 3, tzinfo=UTC)
MEMORY_MB = 183_359


def wishes(*, days: float, seed: int = 1) -> list[Wish]:
    return list(takewhile(lambda wish: wish.at < days * DAY, work.wishes(seed, MONDAY)))


def facts(nodes: int) -> list[NodeFact]:
    """Nodes as the simulator reports them, the last eighth of them for serving."""
    return [
        NodeFact(
            name=f"sim-{number:03}",
            cpus=224_000,
            memory_mb=2 << 20,
            emulated=True,
            devices=tuple(
                DeviceFact(index, f"SIM-sim-{number:03}-{index}", "B200", MEMORY_MB, emulated=True)
                for index in range(8)
            ),
            pool="serve" if number > nodes - max(1, nodes // 8) else "train",
            rack=f"rack-{number // 4}",
            pod=f"pod-{number // 32}",
        )
        for number in range(1, nodes + 1)
    ]
