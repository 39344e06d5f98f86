"""What something costs, for a page: metered rows plus what runs now, added exactly and rounded once."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from fractions import Fraction
from uuid import UUID

from django.db.models import Count, DateField, F, QuerySet, Sum
from django.db.models.functions import Cast

from billing import metering, prices, rating
from billing.models import Price, Usage
from haein.cluster.models import DeviceModel
from haein.lib import clock
from haein.placement import weights
from haein.tenants.models import User
from haein.tenants.scope import Scope
from jobs import requests
from jobs.models import Allocation, Job
from jobs.spec import Spec


@dataclass(frozen=True, slots=True)
class CostLine:
    """One slice of one attempt: `amount` in exact micro-units, `per_hour` the price of the whole device.

    `units` are the thousandths of that price which the slice costs; `profile` is that of a MIG instance.
    """

    device: str
    model: str
    profile: str
    units: int
    seconds: int
    per_hour: int
    amount: Fraction


@dataclass(frozen=True, slots=True)
class Cost:
    """What a job has cost so far, and what a further hour of it costs now (both in micro-units).

    `credited_s` seconds of its runs, each counted once however many slices it held, are borne by the operator.
    """

    lines: Sequence[CostLine]
    total: int
    per_hour: int
    waived: bool
    credited_s: int


def of_job(job: Job, *, now: datetime) -> Cost:
    """In three queries, from the allocations themselves: true to the second also before metering has pulled."""
    allocations = list(
        Allocation.objects.filter(attempt__job=job).select_related("device__model", "device__node").order_by("id")
    )
    tariffs = prices.tariffs(allocation.device.model_id for allocation in allocations)
    rows = list(_cost_lines(allocations, tariffs, now))
    running = [a for a in allocations if a.ended_at is None and a.billable_from]
    rate = rating.add(_hour(a.weight, tariffs.get(a.device.model_id, []), now) for a in running)
    return Cost(
        lines=rows,
        total=rating.total(row.amount for row in rows),
        per_hour=rating.total([rate]),
        waived=any(a.waived for a in allocations),
        credited_s=sum({a.attempt_id: a.credited_s for a in allocations}.values()),
    )


def _cost_lines(
    allocations: Iterable[Allocation], tariffs: Mapping[int, list[rating.Tariff]], now: datetime
) -> Iterator[CostLine]:
    for allocation in allocations:
        for line in metering.lines(allocation, tariffs.get(allocation.device.model_id, []), until=now):
            yield CostLine(
                device=str(allocation.device),
                model=allocation.device.model.name,
                profile=allocation.profile,
                units=allocation.weight,
                seconds=line.seconds,
                per_hour=line.tariff.per_hour,
                amount=line.exact,
            )


def _hour(units: int, tariffs: Iterable[rating.Tariff], now: datetime) -> Fraction:
    moment = clock.whole_seconds(now)
    price = next((t.per_hour for t in tariffs if t.since <= moment and (t.until is None or moment < t.until)), 0)
    return rating.amount(rating.HOUR * units, price)


def of_jobs(job_ids: Collection[UUID], *, now: datetime) -> dict[UUID, int]:
    """Micro-units for each job, in three queries: metered rows, and whatever is not metered yet."""
    exact: dict[UUID, Fraction] = dict.fromkeys(job_ids, Fraction())
    metered = Usage.objects.filter(job_id__in=job_ids).values_list("job_id", "price__per_hour")
    for job_id, per_hour, unit_seconds in metered.annotate(used=Sum(F("seconds") * F("units"))).order_by():
        exact[job_id] += rating.amount(unit_seconds, per_hour)
    for held in _unmetered(Allocation.objects.filter(attempt__job_id__in=job_ids), now):
        exact[held.job_id] += rating.add(line.exact for line in held.lines)
    return {job_id: rating.total([amount]) for job_id, amount in exact.items()}


@dataclass(frozen=True, slots=True)
class _Held:
    """All slices of a job that cost alike from one moment to another, as if they were one."""

    job_id: UUID
    user_id: UUID
    lines: Sequence[rating.Line]


def _unmetered(allocations: QuerySet[Allocation], now: datetime) -> list[_Held]:
    """What metering has not pulled yet, running work included, in two queries.

    Added up by the database: a gang of 16 nodes holds 128 slices, and their amounts are in step with their weights.
    """
    alike = (
        "attempt__job_id",
        "attempt__job__submitted_by_id",
        "device__model_id",
        "billable_from",
        "ended_at",
        "credited_s",
    )
    charged = allocations.filter(metered=False, waived=False, billable_from__isnull=False)
    rows = list(charged.values_list(*alike).annotate(Sum("weight")).order_by())
    tariffs = prices.tariffs(model_id for _, _, model_id, *_ in rows)
    found = []
    for job_id, user_id, model_id, begun, ended, credited_s, weight in rows:
        until = metering.charged_until(ended or now, credited_s)
        found.append(_Held(job_id, user_id, metering.between(begun, until, weight, tariffs.get(model_id, []))))
    return found


@dataclass(frozen=True, slots=True)
class Month:
    """What the reader's teams used in one month (UTC): micro-units, seconds of whole devices as thousandth-seconds."""

    total: int
    by_person: Sequence[tuple[str, int, int]]
    by_day: Sequence[tuple[date, int]]
    running: int
    metered: int  # lines


