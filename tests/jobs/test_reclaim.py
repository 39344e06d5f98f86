"""Lending and taking back, by the rows: who is told to leave, what is kept meanwhile, and who goes in."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest

from haein.lib import clock
from jobs import lifecycle, moves, scheduling, services
from jobs.models import Allocation, Attempt, Claim, Job, Quota, Share
from jobs.states import Event as Kind
from tests.cast import Person

pytestmark = pytest.mark.usefixtures("big")
Submit = Callable[..., Job]


class Pass:
    """Passes at moments that we choose; whatever was placed runs at once."""

    def __init__(self) -> None:
        self.now = clock.now()

    def __call__(self, *, after_s: float = 1) -> int:
        self.now += timedelta(seconds=after_s)
        placed = scheduling.run_pass(now=self.now, ready=frozenset({"python"}))
        begun = Attempt.objects.filter(state="starting")
        reasons = {row.job_id: moves.Why("runs", {"node": "x"}) for row in begun}
        begun.update(state="running", started_at=self.now)
        Allocation.objects.filter(billable_from=None).update(billable_from=self.now)
        moves.apply(Kind.RUN, reasons, now=self.now)
        return placed

    def end(self, attempt: Attempt, kind: Kind = Kind.SUCCEED) -> None:
        Attempt.objects.filter(pk=attempt.pk).update(state="ended", ended_at=self.now)
        Allocation.objects.filter(attempt=attempt).update(ended_at=self.now)
        moves.apply(kind, {attempt.job_id: moves.Why("succeeded")}, now=self.now)


@pytest.fixture
def look() -> Pass:
    return Pass()


def guarantee(person: Person, gpus: int, **more: Any) -> Quota:
    team = person.team
    made: Quota = Quota.objects.create(organization_id=team.organization_id, team=team, guaranteed=1000 * gpus, **more)
    return made


def test_what_was_lent_is_taken_back_with_notice(alice: Person, charlie: Person, submit: Submit, look: Pass) -> None:
    guarantee(alice, 4)
    lent = [submit(charlie, name=f"lent{at}", gpus=2) for at in range(4)]
    assert look() == 4
    mine = submit(alice, gpus=4)
    assert look(after_s=600) == 0
    mine.refresh_from_db()
    assert mine.reason == "reclaiming"
    told = Attempt.objects.filter(preempt_at__isnull=False)
    assert told.count() == 2
    assert set(told.values_list("preempt_code", "preempted_for")) == {("reclaimed", mine.pk)}
    assert set(told.values_list("preempt_at", flat=True)) == {look.now + timedelta(seconds=60)}
    claim = Claim.objects.get()
    assert (claim.job_id, claim.kind, sum(len(devices) for _, devices in claim.places)) == (mine.pk, "reclaim", 4)

    # Nothing more happens until they have left, and what they leave is given to nobody else.
    other = submit(charlie, gpus=1)
    assert look(after_s=10) == 0
    assert Attempt.objects.filter(preempt_at__isnull=False).count() == 2
    leaving = list(told)
    look.end(leaving[0], Kind.PREEMPT)
    assert look() == 0
    look.end(leaving[1], Kind.PREEMPT)
    assert look() == 1
    started = Attempt.objects.get(job=mine)
    assert started.guaranteed
    assert not Claim.objects.filter(job=mine).exists()
    other.refresh_from_db()
    assert other.state == "queued"
    assert {job.pk for job in lent} >= {row.job_id for row in leaving}


def test_whoever_needs_it_no_more_lets_the_others_stay(
    alice: Person, charlie: Person, submit: Submit, look: Pass
) -> None:
    guarantee(alice, 8)
    submit(charlie, gpus=8)
    look()
    mine = submit(alice, gpus=2)
    look(after_s=600)
    assert Attempt.objects.filter(preempt_at__isnull=False).count() == 1
    services.cancel(mine, scope=alice.scope)
    look()
    assert not Attempt.objects.filter(preempt_at__isnull=False).exists()
    assert not Claim.objects.filter(job=mine).exists()
    assert Attempt.objects.get().job.events.filter(reason="notice_withdrawn").count() == 1


def test_nobody_is_told_before_the_least_run_and_nobody_who_may_not_be(
    alice: Person, charlie: Person, submit: Submit, look: Pass
) -> None:
    guarantee(alice, 4)
    submit(charlie, name="never", gpus=4, preemption="never")
    submit(charlie, name="lent", gpus=4)
    look()
    mine = submit(alice, gpus=4)
    look(after_s=60)
    assert not Attempt.objects.filter(preempt_at__isnull=False).exists()
    look(after_s=300)
    assert [row.job.name for row in Attempt.objects.filter(preempt_at__isnull=False)] == ["lent"]
    mine.refresh_from_db()
    assert mine.reason == "reclaiming"


def test_who_was_sent_away_often_enough_waits_for_room_of_its_own(
    alice: Person, charlie: Person, submit: Submit, look: Pass, settings: Any
) -> None:
    guarantee(alice, 6)
    weary = submit(charlie, gpus=4)
    Job.objects.filter(pk=weary.pk).update(preemptions=settings.HAEIN_PREEMPTIONS_MOST)
    assert look() == 0
    weary.refresh_from_db()
    assert weary.reason == "promised"
    small = submit(charlie, gpus=2)
    Job.objects.filter(pk=small.pk).update(preemptions=settings.HAEIN_PREEMPTIONS_MOST)
    assert look() == 1


def test_what_becomes_free_of_a_guarantee_is_for_who_borrows_of_the_same_team(
    alice: Person, submit: Submit, look: Pass
) -> None:
    guarantee(alice, 2)
    first, second = submit(alice, name="first", gpus=2), submit(alice, name="second", gpus=2)
    look()
    inside = {row.job.name: row.guaranteed for row in Attempt.objects.select_related("job")}
    assert inside == {"first": True, "second": False}
    look.end(Attempt.objects.get(job=first))
    submit(alice, name="third", gpus=8)
    look()
    assert Attempt.objects.get(job=second).guaranteed


def test_limits_hold_and_are_said(alice: Person, submit: Submit, look: Pass) -> None:
    guarantee(alice, 2, borrow=1000, running_jobs=2)
    jobs = [submit(alice, name=name, gpus=gpus) for name, gpus in (("a", 2), ("b", 2), ("c", 1), ("d", 1))]
    assert look() == 2
    for job in jobs:
        job.refresh_from_db()
    assert [(job.name, job.state, job.reason) for job in jobs if job.state == "queued"] == [
        ("b", "queued", "over_most"),
        ("d", "queued", "over_most"),
    ]


def test_use_is_counted_for_fair_share(alice: Person, charlie: Person, submit: Submit, look: Pass) -> None:
    """Alice has used the cluster for an hour; then both wait, and Charlie goes first although he came later."""
    long = submit(alice, gpus=8, time_limit_s=7200)
    look()
    late, first = submit(alice, name="late", gpus=8), submit(charlie, name="first", gpus=8)
    look(after_s=3600)
    look.end(Attempt.objects.get(job=long))
    assert look() == 1
    late.refresh_from_db()
    first.refresh_from_db()
    assert (late.state, first.state) == ("queued", "running")
    share = Share.objects.get(team=alice.team)
    assert share.rate == 0
    assert share.used == pytest.approx(8000 * 3600, rel=0.05)


def test_a_notice_that_has_run_out_is_acted_on(
    alice: Person, charlie: Person, submit: Submit, look: Pass, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the pass to the backend: who was told is asked to end when his notice is over."""
    asked: list[Any] = []

    class Asked:
        def __getattr__(self, name: str) -> Any:
            return lambda *_args, **_more: {}

        def stop(self, attempts: Any) -> None:
            asked.extend(attempts)

        def observe(self, attempts: Any) -> Any:
            from haein.cluster.backends.base import Phase, Sight

            return {pk: Sight(pk, Phase.RUNNING, started_at=0.0) for pk in attempts}

    guarantee(alice, 8)
    submit(charlie, gpus=8)
    look()
    submit(alice, gpus=8)
    look(after_s=600)
    (told,) = Attempt.objects.filter(preempt_at__isnull=False)
    backend: Any = Asked()
    at: datetime = told.preempt_at or look.now
    lifecycle.observe(backend, now=at - timedelta(seconds=1))
    assert asked == []
    lifecycle.observe(backend, now=at)
    assert asked == [told.pk]
