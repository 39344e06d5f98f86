"""When a node will be empty, from the rows."""

from __future__ import annotations

from datetime import timedelta

import pytest

from haein.cluster import inventory
from haein.cluster.models import Node
from haein.lib import clock
from haein.placement.emptying import Empty
from jobs import emptying
from jobs.models import Attempt, Job, Worker
from tests.cast import Person, node_fact
from tests.dashboard import crowd
from tests.dashboard.crowd import Slice

NOW = clock.now().replace(microsecond=0)
GRACE_S = 1


def after(seconds: float) -> float:
    return NOW.timestamp() + seconds


def of(name: str) -> Empty | None:
    return emptying.of_node(Node.objects.get(name=name).pk, now=NOW)


def latest(name: str) -> float:
    found = of(name)
    assert found is not None
    return found.latest


@pytest.fixture(autouse=True)
def busy(alice: Person) -> None:
    """Two jobs on one of two nodes that have run for a minute: one with a limit of ten minutes, one of an hour."""
    inventory.refresh([node_fact("a"), node_fact("b")], now=clock.now())
    crowd.hold(alice, {"a/gpu0": [Slice(1000)], "a/gpu1": [Slice(1000)]})
    Job.objects.filter(pk=Job.objects.latest("id").pk).update(time_limit_s=3600)
    Attempt.objects.update(placed_at=NOW - timedelta(seconds=90), started_at=NOW - timedelta(seconds=60))


def test_it_is_empty_when_the_last_of_its_runs_is_ended_by_its_limit() -> None:
    assert of("a") == Empty(after(3540 + GRACE_S), None)
    assert of("b") is None


def test_the_further_workers_of_a_gang_run_there_too() -> None:
    first = Attempt.objects.get(job__time_limit_s=600)
    Worker.objects.create(attempt=first, rank=1, node=Node.objects.get(name="b"))
    assert latest("b") == after(540 + GRACE_S)


def test_what_was_told_to_leave_is_gone_by_then() -> None:
    Attempt.objects.update(preempt_at=NOW + timedelta(seconds=30), preempt_code="maintenance")
    assert latest("a") == after(30 + GRACE_S)


def test_a_notice_for_later_than_the_limit_changes_nothing() -> None:
    Attempt.objects.update(preempt_at=NOW + timedelta(days=1), preempt_code="maintenance")
    assert latest("a") == after(3540 + GRACE_S)


def test_a_limit_begins_when_the_process_runs() -> None:
    Attempt.objects.update(started_at=None, placed_at=NOW)
    assert latest("a") == after(30 + 3600 + GRACE_S)


def test_it_is_probably_empty_earlier_and_two_runs_that_are_alike_are_two(alice: Person) -> None:
    """Runs of one pass have begun in one second, with one limit."""
    Attempt.objects.filter(job__time_limit_s=3600).update(node=Node.objects.get(name="b"))
    crowd.gather(alice, 60)
    ended = Attempt.objects.filter(state="ended").select_related("job")
    for number, attempt in enumerate(ended, 1):
        ran = timedelta(seconds=attempt.job.time_limit_s * number / ended.count())
        Attempt.objects.filter(pk=attempt.pk).update(ended_at=attempt.started_at + ran)
    one = of("b")
    crowd.hold(alice, {"b/gpu1": [Slice(1000)]})
    alike = Attempt.objects.get(node__name="b", job__time_limit_s=3600)
    Job.objects.filter(attempts__node__name="b").update(time_limit_s=3600)
    Attempt.objects.filter(node__name="b").update(placed_at=alike.placed_at, started_at=alike.started_at)
    two = of("b")
    assert one
    assert two
    assert one.probably
    assert two.probably
    assert one.probably + 300 < two.probably < two.latest == one.latest
