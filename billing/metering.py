"""Pulls ended allocations and writes down what they used, exactly once."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from django.db import transaction

from billing import prices, rating
from billing.models import Usage
from haein.lib import clock
from jobs.models import Allocation

_BATCH = 500


def pull() -> int:
    """Meter every ended allocation that is not metered yet; returns how many there were.

    Pulling twice, late, or from two workers at once writes nothing twice: the rows are locked, and (allocation,
    starts) is unique.
    """
    pulled = 0
    while batch := _pull_batch():
        pulled += batch
    return pulled


@transaction.atomic
def _pull_batch() -> int:
    batch = list(
        Allocation.objects.select_for_update(skip_locked=True, of=("self",))
        .filter(metered=False, ended_at__isnull=False)
        .select_related("attempt__job", "device")
        .order_by("id")[:_BATCH]
    )
    tariffs = prices.tariffs(allocation.device.model_id for allocation in batch)
    rows = [row(a, line) for a in batch for line in lines(a, tariffs.get(a.device.model_id, []), until=None)]
    Usage.objects.bulk_create(rows, ignore_conflicts=True)
    Allocation.objects.filter(pk__in=[allocation.pk for allocation in batch]).update(metered=True)
    return len(batch)


def lines(allocation: Allocation, tariffs: list[rating.Tariff], *, until: datetime | None) -> list[rating.Line]:
    """What the allocation costs, by tariff and month; `until` stands for the end of one that still runs."""
    ends = allocation.ended_at or until
    if allocation.billable_from is None or ends is None or allocation.waived:
        return []
    return between(allocation.billable_from, charged_until(ends, allocation.credited_s), allocation.weight, tariffs)


def charged_until(ends: datetime, credited_s: int) -> datetime:
    """Where the charge stops of a run whose last `credited_s` seconds the operator bears."""
    return ends - timedelta(seconds=credited_s)


def between(begin: datetime, ends: datetime, weight: int, tariffs: list[rating.Tariff]) -> list[rating.Line]:
    """What so many thousandths of a device cost from one moment to another.

    Both are rounded down to whole seconds, so consecutive intervals never share a second nor lose one.
    """
    start, end = clock.whole_seconds(begin), clock.whole_seconds(ends)
    return rating.rate(start, end, weight, tariffs, cuts=_months(start, end)) if end > start else []


def _months(start: int, end: int) -> Iterator[int]:
    """The beginnings of months (UTC) after `start` and before `end`."""
    moment = clock.from_epoch(start).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    while True:
        moment = moment.replace(year=moment.year + moment.month // 12, month=moment.month % 12 + 1)
        if moment.timestamp() >= end:
            return
        yield clock.whole_seconds(moment)


def row(allocation: Allocation, line: rating.Line) -> Usage:
    """The line as it is written down."""
    job = allocation.attempt.job
    return Usage(
        allocation=allocation,
        job=job,
        team_id=job.team_id,
        user_id=job.submitted_by_id,
        device_id=allocation.device_id,
        units=line.units,
        starts=clock.from_epoch(line.start),
        ends=clock.from_epoch(line.end),
        seconds=line.seconds,
        price_id=line.tariff.id,
    )
