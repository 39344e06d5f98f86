"""Another run: because somebody asked, because retries are left, or as a new job like the old one."""

from collections.abc import Callable
from io import BytesIO
from typing import Any

import pytest

from haein.lib.errors import Problem
from jobs import services, uploads
from jobs.models import Job
from tests.cast import Person

pytestmark = pytest.mark.usefixtures("cluster")
Submit = Callable[..., Job]


def test_a_retry_finds_what_the_last_run_left(alice: Person, submit: Submit, finish: Any) -> None:
    job = finish(submit(alice, command="test -e checkpoint || { touch checkpoint; exit 3; }"))
    assert job.state == "failed"
    services.retry(job, scope=alice.scope)
    job.refresh_from_db()
    assert (job.state, job.started_at, job.ended_at, services.why(job)) == (
        "queued",
        None,
        None,
        "Alice asked for another run.",
    )
    finish(job)
    assert job.state == "succeeded"
    assert list(job.attempts.order_by("number").values_list("number", "exit_code")) == [(1, 3), (2, 0)]


def test_a_job_that_has_not_ended_is_not_run_again(alice: Person, submit: Submit) -> None:
    with pytest.raises(Problem, match="cancel it first, or clone it"):
        services.retry(submit(alice), scope=alice.scope)


def test_it_is_run_again_by_itself_as_often_as_was_allowed(alice: Person, submit: Submit, finish: Any) -> None:
    job = finish(submit(alice, command="exit 5", retries=2))
    assert (job.state, job.attempts_made, job.failures) == ("failed", 3, 3)
    said = [event.reason_values.get("failure") for event in job.events.filter(reason="requeued").order_by("id")]
    assert said == [1, 2]


def test_an_allowed_failure_that_is_followed_by_success_is_a_success(
    alice: Person, submit: Submit, finish: Any
) -> None:
    job = finish(submit(alice, command='test "$HAEIN_ATTEMPT" = 2', retries=5))
    assert (job.state, job.attempts_made) == ("succeeded", 2)


def test_after_a_retry_by_hand_the_allowance_is_whole_again(alice: Person, submit: Submit, finish: Any) -> None:
    job = finish(submit(alice, command="exit 5", retries=1))
    services.retry(job, scope=alice.scope)
    finish(job)
    assert job.attempts_made == 4


def test_a_command_that_can_not_be_started_is_not_tried_again(alice: Person, submit: Submit, finish: Any) -> None:
    broken = uploads.keep(BytesIO(b"not a zip"), team=alice.team, name="broken.zip", size=9)
    job = finish(submit(alice, upload=broken, retries=3))
    assert (job.state, job.attempts_made) == ("failed", 1)


def test_a_clone_has_the_spec_and_the_file_and_a_life_of_its_own(alice: Person, bob: Person, submit: Submit) -> None:
    file = uploads.keep(BytesIO(b"print(1)"), team=alice.team, name="a.py", size=8)
    asked: dict[str, Any] = {
        "gpus": 2,
        "share": 250,
        "retries": 3,
        "tags": ["x"],
        "variables": {"A": "b"},
        "priority": 5,
    }
    asked |= {"preemption": "never", "checkpoints": True, "requeue": False}
    first = submit(alice, upload=file, **asked)
    spec = services.spec_of(first)
    second = services.submit(scope=bob.scope, spec=spec, upload=first.upload, cloned_from=first)
    assert services.spec_of(second) == spec
    assert (second.cloned_from, second.upload, second.submitted_by) == (first, file, bob.user)
    assert second.pk != first.pk
