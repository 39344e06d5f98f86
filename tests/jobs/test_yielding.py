"""What must yield is told, saves its work, ends, and comes back to it with its old place in the queue."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import PurePosixPath
from typing import Any

import pytest
from django.db.models import F

from billing import metering
from billing.models import Usage
from haein.cluster.backends.base import Cause, Phase, Sight
from haein.cluster.registry import backend
from haein.lib import clock
from jobs import lifecycle, preempting, scheduling, services, verdicts, wording
from jobs.models import Allocation, Attempt, Job, Quota
from jobs.preempting import Yield
from jobs.states import Event as Kind
from tests.cast import Person, until

pytestmark = pytest.mark.usefixtures("cluster")
Submit = Callable[..., Job]
SAVES = """
test -e step && { echo "back at step $(cat step)"; exit 0; }
trap 'echo 7 > step; touch "$HAEIN_CHECKPOINT"' USR1
touch ready
while :; do sleep 0.05; done
"""
DEAF = "trap '' USR1 TERM; touch ready; while :; do sleep 0.05; done"


def told(attempt: Attempt, seconds: float = 5.0) -> None:
    now = clock.now()
    notice = Yield("reclaimed", {"gpus": "1"}, now + timedelta(seconds=seconds))
    assert preempting.warn({attempt.pk: notice}, now=now) == [attempt.pk]


@pytest.fixture
def ready(submit: Submit, alice: Person, drive: Any) -> Callable[..., Job]:
    """ready(command): a job of Alice's that runs and has set its traps."""

    def made(command: str, **asked: Any) -> Job:
        job = submit(alice, command=command, **asked)
        drive(lambda: job.attempts.filter(state="running").exists())
        until(lambda: any(fact.path.name == "ready" for fact in backend().list_files(job.pk, PurePosixPath())))
        job.refresh_from_db()
        return job

    return made


def test_it_saves_when_it_is_told_and_returns_to_what_it_saved(ready: Callable[..., Job], finish: Any) -> None:
    job = ready(SAVES, checkpoints=True)
    told(job.attempts.get())
    queued_at = job.queued_at
    finish(job)
    first, second = job.attempts.order_by("number")
    assert (job.state, job.preemptions, job.failures, job.queued_at) == ("succeeded", 1, 0, queued_at)
    assert (first.cause, second.cause, second.exit_code) == ("stopped", "exited", 0)
    moments = [first.placed_at, first.warned_at, first.checkpoint_at, first.preempt_at, first.ended_at]
    assert moments == sorted(moments)
    assert [line.text for line in backend().log_stream(second.pk) if line.stream == "out"] == ["back at step 7"]
    assert job.events.get(kind="preempt").old_state == "running"
    (event,) = job.events.filter(reason="preempted")
    said = wording.sentence(event.reason, event.reason_values)
    assert "its old place in the queue" in said
    assert f"last saved at {preempting.said(first.checkpoint_at)}" in said
    assert "not charged" not in said  # it was on borrowed room


def test_one_that_listens_to_nothing_is_killed_after_the_grace_and_ends_where_that_was_asked(
    ready: Callable[..., Job], finish: Any
) -> None:
    job = ready(DEAF, checkpoints=True, requeue=False)
    told(job.attempts.get(), 1)
    finish(job)
    attempt = job.attempts.get()
    assert (job.state, attempt.cause, attempt.checkpoint_at) == ("cancelled", "stopped", None)
    assert attempt.ended_at is not None
    assert attempt.preempt_at is not None
    assert attempt.ended_at - attempt.preempt_at >= timedelta(seconds=0.9)  # the grace
    assert "was not to be queued again" in services.why(job)
    assert job.events.get(kind="cancel").actor_name == ""


def test_a_job_that_does_not_know_the_signal_runs_until_its_end_is_asked_for(
    ready: Callable[..., Job], drive: Any
) -> None:
    job = ready("touch ready; exec sleep 600")
    told(job.attempts.get(), 1)
    drive(lambda: Job.objects.get(pk=job.pk).attempts_made == 2)
    first = job.attempts.order_by("number")[0]
    assert (first.cause, first.signal) == ("stopped", 15)
    assert job.attempts.filter(ended_at__gte=F("preempt_at")).count() == 1


