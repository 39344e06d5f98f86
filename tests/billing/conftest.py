"""Time that was used, written down as jobs/lifecycle.py does it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from itertools import count

import pytest

from haein.cluster.models import Device, Node
from haein.lib import clock
from jobs.models import Allocation, Attempt, Job


@pytest.fixture
def used(big: None) -> Callable[..., Allocation]:
    """used(job, start, end, units=...): a run of the job that held a share of a device."""
    devices = list(Device.objects.order_by("index"))
    node, numbers = Node.objects.get(), count(1)

    def made(
        job: Job,
        start: datetime | None,
        end: datetime | None,
        *,
        units: int = 1000,
        waived: bool = False,
        credited_s: int = 0,
    ) -> Allocation:
        number = next(numbers)
        attempt = Attempt.objects.create(
            job=job,
            number=number,
            node=node,
            cpus=1,
            memory_mb=1,
            state="ended" if end else "running",
            placed_at=start or clock.now(),
            started_at=start,
            ended_at=end,
        )
        return Allocation.objects.create(
            attempt=attempt,
            device=devices[number % len(devices)],
            units=units,
            weight=units,
            held_from=start or clock.now(),
            billable_from=start,
            ended_at=end,
            waived=waived,
            credited_s=credited_s,
        )

    return made