def month_of(day: date) -> tuple[datetime, datetime]:
    """The first moment of the day's month and of the next one, in UTC."""
    start = datetime(day.year, day.month, 1, tzinfo=UTC)
    return start, datetime(day.year + day.month // 12, day.month % 12 + 1, 1, tzinfo=UTC)


def usage(scope: Scope, start: datetime, end: datetime) -> QuerySet[Usage]:
    """The metered lines that begin in [start, end); lines never cross the beginning of a month."""
    rows: QuerySet[Usage] = Usage.objects.seen_by(scope).filter(starts__gte=start, starts__lt=end)
    return rows


def month(scope: Scope, day: date, *, now: datetime) -> Month:
    """The month's sum, by person and by day, in five queries whatever the number of jobs."""
    start, end = month_of(day)
    exact: dict[tuple[UUID, date], Fraction] = {}
    used: dict[UUID, int] = {}
    metered = 0
    for user_id, on, per_hour, unit_seconds, lines in _by_person_and_day(usage(scope, start, end)):
        metered += lines
        _add(exact, (user_id, on), rating.amount(unit_seconds, per_hour))
        used[user_id] = used.get(user_id, 0) + unit_seconds
    running = Fraction()
    for user_id, line in _open_lines(scope, start, end, now):
        _add(exact, (user_id, clock.from_epoch(line.start).date()), line.exact)
        used[user_id] = used.get(user_id, 0) + line.seconds * line.units
        running += line.exact
    names = {user.pk: str(user) for user in User.objects.filter(pk__in=used)}
    days = sorted({on for _, on in exact})
    return Month(
        total=rating.total(exact.values()),
        by_person=sorted(
            (
                (name, used[pk], rating.total(amount for (who, _), amount in exact.items() if who == pk))
                for pk, name in names.items()
            ),
            key=lambda row: -row[2],
        ),
        by_day=[(on, rating.total(amount for (_, at), amount in exact.items() if at == on)) for on in days],
        running=rating.total([running]),
        metered=metered,
    )


def spent(scope: Scope, *, now: datetime) -> tuple[int, int]:
    """Micro-units used today and this month (UTC) by the reader's teams, what runs now included."""
    start, end = month_of(now.date())
    today = datetime(now.year, now.month, now.day, tzinfo=UTC)
    running = [line for _, line in _open_lines(scope, start, end, now)]
    since_midnight = _spent_since(today, usage(scope, today, end), running)
    return since_midnight, _spent_since(start, usage(scope, start, end), running)


def _spent_since(start: datetime, rows: QuerySet[Usage], running: Iterable[rating.Line]) -> int:
    """Grouped by price alone: with a hundred thousand lines a month half the time of a grouping by person and day."""
    grouped = dict(rows.values_list("price_id").annotate(used=Sum(F("seconds") * F("units"))).order_by())
    per_hour = _per_hour(grouped)
    metered = [rating.amount(unit_seconds, per_hour[price_id]) for price_id, unit_seconds in grouped.items()]
    return rating.total([*metered, *(line.exact for line in running if line.start >= clock.whole_seconds(start))])


def burning(scope: Scope, *, now: datetime) -> int:
    """Micro-units that an hour of what runs now costs."""
    held = Allocation.objects.filter(
        attempt__job__team_id__in=scope.team_ids, ended_at=None, billable_from__isnull=False
    )
    by_model = dict(held.values_list("device__model_id").annotate(Sum("weight")).order_by())
    tariffs = prices.tariffs(by_model)
    return rating.total(_hour(weight, tariffs.get(model_id, []), now) for model_id, weight in by_model.items())


def _by_person_and_day(rows: QuerySet[Usage]) -> Iterator[tuple[UUID, date, int, int, int]]:
    # Connections are on UTC (settings.TIME_ZONE), and naming the zone for each of many lines costs a third more.
    grouped = rows.annotate(on=Cast("starts", DateField())).values_list("user_id", "on", "price_id")
    found = list(grouped.annotate(used=Sum(F("seconds") * F("units")), lines=Count("*")).order_by())
    per_hour = _per_hour(price_id for _, _, price_id, _, _ in found)
    for user_id, on, price_id, used, lines in found:
        yield user_id, on, per_hour[price_id], used, lines


def _per_hour(price_ids: Iterable[int]) -> dict[int, int]:
    """Asked for apart: joined to a hundred thousand lines, a handful of prices takes a third of the time."""
    return dict(Price.objects.filter(pk__in=set(price_ids)).values_list("pk", "per_hour"))


def _open_lines(scope: Scope, start: datetime, end: datetime, now: datetime) -> Iterator[tuple[UUID, rating.Line]]:
    """Whose they are, and the lines."""
    first, last = clock.whole_seconds(start), clock.whole_seconds(end)
    for held in _unmetered(Allocation.objects.seen_by(scope), now):
        yield from ((held.user_id, line) for line in held.lines if first <= line.start < last)


def _add(sums: dict[tuple[UUID, date], Fraction], key: tuple[UUID, date], amount: Fraction) -> None:
    sums[key] = sums.get(key, Fraction()) + amount


@dataclass(frozen=True, slots=True)
class Quote:
    """What a job would cost: micro-units an hour at least and at most over the device models it may land on."""

    least: int
    most: int
    models: Sequence[str]


def quote(spec: Spec, *, now: datetime) -> Quote:
    """Before the button is pressed; nothing for a job without GPUs."""
    models = DeviceModel.objects.filter(devices__present=True).distinct().order_by("name") if spec.gpus else []
    asked = requests.worker(requests.columns(spec))
    able = {model: weight for model in models if (weight := weights.asked(asked, model.name, model.memory_mb))}
    tariffs = prices.tariffs(model.pk for model in able)
    slices = spec.gpus * spec.workers
    hours = [
        rating.total([_hour(slices * weight, tariffs.get(model.pk, []), now)]) for model, weight in able.items()
    ] or [0]
    return Quote(min(hours), max(hours), [model.name for model in able])
