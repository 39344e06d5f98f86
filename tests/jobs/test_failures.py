"""What failed is tried again if that may help, after a rest that grows; whoever knows better tries it at once."""

import uuid
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest

from haein.cluster.backends.base import Cause, Phase, Sight
from haein.lib import clock
from haein.lib.errors import Forbidden, Problem
from jobs import failures, lifecycle, scheduling, services
from jobs.failures import Failure
from jobs.models import Attempt, Job
from tests.cast import Person

Submit = Callable[..., Job]
PYTHON = frozenset({"python"})


@pytest.fixture
def fails(big: None, monkeypatch: pytest.MonkeyPatch) -> Callable[..., datetime]:
    """fails(job, cause=...): the job is placed, runs, and ends so. Returns when."""
    monkeypatch.setattr(failures, "FIRST_REST_S", 10.0)

    def failed(job: Job, **seen: Any) -> datetime:
        job.refresh_from_db()
        now = max(clock.now(), job.not_before or clock.now()) + timedelta(seconds=1)
        assert scheduling.run_pass(now=now, ready=PYTHON) == 1
        attempt = Attempt.objects.exclude(state="ended").get(job=job)
        end = Sight(attempt.pk, Phase.ENDED, started_at=now.timestamp(), ended_at=now.timestamp(), **seen)
        lifecycle._begin([end], now)
        lifecycle._end([end], now)
        job.refresh_from_db()
        return now

    return failed


@pytest.mark.parametrize(
    ("sight", "failure"),
    [
        ({"cause": Cause.LOST}, Failure.TRANSIENT),
        ({"cause": Cause.EXITED, "exit_code": 75}, Failure.TRANSIENT),
        ({"cause": Cause.EXITED, "exit_code": 126}, Failure.USER),
        ({"cause": Cause.EXITED, "exit_code": 127}, Failure.USER),
        ({"cause": Cause.NOT_STARTED}, Failure.USER),
        ({"cause": Cause.MEMORY_LIMIT}, Failure.USER),
        ({"cause": Cause.TIME_LIMIT}, Failure.USER),
        ({"cause": Cause.EXITED, "exit_code": 1}, Failure.UNKNOWN),
        ({"cause": Cause.SIGNALLED, "signal": 11}, Failure.UNKNOWN),
        ({"cause": Cause.STOPPED}, Failure.UNKNOWN),
    ],
)
def test_whose_failure_it_was(sight: dict[str, Any], failure: Failure) -> None:
    assert failures.classify(Sight(uuid.uuid4(), Phase.ENDED, **sight)) is failure


def test_the_rest_doubles_up_to_ten_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failures, "FIRST_REST_S", 10.0)
    assert [failures.rest_s(n) for n in range(9)] == [0, 10, 20, 40, 80, 160, 320, 600, 600]


@pytest.mark.parametrize("code", [1, 75])
def test_it_rests_before_it_is_tried_again_and_says_until_when(
    alice: Person, submit: Submit, fails: Callable[..., datetime], code: int
) -> None:
    job = submit(alice, retries=2)
    at = fails(job, cause=Cause.EXITED, exit_code=code)
    until = at + timedelta(seconds=10)
    assert (job.state, job.failures) == ("queued", 1)
    assert job.not_before == until
    assert f"tried again from {until:%Y-%m-%d %H:%M:%S} UTC" in services.why(job)
    assert scheduling.run_pass(now=until - timedelta(seconds=1), ready=PYTHON) == 0
    job.refresh_from_db()
    assert job.reason == "resting"
    assert f"until {until:%Y-%m-%d %H:%M:%S} UTC" in services.why(job)
    at = fails(job, cause=Cause.EXITED, exit_code=code)
    assert job.not_before == at + timedelta(seconds=20)
    fails(job, cause=Cause.EXITED, exit_code=code)
    assert (job.state, job.failures) == ("failed", 3)
    assert job.not_before is None


@pytest.mark.parametrize(
    "seen", [{"cause": Cause.MEMORY_LIMIT, "detail": "Too much."}, {"cause": Cause.EXITED, "exit_code": 127}]
)
def test_what_would_end_the_same_is_not_tried_again(
    alice: Person, submit: Submit, fails: Callable[..., datetime], seen: dict[str, Any]
) -> None:
    job = submit(alice, retries=5)
    fails(job, **seen)
    assert (job.state, job.attempts_made) == ("failed", 1)
    assert "would end the same" in services.why(job)


def test_a_lost_machine_is_made_up_for_at_once_and_later_after_a_rest(
    alice: Person, submit: Submit, fails: Callable[..., datetime]
) -> None:
    job = submit(alice)
    fails(job, cause=Cause.LOST)
    assert (job.state, job.not_before, job.failures) == ("queued", None, 0)
    at = fails(job, cause=Cause.LOST)
    assert job.not_before == at + timedelta(seconds=10)


def test_whoever_may_change_it_tries_it_at_once(
    alice: Person, bob: Person, vera: Person, submit: Submit, fails: Callable[..., datetime]
) -> None:
    job = submit(alice, retries=1)
    at = fails(job, cause=Cause.EXITED, exit_code=1)
    with pytest.raises(Forbidden):
        services.retry(job, scope=vera.scope)
    services.retry(job, scope=bob.scope)
    job.refresh_from_db()
    assert (job.state, job.reason, job.failures) == ("queued", "new", 1)
    assert job.events.get(reason="hurried").actor_name == "Bob"
    assert scheduling.run_pass(now=at, ready=PYTHON) == 1
    with pytest.raises(Problem, match="has not ended"):
        services.retry(job, scope=bob.scope)
