"""Many jobs at once, written straight into the tables: for tests of how pages grow."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any, NamedTuple

from django.db import connection
from django.db.models import DateTimeField, Field, UUIDField
from django.utils import timezone

from billing import metering
from billing.models import Usage
from haein.cluster.models import Device, Node
from haein.lib import ids
from jobs.models import Allocation, Attempt, Event, Job
from tests.cast import Person

SHAPES = ("queued", "running", "succeeded", "succeeded", "failed", "cancelled", "succeeded", "timed_out", "succeeded")


def gather(by: Person, count: int) -> None:
    """`count` jobs of the person's team over the last days, most of them ended and metered."""
    _batch(by, 0, count)
    metering.pull()


def queue_up(by: Person, count: int) -> None:
    """So many jobs of the person's team that wait for whole nodes, none of them looked at yet."""
    now = timezone.now()
    Job.objects.bulk_create(
        Job(
            id=ids.new(),
            team=by.team,
            submitted_by=by.user,
            name=f"waits {number}",
            command="python train.py",
            environment="python",
            gpus=1 + number % 8,
            share=1000,
            cpus=1000,
            memory_mb=1024,
            time_limit_s=3600 * (1 + number % 5),
            reason="no_capacity",
            created_at=now - timedelta(seconds=number),
            queued_at=now - timedelta(seconds=number),
        )
        for number in range(count)
    )


def number_off(by: Person, count: int) -> None:
    """Make one array of so many of the person's team's ended jobs."""
    array = ids.new()
    chosen = list(Job.objects.filter(team=by.team, state="succeeded")[:count])
    for index, job in enumerate(chosen):
        job.array, job.array_index, job.name = array, index, "sweep"
    Job.objects.bulk_update(chosen, ["array", "array_index", "name"], batch_size=100)


class Slice(NamedTuple):
    """Thousandths of a device, or an instance: its compute slices in 56ths."""

    units: int
    profile: str = ""
    start: int | None = None
    memory_slices: int = 0


# How a device may be held.
HELD: tuple[tuple[Slice, ...], ...] = (
    (),
    (Slice(1000),),
    (Slice(1000),),
    (Slice(500),),
    (Slice(250), Slice(250), Slice(500)),
    (Slice(24, "3g.90gb", 0, 4), Slice(16, "2g.45gb", 4, 2), Slice(8, "1g.23gb", 6, 1)),
    (Slice(8, "1g.23gb", 6, 1),),
)


