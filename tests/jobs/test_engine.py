"""An engine with a queue of its own may take its time, take nothing, or end what it runs: each leads somewhere."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from billing import metering
from billing.models import Usage
from haein.cluster.backends.base import Capability, Cause, Phase, Sight
from haein.lib import clock
from haein.lib.errors import Invalid
from jobs import lifecycle, preempting, scheduling, services, tasks
from jobs.models import Allocation, Attempt, Job, Spent
from jobs.preempting import Yield
from tests.cast import Person, Program
from tests.jobs.engine import READY, Engine, whole

Submit = Callable[..., Job]


def why(job: Job) -> str:
    job.refresh_from_db()
    return services.why(job)


def test_it_says_what_it_waits_for_while_it_waits(engine: Engine, alice: Person, submit: Submit) -> None:
    job = submit(alice)
    (attempt,) = engine.take()
    engine.look()
    assert why(job) == "Handed to the cluster. Its nodes are busy."
    assert Program(alice).get(f"jobs/{job.pk}").json()["reason"] == why(job)
    assert "Handed to the cluster. Its nodes are busy." in alice.client.get(f"/jobs/{job.pk}/").content.decode()
    engine.sights[attempt.pk] = Sight(attempt.pk, Phase.UNKNOWN, detail="Others go first.")
    engine.look()
    assert why(job).endswith("Others go first.")
    engine.runs(attempt.pk)
    engine.look()
    assert why(job) == "Its process runs on node1."
    assert Attempt.objects.get().waits_for == ""


def test_only_a_change_of_what_they_wait_for_is_written_and_all_at_once(
    engine: Engine, alice: Person, submit: Submit
) -> None:
    for _ in range(5):
        submit(alice)
    engine.take()

    def written() -> list[str]:
        with CaptureQueriesContext(connection) as seen:
            engine.look()
        return [query["sql"] for query in seen if "waits_for = given" in query["sql"]]

    assert (len(written()), len(written())) == (1, 0)
    assert set(Attempt.objects.values_list("waits_for", flat=True)) == {"Its nodes are busy."}


def test_it_is_not_asked_at_once_what_became_of_what_it_was_handed(
    engine: Engine, alice: Person, submit: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It looks at its own queue once a second, and so do we: to ask after each of a thousand launches costs a core."""
    monkeypatch.setattr(tasks, "backend", lambda: engine)
    submit(alice)
    tasks._advance()
    assert len(engine.handed) == 1
    assert Attempt.objects.get().waits_for == ""
    tasks._observe()
    assert Attempt.objects.get().waits_for == "Its nodes are busy."


def test_what_it_says_it_has_is_not_handed_over_again_and_what_it_forgot_is(
    engine: Engine, alice: Person, submit: Submit
) -> None:
    """A job that Slurm had accepted seconds before it crashed is gone with the crash."""
    submit(alice)
    (attempt,) = engine.take()
    engine.look()
    later = clock.now() + timedelta(seconds=60)
    assert lifecycle.launch(engine, now=later) == 0
    del engine.sights[attempt.pk]
    engine.look()
    assert lifecycle.launch(engine, now=later) == 1
    assert [launch.attempt_id for launch in engine.handed] == [attempt.pk] * 2


