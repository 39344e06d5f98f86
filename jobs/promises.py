"""When a waiting job starts: rehearsed every few seconds, promised once, and kept score of.

The answers of the last rehearsal are in Redis, where a page finds them at no cost; they are a help and never the truth:
when they are gone or old, "when" is not known. What was promised to whom is in rows, because it is scored.
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, cast
from uuid import UUID

import redis
import structlog
from django.db import connection
from django.db.models import ExpressionWrapper, F, FloatField, Q
from django.db.models.functions import Extract

from haein.lib import clock
from haein.placement import forecast
from haein.placement.calibration import Calibration, Seen
from haein.placement.model import WHOLE, Gang, Request
from haein.placement.queueing import Keeping
from haein.placement.turns import LATE_S, Scene
from haein.telemetry import series
from jobs import scenes, settling
from jobs.models import Attempt, Job, Promise
from jobs.spec import MOST_TIME_S, Spec
from jobs.states import State

log = structlog.get_logger(__name__)

KEY = "haein:promises"
# Older answers are no answers: the process that makes them is away.
FRESH = timedelta(minutes=3)
# How many ended runs, and of each class how many kept promises, are looked back at.
RUNS, PROMISES = 2000, 1200
KEPT = timedelta(days=60)
WEEK = timedelta(days=7)
# What a job that is not yet submitted may be like: GPUs, thousandths of each, workers.
PROBES = (
    *((1, share, 1) for share in (100, 250, 500, WHOLE)),
    *((gpus, WHOLE, 1) for gpus in (2, 4, 8)),
    *((8, WHOLE, workers) for workers in (2, 4, 8, 16)),
)


@dataclass(frozen=True, slots=True)
class When:
    """A start with a chance of one in two and of nine in ten, as of a moment."""

    p50: datetime
    p90: datetime
    as_of: datetime


@dataclass(frozen=True, slots=True)
class Place:
    """Where a job is in the queue: how many are looked at before it, and when it starts (None: not known)."""

    ahead: int
    when: When | None


@dataclass(frozen=True, slots=True)
class Day:
    """The promises of one day (UTC): those that came true or did not; `p90` and `p50` of them held."""

    on: date
    all: int
    p90: int
    p50: int


@dataclass(frozen=True, slots=True)
class Score:
    """The last seven days, the oldest first; a day without promises has none."""

    days: Sequence[Day]

    @property
    def all(self) -> int:
        return sum(day.all for day in self.days)

    @property
    def p90_percent(self) -> int | None:
        """Of the promises of nine in ten how many of a hundred held; None where there was none."""
        return _percent(sum(day.p90 for day in self.days), self.all)

    @property
    def p50_percent(self) -> int | None:
        return _percent(sum(day.p50 for day in self.days), self.all)


@dataclass(frozen=True, slots=True)
class Known:
    """What the last rehearsal found, and when that was; nothing where it is too long ago."""

    as_of: datetime | None
    places: Mapping[UUID, Place]
    score: Score


def _percent(part: int, of: int) -> int | None:
    return round(100 * part / of) if of else None


# Makes them.


def renew(*, now: datetime) -> int:
    """Close what was decided, rehearse the queue, keep the answers, promise what is new; how many wait."""
    close(now=now)
    rows = scenes.queue()
    if not rows:
        _keep({}, now)
        return 0
    # Who is held back by something else than the queue starts nobody knows when.
    asked = [row for row in rows if not (row.suspended or (row.not_before or 0.0) > now.timestamp())]
    scene = scenes.scene(asked, scenes.shares(now), now=now)
    policy, mix = settling.current()
    lengths = forecast.Lengths(history(RUNS))
    probes = [_probe(*each) for each in PROBES]
    found = forecast.rehearse(scene, scenes.rules(), lengths.predicted, probes, policy, mix)
    calibration = Calibration(_seen(now))
    latest = _latest(scene)
    promised = {job: _by(calibration.promised(raw), latest.get(job)) for job, raw in found.starts.items()}
    fields: dict[str, str] = {}
    for at, job in enumerate(found.order):
        fields[str(job)] = _written(at, promised.get(job))
    for name, raw in zip(map(_name, PROBES), found.probes, strict=True):
        if raw is not None:
            fields[name] = _written(0, calibration.promised(raw))
    _keep(fields, now, [cast(UUID, job) for job in found.order])
    _promise(found.starts, promised, now)
    return len(rows)


def _by(promised: tuple[float, float], latest: float | None) -> tuple[float, float]:
    """What history says, but no later than is certain."""
    return promised if latest is None else (min(promised[0], latest), min(promised[1], latest))


def _latest(scene: Scene) -> dict[Hashable, float]:
    """In how many seconds those whose turn it is start at the latest: the room that is kept for them is free then.

    Whoever may not be preempted waits for more than room.
    """
    firm = {job.id for job in scene.waiting if job.never}
    turns = (kept for kept in scene.kept if kept.keeping is Keeping.TURN and kept.job not in firm)
    return {kept.job: max(0.0, kept.starts - scene.now) + LATE_S for kept in turns}


def _written(at: int, seconds: tuple[float, float] | None) -> str:
    return f"{at},{round(seconds[0])},{round(seconds[1])}" if seconds else str(at)


def _keep(fields: Mapping[str, str], now: datetime, order: Sequence[UUID] = ()) -> None:
    days = json.dumps([(day.on.isoformat(), day.all, day.p90, day.p50) for day in score(now=now).days])
    with series.client().pipeline() as pipe:
        pipe.delete(KEY)
        # All in one value: a page that sorts thousands needs their order and of a few more than that.
        line = b"".join(job.bytes for job in order)
        pipe.hset(KEY, mapping={**fields, "made": str(now.timestamp()), "score": days, "order": line})
        pipe.expire(KEY, FRESH)
        pipe.execute()


def history(most: int) -> list[tuple[UUID, float]]:
    """The team, and how much of its time limit it ran, of the last runs that ended by themselves."""
    ran = ExpressionWrapper(
        Extract(F("ended_at") - F("started_at"), "epoch") / F("job__time_limit_s"), output_field=FloatField()
    )
    ended = Attempt.objects.filter(state=Attempt.State.ENDED, started_at__isnull=False, preempt_at=None)
    # One that was imported without a limit says nothing of how limits are chosen.
    ended = ended.filter(Q(job__imported=None) | Q(job__time_limit_s__lt=MOST_TIME_S))
    rows = ended.annotate(part=ran).order_by("-id").values_list("job__team_id", "part")[:most]
    return [(team, min(1.0, max(0.0, part))) for team, part in rows]


def _seen(now: datetime) -> list[Seen]:
    """What became of the last promises; those that are broken and still open count with the wait so far."""
    started = (
        Promise.objects.filter(started_at__isnull=False)
        .order_by("-id")
        .values_list("raw_s", "made_at", "started_at")[:PROMISES]
    )
    broken = Promise.objects.filter(closed_at=None, p90_at__lt=now).order_by("-id").values_list("raw_s", "made_at")
    return [
        *(Seen(raw, (now - made).total_seconds()) for raw, made in broken[:PROMISES]),
        *(Seen(raw, (began - made).total_seconds()) for raw, made, began in started),
    ]


def _promise(raw: Mapping[Any, float], promised: Mapping[Any, tuple[float, float]], now: datetime) -> None:
    """For each that waits and has none."""
    has = set(Promise.objects.filter(closed_at=None).values_list("job_id", flat=True))
    new = [job for job in raw if job not in has]
    waiting = Job.objects.filter(pk__in=new, state=State.QUEUED).values_list("pk", flat=True)
    Promise.objects.bulk_create(
        (
            Promise(
                job_id=job,
                made_at=now,
                raw_s=round(raw[job]),
                p50_at=now + timedelta(seconds=round(promised[job][0])),
                p90_at=now + timedelta(seconds=round(promised[job][1])),
            )
            for job in waiting
        ),
        ignore_conflicts=True,
    )


# Closed by the run that began since, or without one when the job left the queue or was put at its end again.
_CLOSE = """
    UPDATE jobs_promise AS promise
    SET closed_at = %(now)s, started_at = run.placed_at
    FROM jobs_job AS job
    LEFT JOIN LATERAL (
        SELECT min(attempt.placed_at) AS placed_at
        FROM jobs_attempt AS attempt, jobs_promise AS made
        WHERE attempt.job_id = job.id AND made.job_id = job.id AND made.closed_at IS NULL
          AND attempt.placed_at >= made.made_at
    ) AS run ON true
    WHERE promise.closed_at IS NULL AND job.id = promise.job_id
      AND (run.placed_at IS NOT NULL OR job.state <> 'queued' OR job.queued_at > promise.made_at)
