"""However a job ends, its state is the right one and a person understands why."""

from collections.abc import Callable
from typing import Any

import pytest

from haein.cluster.registry import backend
from jobs import services
from jobs.models import Job
from tests.cast import Person

pytestmark = pytest.mark.usefixtures("cluster")
Submit = Callable[..., Job]


@pytest.mark.parametrize(
    ("command", "limits", "state", "says"),
    [
        ("true", {}, "succeeded", "exit code 0"),
        ("exit 7", {}, "failed", "exit code 7"),
        ("kill -SEGV $$", {}, "failed", "SEGV"),
        ("no-such-program --fast", {}, "failed", "not found"),
        ("sleep 60", {"time_limit_s": 1}, "timed_out", "time limit of 0:00:01"),
        (
            "exec python -c 'import time; x = bytearray(400 << 20); time.sleep(600)'",
            {"memory_mb": 128},
            "failed",
            "memory",
        ),
    ],
)
def test_the_end_is_explained(
    alice: Person, submit: Submit, finish: Any, command: str, limits: dict[str, Any], state: str, says: str
) -> None:
    job = finish(submit(alice, command=command, **limits))
    assert (job.state, says.lower() in services.why(job).lower()) == (state, True), services.why(job)
    assert job.events.order_by("id").last().new_state == state
    assert job.started_at is not None
    assert job.started_at <= job.ended_at


def test_the_moves_of_a_good_day_are_all_on_record(alice: Person, submit: Submit, finish: Any) -> None:
    job = finish(submit(alice, command="echo hello"))
    kinds = list(job.events.order_by("id").values_list("kind", "old_state", "new_state"))
    assert kinds == [
        ("submit", "", "queued"),
        ("place", "queued", "starting"),
        ("run", "starting", "running"),
        ("succeed", "running", "succeeded"),
    ]
    attempt = job.attempts.get()
    assert (job.started_at, job.ended_at) == (attempt.started_at, attempt.ended_at)
    assert [line.text for line in backend().log_stream(attempt.pk) if line.stream == "out"] == ["hello"]
