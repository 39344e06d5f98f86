"""An engine with a queue of its own, on paper: it holds what it is handed until a story says what becomes of it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from billing import prices
from haein.cluster import inventory
from haein.cluster.backends.base import (
    BackendDown,
    Cause,
    DeviceFact,
    Drain,
    Launch,
    NodeFact,
    Phase,
    Place,
    Sight,
    SliceGrant,
)
from haein.cluster.backends.simulator.backend import SimulatorBackend
from haein.lib import clock
from jobs import lifecycle, scheduling, services
from jobs.models import Allocation, Attempt
from tests.cast import node_fact

READY = frozenset({"python"})


class Engine(SimulatorBackend):
    """Its nodes are `facts`; what it was asked is in `handed`, `told` and `drained`; `away` while it can't be asked."""

    share_step = 1

    queues = True

    def __init__(self, var: Path, *names: str) -> None:
        super().__init__(var)
        self.facts: list[NodeFact] = [node_fact(name) for name in names]
        self.sights: dict[UUID, Sight] = {}
        self.handed: list[Launch] = []
        self.told: list[tuple[str, str]] = []
        self.drained: dict[str, Drain] = {}
        self.away = False

    def inventory(self) -> Sequence[NodeFact]:
        return [replace(fact, drain=self.drained.get(fact.name)) for fact in self.facts]

    def launch(self, launch: Launch) -> None:
        self.handed.append(launch)
        self.sights.setdefault(launch.attempt_id, Sight(launch.attempt_id, Phase.UNKNOWN, detail="Its nodes are busy."))

    def observe(self, attempts: Collection[UUID]) -> Mapping[UUID, Sight]:
        return {pk: self.sights.get(pk, Sight(pk, Phase.UNKNOWN)) for pk in attempts}

    def stop(self, attempts: Collection[UUID]) -> None:
        """What waits is dropped at once; what runs ends when the story says so."""
        for pk in attempts:
            if pk in self.sights and self.sights[pk].phase is Phase.UNKNOWN:
                self.ends(pk, Cause.STOPPED)

    def drain(self, node: str, reason: str) -> None:
        self._tell("drain", node)
        self.drained.setdefault(node, Drain.OURS)

    def resume(self, node: str) -> None:
        self._tell("resume", node)
        if self.drained.get(node) is Drain.OURS:
            del self.drained[node]

    def _tell(self, what: str, node: str) -> None:
        if self.away:
            raise BackendDown("The engine is away.")
        self.told.append((what, node))

    def runs(self, attempt: UUID, *places: Place) -> None:
        began = self.sights[attempt].started_at or clock.now().timestamp()
        self.sights[attempt] = Sight(attempt, Phase.RUNNING, started_at=began, places=places)

    def ends(self, attempt: UUID, cause: Cause, **seen: Any) -> None:
        """Where it ran, a second later."""
        before = self.sights[attempt]
        ended = clock.now().timestamp() if before.started_at is None else before.started_at + 1
        self.sights[attempt] = replace(before, phase=Phase.ENDED, ended_at=ended, cause=cause, detail="", **seen)

    def report(self) -> None:
        inventory.refresh(self.inventory(), now=clock.now())

    def look(self) -> None:
        lifecycle.observe(self, now=clock.now())

    def take(self) -> list[Attempt]:
        """What waits and finds room is placed and handed over; all that is open, in the order of its jobs."""
        scheduling.run_pass(now=clock.now(), ready=READY)
        lifecycle.launch(self, now=clock.now())
        return list(Attempt.objects.exclude(state="ended").order_by("job__created_at"))


@pytest.fixture
def engine(db: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """Two nodes of eight devices."""
    made = Engine(tmp_path, "node1", "node2")
    monkeypatch.setattr(services, "backend", lambda: made)
    made.report()
    prices.fill_gaps()
    return made


def device(node: str, index: int) -> DeviceFact:
    return node_fact(node).devices[index]


def whole(node: str, *indexes: int) -> Place:
    return Place(node, tuple(SliceGrant(device(node, index).uuid, index, 1000) for index in indexes))


def share(node: str, index: int, units: int) -> Place:
    return Place(node, (SliceGrant(device(node, index).uuid, index, units),))


def instances(node: str, *spots: tuple[int, int]) -> Place:
    """Of the narrowest profile, by device and start."""
    return Place(node, tuple(SliceGrant(device(node, n).uuid, n, 8, 7, "1g.23gb", start) for n, start in spots))


def held(attempt: Attempt) -> list[tuple[int, str, int, int | None]]:
    """What the rows say that the attempt holds: rank, node, device, start."""
    rows = Allocation.objects.filter(attempt=attempt).select_related("device__node")
    told = [(row.rank, row.device.node.name, row.device.index, row.start) for row in rows]
    return sorted(told, key=lambda row: (row[:3], row[3] or 0))