def occupy(*by: Person) -> None:
    """Every device of the cluster held in one of these ways, by jobs of the people in turn, one a slice."""
    devices = Device.objects.select_related("model").order_by("pk")
    ways = ((device, HELD[(place + place // 8) % len(HELD)]) for place, device in enumerate(devices))
    _hold(((device, each) for device, way in ways for each in way), by)


def hold(by: Person, ways: Mapping[str, Iterable[Slice]]) -> None:
    """The devices of these names ("node/gpu0") held so, by a job of the person's for each slice."""
    devices = {str(device): device for device in Device.objects.select_related("node", "model")}
    _hold(((devices[name], each) for name, way in ways.items() for each in way), [by])


def _hold(slices: Iterable[tuple[Device, Slice]], by: Sequence[Person]) -> None:
    now = timezone.now()
    teams = [(person.team, person.user) for person in by]
    jobs, attempts, held = list[Job](), list[Attempt](), list[Allocation]()
    for number, (device, each) in enumerate(slices):
        team, user = teams[number % len(teams)]
        job = Job(
            id=ids.new(),
            team=team,
            submitted_by=user,
            name=f"holds {number} of {user.name}",
            command="python train.py",
            environment="python",
            gpus=1,
            share=1000 if each.profile else each.units,
            profile=each.profile,
            cpus=4000,
            memory_mb=16_384,
            time_limit_s=600,
            state="running",
            created_at=now,
            queued_at=now,
            started_at=now,
            attempts_made=1,
        )
        attempt = Attempt(
            job=job,
            number=1,
            node_id=device.node_id,
            cpus=job.cpus,
            memory_mb=job.memory_mb,
            state="running",
            placed_at=now,
            started_at=now,
        )
        jobs.append(job)
        attempts.append(attempt)
        held.append(
            Allocation(
                attempt=attempt,
                device=device,
                units=each.units,
                memory=7 * each.memory_slices if each.profile else device.model.memory_mb * each.units // 1000,
                profile=each.profile,
                start=each.start,
                weight=125 * each.memory_slices if each.profile else each.units,
                held_from=now,
                billable_from=now,
            )
        )
    Job.objects.bulk_create(jobs, batch_size=2000)
    Attempt.objects.bulk_create(attempts, batch_size=2000)
    Allocation.objects.bulk_create(held, batch_size=2000)


# Copied from the top down: what a row points to is there before it.
COPIED = (Job, Attempt, Allocation, Event, Usage)
_STRIDE = 10_000_000


def multiply(times: int) -> None:
    """Copies every job that has ended, with all that belongs to it, so many times, six hours apart.

    In the database, as Python takes minutes.
    A copy's keys are made from the original's and the copy's number, so that copies point to copies.
    """
    with connection.cursor() as cursor:
        for model in COPIED:
            columns = [field.column for field in model._meta.concrete_fields]
            values = [_copied(field) for field in model._meta.concrete_fields]
            path = {Job: "", Attempt: "job__", Allocation: "attempt__job__", Event: "job__", Usage: "job__"}[model]
            ended = model._base_manager.filter(**{f"{path}ended_at__isnull": False}).values("pk")
            sql, given = ended.query.sql_with_params()
            cursor.execute(
                f"INSERT INTO {model._meta.db_table} ({', '.join(map(_quoted, columns))}) SELECT {', '.join(values)}"
                f" FROM {model._meta.db_table} AS one CROSS JOIN generate_series(1, {times}) AS copy"
                f" WHERE one.{_quoted(model._meta.pk.column)} IN ({sql})",
                given,
            )


def _copied(field: Field[Any, Any]) -> str:
    """The column's value in a copy, as SQL."""
    column = f"one.{_quoted(field.column)}"
    if not (field.primary_key or field.related_model in COPIED):
        return f"{column} - copy * interval '6 hours'" if isinstance(field, DateTimeField) else column
    target = field.related_model._meta.pk if field.related_model else field
    if isinstance(target, UUIDField):
        return f"md5({column}::text || copy)::uuid"
    return f"{column} + copy::bigint * {_STRIDE}"


def _quoted(name: str | None) -> str:
    assert name
    return connection.ops.quote_name(name)


def _batch(by: Person, begin: int, count: int) -> None:
    now, node, devices = timezone.now(), Node.objects.first(), list(Device.objects.all())
    assert node
    jobs, attempts, held, events = [], [], [], []
    for number in range(begin, begin + count):
        # However many there are, no more can run at once than the devices take.
        state = (
            SHAPES[number % len(SHAPES)] if number < 30 or SHAPES[number % len(SHAPES)] != "running" else "succeeded"
        )
        made = now - timedelta(minutes=number % 10_000, seconds=600)
        begun = None if state == "queued" else made + timedelta(seconds=1)
        ended = None if state in {"queued", "running"} else made + timedelta(seconds=100)
        job = Job(
            id=ids.new(),
            team=by.team,
            submitted_by=by.user,
            name=f"job {number}",
            command="python train.py",
            environment="python",
            gpus=1,
            share=500,
            cpus=100,
            memory_mb=256,
            time_limit_s=600,
            state=state,
            reason="no_capacity" if state == "queued" else "explained",
            reason_values={"detail": "…"},
            tags=[f"t{number % 7}"],
            created_at=made,
            queued_at=made,
            started_at=begun,
            ended_at=ended,
            attempts_made=int(state != "queued"),
        )
        jobs.append(job)
        events += [Event(job=job, at=made, kind="submit", new_state="queued", reason="submitted")]
        if begun:
            attempt = Attempt(
                job=job,
                number=1,
                node=node,
                cpus=100,
                memory_mb=256,
                state="ended" if ended else "running",
                placed_at=made,
                started_at=begun,
                ended_at=ended,
            )
            attempts.append(attempt)
            device = devices[number % len(devices)]
            held.append(
                Allocation(
                    attempt=attempt,
                    device=device,
                    units=100,
                    weight=100,
                    held_from=made,
                    billable_from=begun,
                    ended_at=ended,
                )
            )
    Job.objects.bulk_create(jobs)
    Attempt.objects.bulk_create(attempts)
    Allocation.objects.bulk_create(held)
    Event.objects.bulk_create(events)
