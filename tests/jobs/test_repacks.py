"""A repack: proposed while somebody waits for want of room, approved by an operator, and seen through."""

from collections.abc import Callable
from datetime import datetime, timedelta

import pytest

from haein.cluster.backends.base import Cause
from haein.cluster.models import Device
from haein.lib import clock
from haein.lib.errors import NotFound, Problem
from haein.tenants.models import AuditEntry
from jobs import repacks, services
from jobs.models import Attempt, Claim, Job, Repack
from jobs.repacks import Plan, Step
from tests.cast import Person, together
from tests.jobs.repacking import begin, end, look, scattered

Submit = Callable[..., Job]
State = Repack.State


@pytest.fixture
def apart(db: None, alice: Person, submit: Submit) -> Job:
    return scattered(alice, submit)


def proposed(now: datetime | None = None) -> Repack:
    found = repacks.look(now=now or clock.now())
    assert found
    return found


def test_it_says_what_moves_where_and_what_that_loses_and_gains(apart: Job) -> None:
    found = proposed()
    plan = Plan.of(found)
    assert (found.job, found.state) == (apart, State.PROPOSED)
    assert len(plan.moves) == 1
    mover = Attempt.objects.get(pk=plan.moves[0].attempt)
    assert mover.checkpoint_at
    assert plan.moves[0].old.startswith(mover.node.name)
    assert not plan.moves[0].new.startswith(mover.node.name)
    assert plan.where == f"{mover.node.name}/gpu0-3"
    # A minute since its checkpoint and two for a restart, of two GPUs.
    assert found.lost_s == pytest.approx(360, abs=10)
    # Of four GPUs for the 23 hours that the limit leaves, less the notice.
    assert found.gained_s == pytest.approx(4 * 23 * 3600, rel=0.01)


def test_the_same_proposal_stays_and_another_takes_its_place(apart: Job) -> None:
    found = proposed()
    assert proposed() == found
    mover = Attempt.objects.get(pk=Plan.of(found).moves[0].attempt)
    Job.objects.filter(pk=mover.job_id).update(checkpoints=False)
    other = proposed()
    found.refresh_from_db()
    assert (found.state, found.ended_at is not None) == (State.OUTDATED, True)
    assert Plan.of(other).moves[0].attempt != str(mover.pk)
    Job.objects.update(checkpoints=False)
    assert repacks.look(now=clock.now()) is None
    assert not Repack.objects.filter(state=State.PROPOSED).exists()


def test_it_is_approved_and_all_run_where_it_said(apart: Job, oda: Person, alice: Person, submit: Submit) -> None:
    now = clock.now()
    found = proposed(now)
    plan = Plan.of(found)
    repacks.approve(found.pk, by=oda.user, now=now)
    found.refresh_from_db()
    assert (found.state, found.decided_by) == (State.MOVING, oda.user)
    mover = Attempt.objects.get(pk=plan.moves[0].attempt)
    assert (mover.preempt_code, mover.preempted_for) == ("moved", apart)
    assert AuditEntry.objects.get(action="repack.approve").target == str(found.pk)
    assert repacks.steps(found) == {apart.pk: Step.WAITS, mover.job_id: Step.LEAVES}
    # Nobody gets in between while they make way.
    small = submit(alice, name="small", gpus=2, priority=9)
    look(now + timedelta(seconds=30))
    small.refresh_from_db()
    assert small.state == "queued"
    later = now + timedelta(seconds=61)
    end(mover, later)
    assert repacks.steps(found)[mover.job_id] is Step.WAITS
    look(later)
    assert set(repacks.steps(found).values()) == {Step.STARTS}
    begin(later)
    look(later)
    found.refresh_from_db()
    assert (found.state, found.problem) == (State.DONE, "")
    nodes = dict(Attempt.objects.exclude(state="ended").values_list("job__name", "node__name"))
    assert nodes["large"] == plan.where.split("/")[0]
    assert nodes[mover.job.name] == plan.moves[0].new.split("/")[0]
    assert not Claim.objects.filter(kind__in=["move", "reclaim"]).exists()


