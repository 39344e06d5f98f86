"""A day of a thousand devices through the database, within a process that has Django: main() prints a line of JSON."""

from __future__ import annotations

import json
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from datetime import UTC, datetime
from unittest.mock import patch

from django.conf import settings
from django.core.management import call_command
from django.db.models import Count

from billing import metering, prices
from billing.models import Usage
from dashboard.demo import founding, work
from dashboard.demo.life import Crowd
from haein.cluster import inventory
from haein.cluster.backends.simulator.backend import SimulatorBackend
from haein.lib import clock
from haein.placement import books
from haein.placement.ledger import Kind
from haein.placement.mig import COMPUTE_SLICES
from haein.placement.model import Grant
from jobs import lifecycle, scheduling, snapshots
from jobs.models import Allocation, Job

STEP_S, LOOK_EVERY, CHECK_EVERY = 30, 4, 120  # seconds; steps
READY = frozenset({"python"})


class Day:
    """A day whose moments we choose: whatever comes in half a minute is dealt with at its end."""

    def __init__(self) -> None:
        self.begin = self.moment = time.time() - work.DAY
        self.backend = SimulatorBackend(settings.HAEIN_VAR, clock=lambda: self.moment)
        self.coming = work.wishes(1, self.now())
        self.next = next(self.coming)
        self.crowd = Crowd(speed=1)
        self.spent: defaultdict[str, float] = defaultdict(float)
        self.placed = self.checks = 0
        self.held: list[float] = []

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.moment, UTC)

    def live(self) -> None:
        for step in range(1, work.DAY // STEP_S + 1):
            self.moment = self.begin + step * STEP_S
            self._time("submit", self._submit)
            if step % LOOK_EVERY == 0:
                self._time("inventory", lambda: inventory.refresh(self.backend.inventory(), now=self.now()))
            self._time("observe", lambda: lifecycle.observe(self.backend, now=self.now()))
            self._time("decide", self._decide)
            self._time("launch", lambda: lifecycle.launch(self.backend, now=self.now()))
            self._time("meter", metering.pull)
            if step % CHECK_EVERY == 0:
                self._check()

    def _submit(self) -> None:
        self.crowd.cancel(self.moment)
        while self.begin + self.next.at < self.moment:
            self.crowd.submit(self.next, self.moment)
            self.next = next(self.coming)

    def _decide(self) -> None:
        self.placed += scheduling.run_pass(now=self.now(), ready=READY)

    def _time(self, name: str, part: Callable[[], object]) -> None:
        began = time.perf_counter()
        part()
        self.spent[name] += time.perf_counter() - began

    def _check(self) -> None:
        """Law 2, by what placement is told and by what the rows say is held. Raises ImbalanceError."""
        rows = Allocation.objects.filter(ended_at=None)
        held = [
            Grant(row.device_id, row.units, row.memory, row.profile, -1 if row.start is None else row.start)
            for row in rows
        ]
        books.check(snapshots.now(), [(grant, Kind.BILLABLE) for grant in held])
        compute = sum(int(grant.profile[0]) / COMPUTE_SLICES if grant.profile else grant.units / 1000 for grant in held)
        self.held.append(compute)
        self.checks += 1


def main() -> None:
    call_command("migrate", verbosity=0)
    day = Day()
    inventory.refresh(day.backend.inventory(), now=day.now())
    prices.fill_gaps()
    founding.settle("a password that nobody types", at=day.now())
    with patch.object(clock, "now", day.now):
        began = time.perf_counter()
        day.live()
        took = time.perf_counter() - began
    print(json.dumps({"seconds": round(took, 1), **told(day)}))


def told(day: Day) -> dict[str, object]:
    ended = Allocation.objects.filter(ended_at__isnull=False)
    rows = list(ended.select_related("device"))
    tariffs = prices.tariffs({row.device.model_id for row in rows})
    charged = {row.pk: len(metering.lines(row, tariffs[row.device.model_id], until=None)) for row in rows}
    metered = Counter(dict(Usage.objects.values_list("allocation_id").annotate(Count("id")).order_by()))
    once = sum(metered[pk] == lines for pk, lines in charged.items())
    return {
        "jobs": Job.objects.count(),
        "states": dict(Job.objects.values_list("state").annotate(Count("id")).order_by()),
        "placed": day.placed,
        "allocations": len(charged),
        "metered_once": once if not ended.filter(metered=False).exists() else 0,
        "usage_lines": Usage.objects.count(),
        "law_2_checked": day.checks,
        "gpus_held_at_most": round(max(day.held)),
        "passes": work.DAY // STEP_S,
        "step_s": STEP_S,
        "seconds_by_part": {name: round(seconds, 1) for name, seconds in day.spent.items()},
    }
