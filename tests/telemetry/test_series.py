"""Samples: by the second for an hour, then by the minute; and never a reason for anything else to fail."""

from __future__ import annotations

import time
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
import redis

from haein.cluster.backends.base import Reading
from haein.lib import clock, ids
from haein.telemetry import series
from haein.telemetry.models import Minute

pytestmark = pytest.mark.django_db
# A minute that is over, within the hour that Redis keeps.
START = (clock.now() - timedelta(minutes=20)).replace(second=0, microsecond=0)


@pytest.fixture(autouse=True)
def _empty() -> None:
    names = series.client().keys("haein:*")
    if names:
        series.client().delete(*names)


def after(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def reading(attempt: UUID, seconds: float, **values: Any) -> Reading:
    told: dict[str, Any] = {"cpu": 1.5, "memory_mb": 100.0, "processes": 2, "devices": (("g0", 50.0, 10.0),), **values}
    return Reading(attempt_id=attempt, at=after(seconds).timestamp(), **told)


def milliseconds(seconds: float) -> int:
    return int(after(seconds).timestamp() * 1000)


def test_what_was_recorded_is_there_in_order() -> None:
    one, other = ids.new(), ids.new()
    for second in range(5):
        series.record([reading(one, second, cpu=float(second)), reading(other, second)], now=after(second))
    assert [(sample.at, sample.cpu) for sample in series.hot(one)] == [(milliseconds(n), float(n)) for n in range(5)]
    assert len(series.hot(other)) == 5


def test_only_what_is_newer_is_given_to_whoever_has_the_rest() -> None:
    attempt = ids.new()
    for second in range(400):
        series.record([reading(attempt, second)], now=after(second))
    assert [sample.at for sample in series.hot(attempt, after=milliseconds(397))] == [
        milliseconds(398),
        milliseconds(399),
    ]
    assert len(series.hot(attempt, after=milliseconds(9))) == 390
    assert series.hot(attempt, after=milliseconds(399)) == []


def test_the_same_reading_seen_by_two_workers_is_kept_once() -> None:
    attempt = ids.new()
    for _ in range(2):
        series.record([reading(attempt, 1)], now=after(1))
    series.record([reading(attempt, 0.5)], now=after(1))
    assert [sample.at for sample in series.hot(attempt)] == [milliseconds(1)]


def test_several_devices_are_their_mean_utilization_and_the_sum_of_their_memory() -> None:
    devices = (("g0", 20.0, 10.0), ("g1", 60.0, 30.0), ("g2", None, None))
    sample = series.sample_of(reading(ids.new(), 0, devices=devices))
    assert (sample.utilization, sample.device_memory_mb) == (40.0, 40.0)


def test_what_can_not_be_read_is_none_and_not_nought() -> None:
    attempt = ids.new()
    series.record([reading(attempt, 0, cpu=None, devices=(("g0", None, None),))], now=after(0))
    (sample,) = series.hot(attempt)
    assert (sample.cpu, sample.utilization, sample.device_memory_mb) == (None, None, None)
    series.record([], now=after(3))
    assert Minute.objects.get().utilization is None


def test_minutes_that_are_over_become_rows_once() -> None:
    attempt = ids.new()
    for second in range(0, 150, 10):
        series.record([reading(attempt, second, cpu=float(second // 60))], now=after(second))
    rows = list(Minute.objects.order_by("at").values_list("at", "samples", "cpu"))
    assert rows == [(after(0), 6, 0.0), (after(60), 6, 1.0)]


def test_what_has_ended_is_folded_at_once_and_a_last_time() -> None:
    attempt, other = ids.new(), ids.new()
    for second in (0, 1, 61):
        series.record([reading(attempt, second), reading(other, second)], now=after(second))
    series.record([reading(other, 62)], now=after(62))
    assert list(Minute.objects.filter(attempt_id=attempt).order_by("at").values_list("samples", flat=True)) == [2, 1]
    series.record([reading(other, 63)], now=after(63))
    assert Minute.objects.filter(attempt_id=attempt).count() == 2


def test_the_minutes_before_the_hot_ones_are_asked_for_apart() -> None:
    attempt = ids.new()
    for minute in range(3):
        Minute.objects.create(attempt_id=attempt, at=after(60 * minute), samples=60, cpu=float(minute))
    before = series.minutes(attempt, before=milliseconds(120))
    assert [(sample.at, sample.cpu) for sample in before] == [(milliseconds(30), 0.0), (milliseconds(90), 1.0)]


def test_with_redis_away_a_gap_is_left_and_nothing_is_raised(settings: Any, tmp_path: Any) -> None:
    settings.HAEIN_REDIS_URL = f"unix://{tmp_path}/nobody.sock"
    series.client.cache_clear()
    try:
        begun = time.monotonic()
        series.record([reading(ids.new(), 0)], now=after(0))
        assert time.monotonic() - begun < 1.5
        with pytest.raises(redis.RedisError):
            series.hot(ids.new())
    finally:
        series.client.cache_clear()
