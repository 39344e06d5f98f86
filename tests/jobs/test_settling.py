"""The default policy is settled to the week's mix of jobs, again only when that or the cluster has changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.db.models import F

from haein.cluster.models import Node
from haein.lib import clock
from haein.placement import engine, rehearsal
from haein.placement.policies import CANDIDATES, HAEIN
from jobs import requests, settling, snapshots, tasks
from jobs.models import Job, Settled
from tests.cast import Person
from tests.dashboard import crowd

pytestmark = pytest.mark.usefixtures("big")


@pytest.fixture(autouse=True)
def _nothing_read() -> Iterator[None]:
    """What one test has settled another must not meet."""
    settling._read = None
    yield
    settling._read = None


def rehearsed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How often there was a rehearsal, of the real ones."""
    times: list[int] = []
    real = rehearsal.best

    def counted(*given: Any) -> str:
        times.append(1)
        return real(*given)

    monkeypatch.setattr(rehearsal, "best", counted)
    return times


def settle() -> bool:
    return settling.settle(snapshots.capacity(), now=clock.now())


def test_without_enough_jobs_the_policy_is_the_default_s_own(alice: Person) -> None:
    crowd.gather(alice, settling.LEAST_JOBS - 1)
    assert not settle()
    assert settling.current() == (HAEIN, None)


def test_it_is_settled_once_for_a_mix_and_a_cluster(alice: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    times = rehearsed(monkeypatch)
    crowd.gather(alice, 60)
    assert (settle(), settle(), len(times)) == (True, False, 1)
    Job.objects.filter(pk=Job.objects.first().pk).update(gpus=2)  # type: ignore[union-attr]
    assert not settle()
    half = Job.objects.order_by("pk").values("pk")[:30]
    Job.objects.filter(pk__in=half).update(gpus=F("gpus") * 4)
    assert settle()
    Node.objects.update(cpus=F("cpus") * 2)
    snapshots._capacity = (None, 0, 0.0)
    assert settle()
    assert len(times) == 3


def test_a_pass_reads_what_was_settled(
    alice: Person, django_assert_num_queries: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    crowd.gather(alice, 60)
    Job.objects.update(cpus=1000, gpus=1, share=250)
    tasks.settle()
    row = Settled.objects.get()
    assert row.mix[0] | {"gpus": 1, "share": 250, "cpus": 1000, "weight": 60} == row.mix[0]
    with django_assert_num_queries(1):
        policy, mix = settling.current()
        assert settling.current() == (policy, mix)
    assert policy.name == "haein"
    assert policy.scorer in {each.scorer for each in CANDIDATES}
    assert policy == rehearsal.settled(row.candidate)
    snapshot = snapshots.capacity()
    asked = requests.of(requests.columns(Job.objects.filter(state="queued").first()))
    plan = engine.plan(snapshot, [asked], policy, mix)
    assert len(plan.placements) == 1


def test_what_is_older_than_a_week_does_not_count(alice: Person) -> None:
    crowd.gather(alice, 60)
    Job.objects.update(created_at=clock.now() - settling.WEEK - timedelta(minutes=1))
    assert not settle()


def test_every_candidate_can_be_had_by_its_name() -> None:
    assert {rehearsal.settled(each.name).name for each in CANDIDATES} == {HAEIN.name}
    assert rehearsal.settled(HAEIN.name) == rehearsal.settled("a candidate of another version") == HAEIN