def test_whoever_finishes_in_the_meantime_has_succeeded(ready: Callable[..., Job], finish: Any) -> None:
    job = ready("trap 'exit 0' USR1; touch ready; while :; do sleep 0.05; done", checkpoints=True)
    told(job.attempts.get(), 60)
    finish(job)
    assert (job.state, job.preemptions, job.attempts_made) == ("succeeded", 0, 1)


def test_whoever_saves_and_leaves_early_has_yielded(ready: Callable[..., Job], drive: Any) -> None:
    job = ready("trap 'exit 3' USR1; touch ready; while :; do sleep 0.05; done", checkpoints=True)
    told(job.attempts.get(), 60)
    drive(lambda: Job.objects.get(pk=job.pk).preemptions)
    job.refresh_from_db()
    assert (job.failures, job.attempts.order_by("number")[0].exit_code) == (0, 3)


def test_a_notice_that_is_called_off_ends_nothing_and_may_come_again(ready: Callable[..., Job], drive: Any) -> None:
    job = ready(SAVES, checkpoints=True)
    attempt = job.attempts.get()
    told(attempt, 60)
    drive(lambda: Attempt.objects.get(pk=attempt.pk).checkpoint_at)
    assert preempting.withdraw([attempt.pk], now=clock.now()) == [attempt.pk]
    first = Attempt.objects.get(pk=attempt.pk).checkpoint_at
    assert lifecycle.observe(backend(), now=clock.now() + timedelta(seconds=61)) == [attempt.pk]
    told(attempt, 60)
    drive(lambda: Attempt.objects.filter(pk=attempt.pk, checkpoint_at__gt=first).exists())


def test_a_cancel_by_a_person_wins(ready: Callable[..., Job], alice: Person, finish: Any) -> None:
    job = ready(DEAF)
    told(job.attempts.get(), 1)
    services.cancel(job, scope=alice.scope)
    finish(job)
    assert (job.state, job.preemptions) == ("cancelled", 0)
    assert services.why(job) == "Cancelled by Alice."


def test_one_that_was_not_launched_yet_waits_again_without_having_run(alice: Person, submit: Submit) -> None:
    job = submit(alice)
    now = clock.now()
    scheduling.run_pass(now=now, ready=frozenset({"python"}))
    told(job.attempts.get(), 0)
    assert lifecycle.launch(backend(), now=now + timedelta(seconds=1)) == 0
    lifecycle.observe(backend(), now=now + timedelta(seconds=1))
    job.refresh_from_db()
    assert (job.state, job.preemptions, job.attempts.get().started_at) == ("queued", 1, None)
    assert Allocation.objects.get().ended_at is not None


def test_lent_gpus_go_back_to_whoever_is_guaranteed_them_and_then_return(
    ready: Callable[..., Job], charlie: Person, submit: Submit, drive: Any, finish: Any, settings: Any
) -> None:
    """The whole story on real processes: borrowed, claimed back, saved, left, and gone on from the checkpoint."""
    settings.HAEIN_PREEMPTION_MIN_RUN_SECONDS, settings.HAEIN_PREEMPTION_NOTICE_SECONDS = 0, 5
    team = charlie.team
    Quota.objects.create(organization=team.organization, team=team, guaranteed=8000)
    borrows = ready(SAVES, checkpoints=True, gpus=8)
    assert not borrows.attempts.get().guaranteed
    owns = submit(charlie, command="exec sleep 1", gpus=8)
    finish(owns)
    finish(borrows)
    first, second = borrows.attempts.order_by("number")
    own = owns.attempts.get()
    assert (first.preempt_code, first.preempted_for, own.guaranteed) == ("reclaimed", owns, True)
    assert first.checkpoint_at is not None
    moments = [first.ended_at, own.placed_at, own.ended_at, second.placed_at]
    assert moments == sorted(moments)
    assert [line.text for line in backend().log_stream(second.pk) if line.stream == "out"] == ["back at step 7"]
    assert (borrows.state, borrows.preemptions, owns.preemptions) == ("succeeded", 1, 0)
    assert "Chaos" not in str(
        list(borrows.events.values_list("reason_values"))
    )  # whose job it was is nobody's business