"""


def close(*, now: datetime) -> int:
    """What was decided since; how many."""
    with connection.cursor() as cursor:
        cursor.execute(_CLOSE, {"now": now})
        return int(cursor.rowcount)


def forget(*, now: datetime) -> None:
    """Those that were closed long ago."""
    Promise.objects.filter(closed_at__lt=now - KEPT).delete()


# Tells of them.


def known(jobs: Iterable[UUID], *, now: datetime) -> Known:
    """Of these jobs those that wait, and the score of the week."""
    jobs = list(jobs)
    as_of, (score, *values) = _read(["score", *map(str, jobs)], now)
    if as_of is None:
        return Known(None, {}, Score([]))
    places = {job: _place(value, as_of) for job, value in zip(jobs, values, strict=True) if value}
    return Known(as_of, places, Score([_day(*day) for day in json.loads(score or b"[]")]))


def order(*, now: datetime) -> Mapping[bytes, int]:
    """The place in the queue of all who wait, by the bytes of their ids; empty where it is not known."""
    _, (line,) = _read(["order"], now)
    ids = line or b""
    return {ids[16 * at : 16 * at + 16]: at for at in range(len(ids) // 16)}


def _day(on: str, *counts: int) -> Day:
    return Day(date.fromisoformat(on), *counts)


def if_submitted(spec: Spec, *, now: datetime) -> When | None:
    """When a job like the spec would start if it were the last in the queue; None where that is not known."""
    probe = _like(spec)
    if probe is None:
        return None
    as_of, (value,) = _read([_name(probe)], now)
    return _place(value, as_of).when if as_of and value else None


def _read(names: Sequence[str], now: datetime) -> tuple[datetime | None, list[bytes | None]]:
    nothing: list[bytes | None] = [None] * len(names)
    try:
        told, *values = series.client().hmget(KEY, ["made", *names])
    except redis.RedisError as error:
        log.info("what was rehearsed can't be read now", why=str(error))
        return None, nothing
    as_of = clock.from_epoch(float(told)) if told else None
    if as_of is None or now - as_of > FRESH:
        return None, nothing
    return as_of, values


def _place(value: bytes, as_of: datetime) -> Place:
    at, *seconds = map(int, value.split(b","))
    if not seconds:
        return Place(at, None)
    p50, p90 = (as_of + timedelta(seconds=each) for each in seconds)
    return Place(at, When(p50, p90, as_of))


def _name(probe: tuple[int, int, int]) -> str:
    return "probe:{}:{}:{}".format(*probe)


def _probe(gpus: int, share: int, workers: int) -> Request | Gang:
    each = Request(id=None, gpus=gpus, share=share, cpus=1000, memory_mb=1024)
    return each if workers == 1 else Gang(each=each, members=workers)


def _like(spec: Spec) -> tuple[int, int, int] | None:
    """The least probe that asks for as much; None for what asks for more than GPUs of any kind."""
    if not spec.gpus or spec.profile or spec.gpu_model or spec.pool or spec.labels or spec.near_required:
        return None
    asked = spec.gpus, spec.share, spec.workers
    return next((probe for probe in PROBES if all(a >= b for a, b in zip(probe, asked, strict=True))), None)


_SCORE = """
    SELECT (decided AT TIME ZONE 'UTC')::date, count(*), count(*) FILTER (WHERE began <= p90_at),
           count(*) FILTER (WHERE began <= p50_at)
    FROM (
        SELECT p50_at, p90_at, started_at AS began, least(coalesce(started_at, p90_at), p90_at) AS decided
        FROM jobs_promise
        WHERE made_at > %(since)s - interval '14 days'
          AND (started_at IS NOT NULL OR coalesce(closed_at, %(now)s) > p90_at)
    ) AS promise
    WHERE decided > %(since)s AND decided <= %(now)s
    GROUP BY 1
    ORDER BY 1
"""


def score(*, now: datetime) -> Score:
    """Of the last seven days. A promise is decided when the job starts or its nine in ten are over, whichever is first;
    one whose job was withdrawn before that is no promise.
    """
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    since = midnight - WEEK + timedelta(days=1)
    with connection.cursor() as cursor:
        cursor.execute(_SCORE, {"since": since, "now": now})
        found = {on: Day(on, every, p90, p50) for on, every, p90, p50 in cursor.fetchall()}
    days = [(since + timedelta(days=number)).date() for number in range(WEEK.days)]
    return Score([found.get(on, Day(on, 0, 0, 0)) for on in days])