def test_an_engine_that_does_not_answer_keeps_nobody_waiting_longer_than_the_lease(
    engine: Engine, alice: Person, submit: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit(alice)
    now = clock.now()
    scheduling.run_pass(now=now, ready=READY)
    with monkeypatch.context() as patch:
        patch.setattr(lifecycle, "LAUNCH_LEASE", timedelta(0))
        lifecycle.launch(engine, now=now)
    assert engine.handed == []
    assert lifecycle.launch(engine, now=now + lifecycle.LAUNCH_LEASE / 2) == 0
    assert lifecycle.launch(engine, now=now + 2 * lifecycle.LAUNCH_LEASE) == 1
    assert len(engine.handed) == 1


def test_it_is_told_whose_work_it_is(engine: Engine, alice: Person, submit: Submit) -> None:
    submit(alice)
    engine.take()
    assert [launch.organization_id for launch in engine.handed] == [alice.team.organization_id]


def test_one_that_it_has_not_started_is_cancelled_at_once(engine: Engine, alice: Person, submit: Submit) -> None:
    job = submit(alice)
    engine.take()
    engine.look()
    services.cancel(job, scope=alice.scope)
    engine.look()
    assert (why(job), job.state) == ("Cancelled by Alice.", "cancelled")
    assert Allocation.objects.get().billable_from is None


def taken_back(engine: Engine, job: Job) -> None:
    attempt = job.attempts.get(state="starting")
    engine.sights[attempt.pk] = Sight(
        attempt.pk,
        Phase.ENDED,
        ended_at=clock.now().timestamp(),
        cause=Cause.NOT_TAKEN,
        detail="Slurm said: Resources.",
    )
    engine.look()
    job.refresh_from_db()


def test_what_it_does_not_take_waits_again_in_its_old_place_and_nobody_pays(
    engine: Engine, alice: Person, submit: Submit
) -> None:
    job = submit(alice, retries=0)
    queued_at = job.queued_at
    engine.take()
    taken_back(engine, job)
    attempt = job.attempts.get()
    assert (job.state, job.queued_at, job.failures, job.preemptions) == ("queued", queued_at, 0, 0)
    assert (attempt.state, attempt.cause, attempt.started_at) == ("ended", "not taken", None)
    assert attempt.ended_at is not None
    assert attempt.ended_at is not None
    assert job.not_before == attempt.ended_at + timedelta(seconds=30)
    told = (
        "The cluster did not start it and it was taken back; it waits again, with its old place in the queue."
        f" Slurm said: Resources. It is tried again from {job.not_before:%Y-%m-%d %H:%M:%S} UTC on."
    )
    assert why(job) == told
    assert scheduling.run_pass(now=clock.now(), ready=READY) == 0
    assert why(job) == told, "as long as it rests"
    metering.pull()
    assert not Usage.objects.exists()
    assert not Spent.objects.exists()
    assert not Allocation.objects.filter(waived=True).exists(), "no machine was at fault"
    services.retry(job, scope=alice.scope)
    assert scheduling.run_pass(now=clock.now(), ready=READY) == 1


def test_it_rests_longer_each_time_in_a_row(engine: Engine, alice: Person, submit: Submit) -> None:
    job, rests = submit(alice), []
    for number in range(7):
        services.retry(job, scope=alice.scope) if number else None
        engine.take()
        if number == 5:
            attempt = job.attempts.get(state="starting")
            engine.runs(attempt.pk)
            engine.ends(attempt.pk, Cause.PREEMPTED)
            engine.look()
            job.refresh_from_db()
            Job.objects.update(not_before=clock.now() + timedelta(seconds=9))
            continue
        taken_back(engine, job)
        ended_at = job.attempts.latest("number").ended_at
        assert job.not_before is not None
        assert ended_at is not None
        rests.append(round((job.not_before - ended_at).total_seconds()))
    assert rests == [30, 60, 120, 300, 300, 30]


def test_whoever_is_cancelled_while_it_is_taken_back_is_cancelled(
    engine: Engine, alice: Person, submit: Submit
) -> None:
    job = submit(alice)
    engine.take()
    Job.objects.update(cancel_requested_at=clock.now())
    taken_back(engine, job)
    assert job.state == "cancelled"


@pytest.mark.parametrize(("requeue", "state"), [(True, "queued"), (False, "cancelled")])
def test_what_it_ends_for_others_by_its_own_rules_has_yielded_and_pays_for_what_it_ran(
    engine: Engine, alice: Person, submit: Submit, requeue: bool, state: str
) -> None:
    job = submit(alice, requeue=requeue)
    queued_at = job.queued_at
    (attempt,) = engine.take()
    engine.runs(attempt.pk)
    engine.look()
    engine.ends(attempt.pk, Cause.PREEMPTED)
    engine.look()
    assert why(job).startswith("The cluster ended it for other work, by rules of its own")
    assert (job.state, job.queued_at, job.failures, job.preemptions) == (state, queued_at, 0, 1)
    metering.pull()
    assert Usage.objects.get().seconds == 1


def test_work_lost_to_it_inside_a_guarantee_is_credited_as_any_other(
    engine: Engine, alice: Person, submit: Submit
) -> None:
    submit(alice)
    (attempt,) = engine.take()
    Attempt.objects.update(guaranteed=True)
    engine.runs(attempt.pk)
    engine.ends(attempt.pk, Cause.PREEMPTED)
    engine.look()
    assert Allocation.objects.get().credited_s == 1


def test_what_somebody_ended_with_its_own_tools_is_cancelled(engine: Engine, alice: Person, submit: Submit) -> None:
    job = submit(alice, retries=3)
    (attempt,) = engine.take()
    engine.runs(attempt.pk, whole("node1", 0))
    engine.look()
    engine.ends(attempt.pk, Cause.ENDED_OUTSIDE)
    engine.sights[attempt.pk] = Sight(
        attempt.pk,
        Phase.ENDED,
        started_at=engine.sights[attempt.pk].started_at,
        ended_at=engine.sights[attempt.pk].ended_at,
        cause=Cause.ENDED_OUTSIDE,
        detail="It was cancelled in Slurm by root.",
    )
    engine.look()
    assert (why(job), job.state, job.failures) == ("It was cancelled in Slurm by root.", "cancelled", 0)
    metering.pull()
    assert Usage.objects.get().seconds == 1


@pytest.mark.parametrize("cause", [Cause.PREEMPTED, Cause.ENDED_OUTSIDE])
def test_if_its_end_was_asked_for_before_it_has_yielded_to_whoever_asked(
    engine: Engine, alice: Person, submit: Submit, cause: Cause
) -> None:
    """Also where the engine tells whole seconds alone, so that the end seems to come before the wish."""
    job = submit(alice)
    (attempt,) = engine.take()
    engine.runs(attempt.pk)
    engine.look()
    engine.ends(attempt.pk, cause)
    ended_at = int(engine.sights[attempt.pk].ended_at or 0)
    engine.sights[attempt.pk] = Sight(
        attempt.pk, Phase.ENDED, started_at=ended_at - 1, ended_at=ended_at, cause=cause, detail="By root."
    )
    asked = clock.from_epoch(ended_at + 0.5)
    preempting.warn({attempt.pk: Yield("reclaimed", {"gpus": "1"}, asked)}, now=asked)
    engine.look()
    assert why(job).startswith("It had to yield, and waits again")
    assert (job.state, job.preemptions) == ("queued", 1)


FAULTS: list[tuple[dict[str, Any], str, str]] = [
    ({"share": 250}, "share", "in parts of 100 of 1000. Nearest that fits: a share of 200 or 300 of 1000."),
    ({"share": 30}, "share", "Nearest that fits: a share of 100 of 1000."),
    ({"share": 200, "gpus": 2}, "gpus", "a share of one GPU"),
]


@pytest.mark.parametrize(("asked", "field", "words"), FAULTS)
def test_a_share_that_it_can_not_give_is_refused_at_every_door(
    engine: Engine, alice: Person, submit: Submit, asked: dict[str, Any], field: str, words: str
) -> None:
    engine.share_step = 100
    with pytest.raises(Invalid) as refused:
        submit(alice, **asked)
    assert words in refused.value.fields[field]
    body = {"name": "a", "command": "true", "time_limit_s": 60, **asked}
    for path in ("jobs", "quote"):
        answer = Program(alice).post(path, body).json()
        assert words in str(answer), path


def test_where_no_gpu_is_shared_a_share_is_refused(
    engine: Engine, alice: Person, submit: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "capabilities", engine.capabilities - {Capability.FRACTIONS})
    with pytest.raises(Invalid, match="shares no GPUs"):
        submit(alice, share=500)
    assert submit(alice, gpus=0, share=500).gpus == 0


@pytest.mark.parametrize("asked", [{"share": 300}, {"share": 1000, "gpus": 2}, {"share": 250, "gpus": 0}])
def test_a_share_that_it_can_give_is_not(engine: Engine, alice: Person, submit: Submit, asked: dict[str, Any]) -> None:
    engine.share_step = 100
    assert submit(alice, **asked).state == "queued"