@pytest.mark.parametrize(
    ("sight", "warned", "kind"),
    [
        ({"cause": Cause.STOPPED}, False, Kind.PREEMPT),
        ({"cause": Cause.SIGNALLED, "signal": 15}, True, Kind.PREEMPT),
        ({"cause": Cause.EXITED, "exit_code": 1}, True, Kind.PREEMPT),
        ({"cause": Cause.EXITED, "exit_code": 1}, False, Kind.FAIL),
        ({"cause": Cause.EXITED, "exit_code": 0}, True, Kind.SUCCEED),
        ({"cause": Cause.TIME_LIMIT}, True, Kind.TIME_OUT),
        ({"cause": Cause.MEMORY_LIMIT}, True, Kind.FAIL),
        ({"cause": Cause.LOST}, True, Kind.REQUEUE),
    ],
)
def test_the_end_of_one_that_had_notice(
    alice: Person, submit: Submit, sight: dict[str, Any], warned: bool, kind: Kind
) -> None:
    """Before it was told, an end is its own doing."""
    submit(alice)
    now = clock.now()
    scheduling.run_pass(now=now, ready=frozenset({"python"}))
    attempt = Attempt.objects.get()
    attempt.preempt_at, attempt.preempt_code, attempt.preempt_values = now, "reclaimed", {"gpus": "1"}
    attempt.ended_at, attempt.warned_at = now, now if warned else None
    assert verdicts.of(attempt, Sight(attempt.pk, Phase.ENDED, **sight)).kind is kind


def test_whoever_is_stopped_while_the_notice_is_called_off_waits_again(alice: Person, submit: Submit) -> None:
    """A pass that takes long calls it off by an older clock than the one that has just asked for the end."""
    job = submit(alice)
    now = clock.now()
    scheduling.run_pass(now=now, ready=frozenset({"python"}))
    attempt = job.attempts.get()
    told(attempt, 1)
    preempting.withdraw([attempt.pk], now=clock.now())
    lifecycle._end([Sight(attempt.pk, Phase.ENDED, ended_at=now.timestamp() + 2, cause=Cause.STOPPED)], now)
    job.refresh_from_db()
    assert (job.state, job.failures) == ("queued", 0)
    assert services.why(job) == "It had to yield, and waits again, with its old place in the queue."


@pytest.mark.parametrize(
    ("guaranteed", "saved_s", "credited_s"),
    [
        (True, None, 600),  # since it began
        (True, -50, 600),  # what it goes on from was saved before it began
        (True, 400, 200),
        (True, 600, 0),
        (False, None, 0),
    ],
)
def test_what_is_lost_inside_a_guarantee_is_the_operators(
    alice: Person, submit: Submit, settings: Any, guaranteed: bool, saved_s: int | None, credited_s: int
) -> None:
    """A run of ten minutes: by the checkpoint, to the second, and never more than the setting says."""
    job = submit(alice, gpus=2)
    start = clock.now() - timedelta(seconds=600)
    scheduling.run_pass(now=start, ready=frozenset({"python"}))
    Attempt.objects.update(guaranteed=guaranteed, preempt_at=start, preempt_code="maintenance")
    Attempt.objects.update(preempt_values={"nodes": "node1", "at": "noon"})
    sight = Sight(
        Attempt.objects.get().pk,
        Phase.ENDED,
        started_at=start.timestamp(),
        ended_at=start.timestamp() + 600,
        cause=Cause.STOPPED,
        checkpointed_at=None if saved_s is None else start.timestamp() + saved_s,
    )
    lifecycle._begin([sight], start)
    lifecycle._end([sight], clock.now())
    assert set(Allocation.objects.values_list("credited_s", flat=True)) == {credited_s}
    metering.pull()
    assert sum(Usage.objects.values_list("seconds", flat=True)) == 2 * (600 - credited_s)
    assert ("not charged" in services.why(Job.objects.get(pk=job.pk))) == bool(credited_s)

    settings.HAEIN_PREEMPTION_CREDIT_MINUTES = 1
    attempt = Attempt.objects.get()
    assert verdicts.of(attempt, sight).credited_s == min(credited_s, 60)