def test_one_that_ends_by_itself_is_as_good_as_moved(apart: Job, oda: Person) -> None:
    now = clock.now()
    found = repacks.approve(proposed(now).pk, by=oda.user, now=now)
    mover = Attempt.objects.get(pk=Plan.of(found).moves[0].attempt)
    end(mover, now, Cause.EXITED, 0)
    look(now)
    begin(now)
    look(now)
    found.refresh_from_db()
    assert found.state == State.DONE
    assert not Claim.objects.exists()


def test_it_fails_when_one_that_moves_is_cancelled(apart: Job, oda: Person, alice: Person) -> None:
    now = clock.now()
    found = repacks.approve(proposed(now).pk, by=oda.user, now=now)
    mover = Attempt.objects.get(pk=Plan.of(found).moves[0].attempt)
    services.cancel(mover.job, scope=alice.scope)
    end(mover, now)
    repacks.follow(now=now)
    found.refresh_from_db()
    assert (found.state, found.problem) == (State.FAILED, f"{mover.job.name} ended before it ran at its new place.")
    assert not Claim.objects.exists()


def test_it_fails_and_who_was_told_may_stay_when_the_one_that_waits_is_cancelled(
    apart: Job, oda: Person, alice: Person
) -> None:
    now = clock.now()
    found = repacks.approve(proposed(now).pk, by=oda.user, now=now)
    services.cancel(apart, scope=alice.scope)
    look(now)
    found.refresh_from_db()
    assert (found.state, found.problem) == (State.FAILED, "large ended before it ran at its new place.")
    assert not Attempt.objects.exclude(preempt_at=None).exists()


def test_it_fails_when_a_place_goes_out_of_service(apart: Job, oda: Person) -> None:
    now = clock.now()
    found = repacks.approve(proposed(now).pk, by=oda.user, now=now)
    mover = Attempt.objects.get(pk=Plan.of(found).moves[0].attempt)
    device = Plan.of(found).moves[0].places[0][1][0]
    Device.objects.filter(pk=device).update(present=False)
    end(mover, now)
    look(now)
    found.refresh_from_db()
    assert found.state == State.FAILED
    assert "lost the room" in found.problem


def test_nothing_is_moved_when_the_cluster_has_changed(apart: Job, oda: Person, alice: Person, submit: Submit) -> None:
    found = proposed()
    Claim.objects.all().delete()
    submit(alice, name="quick", gpus=2, priority=99)
    Job.objects.filter(name="large").update(reason="suspended")
    with pytest.raises(Problem, match="has changed"):
        repacks.approve(found.pk, by=oda.user, now=clock.now())
    found.refresh_from_db()
    assert found.state == State.OUTDATED
    assert not Attempt.objects.exclude(preempt_at=None).exists()
    with pytest.raises(Problem, match="not proposed any more"):
        repacks.approve(found.pk, by=oda.user, now=clock.now())


def test_what_was_rejected_is_not_proposed_again_for_an_hour(apart: Job, oda: Person) -> None:
    now = clock.now()
    found = repacks.reject(proposed(now).pk, by=oda.user, now=now)
    assert (found.state, found.decided_by) == (State.REJECTED, oda.user)
    assert AuditEntry.objects.filter(action="repack.reject").count() == 1
    assert repacks.look(now=now) is None
    assert proposed(now + timedelta(hours=2)).job == apart


def test_whoever_is_no_operator_is_told_that_there_is_none(apart: Job, alice: Person) -> None:
    found = proposed()
    for verb in (repacks.approve, repacks.reject):
        with pytest.raises(NotFound):
            verb(found.pk, by=alice.user, now=clock.now())
    assert not repacks.newest(by=alice.user).exists()


@pytest.mark.django_db(transaction=True)
def test_of_two_who_decide_at_once_one_does(apart: Job, oda: Person) -> None:
    found = proposed()

    def decide(number: int) -> bool:
        verb = repacks.approve if number % 2 else repacks.reject
        try:
            verb(found.pk, by=oda.user, now=clock.now())
        except Problem:
            return False
        return True

    assert sum(together(decide, 4)) == 1
    found.refresh_from_db()
    told = Attempt.objects.exclude(preempt_at=None).count()
    assert (found.state, told) in {(State.MOVING, 1), (State.REJECTED, 0)}
    assert AuditEntry.objects.filter(action__startswith="repack.").count() == 1
