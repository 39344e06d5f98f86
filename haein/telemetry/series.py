"""Samples of running work: the last hour by the second in Redis, older ones by the minute in PostgreSQL.

What is measured is a help, never the truth: when Redis is away a gap is left and nothing else is disturbed.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from statistics import fmean
from typing import Any
from uuid import UUID

import redis
import structlog
from django.conf import settings

from haein.cluster.backends.base import Reading
from haein.lib import clock
from haein.telemetry.models import Minute

log = structlog.get_logger(__name__)

HOT_SAMPLES = 3600
HOT_SECONDS = 3900
_MEASURED = "haein:measured"


@dataclass(frozen=True, slots=True)
class Sample:
    """One instant of one attempt: `at` in epoch milliseconds, `cpu` in cores, memory in MiB, `utilization` in percent.

    Utilization is the mean over its devices and device memory their sum; None where no such reading exists.
    """

    at: int
    cpu: float | None
    memory_mb: float | None
    utilization: float | None
    device_memory_mb: float | None


@functools.cache
def client() -> Any:  # the stubs say that every answer may be awaitable
    # A page and a tick wait for this: a Redis that hangs must cost them less than what they are for.
    return redis.Redis.from_url(settings.HAEIN_REDIS_URL, **{**settings.HAEIN_REDIS_OPTIONS, "socket_timeout": 0.3})


def key(attempt_id: UUID) -> str:
    return f"haein:hot:{attempt_id}"


def sample_of(reading: Reading) -> Sample:
    used = [utilization for _, utilization, _ in reading.devices if utilization is not None]
    memory = [memory for _, _, memory in reading.devices if memory is not None]
    return Sample(
        at=int(reading.at * 1000),
        cpu=reading.cpu,
        memory_mb=reading.memory_mb,
        utilization=fmean(used) if used else None,
        device_memory_mb=sum(memory) if memory else None,
    )


def record(readings: Sequence[Reading], *, now: datetime) -> None:
    """Keep the readings, and fold minutes that are over into rows. An attempt is folded a last time when it is gone."""
    try:
        _push(readings)
        _fold({reading.attempt_id for reading in readings}, now)
    except redis.RedisError as error:
        log.warning("samples lost", why=str(error))


def hot(attempt_id: UUID, *, after: int = 0) -> list[Sample]:
    """The samples of the last hour later than `after` (epoch milliseconds), oldest first. Raises redis.RedisError."""
    count = HOT_SAMPLES if not after else 120
    rows = client().lrange(key(attempt_id), -count, -1)
    samples = [_unpack(row) for row in rows]
    if after and samples and samples[0].at > after and count < HOT_SAMPLES:
        samples = [_unpack(row) for row in client().lrange(key(attempt_id), 0, -1)]
    return [sample for sample in samples if sample.at > after]


def minutes(attempt_id: UUID, *, before: int) -> list[Sample]:
    """The minutes that ended before `before` (epoch milliseconds), oldest first."""
    rows = Minute.objects.filter(attempt_id=attempt_id, at__lt=clock.from_epoch(before / 1000)).order_by("at")
    return [
        Sample(int(r.at.timestamp() * 1000) + 30_000, r.cpu, r.memory_mb, r.utilization, r.device_memory_mb)
        for r in rows
    ]


def whole(attempt_id: UUID, *, now: datetime) -> list[Sample]:
    """All that is known of an attempt: minutes, then the last hour by the second as far as Redis can be asked."""
    try:
        newest = hot(attempt_id)
    except redis.RedisError:
        newest = []
    before = newest[0].at if newest else int(now.timestamp() * 1000)
    return [*minutes(attempt_id, before=before), *newest]


def _push(readings: Sequence[Reading]) -> None:
    if not readings:
        return
    newest = client().mget([f"{key(reading.attempt_id)}:at" for reading in readings])
    pipe = client().pipeline(transaction=False)
    for reading, last in zip(readings, newest, strict=True):
        sample = sample_of(reading)
        if last is not None and int(last) >= sample.at:
            continue  # seen already: two workers may look at the same second
        name = key(reading.attempt_id)
        pipe.set(f"{name}:at", sample.at, ex=HOT_SECONDS)
        pipe.rpush(name, _pack(sample))
        pipe.ltrim(name, -HOT_SAMPLES, -1)
        pipe.expire(name, HOT_SECONDS)
        pipe.sadd(_MEASURED, str(reading.attempt_id))
    pipe.execute()


def _fold(running: set[UUID], now: datetime) -> None:
    """Once a minute, and at once for attempts that are no longer running."""
    minute = now.replace(second=0, microsecond=0)
    marker = f"haein:folded:{minute:%H%M}"
    everything = client().set(marker, 1, nx=True, ex=120)
    measured = {UUID(raw.decode()) for raw in client().smembers(_MEASURED)}
    gone = measured - running
    for attempt_id in measured if everything else gone:
        _write(attempt_id, until=now if attempt_id in gone else minute)
    if gone:
        client().srem(_MEASURED, *map(str, gone))


def _write(attempt_id: UUID, *, until: datetime) -> None:
    last = Minute.objects.filter(attempt_id=attempt_id).order_by("-at").values_list("at", flat=True).first()
    since = int((last + timedelta(minutes=1)).timestamp() * 1000) if last else 0
    by_minute: dict[int, list[Sample]] = {}
    for sample in hot(attempt_id, after=since - 1 if since else 0):
        if sample.at < until.timestamp() * 1000:
            by_minute.setdefault(sample.at // 60_000, []).append(sample)
    Minute.objects.bulk_create(
        [_minute(attempt_id, at, samples) for at, samples in by_minute.items()], ignore_conflicts=True
    )


def _minute(attempt_id: UUID, at: int, samples: Sequence[Sample]) -> Minute:
    return Minute(
        attempt_id=attempt_id,
        at=clock.from_epoch(at * 60),
        samples=len(samples),
        cpu=_mean(sample.cpu for sample in samples),
        memory_mb=_mean(sample.memory_mb for sample in samples),
        utilization=_mean(sample.utilization for sample in samples),
        device_memory_mb=_mean(sample.device_memory_mb for sample in samples),
    )


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _pack(sample: Sample) -> str:
    values = (sample.at, sample.cpu, sample.memory_mb, sample.utilization, sample.device_memory_mb)
    return json.dumps([round(value, 3) if isinstance(value, float) else value for value in values])


def _unpack(row: Any) -> Sample:
    return Sample(*json.loads(row))
